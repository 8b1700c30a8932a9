//! A turn: one transaction in which runs change and steps are leased, for one who asks or for several at once. Runs are
//! locked when they are first needed, held until the end, and written together. Must never happen here: a decision about
//! a run, which is `Run::apply`'s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use refit_workflows::names::RunName;
use refit_workflows::run::{Effect, Input, Run, RunState};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::StepOrder;

use super::database::{Row, Sql, Transaction, sql};
use super::writes::Writes;
use super::{ChangeError, Hints, Store, StoreError, cache, checkpoints};

const LOCK_RUN: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE id = $1",
    postgres: "SELECT id, version FROM runs WHERE id = $1 FOR UPDATE",
};
const LOCK_NAMED: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2",
    postgres: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2 FOR UPDATE",
};
const RUN_BY_ID: &str = "SELECT id, definition, version, facts, head FROM runs WHERE id = $1";
// Only for a session that is its worker's own and takes work: a long poll may outlive either.
const READY: Sql = Sql {
    sqlite: "SELECT r.id, r.version FROM steps s JOIN runs r ON r.id = s.run WHERE s.state = 'ready'
        AND EXISTS (SELECT 1 FROM workers w WHERE w.name = $1 AND w.session = $2 AND w.draining = 0)
        ORDER BY s.ready_at, s.run, s.position LIMIT $3",
    postgres: "SELECT r.id, r.version FROM steps s JOIN runs r ON r.id = s.run WHERE s.state = 'ready'
        AND EXISTS (SELECT 1 FROM workers w WHERE w.name = $1 AND w.session = $2 AND w.draining = 0)
        ORDER BY s.ready_at, s.run, s.position LIMIT $3 FOR UPDATE OF r SKIP LOCKED",
};
const SHELVE: &str = "UPDATE steps SET state = 'blocked', ready_at = NULL WHERE run = $1 AND state = 'ready'";
const DELETE_LIVE: &str = "DELETE FROM live_metrics WHERE run = $1";

/// A worker's session that has room for steps.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The worker's name.
    pub worker: String,
    /// Its session.
    pub session: String,
    /// For how many steps.
    pub slots: usize,
}

/// A step that was leased.
#[derive(Debug)]
pub struct LeasedStep {
    /// Its run.
    pub run: RunName,
    /// Its place.
    pub position: usize,
    /// The lease's epoch.
    pub epoch: i64,
    /// What its worker is to do, or why that cannot be said.
    pub order: Result<StepOrder, String>,
    /// The names of the secrets that the order is to carry.
    pub secrets: Vec<String>,
}

/// One transaction and the runs it has locked.
pub(super) struct Turn {
    store: Store,
    pub(super) tx: Transaction,
    held: BTreeMap<i64, Run>,
    writes: Writes,
    /// Whether there is anything to commit.
    changed: bool,
    /// Something failed half-way: nothing of this turn may be committed.
    spoiled: bool,
}

impl Turn {
    pub(super) async fn begin(store: Store) -> Result<Self, StoreError> {
        let tx = store.database().begin().await?;
        let (held, writes) = (BTreeMap::new(), Writes::default());
        Ok(Self { store, tx, held, writes, changed: false, spoiled: false })
    }

