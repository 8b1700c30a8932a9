//! CEL expressions (Common Expression Language, cel-spec), bounded: what a workflow file may compute.
//!
//! An expression is other people's text over other people's data. Its size, depth and nesting are bounded when it is
//! parsed and its work when it is evaluated, so that neither can use up time, memory or the stack. Whatever cannot be
//! evaluated is an error; must never happen here: an error taken for false.

mod cost;
mod durations;
mod infer;
mod kinds;
mod spans;
mod syntax;
mod types;
mod values;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, DYN_TYPE};
use cel::{Context, Env, ExecutionError};
use serde_json::{Map, Value};

use cost::Meter;
use syntax::Checked;

pub use types::{Record, Type, TypeProblem, Types, Typing};

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2048;

/// The functions and macros an expression may call: CEL's own, where `duration` takes days as well (`2d`), and
/// `succeeded`, `failed` and `always`. None reads a clock.
pub const FUNCTIONS: [&str; 35] = [
    "all",
    "always",
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "exists",
    "existsOne",
    "exists_one",
    "failed",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "int",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
    "succeeded",
    "timestamp",
    "type",
    "uint",
];

/// Address space for a thread that parses, or evaluates what is deep; only what is touched is used. The parser needs
/// about 9 MiB for its own deepest input in a debug build.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Trees up to this depth are evaluated on the caller's stack: they need less than 512 KiB in a debug build.
const INLINE_DEPTH: usize = 20;

/// A parsed expression whose size and depth are within bounds.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    checked: Arc<Checked>,
}

/// What an expression can see: root names and their values, and how the needs of the step came out.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Values by root name: `params`, `steps`, `batch`, `champion`, `run`, or an event's attributes.
    pub roots: Map<String, Value>,
    /// For `succeeded()` and `failed()`.
    pub needs: Needs,
    /// Values that would stand under `with`, had they not failed, and why each did.
    pub failed_with: BTreeMap<String, String>,
}

