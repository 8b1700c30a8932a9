//! The combinations of a matrix and what their instances are called. Pure: values in, names and values out.
//!
//! Must never happen here: two instances of a step with one name, a name that is longer than a log line's head, or a
//! name whose text could be taken for something else (a path, a second name, a control character).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::definition::{Axis, Matrix, MatrixValues};
use crate::digest::Digest;
use crate::expression::{Expression, Scope, describe, shorten};
use crate::template::Template;

/// The most characters of one value in a name.
const VALUE_CHARS_MAX: usize = 32;
/// The most characters of a name between its brackets.
const LABEL_CHARS_MAX: usize = 96;
/// Hexadecimal digits of the digest that stands for what a name leaves out.
const DIGEST_CHARS: usize = 8;

/// One combination of values: an instance to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Combination {
    /// The instance's name: `train[depth=4]`.
    pub(super) name: String,
    /// What it sees as `matrix`.
    pub(super) values: Map<String, Value>,
}

/// One combination before it has a name: its axes in order. Plain values of a list have no axis.
struct Unnamed {
    axes: Vec<(String, Value)>,
    plain: bool,
}

impl Matrix {
    /// The paths its templates read.
    pub(super) fn references(&self) -> Vec<Vec<String>> {
        let templates: Vec<&Template> = match &self.values {
            MatrixValues::List(template) => vec![template],
            MatrixValues::Axes(axes) => axes
                .iter()
                .filter_map(|(_, axis)| match axis {
                    Axis::List(template) => Some(template),
                    Axis::Values(_) => None,
                })
                .collect(),
        };
        templates.into_iter().flat_map(Template::expressions).flat_map(Expression::references).collect()
    }

    /// The combinations of step `step`, in order: the last axis turns fastest. None when a list is empty.
    ///
    /// # Errors
    /// A template that cannot be evaluated or gives no list, a value that is neither text, number nor boolean, more
    /// than [`Matrix::INSTANCES_MAX`] combinations; in words.
    pub(super) fn combinations(&self, step: &str, scope: &Scope) -> Result<Vec<Combination>, String> {
        let unnamed = match &self.values {
            MatrixValues::Axes(axes) => product(axes, scope)?,
            MatrixValues::List(template) => {
                let items = list("matrix", template, scope)?;
                items.into_iter().map(listed).collect::<Result<_, _>>()?
            }
        };
        Ok(named(step, unnamed))
    }

    /// How many of `total` instances must succeed.
    pub(super) fn needed(&self, total: usize) -> usize {
        // The slack keeps 30% of 10 at 3, although 0.3 · 10 is a hair more than 3.
        let needed = (self.min_success * total as f64 - 1e-9).ceil();
        // Between 0 and INSTANCES_MAX, so that nothing is lost.
        (needed.max(0.0) as usize).clamp(total.min(1), total)
    }
}

fn too_many(count: usize) -> String {
    format!("{count} instances; at most {} are allowed", Matrix::INSTANCES_MAX)
}

fn list(name: &str, template: &Template, scope: &Scope) -> Result<Vec<Value>, String> {
    let value = template.render(scope).map_err(|wrong| format!("{name}: {wrong}"))?;
    let Value::Array(items) = value else {
        return Err(format!(
            "{name}: `{}` must be a list, but is {}",
            shorten(template.source()),
            describe(&value)
        ));
    };
    if items.len() > Matrix::INSTANCES_MAX {
        return Err(format!("{name}: {}", too_many(items.len())));
    }
    Ok(items)
}

fn product(axes: &[(String, Axis)], scope: &Scope) -> Result<Vec<Unnamed>, String> {
    let mut combinations = vec![Unnamed { axes: Vec::new(), plain: false }];
    for (name, axis) in axes {
        let values = match axis {
            Axis::Values(values) => values.clone(),
            Axis::List(template) => list(&format!("matrix.{name}"), template, scope)?,
        };
        if let Some(wrong) = values.iter().find(|value| !is_plain(value)) {
            return Err(format!(
                "matrix.{name}: a value must be text, a number or a boolean, but one is {}",
                describe(wrong)
            ));
        }
        let count = combinations.len().saturating_mul(values.len());
        if count > Matrix::INSTANCES_MAX {
            return Err(format!("matrix: {}", too_many(count)));
        }
        combinations = combinations
            .iter()
            .flat_map(|combination| {
                values.iter().map(|value| {
                    let mut axes = combination.axes.clone();
                    axes.push((name.clone(), value.clone()));
                    Unnamed { axes, plain: false }
                })
            })
            .collect();
    }
    Ok(combinations)
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// A member of a list: an object's fields are its axes, a plain value is read as `matrix.value`.
fn listed(item: Value) -> Result<Unnamed, String> {
    match item {
        Value::Object(fields) => {
            // An object has no order of its own; sorted, the same list always gives the same names.
            let sorted: BTreeMap<String, Value> = fields.into_iter().collect();
            Ok(Unnamed { axes: sorted.into_iter().collect(), plain: false })
        }
        value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)) => {
            Ok(Unnamed { axes: vec![("value".to_owned(), value)], plain: true })
        }
        value @ (Value::Null | Value::Array(_)) => Err(format!(
            "matrix: a member of the list must be an object, text, a number or a boolean, but one is {}",
            describe(&value)
        )),
    }
}

