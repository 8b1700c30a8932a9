//! What the mirror of the registry asks.

use super::{Engine, EngineError};
use crate::store::{MirrorLook, MirrorNote, WantedModel};

impl Engine {
    /// Keeps a mirror for this orchestrator, unless another writes to it, and looks which models behind `after` are to be
    /// looked at, at most `limit`. `models` are those that are mirrored; none: all.
    pub async fn mirror_look(
        &self,
        place: &str,
        models: &[String],
        after: &str,
        limit: i64,
    ) -> Result<MirrorLook, EngineError> {
        Ok(self.store().mirror_look(place, models, &self.inner.holder, after, limit).await?)
    }

    /// A model as a mirror is to have it.
    pub async fn mirror_wants(&self, place: &str, model: &str) -> Result<WantedModel, EngineError> {
        Ok(self.store().mirror_wants(place, model).await?)
    }

    /// Writes something down of a mirror. False: it is another orchestrator's by now, and nothing was written.
    pub async fn mirror_note(&self, place: &str, note: MirrorNote) -> Result<bool, EngineError> {
        Ok(self.store().mirror_note(place, &self.inner.holder, note).await?)
    }

    /// Gives a mirror up, so that another orchestrator need not wait to write to it.
    pub async fn mirror_leave(&self, place: &str) -> Result<(), EngineError> {
        Ok(self.store().leave_mirror(place, &self.inner.holder).await?)
    }
}
