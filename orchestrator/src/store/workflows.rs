//! Registered workflows: every definition ever applied, by digest, which one is current, and whether it is paused or
//! deleted. A deleted workflow keeps its row, so that its runs stay what they are and its numbers go on when it is
//! applied again. Must never happen here: an event that is lost by a pause; see `gather` and `dispatch`.

use std::collections::BTreeMap;
use std::sync::Arc;

use refit_workflows::definition::Workflow;
use refit_workflows::digest::Digest;
use refit_workflows::names::RunName;
use refit_workflows::run::Input;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::PausedView;

use super::database::{Row, Transaction, sql};
use super::dispatch::Round;
use super::lanes::is_ending;
use super::{ChangeError, Hints, Store, StoreError, to_json, unpoisoned};

/// How many parsed definitions are kept in memory.
const DEFINITIONS_MAX: usize = 2_000;

/// A workflow as it is applied now.
#[derive(Clone, Debug)]
pub(super) struct CurrentWorkflow {
    pub(super) digest: Digest,
    pub(super) bundle: Option<Digest>,
    pub(super) workflow: Arc<Workflow>,
    pub(super) applied_at: Timestamp,
    pub(super) paused: Option<PausedView>,
}

impl CurrentWorkflow {
    /// The pause that an event received at `at` falls into.
    pub(super) fn paused_for(&self, at: Timestamp) -> Option<&PausedView> {
        self.paused.as_ref().filter(|paused| paused.at <= at)
    }
}

/// What became of a wish to delete a workflow.
#[derive(Debug)]
pub enum Deletion {
    /// It is deleted.
    Done {
        /// The runs that were cancelled for it.
        cancelled: Vec<RunName>,
        /// How many events its triggers had gathered, which start nothing now.
        gathered: u64,
    },
    /// It has active runs: how many, at most [`DELETED_RUNS_MAX`] and one, and the first of them.
    Busy(usize, RunName),
}

/// The most active runs that deleting a workflow cancels.
pub const DELETED_RUNS_MAX: usize = 1000;

const DEFINITION: &str = "SELECT text, used FROM definitions WHERE digest = $1";
const CURRENT: &str = "SELECT d.digest, d.bundle, w.applied_at, w.paused_at, w.paused_by, w.paused_reason
    FROM workflows w JOIN definitions d ON d.digest = w.definition
    WHERE w.deleted_at IS NULL ORDER BY w.name";
const CURRENT_OF: &str = "SELECT d.digest, d.bundle, w.applied_at, w.paused_at, w.paused_by, w.paused_reason
    FROM workflows w JOIN definitions d ON d.digest = w.definition
    WHERE w.name = $1 AND w.deleted_at IS NULL";
const PAUSED: &str = "SELECT paused_at, paused_by, paused_reason FROM workflows WHERE name = $1";
const PAUSE: &str = "UPDATE workflows SET paused_at = $2, paused_by = $3, paused_reason = $4 WHERE name = $1";
const RESUME: &str =
    "UPDATE workflows SET paused_at = NULL, paused_by = NULL, paused_reason = NULL WHERE name = $1";
const DELETE: &str = "UPDATE workflows SET deleted_at = $2, deleted_by = $3, deleted_reason = $4,
    paused_at = NULL, paused_by = NULL, paused_reason = NULL WHERE name = $1";
const ACTIVE_RUNS: &str = "SELECT id, workflow, number FROM runs
    WHERE workflow = $1 AND state IN ('waiting', 'running') ORDER BY id LIMIT $2";
const KEEP_DEFINITION: &str =
    "INSERT INTO definitions (digest, workflow, text, used, bundle) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (digest) DO NOTHING";
const KEEP_WORKFLOW: &str =
    "INSERT INTO workflows (name, definition, version, applied_at, applied_by, next_number)
    VALUES ($1, $2, 1, $3, $4, 1)
    ON CONFLICT (name) DO UPDATE SET definition = excluded.definition, version = workflows.version + 1,
        applied_at = excluded.applied_at, applied_by = excluded.applied_by,
        deleted_at = NULL, deleted_by = NULL, deleted_reason = NULL
    WHERE workflows.definition <> excluded.definition OR workflows.deleted_at IS NOT NULL";

/// Names a definition by all its text and its code.
fn definition_digest(workflow: &Workflow, bundle: Option<&Digest>) -> Digest {
    let bundle = bundle.map(Digest::as_str).unwrap_or_default();
    Digest::of(format!("{bundle}\n{}", workflow.sources.digest()).as_bytes())
}

