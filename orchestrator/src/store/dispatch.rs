//! From events to triggers that fire: looks at everything that is due and routes events. All of it holds the `trigger`
//! duty's row, so that over any number of orchestrators one event is routed once, one batch fires once and one slot
//! fires once. What is gathered is `gather`'s business, what a trigger that fires starts `launch`'s. Must never happen
//! here: one thing that cannot be done holding up the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use refit_workflows::definition::Trigger;
use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Scope;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{BatchFacts, Considered, Match, Triggers, render_params};
use serde::Serialize;
use serde_json::{Value, json};

use super::database::{Sql, Transaction, sql};
use super::gather::Gatherings;
use super::lanes::{LaneName, LaneState};
use super::launch::{Held, Launch, Launched};
use super::workflows::CurrentWorkflow;
use super::writes::Writes;
use super::{ChangeError, Hints, Store, StoreError, unpoisoned, watches};

/// What a look at everything that is due came to.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// Whom to wake.
    pub hints: Hints,
    /// When to look again.
    pub next: Next,
    /// Something that is due cannot be done; everything else was.
    pub trouble: Option<StoreError>,
}

/// When to look again at what is due. The greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// Nothing is due before this moment; none: before something happens.
    Idle(Option<Timestamp>),
    /// Something was done, and may have changed what is due next.
    Done,
    /// Somebody else holds the duty, and may not look at what is due once they are done: in a moment.
    Held,
    /// More is due: at once.
    More,
}

impl Default for Next {
    fn default() -> Self {
        Self::Idle(None)
    }
}

/// What doing something that was due came to: whom to wake; none: somebody else held the duty.
type Done = Option<Hints>;

/// How many events one transaction routes.
const ROUTE_MAX: i64 = 200;
/// An event that was received later than so far from now has its time from a clock that is wrong. Those of several orchestrators
/// follow the database's, and differ by milliseconds.
const CLOCK_AHEAD: Duration = Duration::from_secs(1);

const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM duties WHERE name = 'trigger'",
    postgres: "SELECT name FROM duties WHERE name = 'trigger' FOR UPDATE",
};
const TRY_LOCK: Sql = Sql {
    sqlite: "SELECT name FROM duties WHERE name = 'trigger'",
    postgres: "SELECT name FROM duties WHERE name = 'trigger' FOR UPDATE SKIP LOCKED",
};
const UNROUTED: &str = "SELECT seq, received_at, body FROM events WHERE routed = 0
    ORDER BY received_at, seq LIMIT $1";
const UNROUTED_ONE: &str = "SELECT seq, received_at, body FROM events WHERE routed = 0 AND seq = $1";
const ROUTED: Sql = Sql {
    sqlite: "UPDATE events SET routed = 1 WHERE seq IN (SELECT value FROM json_each($1))",
    postgres: "UPDATE events SET routed = 1
        WHERE seq IN (SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text($1::jsonb))",
};
const DECIDE: Sql = Sql {
    sqlite: "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run, replay)
        SELECT d.value ->> 'event', $2, d.value ->> 'workflow', d.value ->> 'trigger', d.value ->> 'decision',
            d.value ->> 'reason', d.value ->> 'batch', d.value ->> 'run', d.value ->> 'replay'
        FROM json_each($1) AS d ORDER BY d.key",
    postgres:
        "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run, replay)
        SELECT d.event, $2, d.workflow, d.trigger, d.decision, d.reason, d.batch, d.run, d.replay
        FROM jsonb_to_recordset($1::jsonb) AS d (place BIGINT, event BIGINT, workflow TEXT, trigger BIGINT,
            decision TEXT, reason TEXT, batch BIGINT, run BIGINT, replay BIGINT)
        ORDER BY d.place",
};
const DECIDE_BATCH: &str =
    "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run, replay)
    SELECT d.event, $2, d.workflow, d.trigger_index, $3, $4, d.batch, $5, d.replay FROM decisions d
    WHERE d.batch = $1 AND d.decision IN ('batched', 'joined') ORDER BY d.seq";
const ANY_DECISION: &str = "SELECT seq FROM decisions WHERE event = $1 LIMIT 1";

/// The triggers of the workflows as they are applied now, kept from one round to the next, with the digests of their
/// definitions.
#[derive(Default)]
pub(super) struct KnownTriggers(Vec<Digest>, Option<Arc<Triggers>>);

/// Where a new run's events come from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    Event(i64),
    Batch(i64),
}

