//! The one envelope inside Refit: a CloudEvents 1.0 JSON object (CloudEvents 1.0.2 spec and its JSON format).
//! Owns what makes an event acceptable and how it is written again; never decides what an event starts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most one event may weigh as JSON, in bytes.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The deepest nesting of an event's JSON. serde_json itself stops at 128.
pub const EVENT_DEPTH_MAX: usize = 64;

/// A CloudEvent: required attributes checked, everything else kept as it came (extensions, `traceparent`, `data`).
///
/// Two events with the same `(source, id)` are the same event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CloudEvent {
    object: Map<String, Value>,
}

/// Why something is not an acceptable CloudEvent: which attribute, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotAnEvent {
    /// The attribute at fault, when there is one.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl NotAnEvent {
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), message: message.into() }
    }
}

impl CloudEvent {
    /// Checks a JSON value as a CloudEvent. `specversion` may be left out (taken as 1.0); attributes that are null
    /// are absent, as the JSON format says.
    ///
    /// # Errors
    /// The first attribute that is missing or malformed.
    pub fn parse(value: Value) -> Result<Self, NotAnEvent> {
        let Value::Object(mut object) = value else {
            return Err(NotAnEvent {
                field: None,
                message: "an event is a JSON object (a CloudEvent)".to_owned(),
            });
        };
        object.retain(|key, value| key == "data" || !value.is_null());
        match object.get("specversion") {
            None => {
                object.insert("specversion".to_owned(), Value::from("1.0"));
            }
            Some(Value::String(version)) if version == "1.0" => {}
            Some(other) => {
                return Err(NotAnEvent::new(
                    "specversion",
                    format!("`specversion` must be \"1.0\", not {other}"),
                ));
            }
        }
        for name in ["id", "source", "type"] {
            match object.get(name) {
                Some(Value::String(text)) if text.is_empty() => {
                    return Err(NotAnEvent::new(name, format!("`{name}` must not be empty")));
                }
                Some(Value::String(text)) if text.len() > 1024 => {
                    return Err(NotAnEvent::new(name, format!("`{name}` is longer than 1024 bytes")));
                }
                Some(Value::String(_)) => {}
                Some(_) => return Err(NotAnEvent::new(name, format!("`{name}` must be a string"))),
                None => {
                    let example = match name {
                        "id" => "\"id\": \"load-2026-01-31\"",
                        "source" => "\"source\": \"/warehouse/customers\"",
                        _ => "\"type\": \"dataset.updated\"",
                    };
                    return Err(NotAnEvent::new(
                        name,
                        format!("`{name}` is missing: a CloudEvent needs it, for example {example}"),
                    ));
                }
            }
        }
        if let Some(subject) = object.get("subject")
            && !subject.is_string()
        {
            return Err(NotAnEvent::new("subject", "`subject` must be a string"));
        }
        match object.get("time") {
            None => {}
            Some(Value::String(time)) => {
                crate::time::Timestamp::parse(time)
                    .map_err(|wrong| NotAnEvent::new("time", format!("`time`: {wrong}")))?;
            }
            Some(_) => return Err(NotAnEvent::new("time", "`time` must be an RFC 3339 string")),
        }
        if object.contains_key("data") && object.contains_key("data_base64") {
            return Err(NotAnEvent::new("data_base64", "`data` and `data_base64` exclude each other"));
        }
        for (name, value) in &object {
            let known = matches!(name.as_str(), "data" | "data_base64");
            if !known && !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
                return Err(NotAnEvent::new(
                    name,
                    format!(
                        "`{name}` is not an attribute name: CloudEvents allows lower-case letters and digits"
                    ),
                ));
            }
            if let Value::String(text) = value
                && !known
                && text.chars().any(char::is_control)
            {
                return Err(NotAnEvent::new(name, format!("`{name}` holds a control character")));
            }
        }
        let event = Self { object };
        if depth_over(&Value::Object(event.object.clone()), EVENT_DEPTH_MAX) {
            return Err(NotAnEvent::new(
                "data",
                format!("the event nests deeper than {EVENT_DEPTH_MAX} levels"),
            ));
        }
        if holds_nul(event.object.values()) {
            return Err(NotAnEvent::new(
                "data",
                "the event holds a NUL character (\\u0000), which cannot be stored",
            ));
        }
        Ok(event)
    }

    /// Checks an event that comes from outside, like [`CloudEvent::parse`]; what Refit says of itself (`type`
    /// `refit.…`, `source` `/refit/…`) is not for others to say.
    ///
    /// # Errors
    /// The first attribute that is missing, malformed or reserved.
    pub fn parse_from_outside(value: Value) -> Result<Self, NotAnEvent> {
        let event = Self::parse(value)?;
        if event.kind().starts_with("refit.") {
            return Err(NotAnEvent::new(
                "type",
                "types that begin with `refit.` are Refit's own: use another",
            ));
        }
        if event.source() == "/refit" || event.source().starts_with("/refit/") {
            return Err(NotAnEvent::new("source", "sources under `/refit/` are Refit's own: use another"));
        }
        Ok(event)
    }

    /// An event of Refit's own making.
    pub fn new(
        id: &str,
        source: &str,
        kind: &str,
        subject: Option<&str>,
        time: crate::time::Timestamp,
        data: Value,
    ) -> Self {
        let mut object = Map::new();
        object.insert("specversion".to_owned(), Value::from("1.0"));
        object.insert("id".to_owned(), Value::from(id));
        object.insert("source".to_owned(), Value::from(source));
        object.insert("type".to_owned(), Value::from(kind));
        if let Some(subject) = subject {
            object.insert("subject".to_owned(), Value::from(subject));
        }
        object.insert("time".to_owned(), Value::from(time.to_string()));
        object.insert("data".to_owned(), data);
        Self { object }
    }

    fn text(&self, name: &str) -> &str {
        self.object.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// `id`: unique within `source`.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// `source`: where it happened.
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// `type`: what happened.
    pub fn kind(&self) -> &str {
        self.text("type")
    }

    /// `subject`: to what it happened.
    pub fn subject(&self) -> Option<&str> {
        self.object.get("subject").and_then(Value::as_str)
    }

    /// `time`: when it happened, as its producer says.
    pub fn time(&self) -> Option<crate::time::Timestamp> {
        self.object.get("time").and_then(Value::as_str).and_then(|t| crate::time::Timestamp::parse(t).ok())
    }

    /// `data`: the payload; null when there is none.
    pub fn data(&self) -> &Value {
        self.object.get("data").unwrap_or(&Value::Null)
    }

    /// The whole object, attributes and extensions by name: what a pattern matches and an expression sees.
    pub fn attributes(&self) -> &Map<String, Value> {
        &self.object
    }

    /// The event as one line of JSON.
    pub fn to_json(&self) -> String {
        Value::Object(self.object.clone()).to_string()
    }
}

