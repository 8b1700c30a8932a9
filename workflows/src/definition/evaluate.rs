//! `evaluate`: metrics of the candidate and of the champion, counted by a worker from one table of paired predictions.
//! Owns the names of the metrics Refit can count and which way each is better. Must never happen here: counting.

use serde::{Deserialize, Serialize};

use super::{DataFormat, Direction};
use crate::evaluation::Question;
use crate::template::Template;

/// `evaluate`: metrics of both models from one table. Its metrics are the candidate's; the champion's stand beside them in the
/// evidence.
#[derive(Clone, Debug)]
pub struct EvaluateTask {
    /// `predictions`: named as `validate` names data.
    pub predictions: Template,
    /// What the table holds and what is counted.
    pub examples: Examples,
}

/// A table with a row an example and the prediction of both models: what its columns are, and what is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// `format`; without it the name's ending says it.
    pub format: Option<DataFormat>,
    /// `label`: the column that holds what was right.
    pub label: String,
    /// `candidate`: the column of the candidate's predictions (default `candidate`).
    pub candidate: String,
    /// `champion`: the column of the champion's predictions (default `champion`).
    pub champion: String,
    /// `weight`: the column of the rows' weights; without it every row counts once.
    pub weight: Option<String>,
    /// `cluster`: the column that says which rows belong together (a user, a session), for resampling.
    pub cluster: Option<String>,
    /// `id`: the column that names an example, which must be unique.
    pub id: Option<String>,
    /// `group`: the column that says which rows are answers to one query, for metrics of rankings.
    pub group: Option<String>,
    /// `threshold`: a score of at least this counts as positive (default 0.5).
    pub threshold: f64,
    /// The metrics, in the file's order; at least one.
    pub metrics: Vec<EvaluatedMetric>,
    /// `by`: columns whose values cut the rows into slices, each counted on its own.
    pub by: Vec<String>,
}

impl Examples {
    /// Whether it can answer a question: it can count the metric, and makes the slices.
    pub fn can_answer(&self, question: &Question) -> bool {
        self.can_count(&question.metric) && question.by.as_ref().is_none_or(|by| self.by.contains(by))
    }

    /// Whether a metric is listed, or one that Refit can count from these columns all the same.
    pub fn can_count(&self, metric: &str) -> bool {
        self.lists(metric)
            || Metric::of_name(metric).is_some_and(|known| !known.is_ranking() || self.group.is_some())
    }

    /// The same with the metrics that questions are about.
    pub fn with_asked(mut self, questions: &[Question]) -> Self {
        for question in questions {
            if let (false, Some(metric)) = (self.lists(&question.metric), Metric::of_name(&question.metric)) {
                self.metrics.push(EvaluatedMetric::Known(metric));
            }
        }
        self
    }

    fn lists(&self, metric: &str) -> bool {
        self.metrics.iter().any(|counted| counted.name() == metric)
    }
}

/// A metric to count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluatedMetric {
    /// One that Refit knows.
    Known(Metric),
    /// `{name, candidate, champion, direction, test}`: a number that the table holds for each row and model.
    Column {
        /// What it is called.
        name: String,
        /// The column for the candidate.
        candidate: String,
        /// The column for the champion.
        champion: String,
        /// Which way is better.
        direction: Direction,
        /// `test`: how the two columns are compared.
        test: ColumnTest,
    },
}

/// How two columns of numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnTest {
    /// Row by row, by their means; every row has both (the default).
    PairedT,
    /// As two samples, by their means. A row may have one of them.
    Welch,
    /// As two samples, by their medians and the shift between them, which single values far off do not move. A row may have one
    /// of them.
    MannWhitney,
}

impl EvaluatedMetric {
    /// What it is called in gates.
    pub fn name(&self) -> String {
        match self {
            Self::Known(metric) => metric.to_string(),
            Self::Column { name, .. } => name.clone(),
        }
    }

    /// Whether the columns of both models are two samples and not pairs.
    pub fn is_of_two_samples(&self) -> bool {
        matches!(self, Self::Column { test: ColumnTest::Welch | ColumnTest::MannWhitney, .. })
    }
}

