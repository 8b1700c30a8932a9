//! One execution of one workflow version. [`Run::apply`] is the only way a run changes: the same run, input and
//! time always give the same result, so a run can be searched, replayed from its journal, and explained.
//!
//! Must never happen here: a clock, randomness, IO, a wildcard arm over states or inputs, a change before all
//! checks of an input have passed. Consequences live in `settle`, not in the handlers of `transitions`.

mod absorb;
mod approvals;
mod cache;
mod children;
mod ending;
mod events;
mod groups;
mod input;
mod judge;
mod matrix;
mod order;
mod retry;
mod select;
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

pub use children::NESTING_MAX;
pub use input::{ChildOrder, Effect, Input, Parent, Promotion, Refused};
pub use state::{
    Approved, Cancel, Ending, Instance, Lease, Results, RunHead, RunState, Settled, Step, StepState,
};
pub use view::{Live, summary};

use crate::definition::{self, HostNeeds, Verb, Workflow};
use crate::digest::Digest;
use crate::evaluation::Evaluation;
use crate::event::CloudEvent;
use crate::gate::{Champion, Decision};
use crate::names::RunName;
use crate::time::Timestamp;
use crate::trigger::BatchFacts;
use groups::Group;
use transitions::Touched;

use crate::wire::{ArtifactRef, Failure, Handed, Outcome, Promoted};

/// How often an attempt may be lost with its worker, or ask to be tried again (exit 75), before the step fails.
/// Such attempts do not count towards `retry.attempts`.
pub const UNCOUNTED_MAX: u32 = 20;

/// The first losses of a step cost nothing; from the next one on it pauses, longer each time: a step that takes its
/// worker down must not take one after the other down at once.
const LOSSES_WITHOUT_PAUSE: u32 = 3;

/// What is fixed when a run is created. Its params, its batch and what it inherited may still grow while it waits to
/// start: see [`Input::Absorbed`].
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
    /// The runs whose events it inherited: those it replaced in the waiting line, or that were cancelled for it.
    pub coalesced: Vec<RunName>,
    /// When it was created.
    pub created_at: Timestamp,
    /// The step of another run that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Whether every step runs, although an earlier outcome might be taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
}

/// One execution of one workflow version.
#[derive(Clone, Debug)]
pub struct Run {
    workflow: Arc<Workflow>,
    facts: Arc<RunFacts>,
    head: RunHead,
    /// The definition's steps at their places there, then instances in the order they appeared. Shared until they
    /// change: a copy of a run of thousands of steps costs little.
    steps: Vec<Arc<Step>>,
    version: i64,
    // Derived from the above, rebuilt on loading. Dependents and needs are those of the definition's steps.
    dependents: Arc<Vec<Vec<usize>>>,
    unsettled_needs: Vec<u32>,
    unsettled: usize,
    unsettled_before_finally: usize,
    groups: BTreeMap<usize, Group>,
    timers: BTreeSet<(Timestamp, usize)>,
    ready: BTreeSet<usize>,
    dirty: BTreeSet<usize>,
}

impl Run {
    /// A new run, waiting for its lane.
    pub fn create(workflow: Arc<Workflow>, facts: RunFacts) -> Self {
        let steps = vec![Step::blocked(0); workflow.steps.len()];
        let head = RunHead {
            state: RunState::Waiting { since: facts.created_at },
            champion: None,
            promoted: None,
            outputs: BTreeMap::new(),
        };
        let mut run = Self::restore(workflow, Arc::new(facts), head, steps, 0);
        run.dirty = (0..run.steps.len()).collect();
        run
    }

