//! `eventbridge`: the envelope of Amazon EventBridge, as its API destinations and targets deliver it (Amazon EventBridge
//! user guide, "Events"). `detail` becomes the event's data; what else the envelope says becomes attributes.

use serde_json::{Map, Value};

use super::payload::{Draft, Shape, slug, time};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;

const SHAPE: Shape = Shape {
    what: "an event of EventBridge",
    advice: "have the rule deliver the whole matched event, without an input transformer",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = SHAPE.parse(delivery)?;
    let event = SHAPE.fields(&payload)?;
    let (id, service, detail_type) = (event.text("id")?, event.text("source")?, event.text("detail-type")?);
    let (account, region) = (event.text("account")?, event.text("region")?);
    let detail = event.object("detail")?;
    let happened = slug(detail_type);
    if happened.is_empty() {
        return Err(event.refuse("detail-type", "has neither letters nor digits"));
    }
    let resources = event.get("resources").and_then(Value::as_array);
    let subject = resources.and_then(|all| all.first()).and_then(Value::as_str).filter(|arn| !arn.is_empty());

    let mut attributes = Map::new();
    let given = [
        ("awssource", service),
        ("awsdetailtype", detail_type),
        ("awsaccount", account),
        ("awsregion", region),
    ];
    for (name, text) in given {
        attributes.insert(name.to_owned(), Value::from(text));
    }
    let draft = Draft {
        kind: format!("aws.{}.{happened}", service.strip_prefix("aws.").unwrap_or(service)),
        id: id.to_owned(),
        subject: subject.map(str::to_owned),
        time: time(event.optional_text("time")),
        data: detail.value(),
    };
    let source = format!("urn:aws:{service}:{account}:{region}");
    Ok(vec![draft.into_event_with(&source, attributes)?])
}
