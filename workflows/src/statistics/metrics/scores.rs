//! Metrics of answers that are scores or probabilities: how well they order the examples, and how true they are.

use super::super::{Flaw, all_finite, as_long, enough, finite, within};
use super::{Weights, mean, quotient};

/// Examples in the order of one model's scores, from the greatest, made once for any number of weightings.
#[derive(Clone, Debug)]
pub struct Scored {
    /// The rows whose scores are the same, from the greatest score.
    ties: Vec<Vec<u32>>,
    positive: Vec<bool>,
}

impl Scored {
    /// Whether each example is positive, and its score, where greater means "positive".
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without a row, [`Flaw::TooMany`] beyond 2³² − 1, [`Flaw::Lengths`], [`Flaw::NotFinite`].
    pub fn of(positive: &[bool], scores: &[f64]) -> Result<Self, Flaw> {
        enough("examples", positive.len(), 1)?;
        as_long("the scores", scores.len(), positive.len())?;
        all_finite("the scores", scores)?;
        let (found, most) = (positive.len() as u64, u64::from(u32::MAX));
        let rows =
            u32::try_from(positive.len()).map_err(|_| Flaw::TooMany { what: "examples", found, most })?;
        let mut descending: Vec<u32> = (0..rows).collect();
        let score = |row: &u32| scores[*row as usize];
        descending.sort_unstable_by(|one, other| score(other).total_cmp(&score(one)));
        let ties =
            descending.chunk_by(|one, other| score(one) == score(other)).map(<[u32]>::to_vec).collect();
        Ok(Self { ties, positive: positive.to_vec() })
    }

    /// The weights of the positives and of the negatives among each run of equal scores, from the greatest.
    fn weighed(&self, weights: Weights<'_>) -> impl Iterator<Item = (f64, f64)> {
        self.ties.iter().map(move |ties| {
            ties.iter().fold((0.0, 0.0), |(positives, negatives), row| {
                let weight = weights.of(*row as usize);
                if self.positive[*row as usize] {
                    (positives + weight, negatives)
                } else {
                    (positives, negatives + weight)
                }
            })
        })
    }

    /// The area under the receiver operating characteristic: how often a positive has the greater score than a negative, equal scores
    /// counted half.
    ///
    /// # Errors
    /// What is wrong with the weights; [`Flaw::Undefined`] when there are not both classes.
    pub fn roc_auc(&self, weights: Weights<'_>) -> Result<f64, Flaw> {
        weights.check(self.positive.len())?;
        let (mut area, mut above, mut all_negatives) = (0.0, 0.0, 0.0);
        for (positives, negatives) in self.weighed(weights) {
            area += negatives * (above + positives / 2.0);
            above += positives;
            all_negatives += negatives;
        }
        quotient("roc_auc", area, above * all_negatives, "there are not both positive and negative examples")
    }

    /// Average precision, Σ(Rₙ − Rₙ₋₁)·Pₙ over the scores as thresholds from the greatest: as scikit-learn has it, not the trapezoids
    /// under the curve, which are too optimistic.
    ///
    /// # Errors
    /// What is wrong with the weights; [`Flaw::Undefined`] when there is no positive.
    pub fn average_precision(&self, weights: Weights<'_>) -> Result<f64, Flaw> {
        weights.check(self.positive.len())?;
        let (mut sum, mut found, mut taken) = (0.0, 0.0, 0.0);
        for (positives, negatives) in self.weighed(weights) {
            found += positives;
            taken += positives + negatives;
            if positives > 0.0 {
                sum += positives * (found / taken);
            }
        }
        quotient("pr_auc", sum, found, "there is no positive example")
    }
}

fn probabilities(positive: &[bool], probabilities: &[f64]) -> Result<(), Flaw> {
    enough("examples", positive.len(), 1)?;
    as_long("the probabilities", probabilities.len(), positive.len())?;
    all_finite("the probabilities", probabilities)?;
    probabilities.iter().try_for_each(|p| within("a probability", *p, 0.0, 1.0).map(|_| ()))
}

