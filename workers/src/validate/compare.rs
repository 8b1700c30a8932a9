//! Data compared with other data: another table, or the profile of an earlier run. Must never happen here: a reference that
//! does not exist taken for one that agrees. A first run has nothing to compare with, and says so.

use std::sync::atomic::AtomicBool;

use refit_workflows::definition::{Against, Change, DriftMethod, Usual};
use refit_workflows::statistics::robust::Middle;
use refit_workflows::wire::DataRef;
use serde_json::{Value, json};

use super::drift::distance;
use super::findings::{grouped, percent, shown};
use super::hashes::{Hashes, ROWS_MAX};
use super::judge::{Holds, Judged, Untold, described, share, share_of};
use super::plan::Plan;
use super::questions::{Ask, Question, method_name};
use super::{Source, Task};
use crate::data::profile::Profile;
use crate::data::{Cells, Kind, Read, Table};

/// Answers a question that looks at other data.
pub(super) fn judge(
    task: &Task,
    question: &Question,
    plan: &Plan,
    stop: &AtomicBool,
) -> Result<Judged, Untold> {
    let comparison = Comparison { task, question, plan, stop };
    match &question.ask {
        Ask::RowsChange { count, change } => comparison.rows(plan.count(*count), change),
        Ask::LabelChange { probe, rows, value, change } => {
            comparison.label(*probe, plan.count(*rows), value, change)
        }
        Ask::Overlap { probe, with, max } => comparison.overlap(*probe, with, *max),
        Ask::Drift { probe, method, max, against } => comparison.drift(*probe, *method, *max, against),
        Ask::Broken(_)
        | Ask::Rows { .. }
        | Ask::RowsUsual { .. }
        | Ask::Missing { .. }
        | Ask::Rule { .. }
        | Ask::Aggregate { .. }
        | Ask::Constant { .. }
        | Ask::Fresh { .. }
        | Ask::Unique { .. }
        | Ask::LabelShare { .. } => Err(("this cannot be told".to_owned(), 0)),
    }
}

struct Comparison<'c> {
    task: &'c Task,
    question: &'c Question,
    plan: &'c Plan,
    stop: &'c AtomicBool,
}

