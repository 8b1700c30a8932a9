//! The worker protocol: register, lease, renew, report, finish. Every write of a worker names its attempt by [`AttemptKey`].
//! Must never happen here: a key renamed or taken out; workers of another version read it.

use super::*;
use crate::definition::{DataCheck, DataFormat};

/// The version of the worker protocol; a worker that speaks another is told so when it registers.
pub const WORKER_PROTOCOL: u32 = 1;

/// `POST /api/v1/worker/register`: a worker process introduces itself. A new session of a known worker means that
/// the process of the old session is gone: its attempts are lost at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Register {
    /// [`WORKER_PROTOCOL`] of the worker.
    pub protocol: u32,
    /// The worker's name; unique among hosts.
    pub worker: String,
    /// Drawn anew by each worker process.
    pub session: String,
    /// What it offers.
    pub labels: BTreeMap<String, String>,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// Logical CPUs of the host.
    pub cpus: u32,
    /// Bytes of memory of the host.
    pub memory: u64,
    /// GPUs of the host.
    pub gpus: u32,
    /// The worker's program version.
    pub version: String,
}

/// Answer to [`Register`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// How often to renew, in milliseconds.
    pub renew_every_ms: u64,
    /// How long a lease lives without a renewal, in milliseconds. The worker ends its steps a margin before that.
    pub grace_ms: u64,
}

/// `POST /api/v1/worker/lease`: asks for work; the answer waits up to `wait_ms` for some to turn up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The worker's name.
    pub worker: String,
    /// Its session.
    pub session: String,
    /// At most this many attempts; at least 1.
    pub slots: u32,
    /// How long to wait for work, in milliseconds; at most 30,000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// Answer to [`LeaseRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leased {
    /// The attempts to run; empty when there is nothing to do.
    pub orders: Vec<StepOrder>,
    /// True: take no more work, finish and leave.
    #[serde(default)]
    pub drain: bool,
}

/// Names one attempt in every write of a worker. A key whose epoch is not the step's current one changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The run.
    pub run: RunName,
    /// The step.
    pub step: String,
    /// The lease's fencing epoch: grows with each lease of the step and is never set back.
    pub epoch: i64,
}

/// One attempt to run, complete: a worker needs nothing else but blobs and the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepOrder {
    /// Names the attempt.
    pub key: AttemptKey,
    /// Counts the attempts of the step from 1.
    pub attempt: u32,
    /// What to do.
    pub task: OrderTask,
    /// The run's params: a JSON object.
    pub params: serde_json::Map<String, Value>,
    /// The workflow's code: digest of a [`Tree`]; none when the workflow has no bundle.
    pub bundle: Option<Digest>,
    /// Artifacts to lay out under `REFIT_INPUTS`, by name.
    pub inputs: BTreeMap<String, ArtifactRef>,
    /// The champion's artifacts to lay out under `REFIT_CHAMPION`, by name; none when there is no champion.
    pub champion: Option<BTreeMap<String, ArtifactRef>>,
    /// Artifacts to hand back: name → path inside the working directory.
    pub artifacts: BTreeMap<String, String>,
    /// The folder that is kept across attempts; none when the step keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointOrder>,
    /// How many events the run stands for; fetched from `GET /api/v1/worker/events` as JSON Lines.
    pub events: u64,
    /// How many of the worker's GPUs are this attempt's own.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub gpus: u32,
    /// The longest the attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// What its processes may use together.
    #[serde(default)]
    pub limits: Limits,
    /// The step's secrets by name, filled in when the order is handed to its worker and never before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretValue>,
}

/// What the processes of an attempt may use together, where the worker's host can keep them to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The share of the processors it gets when others want them too, in processors.
    pub cpus: Option<f64>,
    /// Memory, in bytes; beyond it the attempt is ended.
    pub memory: Option<u64>,
}

fn is_none_of_them(count: &u32) -> bool {
    *count == 0
}

/// A folder that a step keeps across attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointOrder {
    /// Its path inside the working directory.
    pub path: String,
    /// What an earlier attempt saved last, to be laid out there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Checkpoint>,
}

