//! How a simulation looks: what was assumed, the runs, how many events came to what, and event by event why. Times are the
//! virtual ones, in UTC; nothing here is relative to now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use refit_workflows::time::{Timestamp, show_duration};
use refit_workflows::wire::{DecisionView, EventView, RunView};
use serde::Serialize;

use super::table::{self, Grid};
use super::time::{minute, second};
use super::{BOLD, DIM, WARN, clean, count, indent, paint, value};

/// What came of it: everything, in the order it happened.
#[derive(Debug, Serialize)]
pub(crate) struct Simulated {
    /// As `run show` gives them.
    pub(crate) runs: Vec<RunView>,
    /// As `event show` gives them.
    pub(crate) events: Vec<EventView>,
}

/// What a reader must know to judge it.
#[derive(Debug)]
pub(crate) struct Assumed {
    pub(crate) step_takes: Duration,
    /// Where the events of the server's log begin.
    pub(crate) history_since: Option<Timestamp>,
    pub(crate) workflows: u64,
    /// How many events arrived, each delivery counted.
    pub(crate) arrived: u64,
    /// How many would have come after the end.
    pub(crate) too_late: u64,
    /// Where it ends, if it does not come to rest before.
    pub(crate) until: Timestamp,
}

/// Whether Refit recorded an event itself: a lifecycle event, a schedule slot, what a workflow emits.
pub(crate) fn is_own(event: &EventView) -> bool {
    event.source == "/refit" || event.source.starts_with("/refit/")
}

/// All of it; of runs and events at most `limit` each.
pub(crate) fn show(simulated: &Simulated, assumed: &Assumed, limit: usize) -> String {
    let mut text = headline(simulated, assumed);
    if !simulated.runs.is_empty() {
        let _ = write!(text, "\n{}", indent(&runs(&simulated.runs, limit), 2));
        text.push_str(&rest(simulated.runs.len(), limit, "run"));
    }
    if !simulated.events.is_empty() {
        let _ = write!(
            text,
            "\n{}\n{}",
            paint(BOLD, "What became of the events"),
            indent(&summary(simulated), 2)
        );
        let _ = write!(text, "\n{}\n{}", paint(BOLD, "Event by event"), indent(&events(simulated, limit), 2));
        text.push_str(&rest(simulated.events.len(), limit, "event"));
    }
    text
}

fn headline(simulated: &Simulated, assumed: &Assumed) -> String {
    let arrived = count(assumed.arrived, "event");
    let workflows = count(assumed.workflows, "workflow");
    let runs = count(simulated.runs.len() as u64, "run");
    let mut text = format!("{} of {workflows}\n", paint(BOLD, format!("{arrived} → {runs}")));
    let takes = show_duration(assumed.step_takes);
    let mut line = |words: String| {
        let _ = writeln!(text, "  {}", paint(DIM, words));
    };
    line(format!(
        "Steps were not run: each took {takes} and succeeded, gates passed, approvals were given at once."
    ));
    if let Some(since) = assumed.history_since {
        line(format!("Events: what the server received from outside since {}.", minute(since)));
        line(
            "Schedules, emitted and lifecycle events are made anew; runs started by hand are left out."
                .to_owned(),
        );
    }
    let lost = simulated.runs.iter().filter(|run| run.state == "failed").count() as u64;
    if lost > 0 {
        line(format!(
            "What steps hand back is not known here, which may be why {} failed (-o json has each step's reason).",
            count(lost, "run")
        ));
    }
    let going_on = simulated.runs.iter().filter(|run| !super::run::is_over(run)).count() as u64;
    if going_on > 0 {
        let (runs, until) = (count(going_on, "run"), minute(assumed.until));
        let _ =
            writeln!(text, "  {}", paint(WARN, format!("{runs} not over at the end, {until}; see --for")));
    }
    if assumed.too_late > 0 {
        let (late, until) = (count(assumed.too_late, "event"), minute(assumed.until));
        let _ = writeln!(
            text,
            "  {}",
            paint(WARN, format!("{late} after the end, {until}, left out; see --for"))
        );
    }
    text
}

fn rest(all: usize, limit: usize, noun: &str) -> String {
    if all <= limit {
        return String::new();
    }
    let words =
        format!("the first {limit} of {}; --limit N shows more, -o json all", count(all as u64, noun));
    format!("  {}\n", paint(DIM, words))
}

