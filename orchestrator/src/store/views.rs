//! What people look at: events with their decisions, runs, workflows. Reads only.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use refit_workflows::definition::{Trigger, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{Live, Run, RunFacts, RunHead, RunState};
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Gathering, Hindrance, trigger_ids};
use refit_workflows::wire::{
    AttemptKey, DecisionView, EventView, OpenBatch, RunView, StepSummary, WorkflowView,
};

use super::database::{Row, Sql, Transaction, sql};
use super::{ChangeError, EventFilter, RunFilter, Store, StoreError};

/// The most a listing gives.
const LIMIT_MAX: i64 = 1000;
/// The most event ids a run's view gives.
const RUN_EVENTS_MAX: i64 = 100_000;

/// The most bytes of events that a page with their data gives, unless the first few alone weigh more.
const EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

const NEWEST_EVENTS: &str = "SELECT e.seq, e.received_at, e.duplicates, e.body FROM events e
    WHERE e.seq < $1 AND ($2 = '' OR e.type = $2) AND ($3 = '' OR e.source = $3) AND e.received_at >= $4
        AND ($5 = 0 OR (EXISTS (SELECT 1 FROM decisions d WHERE d.event = e.seq AND d.decision = 'unmatched')
            AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.event = e.seq AND d.run IS NOT NULL)))
        AND ($6 = 0 OR (e.source <> '/refit' AND substr(e.source, 1, 7) <> '/refit/'))
    ORDER BY e.seq DESC LIMIT $7";
const OLDEST_EVENTS: &str = "SELECT e.seq, e.received_at, e.duplicates, e.body FROM events e
    WHERE e.seq > $1 AND ($2 = '' OR e.type = $2) AND ($3 = '' OR e.source = $3) AND e.received_at >= $4
        AND ($5 = 0 OR (EXISTS (SELECT 1 FROM decisions d WHERE d.event = e.seq AND d.decision = 'unmatched')
            AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.event = e.seq AND d.run IS NOT NULL)))
        AND ($6 = 0 OR (e.source <> '/refit' AND substr(e.source, 1, 7) <> '/refit/'))
    ORDER BY e.seq LIMIT $7";
const EVENT: &str = "SELECT e.seq, e.received_at, e.duplicates, e.body FROM events e
    WHERE e.id = $1 AND ($2 = '' OR e.source = $2) ORDER BY e.seq LIMIT 100";
/// The most decisions that a page of events gives; with so many, later ones may be missing.
pub(crate) const DECISIONS_MAX: usize = 20_000;
/// The decisions about several events, each event's in order.
const DECISIONS: Sql = Sql {
    sqlite: "SELECT d.event, d.workflow, d.trigger_index, d.decision, d.reason, d.at, d.replay,
            p.asked_by AS replayed_by, r.workflow AS run_workflow, r.number AS run_number
        FROM decisions d LEFT JOIN runs r ON r.id = d.run LEFT JOIN replays p ON p.seq = d.replay
        WHERE d.event IN (SELECT value FROM json_each($1)) ORDER BY d.seq LIMIT $2",
    postgres: "SELECT d.event, d.workflow, d.trigger_index, d.decision, d.reason, d.at, d.replay,
            p.asked_by AS replayed_by, r.workflow AS run_workflow, r.number AS run_number
        FROM decisions d LEFT JOIN runs r ON r.id = d.run LEFT JOIN replays p ON p.seq = d.replay
        WHERE d.event IN (SELECT CAST(value AS BIGINT) FROM jsonb_array_elements_text($1::jsonb))
        ORDER BY d.seq LIMIT $2",
};
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
const WORKFLOWS: &str = "SELECT name FROM workflows ORDER BY name LIMIT 1000";
const WORKFLOW: &str = "SELECT w.name, w.definition, w.version, w.applied_at, d.text, d.used, d.bundle
    FROM workflows w JOIN definitions d ON d.digest = w.definition WHERE w.name = $1";
const OPEN_BATCHES: &str = "SELECT trigger_id, batch_key, due_at, body FROM batches
    WHERE workflow = $1 AND open = 1 ORDER BY seq LIMIT 1000";
const NEXT_SLOT: &str = "SELECT MIN(next_at) AS at FROM schedules WHERE workflow = $1";
const ACTIVE: &str =
    "SELECT COUNT(*) AS runs FROM runs WHERE workflow = $1 AND state IN ('waiting', 'running')";
const ATTEMPT: &str = "SELECT s.run, s.body FROM steps s JOIN runs r ON r.id = s.run
    WHERE r.workflow = $1 AND r.number = $2 AND s.name = $3";

impl Store {
    /// Events with what became of them.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<EventView>, StoreError> {
        self.durably(move |store| {
            let filter = filter.clone();
            async move {
                let mut tx = store.database().read().await?;
                let rows = event_rows(&mut tx, &filter).await?;
                event_views(&mut tx, &rows, filter.data).await
            }
        })
        .await
    }

    /// The events with this id, of one source or of all.
    pub async fn event(&self, id: &str, source: Option<&str>) -> Result<Vec<EventView>, StoreError> {
        let (id, source) = (id.to_owned(), source.unwrap_or_default().to_owned());
        self.durably(move |store| {
            let (id, source) = (id.clone(), source.clone());
            async move {
                let mut tx = store.database().read().await?;
                let rows = tx.all(sql(EVENT).bind(&id).bind(&source)).await?;
                event_views(&mut tx, &rows, true).await
            }
        })
        .await
    }

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
        let metrics = self.live_metrics_in(tx, id).await?;
        let mut view = run.view(&Live { events, metrics });
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
                let mut tx = store.database().read().await?;
                let row = tx.first(sql(VERSION).bind(&name.workflow).bind(name.number)).await?;
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
                let mut tx = store.database().read().await?;
                let find = sql(ATTEMPT).bind(&key.run.workflow).bind(key.run.number).bind(&key.step);
                let missing = || ChangeError::NotFound(format!("step {} of run {}", key.step, key.run));
                let row = tx.first(find).await?.ok_or_else(missing)?;
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
                let open_batches = open_batches(&workflow, &batches)?;
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
                    next_slot: tx
                        .one(sql(NEXT_SLOT).bind(&name))
                        .await?
                        .opt_int("at")?
                        .map(Timestamp::from_millis),
                    open_batches,
                    concurrency: workflow.concurrency_words(),
                    active_runs: tx.one(sql(ACTIVE).bind(&name)).await?.int("runs")?,
                    text: Some(row.text("text")?),
                    used: row.json("used")?,
                }))
            }
        })
        .await
    }
}

