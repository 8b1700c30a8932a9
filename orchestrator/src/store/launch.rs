//! From a trigger that fires to a run: creates it, starts it, lets it wait in its lane, or lets the run that waits there
//! stand for its events as well. Holds the `trigger` duty's row. Everything that can be refused comes before the first
//! write. Must never happen here: an event that goes into a run without a decision that says so.

use std::sync::Arc;

use refit_workflows::definition::{OnConflict, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Scope;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Parent, Refused, Run, RunFacts};
use refit_workflows::trigger::{Admission, Asks, BatchFacts, Hindrance, evaluate_key};
use serde_json::{Map, Value, json};

use super::database::{Sql, sql};
use super::dispatch::{Decision, Origin, Round};
use super::lanes::{ADMIT_MAX, LaneName};
use super::workflows::CurrentWorkflow;
use super::{ChangeError, Hints, Store, StoreError};

const BATCH_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $2, d.event FROM decisions d
    WHERE d.batch = $1 AND d.decision IN ('batched', 'joined') ORDER BY d.seq
    ON CONFLICT (run, event) DO NOTHING";
const BATCH_RUN: &str =
    "UPDATE decisions SET run = $2 WHERE batch = $1 AND decision IN ('batched', 'joined')";
const RUN_EVENTS: Sql = Sql {
    sqlite: "INSERT INTO run_events (run, event) SELECT $1, value FROM json_each($2) WHERE true
        ON CONFLICT (run, event) DO NOTHING",
    postgres: "INSERT INTO run_events (run, event)
        SELECT $1, CAST(value AS BIGINT) FROM jsonb_array_elements_text($2::jsonb)
        ON CONFLICT (run, event) DO NOTHING",
};
const NEXT_NUMBER: &str = "SELECT next_number FROM workflows WHERE name = $1";
const REPLACEABLE: &str = "SELECT id FROM runs WHERE workflow = $1 AND lane = $2 AND state = 'waiting'
    AND started_at IS NULL AND id <> $3 ORDER BY id LIMIT $4";
const INHERIT_EVENTS: &str = "INSERT INTO run_events (run, event)
    SELECT $1, event FROM run_events WHERE run = $2 ON CONFLICT (run, event) DO NOTHING";
const DECIDE_INHERITED: &str = "INSERT INTO decisions (event, at, workflow, decision, reason, run)
    SELECT event, $3, $4, 'coalesced', $5, $1 FROM run_events WHERE run = $2 ORDER BY event";
const RUN_OF_EVENT: &str = "SELECT r.workflow, r.number FROM decisions d JOIN runs r ON r.id = d.run
    WHERE d.event = $1 AND d.workflow = $2 ORDER BY d.seq LIMIT 1";

/// What is to start.
pub(super) struct Launch {
    pub(super) current: CurrentWorkflow,
    pub(super) trigger_index: Option<usize>,
    pub(super) trigger: String,
    pub(super) params: Map<String, Value>,
    pub(super) batch: BatchFacts,
    pub(super) origin: Origin,
    /// The step of another run that asked for it.
    pub(super) parent: Option<Parent>,
    /// Whether every step is to run.
    pub(super) no_cache: bool,
}

/// What it came to.
pub(super) enum Launched {
    /// This run stands for its events: a new one, or one that waited already.
    Run(RunName),
    /// Nothing was started, and why.
    Skipped(String),
}

/// A run that a round has locked or made.
pub(super) struct Held {
    pub(super) run: Run,
    grown: Option<Grown>,
}

/// What a waiting run stands for by now; written when the round is committed.
struct Grown {
    params: Map<String, Value>,
    batch: BatchFacts,
    coalesced: Vec<RunName>,
    no_cache: bool,
    /// Events of its own that are not listed yet. Only those that it does not list already will be counted.
    events: Vec<i64>,
}

impl Held {
    pub(super) fn of(run: Run) -> Self {
        Self { run, grown: None }
    }

    fn grown(&mut self) -> &mut Grown {
        let facts = self.run.facts();
        self.grown.get_or_insert_with(|| Grown {
            params: facts.params.clone(),
            batch: facts.batch.clone(),
            coalesced: facts.coalesced.clone(),
            no_cache: facts.no_cache,
            events: Vec::new(),
        })
    }
}

