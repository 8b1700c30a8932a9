//! A table: a file, or a folder of files with the same columns. Opened once, read in batches of the columns that are asked
//! for. Must never happen here: holding more than a batch, or a row left out without a word.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use refit_workflows::definition::DataFormat;

use super::cells::{Cells, Kind};
use super::{columnar, text};

/// Rows of a batch, at most.
pub(super) const BATCH_ROWS: usize = 8192;
/// Files of a folder, at most.
const FILES_MAX: usize = 10_000;
/// Columns of a table, at most.
pub(super) const COLUMNS_MAX: usize = 10_000;

/// A column as its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// What its values are: in Parquet as the file says, else as its first rows look. None: what is nested or binary, of
    /// which nothing but what is missing can be told.
    pub(crate) kind: Option<Kind>,
}

/// One column to read. The same one may be read twice, as different kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// The column's name.
    pub(crate) column: String,
    /// What to read it as; none: what it is.
    pub(crate) kind: Option<Kind>,
}

/// A table that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    files: Vec<Arc<PathBuf>>,
    format: DataFormat,
    columns: Vec<Column>,
    /// How many rows, where the files say so.
    rows: Option<u64>,
}

/// Some rows of one file.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Where they come from.
    pub(crate) file: Arc<PathBuf>,
    /// The first one's number in the file; the first row of all is 1, a header is no row.
    pub(crate) first: u64,
    /// How many; at least one.
    pub(crate) count: usize,
    /// One for each [`Read`], in its order.
    pub(crate) columns: Vec<Cells>,
}

impl Rows {
    /// These rows, if every value could be read as what was asked for.
    ///
    /// # Errors
    /// The first one that could not, with its place.
    pub(crate) fn all_readable(self, reads: &[Read]) -> Result<Self, TableError> {
        for (cells, read) in self.columns.iter().zip(reads) {
            if let Some((row, found)) = cells.unreadable.first() {
                return Err(TableError::Unreadable {
                    path: self.file.to_path_buf(),
                    row: self.first + *row as u64,
                    column: read.column.clone(),
                    found: found.clone(),
                    wanted: read.kind.unwrap_or(Kind::Text).name(),
                });
            }
        }
        Ok(self)
    }
}

impl Table {
    /// Opens a file, or a folder of files of one format (others in it, and hidden ones, are no part of the table). Reads
    /// footers and heads only.
    ///
    /// # Errors
    /// There is none, it is empty, its format is not known or not kept to, or its files differ in their columns.
    pub(crate) fn open(path: &Path, format: Option<DataFormat>) -> Result<Self, TableError> {
        let (files, format) = files_of(path, format)?;
        let mut table: Option<Self> = None;
        for file in files {
            let file = Arc::new(file);
            let (columns, rows) = match format {
                DataFormat::Csv | DataFormat::JsonLines => (text::columns(&file, format)?, None),
                DataFormat::Parquet => {
                    let (columns, rows) = columnar::columns(&file)?;
                    (columns, Some(rows))
                }
            };
            match &mut table {
                None => table = Some(Self { files: vec![file], format, columns, rows }),
                Some(table) => table.add(file, columns, rows)?,
            }
        }
        table.ok_or_else(|| TableError::Empty { path: path.to_owned() })
    }

