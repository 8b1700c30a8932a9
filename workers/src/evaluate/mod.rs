//! The verb `evaluate`: from a table of paired predictions to the metrics of both models and the answers to what gates will ask.
//! Blocking, and bounded by the number of examples. Starts no process; must never happen here: a row left out, or a metric that is not
//! defined given as a number.
//!
//! `examples` (what the table holds) → `sample` (its columns, whole or cut) → `metric` (one metric of one model) → `compare` (both).

mod compare;
mod examples;
mod metric;
mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use refit_workflows::definition::EvaluatedMetric;
use refit_workflows::digest::Digest;
use refit_workflows::evaluation::{Answer, Evaluation, MEASURED_MAX, Measured, Measurement, Question};
use refit_workflows::gate::Role;
use refit_workflows::statistics::Flaw;
use refit_workflows::wire::EvaluateOrder;

use compare::compare;
use metric::Prepared;
use sample::{Model, Sample};

/// Stops an evaluation within a batch of rows or a draw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an evaluation came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Evaluated {
    /// The candidate's metrics over all examples.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// What gates will ask for.
    pub(crate) evaluation: Evaluation,
}

/// Evaluates the table at `path`, unless it is stopped meanwhile; then what comes back is not to be used.
///
/// # Errors
/// Why the examples cannot be judged by, in words: what cannot be read, is missing or occurs twice, a metric that is not defined.
pub(crate) fn evaluate(path: &Path, order: &EvaluateOrder, stop: &Stop) -> Result<Evaluated, String> {
    let (whole, holdout) = examples::read(path, &order.examples, order.champion, stop)?;
    let mut metrics = BTreeMap::new();
    let mut champion = BTreeMap::new();
    for counted in &order.examples.metrics {
        let name = counted.name();
        let count =
            |model| Prepared::new(counted, &whole, model).and_then(|metric| metric.value(whole.weights()));
        let wrong = |flaw: Flaw, whose: &str| format!("{name} of the {whose}: {flaw}");
        metrics.insert(name.clone(), count(Model::Candidate).map_err(|flaw| wrong(flaw, "candidate"))?);
        if order.champion {
            champion.insert(name.clone(), count(Model::Champion).map_err(|flaw| wrong(flaw, "champion"))?);
        }
    }
    let mut answers = Vec::new();
    let mut measured = 0;
    for question in &order.questions {
        let answer = answer(question, &whole, order, stop)?;
        measured += answer.measured.len();
        if measured > MEASURED_MAX {
            return Err(format!(
                "the gates ask for more than {MEASURED_MAX} figures: let fewer checks be made `by` columns of many values"
            ));
        }
        answers.push(answer);
    }
    let examples = whole.rows() as u64;
    let champion = order.champion.then_some(champion);
    Ok(Evaluated { metrics, evaluation: Evaluation { examples, holdout: Some(holdout), champion, answers } })
}

fn answer(question: &Question, whole: &Sample, order: &EvaluateOrder, stop: &Stop) -> Result<Answer, String> {
    let Some(counted) = order.examples.metrics.iter().find(|counted| counted.name() == question.metric)
    else {
        return Err(format!("a gate asks for {}, which is not counted", question.metric));
    };
    let measured = match &question.by {
        None => vec![measure(question, counted, whole, None, order, stop)],
        Some(by) => {
            let slices = whole.slices(by)?;
            slices
                .iter()
                .map(|(value, slice)| measure(question, counted, slice, Some(value), order, stop))
                .collect()
        }
    };
    Ok(Answer { question: question.clone(), measured })
}

fn measure(
    question: &Question,
    counted: &EvaluatedMetric,
    sample: &Sample,
    slice: Option<&str>,
    order: &EvaluateOrder,
    stop: &Stop,
) -> Measured {
    let compared = order.champion && !matches!(question.role, Role::Absolute { .. });
    let metric = Prepared::new(counted, sample, Model::Candidate);
    let counted_on = metric.as_ref().ok().and_then(Prepared::queries).unwrap_or(sample.rows() as u64);
    let found = if compared {
        compare(question, counted, sample, seed(order, question, slice), stop)
    } else {
        metric
            .and_then(|metric| metric.value(sample.weights()))
            .map(|candidate| Measurement::Alone { candidate })
    };
    let examples = match &found {
        Ok(Measurement::Compared { difference, .. }) => difference.n,
        Ok(Measurement::Alone { .. } | Measurement::TooFew { .. } | Measurement::Flawed { .. }) | Err(_) => {
            counted_on
        }
    };
    let found = found.unwrap_or_else(|flaw| match flaw {
        Flaw::TooFew { .. } => Measurement::TooFew { reason: flaw.to_string() },
        // Of what a slice has none of, more examples might hold some.
        Flaw::Undefined { .. } if slice.is_some() => Measurement::TooFew { reason: flaw.to_string() },
        Flaw::Undefined { .. }
        | Flaw::TooMany { .. }
        | Flaw::Lengths { .. }
        | Flaw::NotFinite { .. }
        | Flaw::Outside { .. }
        | Flaw::Overflow { .. } => Measurement::Flawed { reason: flaw.to_string() },
    });
    Measured { slice: slice.map(str::to_owned), examples, found }
}

/// What a resampling begins with: another one for each question, the same one however often the same examples are judged.
fn seed(order: &EvaluateOrder, question: &Question, slice: Option<&str>) -> u64 {
    let told = serde_json::json!([order.predictions, question.metric, question.by, slice]);
    let digest = Digest::of(told.to_string().as_bytes());
    let hex = digest.as_str().rsplit(':').next().unwrap_or_default();
    u64::from_str_radix(hex.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}
