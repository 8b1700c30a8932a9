//! Everything people and programs read: text, tables, JSON and YAML on standard output, notes and errors on standard
//! error. The only place that prints. Text from elsewhere goes through [`clean`] first; nothing here asks a server.
//!
//! Rendered text carries ANSI colour; [`print()`] and [`note`] strip it where it does not belong (`NO_COLOR`, pipes).

pub(crate) mod deadletter;
pub(crate) mod diagnostics;
pub(crate) mod doctor;
pub(crate) mod event;
pub(crate) mod evidence;
pub(crate) mod graph;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod model;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod simulate;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod time;
pub(crate) mod version;
pub(crate) mod worker;
pub(crate) mod workflow;

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use serde::Serialize;

use crate::args::Format;
use crate::client::ClientError;

/// What is good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// What needs a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// What is going on.
pub(crate) const LIVE: Style = AnsiColor::Cyan.on_default();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What matters more.
pub(crate) const BOLD: Style = Style::new().bold();

/// Text in a style.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// How a state of a run, step or worker looks. Unknown ones, of a newer server, are shown as they are.
pub(crate) fn state_look(state: &str) -> (char, Style) {
    match state {
        "succeeded" => ('✓', GOOD),
        "rejected" => ('✗', WARN),
        "failed" => ('✗', BAD),
        "running" | "busy" => ('●', LIVE),
        "ready" => ('○', LIVE),
        "waiting" => ('◷', WARN),
        "blocked" => ('·', DIM),
        "skipped" => ('–', DIM),
        "cancelled" => ('■', WARN),
        "retrying" | "absent" => ('!', WARN),
        "open" | "disabled" => ('✗', BAD),
        "coalesced" => ('⇢', DIM),
        "silent" | "draining" | "drained" => ('!', WARN),
        _ => ('?', Style::new()),
    }
}

/// A state with its glyph and colour.
pub(crate) fn state(state: &str) -> String {
    let (glyph, style) = state_look(state);
    paint(style, format_args!("{glyph} {}", clean(state)))
}

/// Whether a terminal may obey a character, or read the text beside it in another order.
fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same JSON, with what a terminal may obey as `\u` escapes; JSON itself asks for those below U+0020 alone (RFC 8259,
/// section 7).
pub(crate) fn harmless_json(json: String) -> String {
    let harmful = |c: char| harmful(c) && c != '\n';
    if !json.contains(harmful) {
        return json;
    }
    let escaped = |c: char| if harmful(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// Text of other people's making, safe for a terminal: control characters and text-direction overrides become
/// visible escapes.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// One line of a log, safe for a terminal; tabs stay.
pub(crate) fn clean_line(line: &str) -> String {
    line.split('\t').map(clean).collect::<Vec<_>>().join("\t")
}

/// A number as people write it: few digits, no trailing zeros.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    if value != 0.0 && !(1e-4..1e9).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A size in binary units.
pub(crate) fn bytes(count: u64) -> String {
    let mut scaled = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// The beginning of a digest, enough to tell apart.
pub(crate) fn short(digest: &refit_workflows::digest::Digest) -> String {
    digest.as_str().chars().take("sha256:".len() + 12).collect()
}

/// Metrics on one line: `accuracy 0.91  loss 0.3`.
pub(crate) fn metrics(metrics: &std::collections::BTreeMap<String, f64>) -> String {
    let shown: Vec<String> =
        metrics.iter().map(|(name, value)| format!("{} {}", clean(name), number(*value))).collect();
    shown.join("  ")
}

/// A JSON value on one line: strings bare, the rest as JSON.
pub(crate) fn value(value: &serde_json::Value) -> String {
    match value.as_str() {
        Some(text) => clean(text).into_owned(),
        None => clean(&value.to_string()).into_owned(),
    }
}

/// A block of `label  text` lines.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a line.
    pub(crate) fn line(&mut self, label: &str, text: impl Into<String>) {
        self.0.push((label.to_owned(), text.into()));
    }

    /// Adds a line when there is something to say.
    pub(crate) fn some(&mut self, label: &str, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.line(label, text);
        }
    }
}

impl Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in &self.0 {
            writeln!(f, "  {DIM}{label:<width$}{DIM:#}  {text}")?;
        }
        Ok(())
    }
}