    fn add(&mut self, file: Arc<PathBuf>, columns: Vec<Column>, rows: Option<u64>) -> Result<(), TableError> {
        let differ = |what: String| TableError::Differs { path: file.to_path_buf(), what };
        for column in &columns {
            match self.columns.iter_mut().find(|known| known.name == column.name) {
                Some(known) if known.kind == column.kind => {}
                Some(known) => match (known.kind, column.kind) {
                    // What was guessed from the head of one file is corrected by another's.
                    (Some(one), Some(other)) => known.kind = Some(one.and(other)),
                    (one, other) => {
                        let kind = |kind: Option<Kind>| kind.map_or("something nested", Kind::name);
                        let (one, other) = (kind(one), kind(other));
                        return Err(differ(format!("`{}` is {other} here and {one} there", column.name)));
                    }
                },
                None if self.format == DataFormat::JsonLines => self.columns.push(column.clone()),
                None => return Err(differ(format!("it has a column `{}` that they have not", column.name))),
            }
        }
        let lacking =
            self.columns.iter().find(|known| columns.iter().all(|column| column.name != known.name));
        if let (Some(lacking), false) = (lacking, self.format == DataFormat::JsonLines) {
            return Err(differ(format!("it has no column `{}`", lacking.name)));
        }
        self.rows = self.rows.zip(rows).map(|(one, other)| one + other);
        self.files.push(file);
        Ok(())
    }

    /// How its rows are written.
    pub(crate) fn format(&self) -> DataFormat {
        self.format
    }

    /// What a column holds; none: nested values.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn kind_of(&self, column: &str) -> Result<Option<Kind>, TableError> {
        self.kind_as(&Read { column: column.to_owned(), kind: None })
    }

    /// Its columns, in the first file's order.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of this name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// How many rows, where that is known without reading them.
    pub(crate) fn row_count(&self) -> Option<u64> {
        self.rows
    }

    /// How many values of a column are missing, where the files' footers say so. NaN is missing as well, and not counted
    /// there: of numbers that may be NaN nothing is said.
    pub(crate) fn missing_count(&self, column: &str) -> Option<u64> {
        match (self.format, self.column(column)?.kind) {
            (DataFormat::Csv | DataFormat::JsonLines, _) | (DataFormat::Parquet, Some(Kind::Number)) => None,
            (DataFormat::Parquet, _) => {
                self.files.iter().map(|file| columnar::missing_count(file, column)).sum()
            }
        }
    }

    /// Reads these columns, file by file.
    ///
    /// # Errors
    /// A column that is not there, or is nested and was to be read as something.
    pub(crate) fn read(&self, reads: &[Read]) -> Result<Batches, TableError> {
        let kinds = reads.iter().map(|read| self.kind_as(read)).collect::<Result<_, _>>()?;
        let names = reads.iter().map(|read| read.column.clone()).collect();
        Ok(Batches {
            files: self.files.clone().into_iter(),
            format: self.format,
            names,
            kinds,
            current: None,
        })
    }

    fn kind_as(&self, read: &Read) -> Result<Option<Kind>, TableError> {
        let Some(column) = self.column(&read.column) else {
            let file = self.files.first().map(|file| file.to_path_buf()).unwrap_or_default();
            let names = self.columns.iter().map(|column| column.name.as_str());
            let near = names
                .map(|name| (strsim::jaro_winkler(name, &read.column), name))
                .filter(|(near, _)| *near > 0.8)
                .max_by(|one, other| one.0.total_cmp(&other.0));
            let hint = near.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default();
            return Err(TableError::NoColumn { path: file, column: read.column.clone(), hint });
        };
        match (column.kind, read.kind) {
            (None, Some(_)) => Err(TableError::Nested { column: column.name.clone() }),
            (kind, asked) => Ok(asked.or(kind)),
        }
    }
}

/// The rows of a table, batch by batch. After an error there is nothing more.
pub(crate) struct Batches {
    files: std::vec::IntoIter<Arc<PathBuf>>,
    format: DataFormat,
    names: Vec<String>,
    kinds: Vec<Option<Kind>>,
    current: Option<Current>,
}

/// How many rows each batch of a file has, and its columns.
type FileBatches = Box<dyn Iterator<Item = Result<(usize, Vec<Cells>), TableError>>>;

struct Current {
    file: Arc<PathBuf>,
    next: u64,
    batches: FileBatches,
}

