//! Dead letters read again as their source would read them today. Pure: the context that was kept with a letter stands
//! for the message it was.

use std::collections::BTreeMap;

use refit_workflows::event::CloudEvent;
use refit_workflows::format::Format;

use super::delivery::Envelope;
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
    let format = formats.get(&letter.source).unwrap_or(&Format::CloudEvents);
    let (envelope, uri) = (Envelope::kept(&letter.context), source_uri(&letter.source));
    format.read(&envelope.delivery(&uri, &letter.body)).map_err(|malformed| malformed.message)
}

#[cfg(test)]
mod tests {
    use refit_workflows::format::Mapping;
    use serde_json::{Value, json};

    use super::*;

    fn letter(source: &str, context: Value, body: &[u8]) -> DeadLetter {
        DeadLetter { source: source.to_owned(), reason: String::new(), body: body.to_vec(), context }
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
    fn a_letter_is_read_in_the_format_of_its_source() {
        let context = json!({ "properties": { "routing_key": "shop.orders", "message_id": "m-1" } });
        let events = read(&letter("rows", context.clone(), br#"{"op": "added"}"#)).unwrap();
        let event = &events[0];
        assert_eq!((event.kind(), event.source(), event.id()), ("row.added", "/sources/rows", "m-1"));
        assert_eq!(event.subject(), Some("shop.orders"));
        assert!(read(&letter("gone", context, br#"{"op": "added"}"#)).is_err());
    }
}
