//! The pattern language by cases (`cases.jsonl`), its errors, and its bounds. Random patterns are in `random`.

mod random;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Deserialize)]
struct Case {
    case: String,
    pattern: Value,
    event: Value,
    expect: String,
    /// What EventBridge says, where that is something else.
    eventbridge: Option<String>,
}

/// The cases that EventBridge decides otherwise; the module's documentation says why.
const DIFFERENCES: [&str; 8] = [
    "a dot in a name is a dot",
    "cidr with a leading zero",
    "cidr with a sign",
    "cidr with a trailing slash",
    "cidr of one address",
    "cidr of one IPv6 address",
    "cidr with further bits set",
    "a value beside $or and another inside must both hold",
];

#[test]
fn patterns_match_as_the_language_says() {
    let mut wrong = Vec::new();
    let mut different = Vec::new();
    let mut count = 0;
    for line in include_str!("cases.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let came = match Pattern::parse(&case.pattern) {
            Err(_) => "refused",
            Ok(pattern) if pattern.matches(&case.event) => "match",
            Ok(_) => "no match",
        };
        count += 1;
        if came != case.expect {
            wrong.push(format!("{}: {came} instead of {}", case.case, case.expect));
        }
        if case.eventbridge.is_some_and(|eventbridge| eventbridge != case.expect) {
            different.push(case.case);
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(different, DIFFERENCES);
    assert!(count >= 190, "only {count} cases");
}

#[test]
fn errors_name_the_place_and_the_way_out() {
    for (pattern, path, message) in [
        (
            json!({"data": {"rows": [{"numeric": ["<", 5, ">", 0]}]}}),
            vec!["data", "rows", "0"],
            "lower one, then an upper",
        ),
        (json!({"type": "dataset.updated"}), vec!["type"], "write [\"dataset.updated\"]"),
        (json!({"a": {"b": []}}), vec!["a", "b"], "empty"),
        (json!({"a": [{"contains": "x"}]}), vec!["a", "0"], "the operators are prefix, suffix"),
        (json!({"a": [1, {"wildcrad": "x"}]}), vec!["a", "1"], "did you mean `wildcard`?"),
        (json!({"a": [{"equalsIgnoreCase": "x"}]}), vec!["a", "0"], "did you mean `equals-ignore-case`?"),
        (json!({"a": [{"anything-but": {"prefx": "x"}}]}), vec!["a", "0"], "did you mean `prefix`?"),
        (json!({"a": [{"anything-but": {"numeric": [">", 1]}}]}), vec!["a", "0"], "stands one of prefix"),
        (json!({"a": [{"wildcard": "a**b"}]}), vec!["a", "0"], "write one"),
        (json!({"a": [{"wildcard": "a\\b"}]}), vec!["a", "0"], "before `*` or another backslash"),
        (json!({"a": [{"prefix": ["x", "y"]}]}), vec!["a", "0"], "[{prefix: …}, {prefix: …}]"),
        (json!({"a": [{"cidr": "10.0.0.0/33"}]}), vec!["a", "0"], "as in 10.0.0.0/8"),
        (json!({"a": {"exists": true}}), vec!["a", "exists"], "write [{exists: true}]"),
        (json!({"d": {"$or": [{"a": [1]}, {"b": 1}]}}), vec!["d", "$or", "1", "b"], "write [1]"),
        (json!({"d": {"$or": [{"a": [1]}]}}), vec!["d", "$or", "0"], "at least two objects"),
        (json!({"$or": [{"a": [1]}, {"exists": [1]}]}), vec!["$or", "0"], "none named like an operator"),
    ] {
        let error = Pattern::parse(&pattern).unwrap_err();
        assert_eq!(error.path, path, "{pattern}");
        assert!(error.message.contains(message), "{pattern}: {error}");
    }
}

#[test]
fn generous_patterns_pass_and_endless_ones_do_not() {
    let many: Vec<Value> = (0..37).map(|n| json!({"prefix": n.to_string()})).collect();
    assert!(
        Pattern::parse(&json!({"a": many, "b": [{"anything-but": (0..35).collect::<Vec<_>>()}]})).is_ok()
    );
    let nest = |depth: usize| (0..depth).fold(json!(["x"]), |inner, _| json!({"a": inner}));
    assert!(Pattern::parse(&nest(10)).is_ok());
    assert!(Pattern::parse(&nest(100)).is_err());
    let endless: Vec<_> = (0..5000).collect();
    assert!(Pattern::parse(&json!({"a": endless})).is_err());
    assert!(Pattern::parse(&json!({"a": [{"anything-but": endless}]})).is_err());
    // Three times 30 alternatives that all speak of the elements of one list: 27,000 combinations.
    let thirty = |n: usize| {
        let branch = |k: usize| json!({"a": {format!("{n}-{k}"): [1]}});
        json!({"$or": (0..30).map(branch).collect::<Vec<_>>()})
    };
    let twice = json!({"d": thirty(0), "$or": [{"d": thirty(1)}, {"e": [1]}]});
    assert!(Pattern::parse(&twice).is_ok());
    let thrice = json!({"d": thirty(2), "$or": [twice, {"e": [1]}]});
    let started = Instant::now();
    let error = Pattern::parse(&thrice).unwrap_err();
    assert!(error.message.contains("multiply"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
}

#[test]
fn matching_takes_time_in_proportion_to_the_event() {
    // Lists in lists with nothing that fits: a search over combinations would never end here.
    let event = (0..8).fold(json!({"x": 1}), |inner, _| json!({"a": [inner.clone(), inner.clone(), inner]}));
    let pattern = (0..8).fold(json!({"x": [2], "y": [{"exists": false}]}), |inner, _| json!({"a": inner}));
    let started = Instant::now();
    let pattern = Pattern::parse(&pattern).unwrap();
    assert!(!pattern.matches(&event) && pattern.mismatch(&event).is_some());
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
}

#[test]
fn wildcards_take_time_in_proportion_to_the_string() {
    // Trying every place for every star would never end here.
    let pattern = Pattern::parse(&json!({"x": [{"wildcard": "*a".repeat(32) + "b"}]})).unwrap();
    let event = json!({"x": "a".repeat(100_000)});
    let started = Instant::now();
    assert!(!pattern.matches(&event));
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
}
