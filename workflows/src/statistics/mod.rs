//! The statistics of gates and data checks: what two models' predictions, or two samples, say about their difference, and how
//! sure that is. Owns the formulae; every one names the paper or the program it agrees with.
//!
//! Pure like the rest of the crate: a resampling takes its seed as an argument. Evidence that cannot be judged is a [`Flaw`].
//! Must never happen here: a number that is not finite in a result, a panic on data, a verdict (that is `gate`'s).

use serde::{Deserialize, Serialize};

use crate::gate::Direction;

pub mod auc;
pub mod bootstrap;
mod distributions;
pub mod drift;
pub mod frequencies;
pub mod mcnemar;
pub mod means;
pub mod metrics;
pub mod multiple;
pub mod paired;
pub mod ranks;
pub mod robust;
pub mod sizes;

#[cfg(test)]
mod any_data;
#[cfg(test)]
mod calibration;

/// What is asked of a difference between candidate and champion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Which way the metric is better.
    pub direction: Direction,
    /// By how much the candidate may be worse, in the metric's unit, at least 0: a guardrail's margin, and 0 for the
    /// question whether it is better.
    pub margin: f64,
    /// How often each answer may err, one-sided, above 0 and below 0.5.
    pub alpha: f64,
}

impl Question {
    /// Whether the question makes sense.
    ///
    /// # Errors
    /// [`Flaw::Outside`] for a negative or infinite margin and for an alpha that is not between 0 and 0.5.
    pub fn check(&self) -> Result<(), Flaw> {
        within("the margin", self.margin, 0.0, f64::MAX)?;
        if self.alpha > 0.0 && self.alpha < 0.5 {
            Ok(())
        } else {
            Err(Flaw::Outside { what: "alpha", value: self.alpha, low: 0.0, high: 0.5 })
        }
    }

    /// A difference candidate − champion, turned so that positive is better.
    fn turned(&self, difference: f64) -> f64 {
        match self.direction {
            Direction::Higher => difference,
            // 0 stays 0: −0 would be written as "-0".
            Direction::Lower => 0.0 - difference,
        }
    }

    /// The standard normal deviate that is exceeded with probability alpha.
    fn z(&self) -> f64 {
        distributions::normal_quantile(1.0 - self.alpha)
    }
}

/// What was measured of the difference between two models, candidate − champion, turned so that positive is better, and how
/// sure that is. Every number is finite.
///
/// The bounds and the probabilities agree: `low > -margin` where `p_margin < alpha`, and so on, but for the discreteness of an
/// exact test or of a bootstrap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The difference, in the metric's unit.
    pub estimate: f64,
    /// The lower one-sided bound at 1 − alpha.
    pub low: f64,
    /// The upper one-sided bound at 1 − alpha; both together hold at 1 − 2·alpha.
    pub high: f64,
    /// The test's statistic for "the models do not differ"; none where the test has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistic: Option<f64>,
    /// One-sided p of "the difference is at most 0": small when the candidate is better.
    pub p_better: f64,
    /// One-sided p of "the difference is at least 0": small when the candidate is worse.
    pub p_worse: f64,
    /// One-sided p of "the difference is at most −margin": small when the candidate is not worse by more than the margin.
    /// [`Difference::p_better`] when the margin is 0.
    pub p_margin: f64,
    /// The examples (or clusters of them) that it rests on; of two independent samples, both together.
    pub n: u64,
    /// Which test it was.
    pub test: Test,
    /// How many examples in all would show, with power [`POWER`] and if the estimate is the truth, that the difference is
    /// more than −margin. None when that is shown already, and when the estimate itself says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
}

/// The power for which [`Difference::needed`] is counted.
pub const POWER: f64 = 0.8;

/// A standard error below this part of the estimate comes from rounding.
const ROUNDING: f64 = 1e-12;

/// More examples than these are never asked for: nobody can collect them.
const NEEDED_MAX: f64 = 1e12;

