//! Parquet: what the footer says, and batches of the columns asked for. Values of the file's many types become those of
//! [`Kind`]. Must never happen here: a page read for what the footer answers.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, StringArray};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::cells::{Cells, CellsBuilder, Kind, whole_of};
use super::table::{BATCH_ROWS, COLUMNS_MAX, Column, TableError};
use super::text::Batch;

fn malformed(path: &Path, what: impl ToString) -> TableError {
    TableError::Malformed { path: path.to_owned(), row: None, what: what.to_string() }
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, TableError> {
    let file = File::open(path).map_err(|source| TableError::Open { path: path.to_owned(), source })?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|wrong| malformed(path, wrong))
}

/// The columns of a file and its number of rows, from its footer.
pub(super) fn columns(path: &Path) -> Result<(Vec<Column>, u64), TableError> {
    let reader = open(path)?;
    let fields = reader.schema().fields();
    if fields.len() > COLUMNS_MAX {
        return Err(malformed(path, format!("it has more than {COLUMNS_MAX} columns")));
    }
    let column = |field: &Arc<arrow_schema::Field>| Column {
        name: field.name().clone(),
        kind: kind_of(field.data_type()),
    };
    let rows = u64::try_from(reader.metadata().file_metadata().num_rows())
        .map_err(|_| malformed(path, "its footer says that it has fewer than no rows"))?;
    Ok((fields.iter().map(column).collect(), rows))
}

/// How many values of a column are null, if the footer says so of every row group.
pub(super) fn missing_count(path: &Path, column: &str) -> Option<u64> {
    let reader = open(path).ok()?;
    let place = leaf(&reader, column)?;
    let groups = reader.metadata().row_groups();
    groups.iter().map(|group| group.column(place).statistics()?.null_count_opt()).sum()
}

/// The place of a column that is not nested among the file's leaves.
fn leaf(reader: &ParquetRecordBatchReaderBuilder<File>, column: &str) -> Option<usize> {
    let leaves = reader.parquet_schema().columns();
    leaves.iter().position(|leaf| leaf.path().parts() == [column])
}

fn kind_of(kind: &DataType) -> Option<Kind> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Text),
        DataType::Dictionary(_, values) => kind_of(values),
        DataType::Boolean => Some(Kind::Boolean),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Some(Kind::Timestamp),
        kind if kind.is_integer() && *kind != DataType::UInt64 => Some(Kind::Integer),
        kind if kind.is_numeric() => Some(Kind::Number),
        _ => None,
    }
}

/// The rows of a file.
pub(super) fn batches(
    path: &Path,
    names: &[String],
    kinds: &[Option<Kind>],
) -> Result<impl Iterator<Item = Batch> + use<>, TableError> {
    let reader = open(path)?;
    let mut roots = Vec::new();
    for name in names {
        let place = reader.schema().fields().iter().position(|field| field.name() == name);
        roots.push(place.ok_or_else(|| malformed(path, format!("it has no column `{name}` any more")))?);
    }
    let mut projected = roots.clone();
    projected.sort_unstable();
    projected.dedup();
    // Where a read's column is in a batch.
    let places: Vec<usize> =
        roots.iter().map(|root| projected.partition_point(|other| other < root)).collect();
    let mask = ProjectionMask::roots(reader.parquet_schema(), projected);
    let reader = reader.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    let mut reader = reader.map_err(|wrong| malformed(path, wrong))?;
    let (path, kinds) = (path.to_owned(), kinds.to_vec());
    Ok(std::iter::from_fn(move || {
        let batch = reader.next()?.map_err(|wrong| malformed(&path, wrong));
        Some(batch.and_then(|batch| {
            let read = |(place, kind): (&usize, &Option<Kind>)| read_as(batch.column(*place), *kind);
            let cells = places.iter().zip(&kinds).map(read).collect::<Result<_, _>>();
            Ok((batch.num_rows(), cells.map_err(|wrong| malformed(&path, wrong))?))
        }))
    }))
}

