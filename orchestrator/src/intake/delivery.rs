//! A RabbitMQ delivery in the form that formats read: its properties and headers as JSON. Pure; knows no channel, and must
//! never decide what a delivery says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use refit_workflows::format::{self, Transport};
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value, json};

/// The deepest nesting of a header; what lies deeper is shown by its type.
const HEADER_DEPTH_MAX: usize = 16;

/// How often a quorum queue has delivered the message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// What came with a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Envelope {
    content_type: Option<String>,
    headers: Map<String, Value>,
    properties: Map<String, Value>,
}

impl Envelope {
    /// Of a delivery.
    pub(super) fn of(delivery: &Delivery) -> Self {
        Self::read(delivery.exchange.as_str(), delivery.routing_key.as_str(), &delivery.properties)
    }

    /// Of the message whose [`Envelope::context`] this is.
    pub(super) fn kept(context: &Value) -> Self {
        let of = |name: &str| context.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        Self {
            content_type: context.get("content_type").and_then(Value::as_str).map(str::to_owned),
            headers: of("headers"),
            properties: of("properties"),
        }
    }

    fn read(exchange: &str, routing_key: &str, given: &BasicProperties) -> Self {
        let mut properties = Map::new();
        properties.insert("exchange".to_owned(), Value::from(exchange));
        properties.insert("routing_key".to_owned(), Value::from(routing_key));
        let texts = [
            ("content_type", given.content_type()),
            ("content_encoding", given.content_encoding()),
            ("correlation_id", given.correlation_id()),
            ("reply_to", given.reply_to()),
            ("expiration", given.expiration()),
            ("message_id", given.message_id()),
            ("type", given.kind()),
            ("user_id", given.user_id()),
            ("app_id", given.app_id()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                properties.insert(name.to_owned(), Value::from(text.as_str()));
            }
        }
        for (name, number) in [("delivery_mode", given.delivery_mode()), ("priority", given.priority())] {
            if let Some(number) = number {
                properties.insert(name.to_owned(), Value::from(*number));
            }
        }
        if let Some(seconds) = given.timestamp() {
            properties.insert("timestamp".to_owned(), time(*seconds));
        }
        Self {
            content_type: given.content_type().as_ref().map(|text| text.as_str().to_owned()),
            headers: given
                .headers()
                .as_ref()
                .map(|table| object(table, HEADER_DEPTH_MAX))
                .unwrap_or_default(),
            properties,
        }
    }

    /// What a format reads; `source` is for formats that give none.
    pub(super) fn delivery<'a>(&'a self, source: &'a str, body: &'a [u8]) -> format::Delivery<'a> {
        format::Delivery {
            transport: Transport::Amqp,
            source,
            content_type: self.content_type.as_deref(),
            headers: &self.headers,
            properties: &self.properties,
            body,
        }
    }

    /// What a dead letter keeps of it.
    pub(super) fn context(&self, redelivered: bool) -> Value {
        json!({
            "content_type": self.content_type,
            "headers": self.headers,
            "properties": self.properties,
            "redelivered": redelivered,
        })
    }

    /// What of it is the same each time the message is delivered.
    pub(super) fn identity(&self) -> Value {
        let mut headers = self.headers.clone();
        headers.remove(DELIVERY_COUNT);
        json!([self.content_type, headers, self.properties])
    }
}

fn object(table: &FieldTable, levels: usize) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (name.as_str().to_owned(), json(value, levels))).collect()
}

