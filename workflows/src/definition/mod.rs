//! A workflow that is known to be sound. [`Workflow::parse_with`] and its shorter forms are the only way to get one, so
//! nothing downstream checks again: steps refer to steps that exist, the graph has no cycle, expressions parse, promotion
//! is gated.
//!
//! `language` lists the keys, `raw` reads YAML, `check` makes workflows of it, `schema` tells editors; the other files say
//! what a part of a workflow is. Must never happen here: reading files or half-accepting a file. A file has problems, all of them listed,
//! or is sound.

mod check;
pub mod diagnostics;
mod evaluate;
mod graph;
pub mod language;
mod matrix;
mod raw;
pub mod schema;
mod sources;
mod steps;
mod triggers;
mod validate;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

pub use crate::gate::Direction;
pub use diagnostics::{Position, Problem, Problems};
pub use evaluate::{ColumnTest, EvaluateTask, EvaluatedMetric, Examples, Metric};
pub use matrix::{Axis, Matrix, MatrixValues};
pub use sources::{Files, NoFiles, Sources};
pub use steps::{Approval, ChildRun, Emit, OnTimeout, Promote, Select, SelectOrder, Step, Verb, Watch};
pub use triggers::{BatchRule, CatchUp, CronTrigger, EventTrigger, JoinTrigger, OnExpire, SumRule, Trigger};
pub use validate::{
    Against, Amount, Bounds, Change, ColumnRule, ColumnType, DataCheck, DataFormat, DriftMethod, Inspect,
    Severity, Usual, ValidateTask,
};
pub use work::{Cache, CallTask, Command, HostNeeds, Packages, Python, Retry, RunTask, Task, Work};

use crate::evaluation::Question;
use crate::expression::Expression;
use crate::template::Template;

/// The largest workflow file, in bytes; the files it uses may have as much each.
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
    /// `priority`: how urgent its steps are to workers, from 0 to 100; see [`crate::placement::Claimant`].
    pub priority: u32,
    /// The steps, in the file's order, those of `finally` last. `needs` point into this list; there is no cycle.
    pub steps: Vec<Step>,
    /// `outputs`: what a workflow that runs this one as a step gets, rendered when the run ends.
    pub outputs: BTreeMap<String, Template>,
    /// The text all this was read from.
    pub sources: Sources,
}

impl Workflow {
    /// Reads and checks a file of exactly one workflow that uses no other file.
    ///
    /// # Errors
    /// Every problem in the file at once, in the file's order, each with its position and a hint.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        Self::parse_with(text, &NoFiles)
    }

    /// Reads and checks a file of exactly one workflow; `files` gives those that its steps use.
    ///
    /// # Errors
    /// Every problem at once: those of the file in its order, then those of the files it uses, which name their file.
    pub fn parse_with(text: &str, files: &dyn Files) -> Result<Self, Problems> {
        check::one(text, files)
    }

    /// Reads and checks a file of one workflow per YAML document, none of which uses another file. At least one is
    /// returned, in the file's order; their names differ.
    ///
    /// # Errors
    /// Those of [`Workflow::parse`]; positions count in the whole file.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Problems> {
        Self::parse_all_with(text, &NoFiles)
    }

    /// [`Workflow::parse_all`] with the files that steps use.
    ///
    /// # Errors
    /// Those of [`Workflow::parse_with`]; positions count in the whole file.
    pub fn parse_all_with(text: &str, files: &dyn Files) -> Result<Vec<Self>, Problems> {
        check::all(text, files)
    }

    /// The place of the step with this name.
    pub fn step_index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// The secrets that its steps name, each with the step.
    pub fn secrets(&self) -> Vec<(String, String)> {
        let of = |step: &Step| {
            let named = step.verb.work().map(|work| work.secrets.clone()).unwrap_or_default();
            let step = step.name.clone();
            named.into_iter().map(move |secret| (step.clone(), secret))
        };
        self.steps.iter().flat_map(of).collect()
    }

    /// What the gates behind an `evaluate` step ask of it, each question once: of metrics it can count, in slices it makes.
    pub fn questions(&self, step: usize, examples: &Examples) -> Vec<Question> {
        let mut questions = Vec::new();
        for (index, other) in self.steps.iter().enumerate() {
            let Verb::Gate(gate) = &other.verb else { continue };
            let asked: Vec<Question> =
                gate.questions().into_iter().filter(|asked| examples.can_answer(asked)).collect();
            if asked.is_empty() || !self.ancestors(index).contains(&step) {
                continue;
            }
            for question in asked {
                if !questions.contains(&question) {
                    questions.push(question);
                }
            }
        }
        questions
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
