//! Workers, and what waits for them.

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{WaitingView, WorkerView};

use super::table::{self, Grid};
use super::time::relative;
use super::{BOLD, Facts, GOOD, bytes, clean, count, paint, state};

/// Workers in a table.
pub(crate) fn list(workers: &[WorkerView], now: Timestamp) -> String {
    let mut grid = Grid::new(&[
        "WORKER",
        "STATE",
        "SLOTS",
        "GPUS",
        "CPUS",
        "MEMORY",
        "LABELS",
        "VERSION",
        "LAST SEEN",
        "RUNNING",
    ]);
    for worker in workers {
        let attempts: Vec<String> =
            worker.attempts.iter().map(|held| format!("{} {}", held.key.run, held.key.step)).collect();
        let state = if worker.state == "ready" {
            table::styled("✓ ready", GOOD)
        } else {
            table::state(&worker.state)
        };
        grid.row(vec![
            table::text(&worker.worker),
            state,
            table::number(format_args!("{}/{}", worker.busy, worker.slots)),
            table::number(format_args!("{}/{}", worker.used.gpus, worker.gpus)),
            table::number(format_args!("{}/{}", worker.used.cpus, worker.cpus)),
            table::text(memory(worker)),
            table::text(labels(worker)),
            table::text(&worker.version),
            table::text(relative(worker.last_seen, now)),
            table::text(attempts.join(", ")),
        ]);
    }
    grid.to_string()
}

/// A worker, what it runs, and why it is not given what waits.
pub(crate) fn show(worker: &WorkerView, waiting: &[WaitingView], now: Timestamp) -> String {
    let mut facts = Facts::default();
    facts.line("slots", format!("{} of {} in use", worker.busy, worker.slots));
    facts.line("gpus", format!("{} of {} in use", worker.used.gpus, worker.gpus));
    facts.line("cpus", format!("{} of {} in use", worker.used.cpus, worker.cpus));
    facts.line("memory", memory(worker));
    facts.line("labels", clean(&labels(worker)));
    facts.line("version", clean(&worker.version));
    facts.line("last seen", relative(worker.last_seen, now));
    let mut text = format!("{}\n\n{facts}", line(worker));
    if !worker.attempts.is_empty() {
        let mut grid = Grid::new(&["RUN", "STEP", "SINCE"]);
        for held in &worker.attempts {
            let since = relative(held.since, now);
            grid.row(vec![
                table::text(held.key.run.to_string()),
                table::text(&held.key.step),
                table::text(since),
            ]);
        }
        text.push_str(&format!("\n{}", super::indent(&grid.to_string(), 2)));
    }
    for steps in waiting {
        let why = steps.workers.get(&worker.worker).map_or("their turn comes", String::as_str);
        text.push_str(&format!("\n  {}: {}", asking(steps), clean(why)));
    }
    text
}

/// What waits, and why.
pub(crate) fn waiting(waiting: &[WaitingView], now: Timestamp) -> String {
    let line = |steps: &WaitingView| {
        let since = relative(steps.since, now);
        format!("\n{}, the first since {since}: {}", asking(steps), clean(&steps.reason))
    };
    waiting.iter().map(line).collect()
}

/// A worker in one line.
pub(crate) fn line(worker: &WorkerView) -> String {
    format!("{}  {}", paint(BOLD, clean(&worker.worker)), state(&worker.state))
}

fn asking(steps: &WaitingView) -> String {
    let needs = steps.needs_host.to_string();
    let count = count(steps.steps, "step");
    if needs.is_empty() { count } else { format!("{count} with {}", clean(&needs)) }
}

fn memory(worker: &WorkerView) -> String {
    format!("{}/{}", bytes(worker.used.memory), bytes(worker.memory))
}

fn labels(worker: &WorkerView) -> String {
    let labels: Vec<String> = worker.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}
