//! What people look at of runs and workflows; events are in `events`. Reads only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use refit_workflows::definition::{self, Trigger, Workflow};
use refit_workflows::names::RunName;
use refit_workflows::run::{Live, Run, RunFacts, RunHead, RunState};
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Gathering, Hindrance, trigger_ids};
use refit_workflows::wire::{
    AttemptKey, CooldownView, OpenBatch, RunView, ScheduleView, StepSummary, WorkflowView,
};

use super::database::{Row, Transaction, sql};
use super::events::arrivals_in;
use super::mirror::Mirrored;
use super::workflows::paused;
use super::{ChangeError, RunFilter, Store, StoreError, checkpoints, holdouts};

/// The most a listing gives.
const LIMIT_MAX: i64 = 1000;
/// The most event ids a run's view gives.
const RUN_EVENTS_MAX: i64 = 100_000;

const RUNS: &str = "SELECT version, facts, head FROM runs
    WHERE ($1 = '' OR workflow = $1) AND ($2 = '' OR state = $2) AND created_at >= $3
    ORDER BY id DESC LIMIT $4";
const RUN_EVENTS: &str = "SELECT e.id FROM run_events r JOIN events e ON e.seq = r.event
    WHERE r.run = $1 ORDER BY e.seq LIMIT $2";
const RUN_EVENTS_GONE: &str = "SELECT COUNT(*) AS gone FROM run_events r WHERE r.run = $1
    AND NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = r.event)";
/// How many events one page of a run's events holds.
const PAGE: i64 = 50;
const RUN_EVENT_BODIES: &str = "SELECT e.seq, e.body FROM run_events r JOIN events e ON e.seq = r.event
    WHERE r.run = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3";
const VERSION: &str = "SELECT version FROM runs WHERE workflow = $1 AND number = $2";
const WORKFLOWS: &str = "SELECT name FROM workflows WHERE deleted_at IS NULL ORDER BY name LIMIT 1000";
const WORKFLOW: &str = "SELECT w.name, w.definition, w.version, w.applied_at, w.paused_at, w.paused_by,
        w.paused_reason, d.text, d.used, d.bundle
    FROM workflows w JOIN definitions d ON d.digest = w.definition
    WHERE w.name = $1 AND w.deleted_at IS NULL";
const OPEN_BATCHES: &str = "SELECT trigger_id, batch_key, body FROM batches
    WHERE workflow = $1 AND open = 1 ORDER BY seq LIMIT 1000";
const SLOTS: &str = "SELECT trigger_id, next_at FROM schedules WHERE workflow = $1";
/// The most lanes that a workflow's view names.
const COOLDOWNS_MAX: i64 = 100;
const COOLDOWNS: &str = "SELECT lane, MAX(started_at) AS last_start FROM runs
    WHERE workflow = $1 AND started_at > $2 GROUP BY lane ORDER BY 2 DESC, 1 LIMIT $3";
const ACTIVE: &str =
    "SELECT COUNT(*) AS runs FROM runs WHERE workflow = $1 AND state IN ('waiting', 'running')";
const ATTEMPT: &str = "SELECT s.run, s.body FROM steps s JOIN runs r ON r.id = s.run
    WHERE r.workflow = $1 AND r.number = $2 AND s.name = $3";

