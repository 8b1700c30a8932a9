//! What expressions must do, and what they must refuse.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn scope(roots: Value) -> Scope {
    let Value::Object(roots) = roots else { panic!("roots are an object") };
    Scope { roots, ..Scope::default() }
}

fn value(source: &str, roots: Value) -> Result<Value, ExpressionError> {
    Expression::parse(source).unwrap_or_else(|e| panic!("{source}: {e}")).evaluate(&scope(roots))
}

#[test]
fn values_keep_their_types() {
    let roots = json!({"params": {"n": 3, "x": 0.5, "s": "a", "b": true, "l": [1, "two"], "z": null, "big": u64::MAX}});
    for (source, expected) in [
        ("params.n + 1", json!(4)),
        ("params.x * 2.0", json!(1.0)),
        ("params.s + 'b'", json!("ab")),
        ("params.b && params.n > 2.5", json!(true)),
        ("params.l", json!([1, "two"])),
        ("params.z", json!(null)),
        ("params.big", json!(u64::MAX)),
        ("{'b': params.n, 'a': [params.s]}", json!({"a": ["a"], "b": 3})),
        ("params.l.map(item, item == 1)", json!([true, false])),
        ("params['n'] in [1, 2, 3]", json!(true)),
        ("size(params.l) == 2 && params.s.startsWith('a')", json!(true)),
        ("duration('90s')", json!("90s")),
        ("duration('1500ms')", json!("1.5s")),
        ("timestamp('2026-01-31T08:00:00Z') + duration('1h')", json!("2026-01-31T09:00:00+00:00")),
        ("duration('2d') == duration('48h') && duration('1d12h') > duration('1d')", json!(true)),
        ("duration('-2d')", json!("-172800s")),
        (
            "timestamp('2026-01-31T08:00:00Z') - timestamp('2026-01-29T07:59:59Z') > duration('2d')",
            json!(true),
        ),
        ("timestamp('2026-07-31T23:00:00Z').getHours('Europe/Berlin')", json!(1)),
        ("timestamp('2026-07-31T23:00:00Z').getDayOfWeek('+02:00')", json!(6)),
        ("duration('90m').getHours()", json!(1)),
        ("has(params.missing) ? 1 : 2", json!(2)),
        ("params.l.exists_one(item, item == 1)", json!(true)),
        ("'x1'.matches('^[a-z][0-9]$')", json!(true)),
    ] {
        assert_eq!(value(source, roots.clone()), Ok(expected), "{source}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_an_error() {
    let roots = json!({"params": {"s": "0.9", "n": 1, "zero": 0.0, "z": null, "max": i64::MAX}});
    for source in [
        "params.missing > 1",
        "0.95 > params.s",
        "params.z > 0.8",
        "params.n / 0",
        "1.0 / params.zero",
        "params.max + 1",
        "unknown == 1",
        "params.n ? 1 : 2",
        "params.s.all(c, c == 'a')",
        "b'abc'",
        "duration('1.5d') == duration('36h')",
        "duration('d') == duration('0s')",
        "duration('999999999999999999999d') > duration('1s')",
        "duration('9999999999999999d') > duration('1s')",
        "duration('1h1d') > duration('1s')",
        "duration('90m of it') > duration('1s')",
        "duration('5m30') > duration('1s')",
        "duration('1..5h') > duration('1s')",
        "duration('') == duration('0')",
        "'a'.matches('(')",
    ] {
        assert!(value(source, roots.clone()).is_err(), "{source} gave {:?}", value(source, roots.clone()));
    }
    let condition = Expression::parse("params.n").unwrap();
    assert!(condition.holds(&scope(roots)).unwrap_err().message.contains("must be true or false"));
}

#[test]
fn errors_name_what_is_missing() {
    let error = value("params.auc > 0.5", json!({"params": {}})).unwrap_err();
    assert!(error.message.contains("there is no `auc`"), "{error}");
    assert_eq!(error.offset, Some(7));
    let error = Expression::parse("a &&\n& b").unwrap_err();
    assert_eq!(error.offset, Some(5), "{error}");
    let error = Expression::parse("lower(params.x) == 'a'").unwrap_err();
    assert_eq!(error.message, "there is no function `lower`");
    assert!(error.hint.is_some_and(|hint| hint.contains("startsWith")));
    assert_eq!((error.offset, error.length), (Some(0), 5));
    let error = Expression::parse("'startswith(' == params.s.startswith ('a')").unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `startsWith`?"));
    assert_eq!(error.offset, Some(26));
}

#[test]
fn every_wrong_function_is_told_where_it_stands() {
    let source = "params.a.tolower().trim() == lower(upper(params.b), params.c.startswith('x')) && failed(1)";
    let wrong = Expression::parse_fully(source).unwrap_err();
    let places: Vec<&str> =
        wrong.iter().map(|one| &source[one.offset.unwrap()..one.offset.unwrap() + one.length]).collect();
    assert_eq!(places, ["tolower", "trim", "lower", "upper", "startswith", "failed"]);
    assert_eq!(wrong[4].hint.as_deref(), Some("did you mean `startsWith`?"));
    assert_eq!(Expression::parse(source).unwrap_err(), wrong[0]);
}

#[test]
fn numbers_of_different_kinds_are_told_in_plain_words() {
    let roots = json!({"params": {"n": 3, "x": 0.5, "big": u64::MAX, "s": "a", "z": null, "l": [1]}});
    let kinds = "numbers of different kinds are not mixed; make them one kind, as in double(x) * 2.0";
    for (source, told) in [
        ("params.n * params.x", format!("`*` cannot be applied to a whole number and a number with a fraction: {kinds}")),
        ("params.x - 1", format!("`-` cannot be applied to a number with a fraction and a whole number: {kinds}")),
        (
            "params.big + params.n",
            format!("`+` cannot be applied to a whole number without a sign and a whole number: {kinds}"),
        ),
        (
            "params.x % 2.0",
            "`%` cannot be applied to a number with a fraction and a number with a fraction: it is for whole numbers of \
             one kind, as in int(x) % 2"
                .to_owned(),
        ),
        ("params.n + params.s", "`+` cannot be applied to a whole number and text".to_owned()),
        ("params.z * params.l", "`*` cannot be applied to null and a list".to_owned()),
        ("timestamp(0) * duration('1s')", "`*` cannot be applied to a time and a duration".to_owned()),
    ] {
        let error = value(source, roots.clone()).unwrap_err();
        assert_eq!(error.message, format!("`{source}`: {told}"));
    }
}

#[test]
fn slips_from_other_languages_are_recognised() {
    for (source, offset, right) in [
        ("a = b", 2, "write `==`"),
        ("a and b", 2, "write `&&`"),
        ("a or b", 2, "write `||`"),
        ("not a", 0, "write `!`"),
        ("a & b", 2, "write `&&`"),
        ("(not a)", 1, "write `!`"),
        ("a == 'b", 5, "close it where the text ends"),
    ] {
        let error = Expression::parse(source).unwrap_err();
        assert_eq!((error.offset, error.hint.as_deref()), (Some(offset), Some(right)), "{source}: {error}");
    }
    let error = Expression::parse("android ==").unwrap_err();
    assert_eq!(error.message, "not a CEL expression: it ends too early");
}

#[test]
fn needs_are_read_by_functions() {
    let outcome = |source: &str, succeeded, failed| {
        let scope = Scope { roots: Map::new(), needs: Needs { succeeded, failed }, ..Scope::default() };
        Expression::parse(source).unwrap().holds(&scope).unwrap()
    };
    assert!(outcome("succeeded()", true, false) && !outcome("succeeded()", false, true));
    assert!(outcome("failed()", false, true) && !outcome("failed()", true, false));
    assert!(outcome("always()", false, true) && outcome("always() && !succeeded()", false, true));
    assert!(Expression::parse("1 > 0 || failed()").unwrap().reads_needs());
    assert!(!Expression::parse("params.failed").unwrap().reads_needs());
    assert!(Expression::parse("succeeded(1)").is_err());
}

#[test]
fn references_are_paths_from_the_root() {
    let references = |source: &str| {
        let references = Expression::parse(source).unwrap().references();
        references.iter().map(|path| path.join(".")).collect::<Vec<_>>()
    };
    assert_eq!(
        references("steps[\"train\"].metrics.auc > params.least"),
        ["steps.train.metrics.auc", "params.least"]
    );
    assert_eq!(
        references("has(steps.train.outputs.x) && steps.train.outputs.x == 1"),
        ["steps.train.outputs.x"]
    );
    assert_eq!(references("data.items.all(item, item.size > data.least)"), ["data.items", "data.least"]);
    assert_eq!(references("data.items[0].name"), ["data.items"]);
    assert_eq!(references("steps[params.which].state"), ["params.which", "steps"]);
    assert_eq!(references("[1].exists(x, [x].exists(y, y == x))"), [] as [&str; 0]);
    assert_eq!(references("failed() || run.number == 1"), ["run.number"]);
}

#[test]
fn a_sole_path_is_told_from_a_computation() {
    let sole = |source: &str| Expression::parse(source).unwrap().sole_path().map(|path| path.join("/"));
    assert_eq!(sole("steps.train.artifacts.model").as_deref(), Some("steps/train/artifacts/model"));
    assert_eq!(sole("steps['a-b'].artifacts.model").as_deref(), Some("steps/a-b/artifacts/model"));
    for source in ["steps.train.artifacts.model + 'x'", "has(steps.a)", "steps[params.x]", "1", "size(steps)"]
    {
        assert_eq!(sole(source), None, "{source}");
    }
}

#[test]
fn size_depth_and_nesting_are_bounded() {
    let long = format!("1 == {}1", "1 + ".repeat(400));
    let wide = format!("[{}1]", "1,".repeat(600));
    let hostile = [
        " ".to_owned(),
        "a".repeat(3000),
        long,
        wide,
        "(".repeat(1000),
        format!("{}1{}", "(".repeat(33), ")".repeat(33)),
        "[".repeat(2048),
        "a?".repeat(1000),
        format!("{}1", "a?1:".repeat(400)),
        "a.b".to_owned() + &".b".repeat(1000),
        "a".to_owned() + &"[0]".repeat(600),
        "a".to_owned() + &"&&a".repeat(600),
        "a.all(x, a.all(y, a.all(z, true)))".to_owned(),
        "{1:{1:".repeat(300),
        "f(f(".repeat(500),
        "'a' ".repeat(500),
        "a\0b".to_owned(),
        "optional.of(1)".to_owned(),
        "a.?b".to_owned(),
        "A{b: 1}".to_owned(),
        "x.cel.y()".to_owned(),
    ];
    for source in hostile {
        let started = Instant::now();
        assert!(Expression::parse(&source).is_err(), "{source} was accepted");
        assert!(started.elapsed() < Duration::from_secs(5), "{source} took {:?}", started.elapsed());
    }
    // The parser folds these itself; they must only not use up the stack.
    assert!(Expression::parse(&("!".repeat(2047) + "a")).is_ok());
    assert!(
        Expression::parse(&("- ".repeat(1000) + "1")).is_ok_and(|e| e.evaluate(&Scope::default()).is_ok())
    );
    let at_the_bound = format!("{}1{} == 1", "(".repeat(32), ")".repeat(32));
    assert!(Expression::parse(&at_the_bound).is_ok());
    // The deepest tree allowed is evaluated without using up a small stack.
    let deep = format!("1{} > 0", "+1".repeat(60));
    assert_eq!(value(&deep, json!({})), Ok(json!(true)));
}

#[test]
fn work_is_bounded() {
    let numbers: Vec<i64> = (0..2000).collect();
    let text = "a".repeat(500_000);
    let roots = json!({"l": numbers, "t": text, "m": (0..200).map(|n| json!({"n": n, "t": "x".repeat(400)})).collect::<Vec<_>>()});
    for source in [
        "l.all(x, l.all(y, x + y >= 0))",
        "l.map(x, l.map(y, x * y)).size() > 0",
        "l.exists(x, l.exists(y, x + y < 0)) || true",
        "l.map(x, t + t).size() > 0",
        "l.filter(x, t.contains('b')).size() > 0",
        "l.all(x, t == t)",
        "l.all(x, 1999 in l) || true",
        "l.filter(x, string(x).matches('^(a|b|[0-9]{1,50})+$')).size() >= 0 && l.all(x, l.all(y, true))",
        "l.exists_one(x, l.exists_one(y, x == y))",
        "m.all(a, m.all(b, m == m))",
    ] {
        let started = Instant::now();
        let error = value(source, roots.clone()).expect_err(source);
        assert!(error.message.contains("too much work"), "{source}: {error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{source} took {:?}", started.elapsed());
    }
    assert_eq!(value("l.all(x, x >= 0) && l.map(x, x + 1).size() == 2000", roots), Ok(json!(true)));
}

#[test]
fn the_same_expression_gives_the_same_text() {
    let roots = json!({"params": {"c": 1, "a": 2, "b": 3}});
    let texts: Vec<String> = (0..20).map(|_| value("params", roots.clone()).unwrap().to_string()).collect();
    assert!(texts.iter().all(|text| text == r#"{"a":2,"b":3,"c":1}"#), "{texts:?}");
}
