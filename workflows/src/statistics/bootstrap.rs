//! How sure a difference is of which nothing else is known: examples, or clusters of them, are drawn anew with replacement and
//! the difference is counted again, for both models on the same draw (Efron, Ann. Statist. 7, 1979).
//!
//! The draws come from PCG32 (XSH RR 64/32, O'Neill 2014) on a stream of its own, begun with the seed: the same seed gives the same
//! draws on every machine and in every version. Must never happen here: randomness that is not the caller's seed.

use rand_core::Rng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::distributions::{normal_cdf, normal_quantile};
use super::{Difference, Flaw, Question, Test, finite, needed, same_throughout};

/// The stream of the generator, for ever.
const STREAM: u64 = 0x5265_6669_7442_5331;

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many draws, from [`Plan::DRAWS_MIN`] to [`Plan::DRAWS_MAX`].
    pub draws: u32,
    /// What the generator begins with; kept with the result.
    pub seed: u64,
    /// How bounds are taken from the draws.
    pub interval: Interval,
}

impl Plan {
    /// With fewer draws a bound at 5 % moves with the seed.
    pub const DRAWS_MIN: u32 = 200;
    /// More draws only cost time.
    pub const DRAWS_MAX: u32 = 100_000;
    /// What a bound at 5 % needs to stand still in its second digit.
    pub const DRAWS: u32 = 2_000;
}

/// How bounds are taken from the draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// The draws' own quantiles.
    Percentile,
    /// The same, corrected for bias and for an error that changes with the estimate (Efron, J. Am. Statist. Assoc. 82, 1987).
    Bca,
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Percentile => "percentile",
            Self::Bca => "BCa",
        })
    }
}

/// What is drawn: examples, or clusters whose examples come together.
#[derive(Clone, Debug)]
pub struct Units {
    rows: usize,
    /// For each example its cluster, counted from 0 without a gap; none when each example stands for itself.
    clusters: Option<Vec<u32>>,
    count: u32,
}

/// With fewer units, draws say more about the units than about what they stand for.
const LEAST: u64 = 10;

/// What leave-some-out is done for at most so often: groups of units instead of units give the same acceleration.
const GROUPS_MAX: u32 = 200;

impl Units {
    /// Each of so many examples on its own.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] for fewer than ten, [`Flaw::TooMany`] beyond 2³² − 1.
    pub fn examples(rows: usize) -> Result<Self, Flaw> {
        let count = units("examples", rows)?;
        Ok(Self { rows, clusters: None, count })
    }

    /// Examples that belong together: the users, sessions or queries they are of, by any number that names them.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] for fewer than ten clusters, [`Flaw::TooMany`] beyond 2³² − 1 examples.
    pub fn clusters(of_rows: &[u64]) -> Result<Self, Flaw> {
        let most = u64::from(u32::MAX);
        if of_rows.len() as u64 > most {
            return Err(Flaw::TooMany { what: "examples", found: of_rows.len() as u64, most });
        }
        let mut numbers = std::collections::BTreeMap::new();
        let clusters = of_rows
            .iter()
            .map(|name| {
                let next = numbers.len();
                // There are no more clusters than examples, which were counted.
                *numbers.entry(*name).or_insert_with(|| u32::try_from(next).unwrap_or(u32::MAX))
            })
            .collect();
        let count = units("clusters", numbers.len())?;
        Ok(Self { rows: of_rows.len(), clusters: Some(clusters), count })
    }

    /// How many examples.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many units are drawn.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How often each example counts, from how often each unit does.
    fn spread(&self, of_units: &[u32], of_rows: &mut [u32]) {
        match &self.clusters {
            None => of_rows.copy_from_slice(of_units),
            Some(clusters) => {
                for (row, cluster) in of_rows.iter_mut().zip(clusters) {
                    *row = of_units[*cluster as usize];
                }
            }
        }
    }
}

fn units(what: &'static str, found: usize) -> Result<u32, Flaw> {
    super::enough(what, found, LEAST)?;
    u32::try_from(found).map_err(|_| Flaw::TooMany { what, found: found as u64, most: u64::from(u32::MAX) })
}

/// Draws units with replacement.
struct Draws {
    generator: Pcg32,
    count: u32,
}

impl Draws {
    fn new(seed: u64, count: u32) -> Self {
        Self { generator: Pcg32::new(seed, STREAM), count }
    }

    /// How often each unit is drawn in one draw of as many as there are.
    fn next(&mut self, times: &mut [u32]) {
        times.fill(0);
        for _ in 0..self.count {
            times[below(&mut self.generator, self.count) as usize] += 1;
        }
    }
}

