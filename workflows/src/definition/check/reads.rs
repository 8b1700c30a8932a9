//! Expressions and templates of a file: parsed where they stand, and what they read kept until all steps are known.
//! Whether they may read it is decided in `known`; must never happen here: evaluation.

use std::rc::Rc;

use super::super::diagnostics::{FileNumber, Findings, Spot};
use super::super::raw::{Node, Raw, Scalar};
use super::fields::text;
use super::types::{self, Typed};
use crate::expression::{Expression, ExpressionError, Type};
use crate::template::{Template, ValueTemplate};

/// Where an expression stands, which decides what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `where`, `by` and `batch.sum.of` of a trigger: the event's attributes.
    Event,
    /// `params` of a trigger: the batch.
    Batch,
    /// `concurrency.key`: params and the batch.
    Key,
    /// `outputs` of the workflow: everything a run ends with.
    Outputs,
    /// A step, by its place in the file: everything that is settled before it, and its instance of a matrix.
    Step(usize),
    /// The `if` of a step: likewise without an instance, and how its needs came out.
    Condition(usize),
    /// The `matrix` of a step: everything that is settled before it.
    Matrix(usize),
    /// `select.by` of a step: one instance of the matrix.
    Instance(usize),
    /// A check of a watch: the event's attributes, and the versions it judges.
    Watch,
}

/// What one expression reads.
struct Read {
    place: Place,
    file: FileNumber,
    paths: Vec<(Path, Spot)>,
}

/// A path that an expression reads, from its root.
pub(super) struct Path {
    pub(super) names: Vec<String>,
    /// It stands right behind a `-`, and may be the end of a name that was meant.
    pub(super) is_behind_dash: bool,
}

/// Gathers what expressions read.
#[derive(Default)]
pub(super) struct Reads {
    reads: Vec<Read>,
    typed: Vec<Typed>,
    /// The values handed to the files that the step being read uses; see [`super::super::Step::with`].
    pub(super) handed: Vec<(String, ValueTemplate)>,
}

impl Reads {
    /// What the step that is being read has been handed by this name.
    pub(super) fn handed(&self, name: &str) -> Option<&ValueTemplate> {
        self.handed.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// What was read.
    pub(super) fn all(&self) -> impl Iterator<Item = (Place, FileNumber, &Path, Spot)> {
        self.reads
            .iter()
            .flat_map(|read| read.paths.iter().map(|(path, spot)| (read.place, read.file, path, *spot)))
    }

    /// The expressions, where they were written.
    pub(super) fn typed(&self) -> &[Typed] {
        &self.typed
    }

    /// A bare expression.
    pub(super) fn expression(
        &mut self,
        node: &Node,
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
        match Expression::parse_fully(&scalar.text) {
            Ok(expression) => {
                let wanted = types::wanted(what, place);
                self.keep(&expression, wanted, (&Rc::new(scalar.clone()), 0, node.position), place, f);
                Some(expression)
            }
            Err(wrong) => {
                wrong.iter().for_each(|error| report("expression", scalar, node.position, error, f));
                None
            }
        }
    }

    /// Text with `${{ }}` in it. A number or boolean without quotes keeps its type.
    pub(super) fn template(
        &mut self,
        node: &Node,
        what: &str,
        place: Place,
        f: &mut Findings,
    ) -> Option<Template> {
        let scalar = text(node, what, f)?;
        let template = match Template::parse_fully(&scalar.text) {
            Ok(template) => template,
            Err(wrong) => {
                wrong.iter().for_each(|error| report("template", scalar, node.position, error, f));
                return None;
            }
        };
        let shared = Rc::new(scalar.clone());
        let mut from = 0;
        for expression in template.expressions() {
            let offset = scalar.text[from..].find(expression.source()).map_or(from, |found| from + found);
            self.keep(expression, Type::Dyn, (&shared, offset, node.position), place, f);
            from = offset + expression.source().len();
        }
        // A value handed on as it is: what stands for it is the very template that gives it.
        match passed_on(&template).and_then(|name| self.handed(name)) {
            Some(ValueTemplate::Text(given)) => Some(given.clone()),
            Some(ValueTemplate::List(_) | ValueTemplate::Object(_) | ValueTemplate::Literal(_)) | None => {
                Some(template)
            }
        }
    }

    /// A value whose strings are templates.
    pub(super) fn value(
        &mut self,
        node: &Node,
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

    /// The step and the artifact of a template that is one `${{ steps.NAME.artifacts.NAME }}`.
    pub(super) fn artifact_of(
        &self,
        template: &Template,
        node: &Node,
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
        // A value that was not handed over has been reported.
        if passed_on(template).is_none_or(|name| self.handed(name).is_some()) {
            f.add_with_hint(
                "value",
                node.position,
                format!("`{what}` must be an artifact of an earlier step"),
                "write one `${{ steps.NAME.artifacts.NAME }}` and nothing else",
            );
        }
        None
    }

    fn keep(
        &mut self,
        expression: &Expression,
        wanted: Type,
        (scalar, offset, position): (&Rc<Scalar>, usize, Spot),
        place: Place,
        f: &mut Findings,
    ) {
        let source = expression.source();
        if expression.reads_needs() && !matches!(place, Place::Condition(_)) {
            f.add_with_hint(
                "expression",
                position,
                "`succeeded()`, `failed()` and `always()` are for the `if` of a step",
                "a step reads how another ended as steps.NAME.state",
            );
        }
        let paths = expression.references().into_iter().map(|path| {
            let dotted = path.join(".");
            let found = source.find(&dotted).map(|at| (at, dotted.len()));
            let found = found
                .or_else(|| path.first().and_then(|root| Some((source.find(root.as_str())?, root.len()))));
            let place = found.and_then(|(at, length)| scalar.position_of(offset + at, length));
            let is_behind_dash = found.is_some_and(|(at, _)| source[..at].ends_with('-'));
            (Path { names: path, is_behind_dash }, place.unwrap_or(position))
        });
        let paths = paths.collect();
        self.reads.push(Read { place, file: position.file, paths });
        self.typed.push(Typed {
            place,
            expression: expression.clone(),
            wanted,
            scalar: Rc::clone(scalar),
            offset,
            spot: position,
        });
    }
}

/// An error in the text of a scalar, at its exact place.
pub(super) fn report(code: &str, scalar: &Scalar, position: Spot, error: &ExpressionError, f: &mut Findings) {
    let exact = error.offset.and_then(|offset| scalar.position_of(offset, error.length));
    let spot = exact.unwrap_or(position);
    match &error.hint {
        Some(hint) => f.add_with_hint(code, spot, error.message.clone(), hint),
        None => f.add(code, spot, error.message.clone()),
    }
}

/// The name of the value that a template hands on as it is: `${{ with.NAME }}`.
pub(super) fn passed_on(template: &Template) -> Option<&str> {
    match template.sole_expression()?.sole_path()? {
        [root, name] if root == "with" => Some(name),
        _ => None,
    }
}
