//! `matrix`, `max_parallel` and `min_success`: which instances a step has. Must never happen here: making them.

use serde_json::Value;

use super::super::diagnostics::{Findings, Spot};
use super::super::raw::{Node, Raw};
use super::super::{Axis, Matrix, MatrixValues};
use super::fields::{Fields, describe, json, key_is_name};
use super::reads::{Place, Reads};
use super::steps::{Axes, StepDraft};
use crate::template::Template;

/// The longest text that is a value of an axis, in bytes: it becomes part of the instance's name.
const VALUE_BYTES_MAX: usize = 200;

/// Reads the matrix of a step into its draft.
pub(super) fn matrix(
    fields: &Fields<'_>,
    index: usize,
    draft: &mut StepDraft,
    reads: &mut Reads,
    f: &mut Findings,
) {
    let max_parallel = fields.small_count("max_parallel", f);
    let min_success = fields.share("min_success", f);
    if let (Some(0.0), Some((_, node))) = (min_success, fields.get("min_success")) {
        f.add("share", node.position, "`min_success` is above 0%: a step of which nothing succeeded has not");
    }
    let Some((_, node)) = fields.get("matrix") else {
        for name in ["max_parallel", "min_success"] {
            if let Some((key, _)) = fields.get(name) {
                f.add("misplaced-key", key.position, format!("`{name}` goes with `matrix`"));
            }
        }
        return;
    };
    draft.axes = Axes::Open;
    let place = Place::Matrix(index);
    let values = match &node.value {
        Raw::Map(entries) => {
            draft.axes = Axes::Named(entries.iter().map(|(key, _)| key.name.clone()).collect());
            axes(node, entries.len(), place, reads, f)
        }
        Raw::Scalar(_) => list_template(node, "matrix", place, reads, f).map(MatrixValues::List),
        Raw::List(_) => {
            let hint = "name the axis: `matrix: { shard: [a, b] }`, read as matrix.shard";
            f.add_with_hint("wrong-type", node.position, "`matrix` is a mapping from axes to values", hint);
            None
        }
        Raw::Broken => None,
    };
    draft.matrix =
        values.map(|values| Matrix { values, max_parallel, min_success: min_success.unwrap_or(1.0) });
}

fn axes(
    node: &Node,
    count: usize,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<MatrixValues> {
    let fields = Fields::any(node, node.position, "`matrix`", f)?;
    if count == 0 {
        f.add("value", node.position, "a matrix has at least one axis, as in `{ depth: [4, 8] }`");
        return None;
    }
    let mut axes = Vec::new();
    for (key, node) in fields.entries() {
        key_is_name(key, f);
        let axis = match &node.value {
            Raw::List(items) => values(&key.name, items, node.position, f).map(Axis::Values),
            Raw::Scalar(_) => list_template(node, &key.name, place, reads, f).map(Axis::List),
            Raw::Map(_) => {
                let message = format!("the axis `{}` is a list of values, not a mapping", key.name);
                f.add("wrong-type", node.position, message);
                None
            }
            Raw::Broken => None,
        };
        axes.push(axis.map(|axis| (key.name.clone(), axis)));
    }
    let values = MatrixValues::Axes(axes.into_iter().collect::<Option<_>>()?);
    if let Some(combinations) = values.combinations().filter(|count| *count > Matrix::INSTANCES_MAX) {
        let most = Matrix::INSTANCES_MAX;
        let message =
            format!("the matrix has {combinations} combinations; a step has at most {most} instances");
        f.add("too-many", node.position, message);
        return None;
    }
    Some(values)
}

/// The values of an axis that is written out.
fn values(axis: &str, items: &[Node], position: Spot, f: &mut Findings) -> Option<Vec<Value>> {
    if items.is_empty() {
        f.add("value", position, format!("the axis `{axis}` has no values, so the step would never run"));
        return None;
    }
    let mut values: Vec<Value> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut sound = true;
    for item in items {
        let Some((value, name)) = value(axis, item, f) else {
            sound = false;
            continue;
        };
        if names.contains(&name) {
            let message = format!("the axis `{axis}` has the value {name} twice");
            f.add("value", item.position, message);
            sound = false;
        }
        names.push(name);
        values.push(value);
    }
    sound.then_some(values)
}

/// One value with its text in the instance's name.
fn value(axis: &str, item: &Node, f: &mut Findings) -> Option<(Value, String)> {
    let value = json(item, f)?;
    let name = match &value {
        Value::String(text) if Template::is_in(text) => {
            let message = format!("a value of the axis `{axis}` is written out: it takes no `${{{{ }}}}`");
            let hint =
                format!("give the whole list as one: `{axis}: \"${{{{ steps.NAME.outputs.NAME }}}}\"`");
            f.add_with_hint("value", item.position, message, hint);
            return None;
        }
        Value::String(text)
            if text.is_empty() || text.len() > VALUE_BYTES_MAX || text.contains(char::is_control) =>
        {
            let message = format!("a value of the axis `{axis}` is one line of 1 to {VALUE_BYTES_MAX} bytes");
            f.add("value", item.position, message);
            return None;
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let message = format!(
                "a value of the axis `{axis}` is text, a number, true or false, not {}",
                describe(item)
            );
            f.add("wrong-type", item.position, message);
            return None;
        }
    };
    Some((value, name))
}

/// One `${{ … }}` and nothing else.
fn list_template(
    node: &Node,
    what: &str,
    place: Place,
    reads: &mut Reads,
    f: &mut Findings,
) -> Option<Template> {
    let template = reads.template(node, what, place, f)?;
    if template.sole_expression().is_none() {
        let message = format!("`{what}` is a list of values, or one `${{{{ }}}}` that gives a list");
        f.add_with_hint("wrong-type", node.position, message, format!("write `{what}: [a, b]`"));
        return None;
    }
    Some(template)
}
