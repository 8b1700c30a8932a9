//! What a RabbitMQ delivery says: a CloudEvent, or the reason why it is none. Pure; knows no channel.
//!
//! CloudEvents 1.0.2, AMQP protocol binding, as RabbitMQ's AMQP 0-9-1 carries it: the `content_type` property and
//! the `headers` table stand for AMQP 1.0's content-type and application-properties.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::types::{AMQPValue, FieldTable};
use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value};

/// The parts of a delivery that say what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) content_type: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
    pub(super) headers: Option<&'a FieldTable>,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// Reads the event.
    ///
    /// # Errors
    /// Why there is none and what to send instead, for whoever looks at the dead letter.
    pub(super) fn event(self) -> Result<CloudEvent, String> {
        if self.body.len() > EVENT_BYTES_MAX {
            return Err(format!(
                "the message has {} bytes; an event may have at most {EVENT_BYTES_MAX}: store the data elsewhere and \
                 send where it is",
                self.body.len()
            ));
        }
        if let Some(encoding) = self.content_encoding
            && !encoding.is_empty()
            && !matches!(encoding.to_ascii_lowercase().as_str(), "utf-8" | "identity")
        {
            return Err(format!("the message is encoded as `{encoding}`: send it uncompressed"));
        }
        let kind = self.content_type.unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("application/cloudevents-batch") {
            return Err("the message is a batch: over AMQP, send one event per message".to_owned());
        }
        if kind.starts_with("application/cloudevents") {
            return self.structured();
        }
        match self.attributes()? {
            Some(attributes) => self.binary(attributes),
            None => self.structured(),
        }
    }

    /// The body is the whole event.
    fn structured(self) -> Result<CloudEvent, String> {
        let value = serde_json::from_slice(self.body).map_err(|error| {
            format!(
                "the body is not JSON ({error}): send a CloudEvent as a JSON object with the content type \
                 application/cloudevents+json"
            )
        })?;
        checked(value)
    }

    /// The headers are the attributes and the body is the data.
    fn binary(self, mut attributes: Map<String, Value>) -> Result<CloudEvent, String> {
        if let Some(content_type) = self.content_type {
            attributes.insert("datacontenttype".to_owned(), Value::from(content_type));
        }
        if !self.body.is_empty() {
            let (name, data) = self.data()?;
            attributes.insert(name.to_owned(), data);
        }
        checked(Value::Object(attributes))
    }

    fn data(self) -> Result<(&'static str, Value), String> {
        let kind = self.content_type.unwrap_or("application/json").to_ascii_lowercase();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.ends_with("/json") || essence.ends_with("+json") {
            return serde_json::from_slice(self.body).map(|data| ("data", data)).map_err(|error| {
                format!("the body is not JSON ({error}) although the content type says {essence}")
            });
        }
        match std::str::from_utf8(self.body) {
            Ok(text) if essence.starts_with("text/") => Ok(("data", Value::from(text))),
            Ok(_) | Err(_) => Ok(("data_base64", Value::from(STANDARD.encode(self.body)))),
        }
    }

    /// The attributes among the headers; none when there is not one, so that the message is not in binary mode.
    fn attributes(self) -> Result<Option<Map<String, Value>>, String> {
        let mut attributes = Map::new();
        for (name, value) in self.headers.into_iter().flatten() {
            // 1.0.2 writes `cloudEvents:id`, later drafts `cloudEvents_id`: JMS forbids the colon.
            let name = name.as_str();
            let Some(name) = name.strip_prefix("cloudEvents:").or_else(|| name.strip_prefix("cloudEvents_"))
            else {
                continue;
            };
            let value = attribute(value).ok_or_else(|| {
                format!("the header of attribute `{name}` is neither text, number, boolean nor time")
            })?;
            attributes.insert(name.to_owned(), value);
        }
        Ok(if attributes.is_empty() { None } else { Some(attributes) })
    }

    /// The headers as JSON, for a dead letter: null where a value is neither text, whole number, boolean nor time.
    pub(super) fn headers_as_json(self) -> Value {
        let mut object = Map::new();
        for (name, value) in self.headers.into_iter().flatten() {
            object.insert(without_nul(name.as_str()), attribute(value).unwrap_or(Value::Null));
        }
        Value::Object(object)
    }
}

fn checked(value: Value) -> Result<CloudEvent, String> {
    CloudEvent::parse_from_outside(value).map_err(|wrong| format!("not a CloudEvent: {wrong}"))
}

