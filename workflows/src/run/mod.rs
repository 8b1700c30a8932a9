//! One execution of one workflow version. [`Run::apply`] is the only way a run changes: the same run, input and
//! time always give the same result, so a run can be searched, replayed from its journal, and explained.
//!
//! Must never happen here: a clock, randomness, IO, a wildcard arm over states or inputs, a change before all
//! checks of an input have passed. Consequences live in `settle`, not in the handlers of `transitions`.

mod input;
mod order;
mod retry;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod transitions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use input::{Effect, Input, Promotion, Refused};
pub use state::{Ending, Lease, Results, RunHead, RunState, Settled, Step, StepState};
pub use view::{Live, summary};

use crate::definition::{Verb, Workflow};
use crate::digest::Digest;
use crate::event::CloudEvent;
use crate::gate::{Champion, Decision};
use crate::names::RunName;
use crate::time::Timestamp;
use crate::trigger::BatchFacts;
use crate::wire::{ArtifactRef, Failure, Outcome, Promoted};

/// How often an attempt may be lost with its worker, or ask to be tried again (exit 75), before the step fails.
/// Such attempts do not count towards `retry.attempts`.
pub const UNCOUNTED_MAX: u32 = 20;

/// The first losses of a step cost nothing; from the next one on it pauses, longer each time: a step that takes its
/// worker down must not take one after the other down at once.
const LOSSES_WITHOUT_PAUSE: u32 = 3;

/// What is fixed when a run is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Its name.
    pub name: RunName,
    /// Names the definition it is pinned to.
    pub definition: Digest,
    /// Names the code it is pinned to.
    pub bundle: Option<Digest>,
    /// What started it, in words.
    pub trigger: String,
    /// Its params, checked and complete.
    pub params: Map<String, Value>,
    /// The events it stands for, in short.
    pub batch: BatchFacts,
    /// The value of `concurrency.key`; empty without one.
    pub lane: String,
    /// The runs whose events it inherited.
    pub coalesced: Vec<RunName>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// One execution of one workflow version.
#[derive(Clone, Debug)]
pub struct Run {
    workflow: Arc<Workflow>,
    facts: Arc<RunFacts>,
    head: RunHead,
    /// Shared until they change: a copy of a run of thousands of steps costs little.
    steps: Vec<Arc<Step>>,
    version: i64,
    // Derived from the above, rebuilt on loading.
    dependents: Arc<Vec<Vec<usize>>>,
    unsettled_needs: Vec<u32>,
    unsettled: usize,
    timers: BTreeSet<(Timestamp, usize)>,
    ready: BTreeSet<usize>,
    dirty: BTreeSet<usize>,
}

impl Run {
    /// A new run, waiting for its lane.
    pub fn create(workflow: Arc<Workflow>, facts: RunFacts) -> Self {
        let steps = vec![Step::blocked(0); workflow.steps.len()];
        let head =
            RunHead { state: RunState::Waiting { since: facts.created_at }, champion: None, promoted: None };
        let mut run = Self::restore(workflow, Arc::new(facts), head, steps, 0);
        run.dirty = (0..run.steps.len()).collect();
        run
    }

    /// A run as it was stored. `steps` must be as many as the workflow has.
    pub fn restore(
        workflow: Arc<Workflow>,
        facts: Arc<RunFacts>,
        head: RunHead,
        steps: Vec<Step>,
        version: i64,
    ) -> Self {
        let dependents = Arc::new(workflow.dependents());
        let mut run = Self {
            unsettled_needs: vec![0; steps.len()],
            unsettled: 0,
            timers: BTreeSet::new(),
            ready: BTreeSet::new(),
            dirty: BTreeSet::new(),
            workflow,
            facts,
            head,
            steps: steps.into_iter().map(Arc::new).collect(),
            version,
            dependents,
        };
        run.derive();
        run
    }

