//! One attempt's log: bytes come in as they are read, numbered chunks of whole lines go out. Bounded in every
//! direction; what is dropped is written into the log. Never interprets what a step prints.

use std::collections::VecDeque;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use refit_workflows::wire::LogChunk;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

/// The longest line and the largest chunk, in bytes, line end included. Longer lines are broken.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// What waits in memory while the orchestrator is away, in bytes.
const SPOOL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What one attempt may log in all, in bytes.
const TOTAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest tail quoted in a reason, in characters.
const QUOTE_CHARS_MAX: usize = 300;

/// The log of one attempt.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    /// Rung when there is something to send.
    pub(crate) bell: Notify,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    /// Bytes read behind the last line end.
    partial: Vec<u8>,
    /// Sealed chunks, oldest first; they stay until they are acknowledged.
    sealed: VecDeque<LogChunk>,
    open: Option<LogChunk>,
    next_seq: i64,
    /// Bytes in `sealed` and `open`.
    spooled: usize,
    total: u64,
    /// Dropped since the last line that was kept.
    dropped_lines: u64,
    dropped_bytes: u64,
    /// The limit of the whole log is reached, and that is said in it.
    capped: bool,
    last_line: String,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    spool: usize,
    total: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self::with(Limits { spool: SPOOL_BYTES_MAX, total: TOTAL_BYTES_MAX })
    }
}

impl Log {
    fn with(limits: Limits) -> Self {
        let state = State {
            limits,
            partial: Vec::new(),
            sealed: VecDeque::new(),
            open: None,
            next_seq: 0,
            spooled: 0,
            total: 0,
            dropped_lines: 0,
            dropped_bytes: 0,
            capped: false,
            last_line: String::new(),
        };
        Self { state: Mutex::new(state), bell: Notify::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads both streams of a process to their end.
    pub(crate) async fn read(&self, pipe: PipeReader) -> std::io::Result<()> {
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            match pipe.read(&mut buffer).await? {
                0 => break,
                count => self.push(&buffer[..count]),
            }
        }
        self.end_line();
        Ok(())
    }

    /// Takes in bytes as a process wrote them.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut state = self.lock();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            state.push_piece(piece);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Ends a line that the process left open.
    pub(crate) fn end_line(&self) {
        let mut state = self.lock();
        let partial = std::mem::take(&mut state.partial);
        if !partial.is_empty() {
            state.push_line(&partial);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Adds a line of the worker's own.
    pub(crate) fn say(&self, text: &str) {
        self.end_line();
        self.push(format!("[refit] {text}\n").as_bytes());
    }

    /// The last line that was not blank, for a failure's reason: bounded, without control characters.
    pub(crate) fn last_line(&self) -> String {
        let state = self.lock();
        let printable = state.last_line.trim().chars().filter(|c| !c.is_control());
        printable.take(QUOTE_CHARS_MAX).collect()
    }

    /// The oldest chunks not yet acknowledged, at most `count`; they stay in the log until [`Log::sent`]. `over`:
    /// nothing more will come, so what was dropped at the end is said too.
    pub(crate) fn unsent(&self, count: usize, over: bool) -> Vec<LogChunk> {
        let mut state = self.lock();
        if over {
            state.confess();
        }
        if state.sealed.len() < count {
            state.seal();
        }
        state.sealed.iter().take(count).cloned().collect()
    }

    /// Forgets the chunks up to this number: the orchestrator has them.
    pub(crate) fn sent(&self, last: i64) {
        let mut state = self.lock();
        while state.sealed.front().is_some_and(|chunk| chunk.seq <= last) {
            if let Some(chunk) = state.sealed.pop_front() {
                state.spooled -= chunk.text.len();
            }
        }
    }
}

impl State {
    /// Collects pieces to lines.
    fn push_piece(&mut self, piece: &[u8]) {
        let ends = piece.last() == Some(&b'\n');
        if ends && self.partial.is_empty() && piece.len() <= CHUNK_BYTES_MAX {
            self.push_line(&piece[..piece.len() - 1]);
            return;
        }
        let content = if ends { &piece[..piece.len() - 1] } else { piece };
        self.partial.extend_from_slice(content);
        while self.partial.len() >= CHUNK_BYTES_MAX {
            let cut = whole_characters(&self.partial[..CHUNK_BYTES_MAX - 1]);
            let rest = self.partial.split_off(cut);
            let line = std::mem::replace(&mut self.partial, rest);
            self.push_line(&line);
        }
        if ends {
            let line = std::mem::take(&mut self.partial);
            self.push_line(&line);
        }
    }

    /// A line without its end.
    fn push_line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        // PostgreSQL's text cannot hold NUL.
        let text = if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text };
        if !text.trim().is_empty() {
            self.last_line.clear();
            self.last_line.push_str(&text);
        }
        let mut rest: &str = &text;
        loop {
            // Replacing bytes that are not UTF-8 may have made the line longer than it came.
            let cut = rest.floor_char_boundary(CHUNK_BYTES_MAX - 1);
            let (piece, more) = rest.split_at(cut);
            self.store(piece);
            if more.is_empty() {
                return;
            }
            rest = more;
        }
    }

    fn store(&mut self, line: &str) {
        let bytes = line.len() + 1;
        let capped = self.total + bytes as u64 > self.limits.total;
        if capped && !self.capped {
            self.confess();
            self.capped = true;
            self.append("[refit] the log reached its limit of 64 MiB; what follows is not kept");
        }
        if self.capped || self.spooled + bytes > self.limits.spool {
            self.dropped_lines += 1;
            self.dropped_bytes += bytes as u64;
            return;
        }
        self.confess();
        self.total += bytes as u64;
        self.append(line);
    }

    /// Writes into the log what was dropped since the last line that was kept.
    fn confess(&mut self) {
        if self.dropped_lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.dropped_lines);
        let bytes = std::mem::take(&mut self.dropped_bytes);
        let why = if self.capped { "beyond the limit" } else { "the orchestrator was away for too long" };
        self.append(&format!("[refit] {lines} lines ({bytes} bytes) are missing here: {why}"));
    }

