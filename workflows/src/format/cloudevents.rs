//! `cloudevents`: CloudEvents 1.0.2 in the JSON format and in the HTTP and AMQP protocol bindings. RabbitMQ's AMQP 0-9-1
//! carries the binding for AMQP 1.0 in its `content_type` property and its `headers` table.
//!
//! | content type | mode |
//! |---|---|
//! | `application/cloudevents-batch…` | a JSON array of events; over HTTP only |
//! | `application/cloudevents…` | structured: the body is the event |
//! | any other, with attributes among the headers | binary: the body is the data |
//! | any other | structured; over HTTP an array is a batch |

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::{Delivery, EVENTS_MAX, Malformed, Transport, accept};
use crate::event::{CloudEvent, NotAnEvent};

/// What attributes' names begin with over AMQP: 1.0.2 writes the colon, which JMS forbids, later drafts the other.
const AMQP_PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];

/// What the names of the headers with an event's attributes begin with over HTTP, in lower case (CloudEvents 1.0.2, HTTP
/// protocol binding). A request with any such header is in binary mode, unless its media type is one of CloudEvents.
pub const HTTP_ATTRIBUTE_PREFIX: &str = "ce-";

/// A body that says nothing of its type is taken for JSON, as in the JSON format.
const JSON: &str = "application/json";

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let kind = delivery.media_type();
    if kind.starts_with("application/cloudevents-batch") {
        return batch(delivery);
    }
    if kind.starts_with("application/cloudevents") {
        return structured(delivery);
    }
    let attributes = match delivery.transport {
        Transport::Amqp => amqp_attributes(delivery.headers)?,
        Transport::Http => http_attributes(delivery.headers)?,
    };
    if !attributes.is_empty() {
        return binary(delivery, attributes);
    }
    structured_or_batch(delivery)
}

fn structured(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let value = parse(delivery)?;
    if !value.is_array() {
        return one(value).map(|event| vec![event]);
    }
    Err(Malformed::new(match delivery.transport {
        Transport::Amqp => {
            "the body is an array: over AMQP, send one CloudEvent per message, as a JSON object"
        }
        Transport::Http => {
            "the body must be one CloudEvent, a JSON object: send several as application/cloudevents-batch+json"
        }
    }))
}

fn batch(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    if delivery.transport == Transport::Amqp {
        return Err(Malformed::new("the message is a batch: over AMQP, send one event per message"));
    }
    let Value::Array(values) = parse(delivery)? else {
        return Err(Malformed::new("the body must be a JSON array of CloudEvents"));
    };
    many(values)
}

fn structured_or_batch(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    match (delivery.transport, parse(delivery)?) {
        (Transport::Http, Value::Array(values)) => many(values),
        (Transport::Http, value) if !value.is_object() => {
            Err(Malformed::new("the body must be a CloudEvent (a JSON object) or an array of CloudEvents"))
        }
        (Transport::Http | Transport::Amqp, value) => one(value).map(|event| vec![event]),
    }
}

fn parse(delivery: &Delivery<'_>) -> Result<Value, Malformed> {
    serde_json::from_slice(delivery.body).map_err(|error| Malformed {
        position: Some((error.line(), error.column())),
        ..Malformed::new(format!(
            "the body is not JSON: {error}; send a CloudEvent as a JSON object with the content type \
             application/cloudevents+json"
        ))
    })
}

fn one(value: Value) -> Result<CloudEvent, Malformed> {
    accept(value).map_err(|wrong| refusal(wrong, None))
}

fn many(values: Vec<Value>) -> Result<Vec<CloudEvent>, Malformed> {
    if values.len() > EVENTS_MAX {
        return Err(Malformed::new(format!(
            "the array holds {} events; at most {EVENTS_MAX} are taken at once: send them in several requests, a \
             repeated (source, id) is stored once",
            values.len()
        )));
    }
    let events = values.into_iter().enumerate();
    events.map(|(place, value)| accept(value).map_err(|wrong| refusal(wrong, Some(place)))).collect()
}

fn refusal(wrong: NotAnEvent, place: Option<usize>) -> Malformed {
    let field = match (place, wrong.field) {
        (None, field) => field,
        (Some(place), None) => Some(format!("[{place}]")),
        (Some(place), Some(field)) => Some(format!("[{place}].{field}")),
    };
    Malformed { field, ..Malformed::new(format!("not a CloudEvent: {}", wrong.message)) }
}

