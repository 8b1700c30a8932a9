//! `hugging_face`: webhooks of the Hugging Face Hub, version 3 (Hugging Face documentation, "Webhooks"). They have neither
//! an id nor a time.

use serde_json::json;

use super::payload::{Draft, Fields, Shape, derived_id};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;

const SHAPE: Shape = Shape {
    what: "a webhook of the Hugging Face Hub",
    advice: "send what the Hub sends: {\"event\": {\"action\": …, \"scope\": …}, \"repo\": {\"id\": …, \"name\": …}, \
             \"webhook\": {\"id\": …}}",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let payload = SHAPE.parse(delivery)?;
    let hook = SHAPE.fields(&payload)?;
    let event = hook.object("event")?;
    let (scope, action) = (event.word("scope")?, event.word("action")?);
    let draft = Draft {
        kind: format!("hf.{scope}.{action}"),
        id: id(&hook, scope, action)?,
        subject: Some(hook.object("repo")?.text("name")?.to_owned()),
        time: None,
        data: hook.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}

/// Commits make the event when there are some. Else only the whole payload does: two comments on one commit differ in
/// nothing that is common to all scopes.
fn id(hook: &Fields<'_>, scope: &str, action: &str) -> Result<String, Malformed> {
    let (webhook, repo) = (hook.object("webhook")?.id("id")?, hook.object("repo")?.id("id")?);
    let refs = match hook.get("updatedRefs") {
        Some(_) => hook.objects("updatedRefs")?,
        None => Vec::new(),
    };
    if refs.is_empty() {
        return Ok(derived_id(json!(["hugging_face", hook.value()])));
    }
    let mut moves = Vec::new();
    for moved in &refs {
        let part = |name| moved.optional_text(name).unwrap_or_default();
        moves.push([moved.text("ref")?, part("oldSha"), part("newSha")]);
    }
    moves.sort_unstable();
    Ok(derived_id(json!(["hugging_face", webhook, repo, scope, action, moves])))
}
