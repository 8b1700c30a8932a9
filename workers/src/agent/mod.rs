//! The worker's loops: lease for free slots, renew what is held, give up in time, drain. One outcome's report brings
//! the next lease with it. Knows nothing of how a step runs.
//!
//! `tell` reports outcomes; `heir` those that an earlier worker on the data folder could not.

mod heir;
mod tell;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use refit_workflows::wire::{
    AttemptKey, LeaseRequest, Register, Registered, Renew, StepOrder, WORKER_PROTOCOL,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::CallError;
use crate::execute::{self, Holder, Tools, Untold};
use crate::held::{Ending, Held};
use crate::host;
use crate::orphans;
use crate::{Config, WorkError};

/// How long one call for work waits.
const LEASE_WAIT: Duration = Duration::from_secs(20);
/// How long a call for work that is under way may go on once the worker leaves.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// The pause after an answer that should not have come so soon, or not at all.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest part of a lease's life that is kept for ending its step.
const MARGIN_MAX: Duration = Duration::from_secs(60);
/// How often dead orphans of steps are reaped.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// More re-registrations than this within [`RIVALRY_SPAN`] mean that another worker has the same name.
const RIVALRY_MAX: usize = 3;
/// See [`RIVALRY_MAX`].
const RIVALRY_SPAN: Duration = Duration::from_secs(300);

/// A worker process.
#[derive(Debug)]
pub(crate) struct Agent {
    config: Config,
    tools: Tools,
    session: String,
    held: Arc<Held>,
    /// What is left for the next worker to tell; its leases are renewed until this one has gone.
    untold: Mutex<Vec<AttemptKey>>,
    terms: Mutex<Registered>,
    /// On [`host::steady_clock`]: just before the last call was sent by which the orchestrator heard of this session.
    /// A new lease counts from here, not from the call that brought it: that one may have waited for longer than a
    /// lease lives, and the orchestrator does not take it for a renewal.
    heard: Mutex<Duration>,
    /// When the orchestrator had to be told anew who this is.
    registrations: tokio::sync::Mutex<Vec<Instant>>,
    /// Why the worker cannot go on.
    refused: OnceLock<String>,
}

impl Agent {
    /// A worker that has not introduced itself yet.
    pub(crate) fn new(config: Config, tools: Tools) -> Self {
        Self {
            config,
            tools,
            session: uuid::Uuid::new_v4().to_string(),
            held: Arc::default(),
            untold: Mutex::default(),
            terms: Mutex::new(Registered { renew_every_ms: 10_000, grace_ms: 60_000 }),
            heard: Mutex::default(),
            registrations: tokio::sync::Mutex::default(),
            refused: OnceLock::new(),
        }
    }

    /// Works until `drain`, see [`crate::work`]; tells what earlier workers have `left` first.
    pub(crate) async fn run(
        self,
        left: Vec<Untold>,
        drain: CancellationToken,
        abort: CancellationToken,
    ) -> Result<(), WorkError> {
        let agent = Arc::new(self);
        tokio::select! {
            () = agent.tell_what_was_left(left) => {}
            () = drain.cancelled() => return Ok(()),
        }
        tokio::select! {
            registered = agent.register() => registered?,
            () = drain.cancelled() => return Ok(()),
        }
        tracing::info!(
            worker = agent.config.name,
            server = agent.config.server,
            slots = agent.config.slots,
            "registered; waiting for work"
        );
        let leaving = drain.child_token();
        // Dropping the set ends the tasks, should this future itself be dropped.
        let mut helpers = JoinSet::new();
        helpers.spawn(agent.clone().renew_for_ever(leaving.clone()));
        helpers.spawn(agent.clone().fence_for_ever());
        helpers.spawn(reap_for_ever());
        let (left, leaver) = (leaving.clone(), agent.clone());
        helpers.spawn(async move {
            left.cancelled().await;
            leaver.tools.leaving.send_replace(());
        });
        let aborted = agent.clone();
        helpers.spawn(async move {
            abort.cancelled().await;
            // Again and again: an attempt may come in after the first time.
            loop {
                aborted.held.end_all(Ending::ShutDown);
                tokio::time::sleep(PAUSE).await;
            }
        });
        let mut attempts = JoinSet::new();
        agent.clone().lease_until(&leaving, &mut attempts).await;
        while let Some(joined) = attempts.join_next().await {
            complain_about_panic(joined);
        }
        helpers.shutdown().await;
        // A farewell: whatever was leased to this session and never arrived need not wait for the grace.
        let _ = tokio::time::timeout(LEAVE_WAIT, agent.renew(true)).await;
        match agent.refused.get() {
            Some(reason) => Err(WorkError::Refused(reason.clone())),
            None => Ok(()),
        }
    }