/// Whether a person is reading standard output.
pub(crate) fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

/// How a log is printed where standard output goes.
pub(crate) fn log_form() -> log::Form {
    if !to_terminal() {
        return log::Form::Plain;
    }
    let colour = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    log::Form::Terminal { colour }
}

/// How wide the terminal is that a person reads standard output on; none where lines may have any length.
pub(crate) fn columns() -> Option<usize> {
    let (_, columns) = console::Term::stdout().size_checked()?;
    to_terminal().then_some(usize::from(columns))
}

/// Prints text as it is, with a line break where it has none at the end.
///
/// # Errors
/// Standard output is closed; a closed pipe ends the program quietly (see `exit`).
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    let mut text = text.to_string();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Prints bytes that are not ours to change.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("failed to write to standard output")
}

/// Tells people something beside the answer. Nobody listening is no problem.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Tells what went wrong, with the chain of causes on one line and hints beneath.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if text.contains(&cause_text) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause_text);
    }
    let problems = error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Problem(problem)) => Some(problem.problems.as_slice()),
        _ => None,
    });
    let mut lines = text.lines().map(clean_line);
    note(format_args!("{}: {}", paint(BAD.bold(), "error"), lines.next().unwrap_or_default()));
    for line in lines {
        match line.strip_prefix("hint: ") {
            Some(hint) => note(format_args!("{}: {hint}", paint(LIVE.bold(), "hint"))),
            None => note(line),
        }
    }
    for problem in problems.unwrap_or_default() {
        note(format_args!(
            "  {}:{}: {}",
            problem.position.line,
            problem.position.column,
            clean(&problem.message)
        ));
    }
}

/// Prints an answer in the form asked for.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn answer<T: Serialize>(
    format: Format,
    answer: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Table => print(table()),
        Format::Json => {
            print(harmless_json(serde_json::to_string_pretty(answer).context("failed to write JSON")?))
        }
        Format::Yaml => print(serde_yaml::to_string(answer).context("failed to write YAML")?),
    }
}

/// Prints a listing in the form asked for; as a table, an empty one says so on standard error.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn listing<T: Serialize>(
    format: Format,
    items: &[T],
    none: &str,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if items.is_empty() && format == Format::Table {
        note(none);
        return Ok(());
    }
    answer(format, &items, table)
}

/// Lines moved to the right.
pub(crate) fn indent(text: &str, by: usize) -> String {
    let mut moved = String::new();
    for line in text.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(moved, "{:by$}{line}", "");
    }
    moved
}

/// A paragraph broken into lines that are comfortable to read, moved to the right.
pub(crate) fn wrap(text: &str, by: usize) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| {
            !line.is_empty() && by + line.chars().count() + 1 + word.chars().count() > WIDTH
        });
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    indent(&lines.join("\n"), by)
}

/// Rendered text as a pipe would get it.
#[cfg(test)]
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_text_cannot_drive_the_terminal() {
        assert_eq!(clean("plain — ünï"), "plain — ünï");
        assert_eq!(clean("\u{1b}[2Jgone\r\u{7f}\u{9b}"), "\\u{1b}[2Jgone\\r\\u{7f}\\u{9b}");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(clean_line("a\tb\u{7}"), "a\tb\\u{7}");
    }

    #[test]
    fn numbers_stay_short() {
        for (value, text) in [
            (1.0, "1"),
            (0.5, "0.5"),
            (0.912_345, "0.9123"),
            (-0.25, "-0.25"),
            (1e-7, "1.000e-7"),
            (0.0, "0"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            (bytes(12), bytes(2048), bytes(3 << 30)),
            ("12 B".into(), "2.0 KiB".into(), "3.0 GiB".into())
        );
    }

    #[test]
    fn paragraphs_break_between_words() {
        let text = wrap(&"word ".repeat(40), 2);
        assert!(text.lines().all(|line| line.starts_with("  word") && line.len() <= 100), "{text}");
        assert_eq!(text.split_whitespace().count(), 40);
    }

    #[test]
    fn yaml_holds_what_json_holds() {
        let value =
            serde_json::json!([{"run": "churn/1", "reason": null, "key": "no", "events": ["1", "a: b"]}]);
        let yaml = serde_yaml::to_string(&value).unwrap();
        let back: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(back, value, "{yaml}");
    }
}
