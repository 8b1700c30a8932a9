//! What those who run an orchestrator ask it: how its parts are, what it set aside. Must never happen here: a key renamed
//! or taken out; scripts read it.

use super::*;

/// How a part of the server is doing that comes and goes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartView {
    /// `database | source | target | mirror`.
    pub part: String,
    /// A source's or a target's name, `sqlite`, `mlflow`.
    pub name: String,
    /// `starting | ok | degraded`: degraded means that it does not do its work, and tries again by itself.
    pub state: String,
    /// When it came to be so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it is degraded; left out for those who gave no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a source has settled since the server started; left out for those who gave no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<DeliveriesView>,
}

/// What a source has settled since the server started: messages of a broker, or requests to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveriesView {
    /// Deliveries, whatever they came to.
    pub settled: u64,
    /// Events in them, those that were known already included.
    pub events: u64,
    /// Deliveries that could not be read.
    pub dead_letters: u64,
    /// Deliveries that held nothing to keep, such as tombstones.
    pub empty: u64,
}

/// `GET /readyz`: whether requests are answered, and which parts do their work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyView {
    /// `ready`, or `degraded` while a part is: requests are answered all the same.
    pub status: String,
    /// The database, the sources and the targets.
    pub parts: Vec<PartView>,
}

/// A delivery that was set aside because it could not be taken, or an event that a target would not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Names it; grows from one to the next, with gaps.
    pub seq: i64,
    /// `in`: a source delivered it; `out`: a target refused it.
    pub direction: String,
    /// Where it comes from: the source's name, `amqp:QUEUE`, or `target:NAME`.
    pub source: String,
    /// The target that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why it is dead: as it was found the latest time it was read or sent.
    pub reason: String,
    /// When it came, or was given up.
    pub received_at: Timestamp,
    /// How often it was tried again.
    pub tries: i64,
    /// How many bytes its body had.
    pub bytes: u64,
    /// Whether only the first of them are kept.
    #[serde(default)]
    pub cut: bool,
    /// How often it was delivered again.
    pub duplicates: i64,
    /// When it was delivered the latest time, if it was again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_at: Option<Timestamp>,
    /// Headers, routing key and what else came with it; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// The body where it is text; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body where it is not text, in base64; left out of listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// `POST /api/v1/deadletters/{seq}/retry`, answered with [`RetriedDeadLetter`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RetryDeadLetter {
    /// A CloudEvent to record in its place; without it the letter is read again as its source would read it today.
    #[serde(default)]
    pub event: Option<Value>,
}

/// The letter is gone (202): its events are recorded, or its event is on its way again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RetriedDeadLetter {
    /// One per event.
    pub events: Vec<Receipt>,
    /// The target that refused its event and is sent it again; none where the events are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_again_to: Option<String>,
}

/// Which stored events a replay goes through, and for whom: `POST /api/v1/replays`, and `…/plan` for what it would do.
/// What workflows emitted and what Refit says of itself is left out unless a type, a source or an id asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayFilter {
    /// Received at or after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Received at or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// CloudEvents `type`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// CloudEvents `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// CloudEvents `id`: those with one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Only through the triggers of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// At most this many, those received first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Stored events that go, or went, through today's triggers once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayView {
    /// Names it.
    pub replay: i64,
    /// `running | finished | stopped`.
    pub state: String,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked_at: Timestamp,
    /// When it had gone through all, or was stopped.
    pub finished_at: Option<Timestamp>,
    /// What was asked for.
    pub filter: ReplayFilter,
    /// How many events it was to go through when it was asked for.
    pub events: u64,
    /// How many it has gone through.
    pub routed: u64,
    /// How often it came to which decision.
    pub decisions: BTreeMap<String, u64>,
}

/// What a replay would do at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayPlan {
    /// How many events it would go through.
    pub events: u64,
    /// How many of them were held against the triggers for this answer: the first.
    pub looked_at: u64,
    /// What each trigger would make of them.
    pub triggers: Vec<PlannedTrigger>,
    /// The same event by event; the first.
    pub decisions: Vec<PlannedEvent>,
}

/// What a trigger would make of the events of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTrigger {
    /// The workflow.
    pub workflow: String,
    /// The trigger's place in the file, from 0.
    pub trigger: i64,
    /// How many it would fire for.
    pub fires: u64,
    /// How many it would gather.
    pub gathers: u64,
    /// How many would start nothing because the workflow is paused.
    pub paused: u64,
    /// How many its `where` would leave out.
    pub unmatched: u64,
    /// For how many an expression would fail.
    pub errors: u64,
}

/// What a trigger would make of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedEvent {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The workflow; empty where the event matches no trigger.
    pub workflow: String,
    /// The trigger's place in the file, from 0.
    pub trigger: Option<i64>,
    /// `fires | gathers | paused | unmatched | filter_error`.
    pub decision: String,
    /// Why it would start nothing: which `where` is false, which pause it falls into, what is wrong with an expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
