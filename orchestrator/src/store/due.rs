//! What is due now, and when something is due next: one statement, because every event, every step's end and every moment
//! that something waits for is followed by such a look. Changes nothing; what is due is `dispatch`'s to do.
//!
//! Must never happen here: a look that costs more the more runs wait, or the more events there are.

use std::sync::Arc;

use refit_workflows::definition::Workflow;
use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{Admission, Asks, Hindrance};

use super::database::{Row, sql};
use super::lanes::{self, LaneName};
use super::{Store, StoreError};

/// A row for each thing that is due, by its `kind`; `soon` says when the next batch, slot, watch or run is. The lanes in which runs
/// wait are found one after the other by the index: what that costs depends on how many lanes there are, and not on how
/// many runs wait in them. A lane's `definition` is the one whose rule its runs wait by: the workflow's, or a run's own where
/// the workflow is gone.
const LOOK: &str = "WITH RECURSIVE lanes (run) AS (
        SELECT (SELECT id FROM runs WHERE state = 'waiting' AND workflow >= ''
            ORDER BY workflow, lane, id LIMIT 1)
        UNION ALL
        SELECT COALESCE(
            (SELECT n.id FROM runs n WHERE n.state = 'waiting' AND n.workflow = r.workflow AND n.lane > r.lane
                ORDER BY n.lane, n.id LIMIT 1),
            (SELECT n.id FROM runs n WHERE n.state = 'waiting' AND n.workflow > r.workflow
                ORDER BY n.workflow, n.lane, n.id LIMIT 1))
        FROM lanes l JOIN runs r ON r.id = l.run)
    SELECT 'lane' AS kind, f.workflow AS workflow, f.lane AS name, COALESCE(w.definition, f.definition) AS definition,
        (SELECT COUNT(*) FROM runs r
            WHERE r.workflow = f.workflow AND r.lane = f.lane AND r.state = 'running') AS running,
        (SELECT MAX(r.started_at) FROM runs r
            WHERE r.workflow = f.workflow AND r.lane = f.lane AND r.started_at IS NOT NULL) AS last_start,
        (SELECT COUNT(*) FROM (SELECT r.id FROM runs r WHERE r.state = 'waiting' AND r.workflow = f.workflow
            AND r.lane = f.lane AND r.started_at IS NULL LIMIT 1) AS one) AS fresh,
        (SELECT COUNT(*) FROM (SELECT r.id FROM runs r WHERE r.state = 'waiting' AND r.workflow = f.workflow
            AND r.lane = f.lane AND r.started_at IS NOT NULL LIMIT 1) AS one) AS retried,
        f.id AS number
    FROM lanes l JOIN runs f ON f.id = l.run LEFT JOIN workflows w
        ON w.name = f.workflow AND w.deleted_at IS NULL
    UNION ALL SELECT 'slot', workflow, trigger_id, NULL, NULL, NULL, NULL, NULL, NULL FROM
        (SELECT workflow, trigger_id FROM schedules WHERE next_at <= $1 ORDER BY next_at LIMIT 100) AS slots
    UNION ALL SELECT 'batch', NULL, NULL, NULL, NULL, NULL, NULL, NULL, seq FROM
        (SELECT seq FROM batches WHERE open = 1 AND due_at <= $1 ORDER BY due_at LIMIT 50) AS due
    UNION ALL SELECT 'watch', NULL, NULL, NULL, NULL, NULL, NULL, NULL, seq FROM
        (SELECT seq FROM watches WHERE ended_at IS NULL AND until <= $1 ORDER BY until LIMIT 50) AS watched
    UNION ALL SELECT 'event', NULL, NULL, NULL, NULL, NULL, NULL, NULL, seq FROM
        (SELECT seq FROM events WHERE routed = 0 LIMIT 1) AS unrouted
    UNION ALL SELECT 'replay', NULL, NULL, NULL, NULL, NULL, NULL, NULL, seq FROM
        (SELECT seq FROM replays WHERE finished_at IS NULL LIMIT 1) AS open
    UNION ALL SELECT 'soon', NULL, NULL, NULL, NULL, NULL, NULL, NULL, MIN(due_at) FROM batches WHERE open = 1
    UNION ALL SELECT 'soon', NULL, NULL, NULL, NULL, NULL, NULL, NULL, MIN(next_at) FROM schedules
        WHERE next_at IS NOT NULL
    UNION ALL SELECT 'soon', NULL, NULL, NULL, NULL, NULL, NULL, NULL, MIN(until) FROM watches
        WHERE ended_at IS NULL";

