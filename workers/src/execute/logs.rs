//! One attempt's log: bytes come in as they are read, numbered chunks of whole lines go out, each line with the stream it
//! came on. Bounded in every direction; what is dropped is written into the log. Must never happen here: a secret of the
//! step in it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use refit_workflows::wire::{LogChunk, LogMark, LogStream};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

use super::lines::{LINE_BYTES_MAX, Lines, readable};
use super::process::Streams;
use super::redact::Redactor;

/// The largest chunk, in bytes.
const CHUNK_BYTES_MAX: usize = LINE_BYTES_MAX;
/// How often the stream may change within a chunk.
const MARKS_MAX: usize = 512;
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
    redactor: Redactor,
    /// Rung when there is something to send.
    pub(crate) bell: Notify,
}

#[derive(Debug)]
struct State {
    stdout: Lines,
    stderr: Lines,
    kept: Kept,
}

/// The lines that were kept, and what is known of the others.
#[derive(Debug)]
struct Kept {
    limits: Limits,
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
    /// The beginning of the last line that was not blank, and of the last such line on standard error.
    last_line: Vec<u8>,
    last_error: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    spool: usize,
    total: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self::without(Redactor::default())
    }
}

impl Log {
    /// A log in which nothing of what the redactor knows will stand.
    pub(crate) fn without(redactor: Redactor) -> Self {
        Self::with(redactor, Limits { spool: SPOOL_BYTES_MAX, total: TOTAL_BYTES_MAX })
    }

    fn with(redactor: Redactor, limits: Limits) -> Self {
        let kept = Kept {
            limits,
            sealed: VecDeque::new(),
            open: None,
            next_seq: 0,
            spooled: 0,
            total: 0,
            dropped_lines: 0,
            dropped_bytes: 0,
            capped: false,
            last_line: Vec::new(),
            last_error: Vec::new(),
        };
        let state = State { stdout: Lines::new(&redactor), stderr: Lines::new(&redactor), kept };
        Self { state: Mutex::new(state), redactor, bell: Notify::new() }
    }

    /// What keeps the step's secrets out of it, for what does not go through it.
    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads both streams of a process to their end, a piece of each in turn: what is read at different moments is in the
    /// order it was written.
    pub(crate) async fn read(&self, streams: Streams) -> std::io::Result<()> {
        // What an earlier process said is not why this one fails.
        self.lock().kept.last_error.clear();
        let (out, err) = tokio::join!(
            self.read_one(streams.stdout, LogStream::Stdout),
            self.read_one(streams.stderr, LogStream::Stderr),
        );
        self.finish();
        out.and(err)
    }

    async fn read_one(&self, pipe: std::io::PipeReader, stream: LogStream) -> std::io::Result<()> {
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            match pipe.read(&mut buffer).await? {
                0 => return Ok(()),
                count => self.push(stream, &buffer[..count]),
            }
            // The other stream's turn, however fast this one is.
            tokio::task::yield_now().await;
        }
    }

    /// Takes in bytes as a process wrote them.
    pub(crate) fn push(&self, stream: LogStream, bytes: &[u8]) {
        let mut state = self.lock();
        let State { stdout, stderr, kept } = &mut *state;
        match stream {
            LogStream::Stdout => stdout.push(bytes, |line| kept.push(stream, line)),
            LogStream::Stderr => stderr.push(bytes, |line| kept.push(stream, line)),
            LogStream::Worker => bytes.split(|&byte| byte == b'\n').for_each(|line| kept.push(stream, line)),
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Ends lines that the process left open; it writes no more.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        let State { stdout, stderr, kept } = &mut *state;
        stdout.finish(|line| kept.push(LogStream::Stdout, line));
        stderr.finish(|line| kept.push(LogStream::Stderr, line));
        drop(state);
        self.bell.notify_one();
    }

    /// Adds a line of the worker's own.
    pub(crate) fn say(&self, text: &str) {
        let text = self.redactor.text(text);
        self.push(LogStream::Worker, format!("[refit] {text}").as_bytes());
    }

    /// The last line that was not blank, for a failure's reason: bounded, without control characters.
    pub(crate) fn last_line(&self) -> String {
        let state = self.lock();
        let Kept { last_line, last_error, .. } = &state.kept;
        // Which of two streams was written last cannot be told; what goes wrong is said on standard error.
        let line = readable(if last_error.is_empty() { last_line } else { last_error });
        let printable = line.trim().chars().filter(|c| !c.is_control());
        printable.take(QUOTE_CHARS_MAX).collect()
    }

    /// The oldest chunks not yet acknowledged, at most `count`; they stay in the log until [`Log::sent`]. `over`:
    /// nothing more will come, so what was dropped at the end is said too.
    pub(crate) fn unsent(&self, count: usize, over: bool) -> Vec<LogChunk> {
        let kept = &mut self.lock().kept;
        if over {
            kept.confess();
        }
        if kept.sealed.len() < count {
            kept.seal();
        }
        kept.sealed.iter().take(count).cloned().collect()
    }

    /// Forgets the chunks up to this number: the orchestrator has them.
    pub(crate) fn sent(&self, last: i64) {
        let kept = &mut self.lock().kept;
        while kept.sealed.front().is_some_and(|chunk| chunk.seq <= last) {
            if let Some(chunk) = kept.sealed.pop_front() {
                kept.spooled -= chunk.text.len();
            }
        }
    }
}