/// How the steps that a step needs came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Every need succeeded or was skipped by its own `if`.
    pub succeeded: bool,
    /// A need failed or was rejected.
    pub failed: bool,
}

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Byte offset in the expression's text, when known.
    pub offset: Option<usize>,
    /// How many bytes from there on are wrong; at least 1.
    pub length: usize,
    /// What would be right.
    pub hint: Option<String>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None, length: 1, hint: None }
    }

    pub(crate) fn at(message: impl Into<String>, offset: usize) -> Self {
        Self { offset: Some(offset), ..Self::new(message) }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Expression {
    /// Parses and bounds an expression: at most [`EXPRESSION_BYTES_MAX`], 500 nodes, 64 levels, and two loops
    /// (`all`, `exists`, `map`, `filter`) inside each other.
    ///
    /// # Errors
    /// What is not CEL, calls a function that is not one of [`FUNCTIONS`], or exceeds a bound; the first of it.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        let first = |wrong: Vec<ExpressionError>| wrong.into_iter().next();
        Self::parse_fully(source).map_err(|wrong| {
            first(wrong).unwrap_or_else(|| ExpressionError::new("the expression is not CEL"))
        })
    }

    /// Like [`Expression::parse`], for people who will mend it.
    ///
    /// # Errors
    /// All that is wrong, in the order of the text; at least one thing.
    pub fn parse_fully(source: &str) -> Result<Self, Vec<ExpressionError>> {
        if source.trim().is_empty() {
            return Err(vec![ExpressionError::at("the expression is empty", 0)]);
        }
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(vec![ExpressionError::new(format!(
                "the expression is {} bytes long; at most {EXPRESSION_BYTES_MAX} are allowed",
                source.len()
            ))]);
        }
        let checked = on_big_stack(|| Ok(syntax::check(source))).map_err(|error| vec![error])??;
        Ok(Self { source: source.to_owned(), checked: Arc::new(checked) })
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value over a scope. Timestamps and durations become text (RFC 3339; seconds, as in `90s`).
    ///
    /// # Errors
    /// A missing key, an unknown name, types that do not go together, a number that is not finite, a division by
    /// zero, an overflow, or too much work: never a value in their place. `a || b` and `a && b` need only the side
    /// that decides, as CEL defines.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        if self.checked.depth <= INLINE_DEPTH {
            self.resolve(scope)
        } else {
            on_big_stack(|| self.resolve(scope))
        }
    }

    /// The value as a condition; anything but a boolean is an error.
    ///
    /// # Errors
    /// Those of [`Expression::evaluate`], and a value that is not true or false.
    pub fn holds(&self, scope: &Scope) -> Result<bool, ExpressionError> {
        let value = self.evaluate(scope)?;
        value.as_bool().ok_or_else(|| {
            let is = describe(&value);
            ExpressionError::new(format!("`{}` must be true or false, but is {is}", shorten(&self.source)))
        })
    }

    /// The type of its value over names of these types, and all that cannot go well, without evaluating anything.
    ///
    /// A problem is what always fails or is always false, whatever the values: a name that does not exist, a
    /// comparison of a number with text, a function with the wrong arguments, a constant that cannot be read. What
    /// may go well is none: `Dyn` goes with everything, and null is compared with anything.
    ///
    /// ```
    /// use refit_workflows::expression::{Expression, Type, Types};
    ///
    /// let verdict = Type::Word(&["pass", "fail", "inconclusive", "error"]);
    /// let gate = Type::record("step `gate`", [("verdict", verdict), ("metrics", Type::map(Type::Number))]);
    /// let types = Types::new().with("steps", Type::record("this workflow", [("gate", gate)]));
    ///
    /// let condition = Expression::parse("steps.gate.verdict == 'pas' && steps.gate.metrics.auc > '0.9'").unwrap();
    /// let typing = condition.check(&types);
    /// assert_eq!(typing.result, Type::Bool);
    /// let found: Vec<&str> = typing
    ///     .problems
    ///     .iter()
    ///     .map(|problem| &condition.source()[problem.offset..problem.offset + problem.length])
    ///     .collect();
    /// assert_eq!(found, ["'pas'", "steps.gate.metrics.auc > '0.9'"]);
    /// ```
    pub fn check(&self, types: &Types) -> Typing {
        let infer = || infer::infer(&self.source, &self.checked.written, &self.checked.spans, types);
        if self.checked.depth <= INLINE_DEPTH {
            return infer();
        }
        on_big_stack(|| Ok(infer())).unwrap_or_else(|error| Typing {
            result: Type::Dyn,
            problems: vec![TypeProblem {
                code: "type",
                message: error.message,
                hint: None,
                offset: 0,
                length: self.source.len(),
            }],
            is_certain: false,
        })
    }

    /// Like [`Expression::check`], and what it leaves behind must be of a type: [`Type::Bool`] for a condition,
    /// [`Type::Scalar`] for a key. With other problems, the type of the whole is only complained of when it is known.
    pub fn check_as(&self, types: &Types, wanted: &Type) -> Typing {
        let mut typing = self.check(types);
        if !wanted.accepts(&typing.result) {
            let problem = infer::unwanted(&self.source, &typing, wanted);
            typing.problems.push(problem);
        }
        typing
    }

    /// The paths it reads, from the root: `["steps", "train", "metrics", "auc"]`, in the order of the text and
    /// without repetition. A constant index (`steps["train"]`) is a part of the path; any other index ends it.
    pub fn references(&self) -> Vec<Vec<String>> {
        self.checked.references.clone()
    }

    /// The path, when the expression is one path and nothing else: `steps.train.artifacts.model`.
    pub fn sole_path(&self) -> Option<&[String]> {
        self.checked.sole_path.as_deref()
    }

    /// Whether it calls `succeeded()`, `failed()` or `always()`, and so decides itself what a failed need means.
    pub fn reads_needs(&self) -> bool {
        self.checked.reads_needs
    }

    fn resolve(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        let meter = Meter::default();
        let resolved = self.run(scope, &meter);
        // Asked of the meter, not of the result: `||` and `exists` would take the refusal for a mere error on one side.
        if meter.is_exhausted() {
            return Err(ExpressionError::new(format!(
                "`{}` needs too much work: it was stopped after {} units",
                shorten(&self.source),
                cost::BUDGET
            )));
        }
        let value = resolved.map_err(|error| values::explain(&self.source, &error, scope))?;
        values::to_json(&value).map_err(|what| {
            ExpressionError::new(format!("`{}` gives {what}, which is no value here", shorten(&self.source)))
        })
    }

    fn run(&self, scope: &Scope, meter: &Meter) -> Result<cel::Value, ExecutionError> {
        let mut context = Context::with_env(environment());
        for root in &self.checked.roots {
            if let Some(value) = scope.roots.get(root) {
                context.add_variable_as_val(root.as_str(), values::from_json(value));
            }
        }
        context.add_variable_as_val(cost::METER, Box::new(meter.clone()));
        context.add_variable_as_val(syntax::SUCCEEDED, Box::new(CelBool::from(scope.needs.succeeded)));
        context.add_variable_as_val(syntax::FAILED, Box::new(CelBool::from(scope.needs.failed)));
        cel::Value::resolve(&self.checked.tree, &context)
    }
}

/// The language: the standard library without optional values, and the meter's function.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut environment = Env::stdlib().with_optional_support(false);
        // Cannot be taken already: no other function's name begins with `@`. Were it, every use of it would be an
        // error at evaluation, never an unmetered run.
        let _ = environment.add_overload(cost::TICK, "tick", vec![DYN_TYPE, DYN_TYPE], cost::tick);
        let _ = environment.add_overload(durations::READ, "read_duration", vec![DYN_TYPE], durations::read);
        Arc::new(environment)
    });
    Arc::clone(&ENVIRONMENT)
}

/// Runs `work` on a thread with a stack that the deepest allowed input cannot use up. The caller waits: the result is
/// as deterministic as `work`.
fn on_big_stack<T: Send>(
    work: impl FnOnce() -> Result<T, ExpressionError> + Send,
) -> Result<T, ExpressionError> {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(threads, work)
            .map_err(|error| {
                ExpressionError::new(format!("failed to start a thread for the expression: {error}"))
            })?;
        thread.join().unwrap_or_else(|_| Err(ExpressionError::new("failed to process the expression")))
    })
}

/// The kind of a JSON value, for messages.
pub(crate) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Text for a message: at most 120 characters of it.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(120) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