/// What a look found.
pub(super) struct Due {
    /// When it was.
    pub(super) at: Timestamp,
    /// Whether an event is to be routed.
    pub(super) unrouted: bool,
    /// Whether a replay is under way.
    pub(super) replay: bool,
    /// Slots that are due: workflow and trigger.
    pub(super) slots: Vec<(String, String)>,
    /// Batches and joins that are due.
    pub(super) batches: Vec<i64>,
    /// Watches whose time is over.
    pub(super) watches: Vec<i64>,
    /// Lanes in which a waiting run may start.
    pub(super) lanes: Vec<LaneName>,
    /// When the next batch or slot is due or a watch over, or the next cooldown for which a run waits and nothing else hinders.
    pub(super) next: Option<Timestamp>,
}

impl Store {
    /// Looks at everything that may be due.
    pub(super) async fn due(&self) -> Result<Due, StoreError> {
        self.durably(|store| async move {
            let at = store.clock().now();
            let (slots, batches, watches, lanes) = Default::default();
            let mut due =
                Due { at, unrouted: false, replay: false, slots, batches, watches, lanes, next: None };
            for row in store.database().all(sql(LOOK).bind(at.as_millis())).await? {
                match row.text("kind")?.as_str() {
                    "lane" => store.look_at_lane(&row, &mut due).await?,
                    "slot" => due.slots.push((row.text("workflow")?, row.text("name")?)),
                    "batch" => due.batches.push(row.int("number")?),
                    "watch" => due.watches.push(row.int("number")?),
                    "event" => due.unrouted = true,
                    "replay" => due.replay = true,
                    _ => due.next_is(row.opt_int("number")?.map(Timestamp::from_millis)),
                }
            }
            Ok(due)
        })
        .await
    }

    /// Whether one of a lane's runs may start, by the rule of its workflow as it is applied now.
    async fn look_at_lane(&self, row: &Row, due: &mut Due) -> Result<(), StoreError> {
        let workflow = match self.rule_giver(row.parsed("definition")?).await {
            Ok(workflow) => workflow,
            Err(StoreError::Corrupt(reason)) => {
                tracing::error!(reason, "runs wait for a workflow that cannot be read");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let rule = workflow.lane_rule();
        let mut lane = lanes::lane(row)?;
        // Without a cooldown, whoever could be cancelled was when the run came.
        lane.cancellable = if rule.cooldown.is_some() { lane.running } else { 0 };
        let retried = (row.int("retried")? > 0).then_some(Asks::Retried);
        let fresh = (row.int("fresh")? > 0).then_some(Asks::Waiting);
        for asks in retried.into_iter().chain(fresh) {
            match rule.decide(&lane, asks, due.at) {
                Admission::Start | Admission::Cancel(..) => {
                    let name = LaneName { workflow: row.text("workflow")?, lane: row.text("name")? };
                    if due.lanes.last() != Some(&name) {
                        due.lanes.push(name);
                    }
                }
                Admission::Wait(Hindrance::Cooldown { until }) => due.next_is(Some(until)),
                Admission::Wait(_) | Admission::Absorb(_) | Admission::Skip(_) => {}
            }
        }
        Ok(())
    }

    async fn rule_giver(&self, definition: Digest) -> Result<Arc<Workflow>, StoreError> {
        match self.known_definition(&definition) {
            Some(known) => Ok(known),
            None => self.definition(&mut self.database().read().await?, &definition).await,
        }
    }

    /// When the next batch or slot is due, or the next cooldown over for which a run waits.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.due().await?.next)
    }
}

impl Due {
    /// Whether nothing is due.
    pub(super) fn is_idle(&self) -> bool {
        let Self { at: _, unrouted, replay, slots, batches, watches, lanes, next: _ } = self;
        !unrouted
            && !replay
            && slots.is_empty()
            && batches.is_empty()
            && watches.is_empty()
            && lanes.is_empty()
    }

    fn next_is(&mut self, at: Option<Timestamp>) {
        self.next = [self.next, at].into_iter().flatten().min();
    }
}