impl Kept {
    /// A line without its end.
    fn push(&mut self, stream: LogStream, line: &[u8]) {
        if !line.trim_ascii().is_empty() {
            let last = if stream == LogStream::Stderr { &mut self.last_error } else { &mut self.last_line };
            last.clear();
            // No character has more than four bytes.
            last.extend_from_slice(&line[..line.len().min(QUOTE_CHARS_MAX * 4)]);
        }
        if self.capped {
            // However much more comes, it costs next to nothing.
            return self.drop_line(line.len() + 1);
        }
        let text = readable(line);
        let mut rest: &str = &text;
        loop {
            // Showing bytes that are not UTF-8 may have made the line longer than it came.
            let cut = rest.floor_char_boundary(CHUNK_BYTES_MAX - 1);
            let (piece, more) = rest.split_at(cut);
            self.store(stream, piece);
            if more.is_empty() {
                return;
            }
            rest = more;
        }
    }

    fn store(&mut self, stream: LogStream, line: &str) {
        let bytes = line.len() + 1;
        let capped = self.total + bytes as u64 > self.limits.total;
        if capped && !self.capped {
            self.confess();
            self.capped = true;
            self.append(
                LogStream::Worker,
                "[refit] the log reached its limit of 64 MiB; what follows is not kept",
            );
        }
        if self.capped || self.spooled + bytes > self.limits.spool {
            return self.drop_line(bytes);
        }
        self.confess();
        self.total += bytes as u64;
        self.append(stream, line);
    }

    fn drop_line(&mut self, bytes: usize) {
        self.dropped_lines += 1;
        self.dropped_bytes += bytes as u64;
    }