/// A decision about an event, to be written down.
#[derive(Default, Serialize)]
pub(super) struct Decision<'a> {
    pub(super) workflow: &'a str,
    pub(super) trigger: Option<usize>,
    pub(super) decision: &'static str,
    pub(super) reason: Option<&'a str>,
    pub(super) batch: Option<i64>,
    pub(super) run: Option<i64>,
}

/// One round: a transaction that holds the `trigger` duty's row, and what it knows and has done so far. What may change
/// several times in a round is written once, when the round is committed.
pub(super) struct Round {
    pub(super) store: Store,
    pub(super) tx: Transaction,
    pub(super) now: Timestamp,
    pub(super) hints: Hints,
    /// The runs this transaction has locked or made, by row; kept in memory after the commit.
    pub(super) held: BTreeMap<i64, Held>,
    /// The lanes it has looked at.
    pub(super) lanes: HashMap<LaneName, LaneState>,
    /// The gatherings it has looked at.
    pub(super) gatherings: Gatherings,
    /// The replay whose events are being routed.
    pub(super) replay: Option<i64>,
    /// Whether the event that is being routed does something besides what triggers make of it.
    is_wanted: bool,
    /// Decisions about single events, in order, that are not written yet: see [`Round::flush`].
    decided: Vec<Value>,
    /// What has changed of runs and is not written yet.
    pub(super) writes: Writes,
}

impl Store {
    /// Takes the duty of creating and admitting runs for this transaction; waits for whoever has it.
    pub(super) async fn lock_dispatch(&self, tx: &mut Transaction) -> Result<(), StoreError> {
        tx.one(sql(LOCK)).await?;
        Ok(())
    }

    /// Looks at everything that is due: slots, events, batches, waiting runs. Each is a transaction of its own, so
    /// that one that cannot be done never holds up the others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing can be done at present.
    pub async fn dispatch(&self) -> Result<Dispatched, StoreError> {
        let due = self.due().await?;
        let next = if due.is_idle() { Next::Idle(due.next) } else { Next::Done };
        let mut dispatched = Dispatched { next, ..Dispatched::default() };
        for (workflow, trigger) in due.slots {
            dispatched.note("fire a schedule slot", self.fire_slot(workflow, trigger).await)?;
        }
        // What was received in time for a batch that is due, or before an event that is to be routed, may be in a transaction that
        // is under way. Times are taken after a transaction has begun.
        let looks_back = due.unrouted || !due.batches.is_empty() || !due.watches.is_empty();
        let seen_until = match looks_back {
            true => {
                let at = due.at;
                self.durably(move |store| async move { store.database().visible_until(at).await }).await?
            }
            false => None,
        };
        if due.unrouted {
            // Whatever hangs for seconds keeps events from being routed no longer: batches wait for it.
            let seen_until = seen_until.unwrap_or(due.at);
            match self.route_some(None, seen_until).await {
                // One event that cannot be routed must not hold up the others: find it alone.
                Err(StoreError::Broken(_) | StoreError::Corrupt(_)) => {
                    self.route_oldest(seen_until, &mut dispatched).await?;
                }
                routed => dispatched.routed(routed?),
            }
        }
        if due.replay {
            match self.replay_piece().await {
                Ok(replayed) => dispatched.routed(replayed),
                Err(error) => dispatched.note("replay events", Err(error))?,
            }
        }
        if looks_back && seen_until.is_none() {
            dispatched.look_again(Next::Held);
        }
        if let Some(seen_until) = seen_until {
            for batch in due.batches {
                dispatched.note("end a batch", self.end_due_batch(batch, seen_until).await)?;
            }
            for watch in due.watches {
                dispatched.note("end a watch", self.end_due_watch(watch, seen_until).await)?;
            }
        }
        for lane in due.lanes {
            dispatched.note("start a waiting run", self.admit_waiting(lane).await)?;
        }
        if dispatched.hints.events {
            // Events of Refit's own.
            dispatched.look_again(Next::More);
        }
        Ok(dispatched)
    }

    /// Routes the oldest open event alone, and sets it aside if it cannot be.
    async fn route_oldest(
        &self,
        seen_until: Timestamp,
        dispatched: &mut Dispatched,
    ) -> Result<(), StoreError> {
        let oldest =
            self.durably(|store| async move { store.database().first(sql(UNROUTED).bind(1)).await }).await?;
        let Some(oldest) = oldest else { return Ok(()) };
        let seq = oldest.int("seq")?;
        match self.route_some(Some(seq), seen_until).await {
            Err(StoreError::Broken(reason) | StoreError::Corrupt(reason)) => {
                self.set_aside(seq, reason).await?;
                dispatched.look_again(Next::More);
            }
            routed => dispatched.routed(routed?),
        }
        Ok(())
    }

