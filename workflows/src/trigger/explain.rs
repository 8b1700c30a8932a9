//! The record of an event in sentences: what was decided about it and why, and why a workflow wants nothing to do with
//! it. For people who ask afterwards; must never happen here: anything that routing an event needs.

use serde_json::Value;

use super::words::part_words;
use crate::definition::{Trigger, Workflow};
use crate::pattern::{Mismatch, Pattern};
use crate::time::Timestamp;
use crate::wire::DecisionView;

/// What can be decided about an event.
pub const DECISIONS: [&str; 13] = [
    "started",
    "batched",
    "joined",
    "coalesced",
    "queued",
    "skipped",
    "cooldown",
    "unmatched",
    "filter_error",
    "duplicate",
    "paused",
    "rolled_back",
    "watched",
];

/// The trigger of a workflow that comes closest to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Its place in the file.
    pub trigger: usize,
    /// Of a join, the place of the pattern.
    pub part: Option<usize>,
    /// What it asks for, in words.
    pub words: String,
    /// What does not hold; none when the event matches it.
    pub mismatch: Option<Mismatch>,
}

impl Nearest {
    /// How much of its pattern holds, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.mismatch.as_ref().map_or(1.0, |miss| miss.held as f64 / miss.of.max(1) as f64)
    }
}

/// The trigger of a workflow that comes closest to an event (a JSON object); none for a workflow that only people and
/// schedules start.
pub fn nearest(workflow: &Workflow, event: &Value) -> Option<Nearest> {
    let mut best: Option<Nearest> = None;
    for (place, trigger) in workflow.triggers.iter().enumerate() {
        let parts: &[Pattern] = match trigger {
            Trigger::Event(event) => std::slice::from_ref(&event.pattern),
            Trigger::Join(join) => &join.parts,
            Trigger::Cron(_) => &[],
        };
        for (part, pattern) in parts.iter().enumerate() {
            let found = Nearest {
                trigger: place,
                part: (parts.len() > 1).then_some(part),
                words: part_words(pattern),
                mismatch: pattern.mismatch(event),
            };
            if best.as_ref().is_none_or(|best| found.share() > best.share()) {
                best = Some(found);
            }
        }
    }
    best
}

/// What a sentence about a decision has to know besides the decision.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The trigger in words; none where the workflow was changed since, or is gone.
    pub trigger: Option<String>,
    /// When the event was received.
    pub received_at: Timestamp,
    /// Whether the event had been gathered by the same trigger before.
    pub gathered_before: bool,
    /// Whether the event came to this run with another one.
    pub inherited: bool,
    /// The batch or join it went into.
    pub gathered: Option<Gathered>,
}

/// A batch or join, as it is now.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Its number.
    pub number: i64,
    /// The value of `by`.
    pub key: String,
    /// Events so far, or in the end.
    pub count: u64,
    /// What it still waits for, in words; none once it is over.
    pub waits_for: Option<String>,
    /// Since when it is held because its workflow is paused.
    pub held_since: Option<Timestamp>,
}

/// A decision in a sentence.
pub fn sentence(decision: &DecisionView, told: &Told) -> String {
    let workflow = &decision.workflow;
    let reason = decision.reason.as_deref().unwrap_or_default();
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let run = decision.run.as_ref().map(ToString::to_string).unwrap_or_default();
    let matched = matched(decision, told);
    match decision.decision.as_str() {
        "started" => {
            format!("{matched}; run {run} started{}.", if told.gathered_before { "" } else { " at once" })
        }
        "batched" | "joined" => gathered(decision, told, &matched, reason),
        "queued" => format!("{matched}; run {run} was made for it and is queued{because}."),
        "coalesced" if told.inherited => format!("{reason}; {run} stands for it now."),
        "coalesced" => format!("{matched}; run {run} was waiting already and takes it in{because}."),
        "skipped" => format!("{matched}, but starts nothing{because}."),
        "cooldown" => {
            format!("{matched}, but starts nothing, because `{workflow}` skips during its cooldown{because}.")
        }
        "paused" => format!("{matched}, but starts nothing, because `{workflow}` was paused then{because}."),
        "rolled_back" => format!("A watch over a promotion by `{workflow}` waited for it{because}."),
        "watched" => format!("A watch over a promotion by `{workflow}` looked at it{because}."),
        "filter_error" if workflow.is_empty() => format!("It is set aside{because}."),
        "filter_error" => {
            format!(
                "{matched}, but starts nothing, because what cannot be evaluated is never taken for false{because}."
            )
        }
        "unmatched" if workflow.is_empty() => format!("It starts nothing{because}."),
        "unmatched" if decision.trigger.is_none() => format!("It starts nothing of `{workflow}`{because}."),
        "unmatched" => format!("It starts nothing of `{workflow}`, trigger {}{because}.", number(decision)),
        "duplicate" => {
            let (first, latest) = (told.received_at, decision.at);
            format!("It was {reason}; the first delivery, at {first}, counts, the latest was at {latest}.")
        }
        other => format!("{matched}: {other}{because}."),
    }
}

