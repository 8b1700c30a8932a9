//! The record of what a promotion rested on. Must never happen here: a key renamed or taken out; records are kept for ever under the
//! digest of their text.

use super::*;
use crate::gate::Decision;

/// Everything a promotion rested on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// The model.
    pub model: String,
    /// The version that was made.
    pub version: i64,
    /// The alias that was moved to it.
    pub alias: String,
    /// The version it replaced, which the gates compared with; none when there was none.
    pub champion: Option<i64>,
    /// The candidate's artifact.
    pub candidate: ArtifactRef,
    /// The metrics it was gated with.
    pub metrics: BTreeMap<String, f64>,
    /// Each gate's decision, check by check, by its step.
    pub gates: BTreeMap<String, Decision>,
    /// What people said, by the step that asked them.
    pub approvals: BTreeMap<String, String>,
    /// What each of these approvals was about, by digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub covers: BTreeMap<String, Digest>,
    /// The examples that each gate decided on, and how often they have, by its step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holdouts: BTreeMap<String, Vec<HoldoutUse>>,
    /// The run.
    pub run: RunName,
    /// Digest of the run's definition and code.
    pub definition: Digest,
    /// The run's params.
    pub params: serde_json::Map<String, Value>,
    /// The events the run stands for, the first 10,000 of them.
    pub events: Vec<EventRef>,
    /// When.
    pub at: Timestamp,
}

/// Examples that gates have decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldoutUse {
    /// Names them: their labels and ids.
    pub digest: Digest,
    /// How many decisions about the model they have been used for, this one included. Of many candidates that are no better, some
    /// pass by luck.
    pub uses: u64,
}

/// Names an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Its source.
    pub source: String,
    /// Its id there.
    pub id: String,
}

/// `GET /api/v1/runs/W/N/evidence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// SHA-256 of the record as JSON without white space, keys in alphabetical order.
    pub digest: Digest,
    /// The record.
    pub record: EvidenceRecord,
}
