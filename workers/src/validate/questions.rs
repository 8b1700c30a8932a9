//! From checks to questions: what is to be gathered for a check, and what is asked of it in the end. A check that cannot be
//! made (no such column, values that are nested) becomes a question with that answer. Must never happen here: reading rows.

use std::time::Duration;

use refit_workflows::definition::{
    Against, Amount, Bounds, Change, ColumnRule, ColumnType, DataCheck, DataFormat, DriftMethod, Inspect,
    Usual,
};
use refit_workflows::wire::DataRef;
use regex::RegexBuilder;
use serde_json::Value;

use super::Task;
use super::filter::kind_of;
use super::findings::bounds_text;
use super::hashes::Hashes;
use super::plan::Plan;
use super::probe::{Probe, Rule, Ruled};
use crate::data::{Kind, Read, Table};

/// Compiled, a regular expression takes at most so many bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A number of rows or values: known from footers, or of a probe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Known(u64),
    Probe(usize),
}

/// What is asked of what was gathered; numbers are places of probes.
#[derive(Debug)]
pub(super) enum Ask {
    /// It cannot be found out, and why.
    Broken(String),
    Rows {
        count: Count,
        bounds: Bounds,
    },
    RowsChange {
        count: Count,
        change: Change<DataRef>,
    },
    RowsUsual {
        count: Count,
        usual: Usual,
    },
    Missing {
        missing: Count,
        rows: Count,
        max: Amount,
    },
    Rule {
        probe: usize,
        must: String,
    },
    Aggregate {
        probe: usize,
        of: Aggregate,
        bounds: Bounds,
    },
    Constant {
        probe: usize,
        constant: bool,
    },
    Fresh {
        probe: usize,
        within: Duration,
    },
    Unique {
        probe: usize,
    },
    LabelShare {
        probe: usize,
        rows: Count,
        value: Value,
        share: Bounds,
    },
    LabelChange {
        probe: usize,
        rows: Count,
        value: Value,
        change: Change<DataRef>,
    },
    Overlap {
        probe: usize,
        with: Vec<Read>,
        max: f64,
    },
    Drift {
        probe: usize,
        method: DriftMethod,
        max: f64,
        against: Against<DataRef>,
    },
}

/// A number that sums a column up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aggregate {
    Mean,
    Median,
    Quantile(f64),
    Sum,
}

/// One thing a check asks.
#[derive(Debug)]
pub(super) struct Question {
    /// The check's place.
    pub(super) check: usize,
    /// What it is called: `age missing`.
    pub(super) name: String,
    /// The column it is about.
    pub(super) column: Option<String>,
    pub(super) filter: Option<usize>,
    pub(super) ask: Ask,
}

/// Adds the questions of a check, and whatever is to be gathered for them.
pub(super) fn add(
    plan: &mut Plan,
    table: &Table,
    task: &Task,
    (index, check): (usize, &DataCheck<DataRef>),
    rows: &Among,
) {
    let filter = rows.filter;
    Maker { plan, table, task, check: index, filter, slice: rows.slice.as_deref() }.check(check);
}

/// Adds the question why a check's slices are not known.
pub(super) fn add_broken(plan: &mut Plan, index: usize, by: &str, why: String) {
    let name = format!("slices of {by}");
    plan.ask(Question { check: index, name, column: None, filter: None, ask: Ask::Broken(why) });
}

/// The rows that a check is about.
#[derive(Debug, Default)]
pub(super) struct Among {
    pub(super) filter: Option<usize>,
    /// What is said of them when they are one slice of several: `country=de`.
    pub(super) slice: Option<String>,
}

/// Makes the questions of one check.
struct Maker<'p> {
    plan: &'p mut Plan,
    table: &'p Table,
    task: &'p Task,
    check: usize,
    filter: Option<usize>,
    slice: Option<&'p str>,
}