impl Store {
    /// The parsed definition, if this process has parsed it already.
    pub(super) fn known_definition(&self, digest: &Digest) -> Option<Arc<Workflow>> {
        unpoisoned(&self.inner.definitions).get(digest).cloned()
    }

    /// The parsed definition; parsed once per process.
    pub(super) async fn definition(
        &self,
        tx: &mut Transaction,
        digest: &Digest,
    ) -> Result<Arc<Workflow>, StoreError> {
        if let Some(known) = self.known_definition(digest) {
            return Ok(known);
        }
        let row = tx.one(sql(DEFINITION).bind(digest.as_str())).await?;
        let used: BTreeMap<String, String> = row.json("used")?;
        let workflow = Workflow::parse_with(&row.text("text")?, &used)
            .map_err(|problems| StoreError::Corrupt(format!("definition {digest}: {problems}")))?;
        let workflow = Arc::new(workflow);
        self.remember(digest.clone(), Arc::clone(&workflow));
        Ok(workflow)
    }

    /// Keeps a parsed definition in memory.
    fn remember(&self, digest: Digest, workflow: Arc<Workflow>) {
        let mut definitions = unpoisoned(&self.inner.definitions);
        if definitions.len() >= DEFINITIONS_MAX {
            definitions.clear();
        }
        definitions.insert(digest, workflow);
    }

    /// Every workflow as it is applied now. One that cannot be read any more is left out, loudly.
    pub(super) async fn current_workflows(
        &self,
        tx: &mut Transaction,
    ) -> Result<Vec<CurrentWorkflow>, StoreError> {
        let mut current = Vec::new();
        for row in tx.all(sql(CURRENT)).await? {
            let digest: Digest = row.parsed("digest")?;
            match self.definition(tx, &digest).await {
                Ok(workflow) => {
                    current.push(current_row(&row, digest, workflow)?);
                }
                Err(StoreError::Corrupt(reason)) => tracing::error!(reason, "a workflow cannot be read"),
                Err(error) => return Err(error),
            }
        }
        Ok(current)
    }

    pub(super) async fn current_workflow(
        &self,
        tx: &mut Transaction,
        name: &str,
    ) -> Result<Option<CurrentWorkflow>, StoreError> {
        let Some(row) = tx.first(sql(CURRENT_OF).bind(name)).await? else { return Ok(None) };
        let digest: Digest = row.parsed("digest")?;
        let workflow = self.definition(tx, &digest).await?;
        current_row(&row, digest, workflow).map(Some)
    }

    /// Makes a definition the current one of its workflow. Returns whether that changed anything.
    pub async fn apply_workflow(
        &self,
        bundle: Option<Digest>,
        workflow: Workflow,
        by: &str,
    ) -> Result<(bool, Hints), StoreError> {
        let (workflow, by) = (Arc::new(workflow), by.to_owned());
        self.durably(move |store| {
            let (bundle, workflow, by) = (bundle.clone(), Arc::clone(&workflow), by.clone());
            async move {
                let digest = definition_digest(&workflow, bundle.as_ref());
                let mut round = Round::begin(store.clone()).await?;
                let sources = &workflow.sources;
                let keep = sql(KEEP_DEFINITION)
                    .bind(digest.as_str())
                    .bind(&workflow.name)
                    .bind(&sources.main)
                    .bind(to_json(&sources.used)?)
                    .bind(bundle.as_ref().map(Digest::as_str));
                round.tx.execute(keep).await?;
                let keep = sql(KEEP_WORKFLOW)
                    .bind(&workflow.name)
                    .bind(digest.as_str())
                    .bind(round.now.as_millis())
                    .bind(by.as_str());
                let changed = round.tx.execute(keep).await? > 0;
                if changed {
                    round.keep_schedules(&workflow).await?;
                    let row = round.tx.one(sql(PAUSED).bind(&workflow.name)).await?;
                    round.keep_gatherings(&workflow, paused(&row)?.is_some()).await?;
                }
                round.hints.lanes = true;
                let hints = round.commit().await?;
                store.remember(digest, workflow);
                Ok((changed, hints))
            }
        })
        .await
    }

