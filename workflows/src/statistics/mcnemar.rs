//! Whether two models are right equally often on the same examples: McNemar's tests of the examples on which one is right
//! and the other wrong. Owns the counts of such examples. How large the difference is, `paired` says.
//!
//! McNemar, Psychometrika 12 (1947); mid-p as Fagerland, Lydersen and Laake recommend, BMC Med. Res. Methodol. 13 (2013).
//! The numbers agree with R's `mcnemar.test` and statsmodels' `mcnemar`.

use super::Flaw;
use super::distributions::{Coin, chi_square_upper, normal_upper};

/// How often two models were right on the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paired {
    n: u64,
    candidate_only: u64,
    champion_only: u64,
}

/// One-sided and two-sided p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probabilities {
    /// Of "the models are right equally often".
    pub two_sided: f64,
    /// Of "the candidate is right at most as often": small when it is better.
    pub better: f64,
    /// Of "the candidate is right at least as often": small when it is worse.
    pub worse: f64,
}

impl Paired {
    /// More examples than these are not counted exactly by a number with a fraction.
    const N_MAX: u64 = 1 << 53;

    /// `n` examples, on some of which only the candidate was right and on some only the champion.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without an example, [`Flaw::TooMany`] beyond 2⁵³, [`Flaw::Outside`] when the models differ on more
    /// examples than there are.
    pub fn new(n: u64, candidate_only: u64, champion_only: u64) -> Result<Self, Flaw> {
        let what = "examples";
        if n > Self::N_MAX {
            return Err(Flaw::TooMany { what, found: n, most: Self::N_MAX });
        }
        if n == 0 {
            return Err(Flaw::TooFew { what, found: n, least: 1 });
        }
        let discordant = candidate_only.saturating_add(champion_only);
        super::within("examples on which the models differ", discordant as f64, 0.0, n as f64)?;
        Ok(Self { n, candidate_only, champion_only })
    }

    /// Counts examples, each with whether the candidate and whether the champion was right.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without an example.
    pub fn count(examples: impl IntoIterator<Item = (bool, bool)>) -> Result<Self, Flaw> {
        let (mut n, mut candidate_only, mut champion_only) = (0, 0, 0);
        for (candidate, champion) in examples {
            n += 1;
            candidate_only += u64::from(candidate && !champion);
            champion_only += u64::from(champion && !candidate);
        }
        Self::new(n, candidate_only, champion_only)
    }

    /// The same with the models exchanged.
    #[must_use]
    pub fn exchanged(self) -> Self {
        Self { n: self.n, candidate_only: self.champion_only, champion_only: self.candidate_only }
    }

    /// How many examples.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// On how many only the candidate was right.
    pub fn candidate_only(&self) -> u64 {
        self.candidate_only
    }

    /// On how many only the champion was right.
    pub fn champion_only(&self) -> u64 {
        self.champion_only
    }

    /// On how many one was right and the other wrong.
    pub fn discordant(&self) -> u64 {
        self.candidate_only + self.champion_only
    }

    /// The exact test: the discordant examples are throws of a fair coin. Never errs more often than asked, but finds less
    /// than [`Paired::mid_p`].
    pub fn exact(&self) -> Probabilities {
        self.by_coin(0.0)
    }

    /// The mid-p test: the exact one with half of the probability of what was seen. The one to prefer when there are
    /// few discordant examples: it errs as often as asked, on average.
    pub fn mid_p(&self) -> Probabilities {
        self.by_coin(0.5)
    }

    /// `less`: how much of the probability of what was seen is taken off.
    fn by_coin(&self, less: f64) -> Probabilities {
        let coin = Coin::thrown(self.discordant());
        // As the coin is fair, P(X ≥ k) = P(X ≤ m − k): "as many for the candidate" is "as few for the champion".
        let tail = |few: u64| (coin.at_most(few) - less * coin.exactly(few)).clamp(0.0, 1.0);
        let two_sided = (2.0 * tail(self.candidate_only.min(self.champion_only))).min(1.0);
        Probabilities { two_sided, better: tail(self.champion_only), worse: tail(self.candidate_only) }
    }

