//! `refit up`: orchestrator and one worker in one process, with the workflows of a folder.

use anyhow::Context as _;

use super::apply;
use super::local::{Orchestrator, Worker};
use crate::args::{Format, Remote, SERVER_DEFAULT, UpArgs};
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, BOLD, DIM, GOOD, clean, paint};
use crate::settings::Settings;
use crate::signals::{self, Signals};

/// Runs until the first signal, then finishes what runs; the second signal ends that, too.
pub(crate) async fn run(args: UpArgs, remote: &Remote) -> anyhow::Result<Exit> {
    let settings = Settings::load(&args.config)?;
    let config = settings.orchestrator(&args.place, &args.broker, None, &[])?;
    let data = config.data.clone();
    let signals = signals::listen()?;
    let mut orchestrator = tokio::select! {
        started = Box::pin(Orchestrator::start(config)) => started?,
        () = signals.drain.cancelled() => return Ok(Exit::Ok),
    };
    let url = orchestrator.url();
    let client = Client::at(&url, remote.token.clone())?;
    let applied = tokio::select! {
        applied = Box::pin(apply::apply(std::slice::from_ref(&args.path), &client, Format::Table)) => applied,
        () = signals.drain.cancelled() => Ok(None),
    };
    let applied = match applied {
        Ok(Some(applied)) => applied,
        Ok(None) => {
            orchestrator.end().await;
            return Ok(if signals.drain.is_cancelled() { Exit::Ok } else { Exit::Definition });
        }
        Err(wrong) => {
            orchestrator.end().await;
            return Err(wrong.context(format!("failed to bring {} up", args.path.display())));
        }
    };
    let mut worker_config = settings.local_worker(&url, &data, args.slots);
    worker_config.token.clone_from(&remote.token);
    let mut text = format!("{} refit is up on {}\n", paint(GOOD, "✓"), paint(BOLD, &url));
    for one in &applied {
        text.push_str(&one.line());
    }
    text.push_str(&format!(
        "{} worker {}  {} slots\n\n",
        paint(GOOD, "✓"),
        paint(BOLD, clean(&worker_config.name)),
        worker_config.slots
    ));
    text.push_str(&next_steps(&url, &applied));
    render::print(text)?;
    let worker = Worker::start(worker_config)?;
    until_told(&mut orchestrator, worker, &signals).await?;
    orchestrator.end().await;
    Ok(Exit::Ok)
}

async fn until_told(
    orchestrator: &mut Orchestrator,
    mut worker: Worker,
    signals: &Signals,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        wrong = orchestrator.ended() => Err(wrong),
        ended = worker.ended() => ended.and_then(|()| anyhow::bail!("the worker ended by itself")),
        () = signals.drain.cancelled() => Ok(()),
    };
    if ended.is_ok() {
        render::note("finishing what runs; Ctrl-C again to end it");
    }
    worker.end(&signals.abort).await;
    ended.context("failed to stay up")
}

/// Commands that lead on from here, with the names of what is there.
fn next_steps(url: &str, applied: &[apply::Applied]) -> String {
    let server = if url == SERVER_DEFAULT { String::new() } else { format!(" --server {url}") };
    let mut lines = Vec::new();
    if let Some(first) = applied.first() {
        lines
            .push((format!("refit run start {} --wait{server}", first.view.workflow), "start a run by hand"));
    }
    lines.push((format!("refit event send --type TYPE --data JSON{server}"), "send an event"));
    lines.push((format!("refit run list{server}"), "what ran and what is running"));
    lines.push((format!("refit model list{server}"), "what was promoted"));
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = format!("{}\n", paint(DIM, "In another terminal:"));
    for (command, why) in lines {
        text.push_str(&format!("  {command:<width$}  {}\n", paint(DIM, format_args!("# {why}"))));
    }
    text.push_str(&format!("\n{}\n", paint(DIM, "Ctrl-C ends it.")));
    text
}
