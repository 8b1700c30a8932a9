//! Metrics of answers that are numbers.

use super::super::{Flaw, all_finite, as_long, enough, finite, within};
use super::{Weights, mean, quotient};

/// A number for each row from what was right and what was answered.
fn each(labels: &[f64], answers: &[f64], of: impl Fn(f64, f64) -> f64) -> Result<Vec<f64>, Flaw> {
    enough("examples", labels.len(), 1)?;
    as_long("the answers", answers.len(), labels.len())?;
    all_finite("the labels", labels)?;
    all_finite("the answers", answers)?;
    labels
        .iter()
        .zip(answers)
        .map(|(label, answer)| finite("the error of an example", of(*label, *answer)))
        .collect()
}

/// |label − answer| of each row.
///
/// # Errors
/// [`Flaw::TooFew`] without a row, [`Flaw::Lengths`], [`Flaw::NotFinite`], [`Flaw::Overflow`].
pub fn absolute_errors(labels: &[f64], answers: &[f64]) -> Result<Vec<f64>, Flaw> {
    each(labels, answers, |label, answer| (label - answer).abs())
}

/// (label − answer)² of each row.
///
/// # Errors
/// Those of [`absolute_errors`].
pub fn squared_errors(labels: &[f64], answers: &[f64]) -> Result<Vec<f64>, Flaw> {
    each(labels, answers, |label, answer| (label - answer).powi(2))
}

/// The pinball loss of each row for answers that are meant as a quantile: `at`·(label − answer) above the answer and
/// (1 − `at`)·(answer − label) below it (Koenker and Bassett, Econometrica 46, 1978). For the median, half of the absolute error.
///
/// # Errors
/// Those of [`absolute_errors`]; [`Flaw::Outside`] when `at` is not between 0 and 1.
pub fn pinball_losses(labels: &[f64], answers: &[f64], at: f64) -> Result<Vec<f64>, Flaw> {
    within("the quantile", at, 0.0, 1.0)?;
    each(labels, answers, |label, answer| {
        let apart = label - answer;
        if apart >= 0.0 { at * apart } else { (at - 1.0) * apart }
    })
}

/// Mean absolute error.
///
/// # Errors
/// Those of [`absolute_errors`] and of [`mean`].
pub fn mae(labels: &[f64], answers: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    mean("mae", &absolute_errors(labels, answers)?, weights)
}

/// Root of the mean squared error.
///
/// # Errors
/// Those of [`absolute_errors`] and of [`mean`].
pub fn rmse(labels: &[f64], answers: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    Ok(mean("rmse", &squared_errors(labels, answers)?, weights)?.sqrt())
}

/// Mean pinball loss.
///
/// # Errors
/// Those of [`pinball_losses`] and of [`mean`].
pub fn pinball(labels: &[f64], answers: &[f64], at: f64, weights: Weights<'_>) -> Result<f64, Flaw> {
    mean("quantile_loss", &pinball_losses(labels, answers, at)?, weights)
}

/// The coefficient of determination, 1 − Σ(label − answer)²/Σ(label − mean)².
///
/// # Errors
/// Those of [`rmse`]; [`Flaw::Undefined`] when the labels do not vary.
pub fn r2(labels: &[f64], answers: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    let left = mean("r2", &squared_errors(labels, answers)?, weights)?;
    let middle = mean("the mean of the labels", labels, weights)?;
    let apart = squared_errors(labels, &vec![middle; labels.len()])?;
    Ok(1.0 - quotient("r2", left, mean("r2", &apart, weights)?, "the labels do not vary")?)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::*;

    const LABELS: [f64; 6] = [3.0, -0.5, 2.0, 7.0, 4.2, 1.0];
    const ANSWERS: [f64; 6] = [2.5, 0.0, 2.1, 7.8, 3.3, 1.0];
    const WEIGHTS: [f64; 6] = [1.0, 2.0, 0.5, 1.0, 3.0, 1.5];

    /// scikit-learn 1.9.1: `mean_absolute_error`, `root_mean_squared_error`, `r2_score`, `mean_pinball_loss` with `alpha=0.9`.
    #[test]
    fn they_agree_with_scikit_learn() {
        for (weights, expected) in [(Weights::Equal, PLAIN), (Weights::Of(&WEIGHTS), WEIGHTED)] {
            let found = [
                mae(&LABELS, &ANSWERS, weights),
                rmse(&LABELS, &ANSWERS, weights),
                r2(&LABELS, &ANSWERS, weights),
                pinball(&LABELS, &ANSWERS, 0.9, weights),
            ];
            found
                .into_iter()
                .zip(expected)
                .for_each(|(found, expected)| close(found.unwrap(), expected, 1e-14));
        }
    }

    const PLAIN: [f64; 4] = [0.46666666666666673, 0.5715476066494083, 0.943037054976992, 0.2333333333333334];
    const WEIGHTED: [f64; 4] =
        [0.5611111111111112, 0.651920240520265, 0.9240853860233311, 0.3405555555555557];

    #[test]
    fn the_pinball_of_the_median_is_half_of_the_absolute_error() {
        let half = mae(&LABELS, &ANSWERS, Weights::Equal).unwrap() / 2.0;
        close(pinball(&LABELS, &ANSWERS, 0.5, Weights::Equal).unwrap(), half, 1e-15);
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(r2(&[1.0, 1.0], &[1.0, 2.0], Weights::Equal), Err(Flaw::Undefined { .. })));
        assert!(matches!(mae(&[], &[], Weights::Equal), Err(Flaw::TooFew { .. })));
        assert!(matches!(mae(&[1.0], &[], Weights::Equal), Err(Flaw::Lengths { .. })));
        assert!(matches!(rmse(&[1.0], &[f64::NAN], Weights::Equal), Err(Flaw::NotFinite { .. })));
        assert!(matches!(rmse(&[f64::MAX], &[0.0], Weights::Equal), Err(Flaw::Overflow { .. })));
        assert!(matches!(pinball(&[1.0], &[1.0], 1.5, Weights::Equal), Err(Flaw::Outside { .. })));
    }
}