impl Store {
    /// Runs, newest first, in short.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunView>, StoreError> {
        self.durably(move |store| {
            let filter = filter.clone();
            async move {
                let mut tx = store.database().read().await?;
                let list = sql(RUNS)
                    .bind(filter.workflow.unwrap_or_default())
                    .bind(filter.state.unwrap_or_default())
                    .bind(filter.since.map_or(i64::MIN, Timestamp::as_millis))
                    .bind(filter.limit.clamp(1, LIMIT_MAX));
                let summary = |row: &Row| {
                    let (facts, head): (RunFacts, RunHead) = (row.json("facts")?, row.json("head")?);
                    let view = refit_workflows::run::summary(&facts, &head, row.int("version")?);
                    let waits = matches!(head.state, RunState::Waiting { .. });
                    Ok((view, waits.then_some((facts.name.workflow, facts.lane))))
                };
                // Why runs wait is asked once a lane.
                let mut hindrances: HashMap<(String, String), Option<Hindrance>> = HashMap::new();
                let mut views = Vec::new();
                for row in tx.all(list).await? {
                    match summary(&row) {
                        Ok((mut view, lane)) => {
                            if let Some((workflow, lane)) = lane {
                                let hindrance = match hindrances.entry((workflow, lane)) {
                                    Entry::Occupied(known) => *known.get(),
                                    Entry::Vacant(place) => {
                                        let (workflow, lane) = place.key();
                                        let found = store.hindrance(&mut tx, workflow, lane).await?;
                                        *place.insert(found)
                                    }
                                };
                                view.reason = hindrance.map(|it| it.to_string()).or(view.reason);
                            }
                            views.push(view);
                        }
                        Err(StoreError::Corrupt(reason)) => tracing::error!(reason, "a run cannot be read"),
                        Err(error) => return Err(error),
                    }
                }
                Ok(views)
            }
        })
        .await
    }

    /// The whole run.
    pub async fn run_view(&self, name: &RunName) -> Result<RunView, ChangeError> {
        let name = name.clone();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut tx = store.database().read().await?;
                let (id, run) = store.load_run_in(&mut tx, &name).await?;
                store.view_in(&mut tx, id, &run).await.map_err(ChangeError::from)
            }
        })
        .await
    }

    async fn view_in(&self, tx: &mut Transaction, id: i64, run: &Run) -> Result<RunView, StoreError> {
        let rows = tx.all(sql(RUN_EVENTS).bind(id).bind(RUN_EVENTS_MAX)).await?;
        let events = rows.iter().map(|row| row.text("id")).collect::<Result<_, _>>()?;
        let live = self.live_in(tx, id).await?;
        let keeps = |step: &definition::Step| step.verb.work().is_some_and(|work| work.checkpoint.is_some());
        let checkpoints = match run.workflow().steps.iter().any(keeps) {
            true => checkpoints::of_run_in(tx, id).await?,
            false => Default::default(),
        };
        let judges = |step: &definition::Step| matches!(step.verb, definition::Verb::Gate(_));
        let holdouts = match run.workflow().steps.iter().any(judges) {
            true => holdouts::of_run_in(tx, id).await?,
            false => Default::default(),
        };
        let mut view = run.view(&Live { events, holdouts, checkpoints, ..live });
        view.arrivals = Some(arrivals_in(tx, id).await?);
        if let Some(promoted) = &view.promoted {
            let of = (promoted.model.as_str(), promoted.version);
            view.mirror = Mirrored::of_run_in(tx, id, of, self.clock().now()).await?;
        }
        view.events_gone = tx.one(sql(RUN_EVENTS_GONE).bind(id)).await?.int("gone")?.unsigned_abs();
        if matches!(run.head().state, RunState::Waiting { .. })
            && let Some(hindrance) = self.hindrance_of(tx, id, run).await?
        {
            view.reason = Some(hindrance.to_string());
        }
        Ok(view)
    }

    /// How many inputs a run has accepted: cheap, for those who wait for it to change.
    pub async fn run_version(&self, name: &RunName) -> Result<i64, ChangeError> {
        let name = name.clone();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let row = store.database().first(sql(VERSION).bind(&name.workflow).bind(name.number)).await?;
                let row = row.ok_or_else(|| ChangeError::NotFound(format!("run {name}")))?;
                Ok(row.int("version")?)
            }
        })
        .await
    }

    /// The run's row of an attempt. Refused for a stale attempt.
    pub async fn attempt_run(&self, key: &AttemptKey) -> Result<i64, ChangeError> {
        let key = key.clone();
        self.durably(move |store| {
            let key = key.clone();
            async move {
                let find = sql(ATTEMPT).bind(&key.run.workflow).bind(key.run.number).bind(&key.step);
                let missing = || ChangeError::NotFound(format!("step {} of run {}", key.step, key.run));
                let row = store.database().first(find).await?.ok_or_else(missing)?;
                let step: refit_workflows::run::Step = row.json("body")?;
                if step.epoch != key.epoch {
                    let stale =
                        refit_workflows::run::Refused::StaleLease { given: key.epoch, current: step.epoch };
                    return Err(stale.into());
                }
                Ok(row.int("run")?)
            }
        })
        .await
    }

    /// A page of a run's events behind `after` as JSON Lines, oldest first, and where the next one begins; nothing
    /// behind the last.
    pub async fn run_events(&self, run: i64, after: i64) -> Result<Option<(String, i64)>, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().read().await?;
            let page = tx.all(sql(RUN_EVENT_BODIES).bind(run).bind(after).bind(PAGE)).await?;
            let Some(last) = page.last() else { return Ok(None) };
            let mut lines = String::new();
            for row in &page {
                lines.push_str(&row.text("body")?);
                lines.push('\n');
            }
            Ok(Some((lines, last.int("seq")?)))
        })
        .await
    }

    /// The names of all workflows.
    pub async fn workflow_names(&self) -> Result<Vec<String>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            tx.all(sql(WORKFLOWS)).await?.iter().map(|row| row.text("name")).collect()
        })
        .await
    }

    /// The lanes of a workflow that its cooldown keeps from starting a run now.
    async fn cooldowns_in(
        &self,
        tx: &mut Transaction,
        workflow: &Workflow,
    ) -> Result<Vec<CooldownView>, StoreError> {
        let Some(cooldown) = workflow.cooldown else { return Ok(Vec::new()) };
        let over = self.clock().now().minus(cooldown).as_millis();
        let find = sql(COOLDOWNS).bind(&workflow.name).bind(over).bind(COOLDOWNS_MAX);
        let mut cooldowns = Vec::new();
        for row in tx.all(find).await? {
            let until = Timestamp::from_millis(row.int("last_start")?).plus(cooldown);
            cooldowns.push(CooldownView { key: row.text("lane")?, until });
        }
        Ok(cooldowns)
    }

    /// A workflow as it is applied now.
    pub async fn workflow_view(&self, name: &str) -> Result<Option<WorkflowView>, StoreError> {
        let name = name.to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut tx = store.database().read().await?;
                let Some(row) = tx.first(sql(WORKFLOW).bind(&name)).await? else { return Ok(None) };
                let digest = row.parsed("definition")?;
                let workflow = store.definition(&mut tx, &digest).await?;
                let bundle = row
                    .opt_text("bundle")?
                    .map(|text| text.parse().map_err(StoreError::Corrupt))
                    .transpose()?;
                let batches = tx.all(sql(OPEN_BATCHES).bind(&name)).await?;
                let paused = paused(&row)?;
                let open_batches =
                    open_batches(&workflow, &batches, paused.as_ref().map(|paused| paused.at))?;
                let schedules = schedules(&workflow, &tx.all(sql(SLOTS).bind(&name)).await?)?;
                let cooldowns = store.cooldowns_in(&mut tx, &workflow).await?;
                Ok(Some(WorkflowView {
                    workflow: name.clone(),
                    description: workflow.description.clone(),
                    model: workflow.model.clone(),
                    definition: digest,
                    bundle,
                    version: row.int("version")?,
                    applied_at: Timestamp::from_millis(row.int("applied_at")?),
                    unchanged: false,
                    triggers: workflow.triggers.iter().map(Trigger::words).collect(),
                    steps: workflow
                        .steps
                        .iter()
                        .map(|step| StepSummary {
                            step: step.name.clone(),
                            verb: step.verb.name().to_owned(),
                            needs: step.needs.iter().map(|&need| workflow.steps[need].name.clone()).collect(),
                        })
                        .collect(),
                    next_slot: schedules.iter().filter_map(|schedule| schedule.next_slot).min(),
                    schedules,
                    cooldowns,
                    paused,
                    open_batches,
                    concurrency: workflow.concurrency_words(),
                    active_runs: tx.one(sql(ACTIVE).bind(&name)).await?.int("runs")?,
                    warnings: Vec::new(),
                    text: Some(row.text("text")?),
                    used: row.json("used")?,
                }))
            }
        })
        .await
    }
}