/// A number below `end`, each equally likely (Lemire, ACM Trans. Model. Comput. Simul. 29, 2019); `end` is not 0.
pub(super) fn below(generator: &mut Pcg32, end: u32) -> u32 {
    let unfair = end.wrapping_neg() % end;
    loop {
        let wide = u64::from(generator.next_u32()) * u64::from(end);
        let [high, low] = [wide >> 32, wide & u64::from(u32::MAX)];
        // Of the 2³² numbers some are left over when shared out; a draw of them is drawn again, at most one in two.
        if low >= u64::from(unfair) {
            #[expect(clippy::cast_possible_truncation, reason = "shifted by 32 bits")]
            return high as u32;
        }
    }
}

/// The difference of two models by resampling. `difference` is told how often each example counts and gives candidate − champion, in
/// the metric's unit; where the metric is not defined for a draw (no positive was drawn) it gives NaN. It is called
/// `draws` + 1 times and, for [`Interval::Bca`], at most 200 times more.
///
/// The probabilities are (1 + the number of draws at or beyond what is to be refuted)/(draws + 1), for [`Interval::Bca`] carried over
/// to its scale, so that they agree with its bounds. Draws without a value count against what is to be shown.
///
/// # Errors
/// What is wrong with the question; [`Flaw::Outside`] for too few or too many draws; [`Flaw::Undefined`] when the difference has no
/// value, or none in more than one draw of a hundred, or is the same in all and not 0.
pub fn bootstrap(
    units: &Units,
    plan: Plan,
    question: &Question,
    difference: impl Fn(&[u32]) -> f64,
) -> Result<Difference, Flaw> {
    question.check()?;
    super::within("draws", f64::from(plan.draws), f64::from(Plan::DRAWS_MIN), f64::from(Plan::DRAWS_MAX))?;
    let turned = |times: &[u32]| question.turned(difference(times));
    let mut of_rows = vec![1; units.rows];
    let estimate = turned(&of_rows);
    if !estimate.is_finite() {
        let why = "it has no value for the examples as they are";
        return Err(Flaw::Undefined { what: "the difference", why });
    }
    let resampled = resample(units, plan, &mut of_rows, &turned)?;
    let Interval::Bca = plan.interval else {
        return resampled.answer(units, plan, question, estimate, &Correction::NONE);
    };
    let correction = Correction {
        bias: resampled.bias(estimate),
        acceleration: acceleration(units, &mut of_rows, &turned),
    };
    resampled.answer(units, plan, question, estimate, &correction)
}

/// The differences of the draws.
struct Resampled {
    /// Those that have a value, ascending.
    values: Vec<f64>,
    /// How many were drawn.
    draws: u32,
}

fn resample(
    units: &Units,
    plan: Plan,
    of_rows: &mut [u32],
    turned: &impl Fn(&[u32]) -> f64,
) -> Result<Resampled, Flaw> {
    let mut draws = Draws::new(plan.seed, units.count);
    let mut of_units = vec![0; units.count as usize];
    let mut values = Vec::with_capacity(plan.draws as usize);
    for _ in 0..plan.draws {
        draws.next(&mut of_units);
        units.spread(&of_units, of_rows);
        let value = turned(of_rows);
        if value.is_finite() {
            values.push(value);
        }
    }
    if (plan.draws as usize - values.len()) * 100 > plan.draws as usize {
        let why = "more than one draw of a hundred has no value: some class or group is too rare";
        return Err(Flaw::Undefined { what: "the difference", why });
    }
    values.sort_unstable_by(f64::total_cmp);
    Ok(Resampled { values, draws: plan.draws })
}

/// What BCa corrects for; nothing for the percentile interval.
struct Correction {
    bias: f64,
    acceleration: f64,
}

impl Correction {
    const NONE: Self = Self { bias: 0.0, acceleration: 0.0 };

    /// Which share of the draws lies below the bound that errs with probability `level`.
    fn share_below(&self, level: f64) -> f64 {
        let moved = self.bias + normal_quantile(level);
        let scale = 1.0 - self.acceleration * moved;
        // Beyond this the transformation turns round; the bound is then at the end of the draws.
        if scale <= 0.0 {
            return if moved > 0.0 { 1.0 } else { 0.0 };
        }
        normal_cdf(self.bias + moved / scale)
    }

