//! From JSON to a pattern: its shape, its bounds, and where a mistake is. Operators are parsed by `matcher`.
//!
//! What all parts of a pattern say about the elements of one list must hold in one element. So where an alternative
//! of `$or` and something beside it both step into a field, the latter is moved into every alternative here; matching
//! may then take the parts of a level one by one. Must never happen here: an expansion without a bound.

use serde_json::{Map, Value};

use super::matcher::{Matcher, OPERATORS};
use super::{Part, PatternError};

/// The deepest a pattern may nest.
const DEPTH_MAX: usize = 32;

/// The most values and operators in one pattern.
const MATCHERS_MAX: usize = 1000;

/// The most values and operators that moving parts into alternatives may add.
const MOVED_MAX: usize = 10_000;

/// Parses a whole pattern.
pub(super) fn parse(value: &Value) -> Result<Vec<Part>, PatternError> {
    let mut parser = Parser { path: Vec::new(), matchers: 0, moved: 0 };
    match value {
        Value::Object(object) => parser.fields(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(parser.error("a pattern is an object, as in {type: [dataset.updated]}"))
        }
    }
}

struct Parser {
    path: Vec<String>,
    matchers: usize,
    moved: usize,
}

impl Parser {
    fn error(&self, message: impl Into<String>) -> PatternError {
        PatternError { path: self.path.clone(), message: message.into() }
    }

    fn fields(&mut self, object: &Map<String, Value>) -> Result<Vec<Part>, PatternError> {
        if object.is_empty() {
            return Err(
                self.error("a pattern must not be empty: name a field, as in {type: [dataset.updated]}")
            );
        }
        if self.path.len() >= DEPTH_MAX {
            return Err(self.error(format!("a pattern is at most {DEPTH_MAX} levels deep")));
        }
        let mut parts = Vec::with_capacity(object.len());
        for (name, value) in object {
            self.path.push(name.clone());
            parts.push(self.field(name, value)?);
            self.path.pop();
        }
        self.unite(parts)
    }

    fn field(&mut self, name: &str, value: &Value) -> Result<Part, PatternError> {
        if let Some(branches) = alternatives(name, value) {
            return self.either(&branches);
        }
        match value {
            Value::Object(inner) => Ok(Part::Object { name: name.to_owned(), parts: self.fields(inner)? }),
            Value::Array(items) => {
                let matchers = self.matchers(items)?;
                Ok(Part::Leaf { name: name.to_owned(), matchers, written: items.clone() })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(self.error(if OPERATORS.contains(&name) && self.path.len() > 1 {
                    format!("an operator stands in the list of its field: write [{{{name}: {value}}}]")
                } else {
                    format!("the values of a field are a list: write [{value}]")
                }))
            }
        }
    }

    fn either(&mut self, branches: &[&Map<String, Value>]) -> Result<Part, PatternError> {
        let mut parsed = Vec::with_capacity(branches.len());
        for (index, branch) in branches.iter().enumerate() {
            self.path.push(index.to_string());
            parsed.push(self.fields(branch)?);
            self.path.pop();
        }
        Ok(Part::Either(parsed))
    }

