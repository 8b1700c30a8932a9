//! `alertmanager`: the webhook of Prometheus Alertmanager, version 4 (Prometheus documentation, "webhook_config"). One
//! delivery is one event, for a group of alerts. The same group is sent again every `repeat_interval`: as long as
//! nothing changed in it, that is the same event.

use serde_json::{Value, json};

use super::payload::{Draft, Fields, Shape, derived_id};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;
use crate::time::Timestamp;

const SHAPE: Shape = Shape {
    what: "a notification of Alertmanager",
    advice: "send what a webhook receiver of Alertmanager gets: groupKey, status and alerts with fingerprint and startsAt",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = SHAPE.parse(delivery)?;
    let group = SHAPE.fields(&payload)?;
    let (key, status) = (group.text("groupKey")?, group.word("status")?);
    let alerts = group.objects("alerts")?;
    if alerts.is_empty() {
        return Err(group.refuse("alerts", "is empty"));
    }
    let mut parts = Vec::new();
    for alert in &alerts {
        // With its state: a group that fires on while one of its alerts is resolved has changed.
        let state = alert.optional_text("status").unwrap_or_default();
        parts.push([alert.text("fingerprint")?, alert.text("startsAt")?, state]);
    }
    parts.sort_unstable();
    let draft = Draft {
        kind: format!("alert.{status}"),
        id: derived_id(json!(["alertmanager", key, status, parts])),
        subject: subject(&group).map(str::to_owned),
        time: changed(&alerts, if status == "resolved" { "endsAt" } else { "startsAt" }),
        data: group.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}

/// The name the group's alerts have in common.
fn subject<'v>(group: &Fields<'v>) -> Option<&'v str> {
    ["commonLabels", "groupLabels"]
        .into_iter()
        .find_map(|labels| group.optional_object(labels)?.optional_text("alertname"))
}

/// The latest of the alerts' times.
fn changed(alerts: &[Fields<'_>], name: &str) -> Option<String> {
    let times = alerts.iter().filter_map(|alert| {
        let text = alert.get(name).and_then(Value::as_str)?;
        Some((Timestamp::parse(text).ok()?, text))
    });
    times.max_by_key(|(time, _)| *time).map(|(_, text)| text.to_owned())
}