    /// The level at which the bound lies where this share of the draws is below: the inverse of [`Correction::share_below`].
    fn level(&self, share: f64) -> f64 {
        // All draws on one side: as far as so many draws can tell, whatever is corrected.
        if share <= 0.0 || share >= 1.0 {
            return share.clamp(0.0, 1.0);
        }
        let apart = normal_quantile(share) - self.bias;
        let scale = 1.0 + self.acceleration * apart;
        if scale <= 0.0 {
            return if apart > 0.0 { 1.0 } else { 0.0 };
        }
        normal_cdf(apart / scale - self.bias)
    }
}

impl Resampled {
    fn draws(&self) -> f64 {
        f64::from(self.draws)
    }

    /// Draws at or below a value, those without one included when they count against it; the observed sample counts as a draw.
    fn share_at_most(&self, value: f64) -> f64 {
        let without = self.draws as usize - self.values.len();
        let at_most = self.values.partition_point(|draw| *draw <= value);
        (1 + without + at_most) as f64 / (self.draws() + 1.0)
    }

    fn share_at_least(&self, value: f64) -> f64 {
        let without = self.draws as usize - self.values.len();
        let at_least = self.values.len() - self.values.partition_point(|draw| *draw < value);
        (1 + without + at_least) as f64 / (self.draws() + 1.0)
    }

    /// The normal deviate of the share of draws below the estimate, equal ones counted half.
    fn bias(&self, estimate: f64) -> f64 {
        let below = self.values.partition_point(|draw| *draw < estimate) as f64;
        let at_most = self.values.partition_point(|draw| *draw <= estimate) as f64;
        let share = f64::midpoint(below, at_most) / self.values.len() as f64;
        // An estimate beyond all draws is as far as so many draws can tell.
        let least = 1.0 / (self.draws() + 1.0);
        normal_quantile(share.clamp(least, 1.0 - least))
    }

    /// The draw below which this share of them lies, the next one outward.
    fn bound(&self, share: f64, outward: fn(f64) -> f64) -> f64 {
        let rank = outward(share * (self.values.len() as f64 + 1.0)).clamp(1.0, self.values.len() as f64);
        self.values[super::whole(rank) as usize - 1]
    }

    fn answer(
        &self,
        units: &Units,
        plan: Plan,
        question: &Question,
        estimate: f64,
        correction: &Correction,
    ) -> Result<Difference, Flaw> {
        let n = u64::from(units.count);
        let clusters = units.clusters.is_some();
        let test = Test::Bootstrap { draws: plan.draws, seed: plan.seed, clusters, interval: plan.interval };
        let [first, .., last] = self.values.as_slice() else {
            return Err(Flaw::Undefined { what: "the difference", why: "no draw has a value" });
        };
        if first == last {
            return same_throughout(estimate, n, test, question);
        }
        let moments = super::means::Moments::of(&self.values)?;
        // P of being refuted falls with the level of the lower bound, of the other side with that of the upper one.
        // No probability is below what so many draws can tell, however it is corrected.
        let least = 1.0 / (self.draws() + 1.0);
        let p_margin = correction.level(self.share_at_most(-question.margin)).max(least);
        let p_better = correction.level(self.share_at_most(0.0)).max(least);
        let p_worse = (1.0 - correction.level(1.0 - self.share_at_least(0.0))).max(least);
        Ok(Difference {
            estimate,
            low: self.bound(correction.share_below(question.alpha), f64::floor),
            high: self.bound(correction.share_below(1.0 - question.alpha), f64::ceil),
            statistic: None,
            p_better,
            p_worse,
            p_margin,
            n,
            test,
            needed: needed(estimate, finite("the error", moments.variance().sqrt())?, n, p_margin, question),
        })
    }
}

