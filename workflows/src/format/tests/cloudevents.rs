//! CloudEvents: the modes of both bindings, and what is none.

use serde_json::json;

use super::*;

const GOOD: &str = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"rows": 3}}"#;

fn binary(body: &str) -> Given {
    Given::http(body).header("ce-id", "42").header("ce-source", "/warehouse").header("ce-type", "t")
}

fn amqp_binary(body: &[u8]) -> Given {
    Given::amqp(body)
        .header("cloudEvents:id", "1")
        .header("cloudEvents:source", "/s")
        .header("cloudEvents:type", "t")
}

#[test]
fn a_structured_event_is_read_whatever_its_content_type_says_of_json() {
    for content_type in [
        Some("application/cloudevents+json"),
        Some("Application/CloudEvents+JSON; charset=utf-8"),
        Some("application/json"),
        Some("application/octet-stream"),
        None,
    ] {
        for given in [Given::amqp(GOOD).header("x-death", json!([{"count": 3}])), Given::http(GOOD)] {
            let event = given.typed(content_type).event(&Format::CloudEvents);
            assert_eq!((event.id(), event.data()["rows"].as_i64()), ("1", Some(3)), "{content_type:?}");
        }
    }
}

#[test]
fn binary_mode_over_amqp_takes_attributes_from_headers_with_either_separator() {
    for separator in [":", "_"] {
        let name = |name: &str| format!("cloudEvents{separator}{name}");
        let event = Given::amqp(r#"{"rows": 3}"#)
            .header(&name("id"), "42")
            .header(&name("source"), "/warehouse")
            .header(&name("type"), "dataset.updated")
            .header(&name("time"), "2027-01-15T08:00:00.000Z")
            .header(&name("sequence"), 7)
            .header("other", "kept out")
            .event(&Format::CloudEvents);
        let expected = json!({
            "specversion": "1.0", "id": "42", "source": "/warehouse", "type": "dataset.updated",
            "time": "2027-01-15T08:00:00.000Z", "sequence": 7, "datacontenttype": "application/json",
            "data": {"rows": 3},
        });
        assert_eq!(Value::Object(event.attributes().clone()), expected);
    }
}

#[test]
fn binary_mode_over_http_decodes_its_headers_once() {
    for (sent, read) in [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("a%2541", "a%41"),
        ("plain", "plain"),
        ("Zürich", "Zürich"),
        ("100%", "100%"),
        ("%EF%BF%BD", "\u{fffd}"),
        (r#""old \"quoted\" \\ value""#, r#"old "quoted" \ value"#),
        (r#""%41""#, "A"),
        (r#"""#, r#"""#),
    ] {
        let event = binary("{}").header("ce-subject", sent).event(&Format::CloudEvents);
        assert_eq!(event.subject(), Some(read), "{sent}");
    }
    let event = binary(r#"{"rows": 3}"#).header("ce-specversion", "1.0").header("user-agent", "x");
    let expected = json!({
        "specversion": "1.0", "id": "42", "source": "/warehouse", "type": "t",
        "datacontenttype": "application/json", "data": {"rows": 3},
    });
    assert_eq!(Value::Object(event.event(&Format::CloudEvents).attributes().clone()), expected);
}

#[test]
fn a_header_that_cannot_be_decoded_is_refused() {
    for (sent, expected) in [
        ("%C0%A0", "does not decode to UTF-8"),
        ("%FF", "does not decode to UTF-8"),
        ("raw \u{fffd}", "does not decode to UTF-8"),
        (r#""a"b""#, "not escaped"),
        (r#""a\""#, "not escaped"),
        ("a%00b", "control character"),
    ] {
        let refused = binary("{}").header("ce-subject", sent).read(&Format::CloudEvents).unwrap_err();
        assert!(refused.message.contains(expected), "{sent}: {refused}");
        assert_eq!(refused.field.as_deref(), Some("subject"));
    }
}

#[test]
fn a_content_type_of_cloudevents_stands_above_attributes_in_headers() {
    let both = binary(GOOD).typed(Some("application/cloudevents+json"));
    assert_eq!(both.event(&Format::CloudEvents).id(), "1");
}

#[test]
fn binary_data_follows_its_content_type() {
    let data = |content_type, body: &[u8]| {
        let event = amqp_binary(body).typed(content_type).event(&Format::CloudEvents);
        (event.attributes().get("data").cloned(), event.attributes().get("data_base64").cloned())
    };
    assert_eq!(data(Some("text/csv"), b"a,b"), (Some(json!("a,b")), None));
    assert_eq!(data(Some("application/vnd.x+json"), b"[1]"), (Some(json!([1])), None));
    assert_eq!(data(Some("image/png"), b"\xff\x00"), (None, Some(json!("/wA="))));
    assert_eq!(data(Some("text/plain"), b"\xff"), (None, Some(json!("/w=="))));
    assert_eq!(data(None, b""), (None, None));
    assert_eq!(data(None, b"3"), (Some(json!(3)), None));
}

#[test]
fn a_batch_is_for_http_and_bounded() {
    let batch = |count: usize| format!("[{}]", vec![GOOD; count].join(","));
    for content_type in ["application/cloudevents-batch+json", "application/json"] {
        for count in [0, 2, 1000] {
            let given = Given::http(batch(count)).typed(Some(content_type));
            assert_eq!(given.read(&Format::CloudEvents).unwrap().len(), count);
        }
    }
    assert!(Given::http(batch(1001)).refusal(&Format::CloudEvents).contains("at most 1000"));
    let one_wrong = format!(r#"[{GOOD}, {GOOD}, {{"id": "4", "source": "/s"}}]"#);
    let refused = Given::http(one_wrong).read(&Format::CloudEvents).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("[2].type"));
    let refused = Given::http(format!("[{GOOD}, 7]")).read(&Format::CloudEvents).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("[1]"));
}

#[test]
fn what_is_no_event_gets_a_reason_that_teaches() {
    let structured = Some("application/cloudevents+json");
    let batch = Some("application/cloudevents-batch+json");
    for (given, expected) in [
        (Given::amqp("hello"), "application/cloudevents+json"),
        (Given::amqp(""), "not JSON"),
        (Given::http(b"\xff\xfe"), "not JSON"),
        (Given::http("[".repeat(1000)), "not JSON"),
        (Given::http("3"), "or an array of CloudEvents"),
        (Given::amqp("[1]"), "JSON object"),
        (Given::amqp(r#"{"id": "1", "source": "/s"}"#), "`type` is missing"),
        (Given::amqp("{}").header("cloudEvents:type", "t").typed(structured), "`id` is missing"),
        (Given::amqp(format!("[{GOOD}]")).typed(structured), "one CloudEvent per message"),
        (Given::http(format!("[{GOOD}]")).typed(structured), "cloudevents-batch+json"),
        (Given::amqp("[]").typed(batch), "one event per message"),
        (Given::http(GOOD).typed(batch), "a JSON array"),
        (Given::amqp("{}").header("cloudEvents:type", "t"), "`id` is missing"),
        (Given::amqp("{}").header("cloudEvents:id", Value::Null), "attribute `id`"),
        (Given::amqp("{}").header("cloudEvents:id", 1.5), "attribute `id`"),
        (Given::amqp("{}").header("cloudEvents:id", json!(["1"])), "attribute `id`"),
        (amqp_binary(b"{}").header("cloudEvents_subject", "x"), "use one of them"),
        (amqp_binary(b"{}").header("cloudEvents:data", "x"), "send the data as the body"),
        (amqp_binary(b"{"), "although the content type says application/json"),
        (binary("{}").header("ce-type", "refit.run.succeeded"), "Refit's own"),
        (binary("{}").header("ce-some_name", "x"), "`some_name` is not an attribute name"),
        (amqp_binary(&vec![0; EVENT_BYTES_MAX]).typed(Some("image/png")), "as JSON; at most 1048576"),
    ] {
        let reason = given.refusal(&Format::CloudEvents);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}
