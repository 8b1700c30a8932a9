//! One execution of one workflow version. [`Run::apply`] is the only way a run changes: the same run, input and
//! time always give the same result, so a run can be searched, replayed from its journal, and explained.
//!
//! Must never happen here: a clock, randomness, IO, a wildcard arm over states or inputs, a change before all
//! checks of an input have passed. Consequences live in `settle`, not in the handlers of `transitions`.

mod order;
mod retry;
mod settle;
#[cfg(test)]
mod tests;
mod transitions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// What changes about a run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHead {
    /// Where it stands.
    pub state: RunState,
    /// The champion its steps see and its gates compare with, pinned when it starts.
    pub champion: Option<Champion>,
    /// What it promoted.
    pub promoted: Option<Promoted>,
}

/// Where a run stands. States carry their data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// In its lane's waiting line.
    Waiting {
        /// Since when.
        since: Timestamp,
    },
    /// Under way.
    Running {
        /// Since when.
        since: Timestamp,
        /// Who asked for its end, once somebody did; steps still running are being ended.
        cancelled_by: Option<String>,
    },
    /// Over; only a retry brings it back.
    Over {
        /// When it began, if it did.
        started_at: Option<Timestamp>,
        /// When it was over.
        at: Timestamp,
        /// How it ended.
        ending: Ending,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ending", rename_all = "snake_case")]
pub enum Ending {
    /// Every step succeeded or was not needed.
    Succeeded,
    /// A gate or a person said no: an answer, not an error.
    Rejected {
        /// The step, and what it said.
        reason: String,
    },
    /// A step failed.
    Failed {
        /// The step, and how.
        reason: String,
    },
    /// Somebody ended it.
    Cancelled {
        /// Who.
        by: String,
    },
    /// A newer run of its lane took its events over before it started.
    Coalesced {
        /// That run.
        into: RunName,
    },
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Where it stands.
    pub state: StepState,
    /// The latest lease's fencing epoch; grows with each lease and is never set back, not by a retry either.
    pub epoch: i64,
    /// Attempts begun since the run or its last retry began.
    pub attempt: u32,
    /// Attempts of these that do not count: lost with their worker, or ended by exit 75.
    pub uncounted: u32,
    /// The worker of the latest attempt.
    pub worker: Option<String>,
    /// When it last became ready.
    pub ready_at: Option<Timestamp>,
    /// When its latest attempt was leased.
    pub started_at: Option<Timestamp>,
    /// A gate's latest decision.
    pub decision: Option<Decision>,
}

/// Where a step stands. States carry their data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    /// Waits for its needs.
    Blocked,
    /// Waits for a worker.
    Ready,
    /// A worker has it.
    Leased {
        /// That worker's right to it.
        lease: Lease,
    },
    /// A worker has it and is being asked to end it.
    Cancelling {
        /// That worker's right to it.
        lease: Lease,
    },
    /// Pauses before its next attempt.
    Pausing {
        /// Until when.
        until: Timestamp,
        /// What the last attempt came to.
        reason: String,
    },
    /// Waits for a person.
    Awaiting {
        /// Since when.
        since: Timestamp,
        /// When silence becomes an answer.
        until: Option<Timestamp>,
    },
    /// A promotion under way: answered within the same transaction.
    Promoting,
    /// Done.
    Succeeded {
        /// When.
        at: Timestamp,
        /// What it handed on.
        results: Results,
    },
    /// A gate or a person said no.
    Rejected {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// It did not work out, and no attempt is left.
    Failed {
        /// When.
        at: Timestamp,
        /// How.
        reason: String,
    },
    /// Not run.
    Skipped {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
        /// True: its own `if` said "not needed", which does not stop what follows. False: it was held back.
        not_needed: bool,
    },
    /// Ended, or never begun, because the run was cancelled.
    Cancelled {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

/// A worker's right to one attempt. It lasts as long as the session is heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker.
    pub worker: String,
    /// The worker process.
    pub session: String,
    /// The fencing epoch.
    pub epoch: i64,
    /// When it was given.
    pub since: Timestamp,
}

/// What a step handed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// Named numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Files and folders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// In words, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a run reacts to. The journal is the accepted ones, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// Its lane has room: it starts, with the champion as it is now.
    Admitted {
        /// The champion.
        champion: Option<Champion>,
    },
    /// A newer run took its events over.
    Coalesced {
        /// That run.
        into: RunName,
    },
    /// A worker takes a step.
    Leased {
        /// The step's place.
        step: usize,
        /// The worker.
        worker: String,
        /// The worker process.
        session: String,
    },
    /// A worker reports what an attempt came to.
    Finished {
        /// The step's place.
        step: usize,
        /// The attempt's epoch.
        epoch: i64,
        /// What it came to.
        outcome: Outcome,
    },
    /// A worker is gone, or never received the attempt.
    WorkerLost {
        /// The step's place.
        step: usize,
        /// The attempt's epoch.
        epoch: i64,
        /// In words.
        reason: String,
    },
    /// Time passed: everything that is due happens.
    Ticked,
    /// A person answers an approval.
    Decided {
        /// The step's place.
        step: usize,
        /// Yes or no.
        approve: bool,
        /// Who.
        by: String,
        /// Whether they may decide whatever `from` says.
        admin: bool,
        /// Why.
        reason: Option<String>,
    },
    /// The registry made the candidate a version and moved the alias.
    Promoted {
        /// The step's place.
        step: usize,
        /// The new version.
        version: i64,
        /// Digest of the evidence record.
        evidence: Digest,
    },
    /// The registry did not: the alias points elsewhere than the gate compared with.
    ChampionMoved {
        /// The step's place.
        step: usize,
        /// The champion now.
        champion: Option<Champion>,
    },
    /// Somebody wants it to end.
    Cancelled {
        /// Who.
        by: String,
    },
    /// Somebody wants it to go on, or to start over.
    Retried {
        /// True: every step again; false: carry on from what did not work out.
        all: bool,
        /// Who.
        by: String,
    },
}

/// What a run asks for; done in the transaction that accepted the input.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make the candidate a version and move the alias, if it still points to `expected`. Must be answered with
    /// [`Input::Promoted`] or [`Input::ChampionMoved`].
    Promote(Box<Promotion>),
    /// Record and send an event.
    Emit(CloudEvent),
}

