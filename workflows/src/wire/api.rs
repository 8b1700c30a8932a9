//! What the API takes and answers, which is what `-o json` prints. Must never happen here: a key renamed or taken out;
//! scripts read it.

use super::*;

/// A run, as `run show -o json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// `churn/12`.
    pub run: RunName,
    /// The workflow's name.
    pub workflow: String,
    /// The definition's digest.
    pub definition: Digest,
    /// `waiting | running | succeeded | rejected | failed | cancelled | coalesced`.
    pub state: String,
    /// Why it is in this state, in words.
    pub reason: Option<String>,
    /// The concurrency key's value.
    pub key: Option<String>,
    /// Its params.
    pub params: serde_json::Map<String, Value>,
    /// What started it, in words: `event dataset.updated`, `cron 0 3 * * *`, `manual`.
    pub trigger: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it left the waiting line.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// How many events it stands for.
    pub event_count: u64,
    /// How many of its events are not kept any more; left out where all are, and of listings.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub events_gone: u64,
    /// How its events came, oldest first, at most 1000 lines; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Vec<ArrivalView>>,
    /// The ids of its events that are kept, oldest first; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// The runs whose events it inherited: those it replaced while they waited, or that were cancelled for it.
    #[serde(default)]
    pub coalesced: Vec<RunName>,
    /// Its steps, in the file's order, the instances of a matrix behind their step; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepView>>,
    /// What it promoted.
    pub promoted: Option<Promoted>,
    /// Whether MLflow has what it promoted; left out where nothing is mirrored, and of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorView>,
    /// The workflow's `outputs`, once it succeeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// The step of another run that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// Grows with every change.
    pub version: i64,
}

fn is_none_of_them(count: &u64) -> bool {
    *count == 0
}

/// The step that asked for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentView {
    /// The run.
    pub run: RunName,
    /// The step's name there.
    pub step: String,
}

/// What a run promoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// The model.
    pub model: String,
    /// The new version.
    pub version: i64,
    /// The alias that moved to it.
    pub alias: String,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// Its name.
    pub step: String,
    /// `run`, `select`, `gate`, `approval`, `promote`, `emit`, …
    pub verb: String,
    /// The names of the steps it waits for.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Whether it is one of `finally`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finally: bool,
    /// `blocked | ready | running | waiting | succeeded | rejected | failed | skipped | cancelled`.
    pub state: String,
    /// Attempts begun.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// The worker of the latest attempt.
    pub worker: Option<String>,
    /// When it became ready.
    pub ready_at: Option<Timestamp>,
    /// When its latest attempt was leased.
    pub started_at: Option<Timestamp>,
    /// When it was settled.
    pub finished_at: Option<Timestamp>,
    /// How long its latest attempt took until its own work began (code, inputs, a Python environment), in milliseconds;
    /// counted from `started_at`. None while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up_ms: Option<u64>,
    /// Values it handed on.
    pub outputs: BTreeMap<String, Value>,
    /// Its metrics; live ones while it runs.
    pub metrics: BTreeMap<String, f64>,
    /// Its artifacts.
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// Why it is in this state, in words.
    pub reason: Option<String>,
    /// A gate's verdict.
    pub verdict: Option<crate::gate::Verdict>,
    /// A gate's decision, check by check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<crate::gate::Decision>,
    /// The examples that a gate decided on, and how often they have decided about the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdouts: Vec<HoldoutUse>,
    /// Of an approval that waits or was given: digest of what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<Digest>,
    /// What it saved last of its checkpoint folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// What it asks of its worker's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_host: Option<HostNeeds>,
    /// The run whose outcome was reused.
    pub cached_from: Option<String>,
    /// The run it started, of a step that runs a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunName>,
    /// The step whose instance it is, of an instance of a matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// An instance's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<serde_json::Map<String, Value>>,
    /// How its instances stand, of a step with a matrix that has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<InstancesView>,
}

/// How many instances of a matrix stand where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancesView {
    /// All of them.
    pub total: usize,
    /// Not begun.
    pub waiting: usize,
    /// Begun and not settled.
    pub at_work: usize,
    /// Succeeded.
    pub succeeded: usize,
    /// Settled in any other way.
    pub lost: usize,
}

