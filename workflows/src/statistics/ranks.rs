//! Two independent samples compared by ranks: whether one tends to be greater (Mann–Whitney), by how much it is shifted
//! (Hodges–Lehmann), and how often it is (the common-language effect size). For latencies and other numbers with long tails;
//! for a margin that is a ratio give logarithms.

use super::distributions::{normal_quantile, normal_two_sided, normal_upper};
use super::{Difference, Flaw, Question, Test, all_finite, enough, finite, needed};

/// The rank of each value among all of them, from 1; equal values share the mean of their ranks.
pub(super) fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![0.0; values.len()];
    let mut ascending: Vec<usize> = (0..values.len()).collect();
    ascending.sort_unstable_by(|one, other| values[*one].total_cmp(&values[*other]));
    let mut before = 0;
    // `==` and not the total order, to which −0 and 0 differ.
    for ties in ascending.chunk_by(|one, other| values[*one] == values[*other]) {
        let rank = before as f64 + (ties.len() as f64 + 1.0) / 2.0;
        for at in ties {
            ranks[*at] = rank;
        }
        before += ties.len();
    }
    ranks
}

/// Two samples, each in ascending order; neither is empty and all values are finite.
#[derive(Clone, Debug)]
pub struct Samples {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// The Mann–Whitney test of "neither sample tends to be greater".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// In how many pairs x is greater, equal ones counted half.
    pub u: f64,
    /// Two-sided p.
    pub two_sided: f64,
    /// One-sided p, small when x tends to be greater.
    pub greater: f64,
    /// One-sided p, small when x tends to be smaller.
    pub less: f64,
    /// Whether it is from the exact distribution: for at most [`EXACT_MAX`] values a sample, without ties.
    pub exact: bool,
}

/// Up to so many values in each sample the distribution of the rank sum is counted out.
pub const EXACT_MAX: usize = 20;

