//! `github`: webhooks of GitHub and of what speaks like it, such as Gitea (GitHub documentation, "Webhook events and
//! payloads"). What happened is in a header, `action` says more.

use super::payload::{Draft, Fields, Shape, time};
use super::{Delivery, Malformed};
use crate::event::CloudEvent;

const SHAPE: Shape = Shape {
    what: "a GitHub webhook",
    advice: "send what GitHub sends, with its headers X-GitHub-Event and X-GitHub-Delivery and the webhook's content \
             type set to application/json",
};

pub(super) fn read(delivery: &Delivery<'_>) -> Result<Vec<CloudEvent>, Malformed> {
    let event = SHAPE.word("x-github-event", SHAPE.header(delivery, "x-github-event")?)?;
    let id = SHAPE.header(delivery, "x-github-delivery")?;
    let payload = SHAPE.parse(delivery)?;
    let fields = SHAPE.fields(&payload)?;
    let kind = match fields.get("action") {
        Some(_) => format!("github.{event}.{}", fields.word("action")?),
        None => format!("github.{event}"),
    };
    let draft = Draft {
        kind,
        id: id.to_owned(),
        subject: subject(&fields).map(str::to_owned),
        time: time(happened(event, &fields)),
        data: fields.value(),
    };
    Ok(vec![draft.into_event(delivery.source)?])
}

/// The repository; for what concerns none, the organization.
fn subject<'v>(fields: &Fields<'v>) -> Option<&'v str> {
    let repository = fields.optional_object("repository");
    let organization = || fields.optional_object("organization");
    repository
        .and_then(|repository| repository.optional_text("full_name"))
        .or_else(|| organization().and_then(|organization| organization.optional_text("login")))
}

/// When it happened: of a push its newest commit, of others what the event is named after (`release`, `workflow_run`).
fn happened<'v>(event: &str, fields: &Fields<'v>) -> Option<&'v str> {
    if let Some(commit) = fields.optional_object("head_commit") {
        return commit.optional_text("timestamp");
    }
    let subject = fields.optional_object(event)?;
    ["updated_at", "published_at", "created_at"].into_iter().find_map(|name| subject.optional_text(name))
}