/// The cross-entropy of one answer, natural logarithm. Certainty is cut off at the distance of 1 from the next number, as in
/// scikit-learn, so that being certain and wrong costs 36 and not infinity.
fn entropy(p: f64) -> f64 {
    -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// The cross-entropy of each row: −ln of the probability given to what is so.
///
/// # Errors
/// [`Flaw::TooFew`] without a row, [`Flaw::Lengths`], [`Flaw::NotFinite`], [`Flaw::Outside`] for what is no probability.
pub fn log_losses(positive: &[bool], positives: &[f64]) -> Result<Vec<f64>, Flaw> {
    probabilities(positive, positives)?;
    Ok(positive.iter().zip(positives).map(|(is, p)| entropy(if *is { *p } else { 1.0 - *p })).collect())
}

/// Mean cross-entropy of two classes.
///
/// # Errors
/// Those of [`log_losses`] and of [`mean`].
pub fn log_loss(positive: &[bool], positives: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    mean("log_loss", &log_losses(positive, positives)?, weights)
}

/// (probability − 1 or 0)² of each row.
///
/// # Errors
/// Those of [`log_losses`].
pub fn brier_losses(positive: &[bool], positives: &[f64]) -> Result<Vec<f64>, Flaw> {
    probabilities(positive, positives)?;
    Ok(positive.iter().zip(positives).map(|(is, p)| (p - if *is { 1.0 } else { 0.0 }).powi(2)).collect())
}

/// Brier's score: the mean of [`brier_losses`], from 0 to 1.
///
/// # Errors
/// Those of [`log_losses`] and of [`mean`].
pub fn brier(positive: &[bool], positives: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    mean("brier", &brier_losses(positive, positives)?, weights)
}

/// How many bins [`ece`] has.
pub const ECE_BINS: usize = 15;

/// The expected calibration error: the mean, over [`ECE_BINS`] bins of the same width over 0 to 1 and by the weight in them, of
/// |mean probability − share of positives| (Guo, Pleiss, Sun and Weinberger, ICML 2017, with their 15 bins, upper ends inclusive;
/// they bin the probability of the most likely class, here it is that of the positive one, so that both classes must be true).
///
/// # Errors
/// Those of [`log_losses`] and what is wrong with the weights; [`Flaw::Undefined`] when all of them are 0.
pub fn ece(positive: &[bool], positives: &[f64], weights: Weights<'_>) -> Result<f64, Flaw> {
    probabilities(positive, positives)?;
    weights.check(positive.len())?;
    let (mut apart, mut total) = ([0.0; ECE_BINS], 0.0);
    for (row, (is, p)) in positive.iter().zip(positives).enumerate() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the bins")]
        let bin = ((p * ECE_BINS as f64).ceil() as usize).clamp(1, ECE_BINS) - 1;
        apart[bin] += weights.of(row) * (p - if *is { 1.0 } else { 0.0 });
        total += weights.of(row);
    }
    let sum: f64 = apart.iter().map(|apart| apart.abs()).sum();
    finite("ece", quotient("ece", sum, total, "all weights are 0")?)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::*;

    const POSITIVE: [bool; 10] = [true, false, true, true, false, false, true, false, true, false];
    const SCORES: [f64; 10] = [0.9, 0.1, 0.8, 0.35, 0.35, 0.6, 0.6, 0.0, 1.0, 0.6];
    const WEIGHTS: [f64; 10] = [1.0, 2.0, 0.5, 1.5, 1.0, 3.0, 1.0, 2.0, 0.25, 1.0];

    /// scikit-learn 1.9.1: `roc_auc_score`, `average_precision_score`, `log_loss`, `brier_score_loss`, without and with `sample_weight`;
    /// the calibration error by NumPy, bin by bin.
    #[test]
    fn they_agree_with_scikit_learn() {
        for (weights, expected) in [(Weights::Equal, PLAIN), (Weights::Of(&WEIGHTS), WEIGHTED)] {
            let scored = Scored::of(&POSITIVE, &SCORES).unwrap();
            let found = [
                scored.roc_auc(weights),
                scored.average_precision(weights),
                log_loss(&POSITIVE, &SCORES, weights),
                brier(&POSITIVE, &SCORES, weights),
                ece(&POSITIVE, &SCORES, weights),
            ];
            found
                .into_iter()
                .zip(expected)
                .for_each(|(found, expected)| close(found.unwrap(), expected, 1e-14));
        }
    }

    const PLAIN: [f64; 5] = [0.86, 0.8583333333333332, 0.4257876710735296, 0.1485, 0.15000000000000002];
    const WEIGHTED: [f64; 5] = [
        0.7712418300653595,
        0.6697874344933168,
        0.49880437560254076,
        0.1816037735849057,
        0.22830188679245284,
    ];

    #[test]
    fn copies_count_as_weights_do() {
        let times = [2, 0, 1, 3, 1, 1, 0, 2, 1, 1];
        let rows: Vec<usize> =
            times.iter().enumerate().flat_map(|(row, times)| vec![row; *times as usize]).collect();
        let positive: Vec<bool> = rows.iter().map(|row| POSITIVE[*row]).collect();
        let scores: Vec<f64> = rows.iter().map(|row| SCORES[*row]).collect();
        let (once, copied) =
            (Scored::of(&POSITIVE, &SCORES).unwrap(), Scored::of(&positive, &scores).unwrap());
        let drawn = Weights::Times(&times);
        close(once.roc_auc(drawn).unwrap(), copied.roc_auc(Weights::Equal).unwrap(), 1e-15);
        close(
            once.average_precision(drawn).unwrap(),
            copied.average_precision(Weights::Equal).unwrap(),
            1e-15,
        );
        close(
            ece(&POSITIVE, &SCORES, drawn).unwrap(),
            ece(&positive, &scores, Weights::Equal).unwrap(),
            1e-15,
        );
    }

    #[test]
    fn certain_and_wrong_is_dear_but_finite() {
        close(log_loss(&[true], &[0.0], Weights::Equal).unwrap(), 36.04365338911715, 1e-12);
        assert!(log_loss(&[false, true], &[0.0, 1.0], Weights::Equal).unwrap() < 1e-15);
    }

    #[test]
    fn what_is_not_defined_has_no_value() {
        let one = Scored::of(&[true, true], &[0.1, 0.2]).unwrap();
        assert!(matches!(one.roc_auc(Weights::Equal), Err(Flaw::Undefined { .. })));
        assert_eq!(one.average_precision(Weights::Equal), Ok(1.0));
        let none = Scored::of(&[false, false], &[0.1, 0.2]).unwrap();
        assert!(matches!(none.average_precision(Weights::Equal), Err(Flaw::Undefined { .. })));
        assert!(matches!(ece(&[true], &[0.5], Weights::Times(&[0])), Err(Flaw::Undefined { .. })));
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Scored::of(&[], &[]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Scored::of(&[true], &[f64::NAN]), Err(Flaw::NotFinite { row: 1, .. })));
        assert!(matches!(Scored::of(&[true], &[0.1, 0.2]), Err(Flaw::Lengths { .. })));
        for wrong in [-0.1, 1.1] {
            assert!(matches!(log_loss(&[true], &[wrong], Weights::Equal), Err(Flaw::Outside { .. })));
        }
    }
}
