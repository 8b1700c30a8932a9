//! `validate`: what data must look like, as a worker will check it. Pure description; must never happen here: reading data.
//!
//! Every bound is inclusive. A column that is missing, a value that cannot be read as what a check needs, and a
//! reference that does not exist are never a pass.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::template::Template;

/// `validate`: data checks on one file or folder of files.
#[derive(Clone, Debug)]
pub struct ValidateTask {
    /// `data`: a path inside the bundle, an artifact, an absolute path on the worker, or an `s3://` URL.
    pub data: Template,
    /// `format`; without it the name's ending says it.
    pub format: Option<DataFormat>,
    /// The checks, in the file's order; at least one.
    pub checks: Vec<DataCheck>,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// Comma-separated, with a header line (RFC 4180).
    Csv,
    /// One JSON object a line.
    #[serde(rename = "jsonl")]
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl DataFormat {
    /// What the ending of a file's name says.
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// One check of data. `D` is how other data is named: by a template here, by what it has become in an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataCheck<D = Template> {
    /// What is looked at and what it must be.
    pub inspect: Inspect<D>,
    /// What it means when it does not hold.
    pub severity: Severity,
    /// `where`: only rows for which this holds count. CEL over the rows' columns, kept as written: only the worker knows
    /// which columns there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// `by`: it must hold for the rows of each value of this column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why the check is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl<D> DataCheck<D> {
    /// The same check with other data named otherwise.
    ///
    /// # Errors
    /// The first one of `name`.
    pub fn try_map<E, W>(&self, mut name: impl FnMut(&D) -> Result<E, W>) -> Result<DataCheck<E>, W> {
        let inspect = match &self.inspect {
            Inspect::Rows { count, change, usual } => {
                let change = change.as_ref().map(|change| change.try_map(&mut name)).transpose()?;
                Inspect::Rows { count: *count, change, usual: *usual }
            }
            Inspect::Column { name, rules } => Inspect::Column { name: name.clone(), rules: rules.clone() },
            Inspect::Unique(columns) => Inspect::Unique(columns.clone()),
            Inspect::LabelShare { column, value, share, change } => Inspect::LabelShare {
                column: column.clone(),
                value: value.clone(),
                share: *share,
                change: change.as_ref().map(|change| change.try_map(&mut name)).transpose()?,
            },
            Inspect::Overlap { with, columns, max } => {
                Inspect::Overlap { with: name(with)?, columns: columns.clone(), max: *max }
            }
            Inspect::Drift { columns, method, max, against } => Inspect::Drift {
                columns: columns.clone(),
                method: *method,
                max: *max,
                against: against.try_map(&mut name)?,
            },
        };
        let (filter, by, because) = (self.filter.clone(), self.by.clone(), self.because.clone());
        Ok(DataCheck { inspect, severity: self.severity, filter, by, because })
    }

    /// The other data it looks at, if any.
    pub fn other_data(&self) -> Option<&D> {
        match (&self.inspect, self.against()) {
            (Inspect::Overlap { with, .. }, _) => Some(with),
            (_, Some(Against::Data(data))) => Some(data),
            (_, Some(Against::Previous | Against::Champion) | None) => None,
        }
    }

    /// How earlier runs' numbers of rows are looked at, if they are.
    pub fn usual(&self) -> Option<Usual> {
        match &self.inspect {
            Inspect::Rows { usual, .. } => *usual,
            Inspect::Column { .. }
            | Inspect::Unique(_)
            | Inspect::LabelShare { .. }
            | Inspect::Overlap { .. }
            | Inspect::Drift { .. } => None,
        }
    }

    /// What its numbers are compared with, if with anything.
    pub fn against(&self) -> Option<&Against<D>> {
        match &self.inspect {
            Inspect::Rows { change, .. } | Inspect::LabelShare { change, .. } => {
                change.as_ref().map(|change| &change.against)
            }
            Inspect::Drift { against, .. } => Some(against),
            Inspect::Column { .. } | Inspect::Unique(_) | Inspect::Overlap { .. } => None,
        }
    }
}

impl<D> Change<D> {
    fn try_map<E, W>(&self, name: impl FnMut(&D) -> Result<E, W>) -> Result<Change<E>, W> {
        Ok(Change { max: self.max, against: self.against.try_map(name)? })
    }
}

impl<D> Against<D> {
    fn try_map<E, W>(&self, mut name: impl FnMut(&D) -> Result<E, W>) -> Result<Against<E>, W> {
        Ok(match self {
            Self::Previous => Against::Previous,
            Self::Champion => Against::Champion,
            Self::Data(data) => Against::Data(name(data)?),
        })
    }
}

/// What it means when a check does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is reported.
    Warn,
    /// The step fails (the default).
    Fail,
}

