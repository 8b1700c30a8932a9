//! Schedules: when each has its next slot, and slots that become events. A slot's instant is its event's id, so that
//! over any number of orchestrators one slot is one event for ever. Must never happen here: a run; a slot's event is
//! routed like any other.

use std::collections::VecDeque;
use std::time::Duration;

use refit_workflows::definition::{CatchUp, CronTrigger, Trigger, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::trigger::{BatchFacts, SCHEDULE_TYPE, schedule_source, trigger_ids};
use serde_json::json;

use super::StoreError;
use super::database::{Sql, sql};
use super::dispatch::{Origin, Round};
use super::workflows::CurrentWorkflow;

/// A slot fired later than this counts as missed, and `catch_up` decides.
const MISSED_AFTER: Duration = Duration::from_secs(60);

const DUE_SLOT: &str = "SELECT next_at FROM schedules
    WHERE workflow = $1 AND trigger_id = $2 AND next_at <= $3";
const NEXT_SLOT: &str = "UPDATE schedules SET next_at = $3 WHERE workflow = $1 AND trigger_id = $2";
const NO_SCHEDULES: &str = "DELETE FROM schedules WHERE workflow = $1";
/// The latest slots of a schedule since a moment that started nothing because the workflow was paused.
const PAUSED_SLOTS: &str = "SELECT e.seq, e.body FROM events e
    WHERE e.source = $1 AND e.received_at >= $2 AND EXISTS (SELECT 1 FROM decisions d
        WHERE d.event = e.seq AND d.workflow = $3 AND d.decision = 'paused')
    ORDER BY e.seq DESC LIMIT $4";
const FORGET_SCHEDULES: Sql = Sql {
    sqlite: "DELETE FROM schedules
        WHERE workflow = $1 AND trigger_id NOT IN (SELECT value FROM json_each($2))",
    postgres: "DELETE FROM schedules
        WHERE workflow = $1 AND trigger_id NOT IN (SELECT jsonb_array_elements_text($2::jsonb))",
};
const KEEP_SCHEDULE: &str = "INSERT INTO schedules (workflow, trigger_id, next_at) VALUES ($1, $2, $3)
    ON CONFLICT (workflow, trigger_id) DO NOTHING";

impl Round {
    /// Turns a schedule's due slots into events.
    pub(super) async fn fire_slot(&mut self, name: &str, id: &str) -> Result<(), StoreError> {
        let due = sql(DUE_SLOT).bind(name).bind(id).bind(self.now.as_millis());
        let Some(row) = self.tx.first(due).await? else { return Ok(()) };
        let found = self.store.current_workflow(&mut self.tx, name).await?;
        let trigger = found.as_ref().and_then(|current| {
            let place = trigger_ids(&current.workflow).iter().position(|known| known == id)?;
            Some((place, &current.workflow.triggers[place]))
        });
        let Some((place, Trigger::Cron(cron))) = trigger else { return Ok(()) };
        let (slots, next) = due_slots(cron, Timestamp::from_millis(row.int("next_at")?), self.now);
        for at in slots {
            let data = json!({ "workflow": name, "trigger": place, "slot": at });
            let source = schedule_source(name, id);
            let event = CloudEvent::new(&at.to_string(), &source, SCHEDULE_TYPE, Some(name), at, data);
            self.store.record_in(&mut self.tx, &event, self.now).await?;
            self.hints.events = true;
        }
        let next = next.map(Timestamp::as_millis);
        self.tx.execute(sql(NEXT_SLOT).bind(name).bind(id).bind(next)).await?;
        Ok(())
    }

    /// Keeps a next slot for each schedule of a workflow that was changed: a schedule that stayed the same keeps its
    /// own, wherever it stands in the file, so that applying a file skips no slot.
    pub(super) async fn keep_schedules(&mut self, workflow: &Workflow) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        for (id, trigger) in trigger_ids(workflow).into_iter().zip(&workflow.triggers) {
            if let Trigger::Cron(cron) = trigger {
                let next = cron.schedule.next_after(self.now).map(Timestamp::as_millis);
                self.tx.execute(sql(KEEP_SCHEDULE).bind(&workflow.name).bind(&id).bind(next)).await?;
                kept.push(id);
            }
        }
        let forget = sql(FORGET_SCHEDULES).bind(&workflow.name).bind(json!(kept).to_string());
        self.tx.execute(forget).await?;
        Ok(())
    }

    /// A workflow was deleted: it has no slots any more.
    pub(super) async fn drop_schedules(&mut self, workflow: &str) -> Result<(), StoreError> {
        self.tx.execute(sql(NO_SCHEDULES).bind(workflow)).await?;
        Ok(())
    }

    /// A workflow that was paused since then is resumed: of the slots that started nothing meanwhile, those fire that
    /// their schedule's `catch_up` asks for, oldest first. Other workflows have had these events already.
    pub(super) async fn catch_up(
        &mut self,
        current: &CurrentWorkflow,
        paused: Timestamp,
    ) -> Result<(), StoreError> {
        let name = &current.workflow.name;
        let ids = trigger_ids(&current.workflow);
        for (index, trigger) in current.workflow.triggers.iter().enumerate() {
            let Trigger::Cron(cron) = trigger else { continue };
            let find = sql(PAUSED_SLOTS)
                .bind(schedule_source(name, &ids[index]))
                .bind(paused.as_millis())
                .bind(name)
                .bind(CatchUp::ALL_MAX as i64);
            let mut slots = VecDeque::new();
            for row in self.tx.all(find).await? {
                let event: CloudEvent = row.json("body")?;
                slots.push_front((event.time().unwrap_or_default(), (row.int("seq")?, event)));
            }
            for (_, (seq, event)) in wanted(slots, cron.catch_up, self.now) {
                let object = serde_json::Value::Object(event.attributes().clone());
                let (first, last) = (object.clone(), object);
                let facts = BatchFacts { key: String::new(), count: 1, sum: None, first, last };
                self.fire(current, index, facts, Origin::Event(seq), trigger.words()).await?;
            }
        }
        Ok(())
    }
}

/// Of slots that were missed, oldest first, those that `catch_up` asks for.
fn wanted<T>(mut slots: VecDeque<(Timestamp, T)>, catch_up: CatchUp, now: Timestamp) -> Vec<(Timestamp, T)> {
    match catch_up {
        CatchUp::None => slots.into_iter().filter(|(at, _)| now.since(*at) <= MISSED_AFTER).collect(),
        CatchUp::Last => slots.pop_back().into_iter().collect(),
        CatchUp::All => slots.into(),
    }
}

/// The slots from `due` to `now` that fire by the trigger's `catch_up`, oldest first, and the next one after `now`.
fn due_slots(cron: &CronTrigger, due: Timestamp, now: Timestamp) -> (Vec<Timestamp>, Option<Timestamp>) {
    let mut slots = VecDeque::new();
    let mut slot = Some(due);
    while let Some(at) = slot.filter(|&at| at <= now) {
        slots.push_back((at, ()));
        if slots.len() > CatchUp::ALL_MAX {
            slots.pop_front();
        }
        slot = cron.schedule.next_after(at);
    }
    (wanted(slots, cron.catch_up, now).into_iter().map(|(at, ())| at).collect(), slot)
}
