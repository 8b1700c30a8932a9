//! `refit model`: versions, what is in them and where they come from, aliases, history, and moving an alias by hand.

use std::path::PathBuf;

use anyhow::Context as _;
use refit_workflows::wire::{HistoryView, PromoteVersion, Rollback, VersionRef};

use super::first;
use crate::args::{ModelCommand, Output};
use crate::client::Client;
use crate::download;
use crate::exit::Exit;
use crate::render::{self, BOLD, GOOD, clean, paint, time::now};

/// Lists, shows, compares, fetches or moves an alias.
pub(crate) async fn run(command: ModelCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        ModelCommand::List { limit, output } => {
            let models = first(client.models().await.context("failed to list models")?, limit);
            let none = "no models yet; a model appears when a run promotes its first version";
            render::listing(output.format, &models, none, || render::model::list(&models, now()))?;
        }
        ModelCommand::Show { model, version: Some(version), output } => {
            let failed = || format!("failed to show {model} {version}");
            let detail = client.version(&model, &version).await.with_context(failed)?;
            render::answer(output.format, &detail, || render::version::lineage(&detail, now()))?;
        }
        ModelCommand::Show { model, version: None, output } => {
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
        ModelCommand::Diff { model, from, to, output } => {
            let failed = || format!("failed to compare {model} {from} with {to}");
            let diff = client.diff(&model, &from, &to).await.with_context(failed)?;
            render::answer(output.format, &diff, || render::version::diff(&diff))?;
        }
        ModelCommand::Download { model, alias, version, path } => {
            let version = version.map_or(VersionRef::Alias(alias), VersionRef::Number);
            fetch(client, &model, &version, path).await?;
        }
        ModelCommand::Promote { model, version, alias, expect, override_gate, reason, output } => {
            let ask = PromoteVersion { version, alias, expect, override_gate, reason };
            let failed = || format!("failed to promote {model} {version}");
            let moved = client.promote(&model, &ask).await.with_context(failed)?;
            say_moved(&model, &moved, output)?;
        }
        ModelCommand::Rollback { model, alias, to, expect, reason, output } => {
            let rollback = Rollback { alias, to, expect, reason };
            let failed = || format!("failed to roll {model} back");
            let moved = client.rollback(&model, &rollback).await.with_context(failed)?;
            say_moved(&model, &moved, output)?;
        }
    }
    Ok(Exit::Ok)
}

fn say_moved(model: &str, moved: &HistoryView, output: Output) -> anyhow::Result<()> {
    render::answer(output.format, moved, || {
        let (alias, step) = (clean(&moved.alias), render::model::moved(moved));
        format!("{} {} {alias}  {step}", paint(GOOD, "✓"), paint(BOLD, model))
    })
}

async fn fetch(
    client: &Client,
    model: &str,
    version: &VersionRef,
    path: Option<PathBuf>,
) -> anyhow::Result<()> {
    let failed = || format!("failed to fetch {model} {version}");
    let detail = client.version(model, version).await.with_context(failed)?;
    let path = path.unwrap_or_else(|| PathBuf::from(&detail.version.artifact));
    download::version(client, &detail, &path).await.with_context(failed)?;
    let (number, bytes) = (detail.version.version, render::bytes(detail.version.bytes));
    render::note(format_args!(
        "{} {} {number}  {}  {bytes}  {}",
        paint(GOOD, "✓"),
        paint(BOLD, model),
        clean(&path.display().to_string()),
        render::short(&detail.version.digest)
    ));
    Ok(())
}