/// What one check looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspect<D = Template> {
    /// `rows`: how many there are.
    Rows {
        /// At least, at most.
        count: Bounds,
        /// `change`: relative to the number of rows of the reference.
        change: Option<Change<D>>,
        /// `usual`: relative to what earlier runs saw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usual: Option<Usual>,
    },
    /// `column`: rules for one column.
    Column {
        /// Its name.
        name: String,
        /// What must hold, in the file's order; at least one.
        rules: Vec<ColumnRule>,
    },
    /// `unique`: no two rows have the same values in these columns.
    Unique(Vec<String>),
    /// `label_share`: how much of a column is one value.
    LabelShare {
        /// The column.
        column: String,
        /// The value.
        value: Value,
        /// Its share of the rows, from 0 to 1.
        share: Bounds,
        /// `change`: by how many points the share may differ from the reference's.
        change: Option<Change<D>>,
    },
    /// `overlap`: rows that other data holds too, told by the hash of the row.
    Overlap {
        /// `with`: the other data.
        with: D,
        /// The columns that count; all of them when empty.
        columns: Vec<String>,
        /// The greatest share of rows that may be found there, from 0 to 1.
        max: f64,
    },
    /// `drift`: columns that are distributed otherwise than in the reference.
    Drift {
        /// The columns; at least one.
        columns: Vec<String>,
        /// How the distance is counted.
        method: DriftMethod,
        /// The greatest distance allowed, in the method's unit.
        max: f64,
        /// What is compared with.
        against: Against<D>,
    },
}

/// At least and at most, both inclusive; at least one is set where a check asks for bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The least allowed.
    pub min: Option<f64>,
    /// The most allowed.
    pub max: Option<f64>,
}

impl Bounds {
    /// Whether a number lies within. NaN does not.
    pub fn hold(&self, number: f64) -> bool {
        !number.is_nan()
            && self.min.is_none_or(|min| number >= min)
            && self.max.is_none_or(|max| number <= max)
    }
}

/// `change`: how much something may differ from a reference, up or down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change<D = Template> {
    /// The greatest change, as a share: 0.5 is half as much again, or half as much.
    pub max: f64,
    /// What is compared with.
    pub against: Against<D>,
}

/// `usual`: how far a number may lie from those of the latest runs in which the step succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// In median absolute deviations from their median, above 0.
    pub within: f64,
    /// How many runs count, at most.
    pub runs: u32,
}

impl Usual {
    /// With fewer earlier runs nothing is usual yet.
    pub const RUNS_MIN: usize = 8;
}

/// What data is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against<D = Template> {
    /// What this step saw in the latest run in which it succeeded (the default).
    Previous,
    /// What this step saw in the run that made the champion.
    Champion,
    /// Other data, named as in [`ValidateTask::data`].
    Data(D),
}

/// What must hold for a column. Shares are of the rows that count, from 0 to 1; missing values are no values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnRule {
    /// `type`: every value is of this type.
    Type(ColumnType),
    /// `missing`: how many values may be missing.
    Missing(Amount),
    /// `unique: true`: no value occurs twice.
    Unique,
    /// `between`: every value lies within.
    Between {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// `in`: every value is one of these.
    In(Vec<Value>),
    /// `matches`: every value, as text, matches this regular expression somewhere.
    Matches(String),
    /// `length`: of every value, as text, in characters.
    Length(Bounds),
    /// `mean`.
    Mean(Bounds),
    /// `median`.
    Median(Bounds),
    /// `quantile`.
    Quantile {
        /// `at`: which one, above 0 and below 1.
        at: f64,
        /// Its bounds.
        bounds: Bounds,
    },
    /// `sum`.
    Sum(Bounds),
    /// `constant`: whether every value is the same one. `false` asks for at least two.
    Constant(bool),
    /// `fresh`: the latest time in the column is at most this old when the step runs.
    Fresh(Duration),
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Text.
    String,
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// True and false.
    Boolean,
    /// Instants: RFC 3339 text, or the format's own type.
    Timestamp,
}

/// A number of rows, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// This many.
    Count(u64),
    /// This share, from 0 to 1.
    Share(f64),
}

/// How the distance of two distributions is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftMethod {
    /// Population stability index over the deciles of the reference, or its categories.
    Psi,
    /// The two-sample Kolmogorov–Smirnov statistic.
    Ks,
    /// The Jensen–Shannon distance, natural logarithm.
    Js,
    /// The Wasserstein distance, in standard deviations of the reference.
    Wasserstein,
    /// The two-sample chi-square statistic of a contingency table.
    ChiSquare,
}
