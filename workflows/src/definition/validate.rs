//! `validate`: what data must look like, as a worker will check it. Pure description; must never happen here: reading data.
//!
//! Every bound is inclusive. A column that is missing, a value that cannot be read as what a check needs, and a
//! reference that does not exist are never a pass.

use std::time::Duration;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFormat {
    /// Comma-separated, with a header line (RFC 4180).
    Csv,
    /// One JSON object a line.
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

/// One check of data.
#[derive(Clone, Debug)]
pub struct DataCheck {
    /// What is looked at and what it must be.
    pub inspect: Inspect,
    /// What it means when it does not hold.
    pub severity: Severity,
    /// `where`: only rows for which this holds count. Kept as written; the worker's reader of data knows its columns.
    pub filter: Option<String>,
    /// Why the check is there.
    pub because: Option<String>,
}

/// What it means when a check does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is reported.
    Warn,
    /// The step fails (the default).
    Fail,
}

/// What one check looks at.
#[derive(Clone, Debug)]
pub enum Inspect {
    /// `rows`: how many there are.
    Rows {
        /// At least, at most.
        count: Bounds,
        /// `change`: relative to the number of rows of the reference.
        change: Option<Change>,
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
        change: Option<Change>,
    },
    /// `overlap`: rows that other data holds too, told by the hash of the row.
    Overlap {
        /// `with`: the other data.
        with: Template,
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
        against: Against,
    },
}

/// At least and at most, both inclusive; at least one is set where a check asks for bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The least allowed.
    pub min: Option<f64>,
    /// The most allowed.
    pub max: Option<f64>,
}

/// `change`: how much something may differ from a reference, up or down.
#[derive(Clone, Debug)]
pub struct Change {
    /// The greatest change, as a share: 0.5 is half as much again, or half as much.
    pub max: f64,
    /// What is compared with.
    pub against: Against,
}

/// What data is compared with.
#[derive(Clone, Debug)]
pub enum Against {
    /// What this step saw in the latest run in which it succeeded (the default).
    Previous,
    /// What this step saw in the run that made the champion.
    Champion,
    /// Other data, named as in [`ValidateTask::data`].
    Data(Template),
}

/// What must hold for a column. Shares are of the rows that count, from 0 to 1; missing values are no values.
#[derive(Clone, Debug)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many.
    Count(u64),
    /// This share, from 0 to 1.
    Share(f64),
}

/// How the distance of two distributions is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