fn runs(runs: &[RunView], limit: usize) -> String {
    let mut grid =
        Grid::new(&["RUN", "WHEN (UTC)", "STATE", "EVENTS", "STARTED BY", "PARAMS", "WAITED", "RESULT"]);
    for run in runs.iter().take(limit) {
        let params: Vec<String> =
            run.params.iter().map(|(name, set)| format!("{}={}", clean(name), value(set))).collect();
        grid.row(vec![
            table::text(run.run.to_string()),
            table::text(second(run.created_at)),
            table::state(&run.state),
            table::number(run.event_count),
            table::text(&run.trigger),
            table::maybe((!params.is_empty()).then(|| params.join(" "))),
            table::maybe(waited(run)),
            table::maybe(super::run::result(run).or_else(|| failed_at(run))),
        ]);
    }
    grid.to_string()
}

/// At which step a run failed.
fn failed_at(run: &RunView) -> Option<String> {
    let steps = run.steps.as_deref().unwrap_or_default();
    let failed = steps.iter().find(|step| step.state == "failed")?;
    Some(format!("failed at `{}`", failed.step))
}

/// How long a run stood in its line.
fn waited(run: &RunView) -> Option<String> {
    let left = run.started_at.or(run.finished_at)?;
    Some(left.since(run.created_at)).filter(|waited| !waited.is_zero()).map(show_duration)
}

/// Of one workflow's decisions of one kind: how many events, and the reasons.
#[derive(Default)]
struct Group<'a> {
    events: u64,
    reasons: BTreeMap<&'a str, u64>,
}

/// How many events came to what in the end, workflow by workflow.
fn summary(simulated: &Simulated) -> String {
    let mut groups: BTreeMap<(&str, &str), Group<'_>> = BTreeMap::new();
    for event in &simulated.events {
        for decision in last_words(event) {
            let group = groups.entry((&decision.workflow, &decision.decision)).or_default();
            group.events += 1;
            *group.reasons.entry(decision.reason.as_deref().unwrap_or_default()).or_default() += 1;
        }
    }
    let mut grid = Grid::new(&["WORKFLOW", "DECISION", "EVENTS", "BECAUSE"]);
    for ((workflow, decision), group) in &groups {
        grid.row(vec![
            table::maybe((!workflow.is_empty()).then_some(workflow)),
            table::styled(&ended(decision), super::event::decision_look(decision)),
            table::number(group.events),
            table::maybe(because(group)),
        ]);
    }
    grid.to_string()
}

/// The last decision of each workflow about an event, and that of nobody; a delivery again is beside those.
fn last_words(event: &EventView) -> impl Iterator<Item = &DecisionView> {
    let mut last: BTreeMap<(&str, bool), &DecisionView> = BTreeMap::new();
    for decision in &event.decisions {
        last.insert((&decision.workflow, decision.decision == "duplicate"), decision);
    }
    last.into_values()
}

/// A decision that nothing followed, in words.
fn ended(decision: &str) -> String {
    match decision {
        "batched" => "batched, not fired".to_owned(),
        "joined" => "joined, not complete".to_owned(),
        other => other.to_owned(),
    }
}

/// The reason most events share, and how many others there are.
fn because(group: &Group<'_>) -> Option<String> {
    let (reason, _) = group.reasons.iter().max_by_key(|(_, events)| **events)?;
    let others = group.reasons.len() as u64 - 1;
    let more = if others > 0 { format!(" (and {})", count(others, "other reason")) } else { String::new() };
    (!reason.is_empty()).then(|| format!("{reason}{more}"))
}

fn events(simulated: &Simulated, limit: usize) -> String {
    let mut grid = Grid::new(&["EVENT", "TYPE", "WHEN (UTC)", "WHAT BECAME OF IT"]);
    for event in simulated.events.iter().take(limit) {
        let became: Vec<String> = event.decisions.iter().map(super::event::summary).collect();
        grid.row(vec![
            table::text(&event.id),
            table::text(&event.kind),
            table::text(second(event.received_at)),
            table::maybe((!became.is_empty()).then(|| became.join(", "))),
        ]);
    }
    grid.to_string()
}
