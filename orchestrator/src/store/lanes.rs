//! Lanes: what goes on among the runs of a workflow with the same `concurrency.key`, and starting those that wait once
//! nothing hinders them any more. What may start is decided by `workflows::trigger::LaneRule`; here is what it looks at.
//!
//! Holds the `trigger` duty's row whenever it changes something, so that a lane never holds more runs than its limit. The
//! rule is that of the workflow as it is applied now, whatever the waiting run is pinned to. Must never happen here: a
//! run that is created.

use refit_workflows::definition::{OnConflict, Workflow};
use refit_workflows::digest::Digest;
use refit_workflows::run::{Input, Run, RunState};
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Admission, Asks, Hindrance, Lane, LaneRule, step_begun};

use super::database::{Row, Transaction, sql};
use super::dispatch::Round;
use super::launch::Held;
use super::{ChangeError, Store, StoreError};

/// The most waiting runs of a lane that one transaction starts.
pub(super) const ADMIT_MAX: i64 = 100;

const LANE: &str = "SELECT
    (SELECT COUNT(*) FROM runs WHERE workflow = $1 AND lane = $2 AND state = 'running') AS running,
    (SELECT COUNT(*) FROM runs WHERE workflow = $1 AND lane = $2 AND state = 'waiting') AS waiting,
    (SELECT MAX(started_at) FROM runs
        WHERE workflow = $1 AND lane = $2 AND started_at IS NOT NULL) AS last_start,
    (SELECT MAX(id) FROM runs WHERE workflow = $1 AND lane = $2 AND state = 'waiting'
        AND started_at IS NULL AND definition = $3) AS absorber";
const WAITING_OF_LANE: &str = "SELECT id, definition, started_at FROM runs
    WHERE workflow = $1 AND lane = $2 AND state = 'waiting' ORDER BY id LIMIT $3";
const RUNNING_OF_LANE: &str = "SELECT id FROM runs
    WHERE workflow = $1 AND lane = $2 AND state = 'running' ORDER BY id LIMIT $3";
const PLACE: &str = "SELECT r.started_at, (SELECT COUNT(*) FROM runs o
        WHERE o.workflow = $1 AND o.lane = $2 AND o.state = 'waiting' AND o.id < $3) AS before
    FROM runs r WHERE r.id = $3";

/// The most running runs of a lane that are looked at for one that may be cancelled.
const SURVEY_MAX: i64 = 100;

/// Runs of a workflow that share a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneName {
    pub(super) workflow: String,
    pub(super) lane: String,
}

/// What a round knows of a lane. Runs that end meanwhile are still counted: then it starts one too few, never one too
/// many, and whoever ends them has it looked at again.
#[derive(Clone, Copy)]
pub(super) struct LaneState {
    pub(super) lane: Lane,
    /// The row of the waiting run that can take more events in.
    pub(super) absorber: Option<i64>,
}

impl Store {
    /// What keeps the next run of a lane from starting, by the rule of its workflow as it is applied now.
    pub(super) async fn hindrance(
        &self,
        tx: &mut Transaction,
        workflow: &str,
        lane_name: &str,
    ) -> Result<Option<Hindrance>, StoreError> {
        let Some(current) = self.current_workflow(tx, workflow).await? else { return Ok(None) };
        let row = tx.one(sql(LANE).bind(workflow).bind(lane_name).bind("")).await?;
        Ok(hindrance(current.workflow.lane_rule().decide(&lane(&row)?, Asks::Waiting, self.clock().now())))
    }

    /// What keeps this waiting run from starting.
    pub(super) async fn hindrance_of(
        &self,
        tx: &mut Transaction,
        id: i64,
        run: &Run,
    ) -> Result<Option<Hindrance>, StoreError> {
        let (workflow, lane_name) = (&run.name().workflow, &run.facts().lane);
        let Some(current) = self.current_workflow(tx, workflow).await? else { return Ok(None) };
        let row = tx.one(sql(LANE).bind(workflow).bind(lane_name).bind("")).await?;
        let place = tx.one(sql(PLACE).bind(workflow).bind(lane_name).bind(id)).await?;
        let asks = if place.opt_int("started_at")?.is_some() { Asks::Retried } else { Asks::Waiting };
        let lane = Lane { waiting: place.int("before")?.unsigned_abs(), ..lane(&row)? };
        Ok(hindrance(current.workflow.lane_rule().decide(&lane, asks, self.clock().now())))
    }
}