impl Comparison<'_> {
    /// What is compared with: its name and its profile. None: there is nothing yet to compare with.
    fn reference(
        &self,
        against: &Against<DataRef>,
        columns: &[(String, Option<Kind>)],
    ) -> Result<Option<(String, Profile)>, Untold> {
        match against {
            Against::Previous => Ok(self.task.references.previous.clone()),
            Against::Champion => Ok(self.task.references.champion.clone()),
            Against::Data(_) => {
                let filter = self.question.filter.map(|filter| self.plan.filter_source(filter));
                let profile = Plan::profile_other(self.other()?, columns, filter, self.stop);
                profile.map(|profile| Some(("the other data".to_owned(), profile))).map_err(|why| (why, 0))
            }
        }
    }

    fn other(&self) -> Result<&Source, Untold> {
        let other = self.task.others.get(&self.question.check);
        other.ok_or_else(|| ("the other data was not laid out".to_owned(), 0))
    }

    /// How many rows of a profile count; none: nobody counted them.
    fn rows_of(&self, profile: &Profile) -> Option<u64> {
        let Some(filter) = self.question.filter else { return Some(profile.rows) };
        profile.selected.get(self.plan.filter_source(filter)).copied()
    }

    fn rows(&self, rows: u64, change: &Change<DataRef>) -> Result<Judged, Untold> {
        let expected = format!("at most {} more or fewer", percent(change.max));
        let Some((name, reference)) = self.reference(&change.against, &[])? else {
            return Ok(nothing_yet(no_reference(&change.against), expected, rows));
        };
        let Some(before) = self.rows_of(&reference) else {
            return Ok(nothing_yet(format!("not compared: {name} did not count such rows"), expected, rows));
        };
        if before == 0 {
            return Err((format!("{} rows, and {name} had none to compare with", grouped(rows)), rows));
        }
        #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
        let changed = (rows as f64 - before as f64) / before as f64;
        let way = if changed < 0.0 { "fewer" } else { "more" };
        let message = format!(
            "{} rows, {} {way} than the {} of {name}, at most {} allowed",
            grouped(rows),
            percent(changed.abs()),
            grouped(before),
            percent(change.max)
        );
        let observed = json!({ "rows": rows, "before": before, "change": changed });
        Ok(Judged::new(changed.abs() <= change.max, observed, expected, rows, message))
    }

    fn label(
        &self,
        probe: usize,
        rows: u64,
        value: &Value,
        change: &Change<DataRef>,
    ) -> Result<Judged, Untold> {
        let found = share_of(described(self.plan, probe)?, value, rows)?;
        let expected = format!("at most {} points apart", points(change.max));
        let column = self.question.column.clone().unwrap_or_default();
        let columns = [(column.clone(), self.plan.kind_of(probe))];
        let Some((name, reference)) = self.reference(&change.against, &columns)? else {
            return Ok(nothing_yet(no_reference(&change.against), expected, rows));
        };
        let key = self.plan.key(&column, self.question.filter);
        let Some(theirs) = reference.columns.get(&key) else {
            return Ok(nothing_yet(format!("not compared: {name} did not look at `{key}`"), expected, rows));
        };
        let count = match self.question.filter {
            Some(_) => theirs.count() + theirs.missing + theirs.unreadable,
            None => reference.rows,
        };
        let before = share_of(theirs, value, count).map_err(|(why, n)| (format!("in {name}, {why}"), n))?;
        let apart = (found - before).abs();
        let message = format!(
            "{} against {} of {name}, {} points apart, at most {} allowed (n = {})",
            percent(found),
            percent(before),
            points(apart),
            points(change.max),
            grouped(rows)
        );
        let observed = json!({ "share": found, "before": before });
        Ok(Judged::new(apart <= change.max, observed, expected, rows, message))
    }

    fn drift(
        &self,
        probe: usize,
        method: DriftMethod,
        max: f64,
        against: &Against<DataRef>,
    ) -> Result<Judged, Untold> {
        let current = described(self.plan, probe)?;
        let (n, column) = (current.count(), self.question.column.clone().unwrap_or_default());
        let expected = format!("at most {}", shown(max));
        let columns = [(column.clone(), self.plan.kind_of(probe))];
        let Some((name, reference)) = self.reference(against, &columns)? else {
            return Ok(nothing_yet(no_reference(against), expected, n));
        };
        let key = self.plan.key(&column, self.question.filter);
        let Some(theirs) = reference.columns.get(&key) else {
            return Ok(nothing_yet(format!("not compared: {name} did not look at `{key}`"), expected, n));
        };
        // What the reference looks like is kept thinned out; both are compared so.
        let current = current.clone().kept();
        let found = distance(method, &theirs.clone().kept(), &current).map_err(|why| (why, n))?;
        let message = format!(
            "{} {} from {name}, {expected} allowed (n = {}, {} there)",
            method_name(method),
            shown(found),
            grouped(n),
            grouped(theirs.count())
        );
        let judged = Judged::new(found <= max, json!(found), expected, n, message);
        Ok(Judged { distance: Some((method, found)), ..judged })
    }

    fn overlap(&self, probe: usize, with: &[Read], max: f64) -> Result<Judged, Untold> {
        let hashes = self.plan.hashes(probe).ok_or_else(|| ("nothing was gathered of it".to_owned(), 0))?;
        let n = hashes.count();
        let theirs = self.hashes_of(with).map_err(|why| (why, n))?;
        if hashes.is_full || theirs.is_full {
            let most = grouped(ROWS_MAX as u64);
            return Err((format!("there are more than {most} rows, of which this is not told"), n));
        }
        if n == 0 || theirs.count() == 0 {
            return Err(("there is no row to compare".to_owned(), n));
        }
        let found = hashes.found_in(&theirs);
        let part = share(found, n);
        let expected = format!("at most {}", percent(max));
        let message = format!(
            "{} of {} rows ({}) are in the other data as well, {expected} allowed",
            grouped(found),
            grouped(n),
            percent(part)
        );
        let observed = json!({ "rows": found, "share": part });
        let judged = Judged::new(part <= max, observed, expected, n, message);
        Ok(Judged { alike: hashes.some_found_in(&theirs), ..judged })
    }

    fn hashes_of(&self, with: &[Read]) -> Result<Hashes, String> {
        let source = self.other().map_err(|(why, _)| why)?;
        let table = Table::open(&source.path, source.format).map_err(|wrong| wrong.to_string())?;
        let mut hashes = Hashes::default();
        for rows in table.read(with).map_err(|wrong| wrong.to_string())? {
            let rows = rows.map_err(|wrong| wrong.to_string())?;
            let columns: Vec<&Cells> = rows.columns.iter().collect();
            hashes.add(&columns, rows.count, true);
            if self.stop.load(std::sync::atomic::Ordering::Relaxed) || hashes.is_full {
                break;
            }
        }
        hashes.sort();
        Ok(hashes)
    }
}

/// How many rows there are, beside how many there were in earlier runs, the latest first.
pub(super) fn usual_rows(rows: u64, usual: Usual, before: &[f64]) -> Result<Judged, Untold> {
    let before = &before[..before.len().min(usual.runs as usize)];
    let expected = format!("within {} deviations of the median", shown(usual.within));
    if before.len() < Usual::RUNS_MIN {
        let why = format!("not compared: {} of the {} earlier runs it takes", before.len(), Usual::RUNS_MIN);
        return Ok(nothing_yet(why, expected, rows));
    }
    let middle = Middle::of(before);
    let Middle { median, deviation } =
        middle.ok_or_else(|| ("how many rows earlier runs saw is not known".to_owned(), rows))?;
    #[expect(clippy::cast_precision_loss, reason = "no table has 2 to the power of 53 rows")]
    let away = (rows as f64 - median).abs();
    let message = format!(
        "{} rows, {} from the median {} of {} earlier runs, at most {} allowed",
        grouped(rows),
        shown(away),
        shown(median),
        before.len(),
        shown(usual.within * deviation)
    );
    let observed = json!({ "rows": rows, "median": median, "deviation": deviation });
    Ok(Judged::new(away <= usual.within * deviation, observed, expected, rows, message))
}

/// There is nothing to compare with yet: a first run has no previous one, a first model no champion, and neither knows a
/// column that nobody has asked about before.
fn nothing_yet(why: String, expected: String, n: u64) -> Judged {
    Judged { holds: Holds::NotYet, ..Judged::new(false, Value::Null, expected, n, why) }
}

/// Why there is nothing.
fn no_reference(against: &Against<DataRef>) -> String {
    match against {
        Against::Champion => {
            "not compared: there is no champion whose data was checked in this step".to_owned()
        }
        Against::Previous | Against::Data(_) => {
            "not compared: no earlier run checked data in this step".to_owned()
        }
    }
}

/// Points of a percentage.
fn points(share: f64) -> String {
    percent(share).trim_end_matches(" %").to_owned()
}
