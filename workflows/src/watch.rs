//! Watches over promotions, as far as they are decisions: what an event that a watch waited for means for the version that was
//! promoted. Must never happen here: a check that cannot be judged counted as one that holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::expression::{Expression, ExpressionError, Scope};
use crate::wire::WatchCheckView;

/// What must hold for an event that a watch waits for.
#[derive(Clone, Debug)]
pub struct WatchCheck {
    /// `expr`: over the event's attributes, `promoted` and `previous`.
    pub expr: Expression,
    /// Why the check is there.
    pub because: Option<String>,
}

/// A version, as checks see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchedVersion {
    /// Its number.
    pub version: i64,
    /// The metrics it was gated with.
    pub metrics: BTreeMap<String, f64>,
}

/// What a watched event means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The promotion is taken back; which check objects, and why. None: there are no checks, the event is enough.
    Back(Option<String>),
    /// Every check holds.
    Stay,
}

impl WatchCheck {
    /// Reads one that was written down.
    ///
    /// # Errors
    /// Its expression is none.
    pub fn parse(view: &WatchCheckView) -> Result<Self, ExpressionError> {
        Ok(Self { expr: Expression::parse(&view.expr)?, because: view.because.clone() })
    }

    /// As it is written down.
    pub fn view(&self) -> WatchCheckView {
        WatchCheckView { expr: self.expr.source().to_owned(), because: self.because.clone() }
    }
}

/// What an event, by its attributes, means for the version that was promoted; `previous` is the one before it.
pub fn judge(
    checks: &[WatchCheck],
    event: &Map<String, Value>,
    promoted: &WatchedVersion,
    previous: Option<&WatchedVersion>,
) -> Call {
    if checks.is_empty() {
        return Call::Back(None);
    }
    let mut roots = event.clone();
    roots.insert("promoted".to_owned(), json!(promoted));
    match previous {
        Some(previous) => roots.insert("previous".to_owned(), json!(previous)),
        None => roots.remove("previous"),
    };
    let scope = Scope { roots, ..Scope::default() };
    for check in checks {
        let source = check.expr.source();
        let because = check.because.as_ref().map(|because| format!(" ({because})")).unwrap_or_default();
        match check.expr.holds(&scope) {
            Ok(true) => {}
            Ok(false) => return Call::Back(Some(format!("`{source}` does not hold{because}"))),
            Err(wrong) => {
                return Call::Back(Some(format!("`{source}` cannot be judged{because}: {wrong}")));
            }
        }
    }
    Call::Stay
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i64, auc: f64) -> WatchedVersion {
        WatchedVersion { version, metrics: BTreeMap::from([("auc".to_owned(), auc)]) }
    }

    fn call(checks: &[(&str, Option<&str>)], event: Value) -> Call {
        let check = |(expr, because): &(&str, Option<&str>)| WatchCheck {
            expr: Expression::parse(expr).unwrap(),
            because: because.map(str::to_owned),
        };
        let checks: Vec<_> = checks.iter().map(check).collect();
        let Value::Object(event) = event else { panic!("{event}") };
        judge(&checks, &event, &version(2, 0.8), Some(&version(1, 0.7)))
    }

    fn back(why: &str) -> Call {
        Call::Back(Some(why.to_owned()))
    }

    #[test]
    fn without_checks_the_event_is_enough() {
        assert_eq!(call(&[], json!({ "type": "alert" })), Call::Back(None));
    }

    #[test]
    fn every_check_must_hold() {
        let checks = [
            ("data.auc >= promoted.metrics.auc - 0.05", Some("live AUC fell")),
            ("data.auc >= previous.metrics.auc", None),
        ];
        assert_eq!(call(&checks, json!({ "data": { "auc": 0.76 } })), Call::Stay);
        assert_eq!(call(&checks, json!({ "data": { "auc": 1 } })), Call::Stay, "a whole number is a number");
        let fell = back("`data.auc >= promoted.metrics.auc - 0.05` does not hold (live AUC fell)");
        assert_eq!(call(&checks, json!({ "data": { "auc": 0.74 } })), fell);
        assert_eq!(
            call(&checks[1..], json!({ "data": { "auc": 0.69 } })),
            back("`data.auc >= previous.metrics.auc` does not hold")
        );
    }

    #[test]
    fn what_cannot_be_judged_does_not_hold() {
        for event in [json!({}), json!({ "data": {} }), json!({ "data": { "auc": "0.9" } })] {
            let Call::Back(Some(why)) = call(&[("data.auc >= 0.7", None)], event.clone()) else {
                panic!("{event} passed")
            };
            assert!(why.starts_with("`data.auc >= 0.7` cannot be judged: "), "{why}");
        }
        // An event's own attributes stand for no version.
        let event = json!({ "promoted": { "version": 9 }, "previous": { "version": 9 } });
        assert_eq!(call(&[("promoted.version == 2 && previous.version == 1", None)], event), Call::Stay);
    }
}
