//! What is gathered of each batch of rows for one or several questions. Must never happen here: a judgement.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Array as _, BooleanArray};
use arrow_select::filter::filter;
use refit_workflows::definition::Bounds;
use regex::Regex;
use serde_json::Value;

use super::filter::value;
use super::hashes::{Hashes, hash};
use super::pass::texts;
use crate::data::profile::{Profiler, beginning};
use crate::data::{Cells, Rows};

/// Values that did not hold are kept of each rule,
pub(super) const SAMPLED_MAX: usize = 20;
/// and different new values named.
const NEW_VALUES_MAX: usize = 20;
/// Slices of a column.
pub(super) const SLICES_MAX: usize = 100;

/// Rows that count, of one batch.
#[derive(Debug)]
pub(super) struct Selected<'r> {
    /// Their columns, in the order of the reads.
    pub(super) columns: Vec<std::borrow::Cow<'r, Cells>>,
    /// How many.
    pub(super) count: usize,
    /// The places of these rows in the batch; none: all of them.
    places: Option<Vec<usize>>,
    rows: &'r Rows,
}

impl<'r> Selected<'r> {
    /// All rows, or those that a filter keeps.
    pub(super) fn of(rows: &'r Rows, kept: Option<&[bool]>) -> Result<Self, String> {
        let Some(kept) = kept else {
            let columns = rows.columns.iter().map(std::borrow::Cow::Borrowed).collect();
            return Ok(Self { columns, count: rows.count, places: None, rows });
        };
        let places: Vec<usize> = (0..rows.count).filter(|row| kept[*row]).collect();
        let mask = BooleanArray::from(kept.to_vec());
        let column = |cells: &Cells| -> Result<_, String> {
            let values = filter(&cells.values, &mask).map_err(|wrong| wrong.to_string())?;
            let unreadable = cells
                .unreadable
                .iter()
                .filter_map(|(row, text)| Some((places.binary_search(row).ok()?, text.clone())));
            Ok(std::borrow::Cow::Owned(Cells { values, unreadable: unreadable.collect() }))
        };
        let columns = rows.columns.iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { columns, count: places.len(), places: Some(places), rows })
    }

    /// Where one of them stands.
    fn at(&self, row: usize) -> (String, u64) {
        let place = self.places.as_ref().map_or(row, |places| places[row]);
        let file = self.rows.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (file, self.rows.first + place as u64)
    }
}

/// A value that did not hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) file: String,
    pub(super) row: u64,
    pub(super) value: Value,
}

/// What every value of a column must be.
#[derive(Debug)]
pub(super) enum Rule {
    /// Readable as what it was read as.
    Readable,
    /// Within, both inclusive; read as a number.
    Between(f64, f64),
    /// One of these texts; read as text.
    OneOfTexts(HashSet<String>),
    /// One of these; read as a number.
    OneOfNumbers(Vec<f64>),
    /// One of these; read as true or false.
    OneOfFlags(Vec<bool>),
    /// Read as text.
    Matches(Box<Regex>),
    /// In characters; read as text.
    Length(Bounds),
}

/// How a rule came out.
#[derive(Debug, Default)]
pub(super) struct Ruled {
    /// Values that are not missing.
    pub(super) n: u64,
    /// Those that do not hold, unreadable ones among them.
    pub(super) broken: u64,
    /// Those that cannot be read.
    pub(super) unreadable: u64,
    /// Some of them.
    pub(super) samples: Vec<Sample>,
    /// Different values that are none of those allowed, and how often they were seen.
    pub(super) new_values: BTreeMap<String, u64>,
}

/// One thing that is gathered.
#[derive(Debug)]
pub(super) enum Probe {
    /// How many rows count.
    Rows(u64),
    /// What a column looks like; the read.
    Column(usize, Profiler),
    /// How many values of a column are missing; the read.
    Missing(usize, u64),
    /// Whether a rule holds; the read.
    Rule(usize, Rule, Ruled),
    /// The rows' hashes by these reads, and whether those with missing values are among them.
    Hashes(Vec<usize>, bool, Hashes),
    /// The different values of a column as JSON; the read. None: there are more than [`SLICES_MAX`], or some that cannot be
    /// read.
    Values(usize, Option<BTreeSet<String>>),
    /// Some of the rows with one of these hashes, by the names and reads of their columns.
    Alike(Vec<(String, usize)>, HashSet<u64>, Vec<Sample>),
}

impl Probe {
    /// How much work a row of it is, roughly, in the time it takes to count one value.
    pub(super) fn effort(&self) -> usize {
        match self {
            Self::Rows(_) | Self::Missing(..) => 0,
            Self::Column(_, profiler) => profiler.effort(),
            Self::Rule(..) => 1,
            Self::Hashes(reads, ..) => 4 * reads.len(),
            Self::Alike(reads, ..) => 4 * reads.len(),
            Self::Values(..) => 4,
        }
    }

