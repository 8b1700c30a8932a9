//! What a run reacts to, what it asks for, and why an input is refused. Data only.

use super::*;

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
    /// While it waits to start for the first time, it stands for more events. What it knows is given whole, so that
    /// applying it again to the stored facts changes nothing.
    Absorbed {
        /// Its params from now on: those that the newest events gave.
        params: Map<String, Value>,
        /// The events it stands for from now on, in short.
        batch: BatchFacts,
        /// The runs whose events it has inherited so far.
        coalesced: Vec<RunName>,
        /// Whether one of those it stands for was to run every step.
        #[serde(default)]
        no_cache: bool,
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
        /// How long it took until its own work began, in milliseconds; none where the worker does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set_up_ms: Option<u64>,
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
    /// What a step that waits for a worker has come to before is taken for what it would come to.
    Recalled {
        /// The step's place.
        step: usize,
        /// The run it came to that in.
        from: RunName,
        /// That.
        results: Box<Results>,
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
        /// The groups they belong to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        /// Whether they may decide whatever `from` says.
        admin: bool,
        /// Names what they were shown: see [`Approved::covers`]. None: they do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<Digest>,
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
    /// The child a step asked for is there, or went into another run, which stands for it from now on.
    ChildStarted {
        /// The step's place.
        step: usize,
        /// The step's epoch when it asked.
        epoch: i64,
        /// The child.
        run: RunName,
    },
    /// The child of a step is over.
    ChildEnded {
        /// The step's place.
        step: usize,
        /// The step's epoch when it asked.
        epoch: i64,
        /// The child.
        run: RunName,
        /// How it ended.
        ending: Ending,
        /// Its outputs.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        outputs: BTreeMap<String, Value>,
    },
    /// The child a step asked for cannot be had, or is not waited for any more.
    ChildRefused {
        /// The step's place.
        step: usize,
        /// The step's epoch when it asked.
        epoch: i64,
        /// Why.
        reason: String,
    },
    /// Somebody wants it to end. Asked for once, `finally` steps still run; asked again, they end too.
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
    /// Count that a gate has decided on these examples.
    Judged {
        /// The gate's place.
        step: usize,
        /// The examples: see [`Evaluation::holdout`].
        holdouts: Vec<Digest>,
    },
    /// Start a run of another workflow. Answered later with [`Input::ChildStarted`] and [`Input::ChildEnded`], or with
    /// [`Input::ChildRefused`].
    StartRun(Box<ChildOrder>),
    /// Look up what a step has come to before. Answered with [`Input::Recalled`] if there is something.
    Recall {
        /// The step's place.
        step: usize,
        /// Names it.
        key: Digest,
        /// The earliest time it may be of.
        since: Option<Timestamp>,
    },
    /// Keep what a step came to.
    Remember {
        /// The step's place.
        step: usize,
        /// Names it.
        key: Digest,
        /// That.
        results: Box<Results>,
    },
    /// End the child of a step. Its end is told all the same.
    CancelRun {
        /// The step's place.
        step: usize,
        /// The step's epoch when it asked for the child.
        epoch: i64,
    },
}

/// A run that a run asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildOrder {
    /// The step's place.
    pub step: usize,
    /// The step's epoch: names this child among those of the step.
    pub epoch: i64,
    /// The workflow.
    pub workflow: String,
    /// Its params, not checked yet.
    pub params: Map<String, Value>,
    /// Whose child it will be.
    pub parent: Parent,
    /// Whether every step of it is to run, as those of its parent are.
    #[serde(default)]
    pub no_cache: bool,
}

/// The step that asked for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: RunName,
    /// The step's name there.
    pub step: String,
    /// How deep the child is nested: 1 below a run that nobody asked for.
    pub depth: u32,
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
    /// What each approval is about: see [`Approved::covers`].
    pub covers: BTreeMap<String, Digest>,
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
    /// The lease was given to another worker process than the one that speaks.
    #[error("the lease is another worker process's")]
    OtherSession,
    /// This very attempt is settled already.
    #[error("the attempt is settled already")]
    AttemptOver,
    /// The person started the run, and somebody else is to approve it.
    #[error("{by} started this run, and `two_person` asks for somebody else's approval")]
    OwnRun {
        /// Who tried.
        by: String,
    },
    /// What is to be decided is not what the person was shown.
    #[error("what {step} asks about is not what was shown: it is {covers} now; look at it again")]
    Changed {
        /// The approval.
        step: String,
        /// What it is about now.
        covers: Digest,
    },
    /// The person may not decide.
    #[error("{by} may not decide this: it is for {from}")]
    NotTheirs {
        /// Who tried.
        by: String,
        /// Who may.
        from: String,
    },
}
