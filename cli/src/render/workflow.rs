//! How registered workflows look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DeletedWorkflow, OpenBatch, WorkflowView};

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BOLD, Facts, GOOD, WARN, clean, count, paint, short};

/// Workflows in a table.
pub(crate) fn list(workflows: &[WorkflowView], now: Timestamp) -> String {
    let mut grid =
        Grid::new(&["WORKFLOW", "MODEL", "VERSION", "STEPS", "ACTIVE RUNS", "NEXT SLOT", "STARTED BY"]);
    for workflow in workflows {
        grid.row(vec![
            table::text(&workflow.workflow),
            table::maybe(workflow.model.as_deref()),
            table::number(workflow.version),
            table::number(workflow.steps.len()),
            table::number(workflow.active_runs),
            match &workflow.paused {
                Some(_) => table::styled("paused", WARN),
                None => table::maybe(workflow.next_slot.map(|slot| relative(slot, now))),
            },
            table::text(workflow.triggers.join("; ")),
        ]);
    }
    grid.to_string()
}

/// One workflow, whole.
pub(crate) fn show(workflow: &WorkflowView, now: Timestamp) -> String {
    let mut text = format!("{}  version {}\n", paint(BOLD, clean(&workflow.workflow)), workflow.version);
    if let Some(description) = &workflow.description {
        let _ = writeln!(text, "  {}", clean(description.trim_end()));
    }
    text.push('\n');
    let mut facts = Facts::default();
    facts.some(
        "paused",
        workflow.paused.as_ref().map(|paused| {
            let why = paused.reason.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
            paint(WARN, format_args!("since {} by {}{why}", exact(paused.at, now), clean(&paused.by)))
        }),
    );
    facts.some("model", workflow.model.as_deref().map(clean));
    facts.line("definition", short(&workflow.definition));
    facts.some("bundle", workflow.bundle.as_ref().map(short));
    facts.line("applied", exact(workflow.applied_at, now));
    facts.line("active runs", workflow.active_runs.to_string());
    for schedule in &workflow.schedules {
        let slot = schedule.next_slot.map_or("none any more".to_owned(), |slot| exact(slot, now));
        facts.line("next slot", format!("{slot}, trigger {}", schedule.trigger + 1));
    }
    for (index, trigger) in workflow.triggers.iter().enumerate() {
        facts.line(&format!("trigger {}", index + 1), clean(trigger));
    }
    if !workflow.concurrency.is_empty() {
        facts.line("concurrency", clean(&workflow.concurrency));
    }
    for cooldown in &workflow.cooldowns {
        let key =
            if cooldown.key.is_empty() { String::new() } else { format!("`{}` ", clean(&cooldown.key)) };
        facts.line("cooldown", format!("{key}until {}", exact(cooldown.until, now)));
    }
    for batch in &workflow.open_batches {
        facts.line("gathering", gathering(batch, now));
    }
    let _ = write!(text, "{facts}");
    let mut grid = Grid::new(&["STEP", "VERB", "NEEDS"]);
    for step in &workflow.steps {
        grid.row(vec![table::text(&step.step), table::text(&step.verb), table::text(step.needs.join(", "))]);
    }
    if !grid.is_empty() {
        let _ = write!(text, "\n{}", super::indent(&grid.to_string(), 2));
    }
    text
}

/// Whether a workflow may start runs, for what was just done to it.
pub(crate) fn standing(workflow: &WorkflowView) -> String {
    let name = clean(&workflow.workflow);
    match &workflow.paused {
        Some(paused) => {
            let held = match workflow.open_batches.len() {
                0 => String::new(),
                1 => "; 1 batch or join is held".to_owned(),
                more => format!("; {more} batches and joins are held"),
            };
            format!("{} {name} is paused {}{held}", paint(GOOD, "✓"), clean(&paused.to_string()))
        }
        None => format!("{} {name} is not paused: its triggers start runs", paint(GOOD, "✓")),
    }
}

/// A workflow that was deleted.
pub(crate) fn deleted(deleted: &DeletedWorkflow) -> String {
    let cancelled = match deleted.cancelled.len() as u64 {
        0 => String::new(),
        runs => format!("; {} cancelled for it", count(runs, "run")),
    };
    let gathered = match deleted.gathered {
        0 => String::new(),
        events => format!("; {} it had gathered start nothing", count(events, "event")),
    };
    let name = clean(&deleted.workflow);
    format!("{} {name} is deleted{cancelled}{gathered}; its runs and its model stay", paint(GOOD, "✓"))
}

fn gathering(batch: &OpenBatch, now: Timestamp) -> String {
    let mut line = count(u64::try_from(batch.count).unwrap_or(0), "event");
    if !batch.key.is_empty() {
        let _ = write!(line, " of `{}`", clean(&batch.key));
    }
    if let Some(sum) = batch.sum {
        let _ = write!(line, ", sum {sum}");
    }
    let _ = write!(line, " for trigger {}, opened {}", batch.trigger + 1, relative(batch.opened_at, now));
    if !batch.missing.is_empty() {
        let parts: Vec<String> = batch.missing.iter().map(|part| (part + 1).to_string()).collect();
        let _ = write!(line, ", part {} is missing", parts.join(" and "));
    }
    if !batch.waits_for.is_empty() {
        let _ = write!(line, ", waits for {}", clean(&batch.waits_for));
    }
    if batch.held {
        line.push_str(", held while the workflow is paused");
    } else if let Some(due) = batch.due_at {
        let due_word = if batch.missing.is_empty() { "fires" } else { "expires" };
        let _ = write!(line, ", {due_word} {}", relative(due, now));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn a_deletion_tells_what_it_took_along() {
        let mut gone = DeletedWorkflow { workflow: "churn".to_owned(), cancelled: Vec::new(), gathered: 0 };
        assert_eq!(plain(&deleted(&gone)), "✓ churn is deleted; its runs and its model stay");
        gone.cancelled.push("churn/1".parse().unwrap());
        gone.gathered = 12;
        assert_eq!(
            plain(&deleted(&gone)),
            "✓ churn is deleted; 1 run cancelled for it; 12 events it had gathered start nothing; its runs and its model stay"
        );
    }

    #[test]
    fn what_is_gathered_is_one_line() {
        let at = |seconds: i64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let mut batch = OpenBatch {
            trigger: 0,
            key: "eu".to_owned(),
            count: 2,
            sum: Some(10.5),
            missing: Vec::new(),
            opened_at: at(0),
            due_at: None,
            waits_for: String::new(),
            held: false,
        };
        assert_eq!(gathering(&batch, at(60)), "2 events of `eu`, sum 10.5 for trigger 1, opened 1m ago");
        (batch.sum, batch.missing, batch.due_at) = (None, vec![1], Some(at(120)));
        batch.waits_for = "event labels".to_owned();
        let line = gathering(&batch, at(60));
        assert_eq!(
            line,
            "2 events of `eu` for trigger 1, opened 1m ago, part 2 is missing, waits for event labels, expires in 1m"
        );
        batch.held = true;
        assert!(
            gathering(&batch, at(60)).ends_with("waits for event labels, held while the workflow is paused")
        );
    }
}