    /// Rebuilds everything that follows from the states.
    fn derive(&mut self) {
        self.unsettled = self.steps.iter().filter(|step| !step.state.is_settled()).count();
        for (index, step) in self.workflow.steps.iter().enumerate() {
            let open = step.needs.iter().filter(|&&need| !self.steps[need].state.is_settled()).count();
            self.unsettled_needs[index] = u32::try_from(open).unwrap_or(u32::MAX);
        }
        self.timers = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(index, step)| step.state.timer().map(|at| (at, index)))
            .collect();
        self.ready = (0..self.steps.len())
            .filter(|&step| matches!(self.steps[step].state, StepState::Ready))
            .collect();
    }

    /// The only way a run changes.
    ///
    /// # Errors
    /// [`Refused`]: the input cannot happen now, and nothing has changed.
    pub fn apply(&mut self, input: &Input, at: Timestamp) -> Result<Vec<Effect>, Refused> {
        let mut effects = Vec::new();
        let settled = self.transition(input, at, &mut effects)?;
        self.version += 1;
        self.settle(settled, at, &mut effects);
        self.end_if_settled(at, &mut effects);
        Ok(effects)
    }

    /// Its name.
    pub fn name(&self) -> &RunName {
        &self.facts.name
    }

    /// What was fixed when it was created.
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// The definition it is pinned to.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// What changes about it as a whole.
    pub fn head(&self) -> &RunHead {
        &self.head
    }

    /// Its steps, in the workflow's order.
    pub fn steps(&self) -> &[Arc<Step>] {
        &self.steps
    }

    /// How many inputs it has accepted.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The steps that changed since this was last asked, in order.
    pub fn take_changed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// When [`Input::Ticked`] is due next.
    pub fn next_wake(&self) -> Option<Timestamp> {
        match self.head.state {
            RunState::Running { .. } => self.timers.first().map(|&(at, _)| at),
            RunState::Waiting { .. } | RunState::Over { .. } => None,
        }
    }

    /// The places of the steps that wait for a worker, in the workflow's order.
    pub fn ready_steps(&self) -> impl Iterator<Item = usize> + '_ {
        self.ready.iter().copied()
    }

    fn step_mut(&mut self, step: usize) -> &mut Step {
        Arc::make_mut(&mut self.steps[step])
    }

    fn step_name(&self, step: usize) -> &str {
        &self.workflow.steps[step].name
    }

    /// Changes a step's state and keeps what follows from it true. Returns whether it became settled.
    fn set_state(&mut self, step: usize, state: StepState) -> bool {
        let old = &self.steps[step].state;
        let was_settled = old.is_settled();
        if let Some(timer) = old.timer() {
            self.timers.remove(&(timer, step));
        }
        if let Some(timer) = state.timer() {
            self.timers.insert((timer, step));
        }
        let is_settled = state.is_settled();
        if matches!(state, StepState::Ready) {
            self.ready.insert(step);
        } else {
            self.ready.remove(&step);
        }
        self.step_mut(step).state = state;
        self.dirty.insert(step);
        let dependents = Arc::clone(&self.dependents);
        match (was_settled, is_settled) {
            (false, true) => {
                self.unsettled -= 1;
                for &dependent in &dependents[step] {
                    self.unsettled_needs[dependent] -= 1;
                }
            }
            (true, false) => {
                self.unsettled += 1;
                for &dependent in &dependents[step] {
                    self.unsettled_needs[dependent] += 1;
                }
            }
            (true, true) | (false, false) => {}
        }
        is_settled && !was_settled
    }

    /// Settles a step. Returns whether that is news.
    fn conclude(&mut self, step: usize, at: Timestamp, how: Settled) -> bool {
        self.set_state(step, StepState::Settled { at, how })
    }
}

impl Failure {
    /// Whether such an attempt counts towards `retry.attempts`.
    fn counts(&self) -> bool {
        match self {
            Self::RetryAsked | Self::WorkerLost => false,
            Self::Exit { .. }
            | Self::Signal { .. }
            | Self::TimedOut
            | Self::CouldNotStart
            | Self::InvalidOutput => true,
        }
    }
}

/// How often a step may be tried; verbs without processes are decided once.
fn attempts_allowed(verb: &Verb) -> u32 {
    verb.work().map_or(1, |work| work.retry.attempts)
}