/// What an attempt saved of its checkpoint folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The folder's content.
    pub artifact: ArtifactRef,
    /// The attempt that saved it.
    pub attempt: u32,
    /// When it was stored.
    pub at: Timestamp,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderTask {
    /// Run a process.
    Run(RunOrder),
    /// Make an HTTP request.
    Call(CallOrder),
    /// Count metrics of the candidate and the champion from paired predictions.
    Evaluate(Box<EvaluateOrder>),
    /// Check data.
    Validate(Box<ValidateOrder>),
}

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrder {
    /// What to start.
    pub command: OrderCommand,
    /// Declared environment variables, rendered.
    pub env: BTreeMap<String, String>,
    /// Its Python environment.
    pub python: Option<Python>,
    /// The image that it runs in a container of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// An HTTP request to make, rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOrder {
    /// The method.
    pub method: String,
    /// Where to: http or https.
    pub url: String,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
    /// The body, sent as JSON.
    pub json: Option<Value>,
}

/// Data to check, rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidateOrder {
    /// The data.
    pub data: DataRef,
    /// How its rows are written; none: its name says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
    /// What it must look like.
    pub checks: Vec<DataCheck<DataRef>>,
    /// The profiles that checks compare with, filled in when the order is handed to its worker.
    #[serde(default)]
    pub references: DataReferences,
}

/// What the same step saw in other runs: the artifact [`PROFILE_ARTIFACT`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataReferences {
    /// In the latest run in which it succeeded; none: there is no such run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<DataReference>,
    /// In the run that made the champion; none: there is no champion, or that run did not check data in such a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<DataReference>,
    /// How many rows it saw in the latest runs in which it succeeded, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub row_counts: Vec<f64>,
}

/// A profile and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataReference {
    /// The run.
    pub run: RunName,
    /// The profile.
    pub profile: ArtifactRef,
}

/// The metric of a `validate` step that says how many rows there are.
pub const ROWS_METRIC: &str = "rows";
/// The artifact of a `validate` step that describes its data: counts, quantiles, categories.
pub const PROFILE_ARTIFACT: &str = "profile";
/// The artifact of a `validate` step with the results of its checks.
pub const REPORT_ARTIFACT: &str = "report";
/// The artifact of a `validate` step with some of the values that did not hold; there only where there are any.
pub const FAILING_ARTIFACT: &str = "failing";
/// The artifacts of a `validate` step.
pub const VALIDATE_ARTIFACTS: [&str; 3] = [PROFILE_ARTIFACT, REPORT_ARTIFACT, FAILING_ARTIFACT];

/// Paired predictions to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateOrder {
    /// The table.
    pub predictions: DataRef,
    /// What it holds and what is counted.
    pub examples: Examples,
    /// Whether there is a champion, whose column must be there then.
    pub champion: bool,
    /// What gates will ask.
    pub questions: Vec<Question>,
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderCommand {
    /// A program and its arguments.
    Arguments(Vec<String>),
    /// Text for `sh -c`.
    Shell(String),
}

/// `POST /api/v1/worker/renew`: one call for all attempts of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renew {
    /// The worker's name.
    pub worker: String,
    /// Its session.
    pub session: String,
    /// What it is running.
    pub attempts: Vec<AttemptKey>,
    /// True once the worker takes no more work.
    #[serde(default)]
    pub draining: bool,
}

/// Answer to [`Renew`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renewed {
    /// One instruction per attempt, in the order asked.
    pub attempts: Vec<Instruction>,
    /// True: take no more work, finish and leave.
    #[serde(default)]
    pub drain: bool,
}

/// What a worker must do with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// Go on; the lease is renewed.
    Continue,
    /// End the process tree, then report `cancelled`.
    Cancel,
    /// The attempt is not yours any more: end the process tree and report nothing.
    Stop,
}

/// `POST /api/v1/worker/report`: log chunks and live metrics of a running attempt. Chunks are idempotent by `seq`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The attempt.
    pub key: AttemptKey,
    /// The attempt's number, for showing.
    pub attempt: u32,
    /// New log chunks, in order.
    #[serde(default)]
    pub logs: Vec<LogChunk>,
    /// Metrics reported so far: the latest value of each.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The checkpoint folder as it was saved now; its blobs are handed over already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<ArtifactRef>,
    /// New values of metrics, in order; taken once each by their `index`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<MetricPoint>,
    /// How long the attempt took until its own work began, in milliseconds; told once, in the first report after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up_ms: Option<u64>,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// The metric.
    pub name: String,
    /// Counts the attempt's values of this metric from 0.
    pub index: u64,
    /// The step's own count, such as the epoch it trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// Finite.
    pub value: f64,
    /// When the worker read it.
    pub at: Timestamp,
}