/// The headers are the attributes and the body is the data.
fn binary(delivery: &Delivery<'_>, mut attributes: Map<String, Value>) -> Result<Vec<CloudEvent>, Malformed> {
    for name in ["data", "data_base64"] {
        if attributes.contains_key(name) {
            return Err(Malformed::new(format!("`{name}` is no attribute: send the data as the body")));
        }
    }
    if let Some(content_type) = delivery.content_type {
        attributes.insert("datacontenttype".to_owned(), Value::from(content_type));
    }
    if !delivery.body.is_empty() {
        let kind = attributes.get("datacontenttype").and_then(Value::as_str).unwrap_or(JSON);
        let (name, data) = data(kind, delivery.body)?;
        attributes.insert(name.to_owned(), data);
    }
    one(Value::Object(attributes)).map(|event| vec![event])
}

fn data(kind: &str, body: &[u8]) -> Result<(&'static str, Value), Malformed> {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence.ends_with("/json") || essence.ends_with("+json") {
        return serde_json::from_slice(body).map(|data| ("data", data)).map_err(|error| Malformed {
            position: Some((error.line(), error.column())),
            ..Malformed::new(format!(
                "the body is not JSON although the content type says {essence}: {error}"
            ))
        });
    }
    match std::str::from_utf8(body) {
        Ok(text) if essence.starts_with("text/") => Ok(("data", Value::from(text))),
        Ok(_) | Err(_) => Ok(("data_base64", Value::from(STANDARD.encode(body)))),
    }
}

fn amqp_attributes(headers: &Map<String, Value>) -> Result<Map<String, Value>, Malformed> {
    let mut attributes = Map::new();
    let mut prefix = None;
    for (header, value) in headers {
        let Some(used) = AMQP_PREFIXES.into_iter().find(|prefix| header.starts_with(prefix)) else {
            continue;
        };
        if prefix.is_some_and(|other| other != used) {
            return Err(Malformed::new(format!(
                "the headers write attributes both as `{}…` and as `{}…`: use one of them",
                AMQP_PREFIXES[0], AMQP_PREFIXES[1]
            )));
        }
        prefix = Some(used);
        let name = &header[used.len()..];
        let is_attribute = match value {
            Value::String(_) | Value::Bool(_) => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if !is_attribute {
            return Err(of_attribute(name, "is neither text, whole number, boolean nor time"));
        }
        attributes.insert(name.to_owned(), value.clone());
    }
    Ok(attributes)
}

fn http_attributes(headers: &Map<String, Value>) -> Result<Map<String, Value>, Malformed> {
    let mut attributes = Map::new();
    for (header, value) in headers {
        let Some(name) = header.strip_prefix(HTTP_ATTRIBUTE_PREFIX) else { continue };
        let text = value.as_str().ok_or_else(|| of_attribute(name, "is not text"))?;
        attributes.insert(name.to_owned(), Value::from(decode(name, text)?));
    }
    Ok(attributes)
}

/// A header's value as the HTTP binding encodes it: percent-encoded UTF-8, decoded once; in double quotes by senders of
/// drafts before 1.0.
fn decode(name: &str, text: &str) -> Result<String, Malformed> {
    let text = text.trim();
    let inside = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = match inside {
        Some(inside) => {
            unescape(inside).ok_or_else(|| of_attribute(name, "has a `\"` or `\\` that is not escaped"))?
        }
        None => text.to_owned(),
    };
    // In place of bytes that are no UTF-8, the transport has put the replacement character.
    let decoded = percent_decode_str(&text).decode_utf8().ok().filter(|_| !text.contains('\u{fffd}'));
    decoded.map(Cow::into_owned).ok_or_else(|| {
        of_attribute(name, "does not decode to UTF-8: percent-encode its UTF-8 bytes, as in `Z%C3%BCrich`")
    })
}

/// What stands between double quotes, where `\` takes the next character as it is (RFC 7230, 3.2.6).
fn unescape(inside: &str) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

fn of_attribute(name: &str, wrong: &str) -> Malformed {
    Malformed {
        field: Some(name.to_owned()),
        ..Malformed::new(format!("the header of attribute `{name}` {wrong}"))
    }
}
