//! `refit workflow`: what is registered, and whether it may start runs.

use anyhow::Context as _;
use refit_workflows::wire::PauseWorkflow;

use super::first;
use crate::args::WorkflowCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, time::now};

/// Does one of them.
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
        WorkflowCommand::Pause { workflow, reason, output } => {
            let paused = client.pause(&workflow, &PauseWorkflow { reason }).await;
            let view = paused.with_context(|| format!("failed to pause {workflow}"))?;
            render::answer(output.format, &view, || render::workflow::standing(&view))?;
        }
        WorkflowCommand::Resume { workflow, output } => {
            let resumed = client.resume(&workflow).await;
            let view = resumed.with_context(|| format!("failed to resume {workflow}"))?;
            render::answer(output.format, &view, || render::workflow::standing(&view))?;
        }
        WorkflowCommand::Delete { workflow, force, reason, output } => {
            let deleted = client.delete_workflow(&workflow, force, reason.as_deref()).await;
            let view = deleted.with_context(|| format!("failed to delete {workflow}"))?;
            render::answer(output.format, &view, || render::workflow::deleted(&view))?;
        }
    }
    Ok(Exit::Ok)
}
