//! The one deep operation: change a run. In one transaction: lock the run row (always first), load, `apply`, write
//! what changed, append the journal, do what the run asked for, commit. Its cost depends on what changed, not on the
//! size of the run: a hot run is kept in memory under its version and reloaded only when the database has another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use refit_workflows::names::RunName;
use refit_workflows::run::{Effect, Input, Refused, Run, RunFacts, RunHead, RunState, Step};
use refit_workflows::time::Timestamp;

use super::database::{Row, Sql, Transaction, sql};
use super::writes::Writes;
use super::{ChangeError, Hints, Store, StoreError, to_json, unpoisoned};

/// Runs in memory, by row id, each good for exactly the version it holds.
#[derive(Default)]
pub(super) struct HotRuns {
    runs: Mutex<HashMap<i64, Run>>,
}

/// How many runs are kept in memory; beyond that an arbitrary one is let go.
const HOT_RUNS_MAX: usize = 512;
/// Runs of more steps than this count for several.
const HOT_STEPS_MAX: usize = 200_000;

impl HotRuns {
    fn take(&self, id: i64, version: i64) -> Option<Run> {
        unpoisoned(&self.runs).remove(&id).filter(|run| run.version() == version)
    }

    pub(super) fn keep(&self, id: i64, run: Run) {
        let mut runs = unpoisoned(&self.runs);
        if matches!(run.head().state, RunState::Over { .. }) {
            runs.remove(&id);
            return;
        }
        let steps: usize = runs.values().map(|run| run.steps().len()).sum();
        if (runs.len() >= HOT_RUNS_MAX || steps >= HOT_STEPS_MAX)
            && let Some(&other) = runs.keys().next()
        {
            runs.remove(&other);
        }
        runs.insert(id, run);
    }
}

/// A committed change.
#[derive(Debug)]
pub struct Advanced {
    /// The run after it.
    pub run: Run,
    /// Whom to wake.
    pub hints: Hints,
}

/// What asking for a lease came to.
#[derive(Debug)]
pub enum Leasing {
    /// Nothing is ready, or the session is to get nothing.
    Nothing,
    /// Somebody else was faster, or a run was set aside: there may be more.
    Again,
    /// The run after it, and the places of the leased steps.
    Leased(Box<Advanced>, Vec<usize>),
}

/// A step that a worker has.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    /// The run's row.
    pub run_id: i64,
    /// The run's name.
    pub run: RunName,
    /// The step's place.
    pub position: usize,
    /// The step's name.
    pub step: String,
    /// The epoch.
    pub epoch: i64,
    /// When it was leased.
    pub leased_at: Timestamp,
    /// Whether its worker is being asked to end it.
    pub cancelling: bool,
}

const LOCK_RUN: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE id = $1",
    postgres: "SELECT id, version FROM runs WHERE id = $1 FOR UPDATE",
};
const LOCK_NAMED: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2",
    postgres: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2 FOR UPDATE",
};
const RUN_BY_ID: &str = "SELECT id, definition, version, facts, head FROM runs WHERE id = $1";
const RUN_ID: &str = "SELECT id FROM runs WHERE workflow = $1 AND number = $2";
const RUN: &str = "SELECT id, definition, version, facts, head FROM runs WHERE workflow = $1 AND number = $2";
const STEPS: &str = "SELECT body FROM steps WHERE run = $1 ORDER BY position";
const INSERT_RUN: &str = "INSERT INTO runs
    (workflow, number, definition, state, lane, version, created_at, wake_at, facts, head)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";
// Only for a session that is its worker's own and takes work: a long poll may outlive either.
const NEXT_READY: Sql = Sql {
    sqlite: "SELECT r.id, r.version FROM steps s JOIN runs r ON r.id = s.run WHERE s.state = 'ready'
        AND EXISTS (SELECT 1 FROM workers w WHERE w.name = $1 AND w.session = $2 AND w.draining = 0)
        ORDER BY s.ready_at, s.run, s.position LIMIT 1",
    postgres: "SELECT r.id, r.version FROM steps s JOIN runs r ON r.id = s.run WHERE s.state = 'ready'
        AND EXISTS (SELECT 1 FROM workers w WHERE w.name = $1 AND w.session = $2 AND w.draining = 0)
        ORDER BY s.ready_at, s.run, s.position LIMIT 1 FOR UPDATE OF r SKIP LOCKED",
};
const SHELVE: &str = "UPDATE steps SET state = 'blocked', ready_at = NULL WHERE run = $1 AND state = 'ready'";
const DELETE_LIVE: &str = "DELETE FROM live_metrics WHERE run = $1";

