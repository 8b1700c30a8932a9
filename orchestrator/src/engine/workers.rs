//! The worker protocol's moments: register, lease, renew, report, finish. Every write carries the attempt's epoch;
//! a stale one changes nothing.

use std::time::Duration;

use futures_util::{Stream, stream};
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Refused, Run};
use refit_workflows::wire::*;
use tokio::time::Instant;

use super::{Engine, EngineError};
use crate::store::{ChangeError, Claim, Hints, LeaseRow, LeasedStep, StoreError};

/// The longest a lease request waits for work.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(30);
/// A lease whose worker does not name it in a renewal this long after it was given, or after the grace where that is
/// shorter, never arrived there.
const ARRIVES_WITHIN: Duration = Duration::from_secs(15);
/// A worker is silent when this many renewals in a row did not come.
const SILENT_RENEWALS: u32 = 3;

impl Engine {
    /// A worker process introduces itself.
    pub async fn register(&self, register: Register) -> Result<Registered, EngineError> {
        if register.protocol != WORKER_PROTOCOL {
            return Err(EngineError::Refused {
                kind: "protocol",
                detail: format!(
                    "this orchestrator speaks worker protocol {WORKER_PROTOCOL}, the worker {} {}: run the same \
                     version of refit on both",
                    register.worker, register.protocol
                ),
            });
        }
        if register.slots == 0 || register.worker.is_empty() || register.worker.len() > 253 {
            return Err(EngineError::Invalid {
                field: Some("worker".to_owned()),
                detail: "a worker has a name of 1 to 253 bytes and at least one slot".to_owned(),
                hint: None,
            });
        }
        tracing::info!(worker = register.worker, slots = register.slots, "a worker registered");
        let hints = self.store().register(register).await?;
        self.wake(hints);
        Ok(Registered {
            renew_every_ms: millis(self.renew_every()),
            grace_ms: millis(self.inner.settings.grace),
        })
    }

    /// Ten seconds, or what gives a worker six tries within the grace.
    fn renew_every(&self) -> Duration {
        Duration::from_secs(10).min(self.inner.settings.grace / 6)
    }

    /// After which time a worker that was not heard of is silent.
    pub(super) fn silent_after(&self) -> Duration {
        self.renew_every() * SILENT_RENEWALS
    }

    fn claim_of(&self, request: &LeaseRequest) -> Claim {
        Claim {
            any_host: false,
            worker: request.worker.clone(),
            session: request.session.clone(),
            slots: request.slots as usize,
            silent_after: self.silent_after(),
        }
    }

    /// Leases ready steps; waits up to `wait_ms` for some.
    pub async fn lease(&self, request: LeaseRequest) -> Result<Leased, EngineError> {
        let wait = Duration::from_millis(request.wait_ms).min(LEASE_WAIT_MAX);
        let deadline = Instant::now() + wait;
        let mut ready = self.inner.signals.ready();
        let mut known = false;
        loop {
            let orders = self.lease_now(&request).await?;
            // A session that is not known gets nothing; it should hear why.
            if orders.is_empty() && !known {
                known = self.store().knows_session(&request.worker, &request.session).await?;
                if !known {
                    return Err(unknown_session(&request.worker));
                }
            }
            if !orders.is_empty() || !self.wait_for(&mut ready, deadline).await {
                return Ok(Leased { orders, drain: false });
            }
        }
    }

    /// Leases what is ready, whatever it asks of a host: for a worker that is made up.
    pub(crate) async fn lease_anything(&self, request: &LeaseRequest) -> Result<Vec<StepOrder>, EngineError> {
        let claim = Claim { any_host: true, ..self.claim_of(request) };
        let (leased, hints) = self.store().lease(claim).await?;
        self.wake(hints);
        self.orders_of(leased).await
    }

    async fn lease_now(&self, request: &LeaseRequest) -> Result<Vec<StepOrder>, EngineError> {
        let (leased, hints) = self.store().lease(self.claim_of(request)).await?;
        self.wake(hints);
        self.orders_of(leased).await
    }

    /// The orders for steps that were just leased, after the commit.
    async fn orders_of(&self, leased: Vec<LeasedStep>) -> Result<Vec<StepOrder>, EngineError> {
        let mut orders = Vec::with_capacity(leased.len());
        for LeasedStep { run, position, epoch, order, secrets } in leased {
            let order = match order {
                Ok(order) => self.inner.settings.secrets.fill(order, secrets).await,
                Err(reason) => Err(reason),
            };
            match order {
                Ok(order) => orders.push(order),
                Err(reason) => self.cannot_order(&run, position, epoch, reason).await?,
            }
        }
        Ok(orders)
    }

