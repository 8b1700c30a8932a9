//! Dead letters read again as their source would read them today. Pure: the context that was kept with a letter stands
//! for the message it was.

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use refit_workflows::event::CloudEvent;
use serde_json::Value;

use super::delivery::Message;
use crate::engine::DeadLetter;

/// What a letter's context holds of the message, beside `headers`: its content type.
pub(super) const CONTENT_TYPE: &str = "content_type";
/// Its content encoding.
pub(super) const CONTENT_ENCODING: &str = "content_encoding";
/// Its headers, as an object.
pub(super) const HEADERS: &str = "headers";

/// Reads a letter.
///
/// # Errors
/// Why it is still no event, and what to send instead.
pub(crate) fn read_again(letter: &DeadLetter) -> Result<Vec<CloudEvent>, String> {
    let text = |name| letter.context.get(name).and_then(Value::as_str);
    let headers = match letter.context.get(HEADERS) {
        Some(Value::Object(headers)) => {
            Some(headers.iter().map(|(name, value)| (name.as_str().into(), header(value))))
        }
        Some(_) | None => None,
    };
    let mut table = FieldTable::default();
    for (name, value) in headers.into_iter().flatten() {
        table.insert(name, value);
    }
    let message = Message {
        content_type: text(CONTENT_TYPE),
        content_encoding: text(CONTENT_ENCODING),
        headers: Some(&table),
        body: &letter.body,
    };
    message.event().map(|event| vec![event])
}

/// A header as it was kept. What could not stand for an attribute then cannot now.
fn header(kept: &Value) -> AMQPValue {
    match kept {
        Value::Null => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => AMQPValue::LongLongInt(value),
            None => AMQPValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(_) => AMQPValue::FieldArray(FieldArray::default()),
        Value::Object(_) => AMQPValue::FieldTable(FieldTable::default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn letter(context: Value, body: &[u8]) -> DeadLetter {
        DeadLetter { source: "amqp:q".to_owned(), reason: String::new(), body: body.to_vec(), context }
    }

    #[test]
    fn what_was_kept_with_a_letter_stands_for_its_message() {
        let headers = json!({ "cloudEvents:id": "7", "cloudEvents:source": "/s", "cloudEvents:type": "t",
            "cloudEvents:sequence": 3, "other": null });
        let context = json!({ "content_type": "text/csv", "headers": headers });
        let events = read_again(&letter(context, b"a,b")).unwrap();
        assert_eq!((events.len(), events[0].id(), events[0].data()), (1, "7", &json!("a,b")));
        assert_eq!(events[0].attributes()["sequence"], 3);

        for (context, body, expected) in [
            (json!({}), &b"{"[..], "not JSON"),
            (json!({ "content_encoding": "gzip" }), b"{}", "uncompressed"),
            (json!({ "headers": { "cloudEvents:id": null } }), b"{}", "attribute `id`"),
            (json!({ "headers": { "cloudEvents:id": 1.5 } }), b"{}", "attribute `id`"),
        ] {
            let reason = read_again(&letter(context, body)).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
