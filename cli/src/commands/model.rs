//! `refit model`: versions, aliases, history, and the way back.

use anyhow::Context as _;
use refit_workflows::wire::Rollback;

use super::first;
use crate::args::ModelCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, BOLD, GOOD, clean, paint, time::now};

/// Lists, shows or rolls back.
pub(crate) async fn run(command: ModelCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        ModelCommand::List { limit, output } => {
            let models = first(client.models().await.context("failed to list models")?, limit);
            let none = "no models yet; a model appears when a run promotes its first version";
            render::listing(output.format, &models, none, || render::model::list(&models, now()))?;
        }
        ModelCommand::Show { model, output } => {
            let view = client.model(&model).await.with_context(|| format!("failed to show {model}"))?;
            render::answer(output.format, &view, || render::model::show(&view, now()))?;
        }
        ModelCommand::History { model, limit, output } => {
            let moves = client
                .history(&model)
                .await
                .with_context(|| format!("failed to show the history of {model}"))?;
            let moves = first(moves, limit);
            render::listing(output.format, &moves, "no alias has moved yet", || {
                render::model::history(&moves, now())
            })?;
        }
        ModelCommand::Rollback { model, alias, reason, output } => {
            let rollback = Rollback { alias, reason };
            let failed = || format!("failed to roll {model} back");
            let moved = client.rollback(&model, &rollback).await.with_context(failed)?;
            render::answer(output.format, &moved, || {
                let (alias, step) = (clean(&moved.alias), render::model::moved(&moved));
                format!("{} {} {alias}  {step}", paint(GOOD, "✓"), paint(BOLD, &model))
            })?;
        }
    }
    Ok(Exit::Ok)
}
