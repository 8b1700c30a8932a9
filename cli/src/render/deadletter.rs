//! How dead letters look: the listing, one letter with its body, and what became of those that were tried or dropped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::DeadLetterView;

use super::table::{self, Grid};
use super::time::{exact, relative};
use super::{BAD, BOLD, DIM, Facts, GOOD, WARN, bytes, clean, clean_line, paint};
use crate::commands::Became;

/// The most lines and bytes shown of a body; JSON output has all of it.
const LINES_MAX: usize = 200;
const TEXT_MAX: usize = 16 * 1024;
/// The most bytes shown of a body that is not text.
const HEX_MAX: usize = 256;
/// How many bytes a line of them shows.
const HEX_LINE: usize = 16;

/// Dead letters in a table.
pub(crate) fn list(letters: &[DeadLetterView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["SEQ", "SOURCE", "RECEIVED", "SIZE", "TRIES", "REASON"]);
    for letter in letters {
        grid.row(vec![
            table::number(letter.seq),
            table::text(&letter.source),
            table::text(relative(letter.received_at, now)),
            table::text(bytes(letter.bytes)),
            table::number(letter.tries),
            table::text(&letter.reason),
        ]);
    }
    grid.to_string()
}

/// One letter, with as much of its body as is comfortable to read.
pub(crate) fn show(letter: &DeadLetterView, now: Timestamp) -> String {
    let mut text =
        format!("{}  {}\n\n", paint(BOLD, format_args!("dead letter {}", letter.seq)), clean(&letter.reason));
    let mut facts = Facts::default();
    facts.line("source", clean(&letter.source));
    facts.some("target", letter.target.as_deref().map(clean));
    facts.line("received", exact(letter.received_at, now));
    if let Some(at) = letter.duplicate_at {
        facts.line("again", format!("{} times, last {}", letter.duplicates, exact(at, now)));
    }
    facts.line("tries", letter.tries.to_string());
    let cut = if letter.cut { "; only the beginning is kept" } else { "" };
    facts.line("size", format!("{}{cut}", bytes(letter.bytes)));
    for (name, value) in letter.context.iter().filter_map(|context| context.as_object()).flatten() {
        if !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()) {
            facts.line(&clean(name), super::value(value));
        }
    }
    let _ = writeln!(text, "{facts}");
    match (&letter.body, &letter.body_base64) {
        (Some(body), _) => text.push_str(&readable(body)),
        (None, Some(body)) => text.push_str(&hex(&STANDARD.decode(body).unwrap_or_default())),
        (None, None) => {}
    }
    text
}

fn readable(body: &str) -> String {
    let mut text = String::new();
    let mut left = TEXT_MAX;
    for (number, line) in body.lines().enumerate() {
        if number == LINES_MAX || left < line.len() {
            let shown: String = line.chars().take(if number == 0 { left / 4 } else { 0 }).collect();
            let more = paint(DIM, "… all of it with -o json");
            let _ = writeln!(text, "    {}{more}", clean_line(&shown));
            break;
        }
        left -= line.len();
        let _ = writeln!(text, "    {}", clean_line(line));
    }
    text
}

/// Bytes as people look at them: place, values, and what is printable.
fn hex(body: &[u8]) -> String {
    let mut text = String::new();
    for (line, some) in body[..body.len().min(HEX_MAX)].chunks(HEX_LINE).enumerate() {
        let values: String = some.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown: String = some
            .iter()
            .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
            .collect();
        let _ = writeln!(text, "    {:08x}  {values:<width$} {shown}", line * HEX_LINE, width = HEX_LINE * 3);
    }
    if body.len() > HEX_MAX {
        let more = bytes((body.len() - HEX_MAX) as u64);
        let _ = writeln!(text, "    {}", paint(DIM, format_args!("… {more} more, in base64 with -o json")));
    }
    text
}

/// What became of each letter, a line each.
pub(crate) fn became(letters: &[Became]) -> String {
    let mut text = String::new();
    for Became { seq, became, events, reason } in letters {
        let (glyph, style) = match *became {
            "recorded" | "sent_again" | "dropped" => ('✓', GOOD),
            "gone" => ('–', WARN),
            _ => ('✗', BAD),
        };
        let _ = write!(text, "{} {seq}  {}", paint(style, glyph), became.replace('_', " "));
        for event in events {
            let old = if event.duplicate { " (there already)" } else { "" };
            let _ = write!(text, "  {}{old}", clean(&event.id));
        }
        if let Some(reason) = reason {
            let _ = write!(text, "  {}", clean(reason));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn letter(body: Option<&str>, body_base64: Option<&str>) -> DeadLetterView {
        serde_json::from_value(serde_json::json!({
            "seq": 7, "direction": "in", "source": "amqp:q", "reason": "not JSON", "tries": 2, "bytes": 2048, "duplicates": 3,
            "duplicate_at": "2027-01-15T08:02:00Z", "cut": true,
            "received_at": "2027-01-15T08:00:00Z", "context": {"routing_key": "q", "headers": {}, "message_id": null},
            "body": body, "body_base64": body_base64,
        }))
        .unwrap()
    }

    #[test]
    fn a_listing_shows_the_source_that_can_be_asked_for() {
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let out = DeadLetterView {
            direction: "out".to_owned(),
            source: "target:audit".to_owned(),
            target: Some("audit".to_owned()),
            ..letter(None, None)
        };
        let text = plain(&list(&[letter(None, None), out], now));
        assert!(text.contains(" amqp:q ") && text.contains(" target:audit "), "{text}");
    }

    #[test]
    fn a_text_body_is_readable_and_harmless() {
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let text = plain(&show(&letter(Some("{ \"a\":\n\u{1b}[2Jb"), None), now));
        assert!(text.contains("    { \"a\":\n    \\u{1b}[2Jb\n"), "{text}");
        assert!(
            text.contains("routing_key  q\n") && text.contains("2.0 KiB; only the beginning is kept"),
            "{text}"
        );
        assert!(text.contains("3 times, last "), "{text}");
        assert!(!text.contains("headers") && !text.contains("message_id"), "{text}");
        let long = plain(&show(&letter(Some(&"x\n".repeat(1000)), None), now));
        assert!(long.lines().count() < 220 && long.contains("all of it with -o json"), "{long}");
        let wide = plain(&show(&letter(Some(&"x".repeat(100_000)), None), now));
        assert!(wide.len() < 10_000 && wide.contains("xxx") && wide.contains("-o json"));
    }

    #[test]
    fn a_binary_body_is_shown_by_its_head() {
        let now = Timestamp::parse("2027-01-15T08:03:00Z").unwrap();
        let text = plain(&show(&letter(None, Some(&STANDARD.encode([0, b'A', 0xff]))), now));
        assert!(text.contains("    00000000  00 41 ff "), "{text}");
        assert!(text.contains(" .A.\n"), "{text}");
        let text = plain(&show(&letter(None, Some(&STANDARD.encode([0xff; 300]))), now));
        assert!(
            text.contains("000000f0") && !text.contains("00000100") && text.contains("44 B more"),
            "{text}"
        );
    }
}
