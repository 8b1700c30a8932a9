//! A workflow that is known to be sound. [`Workflow::parse`] is the only way to get one, so nothing downstream
//! checks again: steps refer to steps that exist, the graph has no cycle, expressions parse, promotion is gated.
//!
//! Must never happen here: reading files or half-accepting a file. A file has problems, all of them listed, or is sound.

mod check;
pub mod diagnostics;
mod graph;
mod raw;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use diagnostics::{Position, Problem, Problems};

use crate::expression::Expression;
use crate::gate::Gate;
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::template::{Template, ValueTemplate};

/// The largest workflow file, in bytes.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// The most steps a workflow may have.
pub const STEPS_MAX: usize = 10_000;

/// A sound workflow definition.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Its name: what runs are called after.
    pub name: String,
    /// What it is for, in the author's words.
    pub description: Option<String>,
    /// The registered model it retrains; present whenever a step promotes or a gate compares with the champion.
    pub model: Option<String>,
    /// What starts it, in the file's order; a trigger is known by its place here.
    pub triggers: Vec<Trigger>,
    /// The params a run takes, by name.
    pub params: BTreeMap<String, Param>,
    /// How many runs go on at once, and what happens to one more.
    pub concurrency: Concurrency,
    /// `cooldown`: at least this long between the starts of two runs of a key.
    pub cooldown: Option<Duration>,
    /// The steps, in the file's order, those of `finally` last. `needs` point into this list; there is no cycle.
    pub steps: Vec<Step>,
    /// `outputs`: what a workflow that runs this one as a step gets, rendered when the run ends.
    pub outputs: BTreeMap<String, Template>,
    /// What the file uses that the language has and this version cannot run yet, with its places. A workflow with such
    /// things can be checked, simulated and tested, not applied.
    pub not_yet: Vec<Problem>,
}

impl Trigger {
    /// Params of the run, rendered over `batch` when it fires.
    pub fn params(&self) -> &BTreeMap<String, Template> {
        match self {
            Self::Event(trigger) => &trigger.params,
            Self::Join(trigger) => &trigger.params,
            Self::Cron(trigger) => &trigger.params,
        }
    }
}

impl Workflow {
    /// Reads and checks one workflow file.
    ///
    /// # Errors
    /// Every problem in the file at once, in the file's order, each with its position and a hint.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        check::workflow(text)
    }

    /// The place of the step with this name.
    pub fn step_index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// For each step, the steps that need it directly.
    pub fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.steps.len()];
        for (index, step) in self.steps.iter().enumerate() {
            for &need in &step.needs {
                dependents[need].push(index);
            }
        }
        dependents
    }

    /// Every step that must be settled before this one, directly or through others, in the file's order.
    pub fn ancestors(&self, step: usize) -> Vec<usize> {
        let mut seen = vec![false; self.steps.len()];
        let mut open = self.steps[step].needs.clone();
        while let Some(next) = open.pop() {
            if !std::mem::replace(&mut seen[next], true) {
                open.extend(&self.steps[next].needs);
            }
        }
        (0..self.steps.len()).filter(|&index| seen[index]).collect()
    }
}

/// What starts a workflow.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// Events that match a pattern, one by one or in batches.
    Event(EventTrigger),
    /// One event for each of several patterns, within a window.
    Join(JoinTrigger),
    /// A schedule.
    Cron(CronTrigger),
}

/// `on: event`.
#[derive(Clone, Debug)]
pub struct EventTrigger {
    /// What the whole CloudEvent must look like.
    pub pattern: Pattern,
    /// `where`: a CEL condition over the event's attributes, for what a pattern cannot say.
    pub filter: Option<Expression>,
    /// `by`: one batch, and one run, per value of this expression over the event's attributes.
    pub key: Option<Expression>,
    /// `batch`; without it every event fires at once.
    pub batch: Option<BatchRule>,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// `on: all`: fires once every pattern was seen, in any order.
#[derive(Clone, Debug)]
pub struct JoinTrigger {
    /// The patterns, at least two. An event that several of them match counts for the first that is still open.
    pub parts: Vec<Pattern>,
    /// `where`: as in [`EventTrigger::filter`], for every part.
    pub filter: Option<Expression>,
    /// `by`: one join, and one run, per value.
    pub key: Option<Expression>,
    /// How long after the first event the others may come.
    pub within: Duration,
    /// What becomes of the events of a join that did not complete in time.
    pub on_expire: OnExpire,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// What becomes of a join that did not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpire {
    /// Its events start nothing; that is written down with each of them (the default).
    Drop,
    /// It fires with what has come.
    Fire,
}

/// `batch`: when gathered events become a run. At least one bound is set.
#[derive(Clone, Debug)]
pub struct BatchRule {
    /// Fire when nothing new came for this long.
    pub quiet: Option<Duration>,
    /// Fire at the latest this long after the first event.
    pub max_wait: Option<Duration>,
    /// Fire at this many events.
    pub count: Option<u64>,
    /// Fire at this much of something the events carry.
    pub sum: Option<SumRule>,
}

/// `batch.sum`.
#[derive(Clone, Debug)]
pub struct SumRule {
    /// `of`: a number in each event, over the event's attributes.
    pub of: Expression,
    /// `at_least`: fire once the sum has reached this.
    pub at_least: f64,
}

/// `on: cron`.
#[derive(Clone, Debug)]
pub struct CronTrigger {
    /// When.
    pub schedule: Schedule,
    /// What to do about slots missed while nobody was looking.
    pub catch_up: CatchUp,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// `catch_up`: what happens to schedule slots missed while the orchestrator was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// Missed slots are skipped.
    None,
    /// The latest missed slot fires once (the default).
    Last,
    /// Every missed slot fires, oldest first, at most [`CatchUp::ALL_MAX`].
    All,
}

impl CatchUp {
    /// The most missed slots that `all` fires.
    pub const ALL_MAX: usize = 100;
}

/// The type of a param.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any finite number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// One param a run takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its type.
    pub kind: ParamType,
    /// Used when none is given; without it the param is required.
    pub default: Option<Value>,
    /// What it means.
    pub description: Option<String>,
}

