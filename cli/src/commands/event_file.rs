//! Reads events from a file or from standard input: JSON Lines, or one JSON array. Every mistake is told with its line.
//! Must never happen here: a file taken in half-way as if it were whole, or more held in memory than the bounds say.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use serde_json::Value;

use crate::exit::Usage;

/// The largest file that holds one array, in bytes: it is read whole, lines are not.
const ARRAY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// An event as it was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) event: CloudEvent,
    /// The line it begins in, from 1.
    pub(super) line: usize,
    /// What it takes in the file, in bytes.
    pub(super) bytes: usize,
}

/// A file of events, read one by one.
pub(super) struct EventFile {
    input: Box<dyn BufRead + Send>,
    /// Lines read so far.
    line: usize,
    form: Form,
}

enum Form {
    /// Nothing was read yet.
    Unknown,
    /// One event a line.
    Lines,
    /// One array.
    Array(Array),
}

/// An array in memory, read element by element.
struct Array {
    text: Vec<u8>,
    /// How far it was read.
    at: usize,
    /// The line that stands in, from 1.
    line: usize,
    place: Place,
}

/// What was read last of an array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    OpeningBracket,
    Element,
    ClosingBracket,
}

impl EventFile {
    /// Opens a file, `-` for standard input; with its size in bytes where that is known.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Option<u64>)> {
        if path.as_os_str() == "-" {
            return Ok((Self::of(Box::new(BufReader::new(std::io::stdin()))), None));
        }
        let opened =
            std::fs::File::open(path).with_context(|| format!("failed to read {}", path.display()))?;
        let size = opened.metadata().ok().map(|about| about.len());
        Ok((Self::of(Box::new(BufReader::new(opened))), size))
    }

    pub(super) fn of(input: Box<dyn BufRead + Send>) -> Self {
        Self { input, line: 0, form: Form::Unknown }
    }

    /// The next event; none at the end.
    ///
    /// # Errors
    /// [`Usage`] with the line: what stands there is no event.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Found>> {
        if matches!(self.form, Form::Unknown) {
            self.begin()?;
        }
        match &mut self.form {
            Form::Array(array) => array.next(),
            Form::Unknown | Form::Lines => self.next_line(),
        }
    }

    /// Finds out what the file is: an array begins with its bracket.
    fn begin(&mut self) -> anyhow::Result<()> {
        loop {
            let ahead = self.input.fill_buf()?;
            let blank = ahead.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let (breaks, first) = (line_breaks(&ahead[..blank]), ahead.get(blank).copied());
            let is_over = ahead.is_empty();
            self.input.consume(blank);
            self.line += breaks;
            self.form = match first {
                Some(b'[') => break,
                Some(_) => Form::Lines,
                None if is_over => Form::Lines,
                None => continue,
            };
            return Ok(());
        }
        let mut text = Vec::new();
        self.input.by_ref().take(ARRAY_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > ARRAY_BYTES_MAX {
            let most = ARRAY_BYTES_MAX / 1024 / 1024;
            let advice = "write one event a line, which may be any number";
            return Err(Usage(format!("an array of events may have at most {most} MiB: {advice}")).into());
        }
        self.form = Form::Array(Array { text, at: 1, line: self.line + 1, place: Place::OpeningBracket });
        Ok(())
    }

    fn next_line(&mut self) -> anyhow::Result<Option<Found>> {
        loop {
            self.line += 1;
            let line = self.line;
            let mut bytes = Vec::new();
            let most = 2 * EVENT_BYTES_MAX as u64;
            let read = Read::take(&mut self.input, most).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if bytes.len() > EVENT_BYTES_MAX {
                return Err(too_heavy(line));
            }
            let value = serde_json::from_slice(&bytes).map_err(|wrong| not_json(line, &wrong))?;
            return Ok(Some(Found { event: event(value, line)?, line, bytes: read }));
        }
    }
}