    /// A run as it was stored. `steps` are the workflow's, then instances of them: see [`Run::fits`].
    pub fn restore(
        workflow: Arc<Workflow>,
        facts: Arc<RunFacts>,
        head: RunHead,
        steps: Vec<Step>,
        version: i64,
    ) -> Self {
        let dependents = Arc::new(workflow.dependents());
        let mut run = Self {
            unsettled_needs: vec![0; workflow.steps.len()],
            unsettled: 0,
            unsettled_before_finally: 0,
            groups: BTreeMap::new(),
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
        let is_open = |&place: &usize| !self.steps[place].state.is_settled();
        let (finally, before): (Vec<usize>, Vec<usize>) =
            (0..self.steps.len()).filter(is_open).partition(|&place| self.definition(place).finally);
        self.unsettled_before_finally = before.len();
        self.unsettled = before.len() + finally.len();
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
        self.derive_groups();
    }

    /// Whether these steps can be those of a run of this workflow: its own first, then instances of them.
    pub fn fits(workflow: &Workflow, steps: &[Step]) -> bool {
        let own = workflow.steps.len();
        let of = |step: &Step| step.instance.as_ref().map(|instance| instance.of);
        steps.len() >= own
            && steps[..own].iter().all(|step| of(step).is_none())
            && steps[own..].iter().all(|step| of(step).is_some_and(|group| group < own))
    }

    /// The only way a run changes.
    ///
    /// # Errors
    /// [`Refused`]: the input cannot happen now, and nothing has changed.
    pub fn apply(&mut self, input: &Input, at: Timestamp) -> Result<Vec<Effect>, Refused> {
        let mut effects = Vec::new();
        let was_open = self.unsettled_before_finally > 0;
        let touched = self.transition(input, at, &mut effects)?;
        self.version += 1;
        self.settle(touched, at, &mut effects);
        if was_open && self.unsettled_before_finally == 0 {
            let finally = self.startable(self.first_finally());
            self.settle(finally, at, &mut effects);
        }
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

    /// Its steps by place: the workflow's in its order, then instances in the order they appeared.
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

    /// Whether the step of this place waits for a worker.
    pub fn is_ready(&self, place: usize) -> bool {
        self.steps.get(place).is_some_and(|step| matches!(step.state, StepState::Ready))
    }

    /// What the step of this place asks of its worker's host; nothing where no worker has to do with it.
    pub fn host_needs(&self, place: usize) -> Option<&HostNeeds> {
        self.definition(place).verb.work().map(|work| &work.host).filter(|needs| !needs.is_empty())
    }

    /// Whether the step of this place checks data.
    pub fn is_validation(&self, place: usize) -> bool {
        self.definition(place)
            .verb
            .work()
            .is_some_and(|work| matches!(work.task, definition::Task::Validate(_)))
    }

    /// The places of the steps that wait for a worker, in order.
    pub fn ready_steps(&self) -> impl Iterator<Item = usize> + '_ {
        self.ready.iter().copied()
    }

    fn step_mut(&mut self, step: usize) -> &mut Step {
        Arc::make_mut(&mut self.steps[step])
    }

    /// The step of the definition that is at a place, or whose instance is.
    fn of(&self, place: usize) -> usize {
        self.steps[place].instance.as_ref().map_or(place, |instance| instance.of)
    }

    /// What is to be done at a place. The one way from a place to the definition.
    fn definition(&self, place: usize) -> &definition::Step {
        &self.workflow.steps[self.of(place)]
    }

    /// The name of the step at a place: `train`, `train[depth=4]`.
    pub fn step_name(&self, place: usize) -> &str {
        match &self.steps[place].instance {
            Some(instance) => &instance.name,
            None => &self.workflow.steps[place].name,
        }
    }

    /// The place of the step with this name.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        let named = |place: &usize| self.step_name(*place) == name;
        // An instance's name ends with a bracket, a step's own never does.
        let own = self.workflow.steps.len();
        if name.ends_with(']') { (own..self.steps.len()).find(named) } else { (0..own).find(named) }
    }

    /// The place of the first step of `finally`; behind the last step when there is none.
    fn first_finally(&self) -> usize {
        let finally = self.workflow.steps.iter().rev().take_while(|step| step.finally).count();
        self.workflow.steps.len() - finally
    }

    fn count_unsettled(&mut self, finally: bool, change: isize) {
        self.unsettled = self.unsettled.saturating_add_signed(change);
        if !finally {
            self.unsettled_before_finally = self.unsettled_before_finally.saturating_add_signed(change);
        }
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
        if let Some(instance) = &self.steps[step].instance
            && let Some(index) = instance.index
            && let Some(group) = self.groups.get_mut(&instance.of)
        {
            group.moved(index, &self.steps[step].state, &state);
        }
        self.step_mut(step).state = state;
        self.dirty.insert(step);
        if was_settled != is_settled {
            let change = if is_settled { -1 } else { 1 };
            self.count_unsettled(self.definition(step).finally, change);
            // Nobody needs an instance: its group stands for it.
            if let Some(dependents) = Arc::clone(&self.dependents).get(step) {
                for &dependent in dependents {
                    let needs = &mut self.unsettled_needs[dependent];
                    *needs = needs.saturating_add_signed(change as i32);
                }
            }
        }
        is_settled && !was_settled
    }

    /// Settles a step; of a group, what has not begun with it. Returns whether that is news.
    fn conclude(&mut self, step: usize, at: Timestamp, how: Settled) -> bool {
        for &place in self.instances(step).iter() {
            if !self.steps[place].state.is_settled() {
                let how = match &how {
                    Settled::Cancelled { reason } => Settled::Cancelled { reason: reason.clone() },
                    Settled::Succeeded { .. }
                    | Settled::Rejected { .. }
                    | Settled::Failed { .. }
                    | Settled::Skipped { .. } => {
                        let reason = format!("{} was {}", self.step_name(step), how.name());
                        Settled::Skipped { reason, not_needed: false }
                    }
                };
                self.set_state(place, StepState::Settled { at, how });
            }
        }
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
            | Self::Status { .. }
            | Self::Unanswered
            | Self::OutOfMemory
            | Self::TimedOut
            | Self::CouldNotStart
            | Self::InvalidOutput
            | Self::InvalidData => true,
        }
    }
}

/// How often a step may be tried; verbs without processes are decided once.
fn attempts_allowed(verb: &Verb) -> u32 {
    verb.work().map_or(1, |work| work.retry.attempts)
}
