//! Checks by single numbers: the candidate's metric within bounds or against the champion's own, and conditions.
//! Must never happen here: a number that is missing or not finite that passes.

use super::numbers::{number, signed};
use super::{CheckResult, Direction, Evidence, Found, Verdict};
use crate::expression::{Expression, Scope};

/// The candidate's metric, or why it cannot be used.
fn candidate_metric(metric: &str, evidence: Evidence<'_>) -> Result<f64, String> {
    match evidence.metrics.get(metric) {
        Some(Found::One(value)) if value.is_finite() => Ok(*value),
        Some(Found::One(value)) => Err(format!("{metric} is {value}, which is no number to judge by")),
        Some(Found::Ambiguous(steps)) => Err(format!(
            "{metric} is reported by {} with different values: let one of them use another name",
            steps.join(" and ")
        )),
        None => Err(format!("no step before the gate reported {metric}")),
    }
}

pub(super) fn within_bounds(
    metric: &str,
    min: Option<f64>,
    max: Option<f64>,
    evidence: Evidence<'_>,
) -> CheckResult {
    let (verdict, candidate, reason) = match candidate_metric(metric, evidence) {
        Err(reason) => (Verdict::Error, None, reason),
        Ok(value) => {
            let (verdict, reason) = compare(metric, value, min, max);
            (verdict, Some(value), reason)
        }
    };
    CheckResult {
        check: bounds(metric, min, max),
        verdict: Some(verdict),
        candidate,
        champion: None,
        required: min.or(max),
        tested: None,
        reason,
    }
}

/// Bounds as one line.
pub(super) fn bounds(metric: &str, min: Option<f64>, max: Option<f64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("{min} ≤ {metric} ≤ {max}"),
        (Some(min), None) => format!("{metric} ≥ {min}"),
        (None, Some(max)) => format!("{metric} ≤ {max}"),
        (None, None) => metric.to_owned(),
    }
}

/// Whether a value lies within bounds, and that in words.
pub(super) fn compare(metric: &str, value: f64, min: Option<f64>, max: Option<f64>) -> (Verdict, String) {
    match (min, max) {
        (Some(min), _) if value < min => {
            (Verdict::Fail, format!("{metric} {} is below {}", number(value), number(min)))
        }
        (_, Some(max)) if value > max => {
            (Verdict::Fail, format!("{metric} {} is above {}", number(value), number(max)))
        }
        (_, _) => (Verdict::Pass, format!("{metric} is {}", number(value))),
    }
}

/// Differences of metrics are told apart down to this: 0.3 is 0.1 more than 0.2, whatever binary fractions make of it.
const ROUNDING: f64 = 1e-9;

pub(super) fn changed(
    metric: &str,
    min_change: f64,
    direction: Direction,
    evidence: Evidence<'_>,
) -> CheckResult {
    let better = match direction {
        Direction::Higher => "higher",
        Direction::Lower => "lower",
    };
    let check = format!("{metric} {better} than the champion's by ≥ {min_change}");
    let result = |verdict, candidate, champion, reason| CheckResult {
        check: check.clone(),
        verdict,
        candidate,
        champion,
        required: Some(min_change),
        tested: None,
        reason,
    };
    let candidate = match candidate_metric(metric, evidence) {
        Ok(value) => value,
        Err(reason) => return result(Some(Verdict::Error), None, None, reason),
    };
    let Some(champion) = evidence.champion else {
        return result(None, Some(candidate), None, "not applied: there is no champion yet".to_owned());
    };
    let Some(&theirs) = champion.metrics.get(metric) else {
        let reason = format!(
            "champion {} was promoted without {metric}, so there is nothing to compare",
            champion.version
        );
        return result(Some(Verdict::Error), Some(candidate), None, reason);
    };
    let change = match direction {
        Direction::Higher => candidate - theirs,
        Direction::Lower => theirs - candidate,
    };
    let words = format!(
        "{metric} {} against {} of champion {}: {}",
        number(candidate),
        number(theirs),
        champion.version,
        signed(candidate - theirs)
    );
    if !change.is_finite() {
        result(
            Some(Verdict::Error),
            Some(candidate),
            Some(theirs),
            format!("{words} is no number to judge by"),
        )
    } else if change >= min_change - ROUNDING {
        result(Some(Verdict::Pass), Some(candidate), Some(theirs), words)
    } else {
        let asked =
            if min_change == 0.0 { "not worse".to_owned() } else { format!("a change of {min_change}") };
        result(Some(Verdict::Fail), Some(candidate), Some(theirs), format!("{words}, {asked} was asked for"))
    }
}

pub(super) fn condition(expr: &Expression, scope: &Scope) -> CheckResult {
    let (verdict, reason) = match expr.holds(scope) {
        Ok(true) => (Verdict::Pass, format!("{} holds", expr.source())),
        Ok(false) => (Verdict::Fail, format!("{} does not hold", expr.source())),
        Err(wrong) => (Verdict::Error, format!("{} cannot be decided: {wrong}", expr.source())),
    };
    CheckResult {
        check: expr.source().to_owned(),
        verdict: Some(verdict),
        candidate: None,
        champion: None,
        required: None,
        tested: None,
        reason,
    }
}
