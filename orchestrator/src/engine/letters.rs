//! What people do with dead letters.

use refit_workflows::event::CloudEvent;
use refit_workflows::wire::{DeadLetterView, RetriedDeadLetter};

use super::{Engine, EngineError};
use crate::intake;
use crate::store::{DeadLetterFilter, Hints, Retried};

impl Engine {
    /// Dead letters, newest first unless the filter says otherwise, without their bodies.
    pub async fn dead_letters(&self, filter: DeadLetterFilter) -> Result<Vec<DeadLetterView>, EngineError> {
        Ok(self.store().dead_letters(filter).await?)
    }

    /// One dead letter, whole.
    pub async fn dead_letter(&self, seq: i64) -> Result<DeadLetterView, EngineError> {
        self.store().dead_letter(seq).await?.ok_or_else(|| EngineError::NotFound(no_letter(seq)))
    }

    /// Records what a dead letter says, as its source would read it today, or `mended` in its place; the letter is gone
    /// then. [`EngineError::Malformed`] where it is still no event: it stays, and the try counts. An event that a target refused
    /// waits for that target again, as it was.
    pub async fn retry_dead_letter(
        &self,
        seq: i64,
        mended: Option<CloudEvent>,
    ) -> Result<RetriedDeadLetter, EngineError> {
        let retried = match mended {
            Some(event) => {
                if self.dead_letter(seq).await?.target.is_some() {
                    return Err(EngineError::Invalid {
                        field: Some("event".to_owned()),
                        detail: format!(
                            "dead letter {seq} is an event of Refit's own, which is sent as it was"
                        ),
                        hint: Some("retry it without an event, or drop it".to_owned()),
                    });
                }
                self.store().retry_dead_letter(seq, move |_| Ok(vec![event.clone()])).await?
            }
            None => {
                let engine = self.clone();
                let read = move |letter: &_| intake::read_again(&engine.inner.settings.formats, letter);
                self.store().retry_dead_letter(seq, read).await?
            }
        };
        match retried {
            Retried::Recorded(events, hints) => {
                self.wake(hints);
                Ok(RetriedDeadLetter { events, sent_again_to: None })
            }
            Retried::Posted { receipt, target } => {
                self.wake(Hints { outbox: true, ..Hints::default() });
                Ok(RetriedDeadLetter { events: vec![receipt], sent_again_to: Some(target) })
            }
            Retried::StillDead(reason) => Err(EngineError::Malformed(reason)),
        }
    }

    /// Drops a dead letter; shows what it was, without its body.
    pub async fn drop_dead_letter(&self, seq: i64) -> Result<DeadLetterView, EngineError> {
        let letter = self.dead_letter(seq).await?;
        if !self.store().drop_dead_letter(seq).await? {
            return Err(EngineError::NotFound(no_letter(seq)));
        }
        Ok(DeadLetterView { context: None, body: None, body_base64: None, ..letter })
    }
}

fn no_letter(seq: i64) -> String {
    format!(
        "there is no dead letter {seq}: `refit deadletter list` shows them; one that was retried or dropped is gone"
    )
}
