//! From events to triggers that fire: routes events, gathers batches, fires batches and schedule slots. All of it holds
//! the `trigger` duty's row, so that over any number of orchestrators one event is routed once, one batch fires once
//! and one slot fires once. What a trigger that fires starts is `launch`'s business.

use refit_workflows::definition::{BatchRule, CatchUp, CronTrigger, EventTrigger, Trigger};
use refit_workflows::event::CloudEvent;
use refit_workflows::run::Run;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{BatchFacts, Considered, Gathering, render_params};
use serde::Serialize;
use serde_json::{Value, json};

use super::database::{Sql, Transaction, sql};
use super::launch::{Lane, Launch};
use super::workflows::CurrentWorkflow;
use super::{ChangeError, Hints, Store, StoreError};

/// What a look at everything that is due came to.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// Whom to wake.
    pub hints: Hints,
    /// Whether another look is worth it at once.
    pub more: bool,
    /// Something that is due cannot be done; everything else was.
    pub trouble: Option<StoreError>,
}

/// What is due.
#[derive(Default)]
struct Due {
    unrouted: bool,
    slots: Vec<(String, i64)>,
    batches: Vec<i64>,
    lanes: Vec<Lane>,
}

/// How many events one transaction routes.
const ROUTE_MAX: i64 = 200;
/// A slot fired later than this counts as missed, and `catch_up` decides.
const MISSED_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM duties WHERE name = 'trigger'",
    postgres: "SELECT name FROM duties WHERE name = 'trigger' FOR UPDATE",
};
const TRY_LOCK: Sql = Sql {
    sqlite: "SELECT name FROM duties WHERE name = 'trigger'",
    postgres: "SELECT name FROM duties WHERE name = 'trigger' FOR UPDATE SKIP LOCKED",
};
const UNROUTED: &str = "SELECT seq, body FROM events WHERE routed = 0 ORDER BY seq LIMIT $1";
const ROUTED: Sql = Sql {
    sqlite: "UPDATE events SET routed = 1 WHERE seq IN (SELECT value FROM json_each($1))",
    postgres: "UPDATE events SET routed = 1
        WHERE seq IN (SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text($1::jsonb))",
};
const DECIDE: Sql = Sql {
    sqlite: "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run)
        SELECT d.value ->> 'event', $2, d.value ->> 'workflow', d.value ->> 'trigger', d.value ->> 'decision',
            d.value ->> 'reason', d.value ->> 'batch', d.value ->> 'run'
        FROM json_each($1) AS d ORDER BY d.key",
    postgres: "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run)
        SELECT d.event, $2, d.workflow, d.trigger, d.decision, d.reason, d.batch, d.run
        FROM jsonb_to_recordset($1::jsonb) AS d (place BIGINT, event BIGINT, workflow TEXT, trigger BIGINT,
            decision TEXT, reason TEXT, batch BIGINT, run BIGINT)
        ORDER BY d.place",
};
const OPEN_BATCH: &str = "SELECT seq, opened_at, event_count FROM batches
    WHERE workflow = $1 AND trigger_index = $2 AND batch_key = $3 AND open = 1";
const INSERT_BATCH: &str = "INSERT INTO batches
    (workflow, trigger_index, batch_key, opened_at, last_at, event_count, due_at, open)
    VALUES ($1, $2, $3, $4, $4, 1, $5, 1) RETURNING seq";
const UPDATE_BATCH: &str = "UPDATE batches SET last_at = $2, event_count = $3, due_at = $4 WHERE seq = $1";
const DUE_BATCHES: &str = "SELECT seq FROM batches WHERE open = 1 AND due_at <= $1 ORDER BY due_at LIMIT 50";
const DUE_BATCH: &str = "SELECT seq, workflow, trigger_index, batch_key, event_count FROM batches
    WHERE seq = $1 AND open = 1 AND due_at <= $2";
const CLOSE_BATCH: &str = "UPDATE batches SET open = 0 WHERE seq = $1";
const BATCH_EDGE: &str = "SELECT e.body FROM events e WHERE e.seq =
    (SELECT CASE WHEN $2 = 0 THEN MIN(d.event) ELSE MAX(d.event) END FROM decisions d WHERE d.batch = $1)";
const DECIDE_BATCH: &str =
    "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run)
    SELECT d.event, $2, d.workflow, d.trigger_index, $3, $4, d.batch, $5 FROM decisions d
    WHERE d.batch = $1 AND d.decision = 'batched' ORDER BY d.seq";