impl Store {
    /// The row of a run.
    pub(super) async fn run_id(&self, tx: &mut Transaction, run: &RunName) -> Result<i64, ChangeError> {
        let found = tx.first(sql(RUN_ID).bind(&run.workflow).bind(run.number)).await?;
        match found {
            Some(row) => Ok(row.int("id")?),
            None => Err(ChangeError::NotFound(format!("run {run}"))),
        }
    }

    /// The run as it is; not locked.
    pub async fn load_run(&self, run: &RunName) -> Result<Run, ChangeError> {
        let run = run.clone();
        self.durably(move |store| {
            let run = run.clone();
            async move {
                let mut tx = store.database().read().await?;
                store.load_run_in(&mut tx, &run).await.map(|(_, run)| run)
            }
        })
        .await
    }

    pub(super) async fn load_run_in(
        &self,
        tx: &mut Transaction,
        run: &RunName,
    ) -> Result<(i64, Run), ChangeError> {
        let row = tx
            .first(sql(RUN).bind(&run.workflow).bind(run.number))
            .await?
            .ok_or_else(|| ChangeError::NotFound(format!("run {run}")))?;
        Ok((row.int("id")?, self.restore(tx, &row).await?))
    }

    async fn restore(&self, tx: &mut Transaction, row: &Row) -> Result<Run, StoreError> {
        let definition = row.parsed("definition")?;
        let workflow = self.definition(tx, &definition).await?;
        let facts: RunFacts = row.json("facts")?;
        let head: RunHead = row.json("head")?;
        let steps: Vec<Step> = tx
            .all(sql(STEPS).bind(row.int("id")?))
            .await?
            .iter()
            .map(|row| row.json("body"))
            .collect::<Result<_, _>>()?;
        if !Run::fits(&workflow, &steps) {
            return Err(StoreError::Corrupt(format!(
                "the {} steps of run {} are not those of its definition, which has {}",
                steps.len(),
                facts.name,
                workflow.steps.len()
            )));
        }
        Ok(Run::restore(workflow, Arc::new(facts), head, steps, row.int("version")?))
    }

    /// Changes a run: applies what `inputs` gives for the run as it is, one after the other, in one transaction.
    ///
    /// `inputs` is asked again after each accepted input until it has no more; an error of its own, or a refusal of
    /// its first input, changes nothing.
    pub async fn change_run<F>(&self, run: &RunName, inputs: F) -> Result<Advanced, ChangeError>
    where
        F: Fn(&Run, usize) -> Result<Option<Input>, ChangeError> + Send + Sync + 'static,
    {
        let run = run.clone();
        let inputs = Arc::new(inputs);
        self.durably(move |store| {
            let (run, inputs) = (run.clone(), Arc::clone(&inputs));
            async move {
                let mut tx = store.database().begin().await?;
                let row = tx.first(sql(LOCK_NAMED).bind(&run.workflow).bind(run.number)).await?;
                let row = row.ok_or_else(|| ChangeError::NotFound(format!("run {run}")))?;
                let id = row.int("id")?;
                let held = store.locked(&mut tx, &row).await?;
                let advanced = store.change_held(&mut tx, id, held, &*inputs).await?;
                tx.commit().await?;
                store.inner.hot.keep(id, advanced.run.clone());
                Ok(advanced)
            }
        })
        .await
    }

    /// Leases ready steps of one run, the one that has waited longest first, to a worker's session: at most `slots`.
    pub async fn lease_next(&self, worker: &str, session: &str, slots: usize) -> Result<Leasing, StoreError> {
        let (worker, session) = (worker.to_owned(), session.to_owned());
        self.durably(move |store| {
            let (worker, session) = (worker.clone(), session.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let next = sql(NEXT_READY).bind(&worker).bind(&session);
                let Some(row) = tx.first(next).await? else { return Ok(Leasing::Nothing) };
                let id = row.int("id")?;
                let leased = Mutex::new(Vec::new());
                let inputs = |run: &Run, _| {
                    let mut leased = unpoisoned(&leased);
                    let next = if leased.len() < slots { run.ready_steps().next() } else { None };
                    leased.extend(next);
                    Ok(next.map(|step| Input::Leased {
                        step,
                        worker: worker.clone(),
                        session: session.clone(),
                    }))
                };
                let changed = match store.locked(&mut tx, &row).await {
                    Ok(run) => store.change_held(&mut tx, id, run, &inputs).await,
                    Err(error) => Err(error.into()),
                };
                match changed {
                    Ok(advanced) => {
                        tx.commit().await?;
                        store.inner.hot.keep(id, advanced.run.clone());
                        let leased = leased.into_inner().unwrap_or_default();
                        Ok(if leased.is_empty() {
                            Leasing::Again
                        } else {
                            Leasing::Leased(Box::new(advanced), leased)
                        })
                    }
                    Err(ChangeError::Store(StoreError::Corrupt(reason))) => {
                        drop(tx);
                        store.shelve(id, &reason).await?;
                        Ok(Leasing::Again)
                    }
                    Err(error) => Err(error.into_store()),
                }
            }
        })
        .await
    }