    /// Introduces this worker; waits for an orchestrator that is out of reach.
    async fn register(&self) -> Result<(), WorkError> {
        let host = host::look();
        let register = Register {
            protocol: WORKER_PROTOCOL,
            worker: self.config.name.clone(),
            session: self.session.clone(),
            labels: self.config.labels.clone(),
            slots: self.config.slots.max(1),
            cpus: self.config.cpus.unwrap_or(host.cpus),
            memory: self.config.memory.unwrap_or(host.memory),
            gpus: self.tools.gpus.count(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let server = &self.config.server;
        match self.tools.orchestrator.register(&register).await {
            Ok((terms, asked)) => {
                self.heard_at(asked);
                *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
                Ok(())
            }
            Err(CallError::Denied(detail)) => Err(WorkError::Refused(format!(
                "the orchestrator at {server} refused this worker: {detail}; give it a token with the worker role \
                 (`refit token create --name NAME --role worker`) in REFIT_TOKEN"
            ))),
            Err(CallError::Rejected { status: 404, .. }) => Err(WorkError::Refused(format!(
                "the server at {server} knows no workers: is it a Refit orchestrator of this version?"
            ))),
            Err(refusal) => Err(WorkError::Refused(format!(
                "the orchestrator at {server} refused this worker: {refusal}"
            ))),
        }
    }

    /// Introduces this worker to an orchestrator that does not know its session: its database was put back to an
    /// earlier state, or another worker took the name.
    async fn register_again(&self, leaving: &CancellationToken) {
        let mut registrations = self.registrations.lock().await;
        registrations.retain(|at| at.elapsed() < RIVALRY_SPAN);
        if registrations.last().is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let result = if registrations.len() >= RIVALRY_MAX {
            Err(WorkError::Refused(format!(
                "another worker keeps registering under the name `{}`; give each a name of its own with --name",
                self.config.name
            )))
        } else {
            tracing::warn!(
                worker = self.config.name,
                "the orchestrator does not know this worker any more; registering again"
            );
            self.register().await
        };
        registrations.push(Instant::now());
        if let Err(refused) = result {
            // The first reason is the true one.
            let _ = self.refused.set(refused.to_string());
            leaving.cancel();
        }
    }

    fn heard_at(&self, asked: Duration) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = asked.max(*heard);
    }

    fn last_heard(&self) -> Duration {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the orchestrator heard of this session so lately that a lease given now would last.
    fn is_known(&self) -> bool {
        host::steady_clock().saturating_sub(self.last_heard()) < self.lease_life() / 2
    }

    /// Makes itself heard after an outage, before it asks for work.
    async fn make_known(&self, leaving: &CancellationToken) -> bool {
        if self.is_known() {
            return true;
        }
        let renewed = tokio::select! {
            renewed = self.renew(false) => renewed,
            () = leaving.cancelled() => return false,
        };
        match renewed {
            Ok(drain) => {
                if drain {
                    leaving.cancel();
                }
                true
            }
            Err(refusal) => {
                if refusal.is_unknown_session() {
                    self.register_again(leaving).await;
                }
                pause(PAUSE, leaving).await;
                false
            }
        }
    }

    fn renew_every(&self) -> Duration {
        let terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(terms.renew_every_ms.max(10))
    }

    /// How long a lease is believed in after its last renewal.
    fn lease_life(&self) -> Duration {
        let terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let grace = Duration::from_millis(terms.grace_ms);
        grace.saturating_sub((grace / 5).min(MARGIN_MAX))
    }

    fn holder(&self) -> Holder {
        Holder { worker: self.config.name.clone(), session: self.session.clone() }
    }

    fn request(&self, slots: u32, wait: Duration) -> LeaseRequest {
        LeaseRequest {
            worker: self.config.name.clone(),
            session: self.session.clone(),
            slots,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(0),
        }
    }

    /// Leases for every slot that is free, until leaving.
    async fn lease_until(self: Arc<Self>, leaving: &CancellationToken, attempts: &mut JoinSet<()>) {
        let slots = Arc::new(Semaphore::new(self.config.slots.max(1) as usize));
        loop {
            while let Some(joined) = attempts.try_join_next() {
                complain_about_panic(joined);
            }
            let Some(mut permits) = free_slots(&slots, leaving).await else { return };
            if !self.make_known(leaving).await {
                continue;
            }
            let count = u32::try_from(permits.num_permits()).unwrap_or(u32::MAX);
            let request = self.request(count, LEASE_WAIT);
            let begun = Instant::now();
            let mut call = std::pin::pin!(self.tools.orchestrator.lease(&request));
            let answer = tokio::select! {
                answer = &mut call => answer,
                // What is leased to us at this very moment should not be lost.
                () = leaving.cancelled() => match tokio::time::timeout(LEAVE_WAIT, call).await {
                    Ok(answer) => answer,
                    Err(_) => return,
                },
            };
            match answer {
                Ok(leased) => {
                    if leased.drain {
                        leaving.cancel();
                    }
                    let too_soon = leased.orders.is_empty() && begun.elapsed() < PAUSE / 10;
                    for order in leased.orders {
                        let permit = permits.split(1);
                        attempts.spawn(self.clone().work_off(order, permit, leaving.clone()));
                    }
                    drop(permits);
                    if too_soon {
                        pause(PAUSE, leaving).await;
                    }
                }
                Err(refusal) => {
                    drop(permits);
                    match refusal {
                        CallError::Denied(_) => self.register_again(leaving).await,
                        refusal if refusal.is_unknown_session() => self.register_again(leaving).await,
                        CallError::Unavailable(_) => {}
                        refusal => tracing::warn!(%refusal, "the orchestrator refused a call for work"),
                    }
                    pause(PAUSE, leaving).await;
                }
            }
        }
    }

    /// Runs an attempt, and the ones that the reports of their outcomes bring, in one slot.
    async fn work_off(
        self: Arc<Self>,
        order: StepOrder,
        _slot: Option<OwnedSemaphorePermit>,
        leaving: CancellationToken,
    ) {
        let mut waiting = vec![order];
        while let Some(order) = waiting.pop() {
            let key = &order.key;
            let Some((_holding, ending)) = self.held.take(key, self.last_heard()) else { continue };
            tracing::debug!(run = %key.run, step = key.step, attempt = order.attempt, "begun");
            let Some(ended) = execute::execute(&self.tools, &order, &self.held, ending.clone()).await else {
                tracing::info!(run = %key.run, step = key.step, "the attempt is not ours any more; ended it");
                continue;
            };
            let untold = Untold::keep(order.key, ended, self.holder()).await;
            waiting.extend(self.tell(untold, ending, &leaving).await);
        }
    }

    /// Renews everything that is held, in time with some jitter, and sooner after a failure.
    async fn renew_for_ever(self: Arc<Self>, leaving: CancellationToken) {
        let mut failures = 0_u32;
        let mut told_leaving = false;
        loop {
            let every = self.renew_every();
            let wait = if failures == 0 {
                jitter(every)
            } else {
                jitter((PAUSE * 2_u32.pow(failures.min(4))).min(every))
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = leaving.cancelled(), if !told_leaving => told_leaving = true,
            }
            match self.renew(leaving.is_cancelled()).await {
                Ok(drain) => {
                    failures = 0;
                    if drain {
                        leaving.cancel();
                    }
                }
                Err(refusal) => {
                    failures += 1;
                    if refusal.is_unknown_session() {
                        self.register_again(&leaving).await;
                    }
                }
            }
        }
    }

    /// One renewal; true when the orchestrator wants this worker to drain.
    async fn renew(&self, draining: bool) -> Result<bool, CallError> {
        let mut attempts = self.held.keys();
        attempts.extend(self.untold.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let renew =
            Renew { worker: self.config.name.clone(), session: self.session.clone(), attempts, draining };
        let asked = host::steady_clock();
        let renewed = self.tools.orchestrator.renew(&renew).await?;
        self.heard_at(asked);
        self.held.renewed(&renew.attempts, &renewed.attempts, asked);
        Ok(renewed.drain)
    }

    /// Ends attempts whose lease runs out. In a task of its own: nothing may hold it up.
    async fn fence_for_ever(self: Arc<Self>) {
        loop {
            let life = self.lease_life();
            tokio::time::sleep((life / 20).clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
            self.held.fence(life, host::steady_clock());
        }
    }
}

/// Reaps the orphans of steps that die while their step runs on.
async fn reap_for_ever() {
    loop {
        tokio::time::sleep(REAP_EVERY).await;
        orphans::reap();
    }
}

/// All free slots, at least one; none when leaving.
async fn free_slots(slots: &Arc<Semaphore>, leaving: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    let mut permits = tokio::select! {
        biased;
        () = leaving.cancelled() => return None,
        permit = slots.clone().acquire_owned() => permit.ok()?,
    };
    while let Ok(more) = slots.clone().try_acquire_owned() {
        permits.merge(more);
    }
    Some(permits)
}

async fn pause(time: Duration, leaving: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = leaving.cancelled() => {}
    }
}

/// Between four and six fifths of `time`, so that workers started together do not stay together.
fn jitter(time: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    time * 4 / 5 + time * 2 / 5 * random / 255
}

fn complain_about_panic(joined: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = joined {
        tracing::error!(%panic, "an attempt's task ended badly; its lease will run out");
    }
}