/// The next slot of each schedule, in the order of the file.
fn schedules(workflow: &Workflow, rows: &[Row]) -> Result<Vec<ScheduleView>, StoreError> {
    let mut slots = HashMap::new();
    for row in rows {
        slots.insert(row.text("trigger_id")?, row.opt_int("next_at")?.map(Timestamp::from_millis));
    }
    let ids = trigger_ids(workflow).into_iter().enumerate();
    let found = ids.filter_map(|(place, id)| Some((place, *slots.get(&id)?)));
    Ok(found.map(|(place, next_slot)| ScheduleView { trigger: place as i64, next_slot }).collect())
}

fn open_batches(
    workflow: &Workflow,
    rows: &[Row],
    paused: Option<Timestamp>,
) -> Result<Vec<OpenBatch>, StoreError> {
    let ids = trigger_ids(workflow);
    let mut open = Vec::new();
    for row in rows {
        let id = row.text("trigger_id")?;
        let Some(place) = ids.iter().position(|known| *known == id) else { continue };
        let gathering: Gathering = row.json("body")?;
        let trigger = &workflow.triggers[place];
        let missing = trigger.missing(&gathering);
        let due_at = trigger.due_at(&gathering);
        open.push(OpenBatch {
            trigger: place as i64,
            key: row.text("batch_key")?,
            count: gathering.count as i64,
            sum: gathering.sum,
            missing: missing.into_iter().map(|part| part as i64).collect(),
            opened_at: gathering.opened_at,
            due_at,
            waits_for: trigger.waits_for(&gathering),
            held: paused.is_some_and(|paused| due_at.is_none_or(|due| due > paused)),
        });
    }
    Ok(open)
}