const WAITING_LANES: &str = "SELECT workflow, lane, MIN(lane_limit) AS lane_limit FROM runs
    WHERE state = 'waiting' GROUP BY workflow, lane";
const DUE_SLOTS: &str = "SELECT workflow, trigger_index FROM schedules WHERE next_at <= $1 LIMIT 100";
const DUE_SLOT: &str = "SELECT next_at FROM schedules
    WHERE workflow = $1 AND trigger_index = $2 AND next_at <= $3";
const ANY_UNROUTED: &str = "SELECT seq FROM events WHERE routed = 0 LIMIT 1";
const ANY_DECISION: &str = "SELECT seq FROM decisions WHERE event = $1 LIMIT 1";
const NEXT_SLOT: &str = "UPDATE schedules SET next_at = $3 WHERE workflow = $1 AND trigger_index = $2";
const NEXT_DUE: &str = "SELECT MIN(at) AS at FROM (
    SELECT MIN(due_at) AS at FROM batches WHERE open = 1
    UNION ALL SELECT MIN(next_at) AS at FROM schedules WHERE next_at IS NOT NULL) AS due";

/// The type of a schedule slot's event.
const SCHEDULE_TYPE: &str = "refit.schedule";

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

/// One round: a transaction that holds the `trigger` duty's row, and what it has done so far.
pub(super) struct Round {
    pub(super) store: Store,
    pub(super) tx: Transaction,
    pub(super) now: Timestamp,
    pub(super) hints: Hints,
    /// Runs as they are after the commit, to be kept in memory then.
    pub(super) hot: Vec<(i64, Run)>,
    /// Decisions about single events, in order, that are not written yet: see [`Round::flush`].
    decided: Vec<Value>,
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
        let mut dispatched = Dispatched::default();
        for (workflow, index) in due.slots {
            dispatched.note("fire a schedule slot", self.fire_slot(workflow, index).await)?;
        }
        if due.unrouted {
            match self.route_some(ROUTE_MAX).await {
                // One event that cannot be routed must not hold up the others: find it alone.
                Err(StoreError::Broken(_) | StoreError::Corrupt(_)) => match self.route_some(1).await {
                    Err(StoreError::Broken(reason) | StoreError::Corrupt(reason)) => {
                        self.set_aside(reason).await?;
                        dispatched.more = true;
                    }
                    routed => dispatched.routed(routed?, 1),
                },
                routed => dispatched.routed(routed?, ROUTE_MAX),
            }
        }
        for batch in due.batches {
            dispatched.note("fire a batch", self.fire_due_batch(batch).await)?;
        }
        for lane in due.lanes {
            dispatched.note("start a waiting run", self.admit_waiting(lane).await)?;
        }
        Ok(dispatched)
    }

    async fn due(&self) -> Result<Due, StoreError> {
        self.durably(|store| async move {
            let now = store.clock().now().as_millis();
            let mut tx = store.database().read().await?;
            let mut due = Due { unrouted: tx.first(sql(ANY_UNROUTED)).await?.is_some(), ..Due::default() };
            for row in tx.all(sql(DUE_SLOTS).bind(now)).await? {
                due.slots.push((row.text("workflow")?, row.int("trigger_index")?));
            }
            for row in tx.all(sql(DUE_BATCHES).bind(now)).await? {
                due.batches.push(row.int("seq")?);
            }
            for row in tx.all(sql(WAITING_LANES)).await? {
                let (workflow, lane) = (row.text("workflow")?, row.text("lane")?);
                due.lanes.push(Lane { workflow, lane, limit: row.opt_int("lane_limit")? });
            }
            Ok(due)
        })
        .await
    }

    /// Routes the oldest open events. Returns how many.
    async fn route_some(&self, limit: i64) -> Result<(i64, Hints), StoreError> {
        self.durably(move |store| async move {
            let Some(mut round) = Round::try_begin(store).await? else { return Ok((0, Hints::default())) };
            let current = round.store.current_workflows(&mut round.tx).await?;
            let mut routed = Vec::new();
            for row in round.tx.all(sql(UNROUTED).bind(limit)).await? {
                let event: CloudEvent = row.json("body")?;
                let seq = row.int("seq")?;
                round.route(seq, &event, &current).await?;
                routed.push(seq);
            }
            if !routed.is_empty() {
                round.tx.execute(sql(ROUTED).bind(json!(routed).to_string())).await?;
            }
            Ok((routed.len() as i64, round.commit().await?))
        })
        .await
    }

    /// Writes down that the oldest open event cannot be routed, and goes on.
    async fn set_aside(&self, reason: String) -> Result<(), StoreError> {
        self.durably(move |store| {
            let reason = reason.clone();
            async move {
                let mut round = Round::begin(store).await?;
                if let Some(row) = round.tx.first(sql(UNROUTED).bind(1)).await? {
                    let event = row.int("seq")?;
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

    async fn fire_slot(&self, workflow: String, index: i64) -> Result<Hints, StoreError> {
        self.durably(move |store| {
            let workflow = workflow.clone();
            async move {
                let Some(mut round) = Round::try_begin(store).await? else { return Ok(Hints::default()) };
                round.fire_slot(&workflow, index).await?;
                round.commit().await
            }
        })
        .await
    }

    async fn fire_due_batch(&self, batch: i64) -> Result<Hints, StoreError> {
        self.durably(move |store| async move {
            let Some(mut round) = Round::try_begin(store).await? else { return Ok(Hints::default()) };
            round.fire_batch(batch).await?;
            round.commit().await
        })
        .await
    }

    async fn admit_waiting(&self, lane: Lane) -> Result<Hints, StoreError> {
        self.durably(move |store| {
            let lane = lane.clone();
            async move {
                let Some(mut round) = Round::try_begin(store).await? else { return Ok(Hints::default()) };
                round.admit_waiting(&lane).await?;
                round.commit().await
            }
        })
        .await
    }

    /// When the next batch or slot is due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            Ok(tx.one(sql(NEXT_DUE)).await?.opt_int("at")?.map(Timestamp::from_millis))
        })
        .await
    }
}

impl Round {
    fn new(store: Store, tx: Transaction) -> Self {
        let now = store.clock().now();
        Self { store, tx, now, hints: Hints::default(), hot: Vec::new(), decided: Vec::new() }
    }

    /// Takes the duty; waits for whoever has it.
    pub(super) async fn begin(store: Store) -> Result<Self, StoreError> {
        let mut tx = store.database().begin().await?;
        store.lock_dispatch(&mut tx).await?;
        Ok(Self::new(store, tx))
    }

    /// Takes the duty, if nobody has it: whoever does will see what is due.
    pub(super) async fn try_begin(store: Store) -> Result<Option<Self>, StoreError> {
        let mut tx = store.database().begin().await?;
        let taken = tx.first(sql(TRY_LOCK)).await?;
        Ok(taken.map(|_| Self::new(store, tx)))
    }

    /// Makes everything durable, and then keeps the runs in memory.
    pub(super) async fn commit(mut self) -> Result<Hints, StoreError> {
        self.flush().await?;
        self.tx.commit().await?;
        for (id, run) in self.hot {
            self.store.inner.hot.keep(id, run);
        }
        Ok(self.hints)
    }

    /// Routes one event through every trigger and writes down what became of it.
    async fn route(
        &mut self,
        seq: i64,
        event: &CloudEvent,
        current: &[CurrentWorkflow],
    ) -> Result<(), StoreError> {
        let object = Value::Object(event.attributes().clone());
        let mut decided = false;
        for workflow in current {
            for (index, trigger) in workflow.workflow.triggers.iter().enumerate() {
                let name = workflow.workflow.name.as_str();
                let (decision, reason) = match consider(trigger, name, index, event, &object) {
                    Considered::Unmatched => continue,
                    Considered::Filtered => {
                        ("unmatched", "the pattern matches, `where` does not hold".to_owned())
                    }
                    Considered::FilterError(wrong) => ("filter_error", wrong),
                    Considered::Matched { key } => {
                        self.matched(seq, event, workflow, index, key).await?;
                        decided = true;
                        continue;
                    }
                };
                decided = true;
                let (trigger, reason) = (Some(index), Some(reason.as_str()));
                let decision = Decision { workflow: name, trigger, decision, reason, ..Decision::default() };
                self.decide(seq, &decision);
            }
        }
        // A run that was started by hand was decided about when it was.
        if !decided && self.tx.first(sql(ANY_DECISION).bind(seq)).await?.is_none() {
            let reason = if current.is_empty() { "no workflow is registered" } else { "no trigger matches" };
            let decision = Decision { decision: "unmatched", reason: Some(reason), ..Decision::default() };
            self.decide(seq, &decision);
        }
        Ok(())
    }

    /// Decides about one event; written down with the next [`Round::flush`].
    fn decide(&mut self, event: i64, decision: &Decision<'_>) {
        let mut row = json!(decision);
        row["event"] = json!(event);
        row["place"] = json!(self.decided.len());
        self.decided.push(row);
    }

    /// Writes down what was decided so far: before anything reads decisions, or adds to them in another way.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        let decided = std::mem::take(&mut self.decided);
        if !decided.is_empty() {
            let decide = sql(DECIDE).bind(Value::Array(decided).to_string()).bind(self.now.as_millis());
            self.tx.execute(decide).await?;
        }
        Ok(())
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

    /// A trigger matched: the event joins a batch, or fires at once.
    async fn matched(
        &mut self,
        seq: i64,
        event: &CloudEvent,
        workflow: &CurrentWorkflow,
        index: usize,
        key: String,
    ) -> Result<(), StoreError> {
        let trigger = &workflow.workflow.triggers[index];
        if let Trigger::Event(EventTrigger { batch: Some(rule), .. }) = trigger {
            let name = workflow.workflow.name.as_str();
            let (batch, due) = self.join_batch(name, index, &key, rule).await?;
            let decision = Decision {
                workflow: name,
                trigger: Some(index),
                decision: "batched",
                batch: Some(batch),
                ..Decision::default()
            };
            self.hints.lanes = true;
            self.decide(seq, &decision);
            // At `count` events, not at however many one transaction routes.
            return if due.is_some_and(|due| due <= self.now) {
                self.fire_batch(batch).await
            } else {
                Ok(())
            };
        }
        let object = Value::Object(event.attributes().clone());
        let facts = BatchFacts { key, count: 1, first: object.clone(), last: object };
        let words = match trigger {
            Trigger::Event(_) | Trigger::Join(_) => format!("event {}", event.kind()),
            Trigger::Cron(cron) => {
                let (expression, zone) = cron.schedule.source();
                format!("cron {expression} {zone}")
            }
        };
        self.fire(workflow, index, facts, Origin::Event(seq), words).await
    }

    /// Adds an event to the open batch of a key, or opens one. Returns the batch and when it is due.
    async fn join_batch(
        &mut self,
        workflow: &str,
        index: usize,
        key: &str,
        rule: &BatchRule,
    ) -> Result<(i64, Option<Timestamp>), StoreError> {
        let now = self.now;
        let open = self.tx.first(sql(OPEN_BATCH).bind(workflow).bind(index as i64).bind(key)).await?;
        let Some(row) = open else {
            let due = rule.due_at(&Gathering { opened_at: now, last_at: now, count: 1 });
            let insert = sql(INSERT_BATCH)
                .bind(workflow)
                .bind(index as i64)
                .bind(key)
                .bind(now.as_millis())
                .bind(due.map(Timestamp::as_millis));
            return Ok((self.tx.one(insert).await?.int("seq")?, due));
        };
        let batch = row.int("seq")?;
        let opened_at = Timestamp::from_millis(row.int("opened_at")?);
        let count = row.int("event_count")? + 1;
        let due = rule.due_at(&Gathering { opened_at, last_at: now, count: count.unsigned_abs() });
        let update = sql(UPDATE_BATCH)
            .bind(batch)
            .bind(now.as_millis())
            .bind(count)
            .bind(due.map(Timestamp::as_millis));
        self.tx.execute(update).await?;
        Ok((batch, due))
    }

    /// Creates the run of a trigger that fires; params that cannot be rendered are written down with the events.
    async fn fire(
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
                let launch =
                    Launch { current, trigger_index, trigger: words, params, batch, origin, parent: None };
                self.launch(launch).await.map(|_| ())
            }
            Err(reason) => Err(ChangeError::Invalid(reason)),
        };
        match launched {
            Ok(()) => Ok(()),
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

    /// Fires a batch that is due.
    async fn fire_batch(&mut self, batch: i64) -> Result<(), StoreError> {
        self.flush().await?;
        let due = sql(DUE_BATCH).bind(batch).bind(self.now.as_millis());
        let Some(row) = self.tx.first(due).await? else { return Ok(()) };
        self.tx.execute(sql(CLOSE_BATCH).bind(batch)).await?;
        let index = usize::try_from(row.int("trigger_index")?).unwrap_or(usize::MAX);
        let found = self.store.current_workflow(&mut self.tx, &row.text("workflow")?).await?;
        let Some(workflow) = found.filter(|current| index < current.workflow.triggers.len()) else {
            let reason = Some("the trigger was taken out of the workflow before its batch fired");
            let decision = Decision { decision: "skipped", reason, ..Decision::default() };
            return self.decide_all(Origin::Batch(batch), decision).await;
        };
        let facts = BatchFacts {
            key: row.text("batch_key")?,
            count: row.int("event_count")?.unsigned_abs(),
            first: self.tx.one(sql(BATCH_EDGE).bind(batch).bind(0)).await?.json("body")?,
            last: self.tx.one(sql(BATCH_EDGE).bind(batch).bind(1)).await?.json("body")?,
        };
        let words = match facts.count {
            1 => "a batch of 1 event".to_owned(),
            count => format!("a batch of {count} events"),
        };
        self.fire(&workflow, index, facts, Origin::Batch(batch), words).await
    }

    /// Turns a trigger's due slots into events; the slot's instant is the id, so that a slot is one event for ever.
    async fn fire_slot(&mut self, name: &str, index: i64) -> Result<(), StoreError> {
        let due = sql(DUE_SLOT).bind(name).bind(index).bind(self.now.as_millis());
        let Some(row) = self.tx.first(due).await? else { return Ok(()) };
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let found = self.store.current_workflow(&mut self.tx, name).await?;
        let trigger = found.as_ref().and_then(|current| current.workflow.triggers.get(place));
        let Some(Trigger::Cron(cron)) = trigger else { return Ok(()) };
        let (slots, next) = due_slots(cron, Timestamp::from_millis(row.int("next_at")?), self.now);
        for at in slots {
            let data = json!({ "workflow": name, "trigger": index, "slot": at });
            let source = schedule_source(name, place);
            let event = CloudEvent::new(&at.to_string(), &source, SCHEDULE_TYPE, Some(name), at, data);
            self.store.record_in(&mut self.tx, &event, self.now).await?;
            self.hints.events = true;
        }
        let next = next.map(Timestamp::as_millis);
        self.tx.execute(sql(NEXT_SLOT).bind(name).bind(index).bind(next)).await?;
        Ok(())
    }
}

impl Dispatched {
    fn routed(&mut self, (routed, hints): (i64, Hints), limit: i64) {
        self.hints = self.hints.and(hints);
        self.more |= routed == limit;
    }

    /// Notes what one thing that was due came to; only a database that is away ends the look.
    fn note(&mut self, doing: &str, done: Result<Hints, StoreError>) -> Result<(), StoreError> {
        match done {
            Ok(hints) => self.hints = self.hints.and(hints),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "failed to {doing}");
                self.trouble = Some(error);
            }
        }
        Ok(())
    }
}

