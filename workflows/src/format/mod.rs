//! What a source delivers, read as CloudEvents: one [`Format`] for each shape that data platforms, registries and brokers
//! send. Pure: knows no channel and no request, only what came with the message ([`Delivery`]).
//!
//! The same delivery gives the same events with the same ids, so that what is delivered twice is stored once; where a
//! source gives no id, the id is the digest of what makes the event that one. Must never happen here: a guess at the
//! format (a source's format is configured), a panic for any bytes, or an event that
//! [`CloudEvent::parse_from_outside`] refuses.
//!
//! | format | `type` | `subject` | `id` | `data` |
//! |---|---|---|---|---|
//! | `cloudevents` | as sent | as sent | as sent | as sent |
//! | `eventbridge` | `aws.s3.object_created` | first of `resources` | `id` | `detail` |
//! | `github` | `github.push`, `github.release.published` | repository, else organization | X-GitHub-Delivery | the payload |
//! | `alertmanager` | `alert.firing` | `alertname` | of group, status and alerts | the payload |
//! | `mlflow` | `mlflow.model_version.created` | `data.name` | X-MLflow-Delivery-Id | the payload |
//! | `dbt` | `dbt.job.run.completed` | `data.jobId` | `eventId` | the payload |
//! | `hugging_face` | `hf.repo.content.update` | `repo.name` | of the commits, else of the payload | the payload |
//! | `debezium` | `cdc.c`, `cdc.u`, `cdc.d`, … | `db.schema.table` | of the place in the log and the row | the envelope |
//! | `s3`, `minio` | `s3.object.created` | `bucket/key` | of object, version, sequencer and event | one record |
//! | `json` | mapped | mapped | mapped, of the transport, or of the content | mapped, else the body |
//!
//! `source` is the delivery's where this table does not say otherwise: CloudEvents have their own, EventBridge's is
//! `urn:aws:SERVICE:ACCOUNT:REGION`, a mapping may give one. `time` is the payload's, where it has one.
//!
//! ```
//! use refit_workflows::format::{Delivery, Format, Mapping, Transport};
//! use serde_json::{Map, json};
//!
//! let mapping = Mapping::parse([("type", "'orders.' + body.kind"), ("subject", "properties.routing_key")]).unwrap();
//! let format = Format::new("json", Some(mapping)).unwrap();
//! let (headers, mut properties) = (Map::new(), Map::new());
//! properties.insert("message_id".to_owned(), json!("7f3a"));
//! properties.insert("routing_key".to_owned(), json!("eu.orders"));
//! let events = format
//!     .read(&Delivery {
//!         transport: Transport::Amqp,
//!         source: "/sources/orders",
//!         content_type: Some("application/json"),
//!         headers: &headers,
//!         properties: &properties,
//!         body: br#"{"kind": "loaded", "rows": 1200}"#,
//!     })
//!     .unwrap();
//! assert_eq!((events[0].kind(), events[0].id(), events[0].subject()), ("orders.loaded", "7f3a", Some("eu.orders")));
//! assert_eq!(events[0].data()["rows"], 1200);
//! ```

mod alertmanager;
mod cloudevents;
mod dbt;
mod debezium;
mod eventbridge;
mod github;
mod hugging_face;
mod json;
mod mlflow;
mod payload;
mod storage;

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::definition::diagnostics::closest;
use crate::event::{CloudEvent, EVENT_BYTES_MAX, NotAnEvent};

pub use cloudevents::HTTP_ATTRIBUTE_PREFIX;
pub use json::{Mapping, MappingProblem};

/// The most events one delivery may carry.
pub const EVENTS_MAX: usize = 1000;

/// How a delivery came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A message of an AMQP 0-9-1 queue.
    Amqp,
    /// The body of an HTTP request.
    Http,
}