    /// Writes into the log what was dropped since the last line that was kept.
    fn confess(&mut self) {
        if self.dropped_lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.dropped_lines);
        let bytes = std::mem::take(&mut self.dropped_bytes);
        let why = if self.capped {
            "beyond the limit"
        } else {
            "they were written faster than the orchestrator took them, or it was away"
        };
        self.append(
            LogStream::Worker,
            &format!("[refit] {lines} lines ({bytes} bytes) are missing here: {why}"),
        );
    }

    fn append(&mut self, stream: LogStream, line: &str) {
        let is_full = |chunk: &LogChunk| {
            let another = chunk.marks.last().is_none_or(|mark| mark.stream != stream);
            chunk.text.len() + line.len() + 1 > CHUNK_BYTES_MAX || (another && chunk.marks.len() >= MARKS_MAX)
        };
        if self.open.as_ref().is_some_and(is_full) {
            self.seal();
        }
        let chunk = self.open.get_or_insert_with(|| LogChunk {
            seq: self.next_seq,
            at: crate::host::now(),
            text: String::new(),
            marks: Vec::new(),
        });
        chunk.text.push_str(line);
        chunk.text.push('\n');
        match chunk.marks.last_mut().filter(|mark| mark.stream == stream) {
            Some(mark) => mark.lines += 1,
            None => chunk.marks.push(LogMark { stream, lines: 1 }),
        }
        self.spooled += line.len() + 1;
    }

    fn seal(&mut self) {
        if let Some(chunk) = self.open.take() {
            self.next_seq = chunk.seq + 1;
            self.sealed.push_back(chunk);
        }
    }
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
            log.push(LogStream::Stdout, head);
            log.push(LogStream::Stdout, tail);
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
        log.push(LogStream::Stdout, b"one\n");
        let first = log.unsent(8, true);
        log.push(LogStream::Stdout, b"two\n");
        assert_eq!(log.unsent(8, true)[0], first[0]);
        log.sent(first[0].seq);
        assert_eq!(text(&log.unsent(8, true)), "two\n");
    }

    #[test]
    fn bytes_that_are_not_text_are_kept_and_bounded() {
        let log = Log::default();
        log.push(LogStream::Stdout, &vec![0xFF; 60_000]);
        log.push(LogStream::Stdout, b"\0\n");
        let chunks = log.unsent(usize::MAX, true);
        assert!(chunks.iter().all(|chunk| chunk.text.len() <= CHUNK_BYTES_MAX));
        assert_eq!(text(&chunks).replace('\n', ""), "\\xff".repeat(60_000) + "\\x00");
    }

    #[test]
    fn what_is_dropped_is_said_in_its_place() {
        let log = Log::with(Redactor::default(), Limits { spool: 20, total: 1000 });
        log.push(LogStream::Stdout, b"first\nsecond\nthird line that is too long\nfourth\n");
        let before = log.unsent(8, true);
        assert!(text(&before).starts_with("first\nsecond\n"), "{before:?}");
        log.sent(before[before.len() - 1].seq);
        log.push(LogStream::Stdout, b"after\n");
        let all = text(&before) + &text(&log.unsent(8, true));
        assert!(all.contains("1 lines (28 bytes) are missing here: they were written faster"), "{all}");
        assert!(all.ends_with("after\n"), "{all}");
    }

    #[test]
    fn the_limit_of_a_log_is_said_once() {
        let log = Log::with(Redactor::default(), Limits { spool: 1000, total: 12 });
        for _ in 0..100 {
            log.push(LogStream::Stdout, b"12345\n");
        }
        let all = text(&log.unsent(8, true));
        assert_eq!(all.matches("12345").count(), 2);
        assert_eq!(all.matches("reached its limit").count(), 1, "{all}");
        assert!(all.contains("98 lines (588 bytes) are missing here: beyond the limit"), "{all}");
    }

    #[test]
    fn the_last_line_is_quoted_without_control_characters() {
        let log = Log::default();
        log.push(LogStream::Stdout, b"Traceback\n\x1b[31mValueError: no\x07\n\n  \n");
        assert_eq!(log.last_line(), "[31mValueError: no");
    }

    #[test]
    fn every_line_has_the_mark_of_its_stream() {
        let log = Log::default();
        log.push(LogStream::Stdout, b"one\ntwo\nha");
        log.push(LogStream::Stderr, b"wrong\nope");
        log.push(LogStream::Stdout, b"lf\n");
        log.say("well");
        log.finish();
        let chunks = log.unsent(8, true);
        assert_eq!(
            text(&chunks),
            "one\ntwo\nwrong\nhalf\n[refit] well\nope\n",
            "a line is never torn by the other stream"
        );
        let marks: Vec<(LogStream, u32)> =
            chunks[0].marks.iter().map(|mark| (mark.stream, mark.lines)).collect();
        let (out, err) = (LogStream::Stdout, LogStream::Stderr);
        assert_eq!(marks, [(out, 2), (err, 1), (out, 1), (LogStream::Worker, 1), (err, 1)]);
        for _ in 0..2_000 {
            log.push(LogStream::Stdout, b"o\n");
            log.push(LogStream::Stderr, b"e\n");
        }
        let chunks = log.unsent(usize::MAX, true);
        assert!(chunks.iter().all(|chunk| chunk.marks.len() <= MARKS_MAX));
        for chunk in &chunks {
            let lines: u32 = chunk.marks.iter().map(|mark| mark.lines).sum();
            assert_eq!(lines as usize, chunk.text.lines().count());
        }
    }

    #[test]
    fn a_secret_is_in_no_line_and_in_no_quote() {
        let secrets = [("KEY".to_owned(), refit_workflows::wire::SecretValue::new("hunter2!"))].into();
        let log = Log::without(Redactor::new(&secrets).unwrap());
        log.push(LogStream::Stdout, b"the key is hun");
        log.push(LogStream::Stderr, b"hunter2!\n");
        log.push(LogStream::Stdout, b"ter2!, is it\n");
        assert_eq!(log.last_line(), "***KEY***", "standard error is quoted first");
        log.say("failed with hunter2!");
        log.push(LogStream::Stdout, b"hunt");
        log.finish();
        let all = text(&log.unsent(8, true));
        assert_eq!(all, "***KEY***\nthe key is ***KEY***, is it\n[refit] failed with ***KEY***\nhunt\n");
    }
}
