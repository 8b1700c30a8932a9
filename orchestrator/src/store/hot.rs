//! Runs kept in memory, so that a change costs what it changes and not what the run is large. Each is good for exactly
//! the version it has; the database's row says which that is. Must never happen here: a run that is not committed.

use std::collections::HashMap;
use std::sync::Mutex;

use refit_workflows::run::{Run, RunState};

use super::unpoisoned;

/// Runs in memory, by row id.
#[derive(Default)]
pub(super) struct HotRuns {
    runs: Mutex<HashMap<i64, Run>>,
}

/// How many runs are kept in memory; beyond that an arbitrary one is let go.
const HOT_RUNS_MAX: usize = 512;
/// Runs of more steps than this count for several.
const HOT_STEPS_MAX: usize = 200_000;

impl HotRuns {
    /// The run of this row, if it is known in this version. Whoever takes it puts it back.
    pub(super) fn take(&self, id: i64, version: i64) -> Option<Run> {
        unpoisoned(&self.runs).remove(&id).filter(|run| run.version() == version)
    }

    /// A run as it is committed.
    pub(super) fn keep(&self, id: i64, run: Run) {
        let mut runs = unpoisoned(&self.runs);
        if matches!(run.head().state, RunState::Over { .. }) {
            runs.remove(&id);
            return;
        }
        let steps: usize = runs.values().map(|run| run.steps().len()).sum();
        if (runs.len() >= HOT_RUNS_MAX || steps >= HOT_STEPS_MAX)
            && let Some(&other) = runs.keys().next()
        {
            runs.remove(&other);
        }
        runs.insert(id, run);
    }
}