/// A test of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Score test and interval of a paired difference of proportions (Tango 1998).
    Tango,
    /// Examples on which one model is right and the other wrong, as throws of a fair coin (McNemar 1947), mid-p; with Tango's interval.
    #[serde(rename = "mcnemar")]
    McNemar,
    /// Areas under the ROC curve of two models on the same examples (DeLong 1988).
    #[serde(rename = "delong")]
    DeLong,
    /// Paired t test of means.
    PairedT,
    /// t test of two independent means with their own variances (Welch 1947).
    Welch,
    /// Rank-sum test and the shift it estimates, normal approximation (Mann and Whitney 1947, Hodges and Lehmann 1963).
    MannWhitney,
    /// The same from the exact distribution of the rank sum.
    MannWhitneyExact,
    /// Resampling of examples, or of clusters of them (Efron 1979).
    Bootstrap {
        /// How many resamples.
        draws: u32,
        /// What the generator was started with.
        seed: u64,
        /// Whether clusters were drawn and not examples.
        clusters: bool,
        /// How the bounds were taken from the draws.
        interval: bootstrap::Interval,
    },
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tango => f.write_str("Tango's paired score test"),
            Self::McNemar => f.write_str("McNemar's mid-p test, Tango's interval"),
            Self::DeLong => f.write_str("DeLong's test"),
            Self::PairedT => f.write_str("paired t test"),
            Self::Welch => f.write_str("Welch's t test"),
            Self::MannWhitney => f.write_str("Mann–Whitney test"),
            Self::MannWhitneyExact => f.write_str("exact Mann–Whitney test"),
            Self::Bootstrap { draws, seed, clusters, interval } => {
                let units = if *clusters { "clusters" } else { "examples" };
                write!(f, "{interval} bootstrap of {units} ({draws} draws, seed {seed})")
            }
        }
    }
}

/// What is wrong with the evidence, so that no number can be given for it. Never to be taken for a pass.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Flaw {
    /// There are fewer than the method needs; more of them would help.
    #[error("{what}: {found} are too few, at least {least} are needed")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many are needed.
        least: u64,
    },
    /// There are more than the method can work with.
    #[error("{what}: {found} are too many, at most {most} can be judged")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many are allowed.
        most: u64,
    },
    /// Two columns that belong together differ in length.
    #[error("{what}: {found} values for {expected} rows")]
    Lengths {
        /// The column.
        what: &'static str,
        /// How many rows there are.
        expected: u64,
        /// How many values the column has.
        found: u64,
    },
    /// A value is missing, NaN or infinite.
    #[error("{what}: the value of row {row} is not a finite number")]
    NotFinite {
        /// The column.
        what: &'static str,
        /// The row, counted from 1.
        row: u64,
    },
    /// A value lies outside of what it may be.
    #[error("{what}: {value} is not between {low} and {high}")]
    Outside {
        /// What it is.
        what: &'static str,
        /// The value.
        value: f64,
        /// The least allowed.
        low: f64,
        /// The greatest allowed.
        high: f64,
    },
    /// What was asked for is not defined for this data.
    #[error("{what} is not defined: {why}")]
    Undefined {
        /// What was asked for.
        what: &'static str,
        /// Why it is not defined.
        why: &'static str,
    },
    /// The result is beyond what a number can hold.
    #[error("{what}: the values are too large or too small to be counted with")]
    Overflow {
        /// What was counted.
        what: &'static str,
    },
}

/// The value, or what it is not.
fn within(what: &'static str, value: f64, low: f64, high: f64) -> Result<f64, Flaw> {
    if value >= low && value <= high { Ok(value) } else { Err(Flaw::Outside { what, value, low, high }) }
}

/// A result that is a number.
fn finite(what: &'static str, value: f64) -> Result<f64, Flaw> {
    if value.is_finite() { Ok(value) } else { Err(Flaw::Overflow { what }) }
}

/// At least so many.
fn enough(what: &'static str, found: usize, least: u64) -> Result<(), Flaw> {
    let found = found as u64;
    if found >= least { Ok(()) } else { Err(Flaw::TooFew { what, found, least }) }
}

/// A column of the length of its table.
fn as_long(what: &'static str, found: usize, expected: usize) -> Result<(), Flaw> {
    if found == expected {
        Ok(())
    } else {
        Err(Flaw::Lengths { what, expected: expected as u64, found: found as u64 })
    }
}

/// A column of finite numbers.
fn all_finite(what: &'static str, values: &[f64]) -> Result<(), Flaw> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Flaw::NotFinite { what, row: at as u64 + 1 }),
    }
}

