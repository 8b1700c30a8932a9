//! Which events start a workflow, and when gathered ones do: patterns, `where`, `by`, batches. Pure: the store
//! keeps what is open, time comes in as an argument, a restart in the middle changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::definition::{BatchRule, EventTrigger, Param, ParamType, Workflow};
use crate::event::CloudEvent;
use crate::expression::Scope;
use crate::template::Template;
use crate::time::Timestamp;

/// What a trigger makes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Considered {
    /// The pattern does not match: nothing to write down.
    Unmatched,
    /// The pattern matches, `where` is false.
    Filtered,
    /// `where` or `by` cannot be evaluated; never taken for false.
    FilterError(String),
    /// It fires, or joins the batch of this key (`""` without `by`).
    Matched {
        /// The value of `by`.
        key: String,
    },
}

impl EventTrigger {
    /// Considers one event.
    pub fn consider(&self, event: &CloudEvent, object: &Value) -> Considered {
        if !self.pattern.matches(object) {
            return Considered::Unmatched;
        }
        let scope = || Scope { roots: event.attributes().clone(), ..Scope::default() };
        if let Some(filter) = &self.filter {
            match filter.holds(&scope()) {
                Ok(true) => {}
                Ok(false) => return Considered::Filtered,
                Err(wrong) => {
                    return Considered::FilterError(format!("where `{}`: {wrong}", filter.source()));
                }
            }
        }
        match &self.key {
            None => Considered::Matched { key: String::new() },
            Some(by) => match by.evaluate(&scope()).map_err(|wrong| wrong.to_string()).and_then(key_text) {
                Ok(key) => Considered::Matched { key },
                Err(wrong) => Considered::FilterError(format!("by `{}`: {wrong}", by.source())),
            },
        }
    }
}

