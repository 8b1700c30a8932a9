//! From a table on disk to examples in memory. Must never happen here: a missing value taken for one, or a row that counts twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Array as _, ArrayRef};
use refit_workflows::definition::{EvaluatedMetric, Examples};
use refit_workflows::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::Stop;
use super::sample::{Answers, Cut, Own, Sample};
use crate::data::{Kind, Read, Rows, Table};

/// The most examples: all of them are in memory at once.
const EXAMPLES_MAX: usize = 10_000_000;
/// What a missing value of a column that cuts the examples is called.
const MISSING: &str = "(missing)";

/// Reads the examples of a table, and what names them.
///
/// # Errors
/// What cannot be read, is missing or occurs twice, with its place.
pub(super) fn read(
    path: &Path,
    examples: &Examples,
    with_champion: bool,
    stop: &Stop,
) -> Result<(Sample, Digest), String> {
    let table = Table::open(path, examples.format).map_err(|wrong| wrong.to_string())?;
    let reads = Reads::new(&table, examples, with_champion);
    let mut columns: Vec<Gathered> = reads.0.iter().map(Gathered::new).collect();
    let (mut rows_read, mut named) = (0, Named::default());
    let wanted: Vec<Read> = reads.0.iter().map(|wanted| wanted.read.clone()).collect();
    for rows in table.read(&wanted).map_err(|wrong| wrong.to_string())? {
        let rows = rows.and_then(|rows| rows.all_readable(&wanted)).map_err(|wrong| wrong.to_string())?;
        if stop.is_asked() {
            return Err("it was stopped".to_owned());
        }
        rows_read += rows.count;
        if rows_read > EXAMPLES_MAX {
            return Err(format!("there are more than {EXAMPLES_MAX} examples: evaluate on a sample of them"));
        }
        for (place, (gathered, wanted)) in columns.iter_mut().zip(&reads.0).enumerate() {
            gathered.add(wanted, &rows, place)?;
            named.add(&wanted.used, &rows.columns[place].values);
        }
    }
    if rows_read == 0 {
        return Err(format!("{} holds no examples", path.display()));
    }
    Ok((sample(columns, reads, examples), named.digest()))
}

/// What names the examples, whatever the models say of them, and however many rows come at a time.
#[derive(Default)]
struct Named {
    labels: Sha256,
    ids: Sha256,
}

impl Named {
    fn add(&mut self, used: &Use, values: &ArrayRef) {
        let hash = match used {
            Use::Label => &mut self.labels,
            Use::Id => &mut self.ids,
            Use::Candidate
            | Use::Champion
            | Use::Weight
            | Use::Cluster
            | Use::Group
            | Use::OwnCandidate(_)
            | Use::OwnChampion(_)
            | Use::Cut(_) => return,
        };
        match values.as_string_opt::<i32>() {
            // The length keeps `ab`, `c` apart from `a`, `bc`.
            Some(texts) => {
                for text in texts.iter().flatten() {
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text);
                }
            }
            None => numbers_of(values).iter().for_each(|number| hash.update(number.to_le_bytes())),
        }
    }

    fn digest(self) -> Digest {
        Digest::of(&[self.labels.finalize(), self.ids.finalize()].concat())
    }
}

/// What a column is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Use {
    Label,
    Candidate,
    Champion,
    Weight,
    Cluster,
    Group,
    Id,
    OwnCandidate(String),
    OwnChampion(String),
    Cut(String),
}

struct Wanted {
    read: Read,
    used: Use,
    may_be_missing: bool,
}

/// The columns to read and what for.
struct Reads(Vec<Wanted>);

impl Reads {
    fn new(table: &Table, examples: &Examples, with_champion: bool) -> Self {
        // Labels say what predictions must be: text names a class, what is a number is compared as one.
        let kind = match table.column(&examples.label).and_then(|column| column.kind) {
            Some(Kind::Text | Kind::Timestamp) => Kind::Text,
            Some(Kind::Integer | Kind::Number | Kind::Boolean) | None => Kind::Number,
        };
        let mut reads = Vec::new();
        let mut want = |column: &str, kind: Kind, used: Use, may_be_missing: bool| {
            // What the file has as true and false is read so, and counted as 1 and 0.
            let is_boolean = table.column(column).and_then(|column| column.kind) == Some(Kind::Boolean);
            let kind = if kind == Kind::Number && is_boolean { Kind::Boolean } else { kind };
            let read = Read { column: column.to_owned(), kind: Some(kind) };
            reads.push(Wanted { read, used, may_be_missing });
        };
        want(&examples.label, kind, Use::Label, false);
        want(&examples.candidate, kind, Use::Candidate, false);
        if with_champion {
            want(&examples.champion, kind, Use::Champion, false);
        }
        for (column, kind, used) in [
            (&examples.weight, Kind::Number, Use::Weight),
            (&examples.cluster, Kind::Text, Use::Cluster),
            (&examples.group, Kind::Text, Use::Group),
            (&examples.id, Kind::Text, Use::Id),
        ] {
            if let Some(column) = column {
                want(column, kind, used, false);
            }
        }
        for metric in &examples.metrics {
            if let EvaluatedMetric::Column { name, candidate, champion, .. } = metric {
                let may_be_missing = metric.is_of_two_samples();
                want(candidate, Kind::Number, Use::OwnCandidate(name.clone()), may_be_missing);
                if with_champion {
                    want(champion, Kind::Number, Use::OwnChampion(name.clone()), may_be_missing);
                }
            }
        }
        for by in &examples.by {
            want(by, Kind::Text, Use::Cut(by.clone()), true);
        }
        Self(reads)
    }
}

