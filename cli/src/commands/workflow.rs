//! `refit workflow`: what is registered.

use anyhow::Context as _;

use super::first;
use crate::args::WorkflowCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, time::now};

/// Lists or shows.
pub(crate) async fn run(command: WorkflowCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        WorkflowCommand::List { limit, output } => {
            let workflows = first(client.workflows().await.context("failed to list workflows")?, limit);
            let none = "no workflows yet; register one with `refit apply PATH`";
            render::listing(output.format, &workflows, none, || render::workflow::list(&workflows, now()))?;
        }
        WorkflowCommand::Show { workflow, text, output } => {
            let view =
                client.workflow(&workflow).await.with_context(|| format!("failed to show {workflow}"))?;
            if text {
                let text = view.text.with_context(|| format!("the server keeps no text of {workflow}"))?;
                render::print_raw(text.as_bytes())?;
            } else {
                render::answer(output.format, &view, || render::workflow::show(&view, now()))?;
            }
        }
    }
    Ok(Exit::Ok)
}