/// What a source delivered, as its transport brought it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// How it came.
    pub transport: Transport,
    /// The CloudEvents `source` for formats that give none, for example `/sources/customers`.
    pub source: &'a str,
    /// The media type, with its parameters.
    pub content_type: Option<&'a str>,
    /// HTTP: the headers by lower-case name, each a string; several of one name joined with `, `, bytes that are no
    /// UTF-8 as U+FFFD. AMQP: the message's `headers` table as JSON, whatever it
    /// holds; times in it as RFC 3339.
    pub headers: &'a Map<String, Value>,
    /// AMQP: `exchange`, `routing_key` and the properties of the message under their names in the protocol with `_`
    /// (`message_id`, `type`, `app_id`, `correlation_id`, `content_encoding`, …), `timestamp` as RFC 3339; those that
    /// are not set are left out. HTTP: empty.
    pub properties: &'a Map<String, Value>,
    /// The bytes.
    pub body: &'a [u8],
}

/// The shape of what a source delivers.
#[derive(Clone, Debug)]
pub enum Format {
    /// CloudEvents 1.0: structured or binary, over HTTP also as a batch.
    CloudEvents,
    /// Events of Amazon EventBridge.
    EventBridge,
    /// Webhooks of GitHub.
    GitHub,
    /// The webhook of Prometheus Alertmanager: one event per group of alerts.
    Alertmanager,
    /// Webhooks of the MLflow model registry.
    Mlflow,
    /// Webhooks of the dbt platform.
    Dbt,
    /// Webhooks of the Hugging Face Hub.
    HuggingFace,
    /// Change events of Debezium.
    Debezium,
    /// Notifications of S3 and of stores that speak like it: one event per record.
    S3,
    /// Notifications of MinIO: one event per record.
    Minio,
    /// Any JSON, with a mapping that says what the attributes are.
    Json(Mapping),
}

/// What is wrong with a delivery and what to send instead, for whoever reads the dead letter or the refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// What is wrong and what would be right, in full.
    pub message: String,
    /// The attribute of the event at fault when there is one: `type`, in a batch `[3].type`.
    pub field: Option<String>,
    /// Line and column, from 1, when the body is not the JSON it should be.
    pub position: Option<(usize, usize)>,
}

impl Malformed {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), field: None, position: None }
    }
}

impl Format {
    /// The names of the formats, as they are configured.
    pub const NAMES: [&str; 11] = [
        "cloudevents",
        "eventbridge",
        "github",
        "alertmanager",
        "mlflow",
        "dbt",
        "hugging_face",
        "debezium",
        "s3",
        "minio",
        "json",
    ];

    /// The format of this name. A mapping belongs to `json`, which needs one, and to no other.
    ///
    /// # Errors
    /// There is no such format, or a mapping is missing or too much.
    pub fn new(name: &str, mapping: Option<Mapping>) -> Result<Self, String> {
        match (name, mapping) {
            ("json", Some(mapping)) => Ok(Self::Json(mapping)),
            ("json", None) => {
                Err("format `json` needs a mapping: which expression gives an event's `type`, for \
                                   example \"'dataset.updated'\" or \"body.kind\""
                    .to_owned())
            }
            (_, mapping) => {
                let format = Self::from_str(name)?;
                match mapping {
                    Some(_) => Err(format!(
                        "format `{name}` says itself what an event's attributes are: only `json` takes a mapping"
                    )),
                    None => Ok(format),
                }
            }
        }
    }

