//! The gate's decision: checks over the candidate's metrics, the champion's metrics and expressions, to a verdict
//! with reasons. Pure; every input of the decision is an argument and is written into the record.
//!
//! A missing metric, a number that is not finite or an expression that cannot be evaluated is never a pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expression::{Expression, Scope};

/// `gate`: what a candidate must show.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The checks, in the file's order; at least one.
    pub checks: Vec<Check>,
    /// What to do when there is no champion to compare with.
    pub no_champion: NoChampion,
    /// `alpha`: how often a statistical check may err, one-sided, above 0 and below 0.5.
    pub alpha: f64,
    /// `inconclusive`: what it means when the evidence does not suffice.
    pub inconclusive: OnInconclusive,
}

impl Gate {
    /// `alpha` of a gate that names none.
    pub const ALPHA: f64 = 0.05;
}

/// What a gate makes of evidence that does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// The candidate is rejected (the default).
    Fail,
    /// An approval after the gate decides.
    Approval,
}

/// What a gate does when the model has no champion yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoChampion {
    /// Judge by the checks that need no champion alone (the default).
    Absolute,
    /// The gate fails.
    Fail,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Greater is better (the default).
    Higher,
    /// Smaller is better.
    Lower,
}

/// One check of a gate.
#[derive(Clone, Debug)]
pub enum Check {
    /// `{metric, min, max}`: the candidate's metric within bounds, both inclusive; at least one is set.
    Bounds {
        /// The metric's name.
        metric: String,
        /// The least allowed.
        min: Option<f64>,
        /// The most allowed.
        max: Option<f64>,
        /// Why the check is there.
        because: Option<String>,
    },
    /// `{metric, role, …}` with a role that compares statistically, or with `by`.
    Statistical(Box<StatisticalCheck>),
    /// `{metric, min_change, direction}`: the candidate's metric against the champion's own. The change is counted
    /// in the metric's unit and towards better: with `direction: lower` a smaller candidate is a positive change.
    Change {
        /// The metric's name.
        metric: String,
        /// The least change towards better; 0 means "not worse", a negative number allows a loss.
        min_change: f64,
        /// Which way is better.
        direction: Direction,
        /// Why the check is there.
        because: Option<String>,
    },
    /// `{expr, because}`: a CEL condition.
    Condition {
        /// The condition.
        expr: Expression,
        /// Why the check is there.
        because: Option<String>,
    },
}

/// A check over examples on which both models were tried, or over slices of them.
#[derive(Clone, Debug)]
pub struct StatisticalCheck {
    /// The metric's name.
    pub metric: String,
    /// What must be shown.
    pub role: Role,
    /// Which way is better.
    pub direction: Direction,
    /// `by`: it must hold in each slice of this column.
    pub by: Option<String>,
    /// `min_examples`: with fewer, overall or in a slice, the check is inconclusive.
    pub min_examples: Option<u64>,
    /// Why the check is there.
    pub because: Option<String>,
}

/// What a statistical check must show, at the gate's `alpha`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// The candidate alone lies within bounds, both inclusive; at least one is set.
    Absolute {
        /// The least allowed.
        min: Option<f64>,
        /// The most allowed.
        max: Option<f64>,
    },
    /// The candidate is significantly better (Holm's correction over all checks of this role).
    Success,
    /// The candidate is proven not to be worse by more than a margin (non-inferiority).
    Guardrail {
        /// `margin`: in the metric's unit, at least 0.
        margin: f64,
    },
    /// The candidate is not significantly worse.
    Deterioration,
}

impl Role {
    /// As written in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absolute { .. } => "absolute",
            Self::Success => "success",
            Self::Guardrail { .. } => "guardrail",
            Self::Deterioration => "deterioration",
        }
    }
}

/// What a gate or a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Good enough.
    Pass,
    /// Not good enough: an answer, not an error.
    Fail,
    /// The evidence does not suffice to say.
    Inconclusive,
    /// The decision could not be made: something is missing or malformed.
    Error,
}

impl Verdict {
    /// As written in YAML, JSON and expressions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
        }
    }
}

