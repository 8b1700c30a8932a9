//! What relays and people ask about outbound targets.

use std::sync::Arc;

use refit_workflows::wire::{TargetDropped, TargetView};
use tokio::sync::watch;

use super::{Ask, Engine, EngineError, GiveUp, Look, Outbound, Sent, Standing};
use crate::store::{ChangeError, Hints};

impl Engine {
    /// Keeps a target for this orchestrator, unless another sends to it, and looks what there is for it: at most one event
    /// per run, so that order per run is kept.
    pub async fn outbox_look(&self, target: &str, ask: Ask) -> Result<Look, EngineError> {
        Ok(self.store().outbox_look(target, &self.inner.holder, ask).await?)
    }

    /// Marks what was sent and what failed, and how the target is.
    pub async fn outbox_sent(
        &self,
        target: &str,
        results: Arc<Vec<(Outbound, Sent)>>,
        standing: Standing,
    ) -> Result<(), EngineError> {
        Ok(self.store().outbox_sent(target, results, standing).await?)
    }

    /// Makes everything due that waits for its next try.
    pub async fn outbox_again(&self, target: &str) -> Result<(), EngineError> {
        Ok(self.store().outbox_again(target).await?)
    }

    /// Makes dead letters of what a target would not have for too long; how many. Ask again while it is some.
    pub async fn outbox_give_up(&self, target: &str, which: GiveUp) -> Result<usize, EngineError> {
        Ok(self.store().outbox_give_up(target, which).await?)
    }

    /// Gives a target up, so that another orchestrator need not wait to send to it.
    pub async fn outbox_leave(&self, target: &str) -> Result<(), EngineError> {
        Ok(self.store().leave_outbox(target, &self.inner.holder).await?)
    }

    /// Changes whenever there may be something new in the outbox (a hint; poll all the same).
    pub fn outbox_signal(&self) -> watch::Receiver<u64> {
        self.inner.signals.outbox()
    }

    /// Says that this orchestrator has these targets.
    pub async fn keep_targets(&self, names: &[String]) -> Result<(), EngineError> {
        Ok(self.store().keep_targets(names.to_vec(), false).await?)
    }

    /// Every target, with what waits for it.
    pub async fn targets(&self) -> Result<Vec<TargetView>, EngineError> {
        Ok(self.store().targets(None).await?)
    }

    /// One target.
    pub async fn target(&self, name: &str) -> Result<TargetView, EngineError> {
        let found = self.store().targets(Some(name)).await?;
        found.into_iter().next().ok_or_else(|| EngineError::NotFound(no_target(name)))
    }

    /// Sends to a target again that was disabled, and at once to one that is retried with pauses.
    pub async fn enable_target(&self, name: &str) -> Result<TargetView, EngineError> {
        self.store().enable_target(name).await.map_err(|error| refused(error, name))?;
        self.store().outbox_again(name).await?;
        self.wake(Hints { outbox: true, ..Hints::default() });
        self.target(name).await
    }

    /// Drops what waits for a target that nobody sends to.
    pub async fn drop_outbox(&self, name: &str) -> Result<TargetDropped, EngineError> {
        let dropped = self.store().drop_outbox(name).await.map_err(|error| refused(error, name))?;
        Ok(TargetDropped { name: name.to_owned(), dropped })
    }
}

fn refused(error: ChangeError, name: &str) -> EngineError {
    match error {
        ChangeError::NotFound(_) => EngineError::NotFound(no_target(name)),
        ChangeError::Invalid(detail) => EngineError::Refused { kind: "target-in-use", detail },
        other @ (ChangeError::Refused(_) | ChangeError::Store(_)) => other.into(),
    }
}

fn no_target(name: &str) -> String {
    format!(
        "there is no target {name}: `refit target list` shows them; they stand in refit.yaml under `targets`"
    )
}
