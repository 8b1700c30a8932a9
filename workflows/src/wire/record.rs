//! What the API answers to those who ask why: an event with what was decided about it, explained, how a run's events came,
//! what a workflow waits for and whether it is paused. Must never happen here: a key renamed or taken out; scripts read it.

use super::*;

/// An event with what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Its place in the log: grows from event to event, with gaps. Where the next page of a listing begins.
    #[serde(default)]
    pub seq: i64,
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// CloudEvents `time`.
    pub time: Option<Timestamp>,
    /// When Refit stored it.
    pub received_at: Timestamp,
    /// CloudEvents `data`, null where it is null; left out where the event has none, and of listings.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub data: Option<Value>,
    /// All other attributes as they came, extensions too: with these and `data` it is the whole CloudEvent. Left out
    /// where `data` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<serde_json::Map<String, Value>>,
    /// What became of it, in order.
    pub decisions: Vec<DecisionView>,
}

/// A value that is there, null as well: by itself `Option` takes null for absent.
fn given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// One decision about an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionView {
    /// The workflow it was made for; empty for `duplicate`, and for `unmatched` where no pattern matches, unless a replay
    /// was for one workflow.
    pub workflow: String,
    /// The trigger's place in the file, from 0.
    pub trigger: Option<i64>,
    /// `started | batched | joined | coalesced | queued | skipped | cooldown | unmatched | filter_error | duplicate | paused`.
    pub decision: String,
    /// In words.
    pub reason: Option<String>,
    /// The run it led to.
    pub run: Option<RunName>,
    /// The number of the batch or join that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<i64>,
    /// When; of `duplicate`, when the latest came.
    pub at: Timestamp,
    /// The replay that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<i64>,
    /// Who asked for that replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_by: Option<String>,
}

/// `GET /api/v1/events/explain`: an event with the same keys as elsewhere, and its decisions in sentences.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventExplanation {
    /// The event.
    #[serde(flatten)]
    pub event: EventView,
    /// What was decided, in order: one sentence for each of `decisions`.
    pub explanation: Vec<String>,
    /// Why workflows have nothing to do with it, the closest first and at most 20; only of an event that matched
    /// nothing, or the workflow asked about.
    #[serde(default)]
    pub not_matched: Vec<NotMatched>,
    /// How many more such workflows there are.
    #[serde(default)]
    pub not_listed: u64,
}

/// Why a workflow has nothing to do with an event, by its triggers as they are applied now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMatched {
    /// The workflow.
    pub workflow: String,
    /// The place in the file of the trigger that comes closest, from 0; none where no trigger is about events.
    pub trigger: Option<i64>,
    /// Of a join, the place of the closest pattern, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<i64>,
    /// Where in the event the pattern does not hold: `data.table`. None where it would match now, because the workflow
    /// was applied after the event was decided about.
    pub path: Option<String>,
    /// In a sentence.
    pub reason: String,
}

/// Events of a run that came the same way: one by one, in one batch or join, or with a run it replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalView {
    /// What was decided about them for this run, in order: `["started"]`, `["batched", "coalesced"]`.
    pub decisions: Vec<String>,
    /// The trigger's place in the file, from 0; none for a run that was asked for, and for what it took over.
    pub trigger: Option<i64>,
    /// The number of the batch or join.
    pub batch: Option<i64>,
    /// Why they are coalesced or queued, in words.
    pub reason: Option<String>,
    /// Whether they came with a run that this one replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    /// How many events.
    pub count: i64,
    /// The id of the first.
    pub first: String,
    /// The id of the last.
    pub last: String,
    /// When the first was decided about.
    pub from: Timestamp,
    /// When the last was.
    pub to: Timestamp,
}

/// A schedule of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// The trigger's place in the file, from 0.
    pub trigger: i64,
    /// Its next slot; none where there will be none.
    pub next_slot: Option<Timestamp>,
}

/// A lane that has to wait for its cooldown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CooldownView {
    /// The value of `concurrency.key`; empty without one.
    pub key: String,
    /// When the next run may start.
    pub until: Timestamp,
}

/// A workflow's pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedView {
    /// Since when.
    pub at: Timestamp,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

impl std::fmt::Display for PausedView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "since {} by {}", self.at, self.by)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// The most bytes of a reason that is kept, whatever it is given for.
pub const REASON_BYTES_MAX: usize = 2000;

/// `POST /api/v1/workflows/W/pause`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PauseWorkflow {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Answer to `DELETE /api/v1/workflows/W`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeletedWorkflow {
    /// The workflow.
    pub workflow: String,
    /// The runs that were cancelled for it; they end when their steps have.
    pub cancelled: Vec<RunName>,
    /// How many events its triggers had gathered for a batch or join; they start nothing.
    #[serde(default)]
    pub gathered: u64,
}
