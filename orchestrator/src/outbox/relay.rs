//! One target's task: looks what is due, sends it off, writes down what became of it. Must never happen here: a wait for one
//! event that holds up those of other runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use refit_workflows::time::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, May, TRIES_MIN};
use super::{Outcome, Shipment, Way};
use crate::broker::Backoff;
use crate::config::Target;
use crate::engine::{Ask, Engine, EngineError, GiveUp, Outbound, Sent, Standing, TargetState};
use crate::health::{Part, PartKind};

/// How long what is on its way is waited for at the end; what is not confirmed by then is sent again.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// One target, the way there, and what is on it.
pub(super) struct Relay {
    engine: Engine,
    name: String,
    way: Way,
    poll: Duration,
    give_up_after: Duration,
    part: Part,
    breaker: Breaker,
    /// Whether this orchestrator sends to the target.
    ours: bool,
    /// How the target is, as it was written down last.
    standing: Standing,
    since: Option<Timestamp>,
    error: Option<String>,
    gone: bool,
    shipments: FuturesUnordered<Shipment>,
    /// The places in the outbox of what is on its way or not yet written down.
    under_way: HashSet<i64>,
    results: Vec<(Outbound, Sent)>,
    /// When the first of those that failed is due again.
    due_again: Option<Instant>,
    /// Whether events were refused since it was last asked which to give up.
    refused: bool,
    gave_up_at: Option<Instant>,
}