impl Batches {
    fn open(&self, file: Arc<PathBuf>) -> Result<Current, TableError> {
        let batches: FileBatches = match self.format {
            DataFormat::Csv => Box::new(text::csv(&file, &self.names, &self.kinds)?),
            DataFormat::JsonLines => Box::new(text::json_lines(&file, &self.names, &self.kinds)?),
            DataFormat::Parquet => Box::new(columnar::batches(&file, &self.names, &self.kinds)?),
        };
        Ok(Current { file, next: 1, batches })
    }
}

impl Iterator for Batches {
    type Item = Result<Rows, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                let file = self.files.next()?;
                match self.open(file) {
                    Ok(current) => self.current = Some(current),
                    Err(wrong) => return Some(self.end_with(wrong)),
                }
                continue;
            };
            match current.batches.next() {
                Some(Ok((0, _))) => {}
                Some(Ok((count, columns))) => {
                    let first = current.next;
                    current.next += count as u64;
                    return Some(Ok(Rows { file: current.file.clone(), first, count, columns }));
                }
                Some(Err(wrong)) => return Some(self.end_with(wrong)),
                None => self.current = None,
            }
        }
    }
}

impl Batches {
    fn end_with(&mut self, wrong: TableError) -> Result<Rows, TableError> {
        self.files = Vec::new().into_iter();
        self.current = None;
        Err(wrong)
    }
}

/// The files of a table, in the order of their names, and their format.
fn files_of(path: &Path, format: Option<DataFormat>) -> Result<(Vec<PathBuf>, DataFormat), TableError> {
    let failed = |source| TableError::Open { path: path.to_owned(), source };
    let of_name =
        |path: &Path| path.file_name().and_then(|name| DataFormat::of_name(&name.to_string_lossy()));
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        let format = format.or_else(|| of_name(path));
        let format = format.ok_or_else(|| TableError::UnknownFormat { path: path.to_owned() })?;
        return Ok((vec![path.to_owned()], format));
    }
    let mut files: Vec<(PathBuf, DataFormat)> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if let (false, true, Some(found)) = (hidden, file.is_file(), of_name(&file))
            && format.is_none_or(|format| format == found)
        {
            if files.len() == FILES_MAX {
                return Err(TableError::TooManyFiles { path: path.to_owned() });
            }
            files.push((file, found));
        }
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    let Some((_, first)) = files.first().cloned() else {
        return Err(TableError::Empty { path: path.to_owned() });
    };
    if let Some((other, _)) = files.iter().find(|(_, format)| *format != first) {
        let what = "its rows are written in another format; say which one with `format`".to_owned();
        return Err(TableError::Differs { path: other.clone(), what });
    }
    Ok((files.into_iter().map(|(file, _)| file).collect(), first))
}

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The file or folder cannot be opened.
    #[error("failed to open {}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Its name does not say it.
    #[error("the name of {} does not say how its rows are written: give `format: csv`, `jsonl` or `parquet`", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it to read.
    #[error("{} holds no table: no file ends with .csv, .jsonl or .parquet", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is too large.
    #[error("{} holds more than {FILES_MAX} files: give fewer, larger ones", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the folder is not like those before it.
    #[error("{} is not like the files before it: {what}", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// The format is not kept to.
    #[error("{} cannot be read{}: {what}", path.display(), at(*.row))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The row, from 1, where it is one.
        row: Option<u64>,
        /// How.
        what: String,
    },
    /// There is no such column.
    #[error("{} has no column `{column}`{hint}", path.display())]
    NoColumn {
        /// The first file.
        path: PathBuf,
        /// The column.
        column: String,
        /// One with a name like it.
        hint: String,
    },
    /// A column that holds lists, objects or bytes.
    #[error("the column `{column}` holds nested or binary values, of which only what is missing can be told")]
    Nested {
        /// The column.
        column: String,
    },
    /// A value that is not of the kind asked for.
    #[error("{}, row {row}: `{column}` is `{found}`, not {wanted}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The column.
        column: String,
        /// What stands there.
        found: String,
        /// What should.
        wanted: &'static str,
    },
}

fn at(row: Option<u64>) -> String {
    row.map(|row| format!(" at row {row}")).unwrap_or_default()
}
