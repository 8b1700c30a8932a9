//! `mlflow`: webhooks of the MLflow model registry, MLflow 3 (MLflow documentation, "Webhooks"). The delivery id is in a
//! header and stays the same when MLflow sends again.

use super::payload::{Draft, Shape, time};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;

const SHAPE: Shape = Shape {
    what: "a webhook of MLflow",
    advice: "send what MLflow sends: {\"entity\": …, \"action\": …, \"timestamp\": …, \"data\": {…}} with its header \
             X-MLflow-Delivery-Id",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let id = SHAPE.header(delivery, "x-mlflow-delivery-id")?;
    let payload = SHAPE.parse(delivery)?;
    let event = SHAPE.fields(&payload)?;
    let (entity, action) = (event.word("entity")?, event.word("action")?);
    let data = event.object("data")?;
    let when = event.optional_text("timestamp");
    let draft = Draft {
        kind: format!("mlflow.{entity}.{action}"),
        id: id.to_owned(),
        subject: data.optional_text("name").map(str::to_owned),
        // It is in UTC, and older servers do not say so.
        time: time(when).or_else(|| time(when.map(|text| format!("{text}Z")).as_deref())),
        data: event.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}
