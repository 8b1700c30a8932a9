//! What an earlier worker on this data folder could not tell is told in the name of its session, before this one registers: that
//! ends the other's leases. The session is known to nobody but the orchestrator and the folder, and each outcome goes by its
//! lease's epoch, so that one that is not the attempt's own any more is refused. Must never happen here: a step begun.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use refit_workflows::wire::Renew;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agent, PAUSE};
use crate::client::CallError;
use crate::execute::{Holder, Untold};
use crate::host;

/// How often the leases are renewed meanwhile; what would do for any grace of six seconds and more.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Attempts told at a time.
const AT_ONCE: usize = 4;
/// How long this worker takes no work for the sake of an earlier one, once the orchestrator could be reached.
const TIME_MAX: Duration = Duration::from_secs(600);

impl Agent {
    /// Tells what is left of earlier workers. Where it is dropped on the way, or this worker is refused, all stays on disk.
    pub(super) async fn tell_what_was_left(&self, left: Vec<Untold>) {
        let mut holders: BTreeMap<Holder, Vec<Untold>> = BTreeMap::new();
        for untold in left {
            holders.entry(untold.holder().clone()).or_default().push(untold);
        }
        let mut until = None;
        for (holder, left) in holders {
            tracing::info!(attempts = left.len(), "telling what an earlier worker on this folder could not");
            self.tell_for(&holder, left, &mut until).await;
        }
    }

    async fn tell_for(&self, holder: &Holder, left: Vec<Untold>, until: &mut Option<Instant>) {
        let now = host::steady_clock();
        let mut held = Vec::new();
        for untold in left {
            match self.held.take(untold.key(), now) {
                Some((holding, ending)) => held.push((untold, holding, ending)),
                // A second record of one attempt is a copy.
                None => untold.settled(),
            }
        }
        match self.renew_for(holder).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!("its leases are over; what was left of it is dropped");
                return held.into_iter().for_each(|(untold, ..)| untold.settled());
            }
            // Registering meets the same refusal, and says what to do.
            Err(refusal) => return tracing::warn!(%refusal, "nothing can be told of what was left"),
        }
        let until = *until.get_or_insert_with(|| Instant::now() + TIME_MAX);
        let nothing_next = CancellationToken::new();
        nothing_next.cancel();
        let telling = futures_util::stream::iter(held).for_each_concurrent(AT_ONCE, async |left| {
            let (untold, _holding, ending) = left;
            let telling = self.tell_for_ever(&untold, ending, &nothing_next);
            if tokio::time::timeout_at(until, telling).await.is_err() {
                tracing::warn!(run = %untold.key().run, step = untold.key().step, "gave up telling the outcome");
            }
            untold.settled();
        });
        tokio::select! {
            () = telling => {}
            never = self.keep_renewing_for(holder) => match never {},
        }
    }

    async fn keep_renewing_for(&self, holder: &Holder) -> Infallible {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if let Err(refusal) = self.renew_for(holder).await {
                tracing::debug!(%refusal, "failed to renew what was left");
            }
        }
    }

    /// Renews what is held in the name of an earlier session, once the orchestrator can be reached. False: it has been replaced.
    async fn renew_for(&self, holder: &Holder) -> Result<bool, CallError> {
        let Holder { worker, session } = holder.clone();
        let renew = Renew { worker, session, attempts: self.held.keys(), draining: true };
        loop {
            let asked = host::steady_clock();
            match self.tools.orchestrator.renew(&renew).await {
                Ok(renewed) => {
                    self.held.renewed(&renew.attempts, &renewed.attempts, asked);
                    return Ok(true);
                }
                Err(CallError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                Err(refusal) if refusal.is_unknown_session() => return Ok(false),
                Err(refusal) => return Err(refusal),
            }
        }
    }
}
