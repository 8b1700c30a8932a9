//! Reading a JSON payload, with refusals that name what is missing by its path; drafting the event it becomes. Must never
//! happen here: an id that depends on the order of an object's names.

use serde_json::{Map, Value};

use super::{Delivery, Malformed, accept};
use crate::digest::Digest;
use crate::event::CloudEvent;
use crate::expression::{describe, shorten};
use crate::time::Timestamp;

/// What a format is called in a refusal, and what to send.
#[derive(Debug)]
pub(super) struct Shape {
    /// `a GitHub webhook`
    pub(super) what: &'static str,
    /// What to do about it, as it follows a semicolon.
    pub(super) advice: &'static str,
}

impl Shape {
    /// The delivery is not of this format.
    pub(super) fn refuse(&self, wrong: &str) -> Malformed {
        Malformed::new(format!("this is not {}: {wrong}; {}", self.what, self.advice))
    }

    /// The body as JSON.
    pub(super) fn parse(&self, delivery: &Delivery<'_>) -> Result<Value, Malformed> {
        if delivery.media_type() == "application/x-www-form-urlencoded" {
            return Err(self.refuse("the body is a form and not JSON"));
        }
        serde_json::from_slice(delivery.body).map_err(|error| Malformed {
            position: Some((error.line(), error.column())),
            ..self.refuse(&format!("the body is not JSON ({error})"))
        })
    }

    /// A header the format needs.
    pub(super) fn header<'a>(&self, delivery: &Delivery<'a>, name: &str) -> Result<&'a str, Malformed> {
        let given = delivery.header(name).map(str::trim).filter(|text| !text.is_empty());
        given.ok_or_else(|| self.refuse(&format!("the header `{name}` is missing")))
    }

    /// The fields of the payload.
    pub(super) fn fields<'v>(&'static self, payload: &'v Value) -> Result<Fields<'v>, Malformed> {
        let object = payload
            .as_object()
            .ok_or_else(|| self.refuse(&format!("the body is {} and not an object", describe(payload))))?;
        Ok(Fields { shape: self, path: String::new(), object })
    }

    /// A name that becomes a part of a type.
    pub(super) fn word<'t>(&self, name: &str, text: &'t str) -> Result<&'t str, Malformed> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !text.is_empty() && text.len() <= 100 && text.bytes().all(is_word) {
            return Ok(text);
        }
        Err(self.refuse(&format!("`{name}` is `{}`, which is no name of an event", shorten(text))))
    }
}

/// An object of a payload, which knows where it stands in it.
#[derive(Clone, Debug)]
pub(super) struct Fields<'v> {
    shape: &'static Shape,
    path: String,
    object: &'v Map<String, Value>,
}

impl<'v> Fields<'v> {
    /// A value that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Text that is there and not empty.
    pub(super) fn optional_text(&self, name: &str) -> Option<&'v str> {
        self.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Text that must be there and not be empty.
    pub(super) fn text(&self, name: &str) -> Result<&'v str, Malformed> {
        match self.get(name) {
            Some(Value::String(text)) if text.is_empty() => Err(self.refuse(name, "is empty")),
            Some(Value::String(text)) => Ok(text),
            other => Err(self.unfit(name, other, "text")),
        }
    }

    /// An id that must be there: text, or a number as text.
    pub(super) fn id(&self, name: &str) -> Result<String, Malformed> {
        match self.get(name) {
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => self.text(name).map(str::to_owned),
        }
    }

    /// Text that must be there and becomes a part of a type.
    pub(super) fn word(&self, name: &str) -> Result<&'v str, Malformed> {
        self.shape.word(&self.at(name), self.text(name)?)
    }

    /// An object that must be there.
    pub(super) fn object(&self, name: &str) -> Result<Self, Malformed> {
        match self.get(name) {
            Some(Value::Object(object)) => Ok(Self { shape: self.shape, path: self.at(name), object }),
            other => Err(self.unfit(name, other, "an object")),
        }
    }

    /// An object that may be missing.
    pub(super) fn optional_object(&self, name: &str) -> Option<Self> {
        self.object(name).ok()
    }

    /// A list of objects that must be there.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Self>, Malformed> {
        let items = match self.get(name) {
            Some(Value::Array(items)) => items,
            other => return Err(self.unfit(name, other, "a list")),
        };
        let items = items.iter().enumerate().map(|(place, item)| {
            let name = format!("{name}[{place}]");
            let object = item.as_object().ok_or_else(|| self.unfit(&name, Some(item), "an object"))?;
            Ok(Self { shape: self.shape, path: self.at(&name), object })
        });
        items.collect()
    }

    /// The object itself.
    pub(super) fn value(&self) -> Value {
        Value::Object(self.object.clone())
    }

    /// How many names it has.
    pub(super) fn len(&self) -> usize {
        self.object.len()
    }

    /// The delivery is not of this format because of this field.
    pub(super) fn refuse(&self, name: &str, wrong: &str) -> Malformed {
        self.shape.refuse(&format!("`{}` {wrong}", self.at(name)))
    }

    fn unfit(&self, name: &str, found: Option<&Value>, wanted: &str) -> Malformed {
        match found {
            None => self.refuse(name, "is missing"),
            Some(value) => self.refuse(name, &format!("is {} and not {wanted}", describe(value))),
        }
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// An event as a format reads it, before it is checked.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) subject: Option<String>,
    /// RFC 3339.
    pub(super) time: Option<String>,
    pub(super) data: Value,
}

impl Draft {
    pub(super) fn into_event(self, source: &str) -> Result<CloudEvent, Malformed> {
        self.into_event_with(source, Map::new())
    }

    /// The event, with further attributes.
    pub(super) fn into_event_with(
        self,
        source: &str,
        mut attributes: Map<String, Value>,
    ) -> Result<CloudEvent, Malformed> {
        let texts = [("id", Some(self.id)), ("source", Some(source.to_owned())), ("type", Some(self.kind))];
        for (name, text) in texts.into_iter().chain([("subject", self.subject), ("time", self.time)]) {
            if let Some(text) = text {
                attributes.insert(name.to_owned(), Value::from(text));
            }
        }
        attributes.insert("data".to_owned(), self.data);
        accept(Value::Object(attributes)).map_err(|wrong| Malformed {
            field: wrong.field,
            ..Malformed::new(format!("what was delivered makes no event: {}", wrong.message))
        })
    }
}

/// The id of an event whose source gives none: the digest of what makes it that event and no other.
pub(super) fn derived_id(mut parts: Value) -> String {
    parts.sort_all_objects();
    Digest::of(parts.to_string().as_bytes()).to_string()
}

/// A time as an event has it. A payload's time says when something happened and nothing else: one that cannot be read
/// is left out, the payload still has it.
pub(super) fn time(text: Option<&str>) -> Option<String> {
    text.filter(|text| Timestamp::parse(text).is_ok()).map(str::to_owned)
}

/// Words in lower case, joined with `_`.
pub(super) fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}