/// `concurrency`.
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// Runs with the same value share the limit; without it all runs of the workflow do. Sees `params` and `batch`.
    pub key: Option<Expression>,
    /// How many runs of a key go on at once; at least 1.
    pub limit: u32,
    /// What happens to one more.
    pub on_conflict: OnConflict,
}

/// What happens to a run when the limit of its key is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// One run per key waits and inherits the events of the waiting run it replaces.
    Coalesce,
    /// It waits its turn.
    Queue,
    /// It does not start at all; its events are told why.
    Skip,
    /// The runs that go on are cancelled, and it starts when they have ended.
    CancelRunning {
        /// `before`: only while this step of theirs, by its place, has not started; afterwards it waits its turn.
        before: Option<usize>,
    },
    /// It starts all the same.
    Parallel,
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name, unique in the workflow.
    pub name: String,
    /// Places in [`Workflow::steps`] of the steps it waits for, in the file's order.
    pub needs: Vec<usize>,
    /// Whether it is one of `finally`: it waits for every step that is not, however they came out. Its `needs` are
    /// other steps of `finally`.
    pub finally: bool,
    /// `if`: CEL; false skips the step.
    pub condition: Option<Expression>,
    /// `matrix`: one instance of the step per combination of values.
    pub matrix: Option<Matrix>,
    /// What it does.
    pub verb: Verb,
}

/// `matrix`, `max_parallel` and `min_success`. Only steps that do [`Verb::Work`] or run a workflow have one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Where the combinations come from.
    pub values: MatrixValues,
    /// The most instances at work at once; without it all of them.
    pub max_parallel: Option<u32>,
    /// The share of instances that must succeed for the step to succeed, above 0 and at most 1 (the default: all).
    pub min_success: f64,
}

impl Matrix {
    /// The most instances of one step.
    pub const INSTANCES_MAX: usize = 1000;
}

/// Where the combinations of a matrix come from.
#[derive(Clone, Debug)]
pub enum MatrixValues {
    /// Every combination of the axes' values, the last axis turning fastest. Values may be templates; an axis may be one
    /// template that gives a list.
    Axes(Vec<(String, Axis)>),
    /// `${{ … }}` that gives a list: of objects, whose fields are the axes, or of plain values, read as `matrix.value`.
    List(Template),
}

/// The values of one axis.
#[derive(Clone, Debug)]
pub enum Axis {
    /// Written out: text, numbers and booleans.
    Values(Vec<Value>),
    /// `${{ … }}` that gives a list of such.
    List(Template),
}

/// What a step does: exactly one verb.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Runs on a worker.
    Work(Box<Work>),
    /// Chooses one instance of a matrix.
    Select(Select),
    /// Starts a run of another workflow and waits for its end.
    Workflow(ChildRun),
    /// Compares the candidate with thresholds and with the champion.
    Gate(Gate),
    /// Waits for a person.
    Approval(Approval),
    /// Makes the candidate the model's version under an alias, if a gate that it needs passed.
    Promote(Promote),
    /// Records and sends an event.
    Emit(Emit),
}

impl Verb {
    /// The verb's key in the YAML.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Work(work) => work.task.name(),
            Self::Select(_) => "select",
            Self::Workflow(_) => "workflow",
            Self::Gate(_) => "gate",
            Self::Approval(_) => "approval",
            Self::Promote(_) => "promote",
            Self::Emit(_) => "emit",
        }
    }

    /// What runs on a worker, if this does.
    pub fn work(&self) -> Option<&Work> {
        match self {
            Self::Work(work) => Some(work),
            Self::Select(_)
            | Self::Workflow(_)
            | Self::Gate(_)
            | Self::Approval(_)
            | Self::Promote(_)
            | Self::Emit(_) => None,
        }
    }
}

