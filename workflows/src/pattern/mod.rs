//! Event patterns in the language of Amazon EventBridge: what an event must look like to count.
//!
//! A pattern has the shape of the event. Fields stand beside each other for "and", the values of a field's list for
//! "or", and `$or` holds alternatives for a whole level. Matching takes time in proportion to the pattern times the
//! event; must never happen here: a search over combinations, or guessing what a malformed pattern meant.
//!
//! | an entry of a field's list | accepts |
//! |---|---|
//! | `"eu"`, `true`, `null` | this value; a string that is an IPv6 address, in any spelling of it |
//! | `5` | this number: 5.0 too, and exactly beyond 2^53 |
//! | `{exactly: s}` | this string, character by character |
//! | `{prefix: s}`, `{suffix: s}` | a string that begins, or ends, so |
//! | `{equals-ignore-case: s}`, also inside `prefix` and `suffix` | the same, whatever the case of each letter |
//! | `{wildcard: "a*b"}` | a string, `*` being any run of characters; `\*` and `\\` are a star and a backslash |
//! | `{numeric: [">", 0, "<=", 5]}` | a number within one or two bounds |
//! | `{cidr: "10.0.0.0/8"}` | an address of this network, of the same family |
//! | `{anything-but: …}` | any value but these strings or numbers, or but the strings that `{prefix: …}`, `{suffix: …}`, `{equals-ignore-case: …}` or `{wildcard: …}` of one or several accept |
//! | `{exists: true}`, `{exists: false}` | any value; the absence of one (objects and empty lists are none) |
//!
//! `$or: [{…}, {…}]` is as if the pattern were written once for each alternative; it may nest and stand at any level. A
//! `$or` that is not at least two objects, or names a field like an operator, is an ordinary field.
//!
//! Where this differs from EventBridge on purpose:
//! - a dot in a field's name is a dot, not a step down;
//! - a `cidr` may be a single address (`/32`, `/128`), further bits set in its address do not count, and its number
//!   of bits is digits without a leading zero and nothing else;
//! - a field named beside a `$or` and again inside must satisfy both, where EventBridge lets the one replace the
//!   other; in a list of scalars each may find an element of its own.

mod matcher;
mod mismatch;
mod network;
mod number;
mod parse;
mod schema;
mod set;
mod text;

use std::sync::Arc;

use serde_json::{Map, Value};

use matcher::Matcher;

pub use mismatch::Mismatch;
pub(crate) use schema::{SCHEMA_NAME, schema_definitions};
pub use set::PatternSet;

/// A parsed event pattern. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    parts: Vec<Part>,
    source: Value,
}

/// One of the things a pattern says about an object; all must hold. No two parts of a level step into the same field.
#[derive(Clone, Debug)]
enum Part {
    /// A field has a value that one of these accepts; `written` is what stands in the pattern, for people.
    Leaf { name: String, matchers: Vec<Matcher>, written: Vec<Value> },
    /// A field holds an object, or a list with an object, of which these hold.
    Object { name: String, parts: Vec<Part> },
    /// All of one of these hold: `$or`.
    Either(Vec<Vec<Part>>),
}

/// What is wrong with a pattern, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// The path inside the pattern: `["data", "rows"]`; the place in a list as a number, `["data", "rows", "0"]`.
    pub path: Vec<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// What looking for a part of a pattern in a part of an event came to; the more, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// It is not as the pattern says.
    No,
    /// The pattern asks for absence, and nothing is there.
    Absent,
    /// A value is as the pattern says.
    Present,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The first thing that is no pattern, with its path.
    pub fn parse(value: &Value) -> Result<Self, PatternError> {
        Ok(Self(Arc::new(Parsed { parts: parse::parse(value)?, source: value.clone() })))
    }

    /// The pattern as written.
    pub fn source(&self) -> &Value {
        &self.0.source
    }

    /// Whether an event (a JSON object) looks like this.
    ///
    /// Lists in the event are transparent: a list matches when one of its elements does, and all that a pattern says
    /// about the fields of a list's elements must hold in one and the same element, across `$or` too.
    pub fn matches(&self, event: &Value) -> bool {
        event.as_object().is_some_and(|object| look_in(&self.0.parts, Some(object)) != Found::No)
    }
}

