//! The gate's decision: checks over the candidate's metrics, the champion's metrics, what was measured on paired
//! predictions, and expressions, to a verdict with reasons. Every input of the decision is an argument and is written into the record.
//!
//! `figures` judges by single numbers and conditions, `statistical` by what `evaluate` measured.
//! A missing metric, a number that is not finite or an expression that cannot be evaluated is never a pass.

mod figures;
mod numbers;
mod statistical;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evaluation::{Evaluation, Question};
use crate::expression::{Expression, Scope};
use crate::statistics::Difference;

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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The candidate alone lies within bounds, both inclusive; at least one is set.
    Absolute {
        /// The least allowed.
        min: Option<f64>,
        /// The most allowed.
        max: Option<f64>,
    },
    /// The candidate is significantly better. Of all checks of this role in a gate one is enough, and Holm's correction keeps
    /// that from being luck.
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
    /// What a statistical check rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<Box<Tested>>,
    /// The result in words, numbers included.
    pub reason: String,
}

/// What one statistical check rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// What must be shown.
    pub role: Role,
    /// How often the check may err, one-sided.
    pub alpha: f64,
    /// The slice as `column=value`; none: all examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// How many examples.
    pub examples: u64,
    /// The difference to the champion, positive when the candidate is better; none where nothing was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Of a success check: its p after Holm's correction, that of its worst slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_adjusted: Option<f64>,
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

/// What a gate decides on.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The metrics of the steps it waits for.
    pub metrics: &'a BTreeMap<String, Found>,
    /// What `evaluate` steps found, by the step's name; those the gate names in `needs` before earlier ones.
    pub evaluations: &'a [(&'a str, &'a Evaluation)],
    /// The champion to compare with.
    pub champion: Option<&'a Champion>,
    /// What its expressions see.
    pub scope: &'a Scope,
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

    /// What it asks of an `evaluate` step before it, each question once.
    pub fn questions(&self) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for check in &self.checks {
            if let Check::Statistical(check) = check {
                let question = check.question(self.alpha);
                if !questions.contains(&question) {
                    questions.push(question);
                }
            }
        }
        questions
    }

    /// Decides.
    ///
    /// The verdict is the worst of the checks: `error` before `fail` before `inconclusive` before `pass`. A gate
    /// none of whose checks could be applied is `inconclusive`, never a pass.
    pub fn decide(&self, evidence: Evidence<'_>) -> Decision {
        let mut checks = Vec::new();
        let mut success = statistical::Success::default();
        for check in &self.checks {
            let first = checks.len();
            match check {
                Check::Statistical(check) => {
                    checks.extend(statistical::judge(check, self.alpha, evidence));
                    if check.role == Role::Success {
                        success.note(first..checks.len());
                    }
                }
                Check::Bounds { metric, min, max, .. } => {
                    checks.push(figures::within_bounds(metric, *min, *max, evidence));
                }
                Check::Change { metric, min_change, direction, .. } => {
                    checks.push(figures::changed(metric, *min_change, *direction, evidence));
                }
                Check::Condition { expr, .. } => checks.push(figures::condition(expr, evidence.scope)),
            }
            for result in &mut checks[first..] {
                if let (Some(because), Some(Verdict::Fail)) = (check.because(), result.verdict) {
                    result.reason = format!("{} ({because})", result.reason);
                }
            }
        }
        success.decide(&mut checks, self.alpha);
        if evidence.champion.is_none() && self.no_champion == NoChampion::Fail {
            checks.push(CheckResult {
                check: "a champion to compare with".to_owned(),
                verdict: Some(Verdict::Fail),
                candidate: None,
                champion: None,
                required: None,
                tested: None,
                reason: "the model has no champion, and `no_champion: fail` asks for one".to_owned(),
            });
        }
        let verdict = overall(&checks);
        let reason = reason_for(verdict, &checks, evidence.champion);
        Decision { verdict, reason, champion: evidence.champion.map(|champion| champion.version), checks }
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

/// The most checks whose reasons make the gate's own; the table has them all.
const REASONS_MAX: usize = 5;

fn reason_for(verdict: Verdict, checks: &[CheckResult], champion: Option<&Champion>) -> String {
    let mut decisive: Vec<&str> = checks
        .iter()
        .filter(|check| check.verdict == Some(verdict))
        .map(|check| check.reason.as_str())
        .collect();
    let count = decisive.len();
    match verdict {
        Verdict::Pass => {
            let plural = if count == 1 { "check" } else { "checks" };
            match champion {
                Some(champion) => format!("{count} {plural} passed against champion {}", champion.version),
                None => format!("{count} {plural} passed; there was no champion to compare with"),
            }
        }
        Verdict::Inconclusive if decisive.is_empty() => {
            "no check could be applied without a champion: add one that stands alone, such as `min`"
                .to_owned()
        }
        Verdict::Fail | Verdict::Inconclusive | Verdict::Error => {
            decisive.truncate(REASONS_MAX);
            let more = count - decisive.len();
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            format!("{}{more}", decisive.join("; "))
        }
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
}

impl StatisticalCheck {
    /// What it asks of an `evaluate` step, in a gate with this `alpha`.
    pub fn question(&self, alpha: f64) -> Question {
        Question {
            metric: self.metric.clone(),
            direction: self.direction,
            role: self.role,
            alpha,
            by: self.by.clone(),
        }
    }
}
