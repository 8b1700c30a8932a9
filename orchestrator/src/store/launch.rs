//! From a trigger that fires to a run that starts: creates runs, lets them wait in their lane or take over the events
//! of the run that waits there, and starts waiting ones when there is room. Holds the `trigger` duty's row, so that a
//! lane never holds more runs than its limit. Everything that can be refused comes before the first write.

use std::sync::Arc;

use refit_workflows::definition::{OnConflict, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Parent, Run, RunFacts, RunState};
use refit_workflows::trigger::{BatchFacts, key_text};
use serde_json::{Map, Value};

use super::database::sql;
use super::dispatch::{Decision, Origin, Round};
use super::workflows::CurrentWorkflow;
use super::{ChangeError, Hints, Store, StoreError};

const BATCH_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $2, d.event FROM decisions d WHERE d.batch = $1 AND d.decision = 'batched' ORDER BY d.seq
    ON CONFLICT (run, event) DO NOTHING";
const BATCH_RUN: &str = "UPDATE decisions SET run = $2 WHERE batch = $1 AND decision = 'batched'";
const RUN_EVENT: &str =
    "INSERT INTO run_events (run, event) VALUES ($1, $2) ON CONFLICT (run, event) DO NOTHING";
const NEXT_NUMBER: &str =
    "UPDATE workflows SET next_number = next_number + 1 WHERE name = $1 RETURNING next_number - 1 AS number";
const RUNNING_IN_LANE: &str =
    "SELECT COUNT(*) AS runs FROM runs WHERE workflow = $1 AND lane = $2 AND state = 'running'";
const WAITING_OF_LANE: &str = "SELECT id FROM runs
    WHERE workflow = $1 AND lane = $2 AND state = 'waiting' ORDER BY id LIMIT $3";
const INHERIT_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $1, event FROM run_events WHERE run = $2 ON CONFLICT (run, event) DO NOTHING";
const DECIDE_INHERITED: &str = "INSERT INTO decisions (event, at, workflow, decision, reason, run)
    SELECT event, $3, $4, 'coalesced', $5, $1 FROM run_events WHERE run = $2 ORDER BY event";
const RUN_OF_EVENT: &str = "SELECT r.workflow, r.number FROM decisions d JOIN runs r ON r.id = d.run
    WHERE d.event = $1 AND d.workflow = $2 ORDER BY d.seq LIMIT 1";

/// The most waiting runs of a lane that one transaction starts.
const ADMIT_MAX: i64 = 100;

/// A run to be created.
pub(super) struct Launch {
    pub(super) current: CurrentWorkflow,
    pub(super) trigger_index: Option<usize>,
    pub(super) trigger: String,
    pub(super) params: Map<String, Value>,
    pub(super) batch: BatchFacts,
    pub(super) origin: Origin,
    /// The step of another run that asked for it.
    pub(super) parent: Option<Parent>,
}

/// Runs of a workflow that share a limit, some of them waiting.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) workflow: String,
    pub(super) lane: String,
    pub(super) limit: Option<i64>,
}

impl Store {
    /// Starts a run by hand. `event` is what happened: recorded like any event. The same event again gives the same
    /// run.
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
                let mut round = Round::begin(store.clone()).await?;
                let Some(current) = store.current_workflow(&mut round.tx, &workflow).await? else {
                    return Err(ChangeError::NotFound(format!("workflow {workflow}")));
                };
                let (seq, known) = store.record_in(&mut round.tx, &event, round.now).await?;
                if known {
                    let row = round.tx.first(sql(RUN_OF_EVENT).bind(seq).bind(&workflow)).await?;
                    let row = row.ok_or_else(|| {
                        ChangeError::Invalid(format!("the id {} was used for something else", event.id()))
                    })?;
                    return Ok((RunName::new(row.text("workflow")?, row.int("number")?), Hints::default()));
                }
                let params = current.workflow.resolve_params(&params).map_err(ChangeError::Invalid)?;
                let object = Value::Object(event.attributes().clone());
                let batch = BatchFacts { key: String::new(), count: 1, first: object.clone(), last: object };
                let origin = Origin::Event(seq);
                let trigger = words;
                let launch =
                    Launch { current, trigger_index: None, trigger, params, batch, origin, parent: None };
                let run = round.launch(launch).await?;
                Ok((run, round.commit().await?))
            }
        })
        .await
    }
}