/// A header's value as JSON: bytes in base64, times as RFC 3339, nothing and numbers that are not finite as null.
fn json(value: &AMQPValue, levels: usize) -> Value {
    match value {
        AMQPValue::LongString(text) => Value::from(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(value) => Value::from(*value),
        AMQPValue::ShortShortUInt(value) => Value::from(*value),
        AMQPValue::ShortInt(value) => Value::from(*value),
        AMQPValue::ShortUInt(value) => Value::from(*value),
        AMQPValue::LongInt(value) => Value::from(*value),
        AMQPValue::LongUInt(value) => Value::from(*value),
        AMQPValue::LongLongInt(value) => Value::from(*value),
        AMQPValue::Float(value) => Value::from(*value),
        AMQPValue::Double(value) => Value::from(*value),
        AMQPValue::DecimalValue(decimal) => {
            Value::from(f64::from(decimal.value) / 10_f64.powi(i32::from(decimal.scale)))
        }
        AMQPValue::Timestamp(seconds) => time(*seconds),
        AMQPValue::ByteArray(bytes) => Value::from(STANDARD.encode(bytes.as_slice())),
        AMQPValue::Void => Value::Null,
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if levels == 0 => {
            Value::from(format!("({:?})", value.get_type()))
        }
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(|item| json(item, levels - 1)).collect(),
        AMQPValue::FieldTable(table) => Value::Object(object(table, levels - 1)),
    }
}

/// A time in seconds as RFC 3339; one beyond the calendar stays a number.
fn time(seconds: u64) -> Value {
    let millis = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
    let text = millis.map(|millis| Timestamp::from_millis(millis).to_string());
    match text.filter(|text| Timestamp::parse(text).is_ok()) {
        Some(text) => Value::from(text),
        None => Value::from(seconds),
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{ByteArray, DecimalValue, FieldArray};
    use refit_workflows::format::{Format, Mapping};

    use super::*;

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn table(pairs: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn envelope(properties: &BasicProperties) -> Envelope {
        Envelope::read("lake", "eu.customers", properties)
    }

    #[test]
    fn a_message_that_is_delivered_again_is_the_same() {
        let with = |headers: &[(&str, AMQPValue)]| {
            envelope(&BasicProperties::default().with_headers(table(headers))).identity()
        };
        let first = with(&[("x", text("y"))]);
        assert_eq!(with(&[("x", text("y")), ("x-delivery-count", AMQPValue::LongLongInt(2))]), first);
        assert_ne!(with(&[("x", text("z"))]), first);
    }

    #[test]
    fn every_value_of_a_header_has_its_json() {
        let headers = table(&[
            ("text", text("Zürich")),
            ("broken", AMQPValue::LongString(b"a\xff".to_vec().into())),
            ("short", AMQPValue::ShortString("s".into())),
            ("yes", AMQPValue::Boolean(true)),
            (
                "numbers",
                AMQPValue::FieldArray(FieldArray::from(vec![
                    AMQPValue::ShortShortInt(-1),
                    AMQPValue::LongUInt(u32::MAX),
                    AMQPValue::LongLongInt(i64::MIN),
                    AMQPValue::Double(0.5),
                    AMQPValue::Double(f64::NAN),
                    AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 125 }),
                ])),
            ),
            ("at", AMQPValue::Timestamp(1_800_000_000)),
            ("never", AMQPValue::Timestamp(u64::MAX)),
            ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![255, 0]))),
            ("nothing", AMQPValue::Void),
            ("table", AMQPValue::FieldTable(table(&[("count", AMQPValue::LongInt(3))]))),
        ]);
        let read = envelope(&BasicProperties::default().with_headers(headers)).headers;
        let expected = json!({
            "text": "Zürich", "broken": "a\u{fffd}", "short": "s", "yes": true,
            "numbers": [-1, u32::MAX, i64::MIN, 0.5, null, 1.25], "at": "2027-01-15T08:00:00.000Z", "never": u64::MAX,
            "bytes": "/wA=", "nothing": null, "table": {"count": 3},
        });
        assert_eq!(Value::Object(read), expected);
    }

    #[test]
    fn headers_that_nest_without_end_are_cut() {
        let mut deep = AMQPValue::Void;
        for _ in 0..1000 {
            deep = AMQPValue::FieldArray(FieldArray::from(vec![deep]));
        }
        let read = envelope(&BasicProperties::default().with_headers(table(&[("deep", deep)]))).headers;
        assert!(Value::Object(read).to_string().contains(&format!("{}\"(", "[".repeat(HEADER_DEPTH_MAX))));
    }

    #[test]
    fn properties_have_their_names_and_only_those_that_are_set() {
        let bare = json!({"exchange": "lake", "routing_key": "eu.customers"});
        assert_eq!(Value::Object(envelope(&BasicProperties::default()).properties), bare);
        let full = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("m-1".into())
            .with_type("updated".into())
            .with_app_id("loader".into())
            .with_correlation_id("c-1".into())
            .with_priority(4)
            .with_timestamp(1_800_000_000);
        let expected = json!({
            "exchange": "lake", "routing_key": "eu.customers", "content_type": "application/json", "message_id": "m-1",
            "type": "updated", "app_id": "loader", "correlation_id": "c-1", "priority": 4,
            "timestamp": "2027-01-15T08:00:00.000Z",
        });
        assert_eq!(Value::Object(envelope(&full).properties), expected);
    }

    #[test]
    fn a_format_reads_what_the_broker_delivers() {
        let headers = table(&[
            ("cloudEvents:id", text("42")),
            ("cloudEvents:source", text("/warehouse")),
            ("cloudEvents:type", text("dataset.updated")),
            ("cloudEvents:time", AMQPValue::Timestamp(1_800_000_000)),
            ("cloudEvents:sequence", AMQPValue::LongLongInt(7)),
            ("x-death", AMQPValue::FieldArray(FieldArray::default())),
        ]);
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
        let binary = envelope(&properties);
        let events = Format::CloudEvents.read(&binary.delivery("/s", br#"{"rows": 3}"#)).unwrap();
        let expected = json!({
            "specversion": "1.0", "id": "42", "source": "/warehouse", "type": "dataset.updated",
            "time": "2027-01-15T08:00:00.000Z", "sequence": 7, "datacontenttype": "application/json",
            "data": {"rows": 3},
        });
        assert_eq!(Value::Object(events[0].attributes().clone()), expected);

        let mapping = Mapping::parse([("type", "properties.type"), ("subject", "properties.routing_key")]);
        let plain = envelope(&BasicProperties::default().with_type("t".into()).with_message_id("m-1".into()));
        let events = Format::Json(mapping.unwrap()).read(&plain.delivery("/s", b"{}")).unwrap();
        assert_eq!((events[0].id(), events[0].source()), ("m-1", "/s"));
        assert_eq!((events[0].kind(), events[0].subject()), ("t", Some("eu.customers")));

        let zipped = envelope(&BasicProperties::default().with_content_encoding("gzip".into()));
        let refused = Format::CloudEvents.read(&zipped.delivery("/s", b"x")).unwrap_err();
        assert!(refused.message.contains("uncompressed"), "{refused}");
    }

    #[test]
    fn a_dead_letter_tells_what_came() {
        let headers = table(&[("a", AMQPValue::FieldArray(FieldArray::from(vec![text("b")])))]);
        let given = BasicProperties::default().with_headers(headers).with_message_id("m-1".into());
        let context = envelope(&given).context(true);
        let expected = json!({
            "content_type": null, "headers": {"a": ["b"]}, "redelivered": true,
            "properties": {"exchange": "lake", "routing_key": "eu.customers", "message_id": "m-1"},
        });
        assert_eq!(context, expected);
    }
}
