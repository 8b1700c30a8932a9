//! Whatever the data, a test answers with finite numbers in their order, or with a flaw; it never panics.

use proptest::prelude::*;

use super::bootstrap::{Interval, Plan, Units, bootstrap};
use super::drift::{Bins, Ordered};
use super::mcnemar::Paired;
use super::ranks::Samples;
use super::{Difference, Flaw, Question, Test, auc, means, metrics, paired};
use crate::gate::Direction;

/// Numbers as data have them, and those at the ends of what a number can be.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-20_i32..20).prop_map(|quarters| f64::from(quarters) / 4.0),
        3 => -1e3..1e3_f64,
        1 => prop::sample::select(vec![1e-308, -0.0, 5e-324, 1e300, -1e300, f64::MAX, f64::MIN]),
    ]
}

fn broken() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])
}

/// A column, one in some with a value that is no number.
fn column(rows: usize) -> impl Strategy<Value = Vec<f64>> {
    (
        prop::collection::vec(number(), rows),
        prop::option::weighted(0.1, (any::<prop::sample::Index>(), broken())),
    )
        .prop_map(|(mut column, broken)| {
            if let Some((at, value)) = broken.filter(|_| !column.is_empty()) {
                let at = at.index(column.len());
                column[at] = value;
            }
            column
        })
}

fn question() -> impl Strategy<Value = Question> {
    let margin = prop_oneof![Just(0.0), 0.0..2.0_f64, Just(f64::MAX)];
    let direction = prop_oneof![Just(Direction::Higher), Just(Direction::Lower)];
    (direction, margin, 0.001..0.499_f64).prop_map(|(direction, margin, alpha)| Question {
        direction,
        margin,
        alpha,
    })
}

fn sound(found: &Result<Difference, Flaw>) -> Result<(), TestCaseError> {
    let Ok(found) = found else { return Ok(()) };
    let numbers = [found.estimate, found.low, found.high, found.statistic.unwrap_or(0.0)];
    prop_assert!(numbers.iter().all(|number| number.is_finite()), "{found:?}");
    for p in [found.p_better, found.p_worse, found.p_margin] {
        prop_assert!((0.0..=1.0).contains(&p), "{found:?}");
    }
    prop_assert!(found.low <= found.high, "{found:?}");
    // The rank test's variance depends on ties, which a margin may break; McNemar's knows no margin, which is left to Tango's.
    let apart = matches!(found.test, Test::MannWhitney | Test::McNemar);
    prop_assert!(apart || found.p_margin <= found.p_better + 1e-12, "{found:?}");
    prop_assert!(found.needed.is_none_or(|needed| needed > found.n), "{found:?}");
    let text = serde_json::to_string(found).unwrap();
    prop_assert!(serde_json::from_str::<Difference>(&text).is_ok(), "{text}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn differences_are_finite_or_flaws(
        (positive, ours, theirs, weights) in (0_usize..40).prop_flat_map(|rows| {
            (prop::collection::vec(any::<bool>(), rows), column(rows), column(rows), column(rows))
        }),
        question in question(),
    ) {
        sound(&auc::Areas::of(&positive, &ours, &theirs).and_then(|areas| areas.difference(&question)))?;
        sound(&means::paired(&ours, None).and_then(|mean| mean.difference(&question)))?;
        sound(&means::paired(&ours, Some(&weights)).and_then(|mean| mean.difference(&question)))?;
        let moments = (means::Moments::of(&ours), means::Moments::of(&theirs));
        if let (Ok(ours), Ok(theirs)) = moments {
            sound(&means::welch(&ours, &theirs).and_then(|mean| mean.difference(&question)))?;
        }
        sound(&Samples::new(&ours, &theirs).and_then(|samples| samples.difference(&question)))?;
        let right = |scores: &[f64]| scores.iter().map(|score| *score > 0.0).collect::<Vec<_>>();
        let pairs = right(&ours).into_iter().zip(right(&theirs));
        sound(&Paired::count(pairs).and_then(|counts| paired::difference(&counts, &question)))?;
    }

    #[test]
    fn bootstraps_are_finite_or_flaws(
        values in (8_usize..30).prop_flat_map(column),
        question in question(),
        seed in any::<u64>(),
        interval in prop_oneof![Just(Interval::Percentile), Just(Interval::Bca)],
    ) {
        let plan = Plan { draws: 200, seed, interval };
        let sum = |times: &[u32]| values.iter().zip(times).map(|(value, times)| value * f64::from(*times)).sum::<f64>();
        sound(&Units::examples(values.len()).and_then(|units| bootstrap(&units, plan, &question, sum)))?;
        let names: Vec<u64> = values.iter().map(|value| value.to_bits() % 17).collect();
        sound(&Units::clusters(&names).and_then(|units| bootstrap(&units, plan, &question, sum)))?;
    }

    #[test]
    fn distances_and_metrics_are_finite_or_flaws(
        (reference, current, weights) in (0_usize..30).prop_flat_map(|rows| (column(rows), column(rows), column(rows))),
        count in 0_usize..20,
    ) {
        if let (Ok(one), Ok(other)) = (Ordered::of("one", &reference), Ordered::of("other", &current)) {
            let found = one.kolmogorov(&other);
            for share in [found.statistic, found.asymptotic_p, found.exact_p.unwrap_or(0.0)] {
                prop_assert!((0.0..=1.0).contains(&share), "{found:?}");
            }
            prop_assert!(one.normalised_wasserstein(&other).is_ok_and(|d| d.is_finite() && d >= 0.0)
                || one.normalised_wasserstein(&other).is_err());
        }
        if let Ok(bins) = Bins::of_quantiles(&reference, count) {
            prop_assert!(bins.edges().iter().all(|edge| edge.is_finite()));
            prop_assert!(bins.edges().windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(bins.count(&reference).unwrap().iter().sum::<u64>(), reference.len() as u64);
        }
        let positive: Vec<bool> = reference.iter().map(|value| *value > 0.0).collect();
        let weights = metrics::Weights::Of(&weights);
        let scored = metrics::Scored::of(&positive, &current);
        for share in [
            scored.clone().and_then(|scored| scored.roc_auc(weights)),
            scored.and_then(|scored| scored.average_precision(weights)),
            metrics::Confusion::of_two(&positive, &positive, weights).and_then(|found| found.balanced_accuracy()),
        ].into_iter().flatten() {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&share), "{share}");
        }
        for number in [
            metrics::rmse(&reference, &current, weights),
            metrics::r2(&reference, &current, weights),
            metrics::log_loss(&positive, &current, weights),
            metrics::ece(&positive, &current, weights),
        ].into_iter().flatten() {
            prop_assert!(number.is_finite());
        }
    }
}