impl Verb {
    /// The process it runs on a worker, if it runs one.
    pub fn process(&self) -> Option<&RunTask> {
        match &self.work()?.task {
            Task::Run(run) => Some(run),
            Task::Call(_) => None,
        }
    }
}

/// A step that runs on a worker: what all such verbs share, and the task itself.
#[derive(Clone, Debug)]
pub struct Work {
    /// What to do there.
    pub task: Task,
    /// Artifacts of earlier steps it reads, by the name it finds them under. Each template is one `${{ }}` that
    /// refers to `steps.NAME.artifacts.NAME`.
    pub inputs: BTreeMap<String, Template>,
    /// Files or folders it hands on: name → path inside the working directory.
    pub artifacts: BTreeMap<String, String>,
    /// Attempts and the pauses between them.
    pub retry: Retry,
    /// The longest one attempt may take; the whole process tree is ended then.
    pub timeout: Duration,
}

/// What a worker does.
#[derive(Clone, Debug)]
pub enum Task {
    /// Runs a process.
    Run(RunTask),
    /// Makes an HTTP request.
    Call(CallTask),
}

impl Task {
    /// The verb's key in the YAML.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Call(_) => "call",
        }
    }
}

/// `run`: a process on a worker.
#[derive(Clone, Debug)]
pub struct RunTask {
    /// What to start.
    pub command: Command,
    /// Declared environment variables.
    pub env: BTreeMap<String, Template>,
    /// `python.requirements`: path inside the bundle of the requirements its cached environment is built from.
    pub requirements: Option<String>,
}

/// `call`: an HTTP request from a worker. It succeeds on a status of 2xx; its outputs are `status` and `body`, the answer
/// as JSON where it is that, else as text.
#[derive(Clone, Debug)]
pub struct CallTask {
    /// `method`: GET, POST, PUT, PATCH, DELETE or HEAD.
    pub method: String,
    /// Where to: http or https.
    pub url: Template,
    /// `headers`, by name.
    pub headers: BTreeMap<String, Template>,
    /// `json`: the body.
    pub json: Option<ValueTemplate>,
}

/// `select`: the best instance of a matrix; its outputs, metrics and artifacts become the step's own.
#[derive(Clone, Debug)]
pub struct Select {
    /// The place of the step with the matrix.
    pub from: usize,
    /// What to compare by: a number, over an instance's `metrics`, `outputs` and `matrix`.
    pub by: Expression,
    /// Which end is best.
    pub order: SelectOrder,
}

/// Which end of a comparison is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectOrder {
    /// The greatest.
    Max,
    /// The least.
    Min,
}

/// `workflow`: a run of another workflow. It succeeds when that run does; the run's `outputs` become the step's own.
#[derive(Clone, Debug)]
pub struct ChildRun {
    /// `name`: the workflow, registered when the step starts.
    pub name: String,
    /// `params` of the run.
    pub params: BTreeMap<String, Template>,
}

/// What a `run` step starts.
#[derive(Clone, Debug)]
pub enum Command {
    /// A program and its arguments; templates stay one argument each.
    Arguments(Vec<Template>),
    /// Text for `sh -c`; never holds a template.
    Shell(String),
}

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often the step is tried in all; 1 means once.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles for each further one.
    pub backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
}

/// `approval`.
#[derive(Clone, Debug)]
pub struct Approval {
    /// Who may decide, by token name; empty means anyone with the operator role.
    pub from: Vec<String>,
    /// How long to wait; without it for ever.
    pub timeout: Option<Duration>,
    /// What silence means.
    pub on_timeout: OnTimeout,
}

/// What silence means to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// No (the default).
    Reject,
    /// Yes.
    Approve,
}

/// `promote`.
#[derive(Clone, Debug)]
pub struct Promote {
    /// The candidate: one `${{ steps.NAME.artifacts.NAME }}`.
    pub artifact: Template,
    /// The step that made the candidate, and the artifact's name there.
    pub candidate: (usize, String),
    /// The alias to move.
    pub alias: String,
    /// Places of the gates that stand between the candidate and it, directly or through other steps; at least one.
    pub gates: Vec<usize>,
}

/// `emit`.
#[derive(Clone, Debug)]
pub struct Emit {
    /// The event's `type`.
    pub kind: Template,
    /// The event's `subject`.
    pub subject: Option<Template>,
    /// The event's `data`, templates inside its strings.
    pub data: BTreeMap<String, ValueTemplate>,
}
