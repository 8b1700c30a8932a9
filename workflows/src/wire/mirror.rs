//! How far a mirror has what the registry has, as the API answers it. Must never happen here: a key renamed or taken out;
//! scripts read it.

use super::*;

/// How far a mirror is with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// It was there when the mirror was read back.
    Mirrored,
    /// Not yet.
    Pending,
}

/// What MLflow has of a model, a version or a move of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorView {
    /// `mirrored | pending`.
    pub state: MirrorState,
    /// The server's address, without who asks.
    pub server: String,
    /// The version's number there, which may be another than here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// When it was read back the latest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why the latest try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
    /// What somebody else had changed there and was set right the latest time; of a model alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted_at: Option<Timestamp>,
}