/// Nothing that cannot be cast becomes null without being counted.
const SAFE: CastOptions<'static> =
    CastOptions { safe: true, format_options: arrow_cast::display::FormatOptions::new() };

/// A column's values as a kind.
fn read_as(values: &ArrayRef, kind: Option<Kind>) -> Result<Cells, arrow_schema::ArrowError> {
    let Some(kind) = kind else {
        return Ok(Cells { values: values.clone(), unreadable: Vec::new() });
    };
    let own = kind_of(values.data_type());
    let wanted = match kind {
        Kind::Text => DataType::Utf8,
        Kind::Integer => DataType::Int64,
        Kind::Number => DataType::Float64,
        Kind::Boolean => DataType::Boolean,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
    };
    match (own, kind) {
        (Some(Kind::Text), Kind::Integer | Kind::Number | Kind::Boolean | Kind::Timestamp) => {
            Ok(parsed(cast(values, &DataType::Utf8)?.as_string::<i32>(), kind))
        }
        (Some(Kind::Number), Kind::Integer) => {
            let numbers = cast(values, &DataType::Float64)?;
            let mut builder = CellsBuilder::new(kind);
            for number in numbers.as_primitive::<Float64Type>() {
                match number.filter(|number| !number.is_nan()) {
                    None => builder.push_missing(),
                    Some(number) => match whole_of(number) {
                        Some(whole) => builder.push_json(&whole.into()),
                        None => builder.push_unreadable(&number.to_string()),
                    },
                }
            }
            Ok(builder.finish())
        }
        (Some(Kind::Boolean | Kind::Timestamp), Kind::Integer | Kind::Number)
        | (Some(Kind::Integer | Kind::Number | Kind::Timestamp), Kind::Boolean)
        | (Some(Kind::Integer | Kind::Number | Kind::Boolean), Kind::Timestamp) => {
            let texts = cast(values, &DataType::Utf8)?;
            let mut builder = CellsBuilder::new(kind);
            for text in texts.as_string::<i32>() {
                match text {
                    None => builder.push_missing(),
                    Some(text) => builder.push_unreadable(text),
                }
            }
            Ok(builder.finish())
        }
        (_, _) => {
            let read = if *values.data_type() == wanted {
                values.clone()
            } else {
                cast_with_options(values, &wanted, &SAFE)?
            };
            let lost = read.null_count() > values.logical_null_count();
            let unreadable = if lost { lost_in(values, &read)? } else { Vec::new() };
            Ok(Cells { values: without_nan(read), unreadable })
        }
    }
}

/// What became null in the cast, such as a time before all years.
fn lost_in(values: &ArrayRef, read: &ArrayRef) -> Result<Vec<(usize, String)>, arrow_schema::ArrowError> {
    let texts = cast(values, &DataType::Utf8)?;
    let texts: &StringArray = texts.as_string::<i32>();
    let lost = (0..read.len()).filter(|&row| read.is_null(row) && texts.is_valid(row));
    Ok(lost.map(|row| (row, texts.value(row).to_owned())).collect())
}

fn parsed(texts: &StringArray, kind: Kind) -> Cells {
    let mut builder = CellsBuilder::new(kind);
    for text in texts {
        match text {
            None | Some("") => builder.push_missing(),
            Some(text) => builder.push_written(text),
        }
    }
    builder.finish()
}

/// NaN is how numbers say that there is none.
fn without_nan(values: ArrayRef) -> ArrayRef {
    let Some(numbers) = values.as_primitive_opt::<Float64Type>() else { return values };
    // Without a way out in the middle: several at a time.
    if !numbers.values().iter().fold(false, |any, number| any | number.is_nan()) {
        return values;
    }
    let known = numbers.iter().map(|number| number.filter(|number| !number.is_nan()));
    Arc::new(known.collect::<Float64Array>())
}
