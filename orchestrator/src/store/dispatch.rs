//! From events to runs: routes events through triggers, fires batches and schedule slots, creates runs and lets
//! waiting ones start. All of it holds the `trigger` duty's row, so that over any number of orchestrators one event
//! is routed once, one batch fires once, one slot fires once, and a lane never holds more runs than its limit.

use std::sync::Arc;

use refit_workflows::definition::{CatchUp, EventTrigger, OnConflict, Trigger, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Run, RunFacts};
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{BatchFacts, Considered, Gathering, key_text, render_params};
use serde_json::{Map, Value, json};

use super::database::{Sql, Transaction, sql};
use super::intake::Routing;
use super::workflows::CurrentWorkflow;
use super::{ChangeError, Hints, Store, StoreError};

/// What a round of dispatching did.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// Whom to wake.
    pub hints: Hints,
    /// Whether another round is worth it at once.
    pub more: bool,
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
const ROUTED: &str = "UPDATE events SET routed = 1 WHERE seq = $1";
const DECIDE: &str =
    "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const OPEN_BATCH: &str = "SELECT seq, opened_at, event_count FROM batches
    WHERE workflow = $1 AND trigger_index = $2 AND batch_key = $3 AND open = 1";
const INSERT_BATCH: &str = "INSERT INTO batches
    (workflow, trigger_index, batch_key, opened_at, last_at, event_count, due_at, open)
    VALUES ($1, $2, $3, $4, $4, 1, $5, 1) RETURNING seq";
const UPDATE_BATCH: &str = "UPDATE batches SET last_at = $2, event_count = $3, due_at = $4 WHERE seq = $1";
const DUE_BATCHES: &str = "SELECT seq, workflow, trigger_index, batch_key, event_count FROM batches
    WHERE open = 1 AND due_at <= $1 ORDER BY due_at LIMIT 50";
const CLOSE_BATCH: &str = "UPDATE batches SET open = 0 WHERE seq = $1";
const BATCH_EDGE: &str = "SELECT e.body FROM events e WHERE e.seq =
    (SELECT CASE WHEN $2 = 0 THEN MIN(d.event) ELSE MAX(d.event) END FROM decisions d WHERE d.batch = $1)";
const BATCH_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $2, d.event FROM decisions d WHERE d.batch = $1 AND d.decision = 'batched' ORDER BY d.seq
    ON CONFLICT (run, event) DO NOTHING";
const BATCH_RUN: &str = "UPDATE decisions SET run = $2 WHERE batch = $1 AND decision = 'batched'";
const DECIDE_BATCH: &str =
    "INSERT INTO decisions (event, at, workflow, trigger_index, decision, reason, batch, run)
    SELECT d.event, $2, d.workflow, d.trigger_index, $3, $4, d.batch, $5 FROM decisions d
    WHERE d.batch = $1 AND d.decision = 'batched' ORDER BY d.seq";
const RUN_EVENT: &str =
    "INSERT INTO run_events (run, event) VALUES ($1, $2) ON CONFLICT (run, event) DO NOTHING";
const NEXT_NUMBER: &str =
    "UPDATE workflows SET next_number = next_number + 1 WHERE name = $1 RETURNING next_number - 1 AS number";
const LANE: &str = "SELECT COUNT(*) AS runs FROM runs WHERE workflow = $1 AND lane = $2 AND state = $3";
const WAITING_OF_LANE: &str = "SELECT id, workflow, number FROM runs
    WHERE workflow = $1 AND lane = $2 AND state = 'waiting' ORDER BY id";
const INHERIT_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $1, event FROM run_events WHERE run = $2 ON CONFLICT (run, event) DO NOTHING";
const DECIDE_INHERITED: &str = "INSERT INTO decisions (event, at, workflow, decision, reason, run)
    SELECT event, $3, $4, 'coalesced', $5, $1 FROM run_events WHERE run = $2 ORDER BY event";
const FIRST_WAITING: &str = "SELECT MIN(id) AS id FROM runs WHERE state = 'waiting' GROUP BY workflow, lane";
const WAITING: &str = "SELECT workflow, lane, lane_limit, definition FROM runs WHERE id = $1";
const DUE_SLOTS: &str =
    "SELECT workflow, trigger_index, next_at FROM schedules WHERE next_at <= $1 LIMIT 100";