    fn matchers(&mut self, items: &[Value]) -> Result<Vec<Matcher>, PatternError> {
        if items.is_empty() {
            return Err(self.error("the list is empty, so nothing could match"));
        }
        let mut matchers = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.path.push(index.to_string());
            let matcher = Matcher::parse(item).map_err(|message| {
                let hint = if self.path.iter().rev().nth(1).is_some_and(|name| name == "$or") {
                    "; the alternatives of `$or` are at least two objects with fields, none named like an operator"
                } else {
                    ""
                };
                self.error(message + hint)
            })?;
            self.matchers += matcher.size();
            if self.matchers > MATCHERS_MAX {
                return Err(self.error(format!("a pattern has at most {MATCHERS_MAX} values")));
            }
            matchers.push(matcher);
            self.path.pop();
        }
        Ok(matchers)
    }

    /// The same pattern with no two parts of one level that step into the same field.
    fn unite(&mut self, parts: Vec<Part>) -> Result<Vec<Part>, PatternError> {
        let mut parts = join_objects(parts);
        while let Some((either, others)) = take_entangled(&mut parts) {
            let size: usize = others.iter().map(Part::size).sum();
            self.moved += size * either.len();
            if self.moved > MOVED_MAX {
                return Err(self.error(
                    "the alternatives of the `$or`s that share a field multiply beyond what is kept: name the field \
                     in one `$or` only",
                ));
            }
            let branches = either.into_iter().map(|branch| [branch, others.clone()].concat());
            parts.push(Part::Either(branches.collect()));
        }
        for part in &mut parts {
            match part {
                Part::Leaf { .. } => {}
                Part::Object { parts, .. } => *parts = self.unite(std::mem::take(parts))?,
                Part::Either(branches) => {
                    for branch in branches {
                        *branch = self.unite(std::mem::take(branch))?;
                    }
                }
            }
        }
        // What is quick to refuse comes first.
        parts.sort_by_key(|part| match part {
            Part::Leaf { .. } => 0,
            Part::Object { .. } => 1,
            Part::Either(_) => 2,
        });
        Ok(parts)
    }
}

/// The alternatives of a `$or`: at least two objects, none with a field named like an operator. Anything else under
/// that name is an ordinary field.
fn alternatives<'v>(name: &str, value: &'v Value) -> Option<Vec<&'v Map<String, Value>>> {
    let items = value.as_array().filter(|items| name == "$or" && items.len() >= 2)?;
    let branches = items.iter().map(Value::as_object).collect::<Option<Vec<_>>>()?;
    let reserved = |name: &String| OPERATORS.contains(&name.as_str());
    (!branches.iter().any(|branch| branch.keys().any(reserved))).then_some(branches)
}

/// One part for all that steps into the same field.
fn join_objects(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let Part::Object { name, parts: more } = part else {
            joined.push(part);
            continue;
        };
        let same = joined.iter_mut().find_map(|other| match other {
            Part::Object { name: other, parts } if *other == name => Some(parts),
            Part::Object { .. } | Part::Leaf { .. } | Part::Either(_) => None,
        });
        match same {
            Some(parts) => parts.extend(more),
            None => joined.push(Part::Object { name, parts: more }),
        }
    }
    joined
}

/// Takes out a `$or` and the other parts that step into a field it steps into, if there are such.
fn take_entangled(parts: &mut Vec<Part>) -> Option<(Vec<Vec<Part>>, Vec<Part>)> {
    for index in 0..parts.len() {
        let Some(either @ Part::Either(_)) = parts.get(index) else {
            continue;
        };
        let mut names = Vec::new();
        either.steps_into(&mut names);
        let entangled = |part: &Part| {
            let mut others = Vec::new();
            part.steps_into(&mut others);
            others.iter().any(|name| names.contains(name))
        };
        let shared: Vec<bool> =
            parts.iter().enumerate().map(|(other, part)| other != index && entangled(part)).collect();
        if !shared.contains(&true) {
            continue;
        }
        let Part::Either(branches) = parts.remove(index) else {
            return None;
        };
        let mut shared =
            shared.into_iter().enumerate().filter(|(other, _)| *other != index).map(|(_, is)| is);
        let others = parts.extract_if(.., |_| shared.next().unwrap_or(false)).collect();
        return Some((branches, others));
    }
    None
}

impl Part {
    fn size(&self) -> usize {
        match self {
            Self::Leaf { matchers, .. } => matchers.iter().map(Matcher::size).sum(),
            Self::Object { parts, .. } => parts.iter().map(Self::size).sum(),
            Self::Either(branches) => branches.iter().flatten().map(Self::size).sum(),
        }
    }

    /// The fields of this level whose objects this looks into.
    fn steps_into<'p>(&'p self, names: &mut Vec<&'p str>) {
        match self {
            Self::Leaf { .. } => {}
            Self::Object { name, .. } => names.push(name),
            Self::Either(branches) => branches.iter().flatten().for_each(|part| part.steps_into(names)),
        }
    }
}