    /// Routes the oldest open events, or this one alone, in the order in which they were received. Those that came after
    /// `seen_until` are left to the next: one that came before them may not be seen yet, or a batch may have become due. Returns
    /// whether another look is worth it, and whom to wake; none: somebody else holds the duty.
    async fn route_some(
        &self,
        only: Option<i64>,
        seen_until: Timestamp,
    ) -> Result<Option<(bool, Hints)>, StoreError> {
        self.durably(move |store| async move {
            // One event alone is a second try: the round that failed may hold the duty for a moment yet.
            let round = match only {
                Some(_) => Some(Round::begin(store).await?),
                None => Round::try_begin(store).await?,
            };
            let Some(mut round) = round else { return Ok(None) };
            let current = round.store.current_workflows(&mut round.tx).await?;
            let triggers = round.store.triggers_of(&current);
            let unrouted = match only {
                Some(seq) => sql(UNROUTED_ONE).bind(seq),
                None => sql(UNROUTED).bind(ROUTE_MAX),
            };
            let rows = round.tx.all(unrouted).await?;
            let more = only.is_some() || rows.len() as i64 == ROUTE_MAX;
            let mut page = Vec::with_capacity(rows.len());
            for row in &rows {
                let at = Timestamp::from_millis(row.int("received_at")?);
                // One from a clock that is ahead waits for nothing.
                if at <= seen_until || at > round.now.plus(CLOCK_AHEAD) {
                    page.push((at, row.int("seq")?, row));
                }
            }
            let left = page.len() < rows.len();
            let watches = watches::open_in(&mut round.tx).await?;
            let (mut routed, mut called) = (Vec::with_capacity(page.len()), Vec::new());
            for (at, seq, row) in page {
                let event: CloudEvent = row.json("body")?;
                let calls = watches::called(&watches, seq, at, &event);
                round.is_wanted = !calls.is_empty();
                round.route(seq, at, &event, (&current, &triggers), None).await?;
                called.extend(calls);
                routed.push(seq);
            }
            if !routed.is_empty() {
                round.tx.execute(sql(ROUTED).bind(json!(routed).to_string())).await?;
            }
            round.roll_back_called(&watches, called).await?;
            Ok(Some((more || left, round.commit().await?)))
        })
        .await
    }

    /// Writes down that an event cannot be routed, unless somebody else was faster.
    async fn set_aside(&self, event: i64, reason: String) -> Result<(), StoreError> {
        self.durably(move |store| {
            let reason = reason.clone();
            async move {
                let mut round = Round::begin(store).await?;
                if round.tx.first(sql(UNROUTED_ONE).bind(event)).await?.is_some() {
                    tracing::error!(event, reason, "an event cannot be routed");
                    let reason = format!("could not be routed: {reason}");
                    let reason = Some(reason.as_str());
                    let decision = Decision { decision: "filter_error", reason, ..Decision::default() };
                    round.decide(event, &decision);
                    round.tx.execute(sql(ROUTED).bind(json!([event]).to_string())).await?;
                }
                round.commit().await.map(|_| ())
            }
        })
        .await
    }

    async fn fire_slot(&self, workflow: String, trigger: String) -> Result<Done, StoreError> {
        self.durably(move |store| {
            let (workflow, trigger) = (workflow.clone(), trigger.clone());
            async move {
                let Some(mut round) = Round::try_begin(store).await? else { return Ok(None) };
                round.fire_slot(&workflow, &trigger).await?;
                round.commit().await.map(Some)
            }
        })
        .await
    }

    async fn end_due_batch(&self, batch: i64, seen_until: Timestamp) -> Result<Done, StoreError> {
        self.durably(move |store| async move {
            let Some(mut round) = Round::try_begin(store).await? else { return Ok(None) };
            round.end_due(batch, seen_until).await?;
            round.commit().await.map(Some)
        })
        .await
    }

    async fn admit_waiting(&self, lane: LaneName) -> Result<Done, StoreError> {
        self.durably(move |store| {
            let lane = lane.clone();
            async move {
                let Some(mut round) = Round::try_begin(store).await? else { return Ok(None) };
                round.admit_waiting(&lane).await?;
                round.commit().await.map(Some)
            }
        })
        .await
    }

