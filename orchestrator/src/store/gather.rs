//! Batches and joins: events that wait together until their trigger fires. When that is, and what it comes to, is
//! decided by `workflows::trigger`; here is what is open. A round keeps what it has looked at and writes each
//! gathering once, however many events joined it. Must never happen here: an event that is in no gathering any more and
//! has no decision that says what became of it.

use std::collections::HashMap;

use refit_workflows::definition::Workflow;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Arrival, BatchFacts, Ending, Gathering, trigger_ids};
use serde_json::json;

use super::database::{Row, Sql, sql};
use super::dispatch::{Decision, Origin, Round};
use super::workflows::CurrentWorkflow;
use super::{StoreError, to_json};

/// What was gathered by a trigger that is in its workflow no more.
const ORPHANED: &str = "the trigger was taken out of the workflow before it fired";

const OPEN_BATCH: &str = "SELECT seq, due_at, body FROM batches
    WHERE workflow = $1 AND trigger_id = $2 AND batch_key = $3 AND open = 1";
const OPEN_BATCHES: &str =
    "SELECT seq, trigger_id, due_at, body FROM batches WHERE workflow = $1 AND open = 1";
const INSERT_BATCH: &str = "INSERT INTO batches (workflow, trigger_id, batch_key, due_at, open, body)
    VALUES ($1, $2, $3, $4, 1, $5) RETURNING seq";
const UPDATE_BATCHES: Sql = Sql {
    sqlite: "UPDATE batches SET due_at = b.value ->> 'due', body = b.value ->> 'body'
        FROM json_each($1) AS b WHERE batches.seq = b.value ->> 'seq'",
    postgres:
        "UPDATE batches SET due_at = b.due, body = b.body
        FROM jsonb_to_recordset($1::jsonb) AS b (seq BIGINT, due BIGINT, body TEXT) WHERE batches.seq = b.seq",
};
const DUE_BATCH: &str = "SELECT seq, workflow, trigger_id, batch_key, due_at, body FROM batches
    WHERE seq = $1 AND open = 1 AND due_at <= $2";
/// Of those that came together, not always the first in the log is the oldest.
const OLDEST_UNROUTED: &str = "SELECT MIN(received_at) AS oldest FROM events WHERE routed = 0";
const HOLD_BATCHES: &str =
    "UPDATE batches SET due_at = NULL WHERE workflow = $1 AND open = 1 AND due_at > $2";
const CLOSE_BATCH: &str = "UPDATE batches SET open = 0, body = $2 WHERE seq = $1";
const HOLDS: &str = "SELECT seq FROM decisions
    WHERE event = $1 AND batch = $2 AND decision IN ('batched', 'joined') LIMIT 1";
const BATCH_EDGE: &str = "SELECT e.body FROM events e WHERE e.seq =
    (SELECT CASE WHEN $2 = 0 THEN MIN(d.event) ELSE MAX(d.event) END FROM decisions d WHERE d.batch = $1)";

/// The gatherings a round has looked at; none where it found none open.
#[derive(Default)]
pub(super) struct Gatherings(HashMap<GatheringKey, Option<Open>>);

/// Workflow, trigger id and key.
type GatheringKey = (String, String, String);

struct Open {
    seq: i64,
    gathering: Gathering,
    due: Option<Timestamp>,
    /// Since when its workflow is paused.
    paused: Option<Timestamp>,
    changed: bool,
}

impl Open {
    fn is_over(&self, at: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= at)
    }

    fn due_kept(&self) -> Option<Timestamp> {
        unless_held(self.due, self.paused)
    }
}

