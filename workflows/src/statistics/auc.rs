//! The areas under the ROC curves of two models on the same examples, and how sure their difference is (DeLong, DeLong and
//! Clarke-Pearson, Biometrics 44, 1988), counted with mid-ranks in O(n log n) (Sun and Xu, IEEE Signal Process. Lett. 21, 2014).
//! Agrees with R's pROC. Weighted areas are `metrics`'; their differences need a bootstrap.

use super::ranks::mid_ranks;
use super::{Difference, Flaw, Question, Standardised, Test, all_finite, as_long, enough};

/// Two areas with the variances and the covariance of their estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Areas {
    /// The candidate's area, from 0 to 1.
    pub candidate: f64,
    /// The champion's.
    pub champion: f64,
    /// The variance of the candidate's.
    pub candidate_variance: f64,
    /// The variance of the champion's.
    pub champion_variance: f64,
    /// Their covariance.
    pub covariance: f64,
    /// How many examples are positive.
    pub positives: u64,
    /// How many are negative.
    pub negatives: u64,
}

/// With fewer of a class, areas are too far from normal for [`Areas::difference`] to be trusted.
const LEAST: u64 = 10;

impl Areas {
    /// Of the scores of two models, where greater means "positive"; equal scores count half.
    ///
    /// # Errors
    /// [`Flaw::Lengths`], [`Flaw::NotFinite`], [`Flaw::TooFew`] for fewer than two examples of a class.
    pub fn of(positive: &[bool], candidate: &[f64], champion: &[f64]) -> Result<Self, Flaw> {
        let ours = Placements::of(positive, candidate, "the candidate's scores")?;
        let theirs = Placements::of(positive, champion, "the champion's scores")?;
        let (m, n) = (ours.of_positives.len(), ours.of_negatives.len());
        let covariance = |one: &Placements, other: &Placements| {
            one.covariance(other, |p| &p.of_positives) / m as f64
                + one.covariance(other, |p| &p.of_negatives) / n as f64
        };
        Ok(Self {
            candidate: ours.area,
            champion: theirs.area,
            candidate_variance: covariance(&ours, &ours),
            champion_variance: covariance(&theirs, &theirs),
            covariance: covariance(&ours, &theirs),
            positives: m as u64,
            negatives: n as u64,
        })
    }

    /// The standard error of the difference; 0 when both models rank alike.
    pub fn se(&self) -> f64 {
        let variance = self.candidate_variance + self.champion_variance - 2.0 * self.covariance;
        // What is left when equal numbers cancel is no variance.
        let rounding = 1e-14 * (self.candidate_variance + self.champion_variance);
        if variance > rounding { variance.sqrt() } else { 0.0 }
    }

    /// The difference of the areas.
    ///
    /// # Errors
    /// What is wrong with the question; [`Flaw::TooFew`] for fewer than ten examples of a class; [`Flaw::Undefined`] when the
    /// areas differ and nothing varies (a perfect model against a constant one).
    pub fn difference(&self, question: &Question) -> Result<Difference, Flaw> {
        for (what, found) in [("positive examples", self.positives), ("negative examples", self.negatives)] {
            if found < LEAST {
                return Err(Flaw::TooFew { what, found, least: LEAST });
            }
        }
        question.check()?;
        Standardised {
            estimate: question.turned(self.candidate - self.champion),
            se: self.se(),
            n: self.positives + self.negatives,
            test: Test::DeLong,
            upper: super::distributions::normal_upper,
            quantile: question.z(),
        }
        .answer(question)
    }
}

/// One model's scores as DeLong sees them: for each positive the share of negatives below it, for each negative the share of
/// positives above it.
struct Placements {
    area: f64,
    of_positives: Vec<f64>,
    of_negatives: Vec<f64>,
}

impl Placements {
    fn of(positive: &[bool], scores: &[f64], what: &'static str) -> Result<Self, Flaw> {
        as_long(what, scores.len(), positive.len())?;
        all_finite(what, scores)?;
        let of =
            |class: bool| positive.iter().enumerate().filter(move |(_, is)| **is == class).map(|(at, _)| at);
        let (positives, negatives): (Vec<usize>, Vec<usize>) = (of(true).collect(), of(false).collect());
        enough("positive examples", positives.len(), 2)?;
        enough("negative examples", negatives.len(), 2)?;
        let among_all = mid_ranks(scores);
        // How many of the other class are below, equal ones counted half: the rank among all less the rank among one's own.
        let below = |class: &[usize]| -> Vec<f64> {
            let own: Vec<f64> = class.iter().map(|at| scores[*at]).collect();
            class.iter().zip(mid_ranks(&own)).map(|(at, among_own)| among_all[*at] - among_own).collect()
        };
        let (m, n) = (positives.len() as f64, negatives.len() as f64);
        let of_positives: Vec<f64> = below(&positives).iter().map(|count| count / n).collect();
        let of_negatives: Vec<f64> = below(&negatives).iter().map(|count| 1.0 - count / m).collect();
        Ok(Self { area: of_positives.iter().sum::<f64>() / m, of_positives, of_negatives })
    }

