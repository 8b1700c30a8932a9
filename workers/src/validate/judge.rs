//! Questions answered from what was gathered, each with what was observed, what was expected, and a sentence. Must never happen
//! here: an answer from nothing. Where there is no value to look at, or one cannot be read, nothing holds.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicBool;

use refit_workflows::definition::{Amount, Bounds, DriftMethod};
use refit_workflows::time::{Timestamp, show_duration};
use serde_json::{Value, json};

use super::Task;
use super::compare;
use super::findings::{bounds_text, bounds_with, grouped, percent, shown};
use super::plan::Plan;
use super::probe::Ruled;
use super::questions::{Aggregate, Ask, Question};
use crate::data::profile::{Categories, ColumnProfile, Numbers, Values};

/// Whether what was asked holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// It cannot be told.
    Untold,
    /// There is nothing to compare with yet.
    NotYet,
}

/// The answer to a question, before its severity counts.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) holds: Holds,
    pub(super) observed: Value,
    pub(super) expected: String,
    /// How many rows or values it rests on.
    pub(super) n: u64,
    pub(super) message: String,
    pub(super) new_values: BTreeMap<String, u64>,
    pub(super) distance: Option<(DriftMethod, f64)>,
    /// Hashes of some rows that should not be there.
    pub(super) alike: HashSet<u64>,
}

impl Judged {
    pub(super) fn new(holds: bool, observed: Value, expected: String, n: u64, message: String) -> Self {
        let (new_values, distance, alike) = (BTreeMap::new(), None, HashSet::new());
        let holds = if holds { Holds::Yes } else { Holds::No };
        Self { holds, observed, expected, n, message, new_values, distance, alike }
    }

    /// It cannot be told.
    pub(super) fn broken(why: String, n: u64) -> Self {
        Self { holds: Holds::Untold, ..Self::new(false, Value::Null, String::new(), n, why) }
    }
}

/// Answers one question.
pub(super) fn judge(task: &Task, question: &Question, plan: &Plan, stop: &AtomicBool) -> Judged {
    if let Some(why) = plan.broken_filter(question.filter) {
        return Judged::broken(format!("{}: {why}", question.name), 0);
    }
    let about = question.column.as_deref().unwrap_or(&question.name);
    let answered = match &question.ask {
        Ask::Broken(why) => Err((why.clone(), 0)),
        Ask::Rows { count, bounds } => Ok(rows(plan.count(*count), *bounds)),
        Ask::RowsUsual { count, usual } => {
            compare::usual_rows(plan.count(*count), *usual, &task.references.row_counts)
        }
        Ask::Missing { missing, rows, max } => self::missing(plan.count(*missing), plan.count(*rows), *max),
        Ask::Rule { probe, must } => {
            plan.ruled(*probe).ok_or_else(not_gathered).and_then(|ruled| self::ruled(ruled, must))
        }
        Ask::Aggregate { probe, of, bounds } => {
            numbers(plan, *probe).and_then(|numbers| aggregate(numbers, *of, *bounds))
        }
        Ask::Constant { probe, constant } => {
            described(plan, *probe).and_then(|column| self::constant(column, *constant))
        }
        Ask::Fresh { probe, within } => {
            numbers(plan, *probe).and_then(|numbers| fresh(numbers, *within, task.now))
        }
        Ask::Unique { probe } => unique(plan, *probe),
        Ask::LabelShare { probe, rows, value, share } => described(plan, *probe)
            .and_then(|column| share_of(column, value, plan.count(*rows)))
            .map(|found| label_share(found, value, *share, plan.count(*rows))),
        Ask::RowsChange { .. } | Ask::LabelChange { .. } | Ask::Overlap { .. } | Ask::Drift { .. } => {
            compare::judge(task, question, plan, stop)
        }
    };
    let judged = answered.unwrap_or_else(|(why, n)| Judged::broken(why, n));
    let message = match &question.ask {
        Ask::Rows { .. } | Ask::RowsChange { .. } | Ask::RowsUsual { .. } => judged.message,
        _ if judged.message.starts_with(about) => judged.message,
        _ => format!("{about}: {}", judged.message),
    };
    let message = match question.filter {
        Some(filter) => format!("{message}, where {}", plan.filter_source(filter)),
        None => message,
    };
    Judged { message, ..judged }
}

