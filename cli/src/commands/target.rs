//! `refit target`: where events are sent, and what waits there.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use refit_workflows::wire::TargetView;

use super::first;
use crate::args::TargetCommand;
use crate::client::{Client, ClientError};
use crate::exit::Exit;
use crate::render::{self, BOLD, GOOD, count, paint, time::now};

/// How long the first try after enabling a target is waited for, and how often that is looked after.
const FIRST_TRY_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
            let enabled = client.enable_target(&target).await.with_context(failed)?;
            let latest = first_try(enabled.clone(), client).await.with_context(failed)?;
            render::answer(output.format, &latest, || render::target::enabled(&enabled, &latest))?;
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

/// How a target stands once the events that wait for it have been tried, or a moment is over: before that it counts as well.
async fn first_try(enabled: TargetView, client: &Client) -> Result<TargetView, ClientError> {
    let until = Instant::now() + FIRST_TRY_WAIT;
    let mut latest = enabled.clone();
    while latest.state == "ok" && latest.pending > 0 && latest.sent == enabled.sent && Instant::now() < until
    {
        tokio::time::sleep(LOOK_EVERY).await;
        latest = client.target(&enabled.name).await?;
    }
    Ok(latest)
}