impl Round {
    /// An event received at `at` joins what its trigger gathers for this key, or opens a gathering; whichever is
    /// complete by that ends at once.
    pub(super) async fn gather(
        &mut self,
        event: i64,
        at: Timestamp,
        current: &CurrentWorkflow,
        (index, id): (usize, String),
        arrival: &Arrival,
    ) -> Result<(), StoreError> {
        let trigger = &current.workflow.triggers[index];
        let paused = current.paused.as_ref().map(|paused| paused.at);
        let key = (current.workflow.name.clone(), id, arrival.key.clone());
        let mut open = match self.gatherings.0.remove(&key) {
            Some(known) => known,
            None => self.open_gathering(&key).await?,
        };
        // It was over before this event came, and nobody had looked yet.
        if let Some(over) = open.take_if(|open| open.is_over(at)) {
            self.end(current, index, &key.2, over).await?;
        }
        // A batch counts each of its events once.
        if let (Some(_), Some(waiting)) = (self.replay, &open)
            && self.tx.first(sql(HOLDS).bind(event).bind(waiting.seq)).await?.is_some()
        {
            let reason = Some("it waits in this batch already");
            let workflow = current.workflow.name.as_str();
            let trigger = Some(index);
            let decision = Decision { workflow, trigger, decision: "skipped", reason, ..Decision::default() };
            self.decide(event, &decision);
            self.gatherings.0.insert(key, open);
            return Ok(());
        }
        let (open, part) = match open {
            Some(mut open) => {
                let part = open.gathering.take(arrival, at);
                open.due = trigger.due_at(&open.gathering);
                (Open { changed: true, paused, ..open }, part)
            }
            None => {
                let gathering = Gathering::open(arrival, at);
                let due = trigger.due_at(&gathering);
                let insert = sql(INSERT_BATCH)
                    .bind(&key.0)
                    .bind(&key.1)
                    .bind(&key.2)
                    .bind(unless_held(due, paused).map(Timestamp::as_millis))
                    .bind(to_json(&gathering)?);
                let seq = self.tx.one(insert).await?.int("seq")?;
                let part = gathering.filled.first().copied();
                (Open { seq, gathering, due, paused, changed: false }, part)
            }
        };
        let words = trigger.taken_words(&open.gathering, part);
        let decision = Decision {
            workflow: &current.workflow.name,
            trigger: Some(index),
            decision: if words.is_some() { "joined" } else { "batched" },
            reason: words.as_deref(),
            batch: Some(open.seq),
            ..Decision::default()
        };
        self.decide(event, &decision);
        self.hints.lanes = true;
        // At `count` events, not at however many one transaction routes.
        let open = if open.is_over(at) {
            self.end(current, index, &key.2, open).await?;
            None
        } else {
            Some(open)
        };
        self.gatherings.0.insert(key, open);
        Ok(())
    }

    async fn open_gathering(&mut self, key: &GatheringKey) -> Result<Option<Open>, StoreError> {
        let find = sql(OPEN_BATCH).bind(&key.0).bind(&key.1).bind(&key.2);
        let Some(row) = self.tx.first(find).await? else { return Ok(None) };
        let (seq, gathering, due) = (row.int("seq")?, row.json("body")?, due_of(&row)?);
        Ok(Some(Open { seq, gathering, due, paused: None, changed: false }))
    }