fn depth_over(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(items) => left == 0 || items.iter().any(|item| depth_over(item, left - 1)),
        Value::Object(fields) => left == 0 || fields.values().any(|field| depth_over(field, left - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn holds_nul<'a>(mut values: impl Iterator<Item = &'a Value>) -> bool {
    values.any(|value| match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => holds_nul(items.iter()),
        Value::Object(fields) => fields.keys().any(|key| key.contains('\0')) || holds_nul(fields.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_attribute_is_named() {
        let wrong = CloudEvent::parse(json!({"id": "1", "source": "s"})).unwrap_err();
        assert_eq!(wrong.field.as_deref(), Some("type"));
        assert!(wrong.message.contains("is missing"), "{wrong}");
    }

    #[test]
    fn extensions_and_data_are_kept() {
        let value = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "traceparent": "00-a-b-01",
                           "data": {"rows": 3}});
        let event = CloudEvent::parse(value.clone()).unwrap();
        assert_eq!(Value::Object(event.attributes().clone()), value);
        assert_eq!(event.data()["rows"], 3);
    }

    #[test]
    fn nobody_else_speaks_for_refit() {
        for (source, kind) in [("/refit/workflows/churn", "t"), ("/refit", "t"), ("s", "refit.schedule")] {
            let event = json!({"id": "1", "source": source, "type": kind});
            assert!(CloudEvent::parse_from_outside(event.clone()).is_err(), "{event} was accepted");
            assert!(CloudEvent::parse(event).is_ok());
        }
        assert!(
            CloudEvent::parse_from_outside(json!({"id": "1", "source": "/refitted", "type": "t"})).is_ok()
        );
    }

    #[test]
    fn malformed_events_are_refused() {
        for wrong in [
            json!([]),
            json!({"id": "", "source": "s", "type": "t"}),
            json!({"id": 1, "source": "s", "type": "t"}),
            json!({"id": "1", "source": "s", "type": "t", "specversion": "0.3"}),
            json!({"id": "1", "source": "s", "type": "t", "time": "yesterday"}),
            json!({"id": "1", "source": "s", "type": "t", "data": 1, "data_base64": "eA=="}),
            json!({"id": "1", "source": "s", "type": "t", "Bad-Name": 1}),
            json!({"id": "1", "source": "s", "type": "t", "data": "a\u{0}b"}),
        ] {
            assert!(CloudEvent::parse(wrong.clone()).is_err(), "{wrong} was accepted");
        }
    }
}
