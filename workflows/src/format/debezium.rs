//! `debezium`: change events of Debezium connectors and of Debezium Server, with or without their schema around them
//! (Debezium documentation, "Data change events"). There is no id: the place in the database's log and the row make one.
//! Messages that say nothing of a row are nothing to keep: tombstones, which Debezium Server sends to RabbitMQ as the
//! body `default`, and heartbeats.

use serde_json::{Map, Value, json};

use super::payload::{Draft, Fields, Shape, derived_id};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;
use crate::time::Timestamp;

const SHAPE: Shape = Shape {
    what: "a change event of Debezium",
    advice: "send its whole envelope as JSON, with `op` and `source`, and not the row alone (no ExtractNewRecordState)",
};

/// What changes are: created, updated, deleted, read by a snapshot, truncated, a message in the log.
const OPERATIONS: [&str; 6] = ["c", "u", "d", "r", "t", "m"];

/// Where connectors say a change stands in their database's log. The first group whose first member is
/// there counts.
const POSITIONS: [&[&str]; 7] = [
    &["commit_lsn", "change_lsn", "event_serial_no"], // SQL Server
    &["lsn"],                                         // PostgreSQL
    &["file", "pos", "row"],                          // MySQL, MariaDB
    &["scn", "commit_scn", "rs_id", "ssn"],           // Oracle
    &["ord", "ts_ms"],                                // MongoDB
    &["vgtid"],                                       // Vitess
    &["txId"],
];

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    if matches!(delivery.body.trim_ascii(), b"" | b"default") {
        return Ok(Vec::new());
    }
    let message = SHAPE.parse(delivery)?;
    let is_wrapped = message.get("op").is_none();
    let payload = message.get("payload").filter(|_| is_wrapped).unwrap_or(&message);
    if payload.is_null() {
        return Ok(Vec::new());
    }
    let change = SHAPE.fields(payload)?;
    let is_heartbeat = change.len() == 1 && change.get("ts_ms").is_some();
    if is_heartbeat {
        return Ok(Vec::new());
    }
    let operation = change.text("op")?;
    if !OPERATIONS.contains(&operation) {
        return Err(change.refuse("op", &format!("is none of {}", OPERATIONS.join(", "))));
    }
    let source = change.object("source")?;
    let draft = Draft {
        kind: format!("cdc.{operation}"),
        id: id(&change, &source, operation)?,
        subject: subject(&source),
        time: time(&source).or_else(|| time(&change)),
        data: change.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}

/// `database.schema.table`, without what the database has not.
fn subject(source: &Fields<'_>) -> Option<String> {
    let parts = ["db", "schema", "table", "collection"].map(|name| source.optional_text(name));
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

/// The rows are a part of the id, for one position may stand for several: an insert of many rows, a snapshot.
fn id(change: &Fields<'_>, source: &Fields<'_>, operation: &str) -> Result<String, Malformed> {
    let name = source.text("name")?;
    let in_group = |group: &&[&str]| source.get(group[0]).is_some();
    let group = POSITIONS.into_iter().find(in_group).unwrap_or(&["ts_ns", "ts_us", "ts_ms"]);
    let position: Map<String, Value> =
        group.iter().filter_map(|name| Some(((*name).to_owned(), source.get(name)?.clone()))).collect();
    let order = change.optional_object("transaction").and_then(|transaction| transaction.get("total_order"));
    let rows = ["before", "after", "message"].map(|part| change.get(part));
    Ok(derived_id(json!(["debezium", name, subject(source), operation, position, order, rows])))
}

/// When the change was made; of the envelope, when the connector saw it.
fn time(of: &Fields<'_>) -> Option<String> {
    let millis = of.get("ts_ms").and_then(Value::as_i64).filter(|millis| *millis > 0)?;
    super::payload::time(Some(&Timestamp::from_millis(millis).to_string()))
}
