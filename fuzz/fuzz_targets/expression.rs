//! An expression: parsed, typed and evaluated. What its types say cannot fail may still fail; it must not panic or hang.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use refit_workflows::expression::{Expression, Scope, Type, Types};
use serde_json::{Map, Value, json};

static ROOTS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let roots = json!({
        "params": { "region": "eu", "depth": 8, "rate": 0.5, "full": true, "none": null },
        "steps": { "train": { "state": "succeeded", "metrics": { "auc": 0.9 }, "outputs": { "list": [1, "a", [2]] } } },
        "batch": { "key": "eu", "count": 3, "sum": 1e300, "first": {}, "last": {} },
        "data": { "rows": 9223372036854775807_i64, "text": "ä€𝄞 (a+)+$", "time": "2026-01-31T08:00:00Z" },
    });
    roots.as_object().cloned().unwrap_or_default()
});

fuzz_target!(|text: &str| {
    let Ok(expression) = Expression::parse(text) else { return };
    let types = Types::new()
        .with("params", Type::record("the params", [("region", Type::String), ("depth", Type::Int)]))
        .with("steps", Type::map(Type::Dyn))
        .with_others(Type::Dyn);
    for problem in expression.check_as(&types, &Type::Bool).problems {
        assert!(text.get(problem.offset..problem.offset + problem.length).is_some(), "{problem:?}");
    }
    let scope = Scope { roots: ROOTS.clone(), ..Scope::default() };
    let _ = expression.evaluate(&scope);
});