impl Samples {
    /// Two samples; `x` is the candidate's.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] when one is empty, [`Flaw::NotFinite`].
    pub fn new(x: &[f64], y: &[f64]) -> Result<Self, Flaw> {
        let sorted = |what: &'static str, values: &[f64]| {
            enough(what, values.len(), 1)?;
            all_finite(what, values)?;
            let mut values = values.to_vec();
            values.sort_unstable_by(f64::total_cmp);
            Ok(values)
        };
        Ok(Self { x: sorted("the first sample", x)?, y: sorted("the second sample", y)? })
    }

    /// P(x > y) + P(x = y)/2 of one value of each: 0.5 when neither tends to be greater.
    pub fn common_language_effect(&self) -> f64 {
        self.u(0.0) / self.pairs()
    }

    /// The test, exact where that is cheap and possible.
    pub fn mann_whitney(&self) -> MannWhitney {
        self.shifted_test(0.0, self.is_exact())
    }

    /// The test by the normal approximation with the correction for ties and for continuity, as R's `wilcox.test` and SciPy's
    /// `mannwhitneyu` have it.
    pub fn mann_whitney_asymptotic(&self) -> MannWhitney {
        self.shifted_test(0.0, false)
    }

    /// The shift of x against y: the median of all differences x − y (Hodges and Lehmann, Ann. Math. Statist. 34, 1963). Counted
    /// exactly in O(n) memory.
    ///
    /// # Errors
    /// [`Flaw::Overflow`] when differences are beyond what a number can hold.
    pub fn shift(&self) -> Result<f64, Flaw> {
        self.finite_differences()?;
        let pairs = self.pair_count();
        let (low, high) =
            (self.difference_of_rank(pairs.div_ceil(2)), self.difference_of_rank(pairs / 2 + 1));
        Ok(f64::midpoint(low, high))
    }

    /// The interval of the shift, two-sided: the differences between which the test would not refuse the shift, as order statistics
    /// of all differences (Moses). No search for a root, so that it is exact at ties as well.
    ///
    /// # Errors
    /// [`Flaw::Outside`] when the confidence is not between 0 and 1, [`Flaw::TooFew`] when so few values cannot reach it.
    pub fn shift_interval(&self, confidence: f64) -> Result<(f64, f64), Flaw> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(Flaw::Outside { what: "the confidence", value: confidence, low: 0.0, high: 1.0 });
        }
        self.bounds((1.0 - confidence) / 2.0)
    }

    /// The shift of the candidate's (x) against the champion's values (y).
    ///
    /// # Errors
    /// What is wrong with the question; those of [`Samples::shift_interval`].
    pub fn difference(&self, question: &Question) -> Result<Difference, Flaw> {
        question.check()?;
        let turned = match question.direction {
            crate::gate::Direction::Higher => self,
            crate::gate::Direction::Lower => &Self { x: self.y.clone(), y: self.x.clone() },
        };
        let (low, high) = turned.bounds(question.alpha)?;
        let test = turned.mann_whitney();
        let p_margin = turned.shifted_test(-question.margin, test.exact).greater;
        let n = (self.x.len() + self.y.len()) as u64;
        let estimate = turned.shift()?;
        let se = (high - low) / (2.0 * question.z());
        Ok(Difference {
            estimate,
            low,
            high,
            statistic: Some(test.u),
            p_better: test.greater,
            p_worse: test.less,
            p_margin,
            n,
            test: if test.exact { Test::MannWhitneyExact } else { Test::MannWhitney },
            needed: needed(estimate, se, n, p_margin, question),
        })
    }

    fn pair_count(&self) -> u64 {
        // Lengths of vectors of numbers are below 2⁶⁰; beyond 2³² a side the product saturates, and memory is long full.
        (self.x.len() as u64).saturating_mul(self.y.len() as u64)
    }

    fn pairs(&self) -> f64 {
        self.x.len() as f64 * self.y.len() as f64
    }

    /// Both samples together hold a value twice when y is moved by `shift`.
    fn groups(&self, shift: f64) -> Vec<usize> {
        let mut all: Vec<f64> = self.x.iter().copied().chain(self.y.iter().map(|y| y + shift)).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.chunk_by(|one, other| one == other).map(<[f64]>::len).collect()
    }

    /// In how many pairs x − y is greater than `shift`, equal ones counted half.
    fn u(&self, shift: f64) -> f64 {
        let at_most = self.differences_up_to(|difference| difference <= shift) as f64;
        let below = self.differences_up_to(|difference| difference < shift) as f64;
        self.pairs() - f64::midpoint(at_most, below)
    }

    /// How many differences x − y are among the smallest, as `among` says of each; it holds up to some difference and not beyond.
    fn differences_up_to(&self, among: impl Fn(f64) -> bool) -> u64 {
        // x ascends, so the y that are small enough to be too far away ascend with it.
        let (mut count, mut beyond) = (0, 0);
        for &x in &self.x {
            while beyond < self.y.len() && !among(x - self.y[beyond]) {
                beyond += 1;
            }
            count += (self.y.len() - beyond) as u64;
        }
        count
    }

    /// The difference x − y of this rank among all of them in ascending order, from 1: a search over the numbers in their order,
    /// with at most 64 passes over both samples.
    fn difference_of_rank(&self, rank: u64) -> f64 {
        let (mut low, mut high) = (order(f64::MIN), order(f64::MAX));
        while low < high {
            let middle = low + (high - low) / 2;
            let value = number(middle);
            if self.differences_up_to(|difference| difference <= value) >= rank {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        // 0 and −0 are the same difference.
        number(low) + 0.0
    }

    fn finite_differences(&self) -> Result<(), Flaw> {
        let (Some(first_x), Some(last_x)) = (self.x.first(), self.x.last()) else { return Ok(()) };
        let (Some(first_y), Some(last_y)) = (self.y.first(), self.y.last()) else { return Ok(()) };
        finite("the differences", last_x - first_y)?;
        finite("the differences", first_x - last_y)?;
        Ok(())
    }

    /// The bounds that are each wrong with probability alpha.
    fn bounds(&self, alpha: f64) -> Result<(f64, f64), Flaw> {
        self.finite_differences()?;
        let (n, m) = (self.x.len() as f64, self.y.len() as f64);
        let pairs = self.pair_count();
        let rank = if self.is_exact() {
            // The least k with P(U ≤ k) ≥ alpha: bounds at the differences of rank k err at most so often.
            let below = cumulative(self.x.len(), self.y.len());
            below.iter().position(|p| *p >= alpha).unwrap_or(0) as u64
        } else {
            let sigma = (n * m * (n + m + 1.0) / 12.0).sqrt();
            let rank = n * m / 2.0 - normal_quantile(1.0 - alpha) * sigma + 0.5;
            if rank < 1.0 { 0 } else { whole_below(rank) }
        };
        if rank == 0 {
            let found = (self.x.len() + self.y.len()) as u64;
            return Err(Flaw::TooFew { what: "values for an interval", found, least: found + 1 });
        }
        Ok((self.difference_of_rank(rank), self.difference_of_rank(pairs - rank + 1)))
    }

    fn is_exact(&self) -> bool {
        self.x.len() <= EXACT_MAX
            && self.y.len() <= EXACT_MAX
            && self.groups(0.0).iter().all(|values| *values == 1)
    }

    /// The test of "x is y, moved by `shift`"; `exact` when there are no ties at 0, and then ties that come from the shift count against
    /// what is to be shown.
    fn shifted_test(&self, shift: f64, exact: bool) -> MannWhitney {
        let u = self.u(shift);
        if exact {
            let below = cumulative(self.x.len(), self.y.len());
            let at_most = |u: f64| below.get(super::whole(u) as usize).copied().unwrap_or(1.0).min(1.0);
            // The distribution is symmetric: P(U ≥ u) = P(U ≤ nm − u).
            let (greater, less) = (at_most(self.pairs() - u), at_most(u));
            return MannWhitney {
                u,
                two_sided: (2.0 * greater.min(less)).min(1.0),
                greater,
                less,
                exact: true,
            };
        }
        let sigma = self.sigma(shift);
        let apart = u - self.pairs() / 2.0;
        if sigma <= 0.0 {
            // Every value is the same one.
            return MannWhitney { u, two_sided: 1.0, greater: 1.0, less: 1.0, exact: false };
        }
        let two_sided = normal_two_sided((apart.abs() - 0.5).max(0.0) / sigma);
        let (greater, less) = (normal_upper((apart - 0.5) / sigma), normal_upper((-apart - 0.5) / sigma));
        MannWhitney { u, two_sided, greater, less, exact: false }
    }

    /// The standard deviation of U, less for ties.
    fn sigma(&self, shift: f64) -> f64 {
        let (n, m) = (self.x.len() as f64, self.y.len() as f64);
        let all = n + m;
        let ties: f64 =
            self.groups(shift).iter().map(|values| (*values as f64).powi(3) - *values as f64).sum();
        (n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)))).max(0.0).sqrt()
    }
}

