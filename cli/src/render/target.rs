//! How outbound targets look.

use std::fmt::Write as _;

use refit_workflows::time::Timestamp;
use refit_workflows::wire::TargetView;

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BAD, BOLD, Facts, GOOD, WARN, clean, count, paint, state};

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

/// A target that was enabled just now, and how it stood after the first try, or when nobody waited for that any longer.
pub(crate) fn enabled(enabled: &TargetView, latest: &TargetView) -> String {
    let name = paint(BOLD, clean(&latest.name));
    let waited = count(enabled.pending.unsigned_abs(), "event");
    let error = latest.error.as_deref().map(|error| format!(": {}", clean(error))).unwrap_or_default();
    match latest.state.as_str() {
        "ok" if enabled.pending == 0 => {
            format!("{} {name} is enabled; nothing waits to be sent to it", paint(GOOD, "✓"))
        }
        "ok" if latest.sent > enabled.sent || latest.pending == 0 => {
            let left = latest.pending;
            let still = if left > 0 { format!(", {left} still to send") } else { String::new() };
            format!("{} {name} takes events again; {waited} waited for it{still}", paint(GOOD, "✓"))
        }
        "ok" => format!(
            "{} {name} is enabled, but has taken nothing yet; {waited} to send; `refit target show {}` tells how it goes on",
            paint(WARN, "!"),
            clean(&latest.name)
        ),
        "absent" => format!(
            "{} {name} is enabled, but no running orchestrator sends to it; {waited} to send",
            paint(WARN, "!")
        ),
        _ => format!("{} {name} is enabled, but takes nothing{error}; {waited} to send", paint(BAD, "✗")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn enabling_a_target_is_no_success_before_it_has_taken_something() {
        let view = |state: &str, sent: u64, pending: i64, error: Option<&str>| -> TargetView {
            serde_json::from_value(serde_json::json!({
                "name": "audit", "kind": "webhook", "events": [], "state": state, "sent": sent, "pending": pending,
                "since": null, "error": error, "oldest_pending_at": null,
            }))
            .unwrap()
        };
        let before = view("ok", 7, 3, None);
        for (latest, told) in [
            (view("ok", 8, 2, None), "✓ audit takes events again; 3 events waited for it, 2 still to send"),
            (
                view("ok", 7, 3, None),
                "! audit is enabled, but has taken nothing yet; 3 events to send; `refit target show audit` tells how it goes on",
            ),
            (
                view("retrying", 7, 3, Some("it answered 503")),
                "✗ audit is enabled, but takes nothing: it answered 503; 3 events to send",
            ),
            (
                view("absent", 7, 3, None),
                "! audit is enabled, but no running orchestrator sends to it; 3 events to send",
            ),
        ] {
            assert_eq!(plain(&enabled(&before, &latest)), told);
        }
        let idle = view("ok", 7, 0, None);
        assert_eq!(plain(&enabled(&idle, &idle)), "✓ audit is enabled; nothing waits to be sent to it");
    }

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