/// A sixth of the skewness of what each unit, or group of them, contributes, by leaving it out; 0 when nothing contributes or some
/// value is missing.
fn acceleration(units: &Units, of_rows: &mut [u32], turned: &impl Fn(&[u32]) -> f64) -> f64 {
    let groups = units.count.min(GROUPS_MAX);
    let mut of_units = vec![1; units.count as usize];
    let mut left_out = Vec::with_capacity(groups as usize);
    for group in 0..groups {
        for (unit, times) in of_units.iter_mut().enumerate() {
            *times = u32::from(unit % groups as usize != group as usize);
        }
        units.spread(&of_units, of_rows);
        left_out.push(turned(of_rows));
    }
    let mean = left_out.iter().sum::<f64>() / f64::from(groups);
    let moment = |power| left_out.iter().map(|value| (mean - value).powi(power)).sum::<f64>();
    let acceleration = moment(3) / (6.0 * moment(2).powf(1.5));
    if acceleration.is_finite() { acceleration } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, question};
    use super::*;
    use crate::gate::Direction;

    const PERCENTILE: Plan = Plan { draws: 2000, seed: 7, interval: Interval::Percentile };
    const BCA: Plan = Plan { interval: Interval::Bca, ..PERCENTILE };

    /// The mean over as many copies of each value as are drawn.
    fn mean_of(values: &[f64]) -> impl Fn(&[u32]) -> f64 {
        |times| {
            let sum: f64 = values.iter().zip(times).map(|(value, times)| value * f64::from(*times)).sum();
            sum / times.iter().map(|times| f64::from(*times)).sum::<f64>()
        }
    }

    fn skewed(n: u32) -> Vec<f64> {
        (0..n).map(|i| (f64::from(i * 37 % n) / f64::from(n) * 3.0).exp() - 4.0).collect()
    }

    /// Published: O'Neill, pcg-c, `pcg32-demo` with seed 42 and stream 54.
    #[test]
    fn the_generator_is_pcg32() {
        let mut generator = Pcg32::new(42, 54);
        let found: Vec<u32> = (0..6).map(|_| generator.next_u32()).collect();
        assert_eq!(found, [0xa15c_02b7, 0x7b47_f409, 0xba1d_3330, 0x83d2_f293, 0xbfa4_784b, 0xcbed_606e]);
    }

    /// What a seed draws is promised: evidence can be counted again years later.
    #[test]
    fn a_seed_draws_the_same_for_ever() {
        let mut draws = Draws::new(7, 12);
        let mut times = [0; 12];
        draws.next(&mut times);
        assert_eq!(times, FIRST);
        let mut draws = Draws::new(u64::MAX, 1_000_000);
        let mut times = vec![0; 1_000_000];
        draws.next(&mut times);
        assert_eq!((times[0], times[123_456], times.iter().max().copied()), LARGE);
    }

    const FIRST: [u32; 12] = [1, 2, 2, 0, 0, 0, 0, 2, 1, 3, 0, 1];
    const LARGE: (u32, u32, Option<u32>) = (3, 1, Some(10));

    #[test]
    fn every_unit_is_drawn_equally_often() {
        let mut draws = Draws::new(1, 7);
        let (mut times, mut sum) = ([0; 7], [0_u64; 7]);
        for _ in 0..20_000 {
            draws.next(&mut times);
            sum.iter_mut().zip(times).for_each(|(sum, times)| *sum += u64::from(times));
        }
        // 16.81 is the chi-square of six degrees of freedom that one sample in a hundred exceeds.
        let away = sum.map(|count| (count as f64 - 20_000.0).powi(2) / 20_000.0);
        assert!(away.iter().sum::<f64>() < 16.81, "{sum:?}");
    }

    #[test]
    fn for_a_mean_it_agrees_with_the_t_test() {
        let values = skewed(400);
        let units = Units::examples(values.len()).unwrap();
        let by_t =
            super::super::means::paired(&values, None).unwrap().difference(&question(0.8, 0.05)).unwrap();
        for plan in [PERCENTILE, BCA] {
            let found = bootstrap(&units, plan, &question(0.8, 0.05), mean_of(&values)).unwrap();
            close(found.estimate, by_t.estimate, 1e-12);
            close(found.low, by_t.low, 0.05);
            close(found.high, by_t.high, 0.05);
            close(found.p_better, by_t.p_better, 0.02);
            close(found.p_margin, by_t.p_margin, 0.02);
            assert_eq!(found.low > -0.8, found.p_margin < 0.05, "{plan:?}");
        }
    }

    /// SciPy 1.17.1, `scipy.stats.bootstrap` with 200,000 resamples and `method="BCa"` and `"percentile"`, of the mean of these
    /// values at 90 %.
    #[test]
    fn intervals_agree_with_scipy() {
        let values = skewed(25);
        let units = Units::examples(25).unwrap();
        for (interval, low, high) in SCIPY {
            let plan = Plan { draws: 20_000, seed: 3, interval };
            let found = bootstrap(&units, plan, &question(0.0, 0.05), mean_of(&values)).unwrap();
            close(found.low, low, 0.06);
            close(found.high, high, 0.06);
        }
    }

    const SCIPY: [(Interval, f64, f64); 2] =
        [(Interval::Percentile, 0.4489, 3.6384), (Interval::Bca, 0.5724, 3.8116)];

    #[test]
    fn bounds_and_probabilities_say_the_same() {
        let values = skewed(60);
        let units = Units::examples(60).unwrap();
        for plan in [PERCENTILE, BCA] {
            let mut decided = 0;
            for hundredths in 0..250 {
                let margin = f64::from(hundredths) / 100.0 + 0.0003;
                let plan = Plan { draws: 499, ..plan };
                let found = bootstrap(&units, plan, &question(margin, 0.05), mean_of(&values)).unwrap();
                decided += u32::from((found.low > -margin) != (found.p_margin < 0.05));
                assert!(found.low <= found.high && found.p_better >= found.p_margin, "{found:?}");
            }
            // The observed sample counts as a draw in the one and moves the rank in the other, so that only a margin between two
            // neighbouring draws may come out either way.
            assert!(
                decided <= 2,
                "{plan:?}: {decided} margins are decided one way by the bound and another by p"
            );
        }
    }

    #[test]
    fn examples_that_belong_together_say_less() {
        // Ten copies of forty values are forty values, not four hundred.
        let values: Vec<f64> = skewed(40).iter().flat_map(|value| [*value; 10]).collect();
        let names: Vec<u64> = (0..40).flat_map(|cluster| [cluster * 1_000_003; 10]).collect();
        let ask = question(0.0, 0.05);
        let clusters = Units::clusters(&names).unwrap();
        assert_eq!((clusters.count(), clusters.rows()), (40, 400));
        let together = bootstrap(&clusters, PERCENTILE, &ask, mean_of(&values)).unwrap();
        let apart = bootstrap(&Units::examples(400).unwrap(), PERCENTILE, &ask, mean_of(&values)).unwrap();
        let width = |found: &Difference| found.high - found.low;
        close(width(&together) / width(&apart), 10_f64.sqrt(), 0.3);
        let forty = bootstrap(&Units::examples(40).unwrap(), PERCENTILE, &ask, mean_of(&skewed(40))).unwrap();
        close(together.low, forty.low, 1e-12);
        assert_eq!(together.n, 40);
    }

    #[test]
    fn models_that_answer_alike_do_not_differ() {
        let units = Units::examples(50).unwrap();
        for plan in [PERCENTILE, BCA] {
            let found = bootstrap(&units, plan, &question(0.01, 0.05), |_| 0.0).unwrap();
            assert_eq!((found.p_better, found.p_worse, found.p_margin), (1.0, 1.0, 0.0));
            let constant = bootstrap(&units, plan, &question(0.01, 0.05), |_| 0.3);
            assert!(matches!(constant, Err(Flaw::Undefined { .. })));
        }
    }

    #[test]
    fn lower_is_better_for_losses() {
        let values = skewed(50);
        let units = Units::examples(50).unwrap();
        let lower = Question { direction: Direction::Lower, ..question(0.0, 0.05) };
        let turned: Vec<f64> = values.iter().map(|value| -value).collect();
        let found = bootstrap(&units, BCA, &lower, mean_of(&values)).unwrap();
        assert_eq!(found, bootstrap(&units, BCA, &question(0.0, 0.05), mean_of(&turned)).unwrap());
    }

    #[test]
    fn draws_without_a_value_count_against_what_is_to_be_shown() {
        let values = vec![1.0; 1000];
        let units = Units::examples(1000).unwrap();
        // About 0.6 % of the draws hold the first example at least four... so often that the closure gives up.
        let rare = |times: &[u32]| if times[0] >= 5 { f64::NAN } else { 0.5 + f64::from(times[1]) / 100.0 };
        let found = bootstrap(&units, PERCENTILE, &question(0.0, 0.05), rare).unwrap();
        assert!(found.p_better > 1.0 / 2001.0 && found.p_better < 0.01, "{found:?}");
        let often = |times: &[u32]| if times[0] >= 3 { f64::NAN } else { mean_of(&values)(times) };
        let refused = bootstrap(&units, PERCENTILE, &question(0.0, 0.05), often);
        assert!(matches!(refused, Err(Flaw::Undefined { .. })), "{refused:?}");
    }

    #[test]
    fn evidence_that_says_nothing_is_refused() {
        assert!(matches!(Units::examples(0), Err(Flaw::TooFew { .. })));
        assert!(matches!(Units::examples(9), Err(Flaw::TooFew { least: 10, .. })));
        assert!(matches!(
            Units::clusters(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]),
            Err(Flaw::TooFew { found: 2, .. })
        ));
        let units = Units::examples(20).unwrap();
        let nothing = bootstrap(&units, PERCENTILE, &question(0.0, 0.05), |_| f64::NAN);
        assert!(matches!(nothing, Err(Flaw::Undefined { .. })));
        for draws in [0, 199, 100_001] {
            let refused = bootstrap(&units, Plan { draws, ..BCA }, &question(0.0, 0.05), |_| 0.0);
            assert!(matches!(refused, Err(Flaw::Outside { .. })));
        }
    }
}
