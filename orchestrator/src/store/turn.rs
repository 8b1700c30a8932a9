//! A turn: one transaction in which runs change and steps are leased (`placement`), for one who asks or for several at
//! once. Runs are locked when they are first needed, held until the end, and written together. Must never happen here: a
//! decision about a run, which is `Run::apply`'s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use refit_workflows::names::RunName;
use refit_workflows::run::{Effect, Input, Run, RunState};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::StepOrder;

use super::database::{Row, Sql, Transaction, sql};
use super::writes::Writes;
use super::{ChangeError, Hints, Store, StoreError, cache, holdouts};

const LOCK_RUN: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE id = $1",
    postgres: "SELECT id, version FROM runs WHERE id = $1 FOR UPDATE",
};
const LOCK_NAMED: Sql = Sql {
    sqlite: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2",
    postgres: "SELECT id, version FROM runs WHERE workflow = $1 AND number = $2 FOR UPDATE",
};
const RUN_BY_ID: &str = "SELECT id, definition, version, facts, head FROM runs WHERE id = $1";
const SHELVE: &str = "UPDATE steps SET state = 'blocked', ready_at = NULL, line = NULL, needs = NULL
    WHERE run = $1 AND state = 'ready'";
const DELETE_LIVE: &str = "DELETE FROM live_metrics WHERE run = $1";

/// A worker's session that has room for steps.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whether its host is made up, and so has whatever a step asks for.
    pub any_host: bool,
    /// The worker's name.
    pub worker: String,
    /// Its session.
    pub session: String,
    /// For how many steps.
    pub slots: usize,
    /// A worker that was not heard of for this long is not waited for.
    pub silent_after: Duration,
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
    pub(super) store: Store,
    pub(super) tx: Transaction,
    held: BTreeMap<i64, Run>,
    /// The workers' sessions whose rows are locked.
    pub(super) locked_sessions: BTreeSet<String>,
    pub(super) writes: Writes,
    /// Whether there is anything to commit.
    changed: bool,
    /// Something failed half-way: nothing of this turn may be committed.
    spoiled: bool,
}

impl Turn {
    pub(super) async fn begin(store: Store) -> Result<Self, StoreError> {
        let tx = store.database().begin().await?;
        let (held, writes) = (BTreeMap::new(), Writes::default());
        let locked_sessions = BTreeSet::new();
        Ok(Self { store, tx, held, locked_sessions, writes, changed: false, spoiled: false })
    }

    /// Whether an error left something behind, so that the whole turn must be dropped.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
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
    pub(super) async fn hold_row(&mut self, row: &Row) -> Result<i64, StoreError> {
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

    /// Takes the ready steps of a run that cannot be read out of everybody's way: it must not stop the others.
    pub(super) async fn shelve(&mut self, id: i64, reason: &str) -> Result<(), StoreError> {
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
            hints.ready |= makes_room(run, &input);
            writes.accepted(id, run.version(), now, &input)?;
            for effect in effects {
                match effect {
                    Effect::Emit(event) => {
                        hints = hints.and(self.emit_in(tx, &event, &run.name().to_string(), now).await?);
                    }
                    Effect::Promote(promotion) => {
                        open.push_back(self.promote_in(tx, id, run, &promotion, now).await?);
                    }
                    Effect::Judged { step, holdouts } => {
                        holdouts::count_in(tx, (id, &*run), step, &holdouts).await?;
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

/// Whether this frees more of a host than a slot, which the worker that reports it need not be the first to ask for.
fn makes_room(run: &Run, input: &Input) -> bool {
    match input {
        Input::Finished { step, .. } | Input::WorkerLost { step, .. } => run.host_needs(*step).is_some(),
        Input::Admitted { .. }
        | Input::Coalesced { .. }
        | Input::Absorbed { .. }
        | Input::Leased { .. }
        | Input::Ticked
        | Input::Decided { .. }
        | Input::Promoted { .. }
        | Input::ChampionMoved { .. }
        | Input::ChildStarted { .. }
        | Input::ChildEnded { .. }
        | Input::ChildRefused { .. }
        | Input::Cancelled { .. }
        | Input::Retried { .. }
        | Input::Recalled { .. } => false,
    }
}