    /// Takes the ready steps of a run that cannot be read out of everybody's way: it must not stop the others.
    async fn shelve(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        tracing::error!(
            run_row = id,
            reason,
            "a run cannot be read; its ready steps are not offered any more"
        );
        let mut tx = self.database().begin().await?;
        tx.execute(sql(SHELVE).bind(id)).await?;
        tx.commit().await
    }

    /// Locks the run's row and applies inputs to it. The caller commits, and then keeps the run hot.
    pub(super) async fn change_in<F>(
        &self,
        tx: &mut Transaction,
        id: i64,
        inputs: &F,
    ) -> Result<Advanced, ChangeError>
    where
        F: Fn(&Run, usize) -> Result<Option<Input>, ChangeError> + Send + Sync + ?Sized,
    {
        let run = self.lock_run_in(tx, id).await?;
        self.change_held(tx, id, run, inputs).await
    }

    /// The same for a run whose row is locked.
    async fn change_held<F>(
        &self,
        tx: &mut Transaction,
        id: i64,
        mut run: Run,
        inputs: &F,
    ) -> Result<Advanced, ChangeError>
    where
        F: Fn(&Run, usize) -> Result<Option<Input>, ChangeError> + Send + Sync + ?Sized,
    {
        let locked = run.version();
        let mut writes = Writes::default();
        let mut hints = Hints::default();
        let mut accepted = 0;
        loop {
            let next = match inputs(&run, accepted) {
                Ok(next) => next,
                Err(error) => {
                    if accepted == 0 {
                        self.inner.hot.keep(id, run);
                    }
                    return Err(error);
                }
            };
            let Some(input) = next else { break };
            let now = self.clock().now();
            match self.apply_in(tx, &mut writes, id, &mut run, input, now).await {
                Ok(more) => hints = hints.and(more),
                // Only an untouched run may go back: a promotion's answer can be refused after its question was accepted.
                Err(ChangeError::Refused(refused)) if run.version() == locked => {
                    self.inner.hot.keep(id, run);
                    return Err(refused.into());
                }
                Err(error) => return Err(error),
            }
            accepted += 1;
        }
        if accepted > 0 {
            writes.changed(id, &mut run)?;
            writes.write(tx).await?;
        }
        Ok(Advanced { run, hints })
    }

    /// Locks a run's row and gives the run: from memory when that holds the version of the database, else read. The
    /// caller keeps it hot again after its commit.
    pub(super) async fn lock_run_in(&self, tx: &mut Transaction, id: i64) -> Result<Run, ChangeError> {
        let gone = || ChangeError::NotFound(format!("run of row {id}"));
        let row = tx.first(sql(LOCK_RUN).bind(id)).await?.ok_or_else(gone)?;
        Ok(self.locked(tx, &row).await?)
    }

    /// The run of a locked row, of which `id` and `version` are known.
    async fn locked(&self, tx: &mut Transaction, row: &Row) -> Result<Run, StoreError> {
        let (id, version) = (row.int("id")?, row.int("version")?);
        if let Some(run) = self.inner.hot.take(id, version) {
            return Ok(run);
        }
        let row = tx.one(sql(RUN_BY_ID).bind(id)).await?;
        self.restore(tx, &row).await
    }

    /// Applies one input and does what the run asks for, answers of the registry included. The caller writes.
    pub(super) async fn apply_in(
        &self,
        tx: &mut Transaction,
        writes: &mut Writes,
        id: i64,
        run: &mut Run,
        input: Input,
        now: Timestamp,
    ) -> Result<Hints, ChangeError> {
        let mut hints = Hints { runs: true, ..Hints::default() };
        let mut open = std::collections::VecDeque::from([input]);
        while let Some(input) = open.pop_front() {
            let effects = run.apply(&input, now)?;
            writes.accepted(id, run.version(), now, &input)?;
            for effect in effects {
                match effect {
                    Effect::Emit(event) => {
                        hints = hints.and(self.emit_in(tx, &event, &run.name().to_string(), now).await?);
                    }
                    Effect::Promote(promotion) => {
                        open.push_back(self.promote_in(tx, id, run, &promotion, now).await?);
                    }
                    Effect::StartRun(order) => hints = hints.and(self.ask_in(tx, id, &order).await?),
                    Effect::CancelRun { step, epoch } => {
                        hints = hints.and(self.cancel_child_in(tx, id, step, epoch).await?);
                    }
                }
            }
        }
        if matches!(run.head().state, RunState::Over { .. }) {
            tx.execute(sql(DELETE_LIVE).bind(id)).await?;
        }
        hints = hints.and(self.over_in(tx, id, run).await?);
        hints.ready |= run.ready_steps().next().is_some();
        hints.lanes |= matches!(run.head().state, RunState::Over { .. } | RunState::Waiting { .. });
        Ok(hints)
    }

