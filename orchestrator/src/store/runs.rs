//! Runs as they are stored: read, inserted, changed, leased. Every change is a turn (`turn`), alone or with others
//! (`together`); what it changed is written by `writes`. Must never happen here: a run that is changed in another way.

use std::sync::Arc;

use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Refused, Run, RunFacts, RunHead, Step};
use refit_workflows::time::Timestamp;

use super::database::{Row, Transaction, sql};
use super::together::Ask;
use super::turn::{Claim, LeasedStep};
use super::{ChangeError, Hints, Store, StoreError, to_json};

const RUN_ID: &str = "SELECT id FROM runs WHERE workflow = $1 AND number = $2";
const RUN: &str = "SELECT id, definition, version, facts, head FROM runs WHERE workflow = $1 AND number = $2";
const STEPS: &str = "SELECT body FROM steps WHERE run = $1 ORDER BY position";
const INSERT_RUN: &str = "INSERT INTO runs
    (workflow, number, definition, state, lane, version, created_at, wake_at, facts, head)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";

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

    pub(super) async fn restore(&self, tx: &mut Transaction, row: &Row) -> Result<Run, StoreError> {
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

    /// Changes a run by the input that `input` gives for the run as it is, in one transaction. An error of its own and a
    /// refusal by the run change nothing. Returns whom to wake.
    pub async fn change_run<F>(&self, run: &RunName, input: F) -> Result<Hints, ChangeError>
    where
        F: Fn(&Run) -> Result<Input, ChangeError> + Send + Sync + 'static,
    {
        let served = self.ask(Ask { change: Some((run.clone(), Box::new(input))), claim: None }).await?;
        Ok(served.hints)
    }

    /// Changes a run and leases steps to `claim` in the same transaction: a chain costs one commit a step.
    pub async fn change_and_lease<F>(
        &self,
        run: &RunName,
        input: F,
        claim: Option<Claim>,
    ) -> Result<(Vec<LeasedStep>, Hints), ChangeError>
    where
        F: Fn(&Run) -> Result<Input, ChangeError> + Send + Sync + 'static,
    {
        let served = self.ask(Ask { change: Some((run.clone(), Box::new(input))), claim }).await?;
        Ok((served.leased, served.hints))
    }

    /// Leases ready steps that its host has room for, by turns of their workflows. A session that is not its worker's, or takes no more
    /// work, gets none.
    pub async fn lease(&self, claim: Claim) -> Result<(Vec<LeasedStep>, Hints), StoreError> {
        let served =
            self.ask(Ask { change: None, claim: Some(claim) }).await.map_err(ChangeError::into_store)?;
        Ok((served.leased, served.hints))
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
            let rows = store.database().all(sql("SELECT workflow, number FROM runs ORDER BY id")).await?;
            rows.iter().map(|row| Ok(RunName::new(row.text("workflow")?, row.int("number")?))).collect()
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
                let rows = store.database().all(sql(DUE).bind(store.clock().now().as_millis())).await?;
                rows.iter().map(|row| Ok(RunName::new(row.text("workflow")?, row.int("number")?))).collect()
            })
            .await?;
        let mut hints = Hints::default();
        for run in due {
            match self.change_run(&run, |_| Ok(Input::Ticked)).await {
                Ok(more) => hints = hints.and(more),
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
            let next = sql("SELECT MIN(wake_at) AS at FROM runs WHERE wake_at IS NOT NULL");
            let row = store.database().first(next).await?;
            let at = row.map_or(Ok(None), |row| row.opt_int("at"))?;
            Ok(at.map(Timestamp::from_millis))
        })
        .await
    }
}