/// A metric that Refit can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Metric {
    /// Share of right answers.
    Accuracy,
    /// Mean of the recalls of the classes.
    BalancedAccuracy,
    /// Share of the positive answers that are right.
    Precision,
    /// Share of the positives that are found.
    Recall,
    /// Harmonic mean of precision and recall.
    F1,
    /// Area under the receiver operating characteristic.
    RocAuc,
    /// Average precision.
    PrAuc,
    /// Cross-entropy, natural logarithm.
    LogLoss,
    /// Mean squared error of probabilities.
    Brier,
    /// Expected calibration error.
    Ece,
    /// Mean absolute error.
    Mae,
    /// Root of the mean squared error.
    Rmse,
    /// Coefficient of determination.
    R2,
    /// Pinball loss of the median.
    QuantileLoss,
    /// Normalised discounted cumulative gain of the first `k`.
    NdcgAt(u32),
    /// Share of what is relevant that is among the first `k`.
    RecallAt(u32),
}

impl Metric {
    /// The greatest `k` of `ndcg@k` and `recall@k`.
    pub const K_MAX: u32 = 10_000;

    /// The names of those without a number in them, as written in a file.
    pub const NAMES: [(&'static str, Self); 14] = [
        ("accuracy", Self::Accuracy),
        ("balanced_accuracy", Self::BalancedAccuracy),
        ("precision", Self::Precision),
        ("recall", Self::Recall),
        ("f1", Self::F1),
        ("roc_auc", Self::RocAuc),
        ("pr_auc", Self::PrAuc),
        ("log_loss", Self::LogLoss),
        ("brier", Self::Brier),
        ("ece", Self::Ece),
        ("mae", Self::Mae),
        ("rmse", Self::Rmse),
        ("r2", Self::R2),
        ("quantile_loss", Self::QuantileLoss),
    ];

    /// The metric of this name, if Refit knows it: one of [`Metric::NAMES`], `ndcg@10`, `recall@5`.
    pub fn of_name(name: &str) -> Option<Self> {
        let k = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            digits.parse().ok().filter(|k| plain && *k <= Self::K_MAX)
        };
        if let Some(digits) = name.strip_prefix("ndcg@") {
            return k(digits).map(Self::NdcgAt);
        }
        if let Some(digits) = name.strip_prefix("recall@") {
            return k(digits).map(Self::RecallAt);
        }
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    /// Which way it is better.
    pub fn direction(self) -> Direction {
        match self {
            Self::LogLoss | Self::Brier | Self::Ece | Self::Mae | Self::Rmse | Self::QuantileLoss => {
                Direction::Lower
            }
            Self::Accuracy
            | Self::BalancedAccuracy
            | Self::Precision
            | Self::Recall
            | Self::F1
            | Self::RocAuc
            | Self::PrAuc
            | Self::R2
            | Self::NdcgAt(_)
            | Self::RecallAt(_) => Direction::Higher,
        }
    }

    /// Whether it is about the order of the answers to one query.
    pub fn is_ranking(self) -> bool {
        matches!(self, Self::NdcgAt(_) | Self::RecallAt(_))
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::of_name(&name).ok_or_else(|| format!("there is no metric `{name}`"))
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::NdcgAt(k) = self {
            return write!(f, "ndcg@{k}");
        }
        if let Self::RecallAt(k) = self {
            return write!(f, "recall@{k}");
        }
        f.write_str(Self::NAMES.iter().find(|(_, metric)| metric == self).map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_name() {
        let numbered = [Metric::NdcgAt(10), Metric::RecallAt(1)];
        for metric in Metric::NAMES.iter().map(|(_, metric)| *metric).chain(numbered) {
            assert_eq!(Metric::of_name(&metric.to_string()), Some(metric));
        }
        for unknown in
            ["auc", "ndcg", "ndcg@", "ndcg@0", "ndcg@+1", "ndcg@1e2", "recall@10001", "Accuracy", ""]
        {
            assert_eq!(Metric::of_name(unknown), None, "{unknown}");
        }
    }
}
