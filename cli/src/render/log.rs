//! Lines of a step's log for people and programs. Log text is other people's data: must never happen here: a line that moves
//! the cursor, sets a title or does anything else to a terminal but colour its own text.

use refit_workflows::wire::{LogPiece, LogStream};
use serde::Serialize;

use super::{BAD, DIM, clean, clean_line, harmless_json, paint};

/// How a log is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For a terminal: standard error is marked, colours stay where they are wanted, everything else is shown and not
    /// obeyed.
    Terminal {
        /// Whether this terminal wants colours.
        colour: bool,
    },
    /// For a pipe: as the step wrote it.
    Plain,
    /// One JSON object a line.
    Json,
}

/// One line as JSON.
#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    attempt: u32,
    at: String,
    stream: LogStream,
    text: &'a str,
}

/// Adds a piece's lines to `text`. `prefix`: each begins with its step's name, so wide.
pub(crate) fn write(text: &mut String, piece: &LogPiece, prefix: Option<usize>, form: Form) {
    for line in piece.text.split_terminator('\n') {
        if form == Form::Json {
            let (step, stream) = (piece.step.as_str(), piece.stream);
            let json = Line { step, attempt: piece.attempt, at: piece.at.to_string(), stream, text: line };
            // A struct of texts and numbers is always JSON.
            text.push_str(&harmless_json(serde_json::to_string(&json).unwrap_or_default()));
            text.push('\n');
            continue;
        }
        if let Some(width) = prefix {
            let name = clean(&piece.step);
            let name =
                if piece.attempt > 1 { format!("{name}#{}", piece.attempt) } else { name.into_owned() };
            text.push_str(&format!("{name:<width$} | "));
        }
        match form {
            Form::Terminal { colour } => text.push_str(&shown(line, piece.stream, colour)),
            Form::Plain | Form::Json => text.push_str(line),
        }
        text.push('\n');
    }
}

fn shown(line: &str, stream: LogStream, colour: bool) -> String {
    if !colour {
        let mark = if stream == LogStream::Stderr { "! " } else { "" };
        return format!("{mark}{}", coloured(line, false));
    }
    match stream {
        LogStream::Stdout => coloured(line, true),
        LogStream::Stderr => format!("{} {}", paint(BAD, "▏"), coloured(line, true)),
        LogStream::Worker => paint(DIM, coloured(line, false)),
    }
}

/// A line without its colours, safe for a terminal.
pub(crate) fn bare(line: &str) -> String {
    coloured(line, false)
}

/// A line whose colours (ECMA-48's SGR) stay when `keep` says so and end with it; every other control character is shown.
fn coloured(line: &str, keep: bool) -> String {
    let mut safe = String::with_capacity(line.len());
    let (mut rest, mut changed) = (line, false);
    while let Some(at) = rest.find('\u{1b}') {
        let (before, sequence) = rest.split_at(at);
        safe.push_str(&clean_line(before));
        match sgr(sequence) {
            Some(length) => {
                if keep {
                    safe.push_str(&sequence[..length]);
                    changed = true;
                }
                rest = &sequence[length..];
            }
            None => {
                safe.push_str(&clean("\u{1b}"));
                rest = &sequence[1..];
            }
        }
    }
    safe.push_str(&clean_line(rest));
    if changed {
        safe.push_str("\u{1b}[0m");
    }
    safe
}

/// How long the sequence is with which the text begins, when all it does is to set colour and weight.
fn sgr(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    (length <= 32 && parameters[length..].starts_with('m')).then_some(2 + length + 1)
}

#[cfg(test)]
mod tests {
    use refit_workflows::time::Timestamp;

    use super::*;

    fn piece(stream: LogStream, text: &str) -> LogPiece {
        LogPiece {
            step: "train".to_owned(),
            attempt: 2,
            at: Timestamp::default(),
            stream,
            text: text.to_owned(),
        }
    }

    fn written(piece: &LogPiece, prefix: Option<usize>, form: Form) -> String {
        let mut text = String::new();
        write(&mut text, piece, prefix, form);
        text
    }

    const COLOUR: Form = Form::Terminal { colour: true };
    const GREY: Form = Form::Terminal { colour: false };

    #[test]
    fn lines_tell_their_step_and_are_untouched_in_a_pipe() {
        let text = "a\tb\n\u{1b}[31mred\u{1b}[0m\r\n";
        let piece = piece(LogStream::Stdout, text);
        assert_eq!(written(&piece, None, Form::Plain), text);
        assert_eq!(written(&piece, Some(9), GREY), "train#2   | a\tb\ntrain#2   | red\\r\n");
    }

    #[test]
    fn colours_stay_and_everything_else_is_shown() {
        for (line, safe) in [
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m\u{1b}[0m"),
            ("\u{1b}[38;5;9mx", "\u{1b}[38;5;9mx\u{1b}[0m"),
            ("\u{1b}[2Jgone\u{1b}[1A", "\\u{1b}[2Jgone\\u{1b}[1A"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "\\u{1b}]8;;http://x\\u{1b}\\link"),
            ("\u{9b}31m \u{1b}[31", "\\u{9b}31m \\u{1b}[31"),
            ("a\u{8}b\rc", "a\\u{8}b\\rc"),
        ] {
            assert_eq!(coloured(line, true), safe, "{line:?}");
        }
        assert_eq!(coloured("\u{1b}[31mred\u{1b}[0m\u{1b}[2J", false), "red\\u{1b}[2J");
    }

    #[test]
    fn standard_error_is_marked_for_people() {
        assert_eq!(written(&piece(LogStream::Stderr, "no\n"), None, GREY), "! no\n");
        assert!(written(&piece(LogStream::Stderr, "no\n"), None, COLOUR).contains("▏"));
        assert_eq!(written(&piece(LogStream::Stderr, "no\n"), None, Form::Plain), "no\n");
    }

    #[test]
    fn programs_get_one_object_a_line() {
        let harmful = "\u{1b}[2J\u{9b}2J\u{7f}\u{202e}";
        let text = written(&piece(LogStream::Stderr, &format!("one\n{harmful}\n")), Some(9), Form::Json);
        assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let at = "1970-01-01T00:00:00.000Z";
        assert_eq!(
            lines[0],
            serde_json::json!({"step": "train", "attempt": 2, "at": at, "stream": "stderr", "text": "one"})
        );
        assert_eq!(lines[1]["text"], harmful);
    }
}
