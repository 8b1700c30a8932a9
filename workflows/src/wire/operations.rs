//! What those who run an orchestrator ask it: how its parts are, what it set aside. Must never happen here: a key renamed
//! or taken out; scripts read it.

use super::*;

/// How a part of the server is doing that comes and goes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartView {
    /// `database | source | target`.
    pub part: String,
    /// A source's or a target's name, `sqlite`.
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

/// What a source has settled with its broker since the server started.
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

/// A delivery that was set aside because it could not be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Names it; grows from one to the next, with gaps.
    pub seq: i64,
    /// `in`: a source delivered it; `out`: a target refused it.
    pub direction: String,
    /// The source it came from: `amqp:refit.events`.
    pub source: String,
    /// The target that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why it is dead: as it was found the latest time it was read.
    pub reason: String,
    /// When it came.
    pub received_at: Timestamp,
    /// How often it was tried again.
    pub tries: i64,
    /// How many bytes of its body are kept.
    pub bytes: u64,
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

/// `POST /api/v1/deadletters/{seq}/retry`, answered as events are that were sent ([`Accepted`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RetryDeadLetter {
    /// A CloudEvent to record in its place; without it the letter is read again as its source would read it today.
    #[serde(default)]
    pub event: Option<Value>,
}