    /// The triggers of these workflows; made ready once for as long as the workflows stay what they are.
    pub(super) fn triggers_of(&self, current: &[CurrentWorkflow]) -> Arc<Triggers> {
        let digests = current.iter().map(|current| &current.digest);
        let mut known = unpoisoned(&self.inner.triggers);
        if let KnownTriggers(of, Some(triggers)) = &*known
            && of.iter().eq(digests.clone())
        {
            return Arc::clone(triggers);
        }
        let workflows = current.iter().map(|current| Arc::clone(&current.workflow));
        let triggers = Arc::new(Triggers::new(workflows));
        *known = KnownTriggers(digests.cloned().collect(), Some(Arc::clone(&triggers)));
        triggers
    }
}

impl Round {
    fn new(store: Store, tx: Transaction) -> Self {
        let now = store.clock().now();
        Self {
            store,
            tx,
            now,
            hints: Hints::default(),
            held: BTreeMap::new(),
            lanes: HashMap::new(),
            gatherings: Gatherings::default(),
            replay: None,
            is_wanted: false,
            decided: Vec::new(),
            writes: Writes::default(),
        }
    }

    /// Takes the duty; waits for whoever has it.
    pub(super) async fn begin(store: Store) -> Result<Self, StoreError> {
        let mut tx = store.database().begin().await?;
        store.lock_dispatch(&mut tx).await?;
        Ok(Self::new(store, tx))
    }

    /// Takes the duty, if nobody has it.
    pub(super) async fn try_begin(store: Store) -> Result<Option<Self>, StoreError> {
        let mut tx = store.database().begin().await?;
        let taken = tx.first(sql(TRY_LOCK)).await?;
        Ok(taken.map(|_| Self::new(store, tx)))
    }

    /// Makes everything durable, and then keeps the runs in memory.
    pub(super) async fn commit(mut self) -> Result<Hints, StoreError> {
        self.flush().await?;
        self.write_gatherings().await?;
        self.write_grown().await?;
        self.flush().await?;
        self.tx.commit().await?;
        for (id, held) in self.held {
            self.store.committed(id, held.run);
        }
        Ok(self.hints)
    }

    /// Routes one event, received at `at`, through every trigger, or those of `only` one workflow, and writes down what
    /// became of it.
    pub(super) async fn route(
        &mut self,
        seq: i64,
        at: Timestamp,
        event: &CloudEvent,
        (current, triggers): (&[CurrentWorkflow], &Triggers),
        only: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut decided = self.is_wanted;
        for (matched, considered) in considered(event, current, triggers) {
            let (workflow, index) = (&current[matched.workflow], matched.trigger);
            if only.is_some_and(|only| only != workflow.workflow.name) {
                continue;
            }
            decided = true;
            let id = triggers.id(&matched).to_owned();
            let trigger = &workflow.workflow.triggers[index];
            let (decision, reason) = match (considered, workflow.paused_for(at)) {
                (Considered::Filtered(reason), _) => ("unmatched", reason),
                (Considered::FilterError(wrong), _) => ("filter_error", wrong),
                (Considered::Accepted(_), Some(paused)) => ("paused", format!("paused {paused}")),
                (Considered::Accepted(arrival), None) if trigger.gathers() => {
                    self.gather(seq, at, workflow, (index, id), &arrival).await?;
                    continue;
                }
                (Considered::Accepted(arrival), None) => {
                    let object = Value::Object(event.attributes().clone());
                    let (first, last) = (object.clone(), object);
                    let facts = BatchFacts { key: arrival.key, count: 1, sum: None, first, last };
                    let words = match trigger {
                        Trigger::Event(_) | Trigger::Join(_) => format!("event {}", event.kind()),
                        Trigger::Cron(_) => trigger.words(),
                    };
                    self.fire(workflow, index, facts, Origin::Event(seq), words).await?;
                    continue;
                }
            };
            let (trigger, reason) = (Some(index), Some(reason.as_str()));
            let name = workflow.workflow.name.as_str();
            let decision = Decision { workflow: name, trigger, decision, reason, ..Decision::default() };
            self.decide(seq, &decision);
        }
        // A run that was started by hand was decided about when it was.
        if !decided && (self.replay.is_some() || self.tx.first(sql(ANY_DECISION).bind(seq)).await?.is_none())
        {
            let (workflow, reason) = (only.unwrap_or_default(), Some(no_match(current)));
            let decision = Decision { workflow, decision: "unmatched", reason, ..Decision::default() };
            self.decide(seq, &decision);
        }
        Ok(())
    }