/// A promotion a run asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// The step's place.
    pub step: usize,
    /// The model.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The champion version that the gate compared with; none when there was none.
    pub expected: Option<i64>,
    /// The artifact's name.
    pub artifact: String,
    /// The candidate.
    pub candidate: ArtifactRef,
    /// The metrics it was gated with.
    pub metrics: BTreeMap<String, f64>,
    /// Each gate's decision by step name.
    pub gates: BTreeMap<String, Decision>,
    /// Each approval in words, by step name.
    pub approvals: BTreeMap<String, String>,
}

/// Why an input cannot happen now. The run is untouched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The run is over.
    #[error("the run is over: it {0}")]
    RunIsOver(String),
    /// The run has not started, or is not in the state the input needs.
    #[error("{0}")]
    NotNow(String),
    /// There is no such step.
    #[error("the run has no such step")]
    UnknownStep,
    /// The step is not waiting for this.
    #[error("step {step} is {state}")]
    WrongState {
        /// The step.
        step: String,
        /// What it is.
        state: &'static str,
    },
    /// A newer lease was given since.
    #[error("the lease is stale: epoch {given}, the step is at {current}")]
    StaleLease {
        /// The epoch of the write.
        given: i64,
        /// The step's epoch.
        current: i64,
    },
    /// This very attempt is settled already.
    #[error("the attempt is settled already")]
    AttemptOver,
    /// The person may not decide.
    #[error("{by} may not decide this: it is for {from}")]
    NotTheirs {
        /// Who tried.
        by: String,
        /// Who may.
        from: String,
    },
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
}

impl Step {
    fn blocked(epoch: i64) -> Self {
        Self {
            state: StepState::Blocked,
            epoch,
            attempt: 0,
            uncounted: 0,
            worker: None,
            ready_at: None,
            started_at: None,
            decision: None,
        }
    }
}

impl StepState {
    /// Whether nothing more happens to it by itself.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Blocked
            | Self::Ready
            | Self::Leased { .. }
            | Self::Cancelling { .. }
            | Self::Pausing { .. }
            | Self::Awaiting { .. }
            | Self::Promoting => false,
            Self::Succeeded { .. }
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::Cancelled { .. } => true,
        }
    }

    /// When something happens to it by itself.
    fn timer(&self) -> Option<Timestamp> {
        match self {
            Self::Pausing { until, .. } => Some(*until),
            Self::Awaiting { until, .. } => *until,
            Self::Blocked
            | Self::Ready
            | Self::Leased { .. }
            | Self::Cancelling { .. }
            | Self::Promoting
            | Self::Succeeded { .. }
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// The lease, while a worker has it.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Leased { lease } | Self::Cancelling { lease } => Some(lease),
            Self::Blocked
            | Self::Ready
            | Self::Pausing { .. }
            | Self::Awaiting { .. }
            | Self::Promoting
            | Self::Succeeded { .. }
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// As the API and expressions name it (`blocked | ready | running | waiting | succeeded | …`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Leased { .. } | Self::Cancelling { .. } | Self::Promoting => "running",
            Self::Pausing { .. } | Self::Awaiting { .. } => "waiting",
            Self::Succeeded { .. } => "succeeded",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// What it handed on, once it succeeded.
    pub fn results(&self) -> Option<&Results> {
        match self {
            Self::Succeeded { results, .. } => Some(results),
            Self::Blocked
            | Self::Ready
            | Self::Leased { .. }
            | Self::Cancelling { .. }
            | Self::Pausing { .. }
            | Self::Awaiting { .. }
            | Self::Promoting
            | Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

impl RunState {
    /// Whether the run is over; only a retry brings it back.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Over { .. } => true,
            Self::Waiting { .. } | Self::Running { .. } => false,
        }
    }

    /// As the API names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Running { .. } => "running",
            Self::Over { ending, .. } => ending.name(),
        }
    }
}

impl Ending {
    /// As the API names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Coalesced { .. } => "coalesced",
        }
    }

    /// Why, in words; nothing for a success.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Succeeded => None,
            Self::Rejected { reason } | Self::Failed { reason } => Some(reason.clone()),
            Self::Cancelled { by } => Some(format!("cancelled by {by}")),
            Self::Coalesced { into } => Some(format!("its events went into {into}")),
        }
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