impl Relay {
    pub(super) fn new(engine: &Engine, target: &Target, way: Way, poll: Duration) -> Self {
        Self {
            engine: engine.clone(),
            name: target.name.clone(),
            way,
            poll,
            give_up_after: target.give_up_after,
            part: engine.health().register(PartKind::Target, &target.name),
            breaker: Breaker::new(target.give_up_after),
            ours: false,
            standing: Standing::default(),
            since: None,
            error: None,
            gone: false,
            shipments: FuturesUnordered::new(),
            under_way: HashSet::new(),
            results: Vec::new(),
            due_again: None,
            refused: false,
            gave_up_at: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut signal = self.engine.outbox_signal();
        let mut outage = Backoff::default();
        loop {
            signal.mark_unchanged();
            let pause = match shutdown.run_until_cancelled(self.turn()).await {
                None => break,
                Some(Ok(())) => {
                    outage.reset();
                    self.pause()
                }
                Some(Err(error)) => {
                    self.part.degraded(format!("the outbox cannot be read or written: {error}"));
                    outage.next()
                }
            };
            let room = self.under_way.len() < self.way.at_once();
            let waits = matches!(self.breaker.may(Instant::now()), May::Rest(_));
            tokio::select! {
                Some(shipment) = self.shipments.next() => self.take_in(shipment),
                _ = signal.changed(), if room && !waits => {}
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.finish().await;
    }

    /// Waits a little for what is on its way, and lets another orchestrator have the target.
    async fn finish(&mut self) {
        let deadline = Instant::now() + LAST_WAIT;
        while let Ok(Some(shipment)) = tokio::time::timeout_at(deadline, self.shipments.next()).await {
            self.take_in(shipment);
        }
        let left = match self.write().await {
            Ok(()) => self.engine.outbox_leave(&self.name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            tracing::debug!(target_name = self.name, %error, "another orchestrator takes over only after a while");
        }
    }

    /// How long to wait for something to happen.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let rest = match self.breaker.may(now) {
            May::Rest(until) => Some(until),
            May::All | May::Probe => self.due_again,
        };
        rest.map_or(self.poll, |until| until.saturating_duration_since(now).min(self.poll))
    }

    /// Writes down what has become of events, then sends off what is due.
    async fn turn(&mut self) -> Result<(), EngineError> {
        if self.due_again.is_some_and(|due| due <= Instant::now()) {
            self.due_again = None;
        }
        self.write().await?;
        self.give_up().await?;
        if !self.way.is_ready() && !self.get_ready().await? {
            return Ok(());
        }
        let now = Instant::now();
        let under_way = self.under_way.len();
        let ask = match self.breaker.may(now) {
            May::Rest(_) => Ask::Nothing,
            May::Probe if under_way > 0 => Ask::Nothing,
            May::Probe => Ask::Probe,
            May::All if under_way >= self.way.at_once() => Ask::Nothing,
            // What is on its way is still there, and due.
            May::All => Ask::Due(i64::try_from(self.way.at_once()).unwrap_or(i64::MAX)),
        };
        self.look(ask).await.map(drop)
    }

    /// Looks, and sends off what it finds. Answers whether the target is this orchestrator's.
    async fn look(&mut self, ask: Ask) -> Result<bool, EngineError> {
        let look = self.engine.outbox_look(&self.name, ask).await?;
        self.agree(look.ours, look.standing);
        if ask == Ask::Probe && look.due.is_empty() && self.ours && self.standing.state.sends() {
            // Nothing waits: what was there has been given up or dropped, or there was only no connection.
            self.breaker.close();
            (self.since, self.error) = (None, None);
            self.write().await?;
        }
        let room = self.way.at_once().saturating_sub(self.under_way.len());
        let due: Vec<Outbound> = look
            .due
            .into_iter()
            .filter(|outbound| !self.under_way.contains(&outbound.seq))
            .take(room)
            .collect();
        if !due.is_empty() {
            self.under_way.extend(due.iter().map(|outbound| outbound.seq));
            self.shipments.extend(self.way.ship(due));
        }
        self.show();
        Ok(self.ours)
    }

    /// Takes over what is written down of the target, by another orchestrator or by people.
    fn agree(&mut self, ours: bool, standing: Standing) {
        let enabled = standing.state == TargetState::Ok && self.standing.state != TargetState::Ok;
        if ours && self.ours && enabled {
            self.breaker.close();
            (self.since, self.error, self.gone) = (None, None, false);
        }
        if ours && !self.ours {
            match standing.state {
                TargetState::Ok | TargetState::Retrying => (self.since, self.error) = (None, None),
                TargetState::Open | TargetState::Disabled => {
                    (self.since, self.error) = (standing.since, standing.error.clone());
                    self.breaker.found_open();
                }
            }
        }
        self.gone = standing.state == TargetState::Disabled;
        (self.ours, self.standing) = (ours, standing);
    }

    /// Connects, where the target is this orchestrator's. False: nothing can be sent now.
    async fn get_ready(&mut self) -> Result<bool, EngineError> {
        if !self.look(Ask::Nothing).await? || !self.standing.state.sends() {
            return Ok(false);
        }
        if matches!(self.breaker.may(Instant::now()), May::Rest(_)) {
            return Ok(false);
        }
        match self.way.prepare().await {
            Ok(()) => Ok(true),
            Err(reason) => {
                self.breaker.unreachable(Instant::now());
                self.failed(reason);
                self.write().await?;
                Ok(false)
            }
        }
    }

    fn failed(&mut self, reason: String) {
        self.since.get_or_insert(self.engine.store().clock().now());
        self.error = Some(reason);
    }

    /// Takes in what became of events, with whatever else is known by now.
    fn take_in(&mut self, shipment: Vec<(Outbound, Outcome)>) {
        let mut shipment = Some(shipment);
        while let Some(outcomes) = shipment {
            for (outbound, outcome) in outcomes {
                let sent = self.judge(&outbound, outcome);
                self.results.push((outbound, sent));
            }
            shipment = self.shipments.next().now_or_never().flatten();
        }
    }

    fn judge(&mut self, outbound: &Outbound, outcome: Outcome) -> Sent {
        let refusal = match outcome {
            Outcome::Taken => {
                if self.breaker.taken() {
                    self.due_again = Some(Instant::now());
                }
                (self.since, self.error) = (None, None);
                return Sent::Done;
            }
            Outcome::Refused(refusal) => refusal,
        };
        let (now, attempts) = (Instant::now(), outbound.attempts + 1);
        tracing::debug!(
            target_name = self.name,
            event = outbound.event.id(),
            attempts,
            "not sent: {}",
            refusal.reason
        );
        self.breaker.refused(outbound.seq, refusal.away, now);
        if let Some(rest) = refusal.rest {
            self.breaker.rest(rest, now);
        }
        if refusal.away {
            self.way.doubt();
        }
        self.gone |= refusal.gone;
        self.refused = true;
        self.failed(refusal.reason.clone());
        let pause = self.breaker.pause(attempts);
        self.due_again = Some(self.due_again.map_or(now + pause, |due| due.min(now + pause)));
        Sent::Failed { reason: refusal.reason, pause }
    }

    /// How the target is by what is known here.
    fn found(&self) -> Standing {
        let state = match (self.gone, self.breaker.is_open(), self.breaker.failures()) {
            (true, _, _) => TargetState::Disabled,
            (false, true, _) => TargetState::Open,
            (false, false, 0) => TargetState::Ok,
            (false, false, _) => TargetState::Retrying,
        };
        Standing { state, since: self.since, error: self.error.clone() }
    }

    /// Writes down what is known and not yet written. What is not written stays here, and is not sent again meanwhile.
    async fn write(&mut self) -> Result<(), EngineError> {
        let found = self.found();
        let changed = self.ours && found != self.standing;
        if self.results.is_empty() && !changed {
            return Ok(());
        }
        let results = Arc::new(std::mem::take(&mut self.results));
        let written = self.engine.outbox_sent(&self.name, Arc::clone(&results), found.clone()).await;
        if let Err(error) = written {
            self.results = results.to_vec();
            return Err(error);
        }
        for (outbound, _) in results.iter() {
            self.under_way.remove(&outbound.seq);
        }
        if self.standing.state == TargetState::Open && !self.breaker.is_open() {
            self.engine.outbox_again(&self.name).await?;
        }
        self.standing = found;
        self.show();
        Ok(())
    }

    /// Shows in readiness how the target is.
    fn show(&self) {
        let error = self.standing.error.as_deref().unwrap_or("it has not said why");
        match self.standing.state {
            TargetState::Ok => self.part.working(),
            TargetState::Retrying | TargetState::Open => self.part.degraded(error),
            TargetState::Disabled => self.part.degraded(format!(
                "it is disabled: {error}; change its settings or use `refit target enable {}`",
                self.name
            )),
        }
    }

    /// Makes dead letters of what the target would not have for too long. Looks ten times in that while, and only when
    /// there have been tries enough since this orchestrator started: time alone may have passed while nobody tried.
    async fn give_up(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        let every = (self.give_up_after / TRIES_MIN).min(Duration::from_secs(60));
        let nothing_goes = self.breaker.is_open() || self.gone;
        if !self.ours || !(self.refused || nothing_goes) || self.gave_up_at.is_some_and(|at| now < at + every)
        {
            return Ok(());
        }
        let tried = self.gone || self.breaker.failures() >= TRIES_MIN;
        if nothing_goes && !(tried && self.under_way.is_empty()) {
            return Ok(());
        }
        (self.refused, self.gave_up_at) = (false, Some(now));
        let clock = self.engine.store().clock().now();
        let before = clock.minus(self.give_up_after);
        // Of a target that takes nothing at all, those go too whose turn has never come.
        let nothing_since = if nothing_goes { self.since } else { None };
        let which = GiveUp {
            tries: i64::from(TRIES_MIN),
            failed_before: before,
            due_after: (!nothing_goes).then_some(clock),
            written_before: nothing_since.filter(|since| *since <= before).map(|_| before),
        };
        let mut given_up = 0;
        loop {
            let some = self.engine.outbox_give_up(&self.name, which).await?;
            given_up += some;
            if some == 0 {
                break;
            }
        }
        if given_up > 0 {
            tracing::warn!(
                target_name = self.name,
                given_up,
                "outbound events became dead letters: `refit deadletter list --source target:{}`",
                self.name
            );
        }
        Ok(())
    }
}
