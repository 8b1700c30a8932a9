//! The pattern language by cases (`cases.jsonl`), its errors, and its bounds.

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
}

#[test]
fn patterns_match_as_the_language_says() {
    let mut wrong = Vec::new();
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
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 90, "only {count} cases");
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
        (json!({"a": [1, {"wildcard": "x"}]}), vec!["a", "1"], "not supported yet"),
        (json!({"a": [{"contains": "x"}]}), vec!["a", "0"], "no operator `contains`"),
        (json!({"d": {"$or": [{"a": [1]}, {"b": [1]}]}}), vec!["d", "$or"], "not supported yet"),
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
    assert!(Pattern::parse(&json!({"a": (0..5000).collect::<Vec<_>>()})).is_err());
}

#[test]
fn matching_takes_time_in_proportion_to_the_event() {
    // Lists in lists with nothing that fits: a search over combinations would never end here.
    let event = (0..8).fold(json!({"x": 1}), |inner, _| json!({"a": [inner.clone(), inner.clone(), inner]}));
    let pattern = (0..8).fold(json!({"x": [2], "y": [{"exists": false}]}), |inner, _| json!({"a": inner}));
    let started = Instant::now();
    assert!(!Pattern::parse(&pattern).unwrap().matches(&event));
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
}
