//! Plain JSON: what a mapping gives, and what is wrong with one.

use serde_json::json;

use super::*;

fn mapped(attributes: &[(&str, &str)]) -> Format {
    Format::Json(Mapping::parse(attributes.iter().copied()).unwrap())
}

#[test]
fn every_attribute_comes_from_its_expression() {
    let format = mapped(&[
        ("type", "'dataset.' + headers['x-kind']"),
        ("id", "string(body.meta.id)"),
        ("source", "'/lake/' + properties.app_id"),
        ("subject", "properties.routing_key"),
        ("time", "timestamp(body.meta.at)"),
        ("data", "{'rows': body.rows, 'table': body.meta.table}"),
    ]);
    let event =
        Given::amqp(r#"{"meta": {"id": 7, "at": "2026-01-31T08:00:00Z", "table": "customers"}, "rows": 3}"#)
            .header("x-kind", "updated")
            .property("app_id", "loader")
            .property("routing_key", "eu.customers")
            .event(&format);
    let expected = json!({
        "specversion": "1.0", "id": "7", "source": "/lake/loader", "type": "dataset.updated",
        "subject": "eu.customers", "time": event.attributes()["time"], "data": {"rows": 3, "table": "customers"},
    });
    assert_eq!(Value::Object(event.attributes().clone()), expected);
    assert_eq!(event.time().unwrap().to_string(), "2026-01-31T08:00:00.000Z");
}

#[test]
fn what_is_not_mapped_has_a_default() {
    let format = mapped(&[("type", "'t'"), ("subject", "has(body.name) ? body.name : null")]);
    let event = Given::http("[1, 2]").event(&mapped(&[("type", "'t'")]));
    assert_eq!((event.source(), event.subject(), event.data()), ("/sources/test", None, &json!([1, 2])));
    assert_eq!(Given::http("{}").event(&format).subject(), None);
}

#[test]
fn an_id_is_the_mapped_one_the_transports_or_the_contents() {
    let format = mapped(&[("type", "body.kind")]);
    let body = r#"{"kind": "a", "rows": 3}"#;
    let given = [
        Given::amqp(body).property("message_id", "m-1"),
        Given::http(body).header("webhook-id", "w-1"),
        Given::http(body).header("idempotency-key", "k-1"),
    ];
    assert_eq!(given.map(|given| given.event(&format).id().to_owned()), ["m-1", "w-1", "k-1"]);
    let first = Given::amqp(body).event(&format);
    assert!(first.id().starts_with("sha256:"), "{}", first.id());
    assert_eq!(Given::http(r#"{ "rows":3, "kind":"a" }"#).event(&format).id(), first.id());
    assert_ne!(Given::amqp(r#"{"kind": "a", "rows": 4}"#).event(&format).id(), first.id());
    assert_ne!(Given::amqp(body).event(&mapped(&[("type", "'b'")])).id(), first.id());
    assert_ne!(
        Given::amqp(body).event(&mapped(&[("type", "body.kind"), ("source", "'/x'")])).id(),
        first.id()
    );
    let mapped = mapped(&[("type", "body.kind"), ("id", "body.kind")]);
    assert_eq!(Given::amqp(body).property("message_id", "m-1").event(&mapped).id(), "a");
}

#[test]
fn what_a_mapping_cannot_read_names_attribute_and_expression() {
    let nested = format!("{}{}", "[".repeat(70), "]".repeat(70));
    for (attributes, body, expected) in [
        (
            &[("type", "body.kind")][..],
            "{}",
            "`type` (`body.kind`) gives none: `body.kind`: there is no `kind`",
        ),
        (
            &[("type", "body.kind")],
            r#"{"kind": 3}"#,
            "must be text, but is a number; write string(body.kind)",
        ),
        (&[("type", "body.kind")], r#"{"kind": null}"#, "must be text, but is null"),
        (
            &[("type", "body.kind")],
            r#"{"kind": ""}"#,
            "`type` (`body.kind`) gives none: `type` must not be empty",
        ),
        (&[("type", "body.kind")], "[1]", "`type` (`body.kind`)"),
        (
            &[("type", "'t'"), ("time", "body.at")],
            r#"{"at": "noon"}"#,
            "`time` (`body.at`) gives none: `time`: `noon`",
        ),
        (&[("type", "'t'"), ("subject", "body.name")], r#"{"name": "a\nb"}"#, "control character"),
        (&[("type", "'t'"), ("data", "body.rows / 0")], r#"{"rows": 1}"#, "`data` (`body.rows / 0`)"),
        (&[("type", "'t'")], "", "not JSON"),
        (&[("type", "'t'")], "\u{0}", "not JSON"),
        (&[("type", "'t'")], r#""a\u0000b""#, "NUL"),
        (&[("type", "'t'")], &nested, "deeper than 64 levels"),
        (&[("type", "body.kind")], r#"{"kind": "refit.run.failed"}"#, "Refit's own"),
    ] {
        let reason = Given::amqp(body).refusal(&mapped(attributes));
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_mapping_is_checked_before_anything_comes() {
    for (attributes, expected) in [
        (&[][..], &["`type`: an event needs a type"][..]),
        (&[("type", "'t'"), ("subjekt", "'x'")], &["`subjekt`: there is no such attribute"]),
        (&[("type", "'t'"), ("type", "'t'")], &["`type`: `type` is given twice"]),
        (&[("type", "dataset.updated")], &["`type`: `dataset` is not known here"]),
        (
            &[("type", "1 + 1"), ("id", "size(body)")],
            &["`type`: `1 + 1` must be text", "`id`: `size(body)` must be text"],
        ),
        (&[("type", "'t'"), ("time", "now()")], &["`time`: "]),
        (&[("type", "succeeded() ? 'a' : 'b'")], &["`type`: succeeded(), failed() and always()"]),
        (&[("type", "body.")], &["`type`: "]),
    ] {
        let problems = Mapping::parse(attributes.iter().copied()).unwrap_err();
        let told: Vec<String> = problems.iter().map(MappingProblem::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
        }
    }
    let problems = Mapping::parse([("type", "'a' + bod.kind")]).unwrap_err();
    assert_eq!(problems[0].error.offset, Some(6));
}
