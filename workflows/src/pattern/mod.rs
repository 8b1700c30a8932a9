//! Event patterns in the language of Amazon EventBridge: what an event must look like to count.
//!
//! A pattern has the shape of the event. Fields stand beside each other for "and", the values of a field's list for
//! "or". Matching takes time in proportion to the pattern times the event; must never happen here: a search over
//! combinations, or guessing what a malformed pattern meant.
//!
//! Where this differs from EventBridge: a dot in a field's name is a dot, not a step down; and the operators
//! `wildcard`, `equals-ignore-case`, `cidr` and `$or` are refused for now.

mod matcher;
mod number;

use serde_json::Value;

use matcher::Matcher;

/// The deepest a pattern may nest.
const DEPTH_MAX: usize = 32;

/// The most values and operators in one pattern.
const MATCHERS_MAX: usize = 1000;

/// A parsed event pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    fields: Vec<(String, Field)>,
    source: Value,
}

#[derive(Clone, Debug)]
enum Field {
    /// Fields of an object, or of an object in a list.
    Fields(Vec<(String, Field)>),
    /// A value that one of these accepts.
    AnyOf(Vec<Matcher>),
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

/// What looking for a part of a pattern in a part of an event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let mut parser = Parser { path: Vec::new(), matchers: 0 };
        match value {
            Value::Object(_) => Ok(Self { fields: parser.fields(value)?, source: value.clone() }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(parser.error("a pattern is an object, as in {type: [dataset.updated]}"))
            }
        }
    }

    /// The pattern as written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Whether an event (a JSON object) looks like this.
    ///
    /// Lists in the event are transparent: a list matches when one of its elements does, and all that a pattern says
    /// about the fields of a list's elements must hold in one and the same element.
    pub fn matches(&self, event: &Value) -> bool {
        event.is_object() && look(&self.fields, Some(event)) != Found::No
    }
}

struct Parser {
    path: Vec<String>,
    matchers: usize,
}

impl Parser {
    fn error(&self, message: impl Into<String>) -> PatternError {
        PatternError { path: self.path.clone(), message: message.into() }
    }

    fn fields(&mut self, value: &Value) -> Result<Vec<(String, Field)>, PatternError> {
        let Some(object) = value.as_object() else {
            return Err(self.error("expected an object"));
        };
        if object.is_empty() {
            return Err(
                self.error("a pattern must not be empty: name a field, as in {type: [dataset.updated]}")
            );
        }
        if self.path.len() >= DEPTH_MAX {
            return Err(self.error(format!("a pattern is at most {DEPTH_MAX} levels deep")));
        }
        let mut fields = Vec::with_capacity(object.len());
        for (name, value) in object {
            self.path.push(name.clone());
            if name == "$or" {
                return Err(self.error("`$or` is not supported yet: write a trigger for each alternative"));
            }
            let field = match value {
                Value::Object(_) => Field::Fields(self.fields(value)?),
                Value::Array(items) => Field::AnyOf(self.matchers(items)?),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    return Err(self.error(format!("the values of a field are a list: write [{value}]")));
                }
            };
            fields.push((name.clone(), field));
            self.path.pop();
        }
        Ok(fields)
    }

    fn matchers(&mut self, items: &[Value]) -> Result<Vec<Matcher>, PatternError> {
        if items.is_empty() {
            return Err(self.error("the list is empty, so nothing could match"));
        }
        self.matchers += items.len();
        if self.matchers > MATCHERS_MAX {
            return Err(self.error(format!("a pattern has at most {MATCHERS_MAX} values")));
        }
        let mut matchers = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push(index.to_string());
            matchers.push(Matcher::parse(item).map_err(|message| self.error(message))?);
            self.path.pop();
        }
        Ok(matchers)
    }
}

/// Looks for all fields at once, so that in a list they are found in one element or not at all.
fn look(fields: &[(String, Field)], value: Option<&Value>) -> Found {
    match value {
        Some(Value::Array(items)) if !items.is_empty() => {
            let mut all = Found::Absent;
            for item in items {
                match look(fields, Some(item)) {
                    Found::Present => return Found::Present,
                    Found::Absent => {}
                    // What is asked to be absent is there in this element, and no other field has chosen another.
                    Found::No => all = Found::No,
                }
            }
            all
        }
        Some(Value::Object(object)) => {
            all(fields.iter().map(|(name, field)| look_for_field(field, object.get(name))))
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => {
            all(fields.iter().map(|(_, field)| look_for_field(field, None)))
        }
    }
}

fn all(mut found: impl Iterator<Item = Found>) -> Found {
    let combine = |so_far, next| match (so_far, next) {
        (_, Found::No) => None,
        (Found::Present, _) | (_, Found::Present) => Some(Found::Present),
        (Found::Absent | Found::No, Found::Absent) => Some(Found::Absent),
    };
    found.try_fold(Found::Absent, combine).unwrap_or(Found::No)
}

fn look_for_field(field: &Field, value: Option<&Value>) -> Found {
    let matchers = match field {
        Field::Fields(fields) => return look(fields, value),
        Field::AnyOf(matchers) => matchers,
    };
    let mut leaves = 0;
    if value
        .is_some_and(|value| any_leaf(value, &mut leaves, &|leaf| matchers.iter().any(|m| m.accepts(leaf))))
    {
        Found::Present
    } else if leaves == 0 && matchers.contains(&Matcher::Exists(false)) {
        Found::Absent
    } else {
        Found::No
    }
}

/// Whether a scalar, or one in a list, is accepted; counts the scalars looked at. Objects and empty lists have none.
fn any_leaf(value: &Value, leaves: &mut usize, accepts: &dyn Fn(&Value) -> bool) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => items.iter().any(|item| any_leaf(item, leaves, accepts)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *leaves += 1;
            accepts(value)
        }
    }
}

#[cfg(test)]
mod tests;
