//! What people ask of replays.

use refit_workflows::wire::{ReplayFilter, ReplayPlan, ReplayView};

use super::{Engine, EngineError, Identity};

/// The most ids a filter may name.
const IDS_MAX: usize = 1000;

impl Engine {
    /// Sends stored events through today's triggers once more; goes on by itself, whatever becomes of whoever asked.
    pub async fn ask_replay(&self, filter: ReplayFilter, by: &Identity) -> Result<ReplayView, EngineError> {
        check(&filter)?;
        let (view, hints) = self.store().ask_replay(filter, &by.name).await?;
        self.wake(hints);
        Ok(view)
    }

    /// What a replay would do; changes nothing.
    pub async fn plan_replay(&self, filter: ReplayFilter) -> Result<ReplayPlan, EngineError> {
        check(&filter)?;
        Ok(self.store().plan_replay(filter).await?)
    }

    /// Replays, newest first.
    pub async fn replays(&self, limit: i64) -> Result<Vec<ReplayView>, EngineError> {
        Ok(self.store().replays(limit).await?)
    }

    /// One replay.
    pub async fn replay(&self, seq: i64) -> Result<ReplayView, EngineError> {
        Ok(self.store().replay(seq).await?)
    }

    /// Ends a replay where it is.
    pub async fn stop_replay(&self, seq: i64) -> Result<ReplayView, EngineError> {
        Ok(self.store().stop_replay(seq).await?)
    }
}

fn check(filter: &ReplayFilter) -> Result<(), EngineError> {
    let (field, detail) = if filter.ids.len() > IDS_MAX {
        ("ids", format!("at most {IDS_MAX} ids can be named, not {}", filter.ids.len()))
    } else if filter.limit == Some(0) {
        ("limit", "`limit` must be at least 1".to_owned())
    } else {
        return Ok(());
    };
    Err(EngineError::Invalid { field: Some(field.to_owned()), detail, hint: None })
}
