//! Events whose senders wait for the answer: at most so many are being recorded at once, and each sender hears within
//! seconds, whatever the database does. Must never happen here: an event reported as recorded that is not, or a
//! transaction stopped half-way.

use std::sync::Arc;
use std::time::Duration;

use refit_workflows::event::CloudEvent;
use refit_workflows::wire::Receipt;
use tokio::sync::Semaphore;

use super::{DeadLetter, Engine, EngineError};
use crate::store::StoreError;

/// Recordings at once. More would not make the database faster; they only hold memory.
const RECORDINGS_MAX: usize = 64;
/// How long a sender waits. Those that are patient for the least time give up after 5 s.
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);

/// The room for recordings.
pub(super) struct Admission(Arc<Semaphore>);

impl Default for Admission {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RECORDINGS_MAX)))
    }
}

impl Engine {
    /// Stores events and dead letters like [`Engine::record`], or says within seconds that it could not. They may be
    /// stored all the same then, a little later: sent again, they are known by their ids.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the database did not do it in time, or others are waiting for it already.
    pub async fn record_promptly(
        &self,
        events: Vec<CloudEvent>,
        dead: Vec<DeadLetter>,
    ) -> Result<Vec<Receipt>, EngineError> {
        let room = Arc::clone(&self.inner.admission.0);
        let engine = self.clone();
        let recorded = async move {
            let Ok(place) = room.acquire_owned().await else {
                return Err(unavailable("the orchestrator is ending"));
            };
            // A task of its own keeps its place until the database is done with it, not until the sender gives up:
            // otherwise a database that is stuck would collect one transaction after another.
            let recording = tokio::spawn(async move {
                let recorded = engine.record(events, dead).await;
                drop(place);
                recorded
            });
            recording.await.unwrap_or_else(|gone| {
                Err(StoreError::Broken(format!("a recording ended early: {gone}")).into())
            })
        };
        match tokio::time::timeout(ANSWER_WITHIN, recorded).await {
            Ok(recorded) => recorded,
            Err(_) => Err(unavailable("events were not recorded in time")),
        }
    }
}

fn unavailable(why: &str) -> EngineError {
    StoreError::Unavailable(why.to_owned()).into()
}
