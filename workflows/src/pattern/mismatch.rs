//! Why an event is not as a pattern says, for people: the part that does not hold and is the first to look at. Agrees
//! with [`Pattern::matches`] because the same functions judge; a test says so over random patterns. Must never happen
//! here: a decision, or more work than matching does once more for each level.

use std::fmt;

use serde_json::{Map, Value};

use super::{Found, Part, Pattern, look, look_for, look_in};
use crate::definition::diagnostics::closest;

/// How many elements of a list are looked at for the one that comes closest.
const ELEMENTS_MAX: usize = 100;
/// How many values are named where a field holds or a pattern wants several.
const VALUES_SHOWN: usize = 5;
/// How many characters of a value are shown.
const VALUE_CHARS: usize = 80;
/// What is told before anything else that does not hold: what most patterns begin with.
const FIRST: [&str; 3] = ["type", "source", "subject"];

/// The part of a pattern that does not hold for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the event: `["data", "table"]`.
    pub path: Vec<String>,
    /// What is there and what the pattern wants.
    pub message: String,
    /// What may have been meant.
    pub hint: Option<String>,
    /// How many of the pattern's fields hold, of an alternative those of the closest one.
    pub held: usize,
    /// How many fields there are.
    pub of: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Pattern {
    /// The part that does not hold for an event (a JSON object); none exactly when the event matches. Where several do
    /// not, the event's type, source and subject come first, then the others in the pattern's order; of a list's
    /// elements and of alternatives, the closest is told.
    pub fn mismatch(&self, event: &Value) -> Option<Mismatch> {
        let object = event.as_object();
        let (mut path, parts) = (Vec::new(), &self.0.parts);
        let matches = object.is_some() && look_in(parts, object) != Found::No;
        (!matches).then(|| in_object(parts, object, &mut path))
    }
}

/// Why not all of these parts hold in an object, or in nothing.
fn in_object(parts: &[Part], object: Option<&Map<String, Value>>, path: &mut Vec<String>) -> Mismatch {
    let (mut held, mut of) = (0, 0);
    let mut told: Option<Mismatch> = None;
    for part in parts {
        let miss = match part {
            Part::Leaf { name, matchers, written } => {
                let value = object.and_then(|object| object.get(name));
                (look_for(matchers, value) == Found::No).then(|| {
                    path.push(name.clone());
                    let miss = leaf(value, written, object, path);
                    path.pop();
                    miss
                })
            }
            Part::Object { name, parts } => {
                let value = object.and_then(|object| object.get(name));
                (look(parts, value) == Found::No).then(|| {
                    path.push(name.clone());
                    let miss = in_value(parts, value, path);
                    path.pop();
                    miss
                })
            }
            Part::Either(branches) => {
                let none = branches.iter().all(|branch| look_in(branch, object) == Found::No);
                none.then(|| in_either(branches, object, path)).flatten()
            }
        };
        match miss {
            None => {
                held += fields(part);
                of += fields(part);
            }
            Some(miss) => {
                held += miss.held;
                of += miss.of;
                if told.as_ref().is_none_or(|told| rank(&miss) < rank(told)) {
                    told = Some(miss);
                }
            }
        }
    }
    match told {
        Some(told) => Mismatch { held, of, ..told },
        // Each part holds by itself, which is not enough where a list is looked into: see `look`.
        None => scattered(path, held.saturating_sub(1), of.max(1)),
    }
}

/// Why not all of these parts hold below a value: in one and the same element, where it is a list.
fn in_value(parts: &[Part], value: Option<&Value>, path: &mut Vec<String>) -> Mismatch {
    match value {
        Some(Value::Array(items)) if !items.is_empty() => {
            let missing = items.iter().filter(|item| look(parts, Some(item)) == Found::No);
            let misses = missing.take(ELEMENTS_MAX).map(|item| in_value(parts, Some(item), path));
            let of = parts.iter().map(fields).sum();
            nearest(misses).unwrap_or_else(|| scattered(path, 0, of))
        }
        Some(Value::Object(object)) => in_object(parts, Some(object), path),
        None => in_object(parts, None, path),
        Some(scalar) => {
            let miss = in_object(parts, None, path);
            let (place, is) = (dotted(path), shown(scalar));
            let inside = miss.path.get(path.len()).map(|name| format!(" for `{name}`")).unwrap_or_default();
            let message = format!("`{place}` is {is}, the pattern looks into it{inside}");
            Mismatch { path: path.clone(), message, hint: None, ..miss }
        }
    }
}

