//! `refit worker`: who is there to work, and what waits for whom.

use anyhow::Context as _;

use super::first;
use crate::args::{Format, WorkerCommand};
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, time::now};

/// Lists, shows, drains or resumes.
pub(crate) async fn run(command: WorkerCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        WorkerCommand::List { limit, output } => {
            let workers = first(client.workers().await.context("failed to list workers")?, limit);
            let waiting = match output.format {
                Format::Table => client.waiting().await.context("failed to list what waits")?,
                Format::Json | Format::Yaml => Vec::new(),
            };
            let none = "no workers; start one with `refit work` on any host that reaches the server";
            render::listing(output.format, &workers, none, || {
                render::worker::list(&workers, now()) + &render::worker::waiting(&waiting, now())
            })?;
        }
        WorkerCommand::Show { worker, output } => {
            let failed = || format!("failed to show {worker}");
            let view = client.worker(&worker).await.with_context(failed)?;
            let waiting = client.waiting().await.with_context(failed)?;
            render::answer(output.format, &view, || render::worker::show(&view, &waiting, now()))?;
        }
        WorkerCommand::Drain { worker, output } => {
            let drained = client.drain_worker(&worker, true).await;
            let view = drained.with_context(|| format!("failed to drain {worker}"))?;
            render::answer(output.format, &view, || render::worker::line(&view))?;
        }
        WorkerCommand::Resume { worker, output } => {
            let resumed = client.drain_worker(&worker, false).await;
            let view = resumed.with_context(|| format!("failed to resume {worker}"))?;
            render::answer(output.format, &view, || render::worker::line(&view))?;
        }
    }
    Ok(Exit::Ok)
}
