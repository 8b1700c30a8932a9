//! One stream of a step from bytes to lines: without secrets, long lines broken, what a carriage return overwrites left out.
//! Must never happen here: memory that grows with what a step writes.

use std::time::{Duration, Instant};

use super::redact::{Redaction, Redactor};

/// The longest line, in bytes, line end included. Longer ones are broken.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// How often a line is kept that is written over again and again, as progress bars are.
const OVERWRITTEN_EVERY: Duration = Duration::from_secs(2);

/// The lines of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    redaction: Redaction,
    assembly: Assembly,
}

/// A line that is not complete yet.
#[derive(Debug)]
struct Assembly {
    partial: Vec<u8>,
    /// A carriage return came last: what follows overwrites the line.
    returned: bool,
    /// How often a line that is overwritten is kept all the same, and when that was done last.
    every: Duration,
    kept: Instant,
}

impl Lines {
    pub(super) fn new(redactor: &Redactor) -> Self {
        Self::keeping(redactor, OVERWRITTEN_EVERY)
    }

    fn keeping(redactor: &Redactor, every: Duration) -> Self {
        let assembly = Assembly { partial: Vec::new(), returned: false, every, kept: Instant::now() };
        Self { redaction: redactor.stream(), assembly }
    }

    /// Takes in bytes as a process wrote them; hands each line on without its end.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in self.redaction.push(bytes).split_inclusive(|&byte| byte == b'\n') {
            self.assembly.take(piece, &mut line);
        }
    }

    /// Nothing more comes: ends a line that was left open.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        for piece in self.redaction.finish().split_inclusive(|&byte| byte == b'\n') {
            self.assembly.take(piece, &mut line);
        }
        if !self.assembly.partial.is_empty() {
            self.assembly.end(&mut line);
        }
    }
}

impl Assembly {
    /// A piece with at most one line end, at its end.
    fn take(&mut self, piece: &[u8], line: &mut impl FnMut(&[u8])) {
        let (content, ends) = match piece.strip_suffix(b"\n") {
            Some(content) => (content, true),
            None => (piece, false),
        };
        if ends && self.partial.is_empty() && content.len() < LINE_BYTES_MAX && !content.contains(&b'\r') {
            self.returned = false;
            line(content);
            return;
        }
        for part in content.split_inclusive(|&byte| byte == b'\r') {
            let (text, returns) = match part.strip_suffix(b"\r") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if !text.is_empty() {
                self.overwrite(line);
                self.partial.extend_from_slice(text);
                self.break_up(line);
            }
            self.returned |= returns;
        }
        if ends {
            self.end(line);
        }
    }

    /// Makes room for what follows a carriage return.
    fn overwrite(&mut self, line: &mut impl FnMut(&[u8])) {
        if !std::mem::take(&mut self.returned) {
            return;
        }
        if self.kept.elapsed() >= self.every && !self.partial.trim_ascii().is_empty() {
            self.kept = Instant::now();
            line(&self.partial);
        }
        self.partial.clear();
    }

    fn break_up(&mut self, line: &mut impl FnMut(&[u8])) {
        while self.partial.len() >= LINE_BYTES_MAX {
            let cut = whole_characters(&self.partial[..LINE_BYTES_MAX - 1]);
            line(&self.partial[..cut]);
            self.partial.drain(..cut);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&[u8])) {
        line(&self.partial);
        self.partial.clear();
        self.returned = false;
    }
}

/// Where to cut so that no character is cut in two; at most three bytes before the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    for (index, &byte) in bytes.iter().enumerate().skip(start).rev() {
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let width = match byte {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        return if index + width > bytes.len() { index } else { bytes.len() };
    }
    bytes.len()
}

/// A line as text that loses nothing: bytes that are not UTF-8 are shown as `\xNN`, and so is NUL, which PostgreSQL's text
/// cannot hold.
pub(super) fn readable(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        let mut parts = chunk.valid().split('\0');
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            text.push_str("\\x00");
            text.push_str(part);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(lines: &mut Lines, pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| seen.push(readable(line)));
        }
        lines.finish(|line| seen.push(readable(line)));
        seen
    }

    fn calm() -> Lines {
        Lines::keeping(&Redactor::default(), Duration::from_secs(3600))
    }

    #[test]
    fn a_progress_bar_is_its_last_state() {
        let pieces: [&[u8]; 5] = [b"\r  0%|   |", b"\r 50%|# ", b" |\r", b"100%|## |\n", b"done"];
        assert_eq!(lines_of(&mut calm(), &pieces), ["100%|## |", "done"]);
        assert_eq!(
            lines_of(&mut calm(), &[b"a\r\nb\r", b"\n\r\nc\r"]),
            ["a", "b", "", "c"],
            "line ends of Windows"
        );
    }

    #[test]
    fn a_bar_that_goes_on_is_kept_now_and_then() {
        let mut often = Lines::keeping(&Redactor::default(), Duration::ZERO);
        assert_eq!(lines_of(&mut often, &[b"\r1%\r2%", b"\r\r3%\n"]), ["1%", "2%", "3%"]);
        let mut seldom = calm();
        let mut count = 0;
        for percent in 0..100_000 {
            seldom.push(format!("\r{percent}").as_bytes(), |_| count += 1);
        }
        assert_eq!(count, 0);
    }

    #[test]
    fn bytes_that_are_not_text_are_kept_readable() {
        assert_eq!(readable(b"a\xff\xfeb\0c \xe2\x82"), "a\\xff\\xfeb\\x00c \\xe2\\x82");
        assert_eq!(readable("äöü €".as_bytes()), "äöü €");
    }

    #[test]
    fn long_lines_are_broken_between_characters() {
        let line = "ä".repeat(100_000);
        let broken = lines_of(&mut calm(), &[line.as_bytes()]);
        assert!(broken.len() > 2 && broken.iter().all(|line| line.len() < LINE_BYTES_MAX));
        assert_eq!(broken.concat(), line);
    }
}
