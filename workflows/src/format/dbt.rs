//! `dbt`: webhooks of the dbt platform for its jobs (dbt documentation, "Webhooks for your jobs"). `job.run.completed` also
//! stands for runs that failed: a trigger looks at `data.data.runStatus`.

use super::payload::{Draft, Shape, time};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;

const SHAPE: Shape = Shape {
    what: "a webhook of dbt",
    advice: "send what dbt sends: {\"eventId\": …, \"eventType\": \"job.run.completed\", \"timestamp\": …, \"data\": \
             {\"jobId\": …}}",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = SHAPE.parse(delivery)?;
    let event = SHAPE.fields(&payload)?;
    let draft = Draft {
        kind: format!("dbt.{}", event.word("eventType")?),
        id: event.id("eventId")?,
        subject: Some(event.object("data")?.id("jobId")?),
        time: time(event.optional_text("timestamp")),
        data: event.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}
