//! `where` of a check: CEL over one row's columns. Each different combination of values is evaluated once, as far as they
//! are few. Must never happen here: a row left out because the filter could not be evaluated.

use std::collections::{BTreeSet, HashMap};

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use refit_workflows::expression::{Expression, Scope};
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value};

use crate::data::{Cells, Kind, Rows, Table};

/// Combinations of values that are remembered with what came of them.
const REMEMBERED_MAX: usize = 10_000;
/// A column by a name that is no name in CEL: `row["first name"]`.
const ROW: &str = "row";

/// A filter whose columns are there.
#[derive(Debug)]
pub(super) struct Filter {
    expression: Expression,
    /// Column, its place among the reads, and whether it is read as a part of `row`.
    columns: Vec<(String, usize, bool)>,
    remembered: HashMap<String, bool>,
}

impl Filter {
    /// Reads a filter; `read` gives a column's place among the reads.
    ///
    /// # Errors
    /// It is no expression, or reads a column that is not there.
    pub(super) fn new(
        source: &str,
        table: &Table,
        mut read: impl FnMut(&str) -> usize,
    ) -> Result<Self, String> {
        let expression = Expression::parse(source).map_err(|wrong| format!("`where`: {wrong}"))?;
        let mut columns = BTreeSet::new();
        for path in expression.references() {
            match path.as_slice() {
                [root, name, ..] if root == ROW && table.column(ROW).is_none() => {
                    columns.insert((name.clone(), true))
                }
                [name, ..] => columns.insert((name.clone(), false)),
                [] => false,
            };
        }
        let found = columns.into_iter().map(|(name, of_row)| match table.column(&name) {
            Some(column) if column.kind.is_some() => Ok((name.clone(), read(&name), of_row)),
            Some(_) => Err(format!("`where` reads `{name}`, whose values are nested")),
            None => Err(format!("`where` reads a column `{name}`, which is not there")),
        });
        let columns = found.collect::<Result<_, _>>()?;
        Ok(Self { expression, columns, remembered: HashMap::new() })
    }

    /// Which rows count.
    ///
    /// # Errors
    /// It cannot be evaluated for one of them.
    pub(super) fn select(&mut self, rows: &Rows) -> Result<Vec<bool>, String> {
        (0..rows.count).map(|row| self.holds(rows, row)).collect()
    }

    fn holds(&mut self, rows: &Rows, row: usize) -> Result<bool, String> {
        let at = || format!("row {}", rows.first + row as u64);
        let (mut roots, mut of_row) = (Map::new(), Map::new());
        for (name, place, is_of_row) in &self.columns {
            let cells = &rows.columns[*place];
            if cells.unreadable.binary_search_by_key(&row, |(row, _)| *row).is_ok() {
                return Err(format!(
                    "`where` cannot be evaluated at {}: `{name}` cannot be read there",
                    at()
                ));
            }
            let values = if *is_of_row { &mut of_row } else { &mut roots };
            values.insert(name.clone(), value(cells, row));
        }
        if !of_row.is_empty() {
            roots.insert(ROW.to_owned(), Value::Object(of_row));
        }
        let roots = Value::Object(roots);
        let key = roots.to_string();
        if let Some(known) = self.remembered.get(&key) {
            return Ok(*known);
        }
        let Value::Object(roots) = roots else { return Ok(false) };
        let scope = Scope { roots, ..Scope::default() };
        let holds = self.expression.holds(&scope);
        let holds = holds.map_err(|wrong| format!("`where` cannot be evaluated at {}: {wrong}", at()))?;
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(key, holds);
        }
        Ok(holds)
    }
}

/// One value; null when it is missing. Times are RFC 3339 text.
pub(super) fn value(cells: &Cells, row: usize) -> Value {
    let values = &cells.values;
    if values.is_null(row) {
        return Value::Null;
    }
    if let Some(texts) = values.as_string_opt::<i32>() {
        return texts.value(row).into();
    }
    if let Some(numbers) = values.as_primitive_opt::<Int64Type>() {
        return numbers.value(row).into();
    }
    if let Some(numbers) = values.as_primitive_opt::<Float64Type>() {
        return numbers.value(row).into();
    }
    if let Some(times) = values.as_primitive_opt::<TimestampMillisecondType>() {
        return Timestamp::from_millis(times.value(row)).to_string().into();
    }
    values.as_boolean_opt().map_or(Value::Null, |flags| flags.value(row).into())
}

/// What a literal of a check is compared as: the kind all of them have in common.
pub(super) fn kind_of(values: &[Value]) -> Kind {
    let kind = |value: &Value| match value {
        Value::Bool(_) => Kind::Boolean,
        Value::Number(_) => Kind::Number,
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => Kind::Text,
    };
    values.iter().map(kind).reduce(Kind::and).unwrap_or(Kind::Text)
}
