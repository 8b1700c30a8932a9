//! One metric of one model, made ready so that it can be counted under any weights. Must never happen here: a formula.

use std::borrow::Cow;

use refit_workflows::definition::{ColumnTest, EvaluatedMetric, Metric};
use refit_workflows::statistics::Flaw;
use refit_workflows::statistics::metrics::{
    Confusion, Queries, Ranked, Scored, Weights, absolute_errors, brier_losses, ece, log_losses, mean,
    pinball_losses, r2, squared_errors,
};
use refit_workflows::statistics::robust::Middle;

use super::sample::{Answers, Model, Sample};

/// The quantile that `quantile_loss` is about: the median.
const MEDIAN: f64 = 0.5;

/// A metric that can be counted under any weights.
#[derive(Debug)]
pub(super) enum Prepared<'s> {
    /// From what was taken for what.
    Confusion { of: fn(&Confusion) -> Result<f64, Flaw>, classes: u32, labels: Vec<u32>, answers: Vec<u32> },
    /// From the order of scores.
    Order { of: fn(&Scored, Weights<'_>) -> Result<f64, Flaw>, scored: Scored },
    /// The mean of what each example has.
    Mean { what: &'static str, losses: Cow<'s, [f64]> },
    /// The root of such a mean.
    RootMean { losses: Vec<f64> },
    /// From probabilities and what was so.
    Calibration { positive: Vec<bool>, probabilities: &'s [f64] },
    /// From numbers and what was so.
    Explained { labels: &'s [f64], answers: &'s [f64] },
    /// The mean or the median of a sample of its own, in which no row stands for one of the other model.
    Sampled { test: ColumnTest, values: Vec<f64> },
    /// The mean over queries. Weights of rows say nothing here.
    Queries(Ranked),
}

impl<'s> Prepared<'s> {
    /// # Errors
    /// The sample holds no such answers, or they are not what the metric needs.
    pub(super) fn new(counted: &EvaluatedMetric, sample: &'s Sample, model: Model) -> Result<Self, Flaw> {
        let metric = match counted {
            EvaluatedMetric::Known(metric) => *metric,
            EvaluatedMetric::Column { name, test, .. } => {
                let values = own(name, sample, model)?;
                return Ok(match test {
                    ColumnTest::PairedT => Self::Mean { what: "the column", losses: values.into() },
                    ColumnTest::Welch | ColumnTest::MannWhitney => {
                        let values = values.iter().copied().filter(|value| !value.is_nan()).collect();
                        Self::Sampled { test: *test, values }
                    }
                });
            }
        };
        let answers = sample.answers(model).ok_or(Flaw::Undefined {
            what: "the champion's metric",
            why: "there are no predictions of the champion",
        })?;
        match metric {
            Metric::Accuracy => confusion(sample, answers, Confusion::accuracy),
            Metric::BalancedAccuracy => confusion(sample, answers, Confusion::balanced_accuracy),
            Metric::Precision => confusion(sample, answers, precision),
            Metric::Recall => confusion(sample, answers, recall),
            Metric::F1 => confusion(sample, answers, f1),
            Metric::RocAuc => order(sample, answers, "roc_auc", Scored::roc_auc),
            Metric::PrAuc => order(sample, answers, "pr_auc", Scored::average_precision),
            Metric::LogLoss => {
                let (positive, scores) = two_classes("log_loss", sample, answers)?;
                Ok(Self::Mean { what: "log_loss", losses: log_losses(&positive, scores)?.into() })
            }
            Metric::Brier => {
                let (positive, scores) = two_classes("brier", sample, answers)?;
                Ok(Self::Mean { what: "brier", losses: brier_losses(&positive, scores)?.into() })
            }
            Metric::Ece => {
                let (positive, probabilities) = two_classes("ece", sample, answers)?;
                Ok(Self::Calibration { positive, probabilities })
            }
            Metric::Mae => {
                let (labels, answers) = numbers("mae", sample, answers)?;
                Ok(Self::Mean { what: "mae", losses: absolute_errors(labels, answers)?.into() })
            }
            Metric::QuantileLoss => {
                let (labels, answers) = numbers("quantile_loss", sample, answers)?;
                Ok(Self::Mean {
                    what: "quantile_loss",
                    losses: pinball_losses(labels, answers, MEDIAN)?.into(),
                })
            }
            Metric::Rmse => {
                let (labels, answers) = numbers("rmse", sample, answers)?;
                Ok(Self::RootMean { losses: squared_errors(labels, answers)? })
            }
            Metric::R2 => {
                let (labels, answers) = numbers("r2", sample, answers)?;
                Ok(Self::Explained { labels, answers })
            }
            Metric::NdcgAt(k) => Ok(Self::Queries(queries("ndcg", sample, answers)?.ndcg(k)?)),
            Metric::RecallAt(k) => Ok(Self::Queries(queries("recall", sample, answers)?.recall(k)?)),
        }
    }

    /// How many queries it is the mean of, if it is one of queries.
    pub(super) fn queries(&self) -> Option<u64> {
        let Self::Queries(ranked) = self else { return None };
        Some(ranked.queries.iter().filter(|(_, value)| value.is_some()).count() as u64)
    }

    /// The metric.
    ///
    /// # Errors
    /// It is not defined under these weights.
    pub(super) fn value(&self, weights: Weights<'_>) -> Result<f64, Flaw> {
        match self {
            Self::Confusion { of, classes, labels, answers } => {
                of(&Confusion::of(*classes as usize, labels, answers, weights)?)
            }
            Self::Order { of, scored } => of(scored, weights),
            Self::Mean { what, losses } => mean(what, losses, weights),
            Self::RootMean { losses } => Ok(mean("rmse", losses, weights)?.sqrt()),
            Self::Calibration { positive, probabilities } => ece(positive, probabilities, weights),
            Self::Explained { labels, answers } => r2(labels, answers, weights),
            Self::Sampled { test: ColumnTest::MannWhitney, values } => {
                Ok(Middle::of(values).ok_or(Flaw::TooFew { what: "values", found: 0, least: 1 })?.median)
            }
            Self::Sampled { test: ColumnTest::PairedT | ColumnTest::Welch, values } => {
                mean("the column", values, Weights::Equal)
            }
            Self::Queries(ranked) => Ok(ranked.mean),
        }
    }
}

fn own<'s>(name: &str, sample: &'s Sample, model: Model) -> Result<&'s [f64], Flaw> {
    let missing = Flaw::Undefined { what: "a metric of your own", why: "its column was not read" };
    let own = sample.own.get(name).ok_or(missing)?;
    match model {
        Model::Candidate => Ok(&own.candidate),
        Model::Champion => own.champion.as_deref().ok_or(missing),
    }
}

