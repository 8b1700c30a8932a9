//! `refit event`: sending events, and what became of them.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use refit_workflows::wire::{EventView, Receipt};

use super::event_file::{EventFile, Found};
use super::{replay, unknown};
use crate::args::{EventCommand, EventListArgs, EventSendArgs, Format};
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Usage};
use crate::render::{self, GOOD, clean, count, paint, time::now};

/// The most events in one request.
const SENT_AT_ONCE: usize = 500;
/// The most bytes of events in one request, unless a single event weighs more.
const BYTES_AT_ONCE: usize = EVENT_BYTES_MAX / 2;

/// The most events of a file that are named as having been there already.
const KNOWN_MAX: usize = 20;

/// Does one of them.
pub(crate) async fn run(command: EventCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        EventCommand::Send(args) => match &args.file {
            Some(file) => send_file(file, args.output.format, client).await,
            None => send_one(args, client).await,
        },
        EventCommand::List(args) => list(args, client).await,
        EventCommand::Explain { id, source, workflow, output } => {
            let failed = || format!("failed to explain event {id}");
            let explained = client.explain_event(&id, source.as_deref(), workflow.as_deref()).await;
            let explained = explained.with_context(failed)?;
            let [one] = explained.as_slice() else {
                let events: Vec<EventView> = explained.into_iter().map(|one| one.event).collect();
                return several(&id, &events);
            };
            render::answer(output.format, one, || render::event::explain(one, now()))?;
            Ok(Exit::Ok)
        }
        EventCommand::Show { id, source, output } => {
            let failed = || format!("failed to show event {id}");
            let events = client.event(&id, source.as_deref()).await.with_context(failed)?;
            let [event] = events.as_slice() else { return several(&id, &events) };
            render::answer(output.format, event, || render::event::show(event, now()))?;
            Ok(Exit::Ok)
        }
        EventCommand::Replay(args) => replay::run(args, client).await,
        EventCommand::Replays { stop, limit, output } => replay::list(stop, limit, output, client).await,
    }
}

async fn list(args: EventListArgs, client: &Client) -> anyhow::Result<Exit> {
    let limit = args.limit.limit;
    let mut query = vec![("limit", limit.to_string())];
    query.extend(args.kind.map(|kind| ("type", kind)));
    query.extend(args.source.clone().map(|source| ("source", source)));
    query.extend(args.subject.map(|subject| ("subject", subject)));
    query.extend(args.unmatched.then(|| ("unmatched", "true".to_owned())));
    query.extend(args.decision.map(|decision| ("decision", decision)));
    query.extend(args.workflow.clone().map(|workflow| ("workflow", workflow)));
    query.extend(args.run.map(|run| ("run", run.to_string())));
    query.extend(args.since.map(|since| ("since", since.moment(now()).to_string())));
    query.extend(args.oldest.then(|| ("order", "oldest".to_owned())));
    query.extend(args.after.map(|after| ("after", after.to_string())));
    let events = client.events(&query).await.context("failed to list events")?;
    let format = args.output.format;
    render::listing(format, &events, "no such events", || render::event::list(&events, now()))?;
    if events.is_empty() {
        unknown::workflow(client, args.workflow.as_deref()).await;
        unknown::event_source(client, args.source.as_deref()).await;
    }
    if let Some(last) = events.last().filter(|_| format == Format::Table && events.len() == limit as usize) {
        render::note(format_args!(
            "there may be more: --after {} lists them, --limit takes up to 1000",
            last.seq
        ));
    }
    Ok(Exit::Ok)
}

fn several(id: &str, events: &[EventView]) -> anyhow::Result<Exit> {
    if events.is_empty() {
        render::error(&anyhow::anyhow!(
            "failed to show event {id}: there is none; `refit event list` shows what came"
        ));
        return Ok(Exit::Refused);
    }
    let sources: Vec<&str> = events.iter().map(|event| event.source.as_str()).collect();
    Err(Usage(format!("several sources use the id {id}: say which with --source ({})", sources.join(", ")))
        .into())
}

