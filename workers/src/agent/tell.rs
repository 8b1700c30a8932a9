//! Tells the orchestrator what an attempt came to, until that is accepted, unwanted, or left to the next worker on the data
//! folder. Must never happen here: an outcome dropped that the orchestrator may still be waiting for.

use std::sync::PoisonError;
use std::time::Duration;

use refit_workflows::wire::{Failure, Outcome, StepOrder};
use tokio_util::sync::CancellationToken;

use super::{Agent, PAUSE};
use crate::client::{self, CallError};
use crate::execute::Untold;
use crate::held::{Ending, EndingSignal};

/// How long telling an outcome may still take when the attempt is lost or the worker leaves.
const HURRIED_TIME: Duration = Duration::from_secs(5);

impl Agent {
    /// Tells what an attempt came to; answers with the next orders.
    pub(super) async fn tell(
        &self,
        untold: Untold,
        mut ending: EndingSignal,
        leaving: &CancellationToken,
    ) -> Vec<StepOrder> {
        let told = ending.clone();
        let too_late = async {
            // "Stop" as well: a renewal that crosses the report finds the lease gone because the report was accepted,
            // and the answer to the report may hold the next lease.
            let why = ending.hurried().await;
            if why == Ending::Fenced {
                // Nothing of it runs, so trying on harms nobody; whether the lease was given on, the answer says.
                leaving.cancelled().await;
            }
            tokio::time::sleep(HURRIED_TIME).await;
            why
        };
        let why = tokio::select! {
            biased;
            orders = self.tell_for_ever(&untold, told, leaving) => {
                untold.settled();
                return orders;
            }
            why = too_late => why,
        };
        let key = untold.key().clone();
        if why != Ending::Stop && untold.is_kept() {
            tracing::warn!(run = %key.run, step = key.step, "the outcome could not be told; the next worker on this folder will");
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        } else {
            tracing::warn!(run = %key.run, step = key.step, "gave up telling the outcome");
            untold.settled();
        }
        Vec::new()
    }

    /// The same for as long as it is polled, whatever becomes of the lease.
    pub(super) async fn tell_for_ever(
        &self,
        untold: &Untold,
        mut ending: EndingSignal,
        leaving: &CancellationToken,
    ) -> Vec<StepOrder> {
        let key = untold.key();
        let Some(mut finish) = untold.deliver(&self.tools, &mut ending).await else {
            tracing::info!(run = %key.run, step = key.step, "the attempt is not ours any more; nothing more is told of it");
            return Vec::new();
        };
        tracing::debug!(run = %key.run, step = key.step, outcome = ?finish.outcome, "over");
        let mut reworded = false;
        loop {
            finish.next =
                (!leaving.is_cancelled() && self.is_known()).then(|| self.request(1, Duration::ZERO));
            match client::persist(|| self.tools.orchestrator.finish(&finish)).await {
                Ok(finished) => return finished.orders,
                Err(refusal) if refusal.is_lost() => {
                    tracing::info!(run = %key.run, step = key.step, %refusal, "the outcome came too late");
                    return Vec::new();
                }
                Err(refusal) if refusal.is_unknown_session() => self.register_again(leaving).await,
                Err(CallError::Rejected { detail, .. }) => {
                    if std::mem::replace(&mut reworded, true) {
                        tracing::error!(run = %key.run, step = key.step, detail, "the orchestrator takes no outcome of this step");
                        return Vec::new();
                    }
                    let reason = format!("the orchestrator refused the outcome: {detail}");
                    finish.outcome = Outcome::Failed { failure: Failure::InvalidOutput, reason };
                    continue;
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
