//! Expressions and templates of a file: parsed where they stand, and, once all steps are known, checked for what they
//! read. An expression sees only what will exist when it is evaluated; must never happen here: evaluation.

use super::super::diagnostics::{Findings, Position, did_you_mean};
use super::super::raw::{Node, Raw, Scalar};
use super::fields::text;
use super::steps::StepDraft;
use crate::expression::{Expression, ExpressionError};
use crate::template::{Template, ValueTemplate};

/// Where an expression stands, which decides what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `where` and `by` of a trigger: the event's attributes.
    Event,
    /// `params` of a trigger: the batch.
    Batch,
    /// `concurrency.key`: params and the batch.
    Key,
    /// A step, by its place in the file: everything that is settled before it.
    Step(usize),
    /// The `if` of a step: likewise, and how its needs came out.
    Condition(usize),
}

/// What one expression reads, kept until the steps are known.
pub(super) struct Read {
    place: Place,
    paths: Vec<(Vec<String>, Position)>,
}

/// What is known of a file when its expressions are checked.
pub(super) struct Known<'k> {
    pub(super) params: &'k [String],
    pub(super) steps: &'k [StepDraft],
    pub(super) has_model: bool,
    /// Whether the first step waits for the second, directly or through others.
    pub(super) is_before: &'k dyn Fn(usize, usize) -> bool,
}

/// Gathers what expressions read.
#[derive(Default)]
pub(super) struct Reads {
    reads: Vec<Read>,
}

const STEP_PARTS: [&str; 5] = ["state", "outputs", "metrics", "artifacts", "verdict"];
const BATCH_PARTS: [&str; 4] = ["key", "count", "first", "last"];

impl Reads {
    /// A bare expression.
    pub(super) fn expression(
        &mut self,
        node: &Node<'_>,
        what: &str,
        place: Place,
        f: &mut Findings,
    ) -> Option<Expression> {
        let scalar = text(node, what, f)?;
        if Template::is_in(&scalar.text) {
            f.add_with_hint(
                "expression",
                node.position,
                format!("`{what}` is an expression already"),
                "write it without `${{ }}`",
            );
            return None;
        }
        match Expression::parse(&scalar.text) {
            Ok(expression) => {
                self.keep(&expression, scalar, node.position, 0, place, f);
                Some(expression)
            }
            Err(error) => {
                report("expression", scalar, node.position, &error, f);
                None
            }
        }
    }

    /// Text with `${{ }}` in it. A number or boolean without quotes keeps its type.
    pub(super) fn template(
        &mut self,
        node: &Node<'_>,
        what: &str,
        place: Place,
        f: &mut Findings,
    ) -> Option<Template> {
        let scalar = text(node, what, f)?;
        let template = match Template::parse(&scalar.text) {
            Ok(template) => template,
            Err(error) => {
                report("template", scalar, node.position, &error, f);
                return None;
            }
        };
        let mut from = 0;
        for expression in template.expressions() {
            let offset = scalar.text[from..].find(expression.source()).map_or(from, |found| from + found);
            self.keep(expression, scalar, node.position, offset, place, f);
            from = offset + expression.source().len();
        }
        Some(template)
    }