impl Store {
    /// Starts a run by hand. `event` is what happened: recorded like any event. The same event again gives the same
    /// run. Where the workflow coalesces, that may be a run that waits already.
    ///
    /// # Errors
    /// [`ChangeError::Refused`]: the workflow skips what it has no room for; nothing is recorded.
    pub async fn start_run(
        &self,
        workflow: &str,
        params: Map<String, Value>,
        event: CloudEvent,
        words: &str,
        no_cache: bool,
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
                let (first, last) = (object.clone(), object);
                let batch = BatchFacts { key: String::new(), count: 1, sum: None, first, last };
                let origin = Origin::Event(seq);
                let trigger = words;
                let (trigger_index, parent) = (None, None);
                let launch =
                    Launch { current, trigger_index, trigger, params, batch, origin, parent, no_cache };
                match round.launch(launch).await? {
                    Launched::Run(run) => Ok((run, round.commit().await?)),
                    Launched::Skipped(reason) => Err(Refused::NotNow(reason).into()),
                }
            }
        })
        .await
    }
}

impl Round {
    /// What a trigger that fires comes to: a new run that starts or waits, more events for the run that waits, nothing.
    pub(super) async fn launch(&mut self, launch: Launch) -> Result<Launched, ChangeError> {
        let workflow = Arc::clone(&launch.current.workflow);
        let lane = lane_of(&workflow, &launch.params, &launch.batch).map_err(ChangeError::Invalid)?;
        let name = LaneName { workflow: workflow.name.clone(), lane };
        let admission = self.ask(&launch.current, &name).await?;
        match admission {
            Admission::Skip(hindrance) => {
                let (decision, reason) = match hindrance {
                    Hindrance::Cooldown { .. } => ("cooldown", hindrance.to_string()),
                    Hindrance::Full { .. } | Hindrance::Line { .. } => {
                        ("skipped", format!("{hindrance}, and `on_conflict` is `skip`"))
                    }
                };
                self.decide_launch(&launch, decision, Some(&reason), None).await?;
                Ok(Launched::Skipped(format!("{} skips what it has no room for: {hindrance}", workflow.name)))
            }
            Admission::Absorb(hindrance) => self.absorb(launch, &name, hindrance).await,
            Admission::Start | Admission::Wait(_) | Admission::Cancel(..) => {
                self.create(launch, &name, admission).await
            }
        }
    }

    /// What the workflow's rule says. A run that is to take events in is locked and waits still.
    async fn ask(&mut self, current: &CurrentWorkflow, name: &LaneName) -> Result<Admission, ChangeError> {
        let rule = current.workflow.lane_rule();
        if rule.is_free() {
            return Ok(Admission::Start);
        }
        loop {
            let state = self.lane(name, &current.digest).await?;
            let mut lane = state.lane;
            if !lane.absorbs {
                self.survey(name, &current.workflow, &rule, &mut lane).await?;
            }
            let admission = rule.decide(&lane, Asks::Firing, self.now);
            let (Admission::Absorb(_), Some(id)) = (admission, state.absorber) else { return Ok(admission) };
            if self.hold_waiting(id).await? {
                return Ok(admission);
            }
            // Somebody cancelled it before it was locked, or it cannot be read.
            if let Some(state) = self.lanes.get_mut(name) {
                state.absorber = None;
                state.lane.absorbs = false;
                state.lane.waiting = state.lane.waiting.saturating_sub(1);
            }
        }
    }