    /// The chi-square test with one degree of freedom, with its statistic; with or without Edwards' continuity correction
    /// (|b − c| − 1)². Like R, the correction is applied to |b − c| = 0 as well.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when the models are right on the same examples throughout.
    pub fn chi_square(&self, corrected: bool) -> Result<(f64, Probabilities), Flaw> {
        let discordant = self.discordant() as f64;
        if discordant == 0.0 {
            let why = "the models are right on the same examples throughout";
            return Err(Flaw::Undefined { what: "McNemar's chi-square", why });
        }
        let correction = if corrected { 1.0 } else { 0.0 };
        let apart = self.candidate_only as f64 - self.champion_only as f64;
        let statistic = (apart.abs() - correction).powi(2) / discordant;
        let one_sided = |apart: f64| normal_upper((apart - correction) / discordant.sqrt());
        let probabilities = Probabilities {
            two_sided: chi_square_upper(statistic, 1)?,
            better: one_sided(apart),
            worse: one_sided(-apart),
        };
        Ok((statistic, probabilities))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::close;
    use super::*;

    /// Published: statsmodels' test suite, from R's `mcnemar.test` and an exact calculator. Champion only, candidate only; chi-square corrected
    /// and its p, chi-square and its p, exact p, mid-p.
    const PUBLISHED: [(u64, u64, [f64; 6]); 7] = [
        (121, 59, [20.67222, 5.450095e-06, 21.35556, 3.815136e-06, 4.434e-06, 3.267e-06]),
        (70, 59, [0.7751938, 0.3786151, 0.9379845, 0.3327967, 0.378688, 0.334688]),
        (80, 59, [2.87769784, 0.08981434, 3.17266187, 0.07488031, 0.089452, 0.075551]),
        (60, 30, [9.344444, 0.002236624, 10.0, 0.001565402, 0.002060, 0.001516513]),
        (10, 30, [9.025, 0.002663119, 10.0, 0.001565402, 0.002221, 0.001450491]),
        (10, 10, [0.05, 0.823063, 0.0, 1.0, 1.0, 1.0]),
        (
            15,
            19,
            [0.264706, 0.606905427217951, 0.470588235294118, 0.492716677227088, 0.60759136127308, 0.499560],
        ),
    ];

    #[test]
    fn all_four_tests_give_the_published_numbers() {
        for (champion_only, candidate_only, numbers) in PUBLISHED {
            let paired = Paired::new(500, candidate_only, champion_only).unwrap();
            let (corrected, corrected_p) = paired.chi_square(true).unwrap();
            let (plain, plain_p) = paired.chi_square(false).unwrap();
            let found = [
                corrected,
                corrected_p.two_sided,
                plain,
                plain_p.two_sided,
                paired.exact().two_sided,
                paired.mid_p().two_sided,
            ];
            for (found, expected) in found.into_iter().zip(numbers) {
                // To the digits published: six, or four of the very small ones.
                close(found, expected, if expected < 1e-4 { 5e-10 } else { 5e-6 });
            }
        }
    }

    #[test]
    fn numbers_with_more_digits_agree_to_them() {
        let paired = Paired::new(34, 19, 15).unwrap();
        close(paired.exact().two_sided, 0.60759136127308, 1e-12);
        close(paired.chi_square(true).unwrap().1.two_sided, 0.606905427217951, 1e-12);
        close(paired.chi_square(false).unwrap().1.two_sided, 0.492716677227088, 1e-12);
        close(Paired::new(40, 30, 10).unwrap().mid_p().two_sided, 0.001450491, 5e-10);
        close(Paired::new(90, 30, 60).unwrap().mid_p().two_sided, 0.001516513, 5e-10);
    }

    #[test]
    fn each_side_is_the_other_with_the_models_exchanged() {
        let paired = Paired::new(100, 14, 5).unwrap();
        // SciPy: binom.sf(13, 19, 0.5), binom.cdf(14, 19, 0.5).
        close(paired.exact().better, 0.0317840576171875, 1e-14);
        close(paired.exact().worse, 0.9903945922851562, 1e-14);
        for (one, other) in [
            (paired.exact(), paired.exchanged().exact()),
            (paired.mid_p(), paired.exchanged().mid_p()),
            (paired.chi_square(true).unwrap().1, paired.exchanged().chi_square(true).unwrap().1),
        ] {
            assert_eq!((one.better, one.worse, one.two_sided), (other.worse, other.better, other.two_sided));
            assert!(one.better < 0.05 && one.worse > 0.95);
        }
    }

    #[test]
    fn models_that_never_differ_are_equal() {
        let paired = Paired::new(10, 0, 0).unwrap();
        assert_eq!(paired.exact(), Probabilities { two_sided: 1.0, better: 1.0, worse: 1.0 });
        assert_eq!(paired.mid_p(), Probabilities { two_sided: 1.0, better: 0.5, worse: 0.5 });
        assert!(matches!(paired.chi_square(true), Err(Flaw::Undefined { .. })));
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert!(matches!(Paired::new(0, 0, 0), Err(Flaw::TooFew { .. })));
        assert!(matches!(Paired::new(3, 2, 2), Err(Flaw::Outside { .. })));
        assert!(matches!(Paired::new(u64::MAX, 2, 2), Err(Flaw::TooMany { .. })));
        assert!(matches!(Paired::new(9, u64::MAX, u64::MAX), Err(Flaw::Outside { .. })));
        let counted =
            Paired::count([(true, true), (true, false), (false, true), (true, false), (false, false)]);
        assert_eq!(counted, Paired::new(5, 2, 1));
    }
}