fn attribute(value: &AMQPValue) -> Option<Value> {
    match value {
        AMQPValue::LongString(text) => {
            Some(Value::from(without_nul(&String::from_utf8_lossy(text.as_bytes()))))
        }
        AMQPValue::ShortString(text) => Some(Value::from(without_nul(text.as_str()))),
        AMQPValue::Boolean(value) => Some(Value::from(*value)),
        AMQPValue::ShortShortInt(value) => Some(Value::from(*value)),
        AMQPValue::ShortShortUInt(value) => Some(Value::from(*value)),
        AMQPValue::ShortInt(value) => Some(Value::from(*value)),
        AMQPValue::ShortUInt(value) => Some(Value::from(*value)),
        AMQPValue::LongInt(value) => Some(Value::from(*value)),
        AMQPValue::LongUInt(value) => Some(Value::from(*value)),
        AMQPValue::LongLongInt(value) => Some(Value::from(*value)),
        AMQPValue::Timestamp(seconds) => {
            let millis = i64::try_from(*seconds).ok()?.checked_mul(1000)?;
            Some(Value::from(Timestamp::from_millis(millis).to_string()))
        }
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::Void => None,
    }
}

/// PostgreSQL cannot store the NUL character.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str =
        r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"rows": 3}}"#;

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn headers(pairs: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn read(
        content_type: Option<&str>,
        headers: Option<&FieldTable>,
        body: &[u8],
    ) -> Result<CloudEvent, String> {
        Message { content_type, content_encoding: None, headers, body }.event()
    }

    #[test]
    fn a_structured_event_is_read_whatever_its_content_type_says_of_json() {
        let noise = headers(&[("x-death", AMQPValue::LongInt(3))]);
        for content_type in [
            Some("application/cloudevents+json"),
            Some("Application/CloudEvents+JSON; charset=utf-8"),
            Some("application/json"),
            Some("application/octet-stream"),
            None,
        ] {
            let event = read(content_type, Some(&noise), GOOD.as_bytes()).unwrap();
            assert_eq!((event.id(), event.data()["rows"].as_i64()), ("1", Some(3)), "{content_type:?}");
        }
    }

    #[test]
    fn binary_mode_takes_attributes_from_headers_with_either_separator() {
        for separator in [":", "_"] {
            let table = headers(&[
                (&format!("cloudEvents{separator}id"), text("42")),
                (&format!("cloudEvents{separator}source"), text("/warehouse")),
                (&format!("cloudEvents{separator}type"), text("dataset.updated")),
                (&format!("cloudEvents{separator}time"), AMQPValue::Timestamp(1_800_000_000)),
                (&format!("cloudEvents{separator}sequence"), AMQPValue::LongLongInt(7)),
                ("other", text("kept out")),
            ]);
            let event = read(Some("application/json"), Some(&table), br#"{"rows": 3}"#).unwrap();
            let expected = json!({
                "specversion": "1.0", "id": "42", "source": "/warehouse", "type": "dataset.updated",
                "time": "2027-01-15T08:00:00.000Z", "sequence": 7, "datacontenttype": "application/json",
                "data": {"rows": 3},
            });
            assert_eq!(Value::Object(event.attributes().clone()), expected);
        }
    }

    #[test]
    fn binary_data_follows_its_content_type() {
        let table = headers(&[
            ("cloudEvents:id", text("1")),
            ("cloudEvents:source", text("/s")),
            ("cloudEvents:type", text("t")),
        ]);
        let data = |content_type, body: &[u8]| {
            let event = read(content_type, Some(&table), body).unwrap();
            let attributes = event.attributes();
            (attributes.get("data").cloned(), attributes.get("data_base64").cloned())
        };
        assert_eq!(data(Some("text/csv"), b"a,b"), (Some(json!("a,b")), None));
        assert_eq!(data(Some("application/vnd.x+json"), b"[1]"), (Some(json!([1])), None));
        assert_eq!(data(Some("image/png"), b"\xff\x00"), (None, Some(json!("/wA="))));
        assert_eq!(data(Some("text/plain"), b"\xff"), (None, Some(json!("/w=="))));
        assert_eq!(data(None, b""), (None, None));
    }

    #[test]
    fn what_is_no_event_gets_a_reason_that_teaches() {
        let no_type = headers(&[("cloudEvents:id", text("1")), ("cloudEvents:source", text("/s"))]);
        let odd = headers(&[("cloudEvents:id", AMQPValue::Void)]);
        let large = vec![b' '; EVENT_BYTES_MAX + 1];
        for (content_type, headers, body, expected) in [
            (None, None, &b"hello"[..], "application/cloudevents+json"),
            (None, None, b"", "not JSON"),
            (None, None, b"\xff\xfe", "not JSON"),
            (None, None, b"[1]", "JSON object"),
            (None, None, br#"{"id": "1", "source": "/s"}"#, "`type` is missing"),
            (Some("application/cloudevents+json"), Some(&no_type), b"{}", "`id` is missing"),
            (Some("application/cloudevents-batch+json"), None, b"[]", "one event per message"),
            (Some("application/json"), Some(&no_type), b"{}", "`type` is missing"),
            (Some("application/json"), Some(&odd), b"{}", "attribute `id`"),
            (None, None, &large, "at most 1048576"),
        ] {
            let reason = read(content_type, headers, body).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
        let zipped =
            Message { content_type: None, content_encoding: Some("gzip"), headers: None, body: b"x" };
        assert!(zipped.event().unwrap_err().contains("uncompressed"));
    }
}
