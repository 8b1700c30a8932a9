//! The triggers of many workflows, ready to be held against events, and by what a trigger is known while its workflow
//! changes around it. Must never happen here: a decision that needs more than patterns.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::definition::{Trigger, Workflow};
use crate::digest::Digest;
use crate::event::CloudEvent;
use crate::pattern::Pattern;

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
}

#[derive(Debug)]
struct Known {
    workflow: Arc<Workflow>,
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
        let known = |workflow: Arc<Workflow>| Known { ids: trigger_ids(&workflow), workflow };
        Self { workflows: workflows.into_iter().map(known).collect() }
    }

    /// What a trigger is known by: see [`trigger_ids`].
    pub fn id(&self, matched: &Match) -> &str {
        &self.workflows[matched.workflow].ids[matched.trigger]
    }

    /// The triggers whose patterns the event matches, in the order of workflows and of their files. `object` is the
    /// event as a JSON object.
    ///
    /// The one place that holds patterns against events: each in turn, in time proportional to how many there are.
    pub fn matching(&self, event: &CloudEvent, object: &Value) -> Vec<Match> {
        let slot = event.kind() == SCHEDULE_TYPE;
        let mut found = Vec::new();
        for (workflow, known) in self.workflows.iter().enumerate() {
            for (trigger, definition) in known.workflow.triggers.iter().enumerate() {
                let parts = match definition {
                    Trigger::Event(event) => matched(std::slice::from_ref(&event.pattern), object),
                    Trigger::Join(join) => matched(&join.parts, object),
                    Trigger::Cron(_) => {
                        let source = || schedule_source(&known.workflow.name, &known.ids[trigger]);
                        if slot && event.source() == source() { vec![0] } else { Vec::new() }
                    }
                };
                if !parts.is_empty() {
                    found.push(Match { workflow, trigger, parts });
                }
            }
        }
        found
    }
}

fn matched(patterns: &[Pattern], object: &Value) -> Vec<usize> {
    (0..patterns.len()).filter(|&place| patterns[place].matches(object)).collect()
}