const NEXT_SLOT: &str = "UPDATE schedules SET next_at = $3 WHERE workflow = $1 AND trigger_index = $2";
const NEXT_DUE: &str = "SELECT MIN(at) AS at FROM (
    SELECT MIN(due_at) AS at FROM batches WHERE open = 1
    UNION ALL SELECT MIN(next_at) AS at FROM schedules WHERE next_at IS NOT NULL) AS due";
const RUN_OF_EVENT: &str = "SELECT r.workflow, r.number FROM decisions d JOIN runs r ON r.id = d.run
    WHERE d.event = $1 AND d.workflow = $2 ORDER BY d.seq LIMIT 1";

/// The type of a schedule slot's event.
const SCHEDULE_TYPE: &str = "refit.schedule";

/// Where a new run's events come from.
#[derive(Clone, Copy)]
enum From {
    Event(i64),
    Batch(i64),
}

/// A run to be created.
struct Launch<'a> {
    current: &'a CurrentWorkflow,
    trigger_index: Option<usize>,
    trigger: String,
    params: Map<String, Value>,
    batch: BatchFacts,
    from: From,
}

impl Store {
    /// Takes the duty of creating and admitting runs for this transaction; waits for whoever has it.
    pub(super) async fn lock_dispatch(&self, tx: &mut Transaction) -> Result<(), StoreError> {
        tx.one(sql(LOCK)).await?;
        Ok(())
    }

    /// One round: events, batches, slots and waiting runs, as far as they are due.
    pub async fn dispatch(&self) -> Result<Dispatched, StoreError> {
        match self.dispatch_some(ROUTE_MAX).await {
            // One event that cannot be routed must not hold up the others: find it alone.
            Err(StoreError::Broken(_) | StoreError::Corrupt(_)) => match self.dispatch_some(1).await {
                Err(StoreError::Broken(reason) | StoreError::Corrupt(reason)) => self.set_aside(reason).await,
                done => done,
            },
            done => done,
        }
    }