impl std::fmt::Display for InstancesView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} instances succeeded, {} at work", self.succeeded, self.total, self.at_work)?;
        for (count, what) in [(self.waiting, "to come"), (self.lost, "lost")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Answer to `POST /api/v1/events` (202): one receipt per event, in the order sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// One per event.
    pub events: Vec<Receipt>,
}

/// The receipt for one stored event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// True when it was there already; nothing new happens then.
    pub duplicate: bool,
}

/// `POST /api/v1/workflows`: register a workflow file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apply {
    /// The workflow's own document.
    pub text: String,
    /// The text of the files it uses, by their path in its folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
    /// Digest of the [`Tree`] of its folder, whose blobs are uploaded already.
    pub bundle: Option<Digest>,
}

/// A registered workflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkflowView {
    /// Its name.
    pub workflow: String,
    /// Its description.
    pub description: Option<String>,
    /// The model it retrains.
    pub model: Option<String>,
    /// The current definition's digest: of its text and its bundle.
    pub definition: Digest,
    /// Its bundle's digest.
    pub bundle: Option<Digest>,
    /// Counts the versions applied from 1.
    pub version: i64,
    /// When this version was applied.
    pub applied_at: Timestamp,
    /// True when applying changed nothing.
    #[serde(default)]
    pub unchanged: bool,
    /// Its triggers in words.
    pub triggers: Vec<String>,
    /// Its steps: name and verb.
    pub steps: Vec<StepSummary>,
    /// The next schedule slot.
    pub next_slot: Option<Timestamp>,
    /// The next slot of each of its schedules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleView>,
    /// The lanes whose cooldown is not over, the longest first, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooldowns: Vec<CooldownView>,
    /// Since when, by whom and why its triggers start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedView>,
    /// Batches that are gathering.
    #[serde(default)]
    pub open_batches: Vec<OpenBatch>,
    /// How many of its runs go on at once, and what happens to one more, in words.
    #[serde(default)]
    pub concurrency: String,
    /// How many of its runs are waiting or running.
    pub active_runs: i64,
    /// What will keep it from working as it is, in words: a secret that the orchestrator does not have. Told when it is
    /// applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The text as applied; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The text of the files it uses, by their path in its folder, as applied: with these and `text` it is the whole
    /// definition. Together they weigh no more than applying a workflow may. Left out where it uses none, and of listings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, String>,
}

/// A step of a definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepSummary {
    /// Its name.
    pub step: String,
    /// Its verb.
    pub verb: String,
    /// The names of the steps it waits for.
    pub needs: Vec<String>,
}

/// A batch that is gathering.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenBatch {
    /// The trigger's place in the file, from 0.
    pub trigger: i64,
    /// The value of `by`.
    pub key: String,
    /// Events so far.
    pub count: i64,
    /// What `batch.sum` comes to so far, where the trigger has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// The places of a join's patterns that have not been seen, from 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<i64>,
    /// When the first came.
    pub opened_at: Timestamp,
    /// When it fires, or a join expires, at the latest, as things stand; one that is held does so when it is resumed.
    pub due_at: Option<Timestamp>,
    /// What it waits for, in words: any one of these ends it.
    #[serde(default)]
    pub waits_for: String,
    /// Whether it is held because its workflow is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// `POST /api/v1/runs`: start a run by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartRun {
    /// The workflow.
    pub workflow: String,
    /// Its params.
    #[serde(default)]
    pub params: serde_json::Map<String, Value>,
    /// Makes the call safe to repeat: the same id starts one run.
    #[serde(default)]
    pub id: Option<String>,
    /// Runs every step, although an earlier outcome might be taken.
    #[serde(default)]
    pub no_cache: bool,
}

/// `POST /api/v1/runs/W/N/retry`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RetryRun {
    /// True: every step again; false: carry on from what failed.
    #[serde(default)]
    pub all: bool,
}

