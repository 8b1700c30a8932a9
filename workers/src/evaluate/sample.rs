//! Examples in memory: columns of the same length, all of them or those of a slice. Must never happen here: columns of different lengths.

use std::collections::BTreeMap;

use refit_workflows::evaluation::SLICES_MAX;
use refit_workflows::statistics::metrics::Weights;

/// Whose predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    Candidate,
    Champion,
}

/// What was right, or what a model answered.
#[derive(Clone, Debug)]
pub(super) enum Answers {
    /// Numbers: labels of 0 and 1, scores, probabilities, what is forecast.
    Numbers(Vec<f64>),
    /// The numbers of classes, from 0.
    Classes(Vec<u32>),
}

/// A number of the author's own, for both models.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) candidate: Vec<f64>,
    /// None: there is no champion.
    pub(super) champion: Option<Vec<f64>>,
}

/// A column that cuts the examples.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    /// Its values.
    pub(super) values: Vec<String>,
    /// For each row the place of its value.
    pub(super) of_rows: Vec<u32>,
}

/// The examples.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) label: Answers,
    pub(super) candidate: Answers,
    /// None: there is no champion.
    pub(super) champion: Option<Answers>,
    /// How many classes there are, where answers are classes.
    pub(super) classes: u32,
    pub(super) threshold: f64,
    pub(super) weights: Option<Vec<f64>>,
    pub(super) clusters: Option<Vec<u64>>,
    pub(super) groups: Option<Vec<u64>>,
    /// By the metric's name.
    pub(super) own: BTreeMap<String, Own>,
    /// By the column's name.
    pub(super) cuts: BTreeMap<String, Cut>,
}

impl Answers {
    fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Classes(classes) => classes.len(),
        }
    }

    fn at(&self, rows: &[usize]) -> Self {
        match self {
            Self::Numbers(numbers) => Self::Numbers(at(numbers, rows)),
            Self::Classes(classes) => Self::Classes(at(classes, rows)),
        }
    }
}

fn at<T: Copy>(values: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|&row| values[row]).collect()
}

impl Sample {
    /// How many examples.
    pub(super) fn rows(&self) -> usize {
        self.label.len()
    }

    pub(super) fn weights(&self) -> Weights<'_> {
        self.weights.as_deref().map_or(Weights::Equal, Weights::Of)
    }

    /// A model's answers; none of a champion that is not there.
    pub(super) fn answers(&self, model: Model) -> Option<&Answers> {
        match model {
            Model::Candidate => Some(&self.candidate),
            Model::Champion => self.champion.as_ref(),
        }
    }

    /// The examples of these rows.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        Self {
            label: self.label.at(rows),
            candidate: self.candidate.at(rows),
            champion: self.champion.as_ref().map(|answers| answers.at(rows)),
            classes: self.classes,
            threshold: self.threshold,
            weights: self.weights.as_ref().map(|weights| at(weights, rows)),
            clusters: self.clusters.as_ref().map(|clusters| at(clusters, rows)),
            groups: self.groups.as_ref().map(|groups| at(groups, rows)),
            own: self
                .own
                .iter()
                .map(|(name, own)| {
                    let champion = own.champion.as_ref().map(|values| at(values, rows));
                    (name.clone(), Own { candidate: at(&own.candidate, rows), champion })
                })
                .collect(),
            cuts: BTreeMap::new(),
        }
    }

    /// The examples cut by a column, by its values.
    ///
    /// # Errors
    /// It has too many values.
    pub(super) fn slices(&self, by: &str) -> Result<Vec<(String, Self)>, String> {
        let Some(cut) = self.cuts.get(by) else { return Err(format!("the examples are not cut by `{by}`")) };
        if cut.values.len() > SLICES_MAX {
            return Err(format!(
                "`{by}` has more than {SLICES_MAX} values: choose a column of fewer, or group them in the predictions"
            ));
        }
        let mut rows = vec![Vec::new(); cut.values.len()];
        for (row, value) in cut.of_rows.iter().enumerate() {
            rows[*value as usize].push(row);
        }
        let mut slices: Vec<(String, Self)> =
            cut.values.iter().zip(rows).map(|(value, rows)| (value.clone(), self.select(&rows))).collect();
        slices.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(slices)
    }
}