fn hindrance(admission: Admission) -> Option<Hindrance> {
    match admission {
        Admission::Start => None,
        Admission::Wait(hindrance)
        | Admission::Absorb(hindrance)
        | Admission::Skip(hindrance)
        | Admission::Cancel(_, hindrance) => Some(hindrance),
    }
}

impl Round {
    /// What goes on in a lane; looked up once a round, kept true by what the round does.
    pub(super) async fn lane(
        &mut self,
        name: &LaneName,
        definition: &Digest,
    ) -> Result<LaneState, StoreError> {
        if let Some(&known) = self.lanes.get(name) {
            return Ok(known);
        }
        self.flush().await?;
        let find = sql(LANE).bind(&name.workflow).bind(&name.lane).bind(definition.as_str());
        let row = self.tx.one(find).await?;
        let absorber = row.opt_int("absorber")?;
        let waiting = row.int("waiting")?.unsigned_abs();
        let lane = Lane { waiting, absorbs: absorber.is_some(), ..lane(&row)? };
        let state = LaneState { lane, absorber };
        self.lanes.insert(name.clone(), state);
        Ok(state)
    }

    /// Locks a run's row, once a round.
    pub(super) async fn hold(&mut self, id: i64) -> Result<&mut Held, ChangeError> {
        use std::collections::btree_map::Entry;
        match self.held.entry(id) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(place) => {
                let run = self.store.lock_run_in(&mut self.tx, id).await?;
                Ok(place.insert(Held::of(run)))
            }
        }
    }

    /// Locks a waiting or running run; none for one that cannot be read, which must not stop those beside it.
    pub(super) async fn hold_readable(&mut self, id: i64) -> Result<Option<&Run>, ChangeError> {
        match self.hold(id).await {
            Ok(_) => Ok(self.held.get(&id).map(|held| &held.run)),
            Err(ChangeError::Store(StoreError::Corrupt(reason))) => {
                tracing::error!(run_row = id, reason, "a run cannot be read; the others of its lane go on");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Locks a run and says whether it waits still: somebody may have cancelled it before it was locked.
    pub(super) async fn hold_waiting(&mut self, id: i64) -> Result<bool, ChangeError> {
        let run = self.hold_readable(id).await?;
        Ok(run.is_some_and(|run| matches!(run.head().state, RunState::Waiting { .. })))
    }

    /// Applies an input to a run that this round holds; what changed is written with the next [`Round::flush`].
    pub(super) async fn change_held(&mut self, id: i64, input: Input) -> Result<(), ChangeError> {
        self.hold(id).await?;
        let Some(held) = self.held.get_mut(&id) else { return Ok(()) };
        let (tx, writes) = (&mut self.tx, &mut self.writes);
        let hints = self.store.apply_in(tx, writes, id, &mut held.run, input, self.now).await?;
        self.writes.changed(id, &mut held.run)?;
        self.hints = self.hints.and(hints);
        Ok(())
    }

    /// Starts a run, with the champion as it is now.
    pub(super) async fn admit(&mut self, id: i64) -> Result<(), ChangeError> {
        let workflow = self.hold(id).await?.run.workflow().clone();
        let champion = match &workflow.model {
            Some(model) => self.store.champion_in(&mut self.tx, model, workflow.champion_alias()).await?,
            None => None,
        };
        self.change_held(id, Input::Admitted { champion }).await?;
        if let Some(held) = self.held.get_mut(&id) {
            self.writes.started(id, &mut held.run, self.now)?;
        }
        Ok(())
    }

    /// Starts the waiting runs of a lane that nothing hinders, oldest first.
    pub(super) async fn admit_waiting(&mut self, name: &LaneName) -> Result<(), StoreError> {
        self.admit_in(name).await.map_err(ChangeError::into_store)
    }

    async fn admit_in(&mut self, name: &LaneName) -> Result<(), ChangeError> {
        self.flush().await?;
        let find = sql(WAITING_OF_LANE).bind(&name.workflow).bind(&name.lane).bind(ADMIT_MAX);
        let waiting = self.tx.all(find).await?;
        let Some(first) = waiting.first() else { return Ok(()) };
        let (workflow, definition) = match self.store.current_workflow(&mut self.tx, &name.workflow).await? {
            Some(current) => (current.workflow, current.digest),
            None => {
                let definition: Digest = first.parsed("definition")?;
                (self.store.definition(&mut self.tx, &definition).await?, definition)
            }
        };
        let rule = workflow.lane_rule();
        for row in &waiting {
            let id = row.int("id")?;
            let retried = row.opt_int("started_at")?.is_some();
            let asks = if retried { Asks::Retried } else { Asks::Waiting };
            let mut lane = Lane { waiting: 0, ..self.lane(name, &definition).await?.lane };
            if asks == Asks::Waiting {
                self.survey(name, &workflow, &rule, &mut lane).await?;
            }
            match rule.decide(&lane, asks, self.now) {
                Admission::Start => {
                    if self.hold_waiting(id).await? {
                        self.admit(id).await?;
                        self.note_start(name, retried);
                    }
                }
                // A run that was retried waits for no cooldown.
                Admission::Wait(Hindrance::Cooldown { .. }) => {}
                Admission::Cancel(count, _) => {
                    if self.hold_waiting(id).await? {
                        return self.cancel_for(id, name, &workflow, count).await;
                    }
                }
                Admission::Wait(_) | Admission::Absorb(_) | Admission::Skip(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// A run of the lane has started.
    pub(super) fn note_start(&mut self, name: &LaneName, retried: bool) {
        let now = self.now;
        if let Some(state) = self.lanes.get_mut(name) {
            state.lane.running += 1;
            if !retried {
                state.lane.last_start = Some(now);
            }
        }
    }

    /// Finds out which of the lane's runs are ending and which may be cancelled, where the rule asks for it.
    pub(super) async fn survey(
        &mut self,
        name: &LaneName,
        workflow: &Workflow,
        rule: &LaneRule,
        lane: &mut Lane,
    ) -> Result<(), ChangeError> {
        let OnConflict::CancelRunning { before } = rule.on_conflict else { return Ok(()) };
        if lane.running < u64::from(rule.limit) {
            return Ok(());
        }
        let before = before.map(|step| workflow.steps[step].name.as_str());
        (lane.ending, lane.cancellable) = (0, 0);
        for id in self.running_in(name).await? {
            let Some(run) = self.hold_readable(id).await? else { continue };
            lane.ending += u64::from(is_ending(run));
            lane.cancellable += u64::from(is_cancellable(run, before));
        }
        Ok(())
    }

    async fn running_in(&mut self, name: &LaneName) -> Result<Vec<i64>, StoreError> {
        self.flush().await?;
        let find = sql(RUNNING_OF_LANE).bind(&name.workflow).bind(&name.lane).bind(SURVEY_MAX);
        self.tx.all(find).await?.iter().map(|row| row.int("id")).collect()
    }

    /// Cancels the oldest runs of a lane that may be, for a waiting run, which stands for their events from now on.
    pub(super) async fn cancel_for(
        &mut self,
        heir: i64,
        name: &LaneName,
        workflow: &Workflow,
        count: u64,
    ) -> Result<(), ChangeError> {
        let OnConflict::CancelRunning { before } = workflow.concurrency.on_conflict else { return Ok(()) };
        let before = before.map(|step| workflow.steps[step].name.as_str());
        let heir_name = self.hold(heir).await?.run.name().clone();
        let mut cancelled = Vec::new();
        for id in self.running_in(name).await? {
            if (cancelled.len() as u64) < count
                && self.hold_readable(id).await?.is_some_and(|run| is_cancellable(run, before))
            {
                cancelled.push(id);
            }
        }
        self.inherit(heir, &cancelled, "was cancelled").await?;
        for id in cancelled {
            self.change_held(id, Input::Cancelled { by: format!("{heir_name}, which starts in its place") })
                .await?;
        }
        self.lanes.remove(name);
        Ok(())
    }
}

pub(super) fn is_ending(run: &Run) -> bool {
    match &run.head().state {
        RunState::Running { cancel, .. } => cancel.is_some(),
        RunState::Over { .. } => true,
        RunState::Waiting { .. } => false,
    }
}

/// Whether it goes on and has not begun the step `before`. A run of another version of the workflow that has no such
/// step is left alone.
fn is_cancellable(run: &Run, before: Option<&str>) -> bool {
    let goes_on = matches!(run.head().state, RunState::Running { cancel: None, .. });
    goes_on && before.is_none_or(|step| step_begun(run, step) == Some(false))
}

/// What goes on in a lane, without those who wait in it.
/// What a row tells of a lane.
pub(super) fn lane(row: &Row) -> Result<Lane, StoreError> {
    Ok(Lane {
        running: row.int("running")?.unsigned_abs(),
        last_start: row.opt_int("last_start")?.map(Timestamp::from_millis),
        ..Lane::default()
    })
}