/// P(U ≤ u) for u from 0 to n·m, of two samples of these sizes without ties (the recursion of Mann and Whitney, Ann. Math. Statist. 18,
/// 1947, as a product of polynomials).
fn cumulative(n: usize, m: usize) -> Vec<f64> {
    // The number of ways to make U from n and m values is the coefficient of the Gaussian binomial, the product over i of
    // (1 − q^(m+i))/(1 − q^i). Both sizes are at most 20, so that every coefficient is a whole number below 2⁵³.
    let mut ways = vec![0.0; n * m + 1];
    ways[0] = 1.0;
    for i in 1..=n {
        for u in (m + i..ways.len()).rev() {
            ways[u] -= ways[u - m - i];
        }
        for u in i..ways.len() {
            ways[u] += ways[u - i];
        }
    }
    let all: f64 = ways.iter().sum();
    let mut so_far = 0.0;
    ways.iter()
        .map(|ways| {
            so_far += ways;
            so_far / all
        })
        .collect()
}

/// The whole part of a number that is at least 0.
fn whole_below(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such casts saturate")]
    let whole = value as u64;
    whole
}

/// The place of a number among all numbers in ascending order.
fn order(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The number at this place.
fn number(order: u64) -> f64 {
    f64::from_bits(if order >> 63 == 1 { order & !(1 << 63) } else { !order })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, question};
    use super::*;
    use crate::gate::Direction;

    fn samples(x: &[f64], y: &[f64]) -> Samples {
        Samples::new(x, y).unwrap()
    }

    /// Published: Kayenta's test suite.
    #[test]
    fn four_against_four() {
        let found = samples(&[10.0, 20.0, 30.0, 40.0], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(found.shift_interval(0.95).unwrap(), (6.0, 39.0));
        assert_eq!(found.shift().unwrap(), 22.5);
        let test = found.mann_whitney();
        assert!(test.exact);
        assert_eq!(test.u, 16.0);
        close(test.two_sided, 0.028571, 5e-7);
        assert_eq!(samples(&[1.0, 2.0], &[3.0, 4.0]).common_language_effect(), 0.0);
        assert_eq!(samples(&[1.0, 2.0], &[1.0, 2.0]).common_language_effect(), 0.5);
    }

    const X: [f64; 10] = [2.5, 3.0, 3.5, 2.0, 4.0, 3.0, 2.5, 5.0, 3.5, 3.0];
    const Y: [f64; 10] = [3.0, 4.0, 4.5, 3.5, 5.0, 6.0, 3.5, 4.0, 5.5, 2.5];

    #[test]
    fn ten_against_ten_with_ties() {
        let found = samples(&X, &Y);
        let test = found.mann_whitney();
        assert!(!test.exact, "there are ties");
        assert_eq!(test.u, 24.0);
        close(test.two_sided, 0.0512973, 5e-8);
        assert_eq!(found.shift().unwrap(), -1.0);
        assert_eq!(found.shift_interval(0.95).unwrap(), (-2.0, 0.0));
        assert_eq!(found.shift_interval(0.98).unwrap(), (-2.0, 0.0));
        close(found.common_language_effect(), 0.24, 1e-15);
    }

    /// SciPy 1.17.1: `mannwhitneyu(x, y, alternative, method="exact")`.
    #[test]
    fn exact_probabilities_agree_with_scipy() {
        let (x, y) = (&[1.1, 2.2, 3.3, 4.4, 5.5, 6.6, 7.7], &[0.5, 1.5, 2.5, 3.5, 4.0]);
        let test = samples(x, y).mann_whitney();
        assert_eq!(test.u, EXACT.0);
        close(test.two_sided, EXACT.1, 1e-14);
        close(test.greater, EXACT.2, 1e-14);
        close(test.less, EXACT.3, 1e-14);
    }

    const EXACT: (f64, f64, f64, f64) = (26.0, 0.20202020202020204, 0.10101010101010102, 0.9255050505050505);

    #[test]
    fn the_difference_of_every_rank_is_the_one_by_sorting() {
        let x: Vec<f64> = (0..23).map(|i| f64::from(i * 37 % 19) / 3.0 - 2.0).collect();
        let y: Vec<f64> = (0..17).map(|i| f64::from(i * 11 % 13) * 0.7).collect();
        let found = samples(&x, &y);
        let mut all: Vec<f64> = x.iter().flat_map(|x| y.iter().map(move |y| x - y)).collect();
        all.sort_by(f64::total_cmp);
        for (at, expected) in all.iter().enumerate() {
            assert_eq!(found.difference_of_rank(at as u64 + 1), *expected + 0.0);
        }
        assert_eq!(found.shift().unwrap(), all[195], "391 differences have their middle at the 196th");
        let even = samples(&found.x[1..], &y).shift().unwrap();
        let mut all: Vec<f64> = found.x[1..].iter().flat_map(|x| y.iter().map(move |y| x - y)).collect();
        all.sort_by(f64::total_cmp);
        assert_eq!(even, f64::midpoint(all[186], all[187]));
    }

    #[test]
    fn bounds_and_p_of_the_margin_say_the_same() {
        let x: Vec<f64> = (0..40).map(|i| f64::from(i * 37 % 41) + 0.01 * f64::from(i)).collect();
        let y: Vec<f64> = (0..35).map(|i| f64::from(i * 29 % 43) - 3.0 + 0.013 * f64::from(i)).collect();
        let few = (&x[..9], &y[..8]);
        for found in [samples(&x, &y), samples(few.0, few.1)] {
            for tenths in 0..200 {
                let margin = f64::from(tenths) / 10.0 + 0.0371;
                let answer = found.difference(&question(margin, 0.05)).unwrap();
                assert_eq!(answer.low > -margin, answer.p_margin < 0.05, "{answer:?} {margin}");
            }
        }
    }

    #[test]
    fn lower_is_better_for_latencies() {
        let lower = Question { direction: Direction::Lower, ..question(0.0, 0.05) };
        let found = samples(&X, &Y).difference(&lower).unwrap();
        assert_eq!((found.estimate, found.statistic), (1.0, Some(76.0)));
        assert!(found.p_better < 0.05 && found.p_worse > 0.9, "{found:?}");
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Samples::new(&[], &[1.0]), Err(Flaw::TooFew { .. })));
        assert!(matches!(Samples::new(&[1.0], &[f64::INFINITY]), Err(Flaw::NotFinite { row: 1, .. })));
        let one = samples(&[1.0], &[2.0]);
        assert!(matches!(one.shift_interval(0.95), Err(Flaw::TooFew { .. })));
        assert_eq!(one.shift(), Ok(-1.0));
        assert!(matches!(samples(&[f64::MAX], &[f64::MIN]).shift(), Err(Flaw::Overflow { .. })));
        let same = samples(&[3.0; 30], &[3.0; 30]);
        assert_eq!(same.mann_whitney().two_sided, 1.0);
        assert_eq!(same.difference(&question(0.1, 0.05)).unwrap().low, 0.0);
    }
}