/// The values of one column so far.
enum Gathered {
    Numbers(Vec<f64>),
    Names(Names),
    /// What stands for each name that was there; a digest, so that memory does not grow with the names.
    Ids(HashSet<[u8; 16]>),
}

/// Texts by their numbers, in the order in which they first came.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, u32>,
    of_rows: Vec<u32>,
}

impl Gathered {
    fn new(wanted: &Wanted) -> Self {
        match (&wanted.used, wanted.read.kind) {
            (Use::Id, _) => Self::Ids(HashSet::new()),
            (_, Some(Kind::Text | Kind::Timestamp)) => Self::Names(Names::default()),
            (_, Some(Kind::Integer | Kind::Number | Kind::Boolean) | None) => Self::Numbers(Vec::new()),
        }
    }

    fn add(&mut self, wanted: &Wanted, rows: &Rows, place: usize) -> Result<(), String> {
        let values = &rows.columns[place].values;
        if let (Some(row), false) = (first_missing(values), wanted.may_be_missing) {
            return Err(format!("{}: `{}` is missing", place_of(rows, row), wanted.read.column));
        }
        match self {
            Self::Numbers(numbers) => numbers.extend(numbers_of(values)),
            Self::Names(names) => {
                for row in 0..values.len() {
                    let name =
                        if values.is_null(row) { MISSING } else { values.as_string::<i32>().value(row) };
                    names.add(name)?;
                }
            }
            Self::Ids(ids) => {
                for row in 0..values.len() {
                    let id = values.as_string::<i32>().value(row);
                    let mut name = [0; 16];
                    name.copy_from_slice(&Sha256::digest(id)[..16]);
                    if !ids.insert(name) {
                        let column = &wanted.read.column;
                        return Err(format!(
                            "{}: `{column}` is `{id}`, as in a row before",
                            place_of(rows, row)
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn numbers(self) -> Vec<f64> {
        match self {
            Self::Numbers(numbers) => numbers,
            Self::Names(_) | Self::Ids(_) => Vec::new(),
        }
    }

    fn names(self) -> Names {
        match self {
            Self::Names(names) => names,
            Self::Numbers(_) | Self::Ids(_) => Names::default(),
        }
    }
}

impl Names {
    fn add(&mut self, name: &str) -> Result<(), String> {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let next =
                    u32::try_from(self.numbers.len()).map_err(|_| "there are too many names".to_owned())?;
                self.numbers.insert(name.to_owned(), next);
                next
            }
        };
        self.of_rows.push(number);
        Ok(())
    }

    fn into_units(self) -> Vec<u64> {
        self.of_rows.into_iter().map(u64::from).collect()
    }

    fn into_cut(self) -> Cut {
        let mut values = vec![String::new(); self.numbers.len()];
        for (name, number) in self.numbers {
            values[number as usize] = name;
        }
        Cut { values, of_rows: self.of_rows }
    }
}

fn first_missing(values: &ArrayRef) -> Option<usize> {
    if values.null_count() == 0 { None } else { (0..values.len()).find(|&row| values.is_null(row)) }
}

fn place_of(rows: &Rows, row: usize) -> String {
    format!("{}, row {}", rows.file.display(), rows.first + row as u64)
}

/// Numbers as they are, true and false as 1 and 0, what is missing as NaN.
fn numbers_of(values: &ArrayRef) -> Vec<f64> {
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    match values.as_boolean_opt() {
        Some(booleans) => booleans.iter().map(|is| number(is.map(|is| f64::from(u8::from(is))))).collect(),
        None => values.as_primitive::<Float64Type>().iter().map(number).collect(),
    }
}

fn sample(columns: Vec<Gathered>, reads: Reads, examples: &Examples) -> Sample {
    let mut classes = HashMap::new();
    let mut sample = Sample {
        label: Answers::Numbers(Vec::new()),
        candidate: Answers::Numbers(Vec::new()),
        champion: None,
        classes: 0,
        threshold: examples.threshold,
        weights: None,
        clusters: None,
        groups: None,
        own: BTreeMap::new(),
        cuts: BTreeMap::new(),
    };
    for (gathered, wanted) in columns.into_iter().zip(reads.0) {
        match wanted.used {
            Use::Label => sample.label = answers(gathered, &mut classes),
            Use::Candidate => sample.candidate = answers(gathered, &mut classes),
            Use::Champion => sample.champion = Some(answers(gathered, &mut classes)),
            Use::Weight => sample.weights = Some(gathered.numbers()),
            Use::Cluster => sample.clusters = Some(gathered.names().into_units()),
            Use::Group => sample.groups = Some(gathered.names().into_units()),
            Use::Id => {}
            Use::OwnCandidate(name) => own(&mut sample, name).candidate = gathered.numbers(),
            Use::OwnChampion(name) => own(&mut sample, name).champion = Some(gathered.numbers()),
            Use::Cut(by) => drop(sample.cuts.insert(by, gathered.names().into_cut())),
        }
    }
    sample.classes = u32::try_from(classes.len()).unwrap_or(u32::MAX);
    sample
}

fn own(sample: &mut Sample, name: String) -> &mut Own {
    sample.own.entry(name).or_insert_with(|| Own { candidate: Vec::new(), champion: None })
}

/// Answers as they are; classes by numbers that labels and both models share.
fn answers(gathered: Gathered, classes: &mut HashMap<String, u32>) -> Answers {
    let Gathered::Names(names) = gathered else { return Answers::Numbers(gathered.numbers()) };
    let Cut { values, of_rows } = names.into_cut();
    let shared: Vec<u32> = values
        .into_iter()
        .map(|name| {
            let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            *classes.entry(name).or_insert(next)
        })
        .collect();
    Answers::Classes(of_rows.into_iter().map(|number| shared[number as usize]).collect())
}