    /// The run that waits stands for these events as well; the newest params win.
    async fn absorb(
        &mut self,
        launch: Launch,
        name: &LaneName,
        hindrance: Hindrance,
    ) -> Result<Launched, ChangeError> {
        let Some(id) = self.lanes.get(name).and_then(|state| state.absorber) else {
            return Err(StoreError::Broken("a lane lost its waiting run".to_owned()).into());
        };
        let added = match launch.origin {
            Origin::Event(_) => 0,
            Origin::Batch(batch) => {
                self.flush().await?;
                let added = self.tx.execute(sql(BATCH_EVENTS).bind(batch).bind(id)).await?;
                self.tx.execute(sql(BATCH_RUN).bind(batch).bind(id)).await?;
                added
            }
        };
        let held = self.hold(id).await?;
        let run = held.run.name().clone();
        let grown = held.grown();
        grown.params = launch.params.clone();
        grown.no_cache |= launch.no_cache;
        grown.batch = grown.batch.followed_by(&launch.batch, added);
        if let Origin::Event(event) = launch.origin {
            grown.events.push(event);
        }
        let reason = format!("{hindrance}: goes with the run that waits");
        self.decide_launch(&launch, "coalesced", Some(&reason), Some(id)).await?;
        self.hints.runs = true;
        Ok(Launched::Run(run))
    }

    async fn create(
        &mut self,
        launch: Launch,
        name: &LaneName,
        admission: Admission,
    ) -> Result<Launched, ChangeError> {
        let workflow = Arc::clone(&launch.current.workflow);
        let number = self.next_number(&workflow.name).await?;
        let facts = RunFacts {
            name: RunName::new(&workflow.name, number),
            definition: launch.current.digest.clone(),
            bundle: launch.current.bundle.clone(),
            trigger: launch.trigger.clone(),
            params: launch.params.clone(),
            batch: launch.batch.clone(),
            lane: name.lane.clone(),
            coalesced: Vec::new(),
            created_at: self.now,
            parent: launch.parent.clone(),
            no_cache: launch.no_cache,
        };
        let run_name = facts.name.clone();
        let mut run = Run::create(Arc::clone(&workflow), facts);
        let id = self.store.insert_run(&mut self.tx, &run).await?;
        self.writes.created(id, &mut run)?;
        self.held.insert(id, Held::of(run));
        match launch.origin {
            Origin::Event(event) => {
                self.writes.stands_for(id, event);
            }
            Origin::Batch(batch) => {
                self.flush().await?;
                self.tx.execute(sql(BATCH_EVENTS).bind(batch).bind(id)).await?;
                self.tx.execute(sql(BATCH_RUN).bind(batch).bind(id)).await?;
            }
        }
        let (decision, reason) = match admission {
            Admission::Start => ("started", None),
            Admission::Cancel(_, hindrance) => {
                ("queued", Some(format!("{hindrance}: cancels what goes on and waits for its end")))
            }
            Admission::Wait(hindrance) | Admission::Absorb(hindrance) | Admission::Skip(hindrance) => {
                ("queued", Some(format!("{hindrance}: waits for its turn")))
            }
        };
        self.decide_launch(&launch, decision, reason.as_deref(), Some(id)).await?;
        self.hints.runs = true;
        match admission {
            Admission::Start => {
                self.admit(id).await?;
                self.note_start(name, false);
            }
            Admission::Wait(_) | Admission::Absorb(_) | Admission::Skip(_) => {
                self.line_up(id, name, &workflow).await?
            }
            Admission::Cancel(count, _) => {
                self.line_up(id, name, &workflow).await?;
                self.cancel_for(id, name, &workflow, count).await?;
            }
        }
        Ok(Launched::Run(run_name))
    }

    /// The number of a new run: whoever numbers runs holds the duty, so it is looked up once a round.
    async fn next_number(&mut self, workflow: &str) -> Result<i64, StoreError> {
        let number = match self.writes.next_number(workflow) {
            Some(number) => number,
            None => self.tx.one(sql(NEXT_NUMBER).bind(workflow)).await?.int("next_number")?,
        };
        self.writes.numbered(workflow, number);
        Ok(number)
    }