    /// Takes rows in.
    pub(super) fn add(&mut self, rows: &Selected<'_>) {
        match self {
            Self::Rows(count) => *count += rows.count as u64,
            Self::Column(read, profiler) => profiler.add(&rows.columns[*read]),
            Self::Missing(read, missing) => *missing += rows.columns[*read].missing() as u64,
            Self::Rule(read, rule, ruled) => ruled.add(rule, *read, rows),
            Self::Hashes(reads, with_missing, hashes) => {
                let columns: Vec<&Cells> = reads.iter().map(|read| &*rows.columns[*read]).collect();
                hashes.add(&columns, rows.count, *with_missing);
            }
            Self::Values(read, values) => add_values(values, &rows.columns[*read]),
            Self::Alike(reads, wanted, samples) => add_alike(reads, wanted, samples, rows),
        }
    }
}

fn add_values(values: &mut Option<BTreeSet<String>>, cells: &Cells) {
    let Some(known) = values else { return };
    known.extend(texts(cells));
    if known.len() > SLICES_MAX || !cells.unreadable.is_empty() {
        *values = None;
    }
}

fn add_alike(
    reads: &[(String, usize)],
    wanted: &HashSet<u64>,
    samples: &mut Vec<Sample>,
    rows: &Selected<'_>,
) {
    let columns: Vec<&Cells> = reads.iter().map(|(_, read)| &*rows.columns[*read]).collect();
    for row in 0..rows.count {
        if samples.len() == SAMPLED_MAX {
            return;
        }
        if wanted.contains(&hash(&columns, row)) {
            let named =
                reads.iter().zip(&columns).map(|((name, _), cells)| (name.clone(), value(cells, row)));
            let (file, row) = rows.at(row);
            samples.push(Sample { file, row, value: Value::Object(named.collect()) });
        }
    }
}

impl Ruled {
    fn add(&mut self, rule: &Rule, read: usize, rows: &Selected<'_>) {
        let cells = &*rows.columns[read];
        self.n += (rows.count - cells.missing()) as u64;
        self.unreadable += cells.unreadable.len() as u64;
        for (row, text) in &cells.unreadable {
            self.broken(rows, *row, || Value::String(text.clone()));
        }
        let values = &cells.values;
        match rule {
            Rule::Readable => {}
            Rule::Between(min, max) => {
                self.each_number(rows, cells, |number| *min <= number && number <= *max)
            }
            Rule::OneOfNumbers(known) => self.each_number(rows, cells, |number| known.contains(&number)),
            Rule::OneOfFlags(known) => {
                for (row, flag) in values.as_boolean_opt().into_iter().flatten().enumerate() {
                    if flag.is_some_and(|flag| !known.contains(&flag)) {
                        self.broken(rows, row, || value(cells, row));
                    }
                }
            }
            Rule::OneOfTexts(known) => self.each_text(rows, cells, true, |text| known.contains(text)),
            Rule::Matches(pattern) => self.each_text(rows, cells, false, |text| pattern.is_match(text)),
            Rule::Length(bounds) => self.each_text(rows, cells, false, |text| {
                #[expect(clippy::cast_precision_loss, reason = "no text is that long")]
                let length = text.chars().count() as f64;
                bounds.hold(length)
            }),
        }
    }

    fn each_number(&mut self, rows: &Selected<'_>, cells: &Cells, holds: impl Fn(f64) -> bool) {
        let Some(numbers) = cells.values.as_primitive_opt::<Float64Type>() else { return };
        for (row, number) in numbers.values().iter().enumerate() {
            if !holds(*number) && numbers.is_valid(row) {
                self.broken(rows, row, || value(cells, row));
            }
        }
    }

    fn each_text(&mut self, rows: &Selected<'_>, cells: &Cells, are_new: bool, holds: impl Fn(&str) -> bool) {
        for (row, text) in cells.values.as_string_opt::<i32>().into_iter().flatten().enumerate() {
            if let Some(text) = text.filter(|text| !holds(text)) {
                if are_new {
                    self.is_new(text);
                }
                self.broken(rows, row, || beginning(text).into());
            }
        }
    }

    fn is_new(&mut self, text: &str) {
        let text = beginning(text);
        if let Some(count) = self.new_values.get_mut(text) {
            *count += 1;
        } else if self.new_values.len() < NEW_VALUES_MAX {
            self.new_values.insert(text.to_owned(), 1);
        }
    }

    fn broken(&mut self, rows: &Selected<'_>, row: usize, value: impl FnOnce() -> Value) {
        self.broken += 1;
        if self.samples.len() < SAMPLED_MAX {
            let (file, row) = rows.at(row);
            self.samples.push(Sample { file, row, value: value() });
        }
    }
}