/// The slots from `due` to `now` that fire by the trigger's `catch_up`, oldest first, and the next one after `now`.
fn due_slots(cron: &CronTrigger, due: Timestamp, now: Timestamp) -> (Vec<Timestamp>, Option<Timestamp>) {
    let mut slots = std::collections::VecDeque::new();
    let mut slot = Some(due);
    while let Some(at) = slot.filter(|&at| at <= now) {
        slots.push_back(at);
        if slots.len() > CatchUp::ALL_MAX {
            slots.pop_front();
        }
        slot = cron.schedule.next_after(at);
    }
    let fire = match cron.catch_up {
        CatchUp::None => slots.into_iter().filter(|at| now.since(*at) <= MISSED_AFTER).collect(),
        CatchUp::Last => slots.pop_back().into_iter().collect(),
        CatchUp::All => slots.into(),
    };
    (fire, slot)
}

fn consider(
    trigger: &Trigger,
    workflow: &str,
    index: usize,
    event: &CloudEvent,
    object: &Value,
) -> Considered {
    match trigger {
        Trigger::Event(trigger) => trigger.consider(event, object),
        Trigger::Join(_) => Considered::Unmatched,
        Trigger::Cron(_) => {
            if event.kind() == SCHEDULE_TYPE && event.source() == schedule_source(workflow, index) {
                Considered::Matched { key: String::new() }
            } else {
                Considered::Unmatched
            }
        }
    }
}

fn schedule_source(workflow: &str, index: usize) -> String {
    format!("/refit/workflows/{workflow}/schedules/{index}")
}