fn in_either(
    branches: &[Vec<Part>],
    object: Option<&Map<String, Value>>,
    path: &mut Vec<String>,
) -> Option<Mismatch> {
    let miss = nearest(branches.iter().map(|branch| in_object(branch, object, path)))?;
    let message = format!("none of the {} alternatives holds: {}", branches.len(), miss.message);
    Some(Mismatch { message, ..miss })
}

/// The elements of a list each lack what the pattern wants to be absent, but not all of them the same.
fn scattered(path: &[String], held: usize, of: usize) -> Mismatch {
    let message = format!("no element of `{}` is as the pattern says", dotted(path));
    Mismatch { path: path.to_vec(), message, hint: None, held, of }
}

/// Of several, the first of those of which most holds.
fn nearest(misses: impl Iterator<Item = Mismatch>) -> Option<Mismatch> {
    misses.reduce(|best, miss| if share(&miss) > share(&best) { miss } else { best })
}

/// How much of the pattern holds, in thousandths.
fn share(miss: &Mismatch) -> usize {
    miss.held * 1000 / miss.of.max(1)
}

fn rank(miss: &Mismatch) -> usize {
    let first = miss.path.first().and_then(|name| FIRST.iter().position(|known| known == name));
    first.filter(|_| miss.path.len() == 1).unwrap_or(FIRST.len())
}

fn fields(part: &Part) -> usize {
    match part {
        Part::Leaf { .. } => 1,
        Part::Object { parts, .. } => parts.iter().map(fields).sum(),
        // One alternative is enough.
        Part::Either(branches) => {
            branches.iter().map(|branch| branch.iter().map(fields).sum()).min().unwrap_or(1)
        }
    }
}

/// Why a field's value is not one that is wanted.
fn leaf(
    value: Option<&Value>,
    written: &[Value],
    beside: Option<&Map<String, Value>>,
    path: &[String],
) -> Mismatch {
    let (place, wants) = (dotted(path), wanted(written));
    let mut scalars: Vec<&Value> = Vec::new();
    if let Some(value) = value {
        collect(value, &mut scalars);
    }
    let (message, hint) = if scalars.is_empty() {
        let is = match value {
            None => format!("there is no `{place}`"),
            Some(Value::Object(_)) => format!("`{place}` is an object"),
            Some(_) => format!("`{place}` is an empty list"),
        };
        let name = path.last().map(String::as_str).unwrap_or_default();
        let near = beside.filter(|_| value.is_none()).and_then(|object| {
            closest(name, object.keys().map(String::as_str).filter(|other| *other != name))
        });
        let hint = near.map(|near| {
            let above = path.get(..path.len().saturating_sub(1)).unwrap_or_default();
            let meant = dotted(&[above, &[near.to_owned()]].concat());
            format!("the event has `{meant}`: is one of them misspelt?")
        });
        (format!("{is}, the pattern wants {wants}"), hint)
    } else {
        let shown: Vec<String> = scalars.iter().take(VALUES_SHOWN).map(|scalar| shown(scalar)).collect();
        let is = if scalars.len() == 1 { "is" } else { "holds" };
        let more = if scalars.len() > VALUES_SHOWN { " and more" } else { "" };
        let hint = scalars.iter().take(VALUES_SHOWN).find_map(|scalar| meant(scalar, written));
        (format!("`{place}` {is} {}{more}, the pattern wants {wants}", shown.join(", ")), hint)
    };
    Mismatch { path: path.to_vec(), message, hint, held: 0, of: 1 }
}