async fn send_one(args: EventSendArgs, client: &Client) -> anyhow::Result<Exit> {
    let id = args.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let mut event = serde_json::json!({
        "specversion": "1.0", "id": id, "source": args.source, "type": args.kind, "time": now().to_string(),
    });
    if let Some(subject) = args.subject {
        event["subject"] = subject.into();
    }
    if let Some(data) = args.data {
        event["data"] = data;
    }
    let event = CloudEvent::parse(event).map_err(|wrong| Usage(wrong.to_string()))?;
    let accepted = client.send_events(&[event]).await.context("failed to send the event")?;
    render::answer(args.output.format, &accepted.events, || accepted.events.iter().map(receipt).collect())?;
    Ok(Exit::Ok)
}

fn receipt(receipt: &Receipt) -> String {
    let stored = if receipt.duplicate { "was there already; nothing new happens" } else { "stored" };
    format!("{} event {} from {}: {stored}\n", paint(GOOD, "✓"), clean(&receipt.id), clean(&receipt.source))
}

/// What sending a file came to.
#[derive(Debug, Default, serde::Serialize)]
struct Sent {
    events: u64,
    duplicates: u64,
    /// Those that were there already; the first [`KNOWN_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    known: Vec<Known>,
}

/// An event that was there already.
#[derive(Debug, serde::Serialize)]
struct Known {
    source: String,
    id: String,
}

impl Sent {
    fn add(&mut self, receipts: &[Receipt]) {
        self.events += receipts.len() as u64;
        for receipt in receipts.iter().filter(|receipt| receipt.duplicate) {
            self.duplicates += 1;
            if self.known.len() < KNOWN_MAX {
                self.known.push(Known { source: receipt.source.clone(), id: receipt.id.clone() });
            }
        }
    }

    fn told(&self) -> String {
        let stored = count(self.events - self.duplicates, "event");
        let mut text = format!("{} {stored} stored", paint(GOOD, "✓"));
        if self.duplicates == 0 {
            return text;
        }
        text.push_str(&format!("; {} there already, for which nothing new happens:", self.duplicates));
        for known in &self.known {
            text.push_str(&format!("\n  {} from {}", clean(&known.id), clean(&known.source)));
        }
        let more = self.duplicates - self.known.len() as u64;
        if more > 0 {
            text.push_str(&format!("\n  and {more} more"));
        }
        text
    }
}

async fn send_file(file: &Path, format: Format, client: &Client) -> anyhow::Result<Exit> {
    let name = file.display().to_string();
    let (input, size) = EventFile::open(file)?;
    let progress = progress_bar(size);
    let mut reader = Batches { input, waiting: None };
    let mut sent = Sent::default();
    loop {
        // Reading may block (a pipe that is slow to fill), so it is done where blocking is allowed.
        let (back, batch) = tokio::task::spawn_blocking(move || {
            let batch = reader.next();
            (reader, batch)
        })
        .await
        .context("failed to read events")?;
        reader = back;
        let before = || match sent.events {
            0 => format!("failed to send {name}"),
            stored => format!(
                "failed to send {name} (the {} before are stored; sending them again is harmless)",
                count(stored, "event")
            ),
        };
        let batch = batch.with_context(before)?;
        if batch.events.is_empty() {
            break;
        }
        let accepted = client
            .send_events(&batch.events)
            .await
            .map_err(|wrong| from_line(wrong, batch.first))
            .with_context(before)?;
        sent.add(&accepted.events);
        progress.inc(batch.bytes as u64);
        progress.set_message(count(sent.events, "event"));
    }
    progress.finish_and_clear();
    render::answer(format, &sent, || sent.told())?;
    Ok(Exit::Ok)
}