impl Maker<'_> {
    fn ask(&mut self, name: String, column: Option<&str>, ask: Ask) {
        let ask = match self.plan.broken_filter(self.filter) {
            Some(why) => Ask::Broken(why.to_owned()),
            None => ask,
        };
        let column = column.map(str::to_owned);
        let name = self.slice.map_or(name.clone(), |slice| format!("{name} [{slice}]"));
        self.plan.ask(Question { check: self.check, name, column, filter: self.filter, ask });
    }

    /// What a column naturally is.
    ///
    /// # Errors
    /// It is not there.
    fn natural(&self, column: &str) -> Result<Option<Kind>, String> {
        self.table.kind_of(column).map_err(|wrong| wrong.to_string())
    }

    /// Likewise, and not nested.
    fn readable(&self, column: &str) -> Result<Kind, String> {
        self.natural(column)?.ok_or_else(|| format!("`{column}` holds nested or binary values"))
    }

    fn check(&mut self, check: &DataCheck<DataRef>) {
        match &check.inspect {
            Inspect::Rows { count: bounds, change, usual } => {
                let count = self.plan.rows(self.table, self.filter);
                if *bounds != Bounds::default() {
                    self.ask("rows".to_owned(), None, Ask::Rows { count, bounds: *bounds });
                }
                if let Some(change) = change {
                    self.ask(
                        "rows change".to_owned(),
                        None,
                        Ask::RowsChange { count, change: change.clone() },
                    );
                }
                if let Some(usual) = usual {
                    self.ask("rows usual".to_owned(), None, Ask::RowsUsual { count, usual: *usual });
                }
            }
            Inspect::Column { name, rules } => {
                for rule in rules {
                    let ask = self.rule(name, rule).unwrap_or_else(Ask::Broken);
                    self.ask(format!("{name} {}", rule_name(rule)), Some(name), ask);
                }
            }
            Inspect::Unique(columns) => {
                let ask = self.unique(columns).unwrap_or_else(Ask::Broken);
                self.ask(format!("{} unique", columns.join(", ")), None, ask);
            }
            Inspect::LabelShare { column, value, share, change } => {
                self.label(column, value, *share, change.as_ref());
            }
            Inspect::Overlap { with: _, columns, max } => {
                let ask = self.overlap(columns, *max).unwrap_or_else(Ask::Broken);
                self.ask("overlap".to_owned(), None, ask);
            }
            Inspect::Drift { columns, method, max, against } => {
                for column in columns {
                    let ask = self.readable(column).map(|kind| {
                        let probe = self.plan.profiled(column, Some(kind), self.filter);
                        Ask::Drift { probe, method: *method, max: *max, against: against.clone() }
                    });
                    let ask = ask.unwrap_or_else(Ask::Broken);
                    self.ask(format!("{column} drift {}", method_name(*method)), Some(column), ask);
                }
            }
        }
    }

    fn label(&mut self, column: &str, value: &Value, share: Bounds, change: Option<&Change<DataRef>>) {
        let name = format!("{column} label_share");
        let kind = match self.readable(column) {
            Ok(kind) => kind,
            Err(why) => return self.ask(name, Some(column), Ask::Broken(why)),
        };
        let probe = self.plan.profiled(column, Some(kind), self.filter);
        let rows = self.plan.rows(self.table, self.filter);
        if share != Bounds::default() {
            let ask = Ask::LabelShare { probe, rows, value: value.clone(), share };
            self.ask(name.clone(), Some(column), ask);
        }
        if let Some(change) = change {
            let ask = Ask::LabelChange { probe, rows, value: value.clone(), change: change.clone() };
            self.ask(format!("{name} change"), Some(column), ask);
        }
    }

    fn unique(&mut self, columns: &[String]) -> Result<Ask, String> {
        let mut reads = Vec::new();
        for column in columns {
            let kind = self.readable(column)?;
            reads.push(self.plan.read_of(column, Some(kind)));
        }
        let probe = self.plan.probe(self.filter, Probe::Hashes(reads, false, Hashes::default()));
        Ok(Ask::Unique { probe })
    }

    fn overlap(&mut self, columns: &[String], max: f64) -> Result<Ask, String> {
        let source = self.task.others.get(&self.check).ok_or("the other data was not laid out")?;
        let other = Table::open(&source.path, source.format).map_err(|wrong| wrong.to_string())?;
        let all: Vec<String> = self.table.columns().iter().map(|column| column.name.clone()).collect();
        let columns = if columns.is_empty() { all.as_slice() } else { columns };
        let (mut reads, mut with) = (Vec::new(), Vec::new());
        for column in columns {
            let kind = self.readable(column)?;
            let theirs = other.kind_of(column).map_err(|wrong| wrong.to_string())?;
            let theirs = theirs.ok_or_else(|| format!("`{column}` holds nested or binary values there"))?;
            let kind = kind.and(theirs);
            reads.push(self.plan.read_of(column, Some(kind)));
            with.push(Read { column: column.clone(), kind: Some(kind) });
        }
        let probe = self.plan.probe(self.filter, Probe::Hashes(reads, true, Hashes::default()));
        Ok(Ask::Overlap { probe, with, max })
    }

    fn rule(&mut self, column: &str, rule: &ColumnRule) -> Result<Ask, String> {
        let natural = self.natural(column)?;
        if let (Some(kind), false) = (natural, matches!(rule, ColumnRule::Missing(_) | ColumnRule::Type(_))) {
            self.plan.profiled(column, Some(kind), self.filter);
        }
        let aggregate = |maker: &mut Self, of: Aggregate, bounds: Bounds| {
            let probe = maker.plan.described(column, Some(Kind::Number), maker.filter);
            Ask::Aggregate { probe, of, bounds }
        };
        if natural.is_none() && !matches!(rule, ColumnRule::Missing(_)) {
            self.readable(column)?;
        }
        Ok(match rule {
            ColumnRule::Missing(max) => self.missing(column, natural, *max),
            ColumnRule::Type(kind) => self.of_type(column, *kind)?,
            ColumnRule::Unique => return self.unique(&[column.to_owned()]),
            ColumnRule::Between { min, max } => self.ruled(
                column,
                Kind::Number,
                Rule::Between(*min, *max),
                format!("between {min} and {max}"),
            ),
            ColumnRule::In(values) => self.one_of(column, values),
            ColumnRule::Matches(pattern) => {
                let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
                let built = built.map_err(|wrong| format!("`matches`: {wrong}"))?;
                self.ruled(
                    column,
                    Kind::Text,
                    Rule::Matches(Box::new(built)),
                    format!("text that matches `{pattern}`"),
                )
            }
            ColumnRule::Length(bounds) => {
                let must = format!("text of {} characters", bounds_text(*bounds));
                self.ruled(column, Kind::Text, Rule::Length(*bounds), must)
            }
            ColumnRule::Mean(bounds) => aggregate(self, Aggregate::Mean, *bounds),
            ColumnRule::Median(bounds) => aggregate(self, Aggregate::Median, *bounds),
            ColumnRule::Quantile { at, bounds } => aggregate(self, Aggregate::Quantile(*at), *bounds),
            ColumnRule::Sum(bounds) => aggregate(self, Aggregate::Sum, *bounds),
            ColumnRule::Constant(constant) => {
                let probe = self.plan.described(column, natural, self.filter);
                Ask::Constant { probe, constant: *constant }
            }
            ColumnRule::Fresh(within) => {
                let probe = self.plan.described(column, Some(Kind::Timestamp), self.filter);
                Ask::Fresh { probe, within: *within }
            }
        })
    }

    fn ruled(&mut self, column: &str, kind: Kind, rule: Rule, must: String) -> Ask {
        let read = self.plan.read_of(column, Some(kind));
        Ask::Rule { probe: self.plan.probe(self.filter, Probe::Rule(read, rule, Ruled::default())), must }
    }

    fn missing(&mut self, column: &str, natural: Option<Kind>, max: Amount) -> Ask {
        let rows = self.plan.rows(self.table, self.filter);
        let known = if self.filter.is_none() { self.table.missing_count(column) } else { None };
        let missing = known.map_or_else(
            || {
                let read = self.plan.read_of(column, natural);
                Count::Probe(self.plan.probe(self.filter, Probe::Missing(read, 0)))
            },
            Count::Known,
        );
        Ask::Missing { missing, rows, max }
    }

    fn of_type(&mut self, column: &str, kind: ColumnType) -> Result<Ask, String> {
        let (kind, must) = match kind {
            ColumnType::String => (Kind::Text, "text"),
            ColumnType::Integer => (Kind::Integer, "a whole number"),
            ColumnType::Number => (Kind::Number, "a number"),
            ColumnType::Boolean => (Kind::Boolean, "true or false"),
            ColumnType::Timestamp => (Kind::Timestamp, "a time"),
        };
        // Everything in CSV is text; elsewhere a number can be written as text, but is none.
        let natural = self.readable(column)?;
        if kind == Kind::Text && natural != Kind::Text && self.table.format() != DataFormat::Csv {
            return Err(format!("`{column}` holds {}, not text", natural.name()));
        }
        Ok(self.ruled(column, kind, Rule::Readable, must.to_owned()))
    }

    fn one_of(&mut self, column: &str, values: &[Value]) -> Ask {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (kind, rule) = match kind_of(values) {
            Kind::Number | Kind::Integer => {
                (Kind::Number, Rule::OneOfNumbers(values.iter().filter_map(Value::as_f64).collect()))
            }
            Kind::Boolean => {
                (Kind::Boolean, Rule::OneOfFlags(values.iter().filter_map(Value::as_bool).collect()))
            }
            Kind::Text | Kind::Timestamp => (Kind::Text, Rule::OneOfTexts(values.iter().map(text).collect())),
        };
        let mut shown: Vec<String> = values.iter().take(5).map(text).collect();
        if values.len() > shown.len() {
            shown.push(format!("{} more", values.len() - shown.len()));
        }
        self.ruled(column, kind, rule, format!("one of {}", shown.join(", ")))
    }
}

fn rule_name(rule: &ColumnRule) -> &'static str {
    match rule {
        ColumnRule::Type(_) => "type",
        ColumnRule::Missing(_) => "missing",
        ColumnRule::Unique => "unique",
        ColumnRule::Between { .. } => "between",
        ColumnRule::In(_) => "in",
        ColumnRule::Matches(_) => "matches",
        ColumnRule::Length(_) => "length",
        ColumnRule::Mean(_) => "mean",
        ColumnRule::Median(_) => "median",
        ColumnRule::Quantile { .. } => "quantile",
        ColumnRule::Sum(_) => "sum",
        ColumnRule::Constant(_) => "constant",
        ColumnRule::Fresh(_) => "fresh",
    }
}

/// As the language writes it.
pub(super) fn method_name(method: DriftMethod) -> &'static str {
    match method {
        DriftMethod::Psi => "psi",
        DriftMethod::Ks => "ks",
        DriftMethod::Js => "js",
        DriftMethod::Wasserstein => "wasserstein",
        DriftMethod::ChiSquare => "chi_square",
    }
}