/// The champion as a gate sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Champion {
    /// Its version number in the registry.
    pub version: i64,
    /// The metrics it was promoted with.
    pub metrics: BTreeMap<String, f64>,
    /// Its artifacts by name.
    pub artifacts: BTreeMap<String, crate::wire::ArtifactRef>,
}

/// One check with its numbers and its reason: a line of the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The check as one line: `accuracy ≥ 0.8`.
    pub check: String,
    /// What it came to; none when it was not applied (no champion).
    pub verdict: Option<Verdict>,
    /// The candidate's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<f64>,
    /// The champion's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub champion: Option<f64>,
    /// The number that was required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<f64>,
    /// The result in words, numbers included.
    pub reason: String,
}

/// A gate's decision with everything it rested on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// One sentence: why.
    pub reason: String,
    /// The champion version compared with; none when there was none.
    pub champion: Option<i64>,
    /// Check by check.
    pub checks: Vec<CheckResult>,
}

/// A metric as the gate finds it among the steps it waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// One step reports it.
    One(f64),
    /// Several steps report it with different values; the names of the steps.
    Ambiguous(Vec<String>),
}

impl Gate {
    /// The gate as it comes to this verdict whatever it finds: for simulations.
    pub fn that_comes_to(&self, verdict: Verdict) -> Self {
        let source = match verdict {
            Verdict::Pass => Some("true"),
            Verdict::Fail => Some("false"),
            Verdict::Error => Some("1 / 0 == 0"),
            // Without a check that applies, nothing is decided.
            Verdict::Inconclusive => None,
        };
        let because = Some("as the script says".to_owned());
        let check = source.and_then(|source| Expression::parse(source).ok());
        let checks = check.map(|expr| Check::Condition { expr, because }).into_iter().collect();
        Self { checks, no_champion: NoChampion::Absolute, ..*self }
    }

    /// Decides. `find` looks a metric up among the steps the gate waits for; `scope` is what its expressions see.
    ///
    /// The verdict is the worst of the checks: `error` before `fail` before `inconclusive` before `pass`. A gate
    /// none of whose checks could be applied is `inconclusive`, never a pass.
    pub fn decide(
        &self,
        find: &dyn Fn(&str) -> Option<Found>,
        champion: Option<&Champion>,
        scope: &Scope,
    ) -> Decision {
        let mut checks: Vec<CheckResult> =
            self.checks.iter().map(|check| check.judge(find, champion, scope)).collect();
        if champion.is_none() && self.no_champion == NoChampion::Fail {
            checks.push(CheckResult {
                check: "a champion to compare with".to_owned(),
                verdict: Some(Verdict::Fail),
                candidate: None,
                champion: None,
                required: None,
                reason: "the model has no champion, and `no_champion: fail` asks for one".to_owned(),
            });
        }
        let verdict = overall(&checks);
        let reason = reason_for(verdict, &checks, champion);
        Decision { verdict, reason, champion: champion.map(|champion| champion.version), checks }
    }
}