    fn append(&mut self, line: &str) {
        if self.open.as_ref().is_some_and(|chunk| chunk.text.len() + line.len() + 1 > CHUNK_BYTES_MAX) {
            self.seal();
        }
        let chunk = self.open.get_or_insert_with(|| LogChunk {
            seq: self.next_seq,
            at: crate::host::now(),
            text: String::new(),
        });
        chunk.text.push_str(line);
        chunk.text.push('\n');
        self.spooled += line.len() + 1;
    }

    fn seal(&mut self) {
        if let Some(chunk) = self.open.take() {
            self.next_seq = chunk.seq + 1;
            self.sealed.push_back(chunk);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chunks: &[LogChunk]) -> String {
        chunks.iter().map(|chunk| chunk.text.as_str()).collect()
    }

    #[test]
    fn chunks_hold_whole_lines_and_are_numbered_without_holes() {
        let log = Log::default();
        let mut all = String::new();
        for index in 0..20_000 {
            let line = format!("line {index} äöü\n");
            all.push_str(&line);
            let (head, tail) = line.as_bytes().split_at(7);
            log.push(head);
            log.push(tail);
        }
        let chunks = log.unsent(usize::MAX, true);
        assert!(chunks.len() > 1);
        assert_eq!(text(&chunks), all);
        for (index, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.seq, index as i64);
            assert!(chunk.text.ends_with('\n') && chunk.text.len() <= CHUNK_BYTES_MAX);
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_given_again() {
        let log = Log::default();
        log.push(b"one\n");
        let first = log.unsent(8, true);
        log.push(b"two\n");
        assert_eq!(log.unsent(8, true)[0], first[0]);
        log.sent(first[0].seq);
        assert_eq!(text(&log.unsent(8, true)), "two\n");
    }

    #[test]
    fn long_lines_are_broken_between_characters() {
        let log = Log::default();
        let line = "ä".repeat(100_000);
        log.push(line.as_bytes());
        log.end_line();
        let chunks = log.unsent(usize::MAX, true);
        assert!(chunks.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES_MAX));
        assert_eq!(text(&chunks).replace('\n', ""), line);
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced_and_bounded() {
        let log = Log::default();
        log.push(&vec![0xFF; 60_000]);
        log.push(b"\0\n");
        let chunks = log.unsent(usize::MAX, true);
        assert!(chunks.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES_MAX));
        assert_eq!(text(&chunks).replace('\n', ""), "\u{fffd}".repeat(60_001));
    }

    #[test]
    fn what_is_dropped_is_said_in_its_place() {
        let log = Log::with(Limits { spool: 20, total: 1000 });
        log.push(b"first\nsecond\nthird line that is too long\nfourth\n");
        let before = log.unsent(8, true);
        assert!(text(&before).starts_with("first\nsecond\n"), "{before:?}");
        log.sent(before[before.len() - 1].seq);
        log.push(b"after\n");
        let all = text(&before) + &text(&log.unsent(8, true));
        assert!(all.contains("1 lines (28 bytes) are missing here: the orchestrator was away"), "{all}");
        assert!(all.ends_with("after\n"), "{all}");
    }

    #[test]
    fn the_limit_of_a_log_is_said_once() {
        let log = Log::with(Limits { spool: 1000, total: 12 });
        for _ in 0..100 {
            log.push(b"12345\n");
        }
        let all = text(&log.unsent(8, true));
        assert_eq!(all.matches("12345").count(), 2);
        assert_eq!(all.matches("reached its limit").count(), 1, "{all}");
        assert!(all.contains("98 lines (588 bytes) are missing here: beyond the limit"), "{all}");
    }

    #[test]
    fn the_last_line_is_quoted_without_control_characters() {
        let log = Log::default();
        log.push(b"Traceback\n\x1b[31mValueError: no\x07\n\n  \n");
        assert_eq!(log.last_line(), "[31mValueError: no");
    }
}