    /// Whether an error left something behind, so that the whole turn must be dropped.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Something failed half-way.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Makes everything durable, and then keeps the runs in memory.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        debug_assert!(!self.spoiled, "what failed half-way is not committed");
        if self.changed {
            self.writes.write(&mut self.tx).await?;
            self.tx.commit().await?;
        }
        for (id, run) in self.held {
            self.store.committed(id, run);
        }
        Ok(())
    }

    /// Runs a statement of the caller's own; it is part of what is committed.
    pub(super) async fn execute(&mut self, statement: super::database::Statement) -> Result<u64, StoreError> {
        self.changed = true;
        self.tx.execute(statement).await
    }

    /// Locks the run of this name; its row.
    pub(super) async fn hold_named(&mut self, run: &RunName) -> Result<i64, ChangeError> {
        if let Some((&id, _)) = self.held.iter().find(|(_, held)| held.name() == run) {
            return Ok(id);
        }
        let row = self.tx.first(sql(LOCK_NAMED).bind(&run.workflow).bind(run.number)).await?;
        let row = row.ok_or_else(|| ChangeError::NotFound(format!("run {run}")))?;
        Ok(self.hold_row(&row).await?)
    }

    /// Locks the run of this row.
    pub(super) async fn hold(&mut self, id: i64) -> Result<&Run, ChangeError> {
        if !self.held.contains_key(&id) {
            let run = self.store.lock_run_in(&mut self.tx, id).await?;
            self.held.insert(id, run);
        }
        self.held.get(&id).ok_or_else(|| ChangeError::NotFound(format!("run of row {id}")))
    }

    /// Takes up the run of a row that is locked.
    async fn hold_row(&mut self, row: &Row) -> Result<i64, StoreError> {
        let id = row.int("id")?;
        if !self.held.contains_key(&id) {
            let run = self.store.locked_run(&mut self.tx, row).await?;
            self.held.insert(id, run);
        }
        Ok(id)
    }

    /// Applies an input to a run it holds. What is refused changes nothing.
    pub(super) async fn apply(&mut self, id: i64, input: Input) -> Result<Hints, ChangeError> {
        let Some(mut run) = self.held.remove(&id) else {
            return Err(ChangeError::NotFound(format!("run of row {id}")));
        };
        let (before, now) = (run.version(), self.store.clock().now());
        match self.store.apply_in(&mut self.tx, &mut self.writes, id, &mut run, input, now).await {
            Ok(hints) => {
                self.changed = true;
                self.writes.changed(id, &mut run)?;
                self.held.insert(id, run);
                Ok(hints)
            }
            // Only an untouched run may stay: a promotion's answer can be refused after its question was accepted.
            Err(error @ ChangeError::Refused(_)) if run.version() == before => {
                self.held.insert(id, run);
                Err(error)
            }
            Err(error) => {
                self.spoiled = true;
                Err(error)
            }
        }
    }

    /// The same, where a refusal is an answer like any other: then nothing.
    pub(super) async fn apply_unless_refused(
        &mut self,
        id: i64,
        input: Input,
    ) -> Result<Option<Hints>, StoreError> {
        match self.apply(id, input).await {
            Ok(hints) => Ok(Some(hints)),
            Err(ChangeError::Refused(_)) if !self.spoiled => Ok(None),
            Err(error) => Err(error.into_store()),
        }
    }

    /// Leases ready steps to a session: those of the run `first`, then whatever has waited longest.
    pub(super) async fn lease(
        &mut self,
        claim: &Claim,
        first: Option<i64>,
    ) -> Result<(Vec<LeasedStep>, Hints), ChangeError> {
        let (mut leased, mut hints) = (Vec::new(), Hints::default());
        if let Some(id) = first {
            while leased.len() < claim.slots {
                let Some((step, more)) = self.lease_one(id, claim).await? else { break };
                leased.push(step);
                hints = hints.and(more);
            }
        }
        let mut again = true;
        while std::mem::take(&mut again) && leased.len() < claim.slots {
            self.writes.write(&mut self.tx).await?;
            let free = claim.slots - leased.len();
            let ready = sql(READY).bind(&claim.worker).bind(&claim.session).bind(free as i64);
            for row in self.tx.all(ready).await? {
                match self.hold_row(&row).await {
                    Ok(id) => {
                        if let Some((step, more)) = self.lease_one(id, claim).await? {
                            leased.push(step);
                            hints = hints.and(more);
                        }
                    }
                    Err(StoreError::Corrupt(reason)) => {
                        self.shelve(row.int("id")?, &reason).await?;
                        again = true;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((leased, hints))
    }

    async fn lease_one(
        &mut self,
        id: i64,
        claim: &Claim,
    ) -> Result<Option<(LeasedStep, Hints)>, ChangeError> {
        let Some(position) = self.hold(id).await?.ready_steps().next() else { return Ok(None) };
        let (worker, session) = (claim.worker.clone(), claim.session.clone());
        let hints = self.apply(id, Input::Leased { step: position, worker, session }).await?;
        let run = self.hold(id).await?;
        let (name, step) = (run.name().clone(), Arc::clone(&run.steps()[position]));
        let (mut order, secrets) = (run.order(position), run.secrets(position).to_vec());
        if let Ok(StepOrder { key, checkpoint: Some(checkpoint), .. }) = &mut order {
            checkpoint.from = checkpoints::latest_in(&mut self.tx, id, &key.step, step.anew_after).await?;
        }
        Ok(Some((LeasedStep { run: name, position, epoch: step.epoch, order, secrets }, hints)))
    }

    /// Takes the ready steps of a run that cannot be read out of everybody's way: it must not stop the others.
    async fn shelve(&mut self, id: i64, reason: &str) -> Result<(), StoreError> {
        tracing::error!(
            run_row = id,
            reason,
            "a run cannot be read; its ready steps are not offered any more"
        );
        self.execute(sql(SHELVE).bind(id)).await?;
        Ok(())
    }
}

impl Store {
    /// Locks a run's row and gives the run: from memory when that holds the version of the database, else read. The
    /// caller keeps it hot again after its commit.
    pub(super) async fn lock_run_in(&self, tx: &mut Transaction, id: i64) -> Result<Run, ChangeError> {
        let gone = || ChangeError::NotFound(format!("run of row {id}"));
        let row = tx.first(sql(LOCK_RUN).bind(id)).await?.ok_or_else(gone)?;
        Ok(self.locked_run(tx, &row).await?)
    }

    /// The run of a locked row, of which `id` and `version` are known.
    async fn locked_run(&self, tx: &mut Transaction, row: &Row) -> Result<Run, StoreError> {
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
        let mut open = VecDeque::from([input]);
        while let Some(input) = open.pop_front() {
            let effects = match run.apply(&input, now) {
                // Between the question and this answer, another answer has changed what the step was about to do.
                Err(_) if matches!(input, Input::Recalled { .. }) => continue,
                applied => applied?,
            };
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
                    Effect::Recall { step, key, since } => {
                        open.extend(cache::recall_in(tx, step, &key, since, now).await?);
                    }
                    Effect::Remember { step: _, key, results } => {
                        cache::remember_in(tx, id, &key, &results, now).await?;
                    }
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
}
