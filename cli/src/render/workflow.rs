//! How registered workflows look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{OpenBatch, WorkflowView};

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BOLD, Facts, clean, count, paint, short};

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
            table::maybe(workflow.next_slot.map(|slot| relative(slot, now))),
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
    facts.some("model", workflow.model.as_deref().map(clean));
    facts.line("definition", short(&workflow.definition));
    facts.some("bundle", workflow.bundle.as_ref().map(short));
    facts.line("applied", exact(workflow.applied_at, now));
    facts.line("active runs", workflow.active_runs.to_string());
    facts.some("next slot", workflow.next_slot.map(|slot| exact(slot, now)));
    for (index, trigger) in workflow.triggers.iter().enumerate() {
        facts.line(&format!("trigger {}", index + 1), clean(trigger));
    }
    if !workflow.concurrency.is_empty() {
        facts.line("concurrency", clean(&workflow.concurrency));
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
    if let Some(due) = batch.due_at {
        let due_word = if batch.missing.is_empty() { "fires" } else { "expires" };
        let _ = write!(line, ", {due_word} {}", relative(due, now));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        assert_eq!(gathering(&batch, at(60)), "2 events of `eu`, sum 10.5 for trigger 1, opened 1m ago");
        (batch.sum, batch.missing, batch.due_at) = (None, vec![1], Some(at(120)));
        let line = gathering(&batch, at(60));
        assert_eq!(line, "2 events of `eu` for trigger 1, opened 1m ago, part 2 is missing, expires in 1m");
    }
}
