//! The metrics that Refit counts, from plain columns with optional weights. They agree with scikit-learn where it has them; where it
//! answers 0 or warns because a metric is not defined (no positive, one class, no variance), the answer here is a [`Flaw`].
//!
//! Losses of single examples are there as well, for paired tests of their means (`means`).

use super::{Flaw, all_finite, as_long, enough, finite, within};

mod classes;
mod ranking;
mod regression;
mod scores;

pub use classes::Confusion;
pub use ranking::{Queries, Ranked};
pub use regression::{absolute_errors, mae, pinball, pinball_losses, r2, rmse, squared_errors};
pub use scores::{ECE_BINS, Scored, brier, brier_losses, ece, log_loss, log_losses};

/// How much each row counts.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Once.
    Equal,
    /// As much as its weight says; none is negative.
    Of(&'a [f64]),
    /// As often as it was drawn (`bootstrap`).
    Times(&'a [u32]),
}

impl Weights<'_> {
    /// The greatest weight: products of sums of weights stay far from what a number can hold.
    pub const MAX: f64 = 1e100;

    /// Whether they are weights for so many rows.
    fn check(self, rows: usize) -> Result<(), Flaw> {
        match self {
            Self::Equal => Ok(()),
            Self::Of(weights) => {
                as_long("the weights", weights.len(), rows)?;
                all_finite("the weights", weights)?;
                weights.iter().try_for_each(|weight| within("a weight", *weight, 0.0, Self::MAX).map(|_| ()))
            }
            Self::Times(times) => as_long("the weights", times.len(), rows),
        }
    }

    /// The weight of a row that is there.
    fn of(self, row: usize) -> f64 {
        match self {
            Self::Equal => 1.0,
            Self::Of(weights) => weights[row],
            Self::Times(times) => f64::from(times[row]),
        }
    }
}

/// The weighted mean of a number that each row has, such as a loss.
///
/// # Errors
/// [`Flaw::TooFew`] without a row, [`Flaw::NotFinite`], what is wrong with the weights, [`Flaw::Undefined`] when all of them are 0.
pub fn mean(what: &'static str, values: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    enough(what, values.len(), 1)?;
    all_finite(what, values)?;
    weights.check(values.len())?;
    let (mut sum, mut total) = (0.0, 0.0);
    for (row, value) in values.iter().enumerate() {
        sum += value * weights.of(row);
        total += weights.of(row);
    }
    quotient(what, sum, total, "all weights are 0")
}

/// `part` of a whole that may be nothing.
fn quotient(what: &'static str, part: f64, whole: f64, why: &'static str) -> Result<f64, Flaw> {
    if whole > 0.0 { finite(what, part / whole) } else { Err(Flaw::Undefined { what, why }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_none_are_refused() {
        let values = [1.0, 2.0];
        assert_eq!(mean("the mean", &values, Weights::Of(&[1.0, 3.0])), Ok(1.75));
        assert_eq!(mean("the mean", &values, Weights::Times(&[1, 3])), Ok(1.75));
        assert_eq!(mean("the mean", &values, Weights::Equal), Ok(1.5));
        let refused = |weights| mean("the mean", &values, weights).unwrap_err();
        assert!(matches!(refused(Weights::Of(&[1.0])), Flaw::Lengths { .. }));
        assert!(matches!(refused(Weights::Times(&[1, 2, 3])), Flaw::Lengths { .. }));
        assert!(matches!(refused(Weights::Of(&[1.0, -1.0])), Flaw::Outside { .. }));
        assert!(matches!(refused(Weights::Of(&[1.0, f64::NAN])), Flaw::NotFinite { row: 2, .. }));
        assert!(matches!(refused(Weights::Of(&[0.0, 0.0])), Flaw::Undefined { .. }));
        assert!(matches!(mean("the mean", &[], Weights::Equal), Err(Flaw::TooFew { .. })));
    }
}
