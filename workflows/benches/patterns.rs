//! How many events a second are matched against 1, 100 and 1,000 patterns, one after the other and as a set. Prints a
//! table; judges nothing. `cargo bench -p refit-workflows --bench patterns` runs it.
//!
//! Machines differ and are noisy: read the ratios, not the rates. Each figure is the median of several rounds, both
//! ways in turn. Events are parsed already, and have about 1 KiB as JSON.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has nobody to tell but its terminal")]
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use refit_workflows::pattern::{Pattern, PatternSet};
use serde_json::{Value, json};

/// Rounds of each measurement; odd, so that there is a middle one.
const ROUNDS: usize = 7;
/// The least time of one round of one way.
const ROUND: Duration = Duration::from_millis(200);
/// Different events, taken in turn.
const EVENTS: usize = 200;

/// The pattern of the trigger of this number.
type Trigger = fn(usize) -> Value;

fn main() {
    let events: Vec<Value> = (0..EVENTS).map(event).collect();
    let bytes: usize = events.iter().map(|event| event.to_string().len()).sum();
    println!("events of {} bytes on average\n", bytes / EVENTS);
    println!(
        "| triggers | patterns | matches per event | one by one, events/s | set, events/s | set / one by one |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let ways: [(&str, Trigger); 2] = [("mixed", mixed), ("one type, many tables", tables)];
    for (name, trigger) in ways {
        for count in [1, 100, 1000] {
            let parsed = (0..count).map(|n| Pattern::parse(&trigger(n)).expect("the pattern is sound"));
            let patterns: Vec<Pattern> = parsed.collect();
            let set = PatternSet::new(patterns.clone());
            let one_by_one = |event: &Value| -> Vec<usize> {
                (0..count).filter(|&index| patterns[index].matches(event)).collect()
            };
            let matches: usize = events.iter().map(|event| set.matching(event).len()).sum();
            assert_eq!(
                matches,
                events.iter().map(|event| one_by_one(event).len()).sum::<usize>(),
                "they disagree"
            );

            let (mut slow, mut fast) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                slow.push(rate(&events, one_by_one));
                fast.push(rate(&events, |event| set.matching(event)));
            }
            let (slow, fast) = (median(slow), median(fast));
            let each = matches as f64 / EVENTS as f64;
            println!("| {name} | {count} | {each:.1} | {slow:.0} | {fast:.0} | {:.1} |", fast / slow);
        }
    }
}

/// Events a second.
fn rate(events: &[Value], matching: impl Fn(&Value) -> Vec<usize>) -> f64 {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < ROUND {
        for event in events {
            black_box(matching(black_box(event)));
        }
        done += events.len();
    }
    done as f64 / started.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A CloudEvent of about 1 KiB about one of 250 tables.
fn event(n: usize) -> Value {
    let columns: Vec<Value> = (0..9)
        .map(|c| json!({"name": format!("column_{c}"), "kind": "double", "missing": c * n, "changed": c % 3 == 0}))
        .collect();
    json!({
        "specversion": "1.0",
        "id": format!("0198f2c4-7d1e-7000-8000-{n:012}"),
        "source": format!("warehouse/{}", n % 20),
        "type": format!("dataset.{}", ["updated", "created", "validated", "dropped"][n % 4]),
        "subject": format!("lake/region-{}/table_{}", n % 10, n % 250),
        "time": "2026-03-01T04:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "table": format!("table_{}", n % 250),
            "region": format!("region-{}", n % 10),
            "rows": n * 997,
            "bytes": n * 1_000_003,
            "path": format!("s3://lake/table_{}/part-{n}.parquet", n % 250),
            "host": format!("10.0.{}.{}", n % 4, n % 250),
            "tags": ["raw", "daily", format!("team-{}", n % 30)],
            "columns": columns,
        },
    })
}

/// What triggers usually ask for.
fn mixed(n: usize) -> Value {
    let table = format!("table_{}", n % 250);
    let kind = format!("dataset.{}", ["updated", "created", "validated", "dropped"][n % 4]);
    match n % 8 {
        0 => json!({"type": [kind], "data": {"table": [table]}}),
        1 => json!({"type": [kind], "source": [format!("warehouse/{}", n % 20)],
                    "data": {"rows": [{"numeric": [">", n * 100, "<=", n * 100 + 5000]}]}}),
        2 => json!({"subject": [{"prefix": format!("lake/region-{}/{table}", n % 10)}]}),
        3 => {
            json!({"type": [{"prefix": "dataset."}], "data": {"table": [table, format!("table_{}", n % 100)]}})
        }
        4 => {
            json!({"type": [kind], "data": {"path": [{"wildcard": format!("s3://lake/{table}/*.parquet")}]}})
        }
        5 => json!({"type": ["dataset.updated"], "data": {"tags": [format!("team-{}", n % 30)],
                    "region": [{"anything-but": ["region-0", "region-1"]}]}}),
        6 => {
            json!({"type": [kind], "$or": [{"data": {"table": [table]}}, {"source": [format!("import/{n}")]}]})
        }
        _ => json!({"type": [kind], "data": {"table": [{"equals-ignore-case": table.to_uppercase()}],
                    "dropped_at": [{"exists": false}]}}),
    }
}

/// The worst habit: all ask for the same type, and differ deeper down.
fn tables(n: usize) -> Value {
    json!({"type": ["dataset.updated"], "data": {"table": [format!("table_{n}")], "rows": [{"numeric": [">", 0]}]}})
}