/// A [`Difference`] about which everything follows from an estimate, its standard error and the standardised estimate's
/// distribution; `upper` is its survival function, `quantile` the deviate exceeded with probability alpha. `estimate` is turned.
struct Standardised<U: Fn(f64) -> f64> {
    estimate: f64,
    se: f64,
    n: u64,
    test: Test,
    upper: U,
    quantile: f64,
}

impl<U: Fn(f64) -> f64> Standardised<U> {
    fn answer(&self, question: &Question) -> Result<Difference, Flaw> {
        question.check()?;
        let Self { estimate, se, n, test, .. } = *self;
        finite("the difference", estimate)?;
        finite("the standard error", se)?;
        // What is left when equal numbers cancel is no variation either.
        if se <= estimate.abs() * ROUNDING {
            return same_throughout(estimate, n, test, question);
        }
        let z = finite("the test's statistic", estimate / se)?;
        let p_margin = (self.upper)((estimate + question.margin) / se);
        Ok(Difference {
            estimate,
            low: finite("the lower bound", estimate - self.quantile * se)?,
            high: finite("the upper bound", estimate + self.quantile * se)?,
            statistic: Some(z),
            p_better: (self.upper)(z),
            p_worse: (self.upper)(-z),
            p_margin,
            n,
            test,
            needed: needed(estimate, se, n, p_margin, question),
        })
    }
}

/// When nothing varies: models that answer alike throughout do not differ; a difference that is the same everywhere says
/// nothing about how sure it is.
fn same_throughout(estimate: f64, n: u64, test: Test, question: &Question) -> Result<Difference, Flaw> {
    if estimate != 0.0 {
        let why =
            "it is the same throughout, so nothing says how much it varies; more varied examples are needed";
        return Err(Flaw::Undefined { what: "the error of the difference", why });
    }
    let p_margin = if question.margin > 0.0 { 0.0 } else { 1.0 };
    let (low, high) = (0.0, 0.0);
    Ok(Difference {
        estimate,
        low,
        high,
        statistic: None,
        p_better: 1.0,
        p_worse: 1.0,
        p_margin,
        n,
        test,
        needed: None,
    })
}

/// [`Difference::needed`] by the normal approximation, from the standard error that n examples gave.
fn needed(estimate: f64, se: f64, n: u64, p_margin: f64, question: &Question) -> Option<u64> {
    if p_margin < question.alpha {
        return None;
    }
    let needed = sizes::from_error(n, se, estimate + question.margin, question.alpha, POWER).ok()?;
    (needed <= NEEDED_MAX).then(|| whole(needed).max(n.saturating_add(1)))
}

/// The next whole number, of one that is at least 0.
fn whole(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such casts saturate")]
    let whole = value.ceil() as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two numbers agree to the digits given.
    #[track_caller]
    pub(super) fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected} within {tolerance}");
    }

    pub(super) fn question(margin: f64, alpha: f64) -> Question {
        Question { direction: Direction::Higher, margin, alpha }
    }

    #[test]
    fn a_question_that_makes_no_sense_is_refused() {
        for (margin, alpha) in
            [(-0.1, 0.05), (f64::NAN, 0.05), (f64::INFINITY, 0.05), (0.0, 0.0), (0.0, 0.5), (0.0, f64::NAN)]
        {
            assert!(matches!(question(margin, alpha).check(), Err(Flaw::Outside { .. })), "{margin} {alpha}");
        }
        assert_eq!(question(0.0, 0.05).check(), Ok(()));
    }

    #[test]
    fn flaws_are_sentences() {
        let flaw = Flaw::TooFew { what: "positives", found: 3, least: 10 };
        assert_eq!(flaw.to_string(), "positives: 3 are too few, at least 10 are needed");
        assert_eq!(
            question(-1.0, 0.05).check().unwrap_err().to_string().split(':').next(),
            Some("the margin")
        );
    }

    #[test]
    fn a_difference_survives_json() {
        let test =
            Test::Bootstrap { draws: 2000, seed: 7, clusters: true, interval: bootstrap::Interval::Bca };
        let found = same_throughout(0.0, 5, test, &question(0.01, 0.05)).unwrap();
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Difference>(&text).unwrap(), found);
        assert_eq!(test.to_string(), "BCa bootstrap of clusters (2000 draws, seed 7)");
    }
}