/// Why something cannot be told, and how many values that rests on.
pub(super) type Untold = (String, u64);

fn not_gathered() -> Untold {
    ("nothing was gathered of it".to_owned(), 0)
}

/// A column, every value of which could be read.
pub(super) fn described(plan: &Plan, probe: usize) -> Result<&ColumnProfile, Untold> {
    let column = plan.column(probe).ok_or_else(not_gathered)?;
    let n = column.count();
    if column.unreadable > 0 {
        let kind = plan.kind_of(probe).map_or("a value", crate::data::Kind::name);
        let values = if column.unreadable == 1 { "value is" } else { "values are" };
        return Err((format!("{} {values} not {kind}", grouped(column.unreadable)), n));
    }
    if n == 0 {
        return Err(("there is no value to look at".to_owned(), 0));
    }
    Ok(column)
}

fn numbers(plan: &Plan, probe: usize) -> Result<&Numbers, Untold> {
    match &described(plan, probe)?.values {
        Values::Numbers(numbers) => Ok(numbers),
        Values::Categories(_) | Values::Unknown { .. } => Err(("it holds no numbers".to_owned(), 0)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn rows(count: u64, bounds: Bounds) -> Judged {
    #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
    let holds = bounds.hold(count as f64);
    let expected = bounds_text(bounds);
    let message = format!("{} rows, {expected} allowed", grouped(count));
    Judged::new(holds, json!(count), expected, count, message)
}

fn missing(missing: u64, rows: u64, max: Amount) -> Result<Judged, Untold> {
    if rows == 0 {
        return Err(("there is no row to look at".to_owned(), 0));
    }
    let part = share(missing, rows);
    let (holds, observed, expected, found) = match max {
        Amount::Share(max) => (part <= max, json!(part), format!("at most {}", percent(max)), percent(part)),
        Amount::Count(max) => {
            (missing <= max, json!(missing), format!("at most {}", grouped(max)), grouped(missing))
        }
    };
    let message = format!("{found} missing, {expected} allowed (n = {})", grouped(rows));
    Ok(Judged::new(holds, observed, expected, rows, message))
}

fn ruled(ruled: &Ruled, must: &str) -> Result<Judged, Untold> {
    if ruled.n == 0 {
        return Err(("there is no value to look at".to_owned(), 0));
    }
    let n = grouped(ruled.n);
    let message = match (ruled.broken, ruled.samples.first()) {
        (0, _) => format!("every value is {must} (n = {n})"),
        (broken, sample) => {
            let first =
                sample.map(|sample| format!(", the first `{}` in row {}", text(&sample.value), sample.row));
            let verb = if broken == 1 { "is" } else { "are" };
            format!("{} of {n} values {verb} not {must}{}", grouped(broken), first.unwrap_or_default())
        }
    };
    let observed = json!({ "broken": ruled.broken, "unreadable": ruled.unreadable });
    let judged = Judged::new(ruled.broken == 0, observed, format!("every value is {must}"), ruled.n, message);
    Ok(Judged { new_values: ruled.new_values.clone(), ..judged })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), shown),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn aggregate(numbers: &Numbers, of: Aggregate, bounds: Bounds) -> Result<Judged, Untold> {
    let (name, found) = match of {
        Aggregate::Mean => ("the mean".to_owned(), numbers.mean),
        Aggregate::Median => ("the median".to_owned(), numbers.quantile(0.5)),
        Aggregate::Quantile(at) => (format!("the quantile at {}", percent(at)), numbers.quantile(at)),
        Aggregate::Sum => ("the sum".to_owned(), numbers.sum),
    };
    let n = numbers.count;
    let found = found.ok_or_else(|| (format!("{name} is not finite"), n))?;
    let expected = bounds_text(bounds);
    let message = format!("{name} is {}, {expected} allowed (n = {})", shown(found), grouped(n));
    Ok(Judged::new(bounds.hold(found), json!(found), expected, n, message))
}

fn constant(column: &ColumnProfile, constant: bool) -> Result<Judged, Untold> {
    let different = match &column.values {
        Values::Numbers(Numbers { points, infinite, .. }) => points.len() + usize::from(*infinite > 0),
        Values::Categories(Categories { counts, others }) => counts.len() + usize::from(*others > 0),
        Values::Unknown { .. } => return Err(("its values are not told apart".to_owned(), 0)),
    };
    let n = column.count();
    let (holds, expected) = if constant {
        (different == 1, "one value alone")
    } else {
        (different > 1, "at least two different values")
    };
    let found = if different == 1 { "all values are the same" } else { "the values differ" };
    let message = format!("{found}, {expected} allowed (n = {})", grouped(n));
    Ok(Judged::new(holds, json!({ "constant": different == 1 }), expected.to_owned(), n, message))
}

fn fresh(numbers: &Numbers, within: std::time::Duration, now: Timestamp) -> Result<Judged, Untold> {
    let latest = numbers.max().ok_or_else(|| ("there is no time to look at".to_owned(), 0))?;
    #[expect(clippy::cast_possible_truncation, reason = "it was milliseconds before")]
    let latest = Timestamp::from_millis(latest as i64);
    let age = now.since(latest);
    let expected = format!("at most {} old", show_duration(within));
    let message = format!("the latest is {latest}, {} old, {expected} allowed", show_duration(age));
    let observed = json!({ "latest": latest, "age_seconds": age.as_secs() });
    Ok(Judged::new(age <= within, observed, expected, numbers.count, message))
}

fn unique(plan: &Plan, probe: usize) -> Result<Judged, Untold> {
    let hashes = plan.hashes(probe).ok_or_else(not_gathered)?;
    if hashes.is_full {
        let most = grouped(super::hashes::ROWS_MAX as u64);
        return Err((format!("there are more than {most} rows, of which this is not told"), hashes.count()));
    }
    if hashes.count() == 0 {
        return Err(("there is no value to look at".to_owned(), 0));
    }
    let (repeated, n) = (hashes.repeated(), hashes.count());
    let message = match repeated {
        0 => format!("no value occurs twice (n = {})", grouped(n)),
        1 => format!("1 row of {} repeats an earlier one", grouped(n)),
        many => format!("{} rows of {} repeat earlier ones", grouped(many), grouped(n)),
    };
    let observed = json!({ "repeated": repeated });
    let judged = Judged::new(repeated == 0, observed, "no value twice".to_owned(), n, message);
    Ok(Judged { alike: hashes.some_repeated(), ..judged })
}

/// The share of rows whose value is this one.
pub(super) fn share_of(column: &ColumnProfile, value: &Value, rows: u64) -> Result<f64, Untold> {
    if rows == 0 {
        return Err(("there is no row to look at".to_owned(), 0));
    }
    let many = match &column.values {
        Values::Numbers(numbers) if numbers.exact => {
            let wanted = value.as_f64().or_else(|| value.as_str()?.parse().ok());
            let wanted =
                wanted.ok_or_else(|| (format!("its values are numbers, and {value} is none"), rows))?;
            numbers.points.iter().find(|(number, _)| *number == wanted).map_or(0, |(_, many)| *many)
        }
        Values::Categories(categories) => match categories.counts.get(&text(value)) {
            Some(many) => *many,
            None if categories.others == 0 => 0,
            None => return Err(("it has too many different values".to_owned(), rows)),
        },
        Values::Numbers(_) => return Err(("it has too many different values".to_owned(), rows)),
        Values::Unknown { .. } => return Err(("its values are not told apart".to_owned(), rows)),
    };
    Ok(share(many, rows))
}

fn label_share(found: f64, value: &Value, bounds: Bounds, rows: u64) -> Judged {
    let expected = bounds_with(bounds, percent);
    let message =
        format!("{} is {}, {expected} allowed (n = {})", percent(found), text(value), grouped(rows));
    Judged::new(bounds.hold(found), json!(found), expected, rows, message)
}