fn from_line(wrong: ClientError, line: usize) -> anyhow::Error {
    anyhow::Error::new(wrong).context(format!("the events from line {line} on were not taken"))
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    // Small files are sent before a bar could be read.
    let target = match size {
        Some(size) if size < 1024 * 1024 => ProgressDrawTarget::hidden(),
        _ if !std::io::stderr().is_terminal() => ProgressDrawTarget::hidden(),
        _ => ProgressDrawTarget::stderr(),
    };
    let template = match size {
        Some(_) => "{bar:24} {bytes}/{total_bytes}  {msg}  {eta} left",
        None => "{spinner} {bytes}  {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(size, target).with_style(style)
}

/// Gathers the events of a file in batches that a request can carry.
struct Batches {
    input: EventFile,
    /// An event that did not fit into the batch before.
    waiting: Option<Found>,
}

#[derive(Debug, Default)]
struct Batch {
    events: Vec<CloudEvent>,
    /// The line of its first event.
    first: usize,
    bytes: usize,
}

impl Batches {
    /// The next batch; an empty one at the end.
    fn next(&mut self) -> anyhow::Result<Batch> {
        let mut batch = Batch::default();
        while batch.events.len() < SENT_AT_ONCE {
            let next = self.waiting.take().map_or_else(|| self.input.next(), |next| Ok(Some(next)))?;
            let Some(next) = next else { break };
            if !batch.events.is_empty() && batch.bytes + next.bytes > BYTES_AT_ONCE {
                self.waiting = Some(next);
                break;
            }
            if batch.events.is_empty() {
                batch.first = next.line;
            }
            batch.bytes += next.bytes;
            batch.events.push(next.event);
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: String) -> Batches {
        Batches { input: EventFile::of(Box::new(std::io::Cursor::new(text))), waiting: None }
    }

    fn line(id: usize, padding: usize) -> String {
        format!(
            "{{\"id\": \"{id}\", \"source\": \"s\", \"type\": \"t\", \"data\": \"{}\"}}\n",
            "x".repeat(padding)
        )
    }

    #[test]
    fn batches_are_bounded_by_number_and_weight() {
        let mut many = batches((0..1200).map(|id| line(id, 0)).collect::<String>() + "\n\n");
        let sizes: Vec<usize> =
            std::iter::from_fn(|| many.next().ok().map(|b| b.events.len())).take(4).collect();
        assert_eq!(sizes, [500, 500, 200, 0]);

        let mut heavy = batches((0..5).map(|id| line(id, 200_000)).collect());
        let sizes: Vec<usize> =
            std::iter::from_fn(|| heavy.next().ok().map(|b| b.events.len())).take(4).collect();
        assert_eq!(sizes, [2, 2, 1, 0]);
    }

    #[test]
    fn events_that_were_there_already_are_named() {
        let receipts = |ids: std::ops::Range<u32>, duplicate: bool| -> Vec<Receipt> {
            ids.map(|id| Receipt { id: id.to_string(), source: "/s".to_owned(), duplicate }).collect()
        };
        let mut sent = Sent::default();
        sent.add(&receipts(0..3, false));
        assert_eq!(render::plain(&sent.told()), "✓ 3 events stored");
        sent.add(&receipts(3..5, true));
        let told = render::plain(&sent.told());
        assert_eq!(
            told,
            "✓ 3 events stored; 2 there already, for which nothing new happens:\n  3 from /s\n  4 from /s"
        );
        sent.add(&receipts(5..100, true));
        assert_eq!(sent.known.len(), KNOWN_MAX);
        assert!(render::plain(&sent.told()).ends_with("22 from /s\n  and 77 more"), "{}", sent.told());
    }

    #[test]
    fn no_event_is_lost_between_batches() {
        let mut heavy = batches((0..5).map(|id| line(id, 300_000)).collect());
        let mut ids = Vec::new();
        loop {
            let batch = heavy.next().unwrap();
            if batch.events.is_empty() {
                break;
            }
            ids.extend(batch.events.iter().map(|event| event.id().to_owned()));
        }
        assert_eq!(ids, ["0", "1", "2", "3", "4"]);
    }
}
