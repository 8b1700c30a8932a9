//! How outbound targets look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::TargetView;

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BOLD, Facts, GOOD, clean, paint, state};

/// Targets in a table.
pub(crate) fn list(targets: &[TargetView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["TARGET", "KIND", "STATE", "SENT", "WAITING", "OLDEST", "LATEST ERROR"]);
    for target in targets {
        let state = match target.state.as_str() {
            "ok" => table::styled("✓ ok", GOOD),
            state => table::state(state),
        };
        grid.row(vec![
            table::text(&target.name),
            table::text(&target.kind),
            state,
            table::number(target.sent),
            table::number(target.pending),
            table::maybe(target.oldest_pending_at.map(|at| relative(at, now))),
            table::maybe(target.error.as_deref()),
        ]);
    }
    grid.to_string()
}

/// One target.
pub(crate) fn show(target: &TargetView, now: Timestamp) -> String {
    let shown = if target.state == "ok" { paint(GOOD, "✓ ok") } else { state(&target.state) };
    let mut text = format!("{}  {shown}\n\n", paint(BOLD, clean(&target.name)));
    let mut facts = Facts::default();
    facts.line("kind", clean(&target.kind));
    facts.some("since", target.since.map(|at| exact(at, now)));
    facts.some("error", target.error.as_deref().map(clean));
    facts.line("sent", target.sent.to_string());
    facts.line("waiting", target.pending.to_string());
    facts.some("oldest", target.oldest_pending_at.map(|at| exact(at, now)));
    if target.events.is_empty() {
        facts.line("events", "all");
    }
    for pattern in &target.events {
        facts.line("events", super::value(pattern));
    }
    let _ = write!(text, "{facts}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn a_target_shows_what_is_wrong_and_what_waits() {
        let target: TargetView = serde_json::from_value(serde_json::json!({
            "name": "audit", "kind": "webhook", "events": [{"type": ["a"]}], "state": "open", "sent": 7, "pending": 3,
            "since": "2027-01-15T08:00:00Z", "error": "the webhook answered 503\u{1b}[2J",
            "oldest_pending_at": "2027-01-15T08:01:00Z",
        }))
        .unwrap();
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let text = plain(&show(&target, now));
        for part in ["audit  ✗ open", "503\\u{1b}[2J", r#"{"type":["a"]}"#, "waiting"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let table = plain(&list(&[target], now));
        assert!(table.contains("✗ open") && table.contains("2m ago"), "{table}");
    }
}
