//! How much more often one model is right than another on the same examples: intervals and a test against a margin for the
//! difference of paired proportions (accuracy; recall over the positives alone; any share of examples).
//!
//! Tango's interval holds its level with few discordant examples and none, where Wald's shrinks to a point.

use super::distributions::{normal_quantile, normal_upper};
use super::mcnemar::Paired;
use super::{Difference, Flaw, Question, Test, needed};
use crate::gate::Direction;

/// candidate − champion with the standard error of Wald: sqrt(b + c − (b − c)²/n)/n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wald {
    /// The difference of the shares.
    pub estimate: f64,
    /// Its standard error; 0 when the models never differ.
    pub se: f64,
}

impl Wald {
    /// z and one-sided p of "the difference is at most −margin".
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when the standard error is 0.
    pub fn against(self, margin: f64) -> Result<(f64, f64), Flaw> {
        if self.se > 0.0 {
            let z = (self.estimate + margin) / self.se;
            return Ok((z, normal_upper(z)));
        }
        Err(Flaw::Undefined { what: "Wald's z", why: "the models never differ, so it has no standard error" })
    }
}

/// The difference with Wald's standard error: good enough from about 50 discordant examples on.
pub fn wald(paired: &Paired) -> Wald {
    let n = paired.n() as f64;
    let (candidate_only, champion_only) = (paired.candidate_only() as f64, paired.champion_only() as f64);
    let apart = candidate_only - champion_only;
    let variance = (candidate_only + champion_only - apart * apart / n).max(0.0);
    Wald { estimate: apart / n, se: variance.sqrt() / n }
}

/// The z of a two-sided confidence.
fn two_sided(confidence: f64) -> Result<f64, Flaw> {
    if confidence > 0.0 && confidence < 1.0 {
        Ok(normal_quantile(0.5 + confidence / 2.0))
    } else {
        Err(Flaw::Outside { what: "the confidence", value: confidence, low: 0.0, high: 1.0 })
    }
}

/// The score statistic of "the difference is `delta`" (Tango, Statist. Med. 17, 1998): standard normal if it is, and McNemar's
/// z without correction at 0. `delta` from −1 to 1. Infinite where the hypothesis leaves no variance and the data contradict it.
pub fn tango_score(paired: &Paired, delta: f64) -> f64 {
    let n = paired.n() as f64;
    let (candidate, champion) = (paired.candidate_only() as f64, paired.champion_only() as f64);
    // The share of "champion only" that is most likely if the difference is delta: a root of 2n·q² + b·q + c = 0.
    let b = -candidate - champion + (2.0 * n - candidate + champion) * delta;
    let c = -champion * delta * (1.0 - delta);
    let root = (b * b - 8.0 * n * c).max(0.0).sqrt();
    let share = ((root - b) / (4.0 * n)).max(0.0);
    let apart = candidate - champion - n * delta;
    let variance = n * (2.0 * share + delta * (1.0 - delta));
    if apart == 0.0 {
        0.0
    } else if variance > 0.0 {
        apart / variance.sqrt()
    } else {
        apart.signum() * f64::INFINITY
    }
}

/// Tango's interval, two-sided: the differences that the score does not contradict.
///
/// # Errors
/// [`Flaw::Outside`] when the confidence is not between 0 and 1.
pub fn tango_interval(paired: &Paired, confidence: f64) -> Result<(f64, f64), Flaw> {
    Ok(tango_bounds(paired, two_sided(confidence)?))
}

fn tango_bounds(paired: &Paired, z: f64) -> (f64, f64) {
    let estimate = wald(paired).estimate;
    let low = bisect(-1.0, estimate, |delta| tango_score(paired, delta) > z);
    let high = bisect(estimate, 1.0, |delta| tango_score(paired, delta) >= -z);
    (low, high)
}

