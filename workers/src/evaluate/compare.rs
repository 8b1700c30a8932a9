//! Both models on the same examples: which test a metric asks for, and what it says. Must never happen here: a formula, or a verdict.

use std::cell::RefCell;

use refit_workflows::definition::{ColumnTest, EvaluatedMetric, Metric};
use refit_workflows::evaluation::{Measurement, Question};
use refit_workflows::gate::Role;
use refit_workflows::statistics::auc::Areas;
use refit_workflows::statistics::bootstrap::{Interval, Plan, Units, bootstrap};
use refit_workflows::statistics::mcnemar::Paired;
use refit_workflows::statistics::means::Moments;
use refit_workflows::statistics::metrics::Weights;
use refit_workflows::statistics::ranks::Samples;
use refit_workflows::statistics::{self, Difference, Flaw, means, paired};

use super::Stop;
use super::metric::{Prepared, classes, two_classes};
use super::sample::{Answers, Model, Sample};

/// How many examples all draws of a bootstrap may hold together: larger samples need fewer draws and more time for each.
const DRAWN_MAX: usize = 200_000_000;

/// Compares the candidate with the champion.
///
/// # Errors
/// A metric is not defined, or there are too few examples for its test.
pub(super) fn compare(
    question: &Question,
    counted: &EvaluatedMetric,
    sample: &Sample,
    seed: u64,
    stop: &Stop,
) -> Result<Measurement, Flaw> {
    let ours = Prepared::new(counted, sample, Model::Candidate)?;
    let theirs = Prepared::new(counted, sample, Model::Champion)?;
    let (candidate, champion) = (ours.value(sample.weights())?, theirs.value(sample.weights())?);
    let asked = statistics::Question {
        direction: question.direction,
        margin: match question.role {
            Role::Guardrail { margin } => margin,
            Role::Absolute { .. } | Role::Success | Role::Deterioration => 0.0,
        },
        alpha: question.alpha,
    };
    let difference = match by_formula(counted, sample, &ours, &theirs, &asked) {
        Some(difference) => difference?,
        None => resampled(sample, &ours, &theirs, &asked, seed, stop)?,
    };
    Ok(Measurement::Compared { candidate, champion, difference })
}

/// The test that is made for a metric, where there is one. None: resampling.
fn by_formula(
    counted: &EvaluatedMetric,
    sample: &Sample,
    ours: &Prepared<'_>,
    theirs: &Prepared<'_>,
    asked: &statistics::Question,
) -> Option<Result<Difference, Flaw>> {
    if let (Prepared::Queries(ours), Prepared::Queries(theirs)) = (ours, theirs) {
        let differences: Vec<f64> = ours
            .queries
            .iter()
            .zip(&theirs.queries)
            .filter_map(|((_, ours), (_, theirs))| Some((*ours)? - (*theirs)?))
            .collect();
        return Some(means::paired(&differences, None).and_then(|mean| mean.difference(asked)));
    }
    if let (Prepared::Sampled { test, values: ours }, Prepared::Sampled { values: theirs, .. }) =
        (ours, theirs)
    {
        return Some(two_samples(*test, ours, theirs, asked));
    }
    // Examples that belong together are not independent: no formula speaks of them.
    if sample.clusters.is_some() {
        return None;
    }
    if let (Prepared::Mean { losses: ours, .. }, Prepared::Mean { losses: theirs, .. }) = (ours, theirs) {
        let differences: Vec<f64> =
            ours.iter().zip(theirs.iter()).map(|(ours, theirs)| ours - theirs).collect();
        let mean = means::paired(&differences, sample.weights.as_deref());
        return Some(mean.and_then(|mean| mean.difference(asked)));
    }
    if sample.weights.is_some() {
        return None;
    }
    let EvaluatedMetric::Known(metric) = counted else { return None };
    match metric {
        Metric::Accuracy => Some(right_answers(sample, |_| true, asked)),
        Metric::Recall if is_two_classes(sample) => Some(right_answers(sample, |label| label == 1, asked)),
        Metric::RocAuc => Some(areas(sample, asked)),
        Metric::Recall
        | Metric::BalancedAccuracy
        | Metric::Precision
        | Metric::F1
        | Metric::PrAuc
        | Metric::LogLoss
        | Metric::Brier
        | Metric::Ece
        | Metric::Mae
        | Metric::Rmse
        | Metric::R2
        | Metric::QuantileLoss
        | Metric::NdcgAt(_)
        | Metric::RecallAt(_) => None,
    }
}

fn two_samples(
    test: ColumnTest,
    ours: &[f64],
    theirs: &[f64],
    asked: &statistics::Question,
) -> Result<Difference, Flaw> {
    match test {
        ColumnTest::MannWhitney => Samples::new(ours, theirs)?.difference(asked),
        ColumnTest::PairedT | ColumnTest::Welch => {
            means::welch(&Moments::of(ours)?, &Moments::of(theirs)?)?.difference(asked)
        }
    }
}

fn is_two_classes(sample: &Sample) -> bool {
    matches!(sample.label, Answers::Numbers(_))
}

/// The shares of right answers among the examples whose label counts.
fn right_answers(
    sample: &Sample,
    counts: impl Fn(u32) -> bool,
    asked: &statistics::Question,
) -> Result<Difference, Flaw> {
    let (_, labels, ours) = classes(sample, &sample.candidate)?;
    let (_, _, theirs) = classes(sample, champion(sample)?)?;
    let right = labels
        .iter()
        .zip(ours.iter().zip(&theirs))
        .filter(|(label, _)| counts(**label))
        .map(|(label, (ours, theirs))| (ours == label, theirs == label));
    paired::difference(&Paired::count(right)?, asked)
}

fn areas(sample: &Sample, asked: &statistics::Question) -> Result<Difference, Flaw> {
    let (positive, ours) = two_classes("roc_auc", sample, &sample.candidate)?;
    let (_, theirs) = two_classes("roc_auc", sample, champion(sample)?)?;
    Areas::of(&positive, ours, theirs)?.difference(asked)
}

fn champion(sample: &Sample) -> Result<&Answers, Flaw> {
    let why = "there are no predictions of the champion";
    sample.champion.as_ref().ok_or(Flaw::Undefined { what: "the comparison", why })
}

/// The difference by drawing examples, or clusters of them, anew.
fn resampled(
    sample: &Sample,
    ours: &Prepared<'_>,
    theirs: &Prepared<'_>,
    asked: &statistics::Question,
    seed: u64,
    stop: &Stop,
) -> Result<Difference, Flaw> {
    let units = match &sample.clusters {
        Some(clusters) => Units::clusters(clusters)?,
        None => Units::examples(sample.rows())?,
    };
    let draws = u32::try_from(DRAWN_MAX / sample.rows().max(1)).unwrap_or(u32::MAX);
    let plan = Plan { draws: draws.clamp(Plan::DRAWS_MIN, Plan::DRAWS), seed, interval: Interval::Bca };
    let product = RefCell::new(Vec::new());
    bootstrap(&units, plan, asked, |times| {
        if stop.is_asked() {
            return f64::NAN;
        }
        let mut product = product.borrow_mut();
        let weights = match &sample.weights {
            None => Weights::Times(times),
            Some(weights) => {
                product.clear();
                product.extend(weights.iter().zip(times).map(|(weight, times)| weight * f64::from(*times)));
                Weights::Of(&product)
            }
        };
        match (ours.value(weights), theirs.value(weights)) {
            (Ok(ours), Ok(theirs)) => ours - theirs,
            (Ok(_) | Err(_), Ok(_) | Err(_)) => f64::NAN,
        }
    })
}
