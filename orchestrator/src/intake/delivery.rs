//! RabbitMQ's messages in the words that formats read: AMQP 0-9-1 properties and headers as JSON. Pure; knows no channel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::types::{AMQPValue, FieldTable};
use refit_workflows::format::{Delivery, Transport};
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value, json};

/// How deep a header may be nested; what lies deeper is left out.
const HEADER_DEPTH_MAX: u32 = 16;

/// A message without its body, as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    content_type: Option<String>,
    headers: Map<String, Value>,
    properties: Map<String, Value>,
    redelivered: bool,
}

impl Message {
    /// What came with a body.
    pub(super) fn of(delivery: &lapin::message::Delivery) -> Self {
        let given = &delivery.properties;
        let mut properties = Map::new();
        let texts = [
            ("exchange", Some(&delivery.exchange)),
            ("routing_key", Some(&delivery.routing_key)),
            ("content_type", given.content_type().as_ref()),
            ("content_encoding", given.content_encoding().as_ref()),
            ("correlation_id", given.correlation_id().as_ref()),
            ("reply_to", given.reply_to().as_ref()),
            ("expiration", given.expiration().as_ref()),
            ("message_id", given.message_id().as_ref()),
            ("type", given.kind().as_ref()),
            ("user_id", given.user_id().as_ref()),
            ("app_id", given.app_id().as_ref()),
        ];
        for (name, text) in texts {
            properties.extend(text.map(|text| (name.to_owned(), Value::from(without_nul(text.as_str())))));
        }
        for (name, number) in [("delivery_mode", given.delivery_mode()), ("priority", given.priority())] {
            properties.extend(number.map(|number| (name.to_owned(), Value::from(number))));
        }
        properties.extend(given.timestamp().map(|seconds| ("timestamp".to_owned(), time(seconds))));
        Self {
            content_type: given.content_type().as_ref().map(|text| text.as_str().to_owned()),
            headers: given.headers().as_ref().map(|headers| object(headers, 0)).unwrap_or_default(),
            properties,
            redelivered: delivery.redelivered,
        }
    }

    /// The message with its body, for a format to read.
    pub(super) fn with_body<'a>(&'a self, source: &'a str, body: &'a [u8]) -> Delivery<'a> {
        Delivery {
            transport: Transport::Amqp,
            source,
            content_type: self.content_type.as_deref(),
            headers: &self.headers,
            properties: &self.properties,
            body,
        }
    }

    /// What a dead letter keeps of the message beside its body.
    pub(super) fn context(&self) -> Value {
        json!({
            "transport": "amqp",
            "content_type": self.content_type,
            "headers": self.headers,
            "properties": self.properties,
            "redelivered": self.redelivered,
        })
    }
}

fn object(table: &FieldTable, depth: u32) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (without_nul(name.as_str()), json(value, depth + 1))).collect()
}

/// A header's value. Times are RFC 3339 and bytes base64; what JSON cannot say is null.
fn json(value: &AMQPValue, depth: u32) -> Value {
    match value {
        AMQPValue::LongString(text) => Value::from(without_nul(&String::from_utf8_lossy(text.as_bytes()))),
        AMQPValue::ShortString(text) => Value::from(without_nul(text.as_str())),
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
        AMQPValue::DecimalValue(value) => {
            Value::from(f64::from(value.value) / 10f64.powi(i32::from(value.scale)))
        }
        AMQPValue::Timestamp(seconds) => time(*seconds),
        AMQPValue::ByteArray(bytes) => Value::from(STANDARD.encode(bytes.as_slice())),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth >= HEADER_DEPTH_MAX => Value::Null,
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(|value| json(value, depth + 1)).collect(),
        AMQPValue::FieldTable(table) => Value::Object(object(table, depth)),
        AMQPValue::Void => Value::Null,
    }
}

fn time(seconds: u64) -> Value {
    let millis = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
    millis.map_or(Value::Null, |millis| Value::from(Timestamp::from_millis(millis).to_string()))
}

/// PostgreSQL cannot store the NUL character.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::types::{ByteArray, DecimalValue, FieldArray};

    use super::*;

    fn table(pairs: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert(name.into(), value);
        }
        table
    }

    fn delivered(properties: BasicProperties) -> lapin::message::Delivery {
        let mut delivery =
            lapin::message::Delivery::mock(1, "cdc".into(), "shop.orders".into(), true, b"{}".to_vec());
        delivery.properties = properties;
        delivery
    }

    #[test]
    fn headers_of_every_type_are_json() {
        let headers = table([
            ("text", AMQPValue::LongString("a\0b".into())),
            ("flag", AMQPValue::Boolean(true)),
            ("small", AMQPValue::ShortShortInt(-3)),
            ("large", AMQPValue::LongLongInt(i64::MAX)),
            ("ratio", AMQPValue::Double(0.5)),
            ("nothing", AMQPValue::Double(f64::NAN)),
            ("price", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1250 })),
            ("at", AMQPValue::Timestamp(1_800_000_000)),
            ("never", AMQPValue::Timestamp(u64::MAX)),
            ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![255, 0]))),
            ("list", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::LongInt(7)]))),
            ("inside", AMQPValue::FieldTable(table([("deep", AMQPValue::Boolean(false))]))),
        ]);
        let message = Message::of(&delivered(BasicProperties::default().with_headers(headers)));
        let expected = json!({
            "text": "a\u{fffd}b", "flag": true, "small": -3, "large": i64::MAX, "ratio": 0.5, "nothing": null,
            "price": 12.5, "at": "2027-01-15T08:00:00.000Z", "never": null, "bytes": "/wA=", "list": [null, 7],
            "inside": {"deep": false},
        });
        assert_eq!(Value::Object(message.headers), expected);
    }

    #[test]
    fn headers_are_nested_to_a_bound() {
        let deep = (0..100).fold(AMQPValue::Boolean(true), |inner, _| {
            AMQPValue::FieldArray(FieldArray::from(vec![inner]))
        });
        let message = Message::of(&delivered(BasicProperties::default().with_headers(table([("x", deep)]))));
        let mut levels = 0;
        let mut value = &message.headers["x"];
        while let Some(inner) = value.get(0) {
            (value, levels) = (inner, levels + 1);
        }
        assert_eq!((value, levels), (&Value::Null, HEADER_DEPTH_MAX - 1));
    }

    #[test]
    fn properties_go_by_the_protocols_names_and_a_dead_letter_keeps_them() {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("m-1".into())
            .with_type("order".into())
            .with_priority(4)
            .with_timestamp(1_800_000_000)
            .with_headers(table([("x", AMQPValue::LongInt(1))]));
        let message = Message::of(&delivered(properties));
        let expected = json!({
            "exchange": "cdc", "routing_key": "shop.orders", "content_type": "application/json", "message_id": "m-1",
            "type": "order", "priority": 4, "timestamp": "2027-01-15T08:00:00.000Z",
        });
        assert_eq!(Value::Object(message.properties.clone()), expected);
        let given = message.with_body("/sources/orders", b"{}");
        assert_eq!((given.content_type, given.source), (Some("application/json"), "/sources/orders"));
        let context = json!({
            "transport": "amqp", "content_type": "application/json", "headers": {"x": 1}, "properties": expected,
            "redelivered": true,
        });
        assert_eq!(message.context(), context);
    }
}
