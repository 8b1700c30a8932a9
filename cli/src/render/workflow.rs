//! How registered workflows look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::WorkflowView;

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
    for batch in &workflow.open_batches {
        let key = if batch.key.is_empty() { String::new() } else { format!(" of `{}`", clean(&batch.key)) };
        let due = batch.due_at.map(|due| format!(", fires {}", relative(due, now))).unwrap_or_default();
        let gathered = count(u64::try_from(batch.count).unwrap_or(0), "event");
        let opened = relative(batch.opened_at, now);
        let trigger = batch.trigger + 1;
        facts.line("gathering", format!("{gathered}{key} for trigger {trigger}, opened {opened}{due}"));
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
