//! Tables written as text: CSV (RFC 4180, UTF-8, with a header line) and JSON Lines. Types are told from the head of the
//! file; a value further down that is not of its column's type is unreadable, never missing.
//!
//! Must never happen here: a record without a bound, or a row with too few fields filled up.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use refit_workflows::definition::DataFormat;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::cells::{Cells, CellsBuilder, Kind, kind_of_json};
use super::table::{BATCH_ROWS, COLUMNS_MAX, Column, TableError};

/// The largest record, in bytes.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Types are told from so many rows at most,
const HEAD_ROWS: usize = 10_000;
/// and so many bytes.
const HEAD_BYTES: usize = 4 * 1024 * 1024;
/// A batch ends early when it holds so many bytes of text.
const BATCH_BYTES: usize = 32 * 1024 * 1024;

/// What one file's columns are called, and what they seem to hold.
pub(super) fn columns(path: &Path, format: DataFormat) -> Result<Vec<Column>, TableError> {
    match format {
        DataFormat::JsonLines => json_columns(path),
        DataFormat::Csv | DataFormat::Parquet => csv_columns(path),
    }
}

fn malformed(path: &Path, row: Option<u64>, what: impl ToString) -> TableError {
    TableError::Malformed { path: path.to_owned(), row, what: what.to_string() }
}

fn too_large(path: &Path, row: u64) -> TableError {
    let what = format!("it is larger than {} MiB; is a quote left open?", RECORD_BYTES_MAX >> 20);
    malformed(path, Some(row), what)
}

/// Ends with an error when one record takes more bytes than it may.
struct Bounded {
    file: File,
    left: Arc<AtomicUsize>,
}

impl io::Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.file.read(buffer)?;
        self.left.store(left.saturating_sub(read), Ordering::Relaxed);
        Ok(read)
    }
}

/// A CSV file past its header.
struct CsvRows {
    path: PathBuf,
    reader: csv::Reader<Bounded>,
    left: Arc<AtomicUsize>,
    header: Vec<String>,
    record: csv::ByteRecord,
    rows: u64,
}

impl CsvRows {
    fn open(path: &Path) -> Result<Self, TableError> {
        let file = File::open(path).map_err(|source| TableError::Open { path: path.to_owned(), source })?;
        let left = Arc::new(AtomicUsize::new(RECORD_BYTES_MAX));
        let mut reader = csv::ReaderBuilder::new()
            .buffer_capacity(64 * 1024)
            .from_reader(Bounded { file, left: left.clone() });
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(wrong) => return Err(csv_error(path, None, &wrong)),
        };
        let header = header
            .iter()
            .map(|name| std::str::from_utf8(name).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| malformed(path, None, "its header is not UTF-8"))?;
        check_header(path, &header)?;
        Ok(Self { path: path.to_owned(), reader, left, header, record: csv::ByteRecord::new(), rows: 0 })
    }

    /// Goes on to the next row; false at the end.
    fn advance(&mut self) -> Result<bool, TableError> {
        self.left.store(RECORD_BYTES_MAX, Ordering::Relaxed);
        self.rows += 1;
        let read = self.reader.read_byte_record(&mut self.record);
        read.map_err(|wrong| csv_error(&self.path, Some(self.rows), &wrong))
    }
}

fn check_header(path: &Path, header: &[String]) -> Result<(), TableError> {
    if header.is_empty() {
        return Err(malformed(path, None, "it is empty; a CSV file begins with the names of its columns"));
    }
    if header.len() > COLUMNS_MAX {
        return Err(malformed(path, None, format!("it has more than {COLUMNS_MAX} columns")));
    }
    let mut seen = HashSet::new();
    match header.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(malformed(path, None, format!("its header names the column `{twice}` twice"))),
        None => Ok(()),
    }
}

fn csv_error(path: &Path, row: Option<u64>, wrong: &csv::Error) -> TableError {
    match (wrong.kind(), row) {
        (csv::ErrorKind::Io(cause), row) if cause.kind() == io::ErrorKind::FileTooLarge => {
            too_large(path, row.unwrap_or(0))
        }
        (csv::ErrorKind::UnequalLengths { pos, expected_len, len }, row) => {
            let line = pos.as_ref().map(|pos| format!(" (line {})", pos.line())).unwrap_or_default();
            malformed(path, row, format!("it has {len} fields{line}, the header {expected_len}"))
        }
        (_, row) => malformed(path, row, wrong),
    }
}

