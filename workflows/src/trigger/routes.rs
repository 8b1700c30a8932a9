//! The triggers of many workflows, ready to be held against events, and by what a trigger is known while its workflow
//! changes around it. Must never happen here: a decision that needs more than patterns.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::definition::{Trigger, Workflow};
use crate::digest::Digest;
use crate::event::CloudEvent;
use crate::pattern::{Pattern, PatternSet};

/// The type of a schedule slot's event.
pub const SCHEDULE_TYPE: &str = "refit.schedule";

/// How many hexadecimal digits name a trigger.
const ID_DIGITS: usize = 16;

/// The source of the slots of a schedule, named by its id.
pub fn schedule_source(workflow: &str, id: &str) -> String {
    format!("/refit/workflows/{workflow}/schedules/{id}")
}

/// What each trigger of a workflow is known by: a digest of what it waits for (its kind, patterns, `where` and `by`, or
/// its schedule), so that triggers beside it may come, go and move, and its own batch rule, window and params may
/// change, while it gathers. Triggers that wait for the same are told apart by their order.
pub fn trigger_ids(workflow: &Workflow) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(workflow.triggers.len());
    for trigger in &workflow.triggers {
        let waits_for = waits_for(trigger);
        let id = (0..=ids.len())
            .map(|nth| {
                let digest = Digest::of(json!([waits_for, nth]).to_string().as_bytes());
                digest.hex()[..ID_DIGITS].to_owned()
            })
            .find(|id| !ids.contains(id));
        ids.push(id.unwrap_or_default());
    }
    ids
}

fn waits_for(trigger: &Trigger) -> Value {
    match trigger {
        Trigger::Event(event) => json!({
            "event": event.pattern.source(),
            "where": event.filter.as_ref().map(|filter| filter.source()),
            "by": event.key.as_ref().map(|key| key.source()),
        }),
        Trigger::Join(join) => json!({
            "all": join.parts.iter().map(Pattern::source).collect::<Vec<_>>(),
            "where": join.filter.as_ref().map(|filter| filter.source()),
            "by": join.key.as_ref().map(|key| key.source()),
        }),
        Trigger::Cron(cron) => {
            let (expression, zone) = cron.schedule.source();
            json!({ "cron": expression, "timezone": zone })
        }
    }
}

/// The triggers of many workflows.
#[derive(Debug)]
pub struct Triggers {
    workflows: Vec<Known>,
    patterns: PatternSet,
    /// What each pattern of the set belongs to: workflow, trigger and part, in ascending order.
    owners: Vec<(usize, usize, usize)>,
    /// The schedules, by the source of their slots: workflow and trigger.
    schedules: HashMap<String, (usize, usize)>,
}

#[derive(Debug)]
struct Known {
    ids: Vec<String>,
}

/// A trigger that an event matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The workflow's place among those given.
    pub workflow: usize,
    /// The trigger's place in its workflow.
    pub trigger: usize,
    /// The places of its patterns that the event matches.
    pub parts: Vec<usize>,
}

impl Triggers {
    /// The triggers of these workflows.
    pub fn new(workflows: impl IntoIterator<Item = Arc<Workflow>>) -> Self {
        let (mut known, mut owners, mut patterns) = (Vec::new(), Vec::new(), Vec::new());
        let mut schedules = HashMap::new();
        for (place, workflow) in workflows.into_iter().enumerate() {
            let ids = trigger_ids(&workflow);
            for (trigger, definition) in workflow.triggers.iter().enumerate() {
                let parts = match definition {
                    Trigger::Event(event) => std::slice::from_ref(&event.pattern),
                    Trigger::Join(join) => &join.parts,
                    Trigger::Cron(_) => {
                        schedules.insert(schedule_source(&workflow.name, &ids[trigger]), (place, trigger));
                        &[]
                    }
                };
                owners.extend((0..parts.len()).map(|part| (place, trigger, part)));
                patterns.extend(parts.iter().cloned());
            }
            known.push(Known { ids });
        }
        Self { workflows: known, patterns: PatternSet::new(patterns), owners, schedules }
    }

    /// What a trigger is known by: see [`trigger_ids`].
    pub fn id(&self, matched: &Match) -> &str {
        &self.workflows[matched.workflow].ids[matched.trigger]
    }

    /// The triggers whose patterns the event matches, in the order of workflows and of their files. `object` is the
    /// event as a JSON object. Not every pattern is tried: see [`PatternSet`].
    pub fn matching(&self, event: &CloudEvent, object: &Value) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        for place in self.patterns.matching(object) {
            let (workflow, trigger, part) = self.owners[place];
            match found.last_mut().filter(|last| (last.workflow, last.trigger) == (workflow, trigger)) {
                Some(last) => last.parts.push(part),
                None => found.push(Match { workflow, trigger, parts: vec![part] }),
            }
        }
        if event.kind() == SCHEDULE_TYPE
            && let Some(&(workflow, trigger)) = self.schedules.get(event.source())
        {
            found.push(Match { workflow, trigger, parts: vec![0] });
            found.sort_by_key(|found| (found.workflow, found.trigger));
        }
        found
    }
}
