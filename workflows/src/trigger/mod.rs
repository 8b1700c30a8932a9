//! Which events start a workflow, when gathered ones do, and what becomes of a run that its workflow has no room for.
//! Pure: the store keeps what is open, time comes in as an argument, a restart in the middle changes nothing.
//!
//! Reading order: [`Triggers::matching`] (an event and the triggers whose patterns it matches) →
//! [`Trigger::consider`] (`where`, `by`, `batch.sum`) → [`Gathering`] (batches and joins) → [`LaneRule::decide`]
//! (`concurrency` and `cooldown`).

mod concurrency;
mod explain;
mod gathering;
mod params;
mod routes;
mod words;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use concurrency::{Admission, Asks, Hindrance, Lane, LaneRule, step_begun};
pub use explain::{DECISIONS, Gathered, Nearest, Told, nearest, sentence};
pub use gathering::{Ending, Gathering};
pub use params::render_params;
pub use routes::{Match, SCHEDULE_TYPE, Triggers, schedule_source, trigger_ids};

use crate::definition::Trigger;
use crate::expression::{Expression, ExpressionError, Scope, describe};

/// What a trigger makes of an event that its pattern matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Considered {
    /// `where` is false; says which.
    Filtered(String),
    /// `where`, `by` or `batch.sum` cannot be evaluated; never taken for false.
    FilterError(String),
    /// It fires, or is gathered.
    Accepted(Arrival),
}

/// An event as its trigger sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrival {
    /// The value of `by`; `""` without one.
    pub key: String,
    /// The places of the patterns it matches: of a join's parts.
    pub parts: Vec<usize>,
    /// What it adds to `batch.sum`; always finite.
    pub amount: Option<f64>,
}

impl Trigger {
    /// Considers an event of which `parts` are the places of the patterns it matches. `scope` holds the event's
    /// attributes.
    pub fn consider(&self, parts: Vec<usize>, scope: &Scope) -> Considered {
        let (filter, key, sum) = match self {
            Self::Event(trigger) => {
                let sum = trigger.batch.as_ref().and_then(|batch| batch.sum.as_ref());
                (trigger.filter.as_ref(), trigger.key.as_ref(), sum)
            }
            Self::Join(trigger) => (trigger.filter.as_ref(), trigger.key.as_ref(), None),
            Self::Cron(_) => (None, None, None),
        };
        match filter.map(|filter| (filter, filter.holds(scope))) {
            None | Some((_, Ok(true))) => {}
            Some((filter, Ok(false))) => {
                return Considered::Filtered(format!(
                    "the pattern matches, `where` does not hold: {}",
                    filter.source()
                ));
            }
            Some((filter, Err(wrong))) => {
                return Considered::FilterError(failed("where", filter, &wrong));
            }
        }
        let key = match key.map(|by| (by, key_of(by, scope))) {
            None => String::new(),
            Some((_, Ok(key))) => key,
            Some((by, Err(wrong))) => {
                return Considered::FilterError(failed("by", by, &wrong));
            }
        };
        let amount = match sum.map(|sum| (&sum.of, amount(&sum.of, scope))) {
            None => None,
            Some((_, Ok(amount))) => Some(amount),
            Some((of, Err(wrong))) => {
                return Considered::FilterError(failed("batch.sum", of, &wrong));
            }
        };
        Considered::Accepted(Arrival { key, parts, amount })
    }

    /// Whether events wait in a [`Gathering`] instead of firing one by one.
    pub fn gathers(&self) -> bool {
        match self {
            Self::Event(trigger) => trigger.batch.is_some(),
            Self::Join(_) => true,
            Self::Cron(_) => false,
        }
    }
}

/// The longest value of a key (`by`, `concurrency.key`), in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The value of an expression that gives a key, as text.
///
/// # Errors
/// What cannot be evaluated, or is no key: see [`key_text`].
pub fn evaluate_key(expression: &Expression, scope: &Scope) -> Result<String, String> {
    key_of(expression, scope).map_err(|wrong| wrong.to_string())
}

fn key_of(expression: &Expression, scope: &Scope) -> Result<String, ExpressionError> {
    key_text(expression.evaluate(scope)?).map_err(ExpressionError::new)
}

/// An expression of a trigger that cannot be evaluated, with the place in its text where that is known.
fn failed(key: &str, expression: &Expression, wrong: &ExpressionError) -> String {
    let source = expression.source();
    let before = wrong.offset.and_then(|offset| source.get(..offset));
    let column = before.map(|before| format!(" (column {})", before.chars().count() + 1)).unwrap_or_default();
    format!("{key} `{source}`{column}: {wrong}")
}

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

fn amount(of: &Expression, scope: &Scope) -> Result<f64, ExpressionError> {
    let value = of.evaluate(scope)?;
    value.as_f64().filter(|amount| amount.is_finite()).ok_or_else(|| {
        ExpressionError::new(format!("the value is {}, it must be a number", describe(&value)))
    })
}

/// Adds what two gatherings summed; what is beyond the largest number stays there, so that a sum is always finite.
fn add(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one + other).clamp(f64::MIN, f64::MAX)),
        (one, other) => one.or(other),
    }
}

/// What a run knows about the events it stands for: the `batch` of expressions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchFacts {
    /// The value of `by`; empty without one.
    pub key: String,
    /// How many events, each counted once.
    pub count: u64,
    /// The sum of what `batch.sum` takes from each event, where the trigger has one. An event that two triggers
    /// gathered for one run counts in both their sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// The event that came first, as a JSON object; null for a run without events.
    pub first: Value,
    /// The event that came last.
    pub last: Value,
}

impl BatchFacts {
    /// As expressions see it.
    pub fn to_value(&self) -> Value {
        json!({
            "key": self.key, "count": self.count, "sum": self.sum, "first": self.first, "last": self.last,
        })
    }

    /// With the events of `newer`, of which `added` were not counted yet: the first event stays, the rest is the newer
    /// one's.
    pub fn followed_by(&self, newer: &Self, added: u64) -> Self {
        Self {
            key: newer.key.clone(),
            count: self.count + added,
            sum: add(self.sum, newer.sum),
            first: if self.count == 0 { newer.first.clone() } else { self.first.clone() },
            last: newer.last.clone(),
        }
    }

    /// With the events of `older`, of which `added` were not counted yet: what came first is the older one's.
    pub fn preceded_by(&self, older: &Self, added: u64) -> Self {
        Self {
            key: self.key.clone(),
            count: self.count + added,
            sum: add(self.sum, older.sum),
            first: if older.count == 0 { self.first.clone() } else { older.first.clone() },
            last: if self.count == 0 { older.last.clone() } else { self.last.clone() },
        }
    }
}

#[cfg(test)]
mod tests;