/// Of two classes the positive one; of several the mean over all.
fn of_positive(confusion: &Confusion, of: fn(&Confusion, u32) -> Result<f64, Flaw>) -> Result<f64, Flaw> {
    if confusion.classes() == 2 { of(confusion, 1) } else { confusion.mean(of) }
}

fn precision(confusion: &Confusion) -> Result<f64, Flaw> {
    of_positive(confusion, Confusion::precision)
}

fn recall(confusion: &Confusion) -> Result<f64, Flaw> {
    of_positive(confusion, Confusion::recall)
}

fn f1(confusion: &Confusion) -> Result<f64, Flaw> {
    // Without an example of the class it is 0 whatever a model does, which says nothing of either.
    of_positive(confusion, |confusion, class| confusion.recall(class).and_then(|_| confusion.f1(class)))
}

fn confusion<'s>(
    sample: &Sample,
    answers: &Answers,
    of: fn(&Confusion) -> Result<f64, Flaw>,
) -> Result<Prepared<'s>, Flaw> {
    let (classes, labels, answers) = classes(sample, answers)?;
    Ok(Prepared::Confusion { of, classes, labels, answers })
}

/// Labels and answers as classes: labels of 0 and 1 with scores are two classes, told apart by the threshold.
pub(super) fn classes(sample: &Sample, answers: &Answers) -> Result<(u32, Vec<u32>, Vec<u32>), Flaw> {
    match (&sample.label, answers) {
        (Answers::Classes(labels), Answers::Classes(answers)) => {
            Ok((sample.classes, labels.clone(), answers.clone()))
        }
        (Answers::Numbers(_), Answers::Numbers(_)) => {
            let (positive, scores) = two_classes("a metric of classes", sample, answers)?;
            let labels = positive.into_iter().map(u32::from).collect();
            Ok((2, labels, scores.iter().map(|score| u32::from(*score >= sample.threshold)).collect()))
        }
        (Answers::Classes(_), Answers::Numbers(_)) | (Answers::Numbers(_), Answers::Classes(_)) => {
            let why = "labels and predictions are not of the same kind";
            Err(Flaw::Undefined { what: "a metric of classes", why })
        }
    }
}

/// Labels of 0 and 1, and scores.
pub(super) fn two_classes<'s>(
    what: &'static str,
    sample: &Sample,
    answers: &'s Answers,
) -> Result<(Vec<bool>, &'s [f64]), Flaw> {
    let (Answers::Numbers(labels), Answers::Numbers(scores)) = (&sample.label, answers) else {
        let why = "it needs labels of 0 and 1 (or false and true) and a score for the positive class";
        return Err(Flaw::Undefined { what, why });
    };
    if labels.iter().any(|&label| label != 0.0 && label != 1.0) {
        let why = "the labels are not 0 and 1: write classes as text, or use a metric of numbers";
        return Err(Flaw::Undefined { what, why });
    }
    Ok((labels.iter().map(|&label| label == 1.0).collect(), scores))
}

fn order<'s>(
    sample: &Sample,
    answers: &Answers,
    what: &'static str,
    of: fn(&Scored, Weights<'_>) -> Result<f64, Flaw>,
) -> Result<Prepared<'s>, Flaw> {
    let (positive, scores) = two_classes(what, sample, answers)?;
    Ok(Prepared::Order { of, scored: Scored::of(&positive, scores)? })
}

fn numbers<'s>(
    what: &'static str,
    sample: &'s Sample,
    answers: &'s Answers,
) -> Result<(&'s [f64], &'s [f64]), Flaw> {
    match (&sample.label, answers) {
        (Answers::Numbers(labels), Answers::Numbers(answers)) => Ok((labels, answers)),
        (Answers::Numbers(_) | Answers::Classes(_), Answers::Numbers(_) | Answers::Classes(_)) => {
            Err(Flaw::Undefined { what, why: "it needs labels and predictions that are numbers" })
        }
    }
}

pub(super) fn queries(what: &'static str, sample: &Sample, answers: &Answers) -> Result<Queries, Flaw> {
    let (relevance, scores) = numbers(what, sample, answers)?;
    let missing = Flaw::Undefined { what, why: "it needs `group`, the column of the query" };
    Queries::of(sample.groups.as_ref().ok_or(missing)?, relevance, scores)
}