/// Where `before` stops holding between the two ends.
fn bisect(mut low: f64, mut high: f64, before: impl Fn(f64) -> bool) -> f64 {
    // 60 halvings of an interval of at most 2 are as far as numbers go.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if before(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// With fewer examples on which the models differ, whether one is better is told by throws of a coin.
const FEW: u64 = 25;

/// The difference of the shares of examples on which each model is right, by Tango's score test and interval; where few
/// examples tell, whether one is better by McNemar's mid-p test, which does not lean on a normal distribution.
///
/// # Errors
/// What is wrong with the question.
pub fn difference(paired: &Paired, question: &Question) -> Result<Difference, Flaw> {
    question.check()?;
    let paired = match question.direction {
        Direction::Higher => *paired,
        Direction::Lower => paired.exchanged(),
    };
    let (low, high) = tango_bounds(&paired, question.z());
    let z = tango_score(&paired, 0.0);
    let (p_better, p_worse, test) = if paired.discordant() < FEW {
        let by_coin = paired.mid_p();
        (by_coin.better, by_coin.worse, Test::McNemar)
    } else {
        (normal_upper(z), normal_upper(-z), Test::Tango)
    };
    let p_margin = normal_upper(tango_score(&paired, -question.margin.min(1.0)));
    let Wald { estimate, se } = wald(&paired);
    Ok(Difference {
        estimate,
        low,
        high,
        statistic: Some(z),
        p_better,
        p_worse,
        p_margin,
        n: paired.n(),
        test,
        needed: needed(estimate, se.max(rule_of_three(paired.n())), paired.n(), p_margin, question),
    })
}

/// With no discordant example at all, their share is still not known to be 0: it is below about 3/n.
fn rule_of_three(n: u64) -> f64 {
    3_f64.sqrt() / n as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, question};
    use super::*;

    fn example() -> Paired {
        Paired::new(1000, 70, 50).unwrap()
    }

    #[test]
    fn intervals_of_a_worked_example() {
        let paired = example();
        close(wald(&paired).estimate, 0.02, 1e-15);
        close(wald(&paired).se, 0.0109361785, 5e-11);
        let both = |(low, high): (f64, f64), expected_low, expected_high| {
            close(low, expected_low, 5e-8);
            close(high, expected_high, 5e-8);
        };
        both(tango_interval(&paired, 0.95).unwrap(), -0.0014911, 0.0418840);
    }

    #[test]
    fn a_margin_is_passed_and_superiority_is_not_shown() {
        let (z, p) = wald(&example()).against(0.01).unwrap();
        close(z, 2.743189, 5e-7);
        close(p, 0.003042, 5e-7);
        let worse = Wald { estimate: -0.004, ..wald(&example()) };
        let (z, p) = worse.against(0.01).unwrap();
        close(z, 0.548638, 5e-7);
        close(p, 0.291627, 5e-7);

        let found = difference(&example(), &question(0.01, 0.025)).unwrap();
        assert!(found.low > -0.01 && found.p_margin < 0.025 && found.needed.is_none(), "{found:?}");
        assert!(found.low < 0.0 && found.p_better > 0.025, "{found:?}");
        close(found.low, -0.0014911, 5e-8);
    }

    /// The most likely shares under the hypothesis, found by SciPy's bounded minimiser instead of the root:
    /// `minimize_scalar` of the trinomial's likelihood, then the score's definition.
    #[test]
    fn the_score_agrees_with_the_likelihood() {
        for (n, candidate, champion, delta, expected) in SCORES {
            close(tango_score(&Paired::new(n, candidate, champion).unwrap(), delta), expected, 2e-6);
        }
    }

    const SCORES: [(u64, u64, u64, f64, f64); 5] = [
        (1000, 70, 50, -0.01, 2.715431315509867),
        (100, 3, 9, -0.05, -0.29668238250974543),
        (100, 9, 3, 0.2, -3.195048252329457),
        (50, 1, 0, -0.1, 2.581988896960095),
        (200, 30, 28, 0.03, -0.5247165463807931),
    ];

    #[test]
    fn bounds_and_p_of_the_margin_say_the_same() {
        for (candidate_only, champion_only) in [(0, 0), (3, 1), (1, 3), (12, 12), (0, 40), (40, 0), (100, 0)]
        {
            let paired = Paired::new(100, candidate_only, champion_only).unwrap();
            for margin in [0.0, 0.001, 0.01, 0.05, 0.2, 1.0, 7.0] {
                let found = difference(&paired, &question(margin, 0.05)).unwrap();
                assert_eq!(found.low > -margin, found.p_margin < 0.05, "{found:?} {margin}");
                if found.test == Test::Tango {
                    assert_eq!(found.high < 0.0, found.p_worse < 0.05, "{found:?}");
                }
                assert!(found.low <= found.estimate && found.estimate <= found.high, "{found:?}");
                assert!(found.low >= -1.0 && found.high <= 1.0, "{found:?}");
            }
        }
    }

    #[test]
    fn where_few_examples_tell_a_coin_answers() {
        // Three throws of three for the candidate: 1/8, of which half counts. The score would have called it better.
        let found = difference(&Paired::new(1000, 3, 0).unwrap(), &question(0.0, 0.05)).unwrap();
        close(found.p_better, 1.0 / 16.0, 1e-15);
        close(found.p_worse, 15.0 / 16.0, 1e-15);
        assert_eq!(found.test, Test::McNemar);
        assert!(normal_upper(found.statistic.unwrap()) < 0.05, "{found:?}");
        let many = difference(&Paired::new(1000, 20, 5).unwrap(), &question(0.0, 0.05)).unwrap();
        assert_eq!(many.test, Test::Tango);
    }

    #[test]
    fn equal_models_on_few_examples_prove_nothing() {
        let twenty = Paired::new(20, 0, 0).unwrap();
        let found = difference(&twenty, &question(0.01, 0.05)).unwrap();
        assert!(found.p_margin > 0.05 && found.needed.is_some_and(|needed| needed > 20), "{found:?}");
        let many = Paired::new(20_000, 0, 0).unwrap();
        let found = difference(&many, &question(0.01, 0.05)).unwrap();
        assert!(found.p_margin < 0.05 && found.p_better >= 0.5 && found.needed.is_none(), "{found:?}");
    }

    #[test]
    fn what_is_open_says_how_many_examples_are_needed() {
        // 1000·((1.959964 + 0.841621)·0.0109361785/0.02)² examples; Connor's formula says 2353.
        let found = difference(&example(), &question(0.0, 0.025)).unwrap();
        assert_eq!(found.needed, Some(2347));
        let worse = difference(&example().exchanged(), &question(0.0, 0.025)).unwrap();
        assert_eq!(worse.needed, None, "no number of examples shows that what is worse is better");
    }

    #[test]
    fn lower_is_better_for_shares_of_errors() {
        let lower = Question { direction: Direction::Lower, ..question(0.0, 0.05) };
        let found = difference(&example(), &lower).unwrap();
        assert_eq!(found, difference(&example().exchanged(), &question(0.0, 0.05)).unwrap());
        close(found.estimate, -0.02, 1e-15);
    }

    #[test]
    fn wald_without_a_discordant_example_says_so() {
        assert!(matches!(wald(&Paired::new(9, 0, 0).unwrap()).against(0.1), Err(Flaw::Undefined { .. })));
        assert!(matches!(tango_interval(&example(), 1.0), Err(Flaw::Outside { .. })));
    }
}