/// The rows of a listing. With data it is read piece by piece, so that a page is never much heavier than its bound.
async fn event_rows(tx: &mut Transaction, filter: &EventFilter) -> Result<Vec<Row>, StoreError> {
    let (list, first) =
        if filter.oldest_first { (OLDEST_EVENTS, i64::MIN) } else { (NEWEST_EVENTS, i64::MAX) };
    let limit = filter.limit.clamp(1, LIMIT_MAX);
    let piece = if filter.data { PAGE } else { limit };
    let (mut rows, mut bytes, mut after) = (Vec::new(), 0, filter.after.unwrap_or(first));
    while bytes < EVENTS_BYTES_MAX {
        let most = piece.min(limit - rows.len() as i64);
        let list = sql(list)
            .bind(after)
            .bind(filter.kind.as_deref().unwrap_or_default())
            .bind(filter.source.as_deref().unwrap_or_default())
            .bind(filter.since.map_or(i64::MIN, Timestamp::as_millis))
            .bind(i64::from(filter.unmatched))
            .bind(i64::from(filter.outside))
            .bind(most);
        let read = tx.all(list).await?;
        let last = (read.len() as i64) < most;
        for row in read {
            after = row.int("seq")?;
            bytes += row.text("body")?.len();
            rows.push(row);
        }
        if last || rows.len() as i64 >= limit {
            break;
        }
    }
    Ok(rows)
}

async fn event_views(tx: &mut Transaction, rows: &[Row], data: bool) -> Result<Vec<EventView>, StoreError> {
    let seqs = rows.iter().map(|row| row.int("seq")).collect::<Result<Vec<_>, _>>()?;
    let mut decided: BTreeMap<i64, Vec<DecisionView>> = BTreeMap::new();
    let decisions = sql(DECISIONS).bind(serde_json::json!(seqs).to_string()).bind(DECISIONS_MAX as i64);
    for row in tx.all(decisions).await? {
        decided.entry(row.int("event")?).or_default().push(decision_view(&row)?);
    }
    let mut views = Vec::new();
    for row in rows {
        let event: CloudEvent = row.json("body")?;
        let received_at = Timestamp::from_millis(row.int("received_at")?);
        let seq = row.int("seq")?;
        let mut decisions = decided.remove(&seq).unwrap_or_default();
        let again = row.int("duplicates")?;
        if again > 0 {
            let times = if again == 1 { "once".to_owned() } else { format!("{again} times") };
            decisions.push(DecisionView {
                workflow: String::new(),
                trigger: None,
                decision: "duplicate".to_owned(),
                reason: Some(format!("delivered {times} more, which changed nothing")),
                run: None,
                at: received_at,
                replay: None,
                replayed_by: None,
            });
        }
        views.push(EventView {
            seq,
            id: event.id().to_owned(),
            source: event.source().to_owned(),
            kind: event.kind().to_owned(),
            subject: event.subject().map(str::to_owned),
            time: event.time(),
            received_at,
            data: event.attributes().get("data").filter(|_| data).cloned(),
            attributes: data.then(|| other_attributes(&event)),
            decisions,
        });
    }
    Ok(views)
}

/// The attributes that a view of the event does not give by themselves.
fn other_attributes(event: &CloudEvent) -> serde_json::Map<String, serde_json::Value> {
    let given = ["id", "source", "type", "subject", "data"];
    let others = event.attributes().iter().filter(|(name, _)| !given.contains(&name.as_str()));
    others.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn decision_view(row: &Row) -> Result<DecisionView, StoreError> {
    let run = match row.opt_text("run_workflow")? {
        Some(workflow) => Some(RunName::new(workflow, row.int("run_number")?)),
        None => None,
    };
    Ok(DecisionView {
        workflow: row.text("workflow")?,
        trigger: row.opt_int("trigger_index")?,
        decision: row.text("decision")?,
        reason: row.opt_text("reason")?,
        run,
        at: Timestamp::from_millis(row.int("at")?),
        replay: row.opt_int("replay")?,
        replayed_by: row.opt_text("replayed_by")?,
    })
}

fn open_batches(workflow: &Workflow, rows: &[Row]) -> Result<Vec<OpenBatch>, StoreError> {
    let ids = trigger_ids(workflow);
    let mut open = Vec::new();
    for row in rows {
        let id = row.text("trigger_id")?;
        let Some(place) = ids.iter().position(|known| *known == id) else { continue };
        let gathering: Gathering = row.json("body")?;
        let missing = workflow.triggers[place].missing(&gathering);
        open.push(OpenBatch {
            trigger: place as i64,
            key: row.text("batch_key")?,
            count: gathering.count as i64,
            sum: gathering.sum,
            missing: missing.into_iter().map(|part| part as i64).collect(),
            opened_at: gathering.opened_at,
            due_at: row.opt_int("due_at")?.map(Timestamp::from_millis),
        });
    }
    Ok(open)
}
