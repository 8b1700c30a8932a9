//! A delivery as every transport may bring it: the name of a format, a space and the body. `json` has the expression of
//! `type` before the body, on the first line. What is accepted is an event, and the same one again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refit_workflows::event::CloudEvent;
use refit_workflows::format::{Delivery, EVENTS_MAX, Format, Mapping, Transport};
use serde_json::{Map, Value, json};

fn split(input: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = input.iter().position(|byte| *byte == at)?;
    Some((&input[..place], &input[place + 1..]))
}

fn read(format: &Format, transport: Transport, headers: &Map<String, Value>, body: &[u8]) {
    let delivery = Delivery {
        transport,
        source: "/sources/fuzz",
        content_type: Some("application/json"),
        headers,
        properties: &Map::new(),
        body,
    };
    let Ok(events) = format.read(&delivery) else { return };
    assert!(events.len() <= EVENTS_MAX);
    assert_eq!(format.read(&delivery).as_ref(), Ok(&events));
    for event in events {
        let again = CloudEvent::parse_from_outside(Value::Object(event.attributes().clone()));
        assert_eq!(again, Ok(event));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((name, mut body)) = split(input, b' ') else { return };
    let Ok(name) = std::str::from_utf8(name) else { return };
    let mut mapping = None;
    if name == "json" {
        let Some((expression, rest)) = split(body, b'\n') else { return };
        let Ok(expression) = std::str::from_utf8(expression) else { return };
        let Ok(sound) = Mapping::parse([("type", expression)]) else { return };
        (mapping, body) = (Some(sound), rest);
    }
    let Ok(format) = Format::new(name, mapping) else { return };
    let text = String::from_utf8_lossy(&body[..body.len().min(40)]);
    let plain = json!({ "x-github-event": "push", "x-github-delivery": "1", "x-mlflow-delivery-id": "1" });
    let http = json!({ "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-subject": text });
    let amqp = json!({ "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": text });
    for (headers, transport) in [
        (&plain, Transport::Http),
        (&plain, Transport::Amqp),
        (&http, Transport::Http),
        (&amqp, Transport::Amqp),
    ] {
        read(&format, transport, headers.as_object().unwrap_or(&Map::new()), body);
    }
});