fn overall(checks: &[CheckResult]) -> Verdict {
    let has = |verdict| checks.iter().any(|check| check.verdict == Some(verdict));
    if has(Verdict::Error) {
        Verdict::Error
    } else if has(Verdict::Fail) {
        Verdict::Fail
    } else if has(Verdict::Inconclusive) || !has(Verdict::Pass) {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

fn reason_for(verdict: Verdict, checks: &[CheckResult], champion: Option<&Champion>) -> String {
    let decisive: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Some(verdict))
        .map(|check| check.reason.as_str())
        .collect();
    match verdict {
        Verdict::Pass => {
            let passed = decisive.len();
            let plural = if passed == 1 { "check" } else { "checks" };
            match champion {
                Some(champion) => format!("{passed} {plural} passed against champion {}", champion.version),
                None => format!("{passed} {plural} passed; there was no champion to compare with"),
            }
        }
        Verdict::Inconclusive if decisive.is_empty() => {
            "no check could be applied without a champion: add one that stands alone, such as `min`"
                .to_owned()
        }
        Verdict::Fail | Verdict::Inconclusive | Verdict::Error => decisive.join("; "),
    }
}

impl Check {
    fn because(&self) -> Option<&str> {
        match self {
            Self::Bounds { because, .. } | Self::Change { because, .. } | Self::Condition { because, .. } => {
                because.as_deref()
            }
            Self::Statistical(check) => check.because.as_deref(),
        }
    }

    fn judge(
        &self,
        find: &dyn Fn(&str) -> Option<Found>,
        champion: Option<&Champion>,
        scope: &Scope,
    ) -> CheckResult {
        let mut result = match self {
            Self::Bounds { metric, min, max, .. } => judge_bounds(metric, *min, *max, find),
            Self::Change { metric, min_change, direction, .. } => {
                judge_change(metric, *min_change, *direction, find, champion)
            }
            Self::Condition { expr, .. } => judge_condition(expr, scope),
            Self::Statistical(check) => undecided(check),
        };
        if let (Some(because), Some(Verdict::Fail)) = (self.because(), result.verdict) {
            result.reason = format!("{} ({because})", result.reason);
        }
        result
    }
}

/// The candidate's metric, or why it cannot be used.
fn candidate_metric(metric: &str, find: &dyn Fn(&str) -> Option<Found>) -> Result<f64, String> {
    match find(metric) {
        Some(Found::One(value)) if value.is_finite() => Ok(value),
        Some(Found::One(value)) => Err(format!("{metric} is {value}, which is no number to judge by")),
        Some(Found::Ambiguous(steps)) => Err(format!(
            "{metric} is reported by {} with different values: let one of them use another name",
            steps.join(" and ")
        )),
        None => Err(format!("no step before the gate reported {metric}")),
    }
}

fn judge_bounds(
    metric: &str,
    min: Option<f64>,
    max: Option<f64>,
    find: &dyn Fn(&str) -> Option<Found>,
) -> CheckResult {
    let check = match (min, max) {
        (Some(min), Some(max)) => format!("{min} ≤ {metric} ≤ {max}"),
        (Some(min), None) => format!("{metric} ≥ {min}"),
        (None, Some(max)) => format!("{metric} ≤ {max}"),
        (None, None) => metric.to_owned(),
    };
    let required = min.or(max);
    let (verdict, candidate, reason) = match candidate_metric(metric, find) {
        Err(reason) => (Verdict::Error, None, reason),
        Ok(value) => {
            let (verdict, reason) = if min.is_some_and(|min| value < min) {
                (
                    Verdict::Fail,
                    format!("{metric} {} is below {}", number(value), number(min.unwrap_or_default())),
                )
            } else if max.is_some_and(|max| value > max) {
                (
                    Verdict::Fail,
                    format!("{metric} {} is above {}", number(value), number(max.unwrap_or_default())),
                )
            } else {
                (Verdict::Pass, format!("{metric} is {}", number(value)))
            };
            (verdict, Some(value), reason)
        }
    };
    CheckResult { check, verdict: Some(verdict), candidate, champion: None, required, reason }
}

/// Differences of metrics are told apart down to this: 0.3 is 0.1 more than 0.2, whatever binary fractions make of it.
const ROUNDING: f64 = 1e-9;

fn judge_change(
    metric: &str,
    min_change: f64,
    direction: Direction,
    find: &dyn Fn(&str) -> Option<Found>,
    champion: Option<&Champion>,
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
        reason,
    };
    let candidate = match candidate_metric(metric, find) {
        Ok(value) => value,
        Err(reason) => return result(Some(Verdict::Error), None, None, reason),
    };
    let Some(champion) = champion else {
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

fn judge_condition(expr: &Expression, scope: &Scope) -> CheckResult {
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
        reason,
    }
}

/// Statistical checks are not decided by this version; that is never a pass.
fn undecided(check: &StatisticalCheck) -> CheckResult {
    let slices = check.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let check = format!("{} {}{slices}", check.role.as_str(), check.metric);
    let reason = format!("{check}: this version of Refit cannot decide statistical checks");
    CheckResult {
        check,
        verdict: Some(Verdict::Error),
        candidate: None,
        champion: None,
        required: None,
        reason,
    }
}

/// A number as people read it: at most five digits behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn signed(value: f64) -> String {
    if value < 0.0 { format!("−{}", number(-value)) } else { format!("+{}", number(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn champion(accuracy: f64) -> Champion {
        Champion {
            version: 3,
            metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
            artifacts: BTreeMap::new(),
        }
    }

    fn bounds(min: f64) -> Check {
        Check::Bounds { metric: "accuracy".to_owned(), min: Some(min), max: None, because: None }
    }

    fn change(min_change: f64, direction: Direction) -> Check {
        Check::Change { metric: "accuracy".to_owned(), min_change, direction, because: None }
    }

    fn gate(checks: Vec<Check>, no_champion: NoChampion) -> Gate {
        Gate { checks, no_champion, alpha: Gate::ALPHA, inconclusive: OnInconclusive::Fail }
    }

    fn decide(checks: Vec<Check>, candidate: Option<f64>, champion: Option<Champion>) -> Decision {
        let gate = gate(checks, NoChampion::Absolute);
        let find = |name: &str| (name == "accuracy").then_some(()).and(candidate).map(Found::One);
        gate.decide(&find, champion.as_ref(), &Scope::default())
    }

    #[test]
    fn the_first_model_is_judged_by_absolute_checks_alone() {
        let both = || vec![bounds(0.8), change(0.0, Direction::Higher)];
        assert_eq!(decide(both(), Some(0.9), None).verdict, Verdict::Pass);
        assert_eq!(decide(both(), Some(0.7), None).verdict, Verdict::Fail);
        let alone = decide(vec![change(0.0, Direction::Higher)], Some(0.9), None);
        assert_eq!(alone.verdict, Verdict::Inconclusive);
    }

    #[test]
    fn a_change_counts_towards_better() {
        let against = |direction, candidate| {
            decide(vec![change(0.01, direction)], Some(candidate), Some(champion(0.9))).verdict
        };
        assert_eq!(against(Direction::Higher, 0.92), Verdict::Pass);
        assert_eq!(against(Direction::Higher, 0.905), Verdict::Fail);
        assert_eq!(against(Direction::Lower, 0.88), Verdict::Pass);
        assert_eq!(against(Direction::Lower, 0.92), Verdict::Fail);
        assert_eq!(against(Direction::Higher, 0.91), Verdict::Pass, "0.91 is 0.01 more than 0.9");
    }

    #[test]
    fn missing_and_non_finite_numbers_never_pass() {
        for candidate in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            assert_eq!(decide(vec![bounds(0.0)], candidate, None).verdict, Verdict::Error, "{candidate:?}");
            let change = vec![change(-1.0, Direction::Higher)];
            assert_eq!(
                decide(change, candidate, Some(champion(0.9))).verdict,
                Verdict::Error,
                "{candidate:?}"
            );
        }
        let nameless = Champion { metrics: BTreeMap::new(), ..champion(0.9) };
        assert_eq!(
            decide(vec![change(0.0, Direction::Higher)], Some(0.9), Some(nameless)).verdict,
            Verdict::Error
        );
    }

    #[test]
    fn the_reason_holds_the_numbers() {
        let decision = decide(vec![change(0.0, Direction::Higher)], Some(0.71), Some(champion(0.952)));
        assert_eq!(
            decision.reason,
            "accuracy 0.71 against 0.952 of champion 3: −0.242, not worse was asked for"
        );
    }

    #[test]
    fn a_gate_without_champion_may_be_told_to_fail() {
        let gate = gate(vec![bounds(0.5)], NoChampion::Fail);
        let decision = gate.decide(&|_| Some(Found::One(0.9)), None, &Scope::default());
        assert_eq!(decision.verdict, Verdict::Fail);
    }

    #[test]
    fn what_this_version_cannot_decide_is_never_a_pass() {
        let check = |role| {
            Check::Statistical(Box::new(StatisticalCheck {
                metric: "accuracy".to_owned(),
                role,
                direction: Direction::Higher,
                by: Some("country".to_owned()),
                min_examples: None,
                because: None,
            }))
        };
        for role in [
            Role::Absolute { min: Some(0.0), max: None },
            Role::Success,
            Role::Guardrail { margin: 1.0 },
            Role::Deterioration,
        ] {
            for champion in [None, Some(champion(0.1))] {
                let decision = decide(vec![check(role), bounds(0.0)], Some(0.99), champion);
                assert_eq!(decision.verdict, Verdict::Error, "{role:?}");
                assert!(decision.reason.contains(role.as_str()), "{}", decision.reason);
            }
        }
    }
}
