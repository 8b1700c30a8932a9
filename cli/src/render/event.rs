//! How events look: the listing, and one event with what became of it, decision by decision.

use std::fmt::Write as _;

use anstyle::Style;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DecisionView, EventExplanation, EventView};

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BOLD, DIM, Facts, GOOD, WARN, clean, paint};

/// Events in a table.
pub(crate) fn list(events: &[EventView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["ID", "TYPE", "SOURCE", "SUBJECT", "RECEIVED", "WHAT BECAME OF IT"]);
    for event in events {
        let became: Vec<String> = event.decisions.iter().map(summary).collect();
        grid.row(vec![
            table::text(&event.id),
            table::text(&event.kind),
            table::text(&event.source),
            table::maybe(event.subject.as_deref()),
            table::text(relative(event.received_at, now)),
            table::maybe((!became.is_empty()).then(|| became.join(", "))),
        ]);
    }
    grid.to_string()
}

/// A decision in a word or two.
pub(super) fn summary(decision: &DecisionView) -> String {
    match &decision.run {
        Some(run) => format!("{} {run}", decision.decision),
        None if decision.workflow.is_empty() => decision.decision.clone(),
        None => format!("{} for {}", decision.decision, decision.workflow),
    }
}

/// One event, whole.
pub(crate) fn show(event: &EventView, now: Timestamp) -> String {
    let mut text = format!("{}  {}\n\n", paint(BOLD, clean(&event.id)), clean(&event.kind));
    let mut facts = Facts::default();
    facts.line("source", clean(&event.source));
    facts.some("subject", event.subject.as_deref().map(clean));
    facts.some("time", event.time.map(|time| exact(time, now)));
    facts.line("received", exact(event.received_at, now));
    let _ = writeln!(text, "{facts}");
    if let Some(data) = &event.data {
        let pretty = serde_json::to_string_pretty(data).unwrap_or_default();
        for line in pretty.lines() {
            let _ = writeln!(text, "    {}", clean(line));
        }
        text.push('\n');
    }
    if event.decisions.is_empty() {
        text.push_str("  nothing has been decided about it yet\n");
    }
    for (index, decision) in event.decisions.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}", index + 1, decision_line(decision, now));
    }
    text
}

/// One event with every decision in a sentence, and why workflows have nothing to do with it.
pub(crate) fn explain(explained: &EventExplanation, now: Timestamp) -> String {
    let event = &explained.event;
    let mut text = format!("{}  {}\n\n", paint(BOLD, clean(&event.id)), clean(&event.kind));
    let mut facts = Facts::default();
    facts.line("source", clean(&event.source));
    facts.some("subject", event.subject.as_deref().map(clean));
    facts.line("received", exact(event.received_at, now));
    let _ = writeln!(text, "{facts}");
    if event.decisions.is_empty() {
        text.push_str("  nothing has been decided about it yet\n");
    }
    for (place, (decision, sentence)) in event.decisions.iter().zip(&explained.explanation).enumerate() {
        let word = paint(decision_look(&decision.decision), clean(&decision.decision));
        let _ = writeln!(text, "  {}. {word}  {}", place + 1, paint(DIM, relative(decision.at, now)));
        text.push_str(&super::wrap(&clean(sentence), 5));
    }
    if !explained.not_matched.is_empty() {
        let _ = writeln!(text, "\n  Why not, by the workflows as they are applied now, the closest first:");
    }
    for not in &explained.not_matched {
        let _ = writeln!(text, "\n  {}", paint(BOLD, clean(&not.workflow)));
        text.push_str(&super::wrap(&clean(&not.reason), 5));
    }
    if explained.not_listed > 0 {
        let _ = writeln!(text, "\n  and {} more; --workflow NAME asks about one", explained.not_listed);
    }
    text
}

/// How a decision looks.
pub(super) fn decision_look(decision: &str) -> Style {
    match decision {
        "started" | "joined" | "batched" | "coalesced" | "queued" => GOOD,
        "unmatched" | "duplicate" => DIM,
        _ => WARN,
    }
}

fn decision_line(decision: &DecisionView, now: Timestamp) -> String {
    let mut line = paint(decision_look(&decision.decision), clean(&decision.decision));
    if !decision.workflow.is_empty() {
        let _ = write!(line, "  {}", clean(&decision.workflow));
        if let Some(trigger) = decision.trigger {
            let _ = write!(line, " (trigger {})", trigger + 1);
        }
    }
    if let Some(run) = &decision.run {
        let _ = write!(line, "  → {}", paint(BOLD, run));
    }
    if let Some(reason) = &decision.reason {
        let _ = write!(line, "  {}", clean(reason));
    }
    if let Some(replay) = decision.replay {
        let by = decision.replayed_by.as_deref().unwrap_or("somebody");
        let _ = write!(line, "  {}", paint(DIM, format_args!("replay {replay} by {}", clean(by))));
    }
    let _ = write!(line, "  {}", paint(DIM, relative(decision.at, now)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn decisions_come_in_order() {
        let event: EventView = serde_json::from_value(serde_json::json!({
            "id": "load-1", "source": "/warehouse", "type": "dataset.updated", "subject": null, "time": null,
            "received_at": "2027-01-15T08:00:00Z", "data": {"rows": 3},
            "decisions": [
                {"workflow": "churn", "trigger": 0, "decision": "batched", "reason": "event 1 of a batch", "run": null,
                 "at": "2027-01-15T08:00:00Z"},
                {"workflow": "churn", "trigger": 0, "decision": "started", "reason": "quiet for 2m", "run": "churn/3",
                 "at": "2027-01-15T08:02:00Z"}]
        }))
        .unwrap();
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let text = plain(&show(&event, now));
        assert!(text.contains("  1. batched  churn (trigger 1)  event 1 of a batch  3m ago\n"), "{text}");
        assert!(
            text.contains("  2. started  churn (trigger 1)  → churn/3  quiet for 2m  1m ago\n"),
            "{text}"
        );
        assert!(text.contains("\"rows\": 3"), "{text}");
        assert!(plain(&list(&[event], now)).contains("batched for churn, started churn/3"));
    }

    #[test]
    fn an_explanation_has_a_sentence_a_decision() {
        let explained: EventExplanation = serde_json::from_value(serde_json::json!({
            "id": "load-1", "source": "/warehouse", "type": "dataset.update", "subject": null, "time": null,
            "received_at": "2027-01-15T08:00:00Z", "data": null,
            "decisions": [{"workflow": "", "trigger": null, "decision": "unmatched", "reason": "no trigger matches",
                "run": null, "at": "2027-01-15T08:00:00Z"}],
            "explanation": ["It starts nothing: no trigger matches."],
            "not_matched": [{"workflow": "churn", "trigger": 0, "path": "type",
                "reason": "trigger 1 (event dataset.updated): `type` is \"dataset.update\""}],
            "not_listed": 3
        }))
        .unwrap();
        let again = serde_json::to_value(&explained).unwrap();
        assert!(again["data"].is_null() && again["explanation"].is_array(), "the event's keys stay: {again}");
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let text = plain(&explain(&explained, now));
        for piece in [
            "  1. unmatched  3m ago\n     It starts nothing: no trigger matches.\n",
            "  churn\n     trigger 1 (event dataset.updated): `type` is \"dataset.update\"\n",
            "and 3 more; --workflow NAME asks about one",
        ] {
            assert!(text.contains(piece), "`{piece}` is missing in:\n{text}");
        }
    }
}