    /// Decides about one event; written down with the next [`Round::flush`].
    pub(super) fn decide(&mut self, event: i64, decision: &Decision<'_>) {
        let mut row = json!(decision);
        row["event"] = json!(event);
        row["replay"] = json!(self.replay);
        row["place"] = json!(self.decided.len());
        self.decided.push(row);
    }

    /// Writes down what was decided and changed so far: before anything reads decisions, runs or steps, or adds to them
    /// in another way.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        let decided = std::mem::take(&mut self.decided);
        if !decided.is_empty() {
            let decide = sql(DECIDE).bind(Value::Array(decided).to_string()).bind(self.now.as_millis());
            self.tx.execute(decide).await?;
        }
        self.writes.write(&mut self.tx).await
    }

    /// The same decision about every event that a run would stand for.
    pub(super) async fn decide_all(
        &mut self,
        origin: Origin,
        decision: Decision<'_>,
    ) -> Result<(), StoreError> {
        match origin {
            Origin::Event(event) => {
                self.decide(event, &decision);
                Ok(())
            }
            Origin::Batch(batch) => {
                self.flush().await?;
                let decide = sql(DECIDE_BATCH)
                    .bind(batch)
                    .bind(self.now.as_millis())
                    .bind(decision.decision)
                    .bind(decision.reason)
                    .bind(decision.run);
                self.tx.execute(decide).await?;
                Ok(())
            }
        }
    }

    /// Creates the run of a trigger that fires; params that cannot be rendered are written down with the events.
    pub(super) async fn fire(
        &mut self,
        current: &CurrentWorkflow,
        index: usize,
        batch: BatchFacts,
        origin: Origin,
        words: String,
    ) -> Result<(), StoreError> {
        let workflow = &current.workflow;
        let templates = workflow.triggers[index].params();
        let params = render_params(templates, &batch).and_then(|params| workflow.resolve_params(&params));
        let launched = match params {
            Ok(params) => {
                let (current, trigger_index) = (current.clone(), Some(index));
                let launch = Launch {
                    current,
                    trigger_index,
                    trigger: words,
                    params,
                    batch,
                    origin,
                    parent: None,
                    no_cache: false,
                };
                self.launch(launch).await
            }
            Err(reason) => Err(ChangeError::Invalid(reason)),
        };
        match launched {
            Ok(Launched::Run(_) | Launched::Skipped(_)) => Ok(()),
            Err(ChangeError::Store(error)) => Err(error),
            Err(other) => {
                let reason = other.to_string();
                let decision = Decision {
                    workflow: &workflow.name,
                    trigger: Some(index),
                    decision: "filter_error",
                    reason: Some(&reason),
                    ..Decision::default()
                };
                self.decide_all(origin, decision).await
            }
        }
    }
}

/// Why an event that matches no trigger starts nothing.
pub(super) fn no_match(current: &[CurrentWorkflow]) -> &'static str {
    if current.is_empty() { "no workflow is registered" } else { "no trigger matches" }
}

/// What each trigger that the event matches makes of it.
pub(super) fn considered(
    event: &CloudEvent,
    current: &[CurrentWorkflow],
    triggers: &Triggers,
) -> Vec<(Match, Considered)> {
    let object = Value::Object(event.attributes().clone());
    let matches = triggers.matching(event, &object);
    let Value::Object(roots) = object else { return Vec::new() };
    let scope = Scope { roots, ..Scope::default() };
    let consider = |matched: Match| {
        let trigger = &current[matched.workflow].workflow.triggers[matched.trigger];
        let considered = trigger.consider(matched.parts.clone(), &scope);
        (matched, considered)
    };
    matches.into_iter().map(consider).collect()
}

impl Dispatched {
    /// Notes what routing events came to, and whether more are to be routed.
    fn routed(&mut self, routed: Option<(bool, Hints)>) {
        let Some((more, hints)) = routed else { return self.look_again(Next::Held) };
        self.hints = self.hints.and(hints);
        if more {
            self.look_again(Next::More);
        }
    }

    fn look_again(&mut self, next: Next) {
        self.next = self.next.max(next);
    }

    /// Notes what one thing that was due came to; only a database that is away ends the look.
    fn note(&mut self, doing: &str, done: Result<Done, StoreError>) -> Result<(), StoreError> {
        match done {
            Ok(Some(hints)) => self.hints = self.hints.and(hints),
            Ok(None) => self.look_again(Next::Held),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "failed to {doing}");
                self.trouble = Some(error);
            }
        }
        Ok(())
    }
}
