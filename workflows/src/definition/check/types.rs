//! Types of what expressions read, and what they must give: a comparison of a number with text is found before anything
//! runs. Names are the business of `known`, which knows the steps; what it tells is not told twice.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::diagnostics::{Findings, Spot};
use super::super::raw::Scalar;
use super::super::{Param, ParamType};
use super::known::{Known, VERSIONS};
use super::reads::{Place, Reads};
use super::steps::{Axes, StepDraft};
use crate::expression::{Expression, Type, Types};

const RUN_STATES: &[&str] =
    &["waiting", "running", "succeeded", "rejected", "failed", "cancelled", "coalesced"];
const STEP_STATES: &[&str] =
    &["blocked", "ready", "running", "waiting", "succeeded", "rejected", "failed", "skipped", "cancelled"];
const VERDICTS: &[&str] = &["pass", "fail", "inconclusive", "error"];

/// An expression where it was written, and what it must give.
pub(super) struct Typed {
    pub(super) place: Place,
    pub(super) expression: Expression,
    pub(super) wanted: Type,
    /// The text it stands in, and where there.
    pub(super) scalar: Rc<Scalar>,
    pub(super) offset: usize,
    pub(super) spot: Spot,
}

/// What an expression under this key must give.
pub(super) fn wanted(key: &str, place: Place) -> Type {
    match (key, place) {
        ("where" | "if" | "expr", _) => Type::Bool,
        ("by", Place::Instance(_)) | ("of", Place::Event) => Type::Number,
        ("by" | "key", _) => Type::Scalar,
        _ => Type::Dyn,
    }
}

/// Checks the types of everything that was read.
pub(super) fn check(known: &Known<'_>, params: &BTreeMap<String, Param>, reads: &Reads, f: &mut Findings) {
    let shared = Shared {
        params: Type::record("the params", params.iter().map(|(name, param)| (name, param_type(param)))),
        steps: Type::record("the steps", known.steps.iter().map(|step| (&step.name, step_type(step)))),
    };
    for typed in reads.typed() {
        // In a file with so much wrong none of this would be shown.
        if f.has_hints_enough() {
            return;
        }
        let typing = typed.expression.check_as(&shared.types(typed.place, known), &typed.wanted);
        // Names are `known`'s to tell.
        for problem in typing.problems.into_iter().filter(|problem| problem.code != "unknown-name") {
            let exact = typed.scalar.position_of(typed.offset + problem.offset, problem.length);
            let spot = exact.unwrap_or(typed.spot);
            match problem.hint {
                Some(hint) => f.add_with_hint(problem.code, spot, problem.message, hint),
                None => f.add(problem.code, spot, problem.message),
            }
        }
    }
}

/// What is the same wherever an expression stands; made once, because there may be thousands of steps.
struct Shared {
    params: Type,
    steps: Type,
}

impl Shared {
    fn types(&self, place: Place, known: &Known<'_>) -> Types {
        let with = || Types::new().with("with", Type::Dyn).with("params", self.params.clone());
        let of_run = || with().with("steps", self.steps.clone()).with("batch", batch()).with("run", run());
        let of_step = || of_run().with("champion", champion());
        match place {
            Place::Event => event(),
            Place::Watch => VERSIONS.into_iter().fold(event(), |types, name| types.with(name, version(name))),
            Place::Batch => Types::new().with("with", Type::Dyn).with("batch", batch()),
            Place::Key => with().with("batch", batch()),
            Place::Outputs => of_run(),
            Place::Condition(_) | Place::Matrix(_) => of_step(),
            Place::Step(step) => of_step().with("matrix", matrix(&known.steps[step])),
            Place::Instance(select) => {
                let from = known.steps[select].select_from;
                let axes = from.map_or(Type::Dyn, |from| matrix(&known.steps[from]));
                Types::new()
                    .with("metrics", Type::map(Type::Double))
                    .with("outputs", Type::map(Type::Dyn))
                    .with("artifacts", Type::map(Type::Dyn))
                    .with("matrix", axes)
            }
        }
    }
}

fn event() -> Types {
    let texts = ["id", "source", "type", "subject", "time", "specversion", "datacontenttype", "dataschema"];
    let types = texts
        .into_iter()
        .fold(Types::new(), |types, name| types.with(name, Type::String))
        .with("data", Type::Dyn)
        .with_others(Type::Scalar);
    // Told already: a trigger does not see these.
    ["params", "steps", "batch", "matrix", "champion", "run"]
        .into_iter()
        .fold(types, |types, name| types.with(name, Type::Dyn))
}

/// A version that a check of a watch sees.
fn version(name: &'static str) -> Type {
    let fields = [("version", Type::Int), ("metrics", Type::map(Type::Double))];
    Type::record(format!("`{name}`"), fields)
}

fn batch() -> Type {
    let fields = [
        ("key", Type::String),
        ("count", Type::Int),
        ("sum", Type::Double),
        ("first", Type::Dyn),
        ("last", Type::Dyn),
    ];
    Type::record("the batch", fields)
}

fn run() -> Type {
    let fields = [
        ("name", Type::String),
        ("number", Type::Int),
        ("workflow", Type::String),
        ("state", Type::Word(RUN_STATES)),
    ];
    Type::record("the run", fields)
}

fn champion() -> Type {
    let fields =
        [("version", Type::Int), ("metrics", Type::map(Type::Double)), ("artifacts", Type::map(Type::Dyn))];
    Type::record("the champion", fields)
}

fn matrix(step: &StepDraft) -> Type {
    match &step.axes {
        Axes::Named(axes) => Type::record("the matrix", axes.iter().map(|axis| (axis, Type::Dyn))),
        Axes::Open | Axes::Without => Type::Dyn,
    }
}

fn param_type(param: &Param) -> Type {
    // Stands for one whose declaration could not be read.
    if param.default.as_ref().is_some_and(serde_json::Value::is_null) {
        return Type::Dyn;
    }
    match param.kind {
        ParamType::String => Type::String,
        ParamType::Integer => Type::Int,
        ParamType::Number => Type::Number,
        ParamType::Boolean => Type::Bool,
    }
}

fn step_type(step: &StepDraft) -> Type {
    let results = |state: &'static [&'static str]| {
        [
            ("state", Type::Word(state)),
            ("outputs", Type::map(Type::Dyn)),
            ("metrics", Type::map(Type::Double)),
            ("artifacts", Type::map(Type::Dyn)),
        ]
    };
    let of_step = results(STEP_STATES).into_iter().chain([("verdict", Type::Word(VERDICTS))]);
    match step.axes {
        Axes::Without => Type::record("a step", of_step),
        Axes::Named(_) | Axes::Open => {
            let own = [("name", Type::String), ("matrix", matrix(step))];
            let instance = Type::record("an instance", results(STEP_STATES).into_iter().chain(own));
            Type::record("a step", of_step.chain([("instances", Type::list(instance))]))
        }
    }
}