    /// Writes down what the gatherings have become.
    pub(super) async fn write_gatherings(&mut self) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for open in self.gatherings.0.values().flatten().filter(|open| open.changed) {
            rows.push(row(open.seq, open.due_kept(), &open.gathering)?);
        }
        self.update(rows).await
    }

    async fn update(&mut self, rows: Vec<serde_json::Value>) -> Result<(), StoreError> {
        if !rows.is_empty() {
            self.tx.execute(sql(UPDATE_BATCHES).bind(json!(rows).to_string())).await?;
        }
        Ok(())
    }

    /// When the first of those events was received that are still to be routed.
    pub(super) async fn oldest_unrouted(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let oldest = self.tx.one(sql(OLDEST_UNROUTED)).await?.opt_int("oldest")?;
        Ok(oldest.map(Timestamp::from_millis))
    }

    /// Ends a gathering that was due when everything received until then could be seen, unless events that came before it
    /// was due are still to be routed: they may belong to it.
    pub(super) async fn end_due(&mut self, batch: i64, seen_until: Timestamp) -> Result<(), StoreError> {
        let due = sql(DUE_BATCH).bind(batch).bind(seen_until.as_millis());
        let Some(row) = self.tx.first(due).await? else { return Ok(()) };
        let due = row.int("due_at")?;
        if self.oldest_unrouted().await?.is_some_and(|oldest| oldest.as_millis() < due) {
            return Ok(());
        }
        let (id, gathering) = (row.text("trigger_id")?, row.json("body")?);
        let found = self.store.current_workflow(&mut self.tx, &row.text("workflow")?).await?;
        let found = found.and_then(|current| {
            let index = trigger_ids(&current.workflow).iter().position(|known| *known == id)?;
            Some((current, index))
        });
        let Some((current, index)) = found else {
            return self.drop_gathering(batch, &gathering, ORPHANED).await;
        };
        let open = Open { seq: batch, gathering, due: None, paused: None, changed: false };
        self.end(&current, index, &row.text("batch_key")?, open).await
    }

    /// Ends a gathering: its trigger fires, or its events are told that they start nothing.
    async fn end(
        &mut self,
        current: &CurrentWorkflow,
        index: usize,
        key: &str,
        open: Open,
    ) -> Result<(), StoreError> {
        self.flush().await?;
        let (batch, gathering) = (open.seq, open.gathering);
        self.tx.execute(sql(CLOSE_BATCH).bind(batch).bind(to_json(&gathering)?)).await?;
        let words = match current.workflow.triggers[index].ending(&gathering) {
            Ending::Fires(words) => words,
            Ending::Expires(reason) => {
                let reason = Some(reason.as_str());
                let decision = Decision { decision: "skipped", reason, ..Decision::default() };
                return self.decide_all(Origin::Batch(batch), decision).await;
            }
        };
        let facts = BatchFacts {
            key: key.to_owned(),
            count: gathering.count,
            sum: gathering.sum,
            first: self.tx.one(sql(BATCH_EDGE).bind(batch).bind(0)).await?.json("body")?,
            last: self.tx.one(sql(BATCH_EDGE).bind(batch).bind(1)).await?.json("body")?,
        };
        self.fire(current, index, facts, Origin::Batch(batch), words).await
    }

    /// After a workflow was changed or resumed: what its triggers have gathered is due by their rules as they are now,
    /// and what was gathered by a trigger that is gone starts nothing. While it is paused, what is held stays so.
    pub(super) async fn keep_gatherings(
        &mut self,
        workflow: &Workflow,
        paused: bool,
    ) -> Result<(), StoreError> {
        let ids = trigger_ids(workflow);
        let mut rows = Vec::new();
        for found in self.tx.all(sql(OPEN_BATCHES).bind(&workflow.name)).await? {
            let (seq, gathering): (i64, Gathering) = (found.int("seq")?, found.json("body")?);
            let id = found.text("trigger_id")?;
            match ids.iter().position(|known| *known == id) {
                Some(_) if paused => {}
                Some(index) => {
                    let due = workflow.triggers[index].due_at(&gathering);
                    if due != due_of(&found)? {
                        rows.push(row(seq, due, &gathering)?);
                    }
                }
                None => self.drop_gathering(seq, &gathering, ORPHANED).await?,
            }
        }
        self.update(rows).await
    }

    /// A workflow was paused just now: what is not due yet waits until it is resumed.
    pub(super) async fn hold_gatherings(&mut self, workflow: &str) -> Result<(), StoreError> {
        self.tx.execute(sql(HOLD_BATCHES).bind(workflow).bind(self.now.as_millis())).await?;
        Ok(())
    }

    /// Ends everything a workflow gathers, for this reason.
    pub(super) async fn drop_gatherings(&mut self, workflow: &str, reason: &str) -> Result<u64, StoreError> {
        let mut events = 0;
        for found in self.tx.all(sql(OPEN_BATCHES).bind(workflow)).await? {
            let gathering: Gathering = found.json("body")?;
            self.drop_gathering(found.int("seq")?, &gathering, reason).await?;
            events += gathering.count;
        }
        Ok(events)
    }

    async fn drop_gathering(
        &mut self,
        batch: i64,
        gathering: &Gathering,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.tx.execute(sql(CLOSE_BATCH).bind(batch).bind(to_json(gathering)?)).await?;
        let decision = Decision { decision: "skipped", reason: Some(reason), ..Decision::default() };
        self.decide_all(Origin::Batch(batch), decision).await
    }
}

/// When a gathering is due, unless that comes after its workflow was paused: then it is held.
fn unless_held(due: Option<Timestamp>, paused: Option<Timestamp>) -> Option<Timestamp> {
    due.filter(|due| paused.is_none_or(|paused| *due <= paused))
}

fn due_of(row: &Row) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.opt_int("due_at")?.map(Timestamp::from_millis))
}

fn row(seq: i64, due: Option<Timestamp>, gathering: &Gathering) -> Result<serde_json::Value, StoreError> {
    Ok(json!({ "seq": seq, "due": due.map(Timestamp::as_millis), "body": to_json(gathering)? }))
}