/// The longest value of a key (`by`, `concurrency.key`), in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// A key's value as text: strings as they are, numbers and booleans in their usual form.
pub fn key_text(value: Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => return Err("the key is null".to_owned()),
        Value::Array(_) | Value::Object(_) => {
            return Err("the key is a list or an object; it must be text, a number or a boolean".to_owned());
        }
    };
    if text.len() > KEY_BYTES_MAX {
        return Err(format!("the key is longer than {KEY_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// A batch that is gathering, as far as its rule needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathering {
    /// When its first event was routed.
    pub opened_at: Timestamp,
    /// When its latest event was routed.
    pub last_at: Timestamp,
    /// Events so far; at least 1.
    pub count: u64,
}

impl BatchRule {
    /// When the batch fires if nothing more comes; none: only more events make it fire.
    pub fn due_at(&self, batch: &Gathering) -> Option<Timestamp> {
        if self.count.is_some_and(|count| batch.count >= count) {
            return Some(batch.last_at);
        }
        let quiet = self.quiet.map(|quiet| batch.last_at.plus(quiet));
        let max_wait = self.max_wait.map(|wait| batch.opened_at.plus(wait));
        match (quiet, max_wait) {
            (Some(quiet), Some(max_wait)) => Some(quiet.min(max_wait)),
            (quiet, max_wait) => quiet.or(max_wait),
        }
    }
}

/// What a run knows about the events it stands for: the `batch` of expressions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchFacts {
    /// The value of `by`; empty without one.
    pub key: String,
    /// How many events.
    pub count: u64,
    /// The first event, as a JSON object; null for a run without events.
    pub first: Value,
    /// The last event.
    pub last: Value,
}

impl BatchFacts {
    /// As expressions see it.
    pub fn to_value(&self) -> Value {
        json!({ "key": self.key, "count": self.count, "first": self.first, "last": self.last })
    }
}

/// Renders a trigger's params over its batch.
///
/// # Errors
/// The param and what is wrong with its expression.
pub fn render_params(
    templates: &BTreeMap<String, Template>,
    batch: &BatchFacts,
) -> Result<Map<String, Value>, String> {
    let mut scope = Scope::default();
    scope.roots.insert("batch".to_owned(), batch.to_value());
    let mut params = Map::new();
    for (name, template) in templates {
        let value = template.render(&scope).map_err(|wrong| format!("param {name}: {wrong}"))?;
        params.insert(name.clone(), value);
    }
    Ok(params)
}

impl Workflow {
    /// The params of a run: given ones checked against their types, defaults filled in. Text is read as a number
    /// or boolean where one is declared, so that the command line need not know types.
    ///
    /// # Errors
    /// The param at fault, and what would be right.
    pub fn resolve_params(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        if let Some(unknown) = given.keys().find(|name| !self.params.contains_key(*name)) {
            let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
            return Err(match known.is_empty() {
                true => format!("`{unknown}` is not a param of {}: it takes none", self.name),
                false => {
                    format!("`{unknown}` is not a param of {}: it takes {}", self.name, known.join(", "))
                }
            });
        }
        let mut params = Map::new();
        for (name, param) in &self.params {
            let value = match given.get(name) {
                Some(value) => param.accept(value).map_err(|wrong| format!("param `{name}` {wrong}"))?,
                None => param
                    .default
                    .clone()
                    .ok_or_else(|| format!("param `{name}` is missing: it has no default"))?,
            };
            params.insert(name.clone(), value);
        }
        Ok(params)
    }

    /// The alias the workflow's champion is found under: that of its first `promote`, else `champion`.
    pub fn champion_alias(&self) -> &str {
        self.steps
            .iter()
            .find_map(|step| match &step.verb {
                crate::definition::Verb::Promote(promote) => Some(promote.alias.as_str()),
                crate::definition::Verb::Work(_)
                | crate::definition::Verb::Select(_)
                | crate::definition::Verb::Workflow(_)
                | crate::definition::Verb::Gate(_)
                | crate::definition::Verb::Approval(_)
                | crate::definition::Verb::Emit(_) => None,
            })
            .unwrap_or("champion")
    }
}

impl Param {
    fn accept(&self, value: &Value) -> Result<Value, String> {
        let read = |text: &str| -> Option<Value> {
            match self.kind {
                ParamType::String => Some(Value::from(text)),
                ParamType::Integer => text.parse::<i64>().ok().map(Value::from),
                ParamType::Number => text.parse::<i64>().ok().map(Value::from).or_else(|| {
                    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
                }),
                ParamType::Boolean => text.parse::<bool>().ok().map(Value::from),
            }
        };
        let accepted = match (self.kind, value) {
            (_, Value::String(text)) => read(text),
            (ParamType::Integer, Value::Number(number)) if number.is_i64() => Some(value.clone()),
            (ParamType::Number, Value::Number(_)) | (ParamType::Boolean, Value::Bool(_)) => {
                Some(value.clone())
            }
            (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        accepted.ok_or_else(|| {
            let wanted = match self.kind {
                ParamType::String => "text",
                ParamType::Integer => "a whole number",
                ParamType::Number => "a number",
                ParamType::Boolean => "true or false",
            };
            format!("is {value}, it must be {wanted}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_batch_is_due_at_the_first_bound_it_meets() {
        let rule = BatchRule {
            quiet: Some(Duration::from_secs(10)),
            max_wait: Some(Duration::from_secs(60)),
            count: Some(5),
            sum: None,
        };
        let batch = |opened, last, count| Gathering { opened_at: at(opened), last_at: at(last), count };
        assert_eq!(rule.due_at(&batch(0, 0, 1)), Some(at(10)));
        assert_eq!(rule.due_at(&batch(0, 55, 4)), Some(at(60)));
        assert_eq!(rule.due_at(&batch(0, 20, 5)), Some(at(20)));
        let by_count = BatchRule { quiet: None, max_wait: None, count: Some(5), sum: None };
        assert_eq!(by_count.due_at(&batch(0, 20, 4)), None);
    }

    #[test]
    fn params_are_typed_and_defaulted() {
        let integer = Param { kind: ParamType::Integer, default: None, description: None };
        assert_eq!(integer.accept(&json!("8")), Ok(json!(8)));
        assert_eq!(integer.accept(&json!(8)), Ok(json!(8)));
        for wrong in [json!("eight"), json!(1.5), json!(null), json!([1])] {
            assert!(integer.accept(&wrong).is_err(), "{wrong} was accepted");
        }
        let number = Param { kind: ParamType::Number, default: None, description: None };
        assert!(number.accept(&json!("NaN")).is_err());
    }

    #[test]
    fn keys_are_plain_values() {
        assert_eq!(key_text(json!("eu")), Ok("eu".to_owned()));
        assert_eq!(key_text(json!(7)), Ok("7".to_owned()));
        for wrong in [json!(null), json!([1]), json!({"a": 1}), json!("x".repeat(600))] {
            assert!(key_text(wrong).is_err());
        }
    }
}
