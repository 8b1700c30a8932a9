//! Dead letters read again as their source would read them today. Pure: the context that was kept with a letter stands
//! for the message it was.

use std::collections::BTreeMap;

use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use refit_workflows::format::{Delivery, Format, Transport};
use serde_json::Value;

use super::delivery::Envelope;
use super::hooks::HTTP;
use super::source_uri;
use crate::engine::DeadLetter;

/// Reads a letter in its source's format; in that of a source which is not configured any more, as CloudEvents.
///
/// # Errors
/// Why it is still no event, and what to send instead.
pub(crate) fn read_again(
    formats: &BTreeMap<String, Format>,
    letter: &DeadLetter,
) -> Result<Vec<CloudEvent>, String> {
    let kept = letter.body.len() as u64;
    if kept < letter.bytes {
        return Err(format!(
            "its body has {} bytes, more than the {EVENT_BYTES_MAX} of the largest event, and only the first {kept} are kept; \
             record a smaller event in its place with --event FILE",
            letter.bytes
        ));
    }
    let format = formats.get(&letter.source).unwrap_or(&Format::CloudEvents);
    let (envelope, uri) = (Envelope::kept(&letter.context), source_uri(&letter.source));
    let message = envelope.delivery(&uri, &letter.body);
    let is_request = letter.context.get("transport").and_then(Value::as_str) == Some(HTTP);
    let transport = if is_request { Transport::Http } else { message.transport };
    format.read(&Delivery { transport, ..message }).map_err(|malformed| malformed.message)
}

#[cfg(test)]
mod tests {
    use refit_workflows::format::Mapping;
    use serde_json::json;

    use super::*;

    fn letter(source: &str, context: Value, body: &[u8]) -> DeadLetter {
        DeadLetter::new(source, String::new(), context.clone(), &context, body)
    }

    fn read(letter: &DeadLetter) -> Result<Vec<CloudEvent>, String> {
        let mapping = Mapping::parse([("type", "'row.' + body.op"), ("subject", "properties.routing_key")]);
        read_again(&BTreeMap::from([("rows".to_owned(), Format::Json(mapping.unwrap()))]), letter)
    }

    #[test]
    fn what_was_kept_with_a_letter_stands_for_its_message() {
        let headers = json!({ "cloudEvents:id": "7", "cloudEvents:source": "/s", "cloudEvents:type": "t",
            "cloudEvents:sequence": 3, "other": null });
        let context = json!({ "content_type": "text/csv", "headers": headers });
        let events = read(&letter("amqp:q", context, b"a,b")).unwrap();
        assert_eq!((events.len(), events[0].id(), events[0].data()), (1, "7", &json!("a,b")));
        assert_eq!(events[0].attributes()["sequence"], 3);

        for (context, body, expected) in [
            (json!({}), &b"{"[..], "not JSON"),
            (json!({ "properties": { "content_encoding": "gzip" } }), b"{}", "uncompressed"),
            (json!({ "headers": { "cloudEvents:id": null } }), b"{}", "attribute `id`"),
            (json!({ "headers": { "cloudEvents:id": 1.5 } }), b"{}", "attribute `id`"),
        ] {
            let reason = read(&letter("amqp:q", context, body)).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn a_letter_of_a_webhook_is_read_as_the_request_it_was() {
        let headers = json!({ "ce-id": "8", "ce-source": "/s", "ce-type": "t" });
        let context = json!({ "transport": "http", "content_type": "text/plain", "headers": headers });
        assert_eq!(read(&letter("partner", context, b"a")).unwrap()[0].id(), "8");
        let batch =
            br#"[{"id": "1", "source": "/s", "type": "t"}, {"id": "2", "source": "/s", "type": "t"}]"#;
        let context = json!({ "transport": "http", "content_type": "application/json", "headers": {} });
        assert_eq!(read(&letter("partner", context, batch)).unwrap().len(), 2);
    }

    #[test]
    fn a_letter_is_read_in_the_format_of_its_source() {
        let context = json!({ "properties": { "routing_key": "shop.orders", "message_id": "m-1" } });
        let events = read(&letter("rows", context.clone(), br#"{"op": "added"}"#)).unwrap();
        let event = &events[0];
        assert_eq!((event.kind(), event.source(), event.id()), ("row.added", "/sources/rows", "m-1"));
        assert_eq!(event.subject(), Some("shop.orders"));
        assert!(read(&letter("gone", context, br#"{"op": "added"}"#)).is_err());
    }
}