    /// Its name, as it is configured.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CloudEvents => "cloudevents",
            Self::EventBridge => "eventbridge",
            Self::GitHub => "github",
            Self::Alertmanager => "alertmanager",
            Self::Mlflow => "mlflow",
            Self::Dbt => "dbt",
            Self::HuggingFace => "hugging_face",
            Self::Debezium => "debezium",
            Self::S3 => "s3",
            Self::Minio => "minio",
            Self::Json(_) => "json",
        }
    }

    /// Reads the events of a delivery, each as [`CloudEvent::parse_from_outside`] accepts it. An empty list is
    /// no error: there is nothing to keep, as in a Debezium tombstone.
    ///
    /// # Errors
    /// The delivery is not of this format or beyond a limit: at most [`EVENT_BYTES_MAX`] bytes, [`EVENTS_MAX`] events
    /// and [`EVENT_DEPTH_MAX`](crate::event::EVENT_DEPTH_MAX) levels. Then none of its events is to be kept.
    pub fn read(&self, delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
        if delivery.body.len() > EVENT_BYTES_MAX {
            return Err(Malformed::new(format!(
                "the body has {} bytes; at most {EVENT_BYTES_MAX} are taken: store the data elsewhere and send where \
                 it is",
                delivery.body.len()
            )));
        }
        if let Some(encoding) = delivery.encoding()
            && !matches!(encoding.to_ascii_lowercase().as_str(), "" | "utf-8" | "identity")
        {
            return Err(Malformed::new(format!("the body is encoded as `{encoding}`: send it uncompressed")));
        }
        match self {
            Self::CloudEvents => cloudevents::read(delivery),
            Self::EventBridge => eventbridge::read(delivery),
            Self::GitHub => github::read(delivery),
            Self::Alertmanager => alertmanager::read(delivery),
            Self::Mlflow => mlflow::read(delivery),
            Self::Dbt => dbt::read(delivery),
            Self::HuggingFace => hugging_face::read(delivery),
            Self::Debezium => debezium::read(delivery),
            Self::S3 => storage::read_s3(delivery),
            Self::Minio => storage::read_minio(delivery),
            Self::Json(mapping) => json::read(mapping, delivery),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    /// The formats that need nothing but their name; see [`Format::new`] for `json`.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "cloudevents" => Ok(Self::CloudEvents),
            "eventbridge" => Ok(Self::EventBridge),
            "github" => Ok(Self::GitHub),
            "alertmanager" => Ok(Self::Alertmanager),
            "mlflow" => Ok(Self::Mlflow),
            "dbt" => Ok(Self::Dbt),
            "hugging_face" => Ok(Self::HuggingFace),
            "debezium" => Ok(Self::Debezium),
            "s3" => Ok(Self::S3),
            "minio" => Ok(Self::Minio),
            "json" => Self::new(name, None),
            _ => {
                let near = closest(name, Self::NAMES).map(|near| format!("; did you mean `{near}`?"));
                Err(format!(
                    "there is no format `{name}`{}; the formats are {}",
                    near.unwrap_or_default(),
                    Self::NAMES.join(", ")
                ))
            }
        }
    }
}

impl<'a> Delivery<'a> {
    /// A header that is text, whatever the case of its name.
    fn header(&self, name: &str) -> Option<&'a str> {
        let exact = self.headers.get(name);
        let found = exact.or_else(|| {
            self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        });
        found.and_then(Value::as_str)
    }

    fn property(&self, name: &str) -> Option<&'a str> {
        self.properties.get(name).and_then(Value::as_str)
    }

    fn encoding(&self) -> Option<&'a str> {
        match self.transport {
            Transport::Amqp => self.property("content_encoding"),
            Transport::Http => self.header("content-encoding"),
        }
    }

    /// The media type in lower case, without its parameters; empty when there is none.
    fn media_type(&self) -> String {
        let essence = self.content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }
}

/// Checks what was read as an event from outside, and that it is not too large.
fn accept(value: Value) -> Result<CloudEvent, NotAnEvent> {
    let event = CloudEvent::parse_from_outside(value)?;
    let bytes = event.to_json().len();
    if bytes > EVENT_BYTES_MAX {
        return Err(NotAnEvent {
            field: None,
            message: format!(
                "the event has {bytes} bytes as JSON; at most {EVENT_BYTES_MAX} are taken: store the data elsewhere and \
                 send where it is"
            ),
        });
    }
    Ok(event)
}

#[cfg(test)]
mod tests;
