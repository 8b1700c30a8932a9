//! `refit worker`: who is there to work.

use anyhow::Context as _;

use super::first;
use crate::args::WorkerCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, time::now};

/// Lists the workers.
pub(crate) async fn run(command: WorkerCommand, client: &Client) -> anyhow::Result<Exit> {
    let WorkerCommand::List { limit, output } = command;
    let workers = first(client.workers().await.context("failed to list workers")?, limit);
    let none = "no workers; start one with `refit work` on any host that reaches the server";
    render::listing(output.format, &workers, none, || render::model::workers(&workers, now()))?;
    Ok(Exit::Ok)
}
