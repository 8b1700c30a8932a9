//! What the checks of a step came to, as it is handed over: the report and the failing values as files, the outputs, the
//! metrics, the lines of the log, and the reason of a refusal. Must never happen here: a number that is not finite.

use std::collections::BTreeMap;

use refit_workflows::definition::{Bounds, DriftMethod, Severity};
use refit_workflows::wire::ROWS_METRIC;
use serde::Serialize;
use serde_json::{Value, json};

use super::probe::Sample;
use super::questions::method_name;
use crate::data::profile::Profile;

/// Answers that a reason names.
const NAMED_MAX: usize = 3;
/// Failing values in the artifact, of all checks together.
const FAILING_MAX: usize = 1000;
/// Names of checks in the outputs.
const LISTED_MAX: usize = 100;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It holds.
    Pass,
    /// There is nothing to compare with yet: neither a pass nor a reason to refuse.
    Skip,
    /// It does not, or cannot be told, and that is only reported.
    Warn,
    /// It does not hold.
    Fail,
    /// It cannot be told.
    Error,
}

/// The answer to one question of a check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Answer {
    pub(super) check: String,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub(super) filter: Option<String>,
    pub(super) severity: Severity,
    pub(super) outcome: Outcome,
    pub(super) observed: Value,
    pub(super) expected: String,
    pub(super) n: u64,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) new_values: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) distance: Option<(DriftMethod, f64)>,
}

/// Everything the checks came to.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(super) rows: u64,
    pub(super) answers: Vec<Answer>,
    pub(super) profile: Profile,
    pub(super) sampled: Vec<(String, String, Sample)>,
}

impl Findings {
    fn with(&self, outcomes: &[Outcome]) -> Vec<&Answer> {
        self.answers.iter().filter(|answer| outcomes.contains(&answer.outcome)).collect()
    }

    /// Why the data is refused; none: it is not.
    pub(crate) fn refusal(&self) -> Option<String> {
        let failed = self.with(&[Outcome::Fail, Outcome::Error]);
        let mut named: Vec<String> =
            failed.iter().take(NAMED_MAX).map(|answer| answer.message.clone()).collect();
        if failed.len() > NAMED_MAX {
            named.push(format!("and {} more", failed.len() - NAMED_MAX));
        }
        (!failed.is_empty()).then(|| named.join("; "))
    }

    /// `outcome` (`pass`, `warn` or `fail`), `failed` and `warned`: the names of such checks.
    pub(crate) fn outputs(&self) -> BTreeMap<String, Value> {
        let names = |outcomes: &[Outcome]| -> Vec<&str> {
            self.with(outcomes).into_iter().take(LISTED_MAX).map(|answer| answer.check.as_str()).collect()
        };
        let (failed, warned) = (names(&[Outcome::Fail, Outcome::Error]), names(&[Outcome::Warn]));
        let outcome = match (failed.is_empty(), warned.is_empty()) {
            (false, _) => "fail",
            (true, false) => "warn",
            (true, true) => "pass",
        };
        BTreeMap::from([
            ("outcome".to_owned(), json!(outcome)),
            ("failed".to_owned(), json!(failed)),
            ("warned".to_owned(), json!(warned)),
        ])
    }

    /// `rows`, `failed`, `warned`, and the greatest distance of each method: `psi_max`, ….
    #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::from([
            (ROWS_METRIC.to_owned(), self.rows as f64),
            ("failed".to_owned(), self.with(&[Outcome::Fail, Outcome::Error]).len() as f64),
            ("warned".to_owned(), self.with(&[Outcome::Warn]).len() as f64),
        ]);
        for (method, distance) in self.answers.iter().filter_map(|answer| answer.distance) {
            let greatest = metrics.entry(format!("{}_max", method_name(method))).or_insert(distance);
            *greatest = greatest.max(distance);
        }
        metrics
    }

    /// The answers as a table for people, those that do not hold first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = self.answers.iter().map(|answer| answer.check.chars().count()).max().unwrap_or_default();
        let mut lines = vec![format!("{} rows, {} checks", grouped(self.rows), self.answers.len())];
        for (outcome, word) in [
            (Outcome::Error, "ERROR"),
            (Outcome::Fail, "FAIL"),
            (Outcome::Warn, "WARN"),
            (Outcome::Skip, "SKIP"),
            (Outcome::Pass, "PASS"),
        ] {
            for answer in self.with(&[outcome]) {
                let because = answer.because.as_ref().filter(|_| outcome != Outcome::Pass);
                let because = because.map(|because| format!(" — {because}")).unwrap_or_default();
                lines.push(format!("{word:<5}  {:<width$}  {}{because}", answer.check, answer.message));
            }
        }
        lines
    }

    /// The artifact `report`.
    pub(crate) fn report_json(&self) -> String {
        json!({ "rows": self.rows, "checks": self.answers }).to_string()
    }

    /// The artifact `profile`.
    pub(crate) fn profile_json(&self) -> String {
        json!(self.profile).to_string()
    }

    /// The artifact `failing`, if there is anything in it.
    pub(crate) fn failing_lines(&self) -> Option<String> {
        let line = |(check, column, sample): &(String, String, Sample)| {
            let Sample { file, row, value } = sample;
            json!({ "check": check, "file": file, "row": row, "column": column, "value": value }).to_string()
                + "\n"
        };
        (!self.sampled.is_empty()).then(|| self.sampled.iter().take(FAILING_MAX).map(line).collect())
    }
}

/// A whole number with its thousands apart: 12,000.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number short enough to be read.
pub(super) fn shown(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative, small")]
    if number.fract() == 0.0 && number.abs() < 1e15 {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{}", grouped(number.abs() as u64));
    }
    if number.abs() >= 1e15 || number.abs() < 1e-4 {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share as a percentage: 3.1 %.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent != 0.0 && percent.abs() < 0.1 {
        format!("{percent:.2e}")
    } else {
        format!("{percent:.2}")
    };
    let text =
        if text.contains('e') { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() };
    format!("{text} %")
}

/// Bounds in words.
pub(super) fn bounds_text(bounds: Bounds) -> String {
    bounds_with(bounds, shown)
}

/// Bounds in words, the numbers as `show` writes them.
pub(super) fn bounds_with(bounds: Bounds, show: impl Fn(f64) -> String) -> String {
    match (bounds.min, bounds.max) {
        (Some(min), Some(max)) if min == max => format!("exactly {}", show(min)),
        (Some(min), Some(max)) => format!("from {} to {}", show(min), show(max)),
        (Some(min), None) => format!("at least {}", show(min)),
        (None, Some(max)) => format!("at most {}", show(max)),
        (None, None) => "any number".to_owned(),
    }
}