/// `POST /api/v1/runs/W/N/approve` and `…/reject`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Decide {
    /// The approval step; may be left out when just one waits.
    #[serde(default)]
    pub step: Option<String>,
    /// The step's `covers`, as it was shown: refused when that is something else by now.
    #[serde(default)]
    pub covers: Option<Digest>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `GET /api/v1/runs/W/N/logs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogPage {
    /// Pieces in order.
    pub lines: Vec<LogPiece>,
    /// Pass as `after` to read on.
    pub next: i64,
    /// True when the run is over and everything has been read.
    pub done: bool,
}

/// A piece of a run's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogPiece {
    /// The step.
    pub step: String,
    /// The attempt.
    pub attempt: u32,
    /// When the worker read it.
    pub at: Timestamp,
    /// The stream its lines came on.
    pub stream: LogStream,
    /// Whole lines.
    pub text: String,
}

/// How many series one answer of `GET /api/v1/runs/W/N/metrics` holds; `after` says how many are passed over.
pub const SERIES_PAGE: usize = 100;

/// A metric of an attempt over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesView {
    /// The step.
    pub step: String,
    /// The attempt.
    pub attempt: u32,
    /// The metric.
    pub metric: String,
    /// Its values, oldest first, thinned evenly where there were too many; the last is always there.
    pub points: Vec<PointView>,
}

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    /// The step's own count, such as the epoch it trains.
    pub step: Option<f64>,
    /// The value.
    pub value: f64,
    /// When its worker read it.
    pub at: Timestamp,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name.
    pub worker: String,
    /// `ready | busy | draining | drained | silent`: silent when it has not been heard of for three renewals, drained when a
    /// person wants it to take no more steps and it has none.
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// GPUs it offers.
    pub gpus: u32,
    /// CPUs it offers.
    #[serde(default)]
    pub cpus: u32,
    /// Bytes of memory it offers.
    pub memory: u64,
    /// What the steps it runs ask for.
    #[serde(default)]
    pub used: UsedView,
    /// Its program's version.
    #[serde(default)]
    pub version: String,
    /// Attempts at once.
    pub slots: u32,
    /// Attempts now.
    pub busy: u32,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// What it is running.
    pub attempts: Vec<HeldAttempt>,
}

/// What the steps that a worker runs ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsedView {
    /// GPUs.
    pub gpus: u32,
    /// CPUs.
    pub cpus: f64,
    /// Bytes of memory.
    pub memory: u64,
}

/// An attempt that a worker has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldAttempt {
    /// Names it.
    #[serde(flatten)]
    pub key: AttemptKey,
    /// When it was given.
    pub since: Timestamp,
}

/// Steps that wait for a worker and ask the same of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// What they ask for.
    pub needs_host: HostNeeds,
    /// How many they are.
    pub steps: u64,
    /// Since when the first of them has waited.
    pub since: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// Why each worker is not given one of them, by its name; those are left out that will be.
    pub workers: BTreeMap<String, String>,
}

/// What a token's bearer may do. `admin` may do everything, `operator` everything a `viewer` may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Sends events, applies workflows, starts and ends runs, approves, rolls back.
    Operator,
    /// Leases steps and reports on them; sees no more than that needs.
    Worker,
    /// Everything, tokens included.
    Admin,
}

impl Role {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "worker" => Ok(Self::Worker),
            "admin" => Ok(Self::Admin),
            other => Err(format!("`{other}` is not a role: viewer, operator, worker or admin")),
        }
    }
}

/// `POST /api/v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateToken {
    /// Who or what holds it; shown as the author of what it does.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The groups its holder belongs to, which approvals may name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Days until it expires; 90 when left out.
    #[serde(default)]
    pub days: Option<u32>,
}

/// A token. The secret is shown once, when it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenView {
    /// Names it for `token revoke`.
    pub id: String,
    /// Who or what holds it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The groups its holder belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The token itself; only in the answer to its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// An error of the API: problem details (RFC 9457), `application/problem+json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProblemDetails {
    /// A stable word for programs: `not-found`, `definition-invalid`, `stale-lease`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here and what to do.
    pub detail: String,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// All problems of a definition, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<crate::definition::Problem>,
}

/// `GET /api/v1/server`: who answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerView {
    /// The program's version.
    pub version: String,
    /// `sqlite` or `postgres`.
    pub database: String,
    /// The orchestrator's clock.
    pub now: Timestamp,
    /// Whether a token is asked for.
    pub tokens_required: bool,
    /// Its sources and outbound targets.
    #[serde(default)]
    pub parts: Vec<PartView>,
}