    /// The sample covariance over one class.
    fn covariance(&self, other: &Self, class: fn(&Self) -> &Vec<f64>) -> f64 {
        let (mine, theirs) = (class(self), class(other));
        let products = mine.iter().zip(theirs).map(|(a, b)| (a - self.area) * (b - other.area));
        products.sum::<f64>() / (mine.len() as f64 - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::distributions::normal_two_sided;
    use super::super::tests::{close, question};
    use super::*;

    const POSITIVE: [bool; 12] =
        [false, false, false, false, false, false, true, true, true, true, true, true];
    const A: [f64; 12] = [0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.35, 0.55, 0.60, 0.70, 0.80, 0.90];
    const B: [f64; 12] = [0.20, 0.10, 0.55, 0.45, 0.60, 0.50, 0.30, 0.50, 0.65, 0.60, 0.85, 0.70];

    #[test]
    fn a_worked_example() {
        let found = Areas::of(&POSITIVE, &A, &B).unwrap();
        close(found.candidate, 0.875, 1e-15);
        close(found.champion, 0.8055555556, 5e-11);
        close(found.candidate_variance, 0.0108796296, 5e-11);
        close(found.champion_variance, 0.0182098765, 5e-11);
        close(found.covariance, 0.0104166667, 5e-11);
        close(found.se(), 0.0908634846, 5e-11);
        let z = (found.candidate - found.champion) / found.se();
        close(z, 0.7642723006, 5e-11);
        close(normal_two_sided(z), 0.4447049885, 1e-10);
    }

    /// Scores with many ties, the same on every machine.
    fn scores(n: u64, factor: u64, steps: u64) -> Vec<f64> {
        (0..n).map(|i| ((i * factor + i * i * 13) % steps) as f64 / 7.0).collect()
    }

    /// The definition, pair by pair.
    fn by_pairs(positive: &[bool], one: &[f64], other: &[f64]) -> (f64, f64) {
        let psi = |x: f64, y: f64| {
            if x > y {
                1.0
            } else if x == y {
                0.5
            } else {
                0.0
            }
        };
        let of = |class| (0..positive.len()).filter(move |at| positive[*at] == class);
        let (m, n) = (of(true).count() as f64, of(false).count() as f64);
        let area =
            |s: &[f64]| of(true).flat_map(|x| of(false).map(move |y| psi(s[x], s[y]))).sum::<f64>() / m / n;
        let (a, b) = (area(one), area(other));
        let v10 = |s: &[f64], x: usize| of(false).map(|y| psi(s[x], s[y])).sum::<f64>() / n;
        let v01 = |s: &[f64], y: usize| of(true).map(|x| psi(s[x], s[y])).sum::<f64>() / m;
        let s10 = of(true).map(|x| (v10(one, x) - a) * (v10(other, x) - b)).sum::<f64>() / (m - 1.0);
        let s01 = of(false).map(|y| (v01(one, y) - a) * (v01(other, y) - b)).sum::<f64>() / (n - 1.0);
        (a, s10 / m + s01 / n)
    }

    #[test]
    fn ranks_give_what_the_definition_gives() {
        for (n, steps) in [(40, 5), (101, 11), (64, 1000)] {
            let positive: Vec<bool> = (0..n).map(|i| (i * i + 3 * i) % 5 < 2).collect();
            let (one, other) = (scores(n, 17, steps), scores(n, 29, steps));
            let found = Areas::of(&positive, &one, &other).unwrap();
            let (area, covariance) = by_pairs(&positive, &one, &other);
            close(found.candidate, area, 1e-14);
            close(found.covariance, covariance, 1e-14);
            close(found.candidate_variance, by_pairs(&positive, &one, &one).1, 1e-14);
        }
    }

    #[test]
    fn the_difference_counts_towards_better_and_says_what_it_needs() {
        let positive: Vec<bool> = POSITIVE.iter().chain(&POSITIVE).copied().collect();
        let (a, b) = (A.repeat(2), B.repeat(2));
        let found = Areas::of(&positive, &a, &b).unwrap().difference(&question(0.0, 0.05)).unwrap();
        assert!(found.low < 0.0 && found.high > 0.0 && found.p_better > 0.05, "{found:?}");
        assert_eq!(found.p_better, found.p_margin);
        assert!(found.needed.is_some_and(|needed| needed > 24), "{found:?}");
        let turned = Areas::of(&positive, &b, &a).unwrap().difference(&question(0.0, 0.05)).unwrap();
        assert_eq!((turned.estimate, turned.p_worse), (-found.estimate, found.p_better));
    }

    #[test]
    fn models_that_rank_alike_do_not_differ() {
        let positive: Vec<bool> = (0..40).map(|i| i % 3 == 0).collect();
        let one = scores(40, 17, 19);
        let other: Vec<f64> = one.iter().map(|score| score * 3.0 + 1.0).collect();
        let found = Areas::of(&positive, &one, &other).unwrap().difference(&question(0.01, 0.05)).unwrap();
        assert_eq!((found.estimate, found.low, found.p_better, found.p_margin), (0.0, 0.0, 1.0, 0.0));
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Areas::of(&[], &[], &[]), Err(Flaw::TooFew { .. })));
        assert!(matches!(
            Areas::of(&[true; 12], &A, &B),
            Err(Flaw::TooFew { what: "negative examples", .. })
        ));
        assert!(matches!(Areas::of(&POSITIVE, &A[1..], &B), Err(Flaw::Lengths { .. })));
        let mut broken = B;
        broken[4] = f64::NAN;
        assert_eq!(
            Areas::of(&POSITIVE, &A, &broken),
            Err(Flaw::NotFinite { what: "the champion's scores", row: 5 })
        );
        let few = Areas::of(&POSITIVE, &A, &B).unwrap().difference(&question(0.0, 0.05));
        assert!(matches!(few, Err(Flaw::TooFew { least: 10, .. })));
        let positive: Vec<bool> = (0..40).map(|i| i >= 20).collect();
        let perfect: Vec<f64> = (0..40).map(f64::from).collect();
        let certain = Areas::of(&positive, &perfect, &[1.0; 40]).unwrap().difference(&question(0.0, 0.05));
        assert!(matches!(certain, Err(Flaw::Undefined { .. })));
    }
}