fn csv_columns(path: &Path) -> Result<Vec<Column>, TableError> {
    let mut rows = CsvRows::open(path)?;
    let mut kinds: Vec<Option<Kind>> = vec![None; rows.header.len()];
    let mut bytes = 0;
    for _ in 0..HEAD_ROWS {
        if bytes > HEAD_BYTES || !rows.advance()? {
            break;
        }
        bytes += rows.record.as_slice().len();
        for (kind, field) in kinds.iter_mut().zip(rows.record.iter()) {
            if !field.is_empty() && *kind != Some(Kind::Text) {
                let found = std::str::from_utf8(field).map_or(Kind::Text, Kind::of_text);
                *kind = Some(kind.map_or(found, |kind| kind.and(found)));
            }
        }
    }
    let columns = rows.header.into_iter().zip(kinds);
    Ok(columns.map(|(name, kind)| Column { name, kind: Some(kind.unwrap_or(Kind::Text)) }).collect())
}

/// One batch after the other of a text file.
pub(super) type Batch = Result<(usize, Vec<Cells>), TableError>;

/// The rows of a CSV file.
pub(super) fn csv(
    path: &Path,
    names: &[String],
    kinds: &[Option<Kind>],
) -> Result<impl Iterator<Item = Batch> + use<>, TableError> {
    let mut rows = CsvRows::open(path)?;
    let place = |name: &String| {
        let place = rows.header.iter().position(|column| column == name);
        place.ok_or_else(|| malformed(path, None, format!("it has no column `{name}` any more")))
    };
    let places = names.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let kinds = kinds.to_vec();
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let batch = csv_batch(&mut rows, &places, &kinds);
        over = !matches!(batch, Ok((1.., _)));
        Some(batch)
    }))
}

fn csv_batch(rows: &mut CsvRows, places: &[usize], kinds: &[Option<Kind>]) -> Batch {
    let mut builders: Vec<CellsBuilder> =
        kinds.iter().map(|kind| CellsBuilder::new(kind.unwrap_or(Kind::Text))).collect();
    let (mut count, mut bytes) = (0, 0);
    while count < BATCH_ROWS && bytes < BATCH_BYTES && rows.advance()? {
        count += 1;
        for (builder, place) in builders.iter_mut().zip(places) {
            let field = rows.record.get(*place).unwrap_or_default();
            bytes += field.len();
            match std::str::from_utf8(field) {
                Ok("") => builder.push_missing(),
                Ok(text) => builder.push_written(text),
                Err(_) => builder.push_unreadable(&String::from_utf8_lossy(field)),
            }
        }
    }
    Ok((count, builders.into_iter().map(CellsBuilder::finish).collect()))
}

/// The lines of a file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    rows: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, TableError> {
        let file = File::open(path).map_err(|source| TableError::Open { path: path.to_owned(), source })?;
        let reader = BufReader::with_capacity(64 * 1024, file);
        Ok(Self { path: path.to_owned(), reader, line: Vec::new(), rows: 0 })
    }

    /// The next line that is not blank; none at the end.
    fn advance(&mut self) -> Result<bool, TableError> {
        loop {
            self.line.clear();
            let mut limited = io::Read::take(&mut self.reader, RECORD_BYTES_MAX as u64);
            let read = limited.read_until(b'\n', &mut self.line);
            let read = read.map_err(|cause| malformed(&self.path, Some(self.rows + 1), cause))?;
            if read == 0 {
                return Ok(false);
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                self.rows += 1;
                return if read == RECORD_BYTES_MAX {
                    Err(too_large(&self.path, self.rows))
                } else {
                    Ok(true)
                };
            }
        }
    }

    /// Hands every key of the line's object, and what reads its value, to `visit`.
    fn each_key(
        &self,
        visit: impl FnMut(&str) -> Option<Slot>,
        take: impl FnMut(Slot, &Value),
    ) -> Result<(), TableError> {
        let mut reader = serde_json::Deserializer::from_slice(&self.line);
        let read = EachKey { visit, take }.deserialize(&mut reader).and_then(|()| reader.end());
        read.map_err(|wrong| malformed(&self.path, Some(self.rows), wrong))
    }
}

/// A place among the columns that are read.
type Slot = usize;