    /// A value whose strings are templates.
    pub(super) fn value(
        &mut self,
        node: &Node<'_>,
        what: &str,
        place: Place,
        f: &mut Findings,
    ) -> Option<ValueTemplate> {
        match &node.value {
            Raw::Broken => None,
            Raw::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.value(item, what, place, f)).collect();
                items.into_iter().collect::<Option<_>>().map(ValueTemplate::List)
            }
            Raw::Map(entries) => {
                let fields: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| Some((key.name.clone(), self.value(value, &key.name, place, f)?)))
                    .collect();
                fields.into_iter().collect::<Option<_>>().map(ValueTemplate::Object)
            }
            Raw::Scalar(scalar) => {
                let literal = super::fields::json(node, f)?;
                if literal.is_string() && !scalar.text.is_empty() {
                    self.template(node, what, place, f).map(ValueTemplate::Text)
                } else {
                    Some(ValueTemplate::Literal(literal))
                }
            }
        }
    }

    fn keep(
        &mut self,
        expression: &Expression,
        scalar: &Scalar<'_>,
        position: Position,
        offset: usize,
        place: Place,
        f: &mut Findings,
    ) {
        let source = expression.source();
        if expression.reads_needs() && !matches!(place, Place::Condition(_)) {
            f.add(
                "expression",
                position,
                "`succeeded()`, `failed()` and `always()` are for the `if` of a step",
            );
        }
        let paths = expression.references().into_iter().map(|path| {
            let dotted = path.join(".");
            let found = source.find(&dotted).map(|at| (at, dotted.len()));
            let found = found
                .or_else(|| path.first().and_then(|root| Some((source.find(root.as_str())?, root.len()))));
            let place = found.and_then(|(at, length)| scalar.position_of(offset + at, length));
            (path, place.unwrap_or(position))
        });
        self.reads.push(Read { place, paths: paths.collect() });
    }

    /// Checks everything that was read.
    pub(super) fn check(&self, known: &Known<'_>, f: &mut Findings) {
        for read in &self.reads {
            for (path, position) in &read.paths {
                known.check(path, *position, read.place, f);
            }
        }
    }
}

fn report(code: &str, scalar: &Scalar<'_>, position: Position, error: &ExpressionError, f: &mut Findings) {
    let exact = error.offset.and_then(|offset| scalar.position_of(offset, 1));
    f.add(code, exact.unwrap_or(position), error.message.clone());
}

impl Known<'_> {
    fn check(&self, path: &[String], position: Position, place: Place, f: &mut Findings) {
        let Some((root, rest)) = path.split_first() else { return };
        let (roots, seen): (&[&str], &str) = match place {
            Place::Event => return check_attribute(root, position, f),
            Place::Batch => (&["batch"], "the params of a trigger see"),
            Place::Key => (&["params", "batch"], "the key sees"),
            Place::Step(_) | Place::Condition(_) => {
                (&["params", "steps", "batch", "champion", "run"], "a step sees")
            }
        };
        if root == "matrix" {
            f.add("not-supported", position, "`matrix` is not supported yet");
            return;
        }
        if !roots.contains(&root.as_str()) {
            let hint = did_you_mean(root, roots.iter().copied())
                .unwrap_or_else(|| format!("{seen} {}; text goes into quotes", roots.join(", ")));
            f.add_with_hint("unknown-name", position, format!("`{root}` is not known here"), hint);
            return;
        }
        match (root.as_str(), place) {
            ("params", _) => self.check_param(rest, position, f),
            ("batch", _) => check_batch(rest, position, f),
            ("champion", _) if !self.has_model => f.add_with_hint(
                "missing-key",
                position,
                "`champion` needs a model to be the champion of",
                "name the registered model at the top: `model: churn`",
            ),
            ("steps", Place::Step(step) | Place::Condition(step)) => self.check_step(rest, step, position, f),
            _ => {}
        }
    }

    fn check_param(&self, rest: &[String], position: Position, f: &mut Findings) {
        let Some(name) = rest.first() else { return };
        if !self.params.contains(name) {
            let dashed = self.params.iter().find(|param| param.starts_with(&format!("{name}-")));
            let hint = match dashed {
                Some(param) => Some(format!("a name with `-` is written params[\"{param}\"]")),
                None => did_you_mean(name, self.params.iter().map(String::as_str)),
            };
            let hint =
                hint.unwrap_or_else(|| format!("declare it: `params: {{ {name}: {{ type: string }} }}`"));
            f.add_with_hint("unknown-param", position, format!("there is no param `{name}`"), hint);
        }
    }

    fn check_step(&self, rest: &[String], reader: usize, position: Position, f: &mut Findings) {
        let Some((name, rest)) = rest.split_first() else {
            f.add_with_hint(
                "unknown-step",
                position,
                "`steps` is read without a step's name",
                "write steps.NAME.metrics.NAME",
            );
            return;
        };
        let Some(step) = self.steps.iter().position(|step| step.name == *name) else {
            let dashed = self.steps.iter().find(|step| step.name.starts_with(&format!("{name}-")));
            let message = format!("there is no step `{name}`");
            match dashed {
                Some(step) => {
                    let hint = format!("a name with `-` is written steps[\"{}\"]", step.name);
                    f.add_with_hint("unknown-step", position, message, hint);
                }
                None => {
                    f.add_unknown(
                        "unknown-step",
                        position,
                        message,
                        name,
                        self.steps.iter().map(|s| s.name.as_str()),
                    );
                }
            }
            return;
        };
        let reader_name = &self.steps[reader].name;
        if step == reader {
            f.add("not-ancestor", position, format!("step `{name}` cannot read what it has not done yet"));
        } else if !(self.is_before)(step, reader) {
            f.add_with_hint(
                "not-ancestor",
                position,
                format!("step `{reader_name}` reads `{name}` but does not wait for it"),
                format!("add it to the needs of `{reader_name}`: `needs: [{name}]`"),
            );
        }
        self.check_step_part(&self.steps[step], rest, position, f);
    }

    fn check_step_part(&self, step: &StepDraft, rest: &[String], position: Position, f: &mut Findings) {
        let name = &step.name;
        let Some(part) = rest.first() else {
            let hint = format!("write steps.{name}.metrics.NAME or one of {}", STEP_PARTS.join(", "));
            f.add_with_hint("unknown-name", position, format!("`steps.{name}` is no value of its own"), hint);
            return;
        };
        if !STEP_PARTS.contains(&part.as_str()) {
            let message = format!("a step has {}, but no `{part}`", STEP_PARTS.join(", "));
            f.add_unknown("unknown-name", position, message, part, STEP_PARTS);
            return;
        }
        if part == "verdict" && !matches!(step.verb, Some("gate" | "approval") | None) {
            let verb = step.verb.unwrap_or_default();
            f.add("unknown-name", position, format!("`{name}` is a {verb} step: only a gate has a verdict"));
        }
        if part == "artifacts"
            && let Some(artifact) = rest.get(1)
            && step.verb.is_some()
            && !step.artifacts.contains(artifact)
        {
            let message = format!("step `{name}` declares no artifact `{artifact}`");
            let hint =
                did_you_mean(artifact, step.artifacts.iter().map(String::as_str)).unwrap_or_else(|| {
                    format!("declare it there: `artifacts: {{ {artifact}: path/in/its/folder }}`")
                });
            f.add_with_hint("unknown-artifact", position, message, hint);
        }
    }
}

