//! What the formats make of deliveries, one file per format; `hostile` holds all of them against anything.

mod cloudevents;
mod data;
mod hostile;
mod json;
mod platforms;

use serde_json::{Map, Value};

use super::*;

/// A delivery that owns what a test gives it.
#[derive(Clone, Debug)]
struct Given {
    transport: Transport,
    content_type: Option<String>,
    headers: Map<String, Value>,
    properties: Map<String, Value>,
    body: Vec<u8>,
}

impl Given {
    fn new(transport: Transport, body: impl Into<Vec<u8>>) -> Self {
        Self {
            transport,
            content_type: Some("application/json".to_owned()),
            headers: Map::new(),
            properties: Map::new(),
            body: body.into(),
        }
    }

    fn http(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Transport::Http, body)
    }

    fn amqp(body: impl Into<Vec<u8>>) -> Self {
        Self::new(Transport::Amqp, body)
    }

    fn typed(self, content_type: Option<&str>) -> Self {
        Self { content_type: content_type.map(str::to_owned), ..self }
    }

    fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    fn property(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.properties.insert(name.to_owned(), value.into());
        self
    }

    fn read(&self, format: &Format) -> Result<Vec<CloudEvent>, Malformed> {
        format.read(&Delivery {
            transport: self.transport,
            source: "/sources/test",
            content_type: self.content_type.as_deref(),
            headers: &self.headers,
            properties: &self.properties,
            body: &self.body,
        })
    }

    /// The only event.
    #[track_caller]
    fn event(&self, format: &Format) -> CloudEvent {
        let mut events = self.read(format).unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Why there is none.
    #[track_caller]
    fn refusal(&self, format: &Format) -> String {
        self.read(format).unwrap_err().message
    }
}

#[test]
fn formats_go_by_their_names() {
    for name in Format::NAMES {
        let mapping = (name == "json").then(|| Mapping::parse([("type", "'t'")]).unwrap());
        assert_eq!(Format::new(name, mapping).unwrap().name(), name);
    }
    for (wrong, expected) in [
        ("cloudevent", "did you mean `cloudevents`?"),
        ("xml", "the formats are cloudevents,"),
        ("json", "needs a mapping"),
    ] {
        let reason = wrong.parse::<Format>().unwrap_err();
        assert!(reason.contains(expected), "{reason}");
    }
    let mapping = Mapping::parse([("type", "'t'")]).unwrap();
    assert!(Format::new("cloudevents", Some(mapping)).unwrap_err().contains("only `json`"));
}

#[test]
fn what_is_too_large_or_packed_is_not_looked_into() {
    let large = Given::amqp(vec![b' '; EVENT_BYTES_MAX + 1]);
    assert!(large.refusal(&Format::CloudEvents).contains("at most 1048576"));
    for zipped in [
        Given::amqp("x").property("content_encoding", "gzip"),
        Given::http("x").header("content-encoding", "br"),
    ] {
        assert!(zipped.refusal(&Format::CloudEvents).contains("uncompressed"));
    }
}