/// How it came to the decision: by a trigger, by a batch that is over, or because somebody asked.
fn matched(decision: &DecisionView, told: &Told) -> String {
    let workflow = &decision.workflow;
    let what = match (decision.trigger, &told.trigger) {
        (None, _) => return format!("It asked for a run of `{workflow}`"),
        (Some(_), Some(words)) => format!("trigger {} of `{workflow}` ({words})", number(decision)),
        (Some(_), None) => format!("trigger {} of `{workflow}` as it was then", number(decision)),
    };
    if told.gathered_before {
        format!("What {what} had gathered is over")
    } else {
        format!("It matches {what}")
    }
}

fn number(decision: &DecisionView) -> i64 {
    decision.trigger.unwrap_or_default() + 1
}

fn gathered(decision: &DecisionView, told: &Told, matched: &str, reason: &str) -> String {
    let (verb, kind) = if decision.decision == "joined" { ("waits in", "join") } else { ("joined", "batch") };
    let part = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let Some(batch) = &told.gathered else { return format!("{matched} and {verb} a {kind}{part}.") };
    let key = if batch.key.is_empty() { String::new() } else { format!(" of `{}`", batch.key) };
    let events = if batch.count == 1 { "1 event".to_owned() } else { format!("{} events", batch.count) };
    let now = match (&batch.waits_for, batch.held_since) {
        (None, _) => match &decision.run {
            Some(run) => format!("it was over at {events}, which went into run {run}"),
            None => format!("it was over at {events}"),
        },
        (Some(_), Some(since)) => {
            format!("{events} so far; it is held while `{}` is paused, since {since}", decision.workflow)
        }
        (Some(waits), None) => format!("{events} so far, it waits for {waits}"),
    };
    format!("{matched} and {verb} {kind} {}{key}{part}: {now}.", batch.number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::Triggers;
    use super::*;
    use crate::event::CloudEvent;

    fn workflow(on: &str) -> Arc<Workflow> {
        Arc::new(Workflow::parse(&format!("workflow: w\non: {on}\nsteps:\n  a: {{ run: [x] }}\n")).unwrap())
    }

    #[test]
    fn the_closest_trigger_is_told_and_agrees_with_routing() {
        let workflows = [
            workflow(
                "[{ event: { type: [other] } }, { event: { type: [t], data: { table: [customers], n: [1] } } }]",
            ),
            workflow("[{ all: [{ type: [a] }, { type: [t], data: { n: [2] } }], within: 1h }]"),
            workflow("[{ event: { type: [t] } }]"),
            workflow("[{ cron: '0 3 * * *' }]"),
        ];
        let event =
            CloudEvent::parse(json!({"id": "1", "source": "/s", "type": "t", "data": {"n": 1}})).unwrap();
        let object = Value::Object(event.attributes().clone());
        let near: Vec<Option<Nearest>> =
            workflows.iter().map(|workflow| nearest(workflow, &object)).collect();
        let first = near[0].as_ref().unwrap();
        assert_eq!((first.trigger, first.part), (1, None));
        assert!(
            first.mismatch.as_ref().unwrap().message.starts_with("there is no `data.table`"),
            "{first:?}"
        );
        let second = near[1].as_ref().unwrap();
        assert_eq!((second.trigger, second.part), (0, Some(1)));
        assert!((first.share() - 2.0 / 3.0).abs() < 1e-9 && second.share() < first.share());
        assert_eq!(near[3], None);
        let matching = Triggers::new(workflows.iter().cloned()).matching(&event, &object);
        let matching: Vec<usize> = matching.into_iter().map(|found| found.workflow).collect();
        let explained: Vec<usize> = (0..4)
            .filter(|&place| near[place].as_ref().is_some_and(|near| near.mismatch.is_none()))
            .collect();
        assert_eq!((matching, explained), (vec![2], vec![2]));
    }

    #[test]
    fn what_a_replay_for_one_workflow_did_not_match_names_no_trigger() {
        let unmatched = |trigger: Option<i64>, reason: &str| {
            let decision = json!({"workflow": "w", "trigger": trigger, "decision": "unmatched", "reason": reason,
                "run": null, "at": "2026-01-05T08:00:00Z"});
            sentence(&serde_json::from_value(decision).unwrap(), &Told::default())
        };
        assert_eq!(unmatched(None, "no trigger matches"), "It starts nothing of `w`: no trigger matches.");
        assert_eq!(unmatched(Some(1), "no rows"), "It starts nothing of `w`, trigger 2: no rows.");
    }
}