impl Round {
    /// Creates a run: it starts at once, waits in its lane, or takes over the events of the run that waits there.
    pub(super) async fn launch(&mut self, launch: Launch) -> Result<RunName, ChangeError> {
        let workflow = Arc::clone(&launch.current.workflow);
        let concurrency = &workflow.concurrency;
        // Everything that can be refused comes before the first write.
        let lane = lane_of(&workflow, &launch.params, &launch.batch).map_err(ChangeError::Invalid)?;
        let lane_limit = (concurrency.on_conflict != OnConflict::Parallel).then_some(concurrency.limit);
        let (mut running, mut waiting) = (0, Vec::new());
        if lane_limit.is_some() {
            running = self.running_in(&workflow.name, &lane).await?;
            waiting = self.waiting_in(&workflow.name, &lane, ADMIT_MAX).await?;
        }
        let mut replaced = Vec::new();
        if concurrency.on_conflict == OnConflict::Coalesce {
            for id in std::mem::take(&mut waiting) {
                // Locked, so that nobody cancels it meanwhile.
                let run = self.store.lock_run_in(&mut self.tx, id).await?;
                if matches!(run.head().state, RunState::Waiting { .. }) {
                    replaced.push((id, run));
                }
            }
        }
        let in_front = waiting.len() + replaced.len();
        let room = lane_limit.is_none_or(|limit| running < i64::from(limit) && in_front == 0);
        let number = self.tx.one(sql(NEXT_NUMBER).bind(&workflow.name)).await?.int("number")?;
        let mut facts = RunFacts {
            name: RunName::new(&workflow.name, number),
            definition: launch.current.digest.clone(),
            bundle: launch.current.bundle.clone(),
            trigger: launch.trigger,
            params: launch.params,
            batch: launch.batch,
            lane,
            coalesced: Vec::new(),
            created_at: self.now,
            parent: launch.parent,
        };
        inherit(&mut facts, replaced.iter().map(|(_, run)| run.facts()));
        let name = facts.name.clone();
        let run = Run::create(Arc::clone(&workflow), facts);
        let id = self.store.insert_run(&mut self.tx, &run, lane_limit).await?;
        let events = match launch.origin {
            Origin::Event(event) => sql(RUN_EVENT).bind(id).bind(event),
            Origin::Batch(batch) => sql(BATCH_EVENTS).bind(batch).bind(id),
        };
        self.tx.execute(events).await?;
        let running = format!("{running} of {} running", concurrency.limit);
        let (decision, reason) = if room {
            ("started", None)
        } else if replaced.is_empty() {
            ("queued", Some(format!("{running}: waits for its turn")))
        } else {
            ("coalesced", Some(format!("{running}: waits with the events of the run it replaced")))
        };
        for (old_id, old) in replaced {
            self.take_over(old_id, old, id, &name).await?;
        }
        if let Origin::Batch(batch) = launch.origin {
            self.tx.execute(sql(BATCH_RUN).bind(batch).bind(id)).await?;
        }
        let decision = Decision {
            workflow: &workflow.name,
            trigger: launch.trigger_index,
            decision,
            reason: reason.as_deref(),
            batch: None,
            run: Some(id),
        };
        self.decide_all(launch.origin, decision).await?;
        self.hints.runs = true;
        if room {
            self.admit(id, run).await?;
        }
        Ok(name)
    }

    async fn running_in(&mut self, workflow: &str, lane: &str) -> Result<i64, StoreError> {
        self.tx.one(sql(RUNNING_IN_LANE).bind(workflow).bind(lane)).await?.int("runs")
    }

    /// The oldest waiting runs of a lane.
    async fn waiting_in(&mut self, workflow: &str, lane: &str, limit: i64) -> Result<Vec<i64>, StoreError> {
        let waiting = sql(WAITING_OF_LANE).bind(workflow).bind(lane).bind(limit);
        self.tx.all(waiting).await?.iter().map(|row| row.int("id")).collect()
    }

    /// The new run stands for what a waiting one, locked by this transaction, stood for.
    async fn take_over(
        &mut self,
        old_id: i64,
        mut old: Run,
        new_id: i64,
        new: &RunName,
    ) -> Result<(), ChangeError> {
        self.flush().await?;
        self.tx.execute(sql(INHERIT_EVENTS).bind(new_id).bind(old_id)).await?;
        let reason = format!("{} was waiting and its events went into {new}", old.name());
        let decide = sql(DECIDE_INHERITED)
            .bind(new_id)
            .bind(old_id)
            .bind(self.now.as_millis())
            .bind(&new.workflow)
            .bind(reason);
        self.tx.execute(decide).await?;
        let coalesced = Input::Coalesced { into: new.clone() };
        let hints = self.store.apply_in(&mut self.tx, old_id, &mut old, coalesced, self.now).await?;
        self.store.write_changes(&mut self.tx, old_id, &mut old).await?;
        self.hints = self.hints.and(hints);
        Ok(())
    }

    /// Starts a run whose row this transaction holds, with the champion as it is now.
    async fn admit(&mut self, id: i64, mut run: Run) -> Result<(), ChangeError> {
        let workflow = Arc::clone(run.workflow());
        let champion = match &workflow.model {
            Some(model) => self.store.champion_in(&mut self.tx, model, workflow.champion_alias()).await?,
            None => None,
        };
        let admitted = Input::Admitted { champion };
        let hints = self.store.apply_in(&mut self.tx, id, &mut run, admitted, self.now).await?;
        self.store.write_changes(&mut self.tx, id, &mut run).await?;
        self.hints = self.hints.and(hints);
        self.hot.push((id, run));
        Ok(())
    }

    /// Starts the waiting runs of a lane that it has room for, oldest first.
    pub(super) async fn admit_waiting(&mut self, lane: &Lane) -> Result<(), StoreError> {
        let room = match lane.limit {
            Some(limit) => limit - self.running_in(&lane.workflow, &lane.lane).await?,
            None => ADMIT_MAX,
        };
        if room <= 0 {
            return Ok(());
        }
        for id in self.waiting_in(&lane.workflow, &lane.lane, room.min(ADMIT_MAX)).await? {
            let run = self.store.lock_run_in(&mut self.tx, id).await.map_err(ChangeError::into_store)?;
            // Somebody may have cancelled it before it was locked.
            if matches!(run.head().state, RunState::Waiting { .. }) {
                self.admit(id, run).await.map_err(ChangeError::into_store)?;
            }
        }
        Ok(())
    }
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

/// A run takes over what older ones, oldest first, stood for.
fn inherit<'a>(facts: &mut RunFacts, older: impl DoubleEndedIterator<Item = &'a RunFacts>) {
    for old in older.rev() {
        facts.batch.count += old.batch.count;
        facts.batch.first = old.batch.first.clone();
        facts.coalesced.insert(0, old.name.clone());
    }
}
