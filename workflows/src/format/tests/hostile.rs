//! Every format against anything: no body makes one panic, whatever is refused says what to send, and whatever is
//! accepted is an event.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn formats() -> Vec<Format> {
    let mapping = || {
        Mapping::parse([
            ("type", "body.kind"),
            ("id", "has(body.id) ? string(body.id) : null"),
            ("subject", "headers['x-subject']"),
            ("time", "has(body.time) ? body.time : null"),
            ("data", "body.data"),
        ])
    };
    let named = Format::NAMES.iter().filter(|name| **name != "json");
    let mut formats: Vec<Format> = named.map(|name| Format::new(name, None).unwrap()).collect();
    formats.push(Format::Json(mapping().unwrap()));
    formats.push(Format::Json(Mapping::parse([("type", "'t'")]).unwrap()));
    formats
}

/// With every header that a format needs.
fn dressed(given: Given) -> Given {
    given
        .header("x-github-event", "push")
        .header("x-github-delivery", "1")
        .header("x-mlflow-delivery-id", "1")
        .header("x-subject", "s")
}

/// Reads it as everything, over both transports.
fn read_all(body: &[u8]) -> Result<(), TestCaseError> {
    for transport in [Transport::Amqp, Transport::Http] {
        let given = dressed(Given::new(transport, body));
        for format in formats() {
            match given.read(&format) {
                Ok(events) => {
                    prop_assert!(events.len() <= EVENTS_MAX);
                    prop_assert_eq!(
                        given.read(&format),
                        Ok(events.clone()),
                        "read again it is something else"
                    );
                    for event in events {
                        let again = CloudEvent::parse_from_outside(Value::Object(event.attributes().clone()));
                        prop_assert_eq!(again, Ok(event));
                    }
                }
                Err(Malformed { message, .. }) => {
                    prop_assert!(message.len() > 20 && message.len() < 1000, "{}: {message}", format.name());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn garbage_is_refused_by_all() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", r#"{"op":"#.repeat(levels), "}".repeat(levels));
    for body in [
        Vec::new(),
        b" ".to_vec(),
        b"default".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"null".to_vec(),
        b"\"text\"".to_vec(),
        b"1e400".to_vec(),
        deep(100).into_bytes(),
        deep(100_000).into_bytes(),
        objects(63).into_bytes(),
        objects(100).into_bytes(),
        objects(10_000).into_bytes(),
        vec![b'{'; EVENT_BYTES_MAX],
        vec![b' '; EVENT_BYTES_MAX + 1],
    ] {
        read_all(&body)
            .unwrap_or_else(|error| panic!("{}…: {error}", body[..body.len().min(40)].escape_ascii()));
    }
}

/// Names that formats look for, so that what is made up gets past their first checks.
const NAMES: [&str; 38] = [
    "id",
    "source",
    "type",
    "specversion",
    "data",
    "time",
    "subject",
    "kind",
    "op",
    "payload",
    "schema",
    "name",
    "db",
    "table",
    "lsn",
    "ts_ms",
    "before",
    "after",
    "transaction",
    "event",
    "action",
    "scope",
    "repo",
    "webhook",
    "updatedRefs",
    "ref",
    "groupKey",
    "status",
    "alerts",
    "fingerprint",
    "startsAt",
    "Records",
    "s3",
    "bucket",
    "object",
    "key",
    "eventName",
    "detail",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1.0".to_owned()),
        Just("c".to_owned()),
        Just("firing".to_owned()),
        Just("ObjectCreated:Put".to_owned()),
        Just("2026-01-31T08:00:00Z".to_owned()),
        Just("%C3%BC+%FF".to_owned()),
        "\\PC{0,12}",
        any::<String>(),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        let name =
            prop_oneof![4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Payloads that are right, each with its format's name.
fn sound() -> Vec<(&'static str, Value)> {
    let lines = include_str!("sound.txt").lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(name, body)| (name, serde_json::from_str(body).unwrap())).collect()
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| places(item, &format!("{at}/{place}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| places(field, &format!("{at}/{name}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn each_sound_payload_is_accepted_by_its_format_alone() {
    let mut named = Vec::new();
    for (name, body) in sound() {
        let given = dressed(Given::http(body.to_string()));
        let accepted = formats().into_iter().filter(|format| {
            // Any object may be GitHub's, and any JSON may be mapped: what it is, is not in the body.
            let takes_any = matches!(format, Format::GitHub | Format::Json(_)) && format.name() != name;
            !takes_any && given.read(format).is_ok_and(|events| !events.is_empty())
        });
        let mut accepted: Vec<_> = accepted.map(|format| format.name()).collect();
        accepted.dedup();
        // MinIO's has all that S3's has.
        let expected = if name == "minio" { vec!["s3", "minio"] } else { vec![name] };
        assert_eq!(accepted, expected);
        named.push(name);
    }
    assert_eq!(named, Format::NAMES);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_json_makes_any_format_panic(value in anything()) {
        read_all(value.to_string().as_bytes())?;
    }

    #[test]
    fn no_bytes_make_any_format_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&body)?;
    }

    #[test]
    fn one_wrong_value_in_a_sound_payload_makes_no_format_panic(
        (_, payload) in prop::sample::select(sound()),
        place in any::<prop::sample::Index>(),
        value in anything(),
    ) {
        let mut payload = payload;
        let mut all = Vec::new();
        places(&payload, "", &mut all);
        if let Some(there) = payload.pointer_mut(&all[place.index(all.len())]) {
            *there = value;
        }
        read_all(payload.to_string().as_bytes())?;
    }
}
