//! A node of the graph, and the verbs that the orchestrator decides itself. What runs on a worker is in `work`.
//! Must never happen here: reading a file, or deciding how a step comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Matrix, RunTask, Task, Work};
use crate::expression::Expression;
use crate::gate::Gate;
use crate::pattern::Pattern;
use crate::template::{Template, ValueTemplate};
use crate::watch::WatchCheck;

/// A node of the graph.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name, unique in the workflow.
    pub name: String,
    /// Places in [`Workflow::steps`](super::Workflow::steps) of the steps it waits for, in the file's order.
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
    /// The values handed to the files it uses, in an order in which each reads only those before it, names being unique.
    /// Whoever evaluates this step's expressions evaluates these first, one after the other, and shows each under the
    /// root `with`; what they read is read by the step.
    pub with: Vec<(String, ValueTemplate)>,
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

    /// The process it runs on a worker, if it runs one.
    pub fn process(&self) -> Option<&RunTask> {
        match &self.work()?.task {
            Task::Run(run) => Some(run),
            Task::Call(_) | Task::Validate(_) | Task::Evaluate(_) => None,
        }
    }
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

/// `approval`.
#[derive(Clone, Debug)]
pub struct Approval {
    /// Who may decide, by the name of a token or of a group; empty means anyone with the operator role.
    pub from: Vec<String>,
    /// `two_person`: whoever started the run by hand cannot approve it.
    pub two_person: bool,
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
    /// `watch`: what takes it back afterwards.
    pub watch: Option<Watch>,
}

/// `watch`: an event within some time takes a promotion back, if the alias still points to what was promoted.
#[derive(Clone, Debug)]
pub struct Watch {
    /// `for`: how long after the promotion an event may be received.
    pub lasts: Duration,
    /// `rollback_on`: what the event looks like.
    pub rollback_on: Pattern,
    /// What must hold for such an event; none: it takes the promotion back whatever it says.
    pub checks: Vec<WatchCheck>,
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
