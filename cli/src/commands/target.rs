//! `refit target`: where events are sent, and what waits there.

use anyhow::Context as _;

use super::first;
use crate::args::TargetCommand;
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, BOLD, GOOD, count, paint, time::now};

/// Lists, shows, enables or drops.
pub(crate) async fn run(command: TargetCommand, client: &Client) -> anyhow::Result<Exit> {
    match command {
        TargetCommand::List { limit, output } => {
            let targets = first(client.targets().await.context("failed to list targets")?, limit);
            let none = "no targets; name some under `targets` in refit.yaml, or give `refit serve` an --amqp-exchange";
            render::listing(output.format, &targets, none, || render::target::list(&targets, now()))?;
        }
        TargetCommand::Show { target, output } => {
            let view = client.target(&target).await.with_context(|| format!("failed to show {target}"))?;
            render::answer(output.format, &view, || render::target::show(&view, now()))?;
        }
        TargetCommand::Enable { target, output } => {
            let failed = || format!("failed to enable {target}");
            let view = client.enable_target(&target).await.with_context(failed)?;
            render::answer(output.format, &view, || {
                let pending = count(view.pending.unsigned_abs(), "event");
                format!("{} {} is sent to again; {pending} to send", paint(GOOD, "✓"), paint(BOLD, &target))
            })?;
        }
        TargetCommand::Drop { target, output } => {
            let failed = || format!("failed to drop the events of {target}");
            let dropped = client.drop_events(&target).await.with_context(failed)?;
            render::answer(output.format, &dropped, || {
                let events = count(dropped.dropped, "event");
                format!("{} {} {events} dropped", paint(GOOD, "✓"), paint(BOLD, &target))
            })?;
        }
    }
    Ok(Exit::Ok)
}