fn check_attribute(root: &str, position: Position, f: &mut Findings) {
    if matches!(root, "params" | "steps" | "batch" | "matrix" | "champion" | "run") {
        f.add_with_hint(
            "unknown-name",
            position,
            format!("`{root}` is not known here"),
            "`where` and `by` see the event's attributes: type, source, subject, id, time, data and its extensions",
        );
    } else if !root.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        f.add_with_hint(
            "unknown-name",
            position,
            format!("`{root}` is no attribute of an event"),
            "attributes are lower-case letters and digits, such as type, subject and data",
        );
    }
}

fn check_batch(rest: &[String], position: Position, f: &mut Findings) {
    let Some(part) = rest.first() else { return };
    if part == "sum" {
        f.add("not-supported", position, "`batch.sum` is not supported yet");
    } else if !BATCH_PARTS.contains(&part.as_str()) {
        let message = format!("a batch has {}, but no `{part}`", BATCH_PARTS.join(", "));
        f.add_unknown("unknown-name", position, message, part, BATCH_PARTS);
    }
}

/// The step and the artifact of a template that is one `${{ steps.NAME.artifacts.NAME }}`.
pub(super) fn artifact_of(
    template: &Template,
    node: &Node<'_>,
    what: &str,
    f: &mut Findings,
) -> Option<(String, String)> {
    if let Some([steps, step, artifacts, artifact]) =
        template.sole_expression().and_then(Expression::sole_path)
        && steps == "steps"
        && artifacts == "artifacts"
    {
        return Some((step.clone(), artifact.clone()));
    }
    f.add_with_hint(
        "value",
        node.position,
        format!("`{what}` must be an artifact of an earlier step"),
        "write one `${{ steps.NAME.artifacts.NAME }}` and nothing else",
    );
    None
}