/// The first scalars of a value, one more than are shown.
fn collect<'v>(value: &'v Value, scalars: &mut Vec<&'v Value>) {
    match value {
        Value::Object(_) => {}
        Value::Array(items) => {
            for item in items {
                if scalars.len() > VALUES_SHOWN {
                    return;
                }
                collect(item, scalars);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalars.push(value),
    }
}

/// What may have been meant by a value that is nearly one that is wanted.
fn meant(value: &Value, written: &[Value]) -> Option<String> {
    let texts = || written.iter().filter_map(Value::as_str);
    match value {
        Value::String(text) => {
            let number = text.parse::<f64>().ok();
            if number.is_some() && written.iter().any(|want| number == want.as_f64()) {
                return Some("it is text in the event and a number in the pattern".to_owned());
            }
            if texts().any(|want| want.to_lowercase() == text.to_lowercase()) {
                return Some("only the case differs; {equals-ignore-case: …} takes either".to_owned());
            }
            closest(text, texts()).map(|near| format!("did you mean `{near}`?"))
        }
        Value::Number(number) => {
            let same = texts().any(|want| want == number.to_string());
            same.then(|| "it is a number in the event and text in the pattern".to_owned())
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn wanted(written: &[Value]) -> String {
    if matches!(written, [Value::Object(only)] if only.get("exists") == Some(&Value::Bool(false))) {
        return "it to be absent".to_owned();
    }
    let mut words: Vec<String> = written.iter().take(VALUES_SHOWN).map(entry).collect();
    if written.len() > VALUES_SHOWN {
        words.push(format!("{} more", written.len() - VALUES_SHOWN));
    }
    words.join(" or ")
}

/// An entry of a field's list as people write it: `"eu"`, `{prefix: "eu-"}`.
fn entry(written: &Value) -> String {
    match written {
        Value::Object(operator) => {
            let inside: Vec<String> =
                operator.iter().map(|(name, operand)| format!("{name}: {}", entry(operand))).collect();
            format!("{{{}}}", inside.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            shown(written)
        }
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Object(_) => return "an object".to_owned(),
        Value::Array(items) if items.is_empty() => return "an empty list".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            value.to_string()
        }
    };
    match text.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn dotted(path: &[String]) -> String {
    path.join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(pattern: Value, event: Value) -> String {
        Pattern::parse(&pattern).unwrap().mismatch(&event).unwrap().to_string()
    }

    #[test]
    fn what_does_not_hold_is_told_with_what_is_there() {
        for (pattern, event, expected) in [
            (
                json!({"data": {"table": ["customers"]}, "type": ["dataset.updated"]}),
                json!({"type": "dataset.update", "data": {}}),
                "`type` is \"dataset.update\", the pattern wants \"dataset.updated\"; did you mean `dataset.updated`?",
            ),
            (
                json!({"data": {"table": ["customers", {"prefix": "eu-"}]}}),
                json!({"data": {"tabel": "customers"}}),
                "there is no `data.table`, the pattern wants \"customers\" or {prefix: \"eu-\"}; \
                 the event has `data.tabel`: is one of them misspelt?",
            ),
            (
                json!({"data": {"rows": [{"numeric": [">", 0]}]}}),
                json!({"data": {"rows": 0}}),
                "`data.rows` is 0, the pattern wants {numeric: [\">\",0]}",
            ),
            (
                json!({"data": {"n": [5]}}),
                json!({"data": {"n": "5"}}),
                "`data.n` is \"5\", the pattern wants 5; it is text in the event and a number in the pattern",
            ),
            (
                json!({"data": {"n": ["EU"]}}),
                json!({"data": {"n": "eu"}}),
                "`data.n` is \"eu\", the pattern wants \"EU\"; only the case differs; {equals-ignore-case: …} takes either",
            ),
            (
                json!({"data": {"a": {"b": [1]}}}),
                json!({"data": {"a": "text"}}),
                "`data.a` is \"text\", the pattern looks into it for `b`",
            ),
            (
                json!({"data": {"x": [{"exists": false}]}}),
                json!({"data": {"x": [1, 2]}}),
                "`data.x` holds 1, 2, the pattern wants it to be absent",
            ),
            (
                json!({"$or": [{"a": [1]}, {"a": [2], "b": [2]}]}),
                json!({"b": 2}),
                "none of the 2 alternatives holds: there is no `a`, the pattern wants 2",
            ),
        ] {
            assert_eq!(told(pattern.clone(), event), expected, "{pattern}");
        }
    }

    #[test]
    fn of_a_list_the_closest_element_is_told() {
        let pattern = json!({"data": {"files": {"kind": ["csv"], "rows": [{"numeric": [">", 9]}]}}});
        let event = json!({"data": {"files": [{"kind": "txt", "rows": 1}, {"kind": "csv", "rows": 3}]}});
        let miss = Pattern::parse(&pattern).unwrap().mismatch(&event).unwrap();
        assert_eq!(miss.path, ["data", "files", "rows"]);
        assert_eq!((miss.held, miss.of), (1, 2));
        assert!(miss.message.contains("is 3"), "{miss}");
    }

    #[test]
    fn long_values_are_cut_short() {
        let long = "x".repeat(100_000);
        let text = told(json!({"a": (0..100).collect::<Vec<_>>()}), json!({"a": vec![json!(long); 1000]}));
        assert!(text.len() < 1000 && text.contains("and more") && text.contains("or 95 more"), "{text}");
    }
}
