//! Where a run and its steps stand. States carry their data, so that a wrong one cannot be written down.
//!
//! Must never happen here: a change of a run. That is `transitions` and what follows from them.

use super::*;

/// What changes about a run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHead {
    /// Where it stands.
    pub state: RunState,
    /// The champion its steps see and its gates compare with, pinned when it starts.
    pub champion: Option<Champion>,
    /// What it promoted.
    pub promoted: Option<Promoted>,
    /// The workflow's `outputs`, once it succeeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
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
        /// Set once somebody asked for its end; steps still running are being ended.
        cancel: Option<Cancel>,
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

/// Somebody asked for a run's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who.
    pub by: String,
    /// Whether the steps of `finally` end too: asked for a second time, or nothing had begun.
    pub finally_too: bool,
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
    /// The epoch it had when it was set back to the start: what attempts up to it have saved is not taken up again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub anew_after: i64,
    /// The worker of the latest attempt.
    pub worker: Option<String>,
    /// When it last became ready.
    pub ready_at: Option<Timestamp>,
    /// When its latest attempt was leased.
    pub started_at: Option<Timestamp>,
    /// How long its latest attempt took until its own work began, in milliseconds; known once that attempt is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up_ms: Option<u64>,
    /// A gate's latest decision.
    pub decision: Option<Decision>,
    /// Of an approval that was given: what for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// The latest run it started, of a step that runs a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunName>,
    /// What the outcome of its latest attempt is to be found by, of a step with `cache`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<Digest>,
    /// The run whose outcome it took instead of running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_from: Option<RunName>,
    /// What makes it an instance of a step with a matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Box<Instance>>,
}

/// An approval that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// By whom; none: by silence.
    pub by: Option<String>,
    /// Digest of what it is about: everything that the steps before it came to, the champion, the definition and the params.
    pub covers: Digest,
}

/// One instance of a step with a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The place of the step with the matrix: its group.
    pub of: usize,
    /// Its place in the matrix's order; none: the matrix has changed and it is not in it any more.
    pub index: Option<usize>,
    /// Its name: `train[depth=4]`.
    pub name: String,
    /// What it sees as `matrix`.
    pub values: Map<String, Value>,
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
    /// Its instances are at work.
    Instances,
    /// A run of another workflow is under way.
    Child {
        /// Whether it is being ended.
        cancelling: bool,
    },
    /// Nothing more happens to it, unless a retry sets it back.
    Settled {
        /// When.
        at: Timestamp,
        /// How it came out.
        how: Settled,
    },
}

/// How a step came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Settled {
    /// Done.
    Succeeded {
        /// What it handed on.
        results: Results,
    },
    /// A gate, a person or a check of data said no.
    Rejected {
        /// Why.
        reason: String,
        /// What the answer rests on, as far as the step handed it over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        results: Option<Box<Results>>,
    },
    /// It did not work out, and no attempt is left.
    Failed {
        /// How.
        reason: String,
    },
    /// Not run.
    Skipped {
        /// Why.
        reason: String,
        /// True: its own `if` said "not needed", which does not stop what follows. False: it was held back.
        not_needed: bool,
    },
    /// Ended, or never begun, because the run was cancelled.
    Cancelled {
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
    /// What an `evaluate` step found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Box<Evaluation>>,
    /// In words, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&Handed> for Results {
    fn from(handed: &Handed) -> Self {
        let Handed { outputs, metrics, artifacts, evaluation } = handed.clone();
        Self { outputs, metrics, artifacts, evaluation, reason: None }
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Step {
    /// One that has never run, or is to be as if it had not.
    pub(super) fn blocked(epoch: i64) -> Self {
        Self {
            state: StepState::Blocked,
            epoch,
            attempt: 0,
            uncounted: 0,
            anew_after: epoch,
            worker: None,
            ready_at: None,
            started_at: None,
            set_up_ms: None,
            decision: None,
            approved: None,
            child: None,
            cache_key: None,
            cached_from: None,
            instance: None,
        }
    }
}

impl StepState {
    /// How it came out, once nothing more happens to it by itself.
    pub fn settled(&self) -> Option<&Settled> {
        if let Self::Settled { how, .. } = self { Some(how) } else { None }
    }

    /// Whether nothing more happens to it by itself.
    pub fn is_settled(&self) -> bool {
        self.settled().is_some()
    }

    /// When something happens to it by itself.
    pub(super) fn timer(&self) -> Option<Timestamp> {
        match self {
            Self::Pausing { until, .. } => Some(*until),
            Self::Awaiting { until, .. } => *until,
            Self::Blocked
            | Self::Ready
            | Self::Leased { .. }
            | Self::Cancelling { .. }
            | Self::Promoting
            | Self::Instances
            | Self::Child { .. }
            | Self::Settled { .. } => None,
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
            | Self::Instances
            | Self::Child { .. }
            | Self::Settled { .. } => None,
        }
    }

    /// As the API and expressions name it (`blocked | ready | running | waiting | succeeded | …`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Leased { .. }
            | Self::Cancelling { .. }
            | Self::Promoting
            | Self::Instances
            | Self::Child { .. } => "running",
            Self::Pausing { .. } | Self::Awaiting { .. } => "waiting",
            Self::Settled { how, .. } => how.name(),
        }
    }

    /// What it handed over, whether that is handed on (it succeeded) or only shows why it was rejected.
    pub fn handed_over(&self) -> Option<&Results> {
        match self.settled()? {
            Settled::Succeeded { results } => Some(results),
            Settled::Rejected { results, .. } => results.as_deref(),
            Settled::Failed { .. } | Settled::Skipped { .. } | Settled::Cancelled { .. } => None,
        }
    }

    /// What it handed on, once it succeeded.
    pub fn results(&self) -> Option<&Results> {
        if let Some(Settled::Succeeded { results }) = self.settled() { Some(results) } else { None }
    }
}

impl Settled {
    /// Done, with nothing to hand on but words.
    pub(super) fn done(reason: String) -> Self {
        Self::Succeeded { results: Results { reason: Some(reason), ..Results::default() } }
    }

    /// No, with nothing to hand on but words.
    pub(super) fn refused(reason: String) -> Self {
        Self::Rejected { reason, results: None }
    }

    /// As the API and expressions name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// In words, where there is something to say.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Succeeded { results } => results.reason.as_deref(),
            Self::Rejected { reason, .. }
            | Self::Failed { reason }
            | Self::Skipped { reason, .. }
            | Self::Cancelled { reason } => Some(reason),
        }
    }

    /// Whether what needs it may run as if all were well.
    pub fn lets_on(&self) -> bool {
        match self {
            Self::Succeeded { .. } => true,
            Self::Skipped { not_needed, .. } => *not_needed,
            Self::Rejected { .. } | Self::Failed { .. } | Self::Cancelled { .. } => false,
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