    /// Inserts a run that was just created, without its steps, which the caller writes.
    pub(super) async fn insert_run(&self, tx: &mut Transaction, run: &Run) -> Result<i64, StoreError> {
        let facts = run.facts();
        let row = tx
            .one(
                sql(INSERT_RUN)
                    .bind(&facts.name.workflow)
                    .bind(facts.name.number)
                    .bind(facts.definition.as_str())
                    .bind(run.head().state.name())
                    .bind(&facts.lane)
                    .bind(run.version())
                    .bind(facts.created_at.as_millis())
                    .bind(run.next_wake().map(Timestamp::as_millis))
                    .bind(to_json(facts)?)
                    .bind(to_json(run.head())?),
            )
            .await?;
        row.int("id")
    }

    /// The name of every run, in the order of their creation: for databases whose runs somebody wants all of.
    pub async fn every_run(&self) -> Result<Vec<RunName>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            let rows = tx.all(sql("SELECT workflow, number FROM runs ORDER BY id")).await?;
            rows.iter().map(|row| Ok(RunName::new(row.text("workflow")?, row.int("number")?))).collect()
        })
        .await
    }

    /// The runs under way with their versions: which of them have changed, for those who watch all of them.
    pub async fn running_runs(&self) -> Result<Vec<(RunName, i64)>, StoreError> {
        const RUNNING: &str = "SELECT workflow, number, version FROM runs WHERE state = 'running'";
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            let versioned = |row: &Row| {
                Ok((RunName::new(row.text("workflow")?, row.int("number")?), row.int("version")?))
            };
            tx.all(sql(RUNNING)).await?.iter().map(versioned).collect()
        })
        .await
    }

    /// The accepted inputs of a run, in order, with their times: replaying them from the run's facts gives the run.
    pub async fn journal(&self, run: &RunName) -> Result<Vec<(Timestamp, Input)>, ChangeError> {
        const JOURNAL: &str = "SELECT at, input FROM journal WHERE run = $1 ORDER BY version";
        let run = run.clone();
        self.durably(move |store| {
            let run = run.clone();
            async move {
                let mut tx = store.database().read().await?;
                let id = store.run_id(&mut tx, &run).await?;
                let rows = tx.all(sql(JOURNAL).bind(id)).await?;
                let entry = |row: &Row| Ok((Timestamp::from_millis(row.int("at")?), row.json("input")?));
                Ok(rows.iter().map(entry).collect::<Result<_, StoreError>>()?)
            }
        })
        .await
    }

    /// Lets time pass for the runs that have something due. Returns whom to wake.
    pub async fn tick_runs(&self) -> Result<Hints, StoreError> {
        const DUE: &str = "SELECT workflow, number FROM runs WHERE wake_at <= $1 ORDER BY wake_at LIMIT 100";
        let due: Vec<RunName> = self
            .durably::<_, StoreError, _, _>(|store| async move {
                let mut tx = store.database().read().await?;
                let rows = tx.all(sql(DUE).bind(store.clock().now().as_millis())).await?;
                rows.iter().map(|row| Ok(RunName::new(row.text("workflow")?, row.int("number")?))).collect()
            })
            .await?;
        let mut hints = Hints::default();
        for run in due {
            match self.change_run(&run, |_, done| Ok((done == 0).then_some(Input::Ticked))).await {
                Ok(advanced) => hints = hints.and(advanced.hints),
                // Another orchestrator was first.
                Err(ChangeError::Refused(Refused::NotNow(_) | Refused::RunIsOver(_))) => {}
                Err(ChangeError::Store(error @ StoreError::Unavailable(_))) => return Err(error),
                // One run that cannot go on must not stop the others.
                Err(error) => tracing::error!(%run, %error, "failed to let time pass for a run"),
            }
        }
        Ok(hints)
    }

    /// When the next run has something due.
    pub async fn next_run_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        self.durably(|store| async move {
            let mut tx = store.database().read().await?;
            let row = tx.one(sql("SELECT MIN(wake_at) AS at FROM runs WHERE wake_at IS NOT NULL")).await?;
            Ok(row.opt_int("at")?.map(Timestamp::from_millis))
        })
        .await
    }
}