    /// A step was ready and yet its order cannot be rendered: a failure of the step, not of the worker.
    async fn cannot_order(
        &self,
        run: &RunName,
        step: usize,
        epoch: i64,
        reason: String,
    ) -> Result<(), EngineError> {
        let outcome = Outcome::Failed { failure: Failure::CouldNotStart, reason };
        let finished = Input::Finished { step, epoch, outcome, set_up_ms: None };
        let hints = self.store().change_run(run, move |_| Ok(finished.clone())).await?;
        self.wake(hints);
        Ok(())
    }

    /// A worker says what it is running; learns what to end.
    pub async fn renew(&self, renew: Renew) -> Result<Renewed, EngineError> {
        if !self.store().heard_of(&renew.worker, &renew.session, renew.draining).await? {
            return Err(unknown_session(&renew.worker));
        }
        let held = self.store().leases_of(&renew.session).await?;
        let is = |lease: &LeaseRow, key: &AttemptKey| {
            lease.epoch == key.epoch && lease.step == key.step && lease.run == key.run
        };
        let attempts = renew
            .attempts
            .iter()
            .map(|key| match held.iter().find(|lease| is(lease, key)) {
                Some(lease) if lease.cancelling => Instruction::Cancel,
                Some(_) => Instruction::Continue,
                None => Instruction::Stop,
            })
            .collect();
        let now = self.now();
        let arrives_within = ARRIVES_WITHIN.min(self.inner.settings.grace);
        for lease in &held {
            let named = renew.attempts.iter().any(|key| is(lease, key));
            // A worker that leaves says so, and names what it still runs: nothing.
            let leaving = renew.draining && renew.attempts.is_empty();
            if !named && (leaving || now.since(lease.leased_at) > arrives_within) {
                let hints = self.store().lose(lease, "its worker does not have it").await?;
                self.wake(hints);
            }
        }
        Ok(Renewed { attempts, drain: false })
    }

    /// Log chunks and live metrics of a running attempt.
    pub async fn report(&self, report: Report) -> Result<(), EngineError> {
        self.store().report(report).await?;
        self.wake(Hints { runs: true, ..Hints::default() });
        Ok(())
    }

    /// What an attempt came to. The next lease, when it is asked for, is part of the same transaction.
    pub async fn finish(&self, finish: Finish) -> Result<Finished, EngineError> {
        let Finish { key, outcome, set_up_ms, session, next } = finish;
        let AttemptKey { run, step, epoch } = key;
        let input = move |run: &Run| {
            let step = run.place_of(&step).ok_or(Refused::UnknownStep)?;
            let lease = run.steps()[step].state.lease();
            if session.as_ref().is_some_and(|told| lease.is_some_and(|lease| lease.session != *told)) {
                return Err(Refused::OtherSession.into());
            }
            Ok(Input::Finished { step, epoch, outcome: outcome.clone(), set_up_ms })
        };
        let claim = next.as_ref().map(|next| self.claim_of(next));
        let (leased, hints) = match self.store().change_and_lease(&run, input, claim).await {
            Ok(done) => done,
            Err(ChangeError::Refused(Refused::RunIsOver(state))) => {
                return Err(EngineError::Over(format!("the run is over: it {state}")));
            }
            Err(error) => return Err(error.into()),
        };
        self.wake(hints);
        Ok(Finished { orders: self.orders_of(leased).await? })
    }

    /// The events of the attempt's run as JSON Lines, oldest first, page by page. Refused for a stale key.
    pub async fn attempt_events(
        &self,
        key: &AttemptKey,
    ) -> Result<impl Stream<Item = Result<String, StoreError>> + Send + use<>, EngineError> {
        let run = self.store().attempt_run(key).await?;
        let store = self.store().clone();
        Ok(stream::try_unfold((store, 0), move |(store, after)| async move {
            let page = store.run_events(run, after).await?;
            Ok(page.map(|(lines, next)| (lines, (store, next))))
        }))
    }
}

fn unknown_session(worker: &str) -> EngineError {
    EngineError::Refused {
        kind: "unknown-session",
        detail: format!(
            "this session of the worker {worker} is not registered, or another process took the name: register again, \
             and give each worker a name of its own"
        ),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
