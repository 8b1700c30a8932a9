//! Random patterns over random events: `$or` is what its alternatives are one by one, a set is what its patterns are.
//! Names and values are few, so that what is said often holds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::parse::parse;
use super::*;

const NAMES: [&str; 2] = ["a", "b"];

fn entry() -> impl Strategy<Value = Value> {
    select(vec![
        json!("x"),
        json!("xy"),
        json!("Xy"),
        json!("::1"),
        json!(null),
        json!(true),
        json!(false),
        json!(1),
        json!(1.0),
        json!(-0.0),
        json!(9_007_199_254_740_993_u64),
        json!(0.5),
        json!({"exists": true}),
        json!({"exists": false}),
        json!({"prefix": "x"}),
        json!({"prefix": "xy"}),
        json!({"prefix": ""}),
        json!({"prefix": {"equals-ignore-case": "X"}}),
        json!({"suffix": "y"}),
        json!({"suffix": "é"}),
        json!({"suffix": {"equals-ignore-case": "XY"}}),
        json!({"equals-ignore-case": "XY"}),
        json!({"equals-ignore-case": "É"}),
        json!({"wildcard": "x*"}),
        json!({"wildcard": "*y"}),
        json!({"wildcard": "*"}),
        json!({"wildcard": "xy"}),
        json!({"exactly": "::1"}),
        json!({"cidr": "::/8"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"numeric": ["=", 1]}),
        json!({"numeric": [">", 0, "<", 1]}),
        json!({"anything-but": "x"}),
        json!({"anything-but": [0, 1]}),
        json!({"anything-but": {"suffix": ["y", "é"]}}),
    ])
}

fn scalar() -> impl Strategy<Value = Value> {
    select(vec![
        json!("x"),
        json!("xy"),
        json!("XY"),
        json!("xé"),
        json!("É"),
        json!(""),
        json!("::1"),
        json!("0:0::1"),
        json!("10.1.1.1"),
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(0.5),
        json!(1),
        json!(1.0),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_993_u64),
        json!(1e300),
    ])
}

fn object<T: Strategy<Value = Value> + 'static>(
    value: T,
    sizes: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(select(NAMES.to_vec()), value, sizes).prop_map(|map| json!(map))
}

fn pattern() -> impl Strategy<Value = Value> {
    let leaf = vec(entry(), 1..=4).prop_map(Value::Array).boxed();
    object(leaf.clone(), 1..=2).prop_recursive(2, 16, 2, move |inner| {
        let fields = object(prop_oneof![leaf.clone(), inner.clone()], 1..=2);
        (fields, proptest::option::of(vec(inner, 2..=3))).prop_map(|(mut fields, either)| {
            if let (Value::Object(fields), Some(either)) = (&mut fields, either) {
                fields.insert("$or".to_owned(), Value::Array(either));
            }
            fields
        })
    })
}

fn event() -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(4, 32, 3, |inner| {
        let list = vec(prop_oneof![scalar(), object(inner.clone(), 1..=2), inner.clone()], 0..=4);
        prop_oneof![scalar(), object(inner, 1..=2), list.prop_map(Value::Array)]
    });
    object(value, 2..=2)
}

/// The pattern written once for each choice among its alternatives, as parts without `$or`.
fn spelled_out(pattern: &Value) -> Vec<Vec<Part>> {
    let mut all: Vec<Vec<Part>> = vec![Vec::new()];
    for (name, value) in pattern.as_object().unwrap() {
        let choices: Vec<Vec<Part>> = match value {
            Value::Array(branches) if name == "$or" => branches.iter().flat_map(spelled_out).collect(),
            Value::Object(_) => {
                let part = |parts| vec![Part::Object { name: name.clone(), parts }];
                spelled_out(value).into_iter().map(part).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                parse(&json!({name: value})).map(|parts| vec![parts]).unwrap()
            }
        };
        let with = |so_far: &Vec<Part>| {
            choices.iter().map(|choice| [so_far.clone(), choice.clone()].concat()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// One part for each field that is stepped into.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let (objects, mut all): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|part| matches!(part, Part::Object { .. }));
    for name in NAMES {
        let inside: Vec<Part> = objects
            .iter()
            .flat_map(|part| match part {
                Part::Object { name: other, parts } if other == name => parts.clone(),
                Part::Object { .. } | Part::Leaf { .. } | Part::Either(_) => Vec::new(),
            })
            .collect();
        if !inside.is_empty() {
            all.push(Part::Object { name: name.to_owned(), parts: joined(inside) });
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn or_is_the_pattern_written_once_for_each_alternative(source in pattern(), events in vec(event(), 1..30)) {
        let choices = spelled_out(&source);
        prop_assume!(choices.len() <= 300);
        let choices: Vec<Vec<Part>> = choices.into_iter().map(joined).collect();
        let pattern = Pattern::parse(&source).unwrap();
        for event in events {
            let any = choices.iter().any(|parts| look(parts, Some(&event)) != Found::No);
            prop_assert_eq!(pattern.matches(&event), any, "{} on {}", source, event);
            let miss = pattern.mismatch(&event);
            prop_assert_eq!(miss.is_none(), any, "{} on {}: {:?}", source, event, miss);
            prop_assert!(miss.is_none_or(|miss| miss.held < miss.of), "{} on {}", source, event);
        }
    }

    #[test]
    fn a_set_finds_what_trying_each_pattern_finds(sources in vec(pattern(), 0..30), events in vec(event(), 1..30)) {
        let patterns: Vec<Pattern> = sources.iter().map(|source| Pattern::parse(source).unwrap()).collect();
        let set = PatternSet::new(patterns.clone());
        for event in events {
            let each: Vec<usize> = (0..patterns.len()).filter(|&index| patterns[index].matches(&event)).collect();
            prop_assert_eq!(set.matching(&event), each, "{}", event);
        }
    }
}

#[test]
fn random_patterns_hold_often_enough() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut held, mut with_or) = (0, 0);
    for _ in 0..2000 {
        let source = pattern().new_tree(&mut runner).unwrap().current();
        let event = event().new_tree(&mut runner).unwrap().current();
        let holds = Pattern::parse(&source).unwrap().matches(&event);
        held += usize::from(holds);
        with_or += usize::from(holds && source.to_string().contains("$or"));
    }
    assert!(held > 100 && with_or > 20, "{held} of 2000 hold, {with_or} of them with `$or`");
}