/// A piece of an attempt's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Counts the attempt's chunks from 0, without holes.
    pub seq: i64,
    /// When the worker read it.
    pub at: Timestamp,
    /// Whole lines, `\n` at the end of each, at most 64 KiB. Bytes that are not UTF-8 are written as `\xNN`.
    pub text: String,
    /// Which stream the lines came on, in their order; lines beyond the marks came on standard output.
    #[serde(default)]
    pub marks: Vec<LogMark>,
}

/// So many lines of a chunk came on this stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The stream.
    pub stream: LogStream,
    /// How many lines, at least one.
    pub lines: u32,
}

/// Where a line of a log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The process's standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// The worker, about the attempt.
    Worker,
}

impl LogChunk {
    /// The text of each mark.
    pub fn pieces(text: &str, marks: &[LogMark]) -> Vec<(LogStream, String)> {
        let mut lines = text.split_inclusive('\n').peekable();
        let mut pieces = Vec::new();
        for mark in marks {
            let piece: String = lines.by_ref().take(mark.lines as usize).collect();
            if !piece.is_empty() {
                pieces.push((mark.stream, piece));
            }
        }
        if lines.peek().is_some() {
            pieces.push((LogStream::Stdout, lines.collect()));
        }
        pieces
    }
}

/// `POST /api/v1/worker/finish`: what an attempt came to. Repeating it is harmless; the same answer comes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finish {
    /// The attempt.
    pub key: AttemptKey,
    /// What it came to.
    pub outcome: Outcome,
    /// How long it took until its own work began, in milliseconds: its code, inputs and environment were there then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up_ms: Option<u64>,
    /// The session that was given the lease; another one's is refused. None: whoever knows the attempt may tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Asks for the next attempts in the same reply.
    pub next: Option<LeaseRequest>,
}

impl Finish {
    /// An outcome and nothing else.
    pub fn of(key: AttemptKey, outcome: Outcome) -> Self {
        Self { key, outcome, set_up_ms: None, session: None, next: None }
    }
}

/// Answer to [`Finish`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The next attempts, when they were asked for and are there.
    #[serde(default)]
    pub orders: Vec<StepOrder>,
}

/// What an attempt hands on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handed {
    /// Values, from `REFIT_OUTPUTS`.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// The last value of each metric, from `REFIT_METRICS`; finite.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The declared artifacts, already uploaded.
    #[serde(default)]
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// What an `evaluate` step found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Box<Evaluation>>,
}

/// What an attempt came to. Failure is data, not an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Exit 0 and everything it handed back is in order.
    Succeeded(Handed),
    /// What it looked at is not as it must be: an answer, not a failure, and never asked for again.
    Rejected {
        /// One line for people: `age: 3.1 % missing, at most 1 % allowed (n = 12,000)`.
        reason: String,
        /// What shows why.
        #[serde(flatten)]
        handed: Handed,
    },
    /// It did not work out.
    Failed {
        /// How.
        failure: Failure,
        /// One line for people: `exit code 3: ValueError: …`.
        reason: String,
    },
    /// Ended because the run was cancelled; nothing of it is left on the host.
    Cancelled,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// It exited with this code.
    Exit {
        /// Not 0 and not 75.
        code: i32,
    },
    /// It exited with 75 (`EX_TEMPFAIL`): please try again.
    RetryAsked,
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// A call was answered with this HTTP status.
    Status {
        /// Not 2xx.
        status: u16,
    },
    /// A call got no answer, or only a part of one.
    Unanswered,
    /// It used more memory than it was allowed, or the host had no more.
    OutOfMemory,
    /// It took longer than its timeout.
    TimedOut,
    /// It could not be started: program missing, environment not built, an input not to be had.
    CouldNotStart,
    /// It exited 0, but what it handed back is not acceptable.
    InvalidOutput,
    /// The data it reads is not acceptable.
    InvalidData,
    /// Its worker went away, or did not renew within the grace.
    WorkerLost,
}
