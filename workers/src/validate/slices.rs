//! `by` of a check: the values of its column, each of which chooses rows. They are found before the pass in which the
//! checks are made, by reading that column alone. Must never happen here: a row that is in no slice.

use std::sync::atomic::AtomicBool;

use refit_workflows::expression::Expression;

use super::plan::Plan;
use super::probe::{Probe, SLICES_MAX};
use crate::data::Table;

/// The rows in which a column has one value.
#[derive(Debug)]
pub(super) struct Slice {
    /// CEL that holds for these rows, and for no others; the same slice of other data is known by it.
    pub(super) filter: String,
    /// The value, as JSON.
    pub(super) value: String,
    /// `country=de`.
    pub(super) name: String,
}

/// The slices of a column among the rows for which a filter holds. Within: why they cannot be told.
///
/// # Errors
/// The table cannot be read, or `stop` was set.
pub(super) fn find(
    table: &Table,
    by: &str,
    filter: Option<&str>,
    stop: &AtomicBool,
) -> Result<Result<Vec<Slice>, String>, String> {
    let kind = match table.kind_of(by) {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(Err(format!("`{by}` holds nested or binary values"))),
        Err(wrong) => return Ok(Err(wrong.to_string())),
    };
    let mut plan = Plan::empty();
    let among = filter.map(|source| plan.filter(source, table));
    let read = plan.read_of(by, Some(kind));
    let values = plan.probe(among, Probe::Values(read, Some(Default::default())));
    plan.read(table, stop)?;
    if let Some(why) = plan.broken_filter(among) {
        return Ok(Err(why.to_owned()));
    }
    let Some(values) = plan.values(values) else {
        return Ok(Err(format!(
            "`{by}` has more than {SLICES_MAX} different values, or some that are not {}",
            kind.name()
        )));
    };
    if values.is_empty() {
        return Ok(Err("there is no row to look at".to_owned()));
    }
    let is_name = Expression::parse(by).is_ok_and(|read| read.sole_path() == Some(&[by.to_owned()]));
    let column = if is_name { by.to_owned() } else { format!("row[{}]", serde_json::json!(by)) };
    let slice = |value: &String| {
        let holds = format!("{column} == {value}");
        let filter = filter.map_or_else(|| holds.clone(), |filter| format!("({filter}) && {holds}"));
        let shown = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        Slice { filter, value: value.clone(), name: format!("{by}={shown}") }
    };
    Ok(Ok(values.iter().map(slice).collect()))
}