fn named(step: &str, combinations: Vec<Unnamed>) -> Vec<Combination> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    combinations
        .into_iter()
        .map(|combination| {
            let label = label(&combination);
            let times = seen.entry(label.clone()).or_default();
            *times += 1;
            // `#` stands in no label: the second of two equal combinations has a name of its own.
            let name =
                if *times == 1 { format!("{step}[{label}]") } else { format!("{step}[{label}#{times}]") };
            Combination { name, values: combination.axes.into_iter().collect() }
        })
        .collect()
}

fn label(combination: &Unnamed) -> String {
    let parts: Vec<String> = combination
        .axes
        .iter()
        .map(|(name, value)| {
            let value = value_label(value);
            if combination.plain { value } else { format!("{}={value}", printable(name)) }
        })
        .collect();
    let label = parts.join(",");
    if label.chars().count() <= LABEL_CHARS_MAX {
        return label;
    }
    let head: String = label.chars().take(LABEL_CHARS_MAX - DIGEST_CHARS - 1).collect();
    format!("{head}~{}", digest(&label))
}

fn value_label(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            printable(&value.to_string())
        }
    }
}

/// Text as it stands in a name. What is long, or holds characters that mean something there, is shortened, and a digest
/// stands for what was left out.
fn printable(text: &str) -> String {
    let kept: String = text
        .chars()
        .take(VALUE_CHARS_MAX)
        .map(|c| if c.is_alphanumeric() || "._+-:@".contains(c) { c } else { '_' })
        .collect();
    if kept == text && !text.is_empty() {
        return kept;
    }
    let head: String = kept.chars().take(VALUE_CHARS_MAX - DIGEST_CHARS - 1).collect();
    format!("{head}~{}", digest(text))
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..DIGEST_CHARS].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matrix(values: MatrixValues) -> Matrix {
        Matrix { values, max_parallel: None, min_success: 1.0 }
    }

    fn axes(axes: &[(&str, Value)]) -> Matrix {
        let axes = axes.iter().map(|(name, values)| {
            let Value::Array(values) = values.clone() else { panic!("{values}") };
            ((*name).to_owned(), Axis::Values(values))
        });
        matrix(MatrixValues::Axes(axes.collect()))
    }

    fn names(matrix: &Matrix, scope: &Scope) -> Result<Vec<String>, String> {
        Ok(matrix.combinations("train", scope)?.into_iter().map(|combination| combination.name).collect())
    }

    fn listed(value: Value) -> Result<Vec<String>, String> {
        let mut scope = Scope::default();
        scope.roots.insert("params".to_owned(), json!({ "list": value }));
        names(&matrix(MatrixValues::List(Template::parse("${{ params.list }}").unwrap())), &scope)
    }

    #[test]
    fn the_last_axis_turns_fastest_and_names_say_the_values() {
        let two = axes(&[("depth", json!([4, 8])), ("kind", json!(["a", true]))]);
        let expected = [
            "train[depth=4,kind=a]",
            "train[depth=4,kind=true]",
            "train[depth=8,kind=a]",
            "train[depth=8,kind=true]",
        ];
        assert_eq!(names(&two, &Scope::default()).unwrap(), expected);
        assert_eq!(
            two.combinations("t", &Scope::default()).unwrap()[3].values,
            json!({ "depth": 8, "kind": true }).as_object().unwrap().clone()
        );
    }

    #[test]
    fn lists_give_objects_or_plain_values() {
        assert_eq!(listed(json!(["eu", "us"])).unwrap(), ["train[eu]", "train[us]"]);
        assert_eq!(listed(json!([{ "b": 2, "a": 1 }])).unwrap(), ["train[a=1,b=2]"]);
        assert_eq!(listed(json!([])).unwrap(), [""; 0]);
        for wrong in [json!("eu"), json!([null]), json!([[1]]), json!(null), json!(vec![1; 1001])] {
            assert!(listed(wrong.clone()).is_err(), "{wrong} was accepted");
        }
        let many = axes(&[("a", json!(vec![1; 40])), ("b", json!(vec![1; 40]))]);
        assert!(names(&many, &Scope::default()).unwrap_err().contains("1600 instances"));
    }

    #[test]
    fn the_needed_share_is_rounded_up() {
        let needed = |min_success, total| Matrix { min_success, ..axes(&[]) }.needed(total);
        assert_eq!([needed(0.3, 10), needed(0.8, 3), needed(1.0, 7), needed(0.001, 5)], [3, 3, 7, 1]);
        assert_eq!(needed(1.0, 0), 0);
    }

    proptest! {
        #[test]
        fn names_are_different_short_and_tame(values in prop::collection::vec(".{0,80}", 0..20)) {
            let names = listed(json!(values)).unwrap();
            let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
            prop_assert_eq!(distinct.len(), names.len());
            for name in &names {
                let inside = &name["train[".len()..name.len() - 1];
                prop_assert!(inside.chars().count() <= LABEL_CHARS_MAX + 4, "{}", name);
                prop_assert!(!inside.is_empty() && !inside.contains(['[', ']', '/', ',', '=', '\n', ' ']), "{}", name);
            }
        }
    }
}