    /// A new run waits. Where one run a lane is to wait, it takes over the events of those that wait by another version
    /// of the workflow; they can take nothing in.
    async fn line_up(&mut self, id: i64, name: &LaneName, workflow: &Workflow) -> Result<(), ChangeError> {
        self.hints.lanes = true;
        let takes_over = match workflow.concurrency.on_conflict {
            OnConflict::Coalesce | OnConflict::CancelRunning { .. } => true,
            OnConflict::Queue | OnConflict::Skip | OnConflict::Parallel => false,
        };
        let waiting = self.lanes.get(name).map_or(0, |state| state.lane.waiting);
        if let Some(state) = self.lanes.get_mut(name) {
            state.lane.waiting += 1;
            state.lane.absorbs = takes_over;
            state.absorber = takes_over.then_some(id);
        }
        if !takes_over || waiting == 0 {
            return Ok(());
        }
        self.flush().await?;
        let find = sql(REPLACEABLE).bind(&name.workflow).bind(&name.lane).bind(id).bind(ADMIT_MAX);
        let mut replaced = Vec::new();
        for row in self.tx.all(find).await? {
            let old = row.int("id")?;
            // Locked, so that nobody cancels it meanwhile.
            if self.hold_waiting(old).await? {
                replaced.push(old);
            }
        }
        self.inherit(id, &replaced, "was waiting").await?;
        let into = self.hold(id).await?.run.name().clone();
        for old in replaced {
            self.change_held(old, Input::Coalesced { into: into.clone() }).await?;
        }
        self.lanes.remove(name);
        Ok(())
    }

    /// A waiting run stands for what older ones, oldest first, stood for; `what` happened to them, in words.
    pub(super) async fn inherit(&mut self, heir: i64, older: &[i64], what: &str) -> Result<(), ChangeError> {
        self.flush().await?;
        let into = self.hold(heir).await?.run.name().clone();
        for &old in older.iter().rev() {
            let facts = self.hold(old).await?.run.facts().clone();
            let added = self.tx.execute(sql(INHERIT_EVENTS).bind(heir).bind(old)).await?;
            let reason = format!("{} {what} and its events went into {into}", facts.name);
            let decide = sql(DECIDE_INHERITED)
                .bind(heir)
                .bind(old)
                .bind(self.now.as_millis())
                .bind(&into.workflow)
                .bind(reason);
            self.tx.execute(decide).await?;
            let grown = self.hold(heir).await?.grown();
            grown.batch = grown.batch.preceded_by(&facts.batch, added);
            grown.no_cache |= facts.no_cache;
            grown.coalesced.insert(0, facts.name);
        }
        Ok(())
    }

    /// Writes what waiting runs have come to stand for in this round.
    pub(super) async fn write_grown(&mut self) -> Result<(), StoreError> {
        let grown: Vec<i64> =
            self.held.iter().filter(|(_, held)| held.grown.is_some()).map(|(&id, _)| id).collect();
        for id in grown {
            self.write_grown_of(id).await.map_err(ChangeError::into_store)?;
        }
        Ok(())
    }

    async fn write_grown_of(&mut self, id: i64) -> Result<(), ChangeError> {
        let Some(grown) = self.held.get_mut(&id).and_then(|held| held.grown.take()) else { return Ok(()) };
        let Grown { params, mut batch, coalesced, no_cache, events } = grown;
        if !events.is_empty() {
            batch.count += self.tx.execute(sql(RUN_EVENTS).bind(id).bind(json!(events).to_string())).await?;
        }
        self.change_held(id, Input::Absorbed { params, batch, coalesced, no_cache }).await?;
        if let Some(held) = self.held.get_mut(&id) {
            self.writes.grown(id, &mut held.run)?;
        }
        Ok(())
    }

    /// The same decision about every event of a launch.
    async fn decide_launch(
        &mut self,
        launch: &Launch,
        decision: &'static str,
        reason: Option<&str>,
        run: Option<i64>,
    ) -> Result<(), StoreError> {
        let workflow = &launch.current.workflow.name;
        let trigger = launch.trigger_index;
        let decision = Decision { workflow, trigger, decision, reason, batch: None, run };
        self.decide_all(launch.origin, decision).await
    }
}

/// The value of `concurrency.key`.
fn lane_of(workflow: &Workflow, params: &Map<String, Value>, batch: &BatchFacts) -> Result<String, String> {
    let Some(key) = &workflow.concurrency.key else { return Ok(String::new()) };
    let mut scope = Scope::default();
    scope.roots.insert("params".to_owned(), Value::Object(params.clone()));
    scope.roots.insert("batch".to_owned(), batch.to_value());
    evaluate_key(key, &scope).map_err(|wrong| format!("concurrency.key `{}`: {wrong}", key.source()))
}