/// Looks for all parts at once, so that in a list they are found in one element or not at all.
fn look(parts: &[Part], value: Option<&Value>) -> Found {
    match value {
        Some(Value::Array(items)) if !items.is_empty() => {
            let mut all = Found::Absent;
            for item in items {
                match look(parts, Some(item)) {
                    Found::Present => return Found::Present,
                    Found::Absent => {}
                    // What is asked to be absent is there in this element, and no other field has chosen another.
                    Found::No => all = Found::No,
                }
            }
            // The elements may each lack something else: it must be one alternative of a `$or` that all of them lack.
            if all == Found::Absent && absent(parts, &Place::Of(items)) { Found::Absent } else { Found::No }
        }
        Some(Value::Object(object)) => look_in(parts, Some(object)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => {
            look_in(parts, None)
        }
    }
}

fn look_in(parts: &[Part], object: Option<&Map<String, Value>>) -> Found {
    let mut all = Found::Absent;
    for part in parts {
        let found = match part {
            Part::Leaf { name, matchers, .. } => {
                look_for(matchers, object.and_then(|object| object.get(name)))
            }
            Part::Object { name, parts } => look(parts, object.and_then(|object| object.get(name))),
            Part::Either(branches) => look_for_either(branches, object),
        };
        if found == Found::No {
            return Found::No;
        }
        all = all.max(found);
    }
    all
}

fn look_for_either(branches: &[Vec<Part>], object: Option<&Map<String, Value>>) -> Found {
    let mut best = Found::No;
    for branch in branches {
        best = best.max(look_in(branch, object));
        if best == Found::Present {
            break;
        }
    }
    best
}

fn look_for(matchers: &[Matcher], value: Option<&Value>) -> Found {
    let mut scalars = 0;
    let accepts = |scalar: &Value| {
        scalars += 1;
        matchers.iter().any(|matcher| matcher.accepts(scalar))
    };
    if value.is_some_and(|value| any_scalar(value, accepts)) {
        Found::Present
    } else if scalars == 0 && matchers.contains(&Matcher::Exists(false)) {
        Found::Absent
    } else {
        Found::No
    }
}

/// Whether this scalar, or one in this list, is as asked. Objects and empty lists hold none.
fn any_scalar(value: &Value, mut asked: impl FnMut(&Value) -> bool) -> bool {
    fn any(value: &Value, asked: &mut dyn FnMut(&Value) -> bool) -> bool {
        match value {
            Value::Object(_) => false,
            Value::Array(items) => items.iter().any(|item| any(item, asked)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => asked(value),
        }
    }
    any(value, &mut asked)
}

/// All values at a path below the elements of a list.
enum Place<'a> {
    Of(&'a [Value]),
    Below(&'a Place<'a>, &'a str),
}

impl Place<'_> {
    fn any(&self, asked: &mut dyn FnMut(&Value) -> bool) -> bool {
        match self {
            Self::Of(items) => items.iter().any(asked),
            Self::Below(parent, name) => parent.any(&mut |value| {
                any_object(value, &mut |object| object.get(*name).is_some_and(&mut *asked))
            }),
        }
    }
}

fn any_object(value: &Value, asked: &mut dyn FnMut(&Map<String, Value>) -> bool) -> bool {
    match value {
        Value::Object(object) => asked(object),
        Value::Array(items) => items.iter().any(|item| any_object(item, asked)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether the parts ask for absence only, and it holds everywhere at this place.
fn absent(parts: &[Part], place: &Place<'_>) -> bool {
    parts.iter().all(|part| match part {
        Part::Leaf { name, matchers, .. } => {
            matchers.contains(&Matcher::Exists(false))
                && !Place::Below(place, name).any(&mut |value| any_scalar(value, |_| true))
        }
        Part::Object { name, parts } => absent(parts, &Place::Below(place, name)),
        Part::Either(branches) => branches.iter().any(|branch| absent(branch, place)),
    })
}

#[cfg(test)]
mod tests;