    async fn dispatch_some(&self, limit: i64) -> Result<Dispatched, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().begin().await?;
            if tx.first(sql(TRY_LOCK)).await?.is_none() {
                return Ok(Dispatched::default());
            }
            let now = store.clock().now();
            let current = store.current_workflows(&mut tx).await?;
            let mut hints = store.fire_slots(&mut tx, &current, now).await?;
            let open = tx.all(sql(UNROUTED).bind(limit)).await?;
            let more = open.len() as i64 == limit;
            for row in &open {
                let event: CloudEvent = row.json("body")?;
                hints = hints.and(store.route(&mut tx, row.int("seq")?, &event, &current, now).await?);
            }
            hints = hints.and(store.fire_batches(&mut tx, &current, now).await?);
            hints = hints.and(store.admit_waiting(&mut tx).await?);
            tx.commit().await?;
            Ok(Dispatched { hints, more })
        })
        .await
    }

    /// Writes down that the oldest open event cannot be routed, and goes on.
    async fn set_aside(&self, reason: String) -> Result<Dispatched, StoreError> {
        self.durably(move |store| {
            let reason = reason.clone();
            async move {
                let mut tx = store.database().begin().await?;
                store.lock_dispatch(&mut tx).await?;
                if let Some(row) = tx.first(sql(UNROUTED).bind(1)).await? {
                    let event = row.int("seq")?;
                    tracing::error!(event, reason, "an event cannot be routed");
                    let reason = format!("could not be routed: {reason}");
                    let decide = sql(DECIDE)
                        .bind(event)
                        .bind(store.clock().now().as_millis())
                        .bind("")
                        .bind(None::<i64>)
                        .bind("filter_error")
                        .bind(reason)
                        .bind(None::<i64>)
                        .bind(None::<i64>);
                    tx.execute(decide).await?;
                    tx.execute(sql(ROUTED).bind(event)).await?;
                }
                tx.commit().await?;
                Ok(Dispatched { more: true, ..Dispatched::default() })
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

    /// Routes one event through every trigger and writes down what became of it.
    async fn route(
        &self,
        tx: &mut Transaction,
        seq: i64,
        event: &CloudEvent,
        current: &[CurrentWorkflow],
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let object = Value::Object(event.attributes().clone());
        let mut hints = Hints::default();
        let mut decided = false;
        for workflow in current {
            for (index, trigger) in workflow.workflow.triggers.iter().enumerate() {
                let considered = consider(trigger, &workflow.workflow.name, index, event, &object);
                let (decision, reason) = match considered {
                    Considered::Unmatched => continue,
                    Considered::Filtered => {
                        ("unmatched", "the pattern matches, `where` does not hold".to_owned())
                    }
                    Considered::FilterError(wrong) => ("filter_error", wrong),
                    Considered::Matched { key } => {
                        hints = hints
                            .and(self.matched(tx, seq, event, workflow, index, trigger, key, now).await?);
                        decided = true;
                        continue;
                    }
                };
                decided = true;
                let name = Some(workflow.workflow.name.as_str());
                self.decide(tx, seq, now, name, Some(index), decision, Some(&reason), None, None).await?;
            }
        }
        if !decided {
            let reason = if current.is_empty() { "no workflow is registered" } else { "no trigger matches" };
            self.decide(tx, seq, now, None, None, "unmatched", Some(reason), None, None).await?;
        }
        tx.execute(sql(ROUTED).bind(seq)).await?;
        Ok(hints)
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, in order")]
    async fn decide(
        &self,
        tx: &mut Transaction,
        event: i64,
        now: Timestamp,
        workflow: Option<&str>,
        trigger: Option<usize>,
        decision: &'static str,
        reason: Option<&str>,
        batch: Option<i64>,
        run: Option<i64>,
    ) -> Result<(), StoreError> {
        tx.execute(
            sql(DECIDE)
                .bind(event)
                .bind(now.as_millis())
                .bind(workflow.unwrap_or_default())
                .bind(trigger.map(|index| index as i64))
                .bind(decision)
                .bind(reason)
                .bind(batch)
                .bind(run),
        )
        .await?;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what matched, and what it matched")]
    async fn matched(
        &self,
        tx: &mut Transaction,
        seq: i64,
        event: &CloudEvent,
        workflow: &CurrentWorkflow,
        index: usize,
        trigger: &Trigger,
        key: String,
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        if let Trigger::Event(EventTrigger { batch: Some(rule), .. }) = trigger {
            let name = &workflow.workflow.name;
            let open = tx.first(sql(OPEN_BATCH).bind(name).bind(index as i64).bind(key.as_str())).await?;
            let batch = match open {
                Some(row) => {
                    let batch = row.int("seq")?;
                    let opened_at = Timestamp::from_millis(row.int("opened_at")?);
                    let count = row.int("event_count")? + 1;
                    let gathering = Gathering { opened_at, last_at: now, count: count.unsigned_abs() };
                    let due = rule.due_at(&gathering).map(Timestamp::as_millis);
                    let update = sql(UPDATE_BATCH).bind(batch).bind(now.as_millis()).bind(count).bind(due);
                    tx.execute(update).await?;
                    batch
                }
                None => {
                    let due = rule.due_at(&Gathering { opened_at: now, last_at: now, count: 1 });
                    let insert = sql(INSERT_BATCH)
                        .bind(name)
                        .bind(index as i64)
                        .bind(key)
                        .bind(now.as_millis())
                        .bind(due.map(Timestamp::as_millis));
                    tx.one(insert).await?.int("seq")?
                }
            };
            let name = Some(name.as_str());
            self.decide(tx, seq, now, name, Some(index), "batched", None, Some(batch), None).await?;
            return Ok(Hints { lanes: true, ..Hints::default() });
        }
        let object = Value::Object(event.attributes().clone());
        let facts = BatchFacts { key, count: 1, first: object.clone(), last: object };
        let words = match trigger {
            Trigger::Event(_) => format!("event {}", event.kind()),
            Trigger::Cron(cron) => {
                let (expression, zone) = cron.schedule.source();
                format!("cron {expression} {zone}")
            }
        };
        self.fire(tx, workflow, index, trigger, facts, From::Event(seq), words, now).await
    }

    /// Creates the run of a trigger that fires; params that cannot be rendered are written down with the events.
    #[expect(clippy::too_many_arguments, reason = "what fires, and why")]
    async fn fire(
        &self,
        tx: &mut Transaction,
        workflow: &CurrentWorkflow,
        index: usize,
        trigger: &Trigger,
        batch: BatchFacts,
        from: From,
        words: String,
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let templates = match trigger {
            Trigger::Event(trigger) => &trigger.params,
            Trigger::Cron(trigger) => &trigger.params,
        };
        let params =
            render_params(templates, &batch).and_then(|params| workflow.workflow.resolve_params(&params));
        let launch = match params {
            Ok(params) => {
                Launch { current: workflow, trigger_index: Some(index), trigger: words, params, batch, from }
            }
            Err(reason) => {
                self.decide_all(tx, from, workflow, Some(index), "filter_error", Some(&reason), None, now)
                    .await?;
                return Ok(Hints::default());
            }
        };
        match self.launch(tx, launch, now).await {
            Ok((_, hints)) => Ok(hints),
            Err(ChangeError::Store(error)) => Err(error),
            Err(other) => {
                let reason = other.to_string();
                self.decide_all(tx, from, workflow, Some(index), "filter_error", Some(&reason), None, now)
                    .await?;
                Ok(Hints::default())
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, in order")]
    async fn decide_all(
        &self,
        tx: &mut Transaction,
        from: From,
        workflow: &CurrentWorkflow,
        index: Option<usize>,
        decision: &'static str,
        reason: Option<&str>,
        run: Option<i64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match from {
            From::Event(event) => {
                let name = Some(workflow.workflow.name.as_str());
                self.decide(tx, event, now, name, index, decision, reason, None, run).await
            }
            From::Batch(batch) => {
                let decide =
                    sql(DECIDE_BATCH).bind(batch).bind(now.as_millis()).bind(decision).bind(reason).bind(run);
                tx.execute(decide).await.map(|_| ())
            }
        }
    }

    /// Creates a run: it starts at once, waits in its lane, or takes over the events of the run that waits there.
    async fn launch(
        &self,
        tx: &mut Transaction,
        launch: Launch<'_>,
        now: Timestamp,
    ) -> Result<(RunName, Hints), ChangeError> {
        let workflow = &launch.current.workflow;
        let concurrency = &workflow.concurrency;
        let lane = lane_of(workflow, &launch.params, &launch.batch).map_err(ChangeError::Invalid)?;
        let lane_limit = (concurrency.on_conflict != OnConflict::Parallel).then_some(concurrency.limit);
        let number = tx.one(sql(NEXT_NUMBER).bind(&workflow.name)).await?.int("number")?;
        let waiting = tx.all(sql(WAITING_OF_LANE).bind(&workflow.name).bind(lane.as_str())).await?;
        let running =
            tx.one(sql(LANE).bind(&workflow.name).bind(lane.as_str()).bind("running")).await?.int("runs")?;
        let room = lane_limit.is_none_or(|limit| running < i64::from(limit) && waiting.is_empty());
        let name = RunName::new(&workflow.name, number);
        let mut facts = RunFacts {
            name: name.clone(),
            definition: launch.current.digest.clone(),
            bundle: launch.current.bundle.clone(),
            trigger: launch.trigger.clone(),
            params: launch.params.clone(),
            batch: launch.batch.clone(),
            lane,
            coalesced: Vec::new(),
            created_at: now,
        };
        let replaced =
            if room || concurrency.on_conflict != OnConflict::Coalesce { Vec::new() } else { waiting };
        let mut replaced_ids = Vec::new();
        for row in &replaced {
            let old = RunName::new(row.text("workflow")?, row.int("number")?);
            let (id, run) = self.load_run_in(tx, &old).await?;
            inherit(&mut facts, run.facts());
            replaced_ids.push((id, old));
        }
        let run = Run::create(Arc::clone(workflow), facts);
        let id = self.insert_run(tx, &run, lane_limit).await?;
        match launch.from {
            From::Event(event) => tx.execute(sql(RUN_EVENT).bind(id).bind(event)).await?,
            From::Batch(batch) => tx.execute(sql(BATCH_EVENTS).bind(batch).bind(id)).await?,
        };
        let mut hints = Hints { runs: true, ..Hints::default() };
        for (old_id, old) in &replaced_ids {
            tx.execute(sql(INHERIT_EVENTS).bind(id).bind(*old_id)).await?;
            let reason = format!("{old} was waiting and its events went into {name}");
            let decide = sql(DECIDE_INHERITED)
                .bind(id)
                .bind(*old_id)
                .bind(now.as_millis())
                .bind(&workflow.name)
                .bind(reason);
            tx.execute(decide).await?;
            let into = name.clone();
            let coalesce =
                move |_: &Run, done: usize| Ok((done == 0).then(|| Input::Coalesced { into: into.clone() }));
            hints = hints.and(self.change_in(tx, *old_id, &coalesce).await?.hints);
        }
        let (decision, reason) = if room {
            ("started", None)
        } else if !replaced_ids.is_empty() {
            (
                "coalesced",
                Some(format!(
                    "{running} of {} running: waits with the events of the run it replaced",
                    concurrency.limit
                )),
            )
        } else {
            ("queued", Some(format!("{running} of {} running: waits for its turn", concurrency.limit)))
        };
        if let From::Batch(batch) = launch.from {
            tx.execute(sql(BATCH_RUN).bind(batch).bind(id)).await?;
        }
        let index = launch.trigger_index;
        self.decide_all(tx, launch.from, launch.current, index, decision, reason.as_deref(), Some(id), now)
            .await?;
        if room {
            hints = hints.and(self.admit(tx, id).await?);
        }
        Ok((name, hints))
    }

    /// Starts a waiting run with the champion as it is now.
    async fn admit(&self, tx: &mut Transaction, id: i64) -> Result<Hints, ChangeError> {
        let row = tx.one(sql(WAITING).bind(id)).await?;
        let definition = row.parsed("definition")?;
        let workflow = self.definition(tx, &definition).await?;
        let champion = match &workflow.model {
            Some(model) => self.champion_in(tx, model, workflow.champion_alias()).await?,
            None => None,
        };
        let admit = move |_: &Run, done: usize| {
            Ok((done == 0).then(|| Input::Admitted { champion: champion.clone() }))
        };
        Ok(self.change_in(tx, id, &admit).await?.hints)
    }

    /// Starts the waiting runs whose lanes have room, oldest first in each.
    async fn admit_waiting(&self, tx: &mut Transaction) -> Result<Hints, StoreError> {
        let mut hints = Hints::default();
        for row in tx.all(sql(FIRST_WAITING)).await? {
            let row = tx.one(sql(WAITING).bind(row.int("id")?)).await?;
            let (workflow, lane) = (row.text("workflow")?, row.text("lane")?);
            let limit = row.opt_int("lane_limit")?;
            let running = tx.one(sql(LANE).bind(&workflow).bind(&lane).bind("running")).await?.int("runs")?;
            let room = limit.map_or(i64::MAX, |limit| (limit - running).max(0));
            let waiting = tx.all(sql(WAITING_OF_LANE).bind(&workflow).bind(&lane)).await?;
            for row in waiting.iter().take(usize::try_from(room).unwrap_or(usize::MAX)) {
                match self.admit(tx, row.int("id")?).await {
                    Ok(more) => hints = hints.and(more),
                    Err(ChangeError::Store(error)) => return Err(error),
                    Err(other) => tracing::error!(error = %other, "a waiting run cannot start"),
                }
            }
        }
        Ok(hints)
    }

    async fn fire_batches(
        &self,
        tx: &mut Transaction,
        current: &[CurrentWorkflow],
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let mut hints = Hints::default();
        for row in tx.all(sql(DUE_BATCHES).bind(now.as_millis())).await? {
            let batch = row.int("seq")?;
            tx.execute(sql(CLOSE_BATCH).bind(batch)).await?;
            let index = usize::try_from(row.int("trigger_index")?).unwrap_or(usize::MAX);
            let name = row.text("workflow")?;
            let found = current.iter().find(|current| current.workflow.name == name).and_then(|workflow| {
                workflow.workflow.triggers.get(index).map(|trigger| (workflow, trigger))
            });
            let Some((workflow, trigger)) = found else {
                let reason = "the trigger was taken out of the workflow before its batch fired";
                let decide = sql(DECIDE_BATCH)
                    .bind(batch)
                    .bind(now.as_millis())
                    .bind("skipped")
                    .bind(reason)
                    .bind(None::<i64>);
                tx.execute(decide).await?;
                continue;
            };
            let facts = BatchFacts {
                key: row.text("batch_key")?,
                count: row.int("event_count")?.unsigned_abs(),
                first: tx.one(sql(BATCH_EDGE).bind(batch).bind(0)).await?.json("body")?,
                last: tx.one(sql(BATCH_EDGE).bind(batch).bind(1)).await?.json("body")?,
            };
            let words = match facts.count {
                1 => "a batch of 1 event".to_owned(),
                count => format!("a batch of {count} events"),
            };
            let from = From::Batch(batch);
            hints = hints.and(self.fire(tx, workflow, index, trigger, facts, from, words, now).await?);
        }
        Ok(hints)
    }

    /// Turns due schedule slots into events; the slot's instant is the id, so that a slot is one event for ever.
    async fn fire_slots(
        &self,
        tx: &mut Transaction,
        current: &[CurrentWorkflow],
        now: Timestamp,
    ) -> Result<Hints, StoreError> {
        let mut hints = Hints::default();
        for row in tx.all(sql(DUE_SLOTS).bind(now.as_millis())).await? {
            let (name, index) = (row.text("workflow")?, row.int("trigger_index")?);
            let due = Timestamp::from_millis(row.int("next_at")?);
            let trigger = current.iter().find(|current| current.workflow.name == name).and_then(|current| {
                current.workflow.triggers.get(usize::try_from(index).unwrap_or(usize::MAX))
            });
            let Some(Trigger::Cron(cron)) = trigger else { continue };
            let mut slots = Vec::new();
            let mut slot = Some(due);
            while let Some(at) = slot.filter(|&at| at <= now) {
                slots.push(at);
                if slots.len() > CatchUp::ALL_MAX {
                    slots.remove(0);
                }
                slot = cron.schedule.next_after(at);
            }
            let on_time = |at: &Timestamp| now.since(*at) <= MISSED_AFTER;
            let fire: Vec<Timestamp> = match cron.catch_up {
                CatchUp::None => slots.into_iter().filter(on_time).collect(),
                CatchUp::Last => slots.last().copied().into_iter().collect(),
                CatchUp::All => slots,
            };
            for at in fire {
                let data = json!({ "workflow": name, "trigger": index, "slot": at });
                let source = schedule_source(&name, usize::try_from(index).unwrap_or_default());
                let event = CloudEvent::new(&at.to_string(), &source, SCHEDULE_TYPE, Some(&name), at, data);
                self.record_in(tx, &event, Routing::Open, now).await?;
                hints.events = true;
            }
            let next = slot.map(Timestamp::as_millis);
            tx.execute(sql(NEXT_SLOT).bind(name).bind(index).bind(next)).await?;
        }
        Ok(hints)
    }

    /// Starts a run by hand. `event` is what happened: recorded, and routed to other workflows like any event. The
    /// same event again gives the same run.
    pub async fn start_run(
        &self,
        workflow: &str,
        params: Map<String, Value>,
        event: CloudEvent,
        words: &str,
    ) -> Result<(RunName, Hints), ChangeError> {
        let (workflow, words) = (workflow.to_owned(), words.to_owned());
        self.durably(move |store| {
            let (workflow, params, event, words) =
                (workflow.clone(), params.clone(), event.clone(), words.clone());
            async move {
                let now = store.clock().now();
                let mut tx = store.database().begin().await?;
                store.lock_dispatch(&mut tx).await?;
                let Some(current) = store.current_workflow(&mut tx, &workflow).await? else {
                    return Err(ChangeError::NoSuchRun(workflow));
                };
                let (seq, known) = store.record_in(&mut tx, &event, Routing::Done, now).await?;
                if known {
                    let row = tx.first(sql(RUN_OF_EVENT).bind(seq).bind(&workflow)).await?;
                    let row = row.ok_or_else(|| {
                        ChangeError::Invalid(format!("the id {} was used for something else", event.id()))
                    })?;
                    return Ok((RunName::new(row.text("workflow")?, row.int("number")?), Hints::default()));
                }
                let params = current.workflow.resolve_params(&params).map_err(ChangeError::Invalid)?;
                let object = Value::Object(event.attributes().clone());
                let batch = BatchFacts { key: String::new(), count: 1, first: object.clone(), last: object };
                let launch = Launch {
                    current: &current,
                    trigger_index: None,
                    trigger: words,
                    params,
                    batch,
                    from: From::Event(seq),
                };
                let (run, hints) = store.launch(&mut tx, launch, now).await?;
                tx.commit().await?;
                Ok((run, hints))
            }
        })
        .await
    }
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

/// The value of `concurrency.key`.
fn lane_of(workflow: &Workflow, params: &Map<String, Value>, batch: &BatchFacts) -> Result<String, String> {
    let Some(key) = &workflow.concurrency.key else { return Ok(String::new()) };
    let mut scope = refit_workflows::expression::Scope::default();
    scope.roots.insert("params".to_owned(), Value::Object(params.clone()));
    scope.roots.insert("batch".to_owned(), batch.to_value());
    key.evaluate(&scope)
        .map_err(|wrong| wrong.to_string())
        .and_then(key_text)
        .map_err(|wrong| format!("concurrency.key `{}`: {wrong}", key.source()))
}

/// A run takes over what an older one stood for.
fn inherit(facts: &mut RunFacts, old: &RunFacts) {
    facts.batch.count += old.batch.count;
    facts.batch.first = old.batch.first.clone();
    facts.coalesced.extend(old.coalesced.iter().cloned());
    facts.coalesced.push(old.name.clone());
}
