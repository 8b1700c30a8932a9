//! What the API says of outbound targets. Must never happen here: a key renamed or taken out; scripts read it.

use super::*;

/// An outbound target: where it stands and what waits for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    /// Its name in `refit.yaml`.
    pub name: String,
    /// `amqp | webhook`.
    pub kind: String,
    /// The patterns of the events that go there; empty: all of Refit's own.
    pub events: Vec<Value>,
    /// `ok`; `retrying`: some events failed since the latest success; `open`: it is tried with one event at a time, with
    /// pauses; `disabled`: it said that it wants no more; `absent`: no orchestrator that runs has it in its settings.
    pub state: String,
    /// Since when it has not been `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why the latest try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many events wait.
    pub pending: i64,
    /// When the one that waits longest was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_pending_at: Option<Timestamp>,
    /// How many events it has taken.
    pub sent: i64,
}

/// `DELETE /api/v1/targets/{name}/events`: what became of those that waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetDropped {
    /// The target.
    pub name: String,
    /// How many events were dropped.
    pub dropped: u64,
}
