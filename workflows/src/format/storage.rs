//! `s3` and `minio`: notifications of object stores (Amazon S3 user guide, "Event message structure"; MinIO wraps the same
//! records with `EventName` and `Key`; Ceph sends them too). One delivery holds several records, each is an event.
//!
//! Keys inside a record are URL-encoded with `+` for a space; `subject` is the bucket and the decoded key.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::payload::{Draft, Fields, Shape, derived_id, slug, time};
use super::{Delivery, EVENTS_MAX, Malformed};
use crate::event::CloudEvent;

const S3: Shape = Shape {
    what: "a notification of S3",
    advice: "send {\"Records\": [{\"eventName\": …, \"s3\": {\"bucket\": {\"name\": …}, \"object\": {\"key\": …}}}]} as \
             the bucket does; for events by way of EventBridge the format is `eventbridge`",
};

const MINIO: Shape = Shape {
    what: "a notification of MinIO",
    advice: "send {\"EventName\": …, \"Key\": …, \"Records\": […]} as MinIO does",
};

pub(super) fn read_s3(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = S3.parse(delivery)?;
    let notification = S3.fields(&payload)?;
    // What S3 sends once, when the notification is set up.
    if notification.optional_text("Event") == Some("s3:TestEvent") {
        return Ok(Vec::new());
    }
    records(&notification, delivery.source)
}

pub(super) fn read_minio(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = MINIO.parse(delivery)?;
    let notification = MINIO.fields(&payload)?;
    notification.text("EventName")?;
    records(&notification, delivery.source)
}

fn records(notification: &Fields<'_>, source: &str) -> Result<Vec<CloudEvent>, Malformed> {
    let records = notification.objects("Records")?;
    if records.len() > EVENTS_MAX {
        return Err(notification.refuse("Records", &format!("holds more than {EVENTS_MAX}")));
    }
    records.iter().map(|record| event(record, source)).collect()
}

fn event(record: &Fields<'_>, source: &str) -> Result<CloudEvent, Malformed> {
    let name = record.text("eventName")?;
    let s3 = record.object("s3")?;
    let (bucket, object) = (s3.object("bucket")?, s3.object("object")?);
    let (bucket, key) = (bucket.text("name")?, decode(&object)?);
    let kind = kind(name).ok_or_else(|| record.refuse("eventName", "names no event"))?;
    let part = |name| object.get(name);
    let version = part("versionId").or_else(|| part("eTag"));
    let order = part("sequencer");
    // Without a sequencer, what overwrites an object with the same content differs in nothing but its time.
    let when = if order.is_none() { record.get("eventTime") } else { None };
    let draft = Draft {
        kind,
        id: derived_id(json!(["s3", bucket, key, version, order, name.trim_start_matches("s3:"), when])),
        subject: Some(format!("{bucket}/{key}")),
        time: time(record.get("eventTime").and_then(Value::as_str)),
        data: record.value(),
    };
    draft.into_event(source)
}

/// `ObjectCreated:Put` is `s3.object.created`, `LifecycleExpiration:Delete` is `s3.lifecycle_expiration`. MinIO writes
/// `s3:` before it.
fn kind(name: &str) -> Option<String> {
    let happened = name.trim_start_matches("s3:").split(':').next().unwrap_or_default();
    let words = apart(happened);
    if words.is_empty() {
        return None;
    }
    Some(match words.strip_prefix("object_") {
        Some(what) => format!("s3.object.{what}"),
        None => format!("s3.{words}"),
    })
}

/// `LifecycleExpiration` as `lifecycle_expiration`.
fn apart(name: &str) -> String {
    let mut spaced = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_uppercase() {
            spaced.push(' ');
        }
        spaced.push(character);
    }
    slug(&spaced)
}

fn decode(object: &Fields<'_>) -> Result<String, Malformed> {
    let key = object.text("key")?.replace('+', " ");
    let decoded = percent_decode_str(&key).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| object.refuse("key", "does not decode to UTF-8"))
}