    /// From now on the workflow's triggers start nothing: events that match are told so, what is gathered and not due yet
    /// waits. One that is paused already stays so since then; with a reason, it is this one's pause from now on.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn pause_workflow(
        &self,
        name: &str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Hints, ChangeError> {
        let (name, by, reason) = (name.to_owned(), by.to_owned(), reason.map(str::to_owned));
        self.durably(move |store| {
            let (name, by, reason) = (name.clone(), by.clone(), reason.clone());
            async move {
                let mut round = Round::begin(store).await?;
                let paused = round.registered(&name).await?.paused;
                if paused.is_none() || reason.is_some() {
                    let at = paused.as_ref().map_or(round.now, |paused| paused.at).as_millis();
                    round.tx.execute(sql(PAUSE).bind(&name).bind(at).bind(by).bind(reason)).await?;
                }
                if paused.is_none() {
                    round.hold_gatherings(&name).await?;
                }
                Ok(round.commit().await?)
            }
        })
        .await
    }

    /// The workflow's triggers go on: what was gathered is due by their rules, and schedules catch up by theirs.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn resume_workflow(&self, name: &str) -> Result<Hints, ChangeError> {
        let name = name.to_owned();
        self.durably(move |store| {
            let name = name.clone();
            async move {
                let mut round = Round::begin(store).await?;
                let mut current = round.registered(&name).await?;
                if let Some(paused) = current.paused.take() {
                    round.tx.execute(sql(RESUME).bind(&name)).await?;
                    round.keep_gatherings(&current.workflow, false).await?;
                    round.catch_up(&current, paused.at).await?;
                    round.hints.lanes = true;
                }
                Ok(round.commit().await?)
            }
        })
        .await
    }

    /// Takes a workflow out: it has no triggers any more, and what they gathered starts nothing. Its runs and its model
    /// stay. With `force`, those that are active are cancelled in the same transaction.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn delete_workflow(
        &self,
        name: &str,
        force: bool,
        by: &str,
        reason: Option<&str>,
    ) -> Result<(Deletion, Hints), ChangeError> {
        let (name, by, reason) = (name.to_owned(), by.to_owned(), reason.map(str::to_owned));
        self.durably(move |store| {
            let (name, by, reason) = (name.clone(), by.clone(), reason.clone());
            async move {
                let mut round = Round::begin(store).await?;
                round.registered(&name).await?;
                let find = sql(ACTIVE_RUNS).bind(&name).bind(DELETED_RUNS_MAX as i64 + 1);
                let active = round.tx.all(find).await?;
                if let Some(first) = active.first().filter(|_| !force || active.len() > DELETED_RUNS_MAX) {
                    return Ok((Deletion::Busy(active.len(), run_name(first)?), Hints::default()));
                }
                let mut cancelled = Vec::new();
                for row in &active {
                    let id = row.int("id")?;
                    if round.hold_readable(id).await?.is_some_and(|run| !is_ending(run)) {
                        let by = format!("{by}, who deleted the workflow");
                        round.change_held(id, Input::Cancelled { by }).await?;
                        cancelled.push(run_name(row)?);
                    }
                }
                let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let why = format!("the workflow was deleted by {by}{why}");
                let gathered = round.drop_gatherings(&name, &why).await?;
                round.drop_schedules(&name).await?;
                let at = round.now.as_millis();
                round.tx.execute(sql(DELETE).bind(&name).bind(at).bind(by).bind(reason)).await?;
                round.hints.lanes = true;
                Ok((Deletion::Done { cancelled, gathered }, round.commit().await?))
            }
        })
        .await
    }
}

impl Round {
    async fn registered(&mut self, name: &str) -> Result<CurrentWorkflow, ChangeError> {
        let found = self.store.current_workflow(&mut self.tx, name).await?;
        found.ok_or_else(|| ChangeError::NotFound(format!("workflow {name}")))
    }
}

fn run_name(row: &Row) -> Result<RunName, StoreError> {
    Ok(RunName::new(row.text("workflow")?, row.int("number")?))
}

/// The pause of a workflow's row.
pub(super) fn paused(row: &Row) -> Result<Option<PausedView>, StoreError> {
    let Some(at) = row.opt_int("paused_at")? else { return Ok(None) };
    let (by, reason) = (row.text("paused_by")?, row.opt_text("paused_reason")?);
    Ok(Some(PausedView { at: Timestamp::from_millis(at), by, reason }))
}

fn current_row(row: &Row, digest: Digest, workflow: Arc<Workflow>) -> Result<CurrentWorkflow, StoreError> {
    let applied_at = Timestamp::from_millis(row.int("applied_at")?);
    Ok(CurrentWorkflow { digest, bundle: bundle(row)?, workflow, applied_at, paused: paused(row)? })
}

fn bundle(row: &Row) -> Result<Option<Digest>, StoreError> {
    row.opt_text("bundle")?.map(|text| text.parse().map_err(StoreError::Corrupt)).transpose()
}