impl Array {
    fn next(&mut self) -> anyhow::Result<Option<Found>> {
        if self.place == Place::ClosingBracket {
            return Ok(None);
        }
        match (self.skip_blanks(), self.place) {
            (Some(b']'), _) => {
                self.at += 1;
                self.place = Place::ClosingBracket;
                return match self.skip_blanks() {
                    None => Ok(None),
                    Some(_) => Err(self.wrong("there is more behind the end of the array")),
                };
            }
            (None, _) => return Err(self.wrong("not JSON: the array has no end; is the file whole?")),
            (Some(b','), Place::Element) => {
                self.at += 1;
                self.skip_blanks();
            }
            (Some(_), Place::Element) => {
                return Err(self.wrong("not JSON: expected `,` or `]` behind an event"));
            }
            (Some(_), Place::OpeningBracket | Place::ClosingBracket) => {}
        }
        let mut values = serde_json::Deserializer::from_slice(&self.text[self.at..]).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(not_json(self.line + error.line().saturating_sub(1), &error)),
            None => return Err(self.wrong("not JSON: an event is missing behind the comma")),
        };
        let bytes = values.byte_offset();
        if bytes > EVENT_BYTES_MAX {
            return Err(too_heavy(self.line));
        }
        let found = Found { event: event(value, self.line)?, line: self.line, bytes };
        self.line += line_breaks(&self.text[self.at..self.at + bytes]);
        self.at += bytes;
        self.place = Place::Element;
        Ok(Some(found))
    }

    /// Goes on to the next byte that is not white space; gives it.
    fn skip_blanks(&mut self) -> Option<u8> {
        let blank = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.line += line_breaks(&self.text[self.at..self.at + blank]);
        self.at += blank;
        self.text.get(self.at).copied()
    }

    fn wrong(&self, what: &str) -> anyhow::Error {
        Usage(format!("line {}: {what}", self.line)).into()
    }
}

fn line_breaks(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn event(value: Value, line: usize) -> anyhow::Result<CloudEvent> {
    Ok(CloudEvent::parse_from_outside(value).map_err(|wrong| Usage(format!("line {line}: {wrong}")))?)
}

fn not_json(line: usize, wrong: &serde_json::Error) -> anyhow::Error {
    // The place it names is counted from the event's beginning, not from the file's.
    let words = wrong.to_string();
    let words = words.split(" at line ").next().unwrap_or(&words);
    Usage(format!("line {line}: not JSON: {words}")).into()
}

fn too_heavy(line: usize) -> anyhow::Error {
    Usage(format!("line {line}: an event may weigh at most 1 MiB")).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, usize)>, String> {
        // A buffer of three bytes, so that nothing depends on where the pieces of a file end.
        let input = BufReader::with_capacity(3, std::io::Cursor::new(text.to_owned()));
        let mut file = EventFile::of(Box::new(input));
        let mut ids = Vec::new();
        while let Some(read) = file.next().map_err(|wrong| wrong.to_string())? {
            ids.push((read.event.id().to_owned(), read.line));
        }
        assert!(file.next().map_err(|wrong| wrong.to_string())?.is_none(), "it went on behind the end");
        Ok(ids)
    }

    fn found(ids: &[(&str, usize)]) -> Result<Vec<(String, usize)>, String> {
        Ok(ids.iter().map(|(id, line)| ((*id).to_owned(), *line)).collect())
    }

    const A: &str = r#"{"id": "a", "source": "s", "type": "t"}"#;
    const B: &str = "{\"id\": \"b\",\n \"source\": \"s\", \"type\": \"t\"}";

    #[test]
    fn lines_and_arrays_are_the_same_events() {
        assert_eq!(read(&format!("{A}\n\n{A}")), found(&[("a", 1), ("a", 3)]));
        assert_eq!(read(&format!("\n {A}\n{A}\n")), found(&[("a", 2), ("a", 3)]));
        assert_eq!(read(&format!("\n[{A},\n{B}\n, {A}]\n")), found(&[("a", 2), ("b", 3), ("a", 5)]));
        for empty in ["", "\n \n", "[]", " [ \n ] "] {
            assert_eq!(read(empty), Ok(Vec::new()), "{empty:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, part) in [
            (format!("{A}\n{{\"id\": 1}}\n"), 2, "`id` must be a string"),
            (format!("{A}\nnonsense\n"), 2, "not JSON"),
            (format!("{A}\n[]\n"), 2, "an event is a JSON object"),
            (format!("{A}\n\n{}", A.replace("\"t\"", "\"refit.x\"")), 3, "Refit's own"),
            (format!("[{B},\n{{\"id\": \"c\"}}]"), 3, "`source` is missing"),
            (format!("[{A}\n,\n]"), 3, "not JSON"),
            (format!("[{A}\n{A}]"), 2, "expected `,` or `]`"),
            (format!("[\n{A},\n"), 3, "not JSON"),
            (format!("[\n{A}"), 2, "no end"),
            ("[\n{\"id\":\n oops}]".to_owned(), 3, "not JSON"),
            (format!("[{A}]\n{A}"), 2, "more behind the end"),
            ("[".to_owned(), 1, "no end"),
        ] {
            let wrong = read(&text).expect_err(&text);
            assert!(wrong.starts_with(&format!("line {line}: ")) && wrong.contains(part), "{text}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in "[\\[\\]{},\":a1 \n]{0,40}") {
            let _ = read(&text);
        }
    }
}
