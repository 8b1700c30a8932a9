//! How replays look: the listing, and what one would do.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{ReplayFilter, ReplayPlan, ReplayView};

use super::table::{self, Grid};
use super::time::relative;
use super::{DIM, clean, count, paint};

/// The most events a plan lists one by one; JSON output has more.
const LISTED: usize = 50;

/// Replays in a table.
pub(crate) fn list(replays: &[ReplayView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["REPLAY", "STATE", "EVENTS", "BY", "ASKED", "OF", "WHAT BECAME OF THEM"]);
    for replay in replays {
        let decisions: Vec<String> =
            replay.decisions.iter().map(|(decision, times)| format!("{times} {decision}")).collect();
        grid.row(vec![
            table::number(replay.replay),
            table::text(&replay.state),
            table::text(format!("{} of {}", replay.routed, replay.events)),
            table::text(&replay.by),
            table::text(relative(replay.asked_at, now)),
            table::text(words(&replay.filter)),
            table::maybe((!decisions.is_empty()).then(|| decisions.join(", "))),
        ]);
    }
    grid.to_string()
}

/// A filter in words.
fn words(filter: &ReplayFilter) -> String {
    let ReplayFilter { since, until, kind, source, ids, workflow, limit } = filter;
    let mut words: Vec<String> = Vec::new();
    words.extend(kind.as_ref().map(|kind| format!("type {kind}")));
    words.extend(source.as_ref().map(|source| format!("source {source}")));
    words.extend((!ids.is_empty()).then(|| count(ids.len() as u64, "id")));
    words.extend(since.map(|since| format!("since {since}")));
    words.extend(until.map(|until| format!("until {until}")));
    words.extend(workflow.as_ref().map(|workflow| format!("for {workflow}")));
    words.extend(limit.map(|limit| format!("at most {limit}")));
    if words.is_empty() { "all".to_owned() } else { words.join(", ") }
}

/// What a replay would do: trigger by trigger, then event by event.
pub(crate) fn plan(plan: &ReplayPlan) -> String {
    let mut text = format!("{} would go through today's triggers", count(plan.events, "event"));
    if plan.looked_at < plan.events {
        let _ = write!(text, "; of the first {} this would become", plan.looked_at);
    }
    text.push_str("\n\n");
    let mut triggers =
        Grid::new(&["WORKFLOW", "TRIGGER", "FIRES", "GATHERS", "PAUSED", "UNMATCHED", "ERRORS"]);
    for trigger in &plan.triggers {
        triggers.row(vec![
            table::text(&trigger.workflow),
            table::number(trigger.trigger + 1),
            table::number(trigger.fires),
            table::number(trigger.gathers),
            table::number(trigger.paused),
            table::number(trigger.unmatched),
            table::number(trigger.errors),
        ]);
    }
    if triggers.is_empty() {
        text.push_str("no trigger matches any of them\n");
        return text;
    }
    let _ = writeln!(text, "{triggers}");
    let mut events = Grid::new(&["ID", "TYPE", "WORKFLOW", "DECISION", "REASON"]);
    for event in plan.decisions.iter().take(LISTED) {
        events.row(vec![
            table::text(&event.id),
            table::text(&event.kind),
            table::maybe((!event.workflow.is_empty()).then_some(&event.workflow)),
            table::text(clean(&event.decision).replace('_', " ")),
            table::maybe(event.reason.as_deref()),
        ]);
    }
    let _ = write!(text, "{events}");
    if plan.decisions.len() > LISTED {
        let _ = writeln!(text, "{}", paint(DIM, "… more with -o json"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn a_plan_says_what_each_trigger_would_make_of_the_events() {
        let found: ReplayPlan = serde_json::from_value(serde_json::json!({
            "events": 3, "looked_at": 3,
            "triggers": [{"workflow": "churn", "trigger": 0, "fires": 0, "gathers": 2, "paused": 4, "unmatched": 5,
                          "errors": 1}],
            "decisions": [{"id": "e1", "source": "/s", "type": "t", "workflow": "churn", "trigger": 0,
                         "decision": "filter_error", "reason": "no such key"}],
        }))
        .unwrap();
        let text = plain(&plan(&found));
        assert!(text.starts_with("3 events would go through today's triggers\n"), "{text}");
        assert!(text.contains("e1") && text.contains("filter error  no such key"), "{text}");
        let row: Vec<&str> =
            text.lines().find(|line| line.starts_with("churn")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["churn", "1", "0", "2", "4", "5", "1"], "{text}");
        let none = ReplayPlan { triggers: Vec::new(), decisions: Vec::new(), ..found };
        assert!(plain(&plan(&none)).contains("no trigger matches"));
    }

    #[test]
    fn a_filter_is_told_in_words() {
        assert_eq!(words(&ReplayFilter::default()), "all");
        let filter = ReplayFilter { kind: Some("t".into()), limit: Some(3), ..ReplayFilter::default() };
        assert_eq!(words(&filter), "type t, at most 3");
    }
}