/// Visits an object: `visit` says whether a key's value is wanted, `take` gets it. The others are skipped unread.
struct EachKey<V, T> {
    visit: V,
    take: T,
}

impl<'de, V: FnMut(&str) -> Option<Slot>, T: FnMut(Slot, &Value)> DeserializeSeed<'de> for EachKey<V, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, V: FnMut(&str) -> Option<Slot>, T: FnMut(Slot, &Value)> Visitor<'de> for EachKey<V, T> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one JSON object a line")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match (self.visit)(&key) {
                Some(slot) => (self.take)(slot, &map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn json_columns(path: &Path) -> Result<Vec<Column>, TableError> {
    let mut lines = Lines::open(path)?;
    let mut places: HashMap<String, Slot> = HashMap::new();
    let mut kinds: Vec<Option<Kind>> = Vec::new();
    let mut bytes = 0;
    for _ in 0..HEAD_ROWS {
        if bytes > HEAD_BYTES || !lines.advance()? {
            break;
        }
        bytes += lines.line.len();
        let mut place = |key: &str| match places.get(key) {
            Some(place) => Some(*place),
            None => {
                let place = places.len();
                places.insert(key.to_owned(), place);
                Some(place)
            }
        };
        let mut take = |place: Slot, value: &Value| {
            kinds.resize(kinds.len().max(place + 1), None);
            if let Some(found) = kind_of_json(value) {
                kinds[place] = Some(kinds[place].map_or(found, |kind| kind.and(found)));
            }
        };
        lines.each_key(&mut place, &mut take)?;
        if places.len() > COLUMNS_MAX {
            return Err(malformed(
                path,
                Some(lines.rows),
                format!("there are more than {COLUMNS_MAX} columns"),
            ));
        }
    }
    let mut columns: Vec<(Slot, String)> = places.into_iter().map(|(name, place)| (place, name)).collect();
    columns.sort_unstable();
    let kind = |place: Slot| kinds.get(place).copied().flatten().unwrap_or(Kind::Text);
    Ok(columns.into_iter().map(|(place, name)| Column { name, kind: Some(kind(place)) }).collect())
}

/// The rows of a JSON Lines file. What an object does not have is missing there.
pub(super) fn json_lines(
    path: &Path,
    names: &[String],
    kinds: &[Option<Kind>],
) -> Result<impl Iterator<Item = Batch> + use<>, TableError> {
    let mut lines = Lines::open(path)?;
    let kinds: Vec<Kind> = kinds.iter().map(|kind| kind.unwrap_or(Kind::Text)).collect();
    // The same column may be read twice; its value is taken once.
    let mut slots: HashMap<String, Slot> = HashMap::new();
    let mut readers: Vec<Vec<usize>> = Vec::new();
    for (reader, name) in names.iter().enumerate() {
        let slot = *slots.entry(name.clone()).or_insert(readers.len());
        readers.resize(readers.len().max(slot + 1), Vec::new());
        readers[slot].push(reader);
    }
    let mut over = false;
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let batch = json_batch(&mut lines, &slots, &readers, &kinds);
        over = !matches!(batch, Ok((1.., _)));
        Some(batch)
    }))
}

fn json_batch(
    lines: &mut Lines,
    slots: &HashMap<String, Slot>,
    readers: &[Vec<usize>],
    kinds: &[Kind],
) -> Batch {
    let mut builders: Vec<CellsBuilder> = kinds.iter().map(|kind| CellsBuilder::new(*kind)).collect();
    let (mut count, mut bytes) = (0, 0);
    while count < BATCH_ROWS && bytes < BATCH_BYTES && lines.advance()? {
        count += 1;
        bytes += lines.line.len();
        let mut twice = None;
        let take = |slot: Slot, value: &Value| {
            for &reader in &readers[slot] {
                match builders[reader].rows() < count {
                    true => builders[reader].push_json(value),
                    false => twice = Some(slot),
                }
            }
        };
        lines.each_key(|key| slots.get(key).copied(), take)?;
        if let Some(slot) = twice {
            let name = slots.iter().find(|(_, other)| **other == slot).map_or("", |(name, _)| name.as_str());
            return Err(malformed(&lines.path, Some(lines.rows), format!("the key `{name}` is there twice")));
        }
        for builder in builders.iter_mut().filter(|builder| builder.rows() < count) {
            builder.push_missing();
        }
    }
    Ok((count, builders.into_iter().map(CellsBuilder::finish).collect()))
}
