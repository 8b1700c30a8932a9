//! `refit demo`: sets the stage for the tour (a temporary folder, an orchestrator, a worker, the example's workflow)
//! and clears it away again, whatever happens. What is told on it stands in [`story`].

mod files;
mod story;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, bail};
use refit_orchestrator::Config;
use refit_orchestrator::config::{Broker, Source};
use refit_workflows::event::CloudEvent;
use refit_workflows::wire::RunView;
use tokio_util::sync::CancellationToken;

use super::apply;
use super::local::{Orchestrator, Worker};
use crate::args::{DemoArgs, Format, Remote, SERVER_DEFAULT};
use crate::client::Client;
use crate::exit::Exit;
use crate::render::{self, BOLD, DIM, paint};
use crate::signals::{self, Signals};

/// The workflow, and the model it retrains.
const WORKFLOW: &str = "digits";

/// Plays the tour.
pub(crate) async fn run(args: DemoArgs, remote: &Remote) -> anyhow::Result<Exit> {
    let signals = signals::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("refit-demo-")
        .tempdir()
        .context("failed to make a temporary folder")?;
    let played = Box::pin(play(&args, remote, folder.path(), &signals)).await;
    if let Err(wrong) = folder.close() {
        render::note(format_args!("the temporary folder could not be removed: {wrong}"));
    }
    played
}

async fn play(args: &DemoArgs, remote: &Remote, folder: &Path, signals: &Signals) -> anyhow::Result<Exit> {
    let route = match &args.amqp_url {
        // A queue of its own: a shared one may hold other people's events.
        Some(url) => {
            let queue = format!("refit.demo.{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
            Route::Queue { url: url.clone(), queue }
        }
        None => Route::Http,
    };
    let config = orchestrator_config(args, folder, &route);
    let mut orchestrator = tokio::select! {
        started = Box::pin(Orchestrator::start(config)) => started?,
        () = signals.drain.cancelled() => return Ok(Exit::Failed),
    };
    let url = orchestrator.url();
    let mut worker = Worker::start(refit_workers::Config {
        server: url.clone(),
        token: remote.token.clone(),
        name: "demo".to_owned(),
        slots: args.slots,
        labels: std::collections::BTreeMap::new(),
        cpus: None,
        memory: None,
        gpus: None,
        data: crate::settings::worker_folder(folder),
        cache_bytes_max: refit_workers::Config::CACHE_BYTES_MAX,
    })?;
    let played = tokio::select! {
        played = Box::pin(on_stage(args, remote, folder, &url, &route, signals)) => played,
        wrong = orchestrator.ended() => Err(wrong),
        ended = worker.ended() => ended.and_then(|()| bail!("the worker ended by itself")),
        () = signals.drain.cancelled() => {
            render::note("interrupted; cleaning up");
            Ok(Exit::Failed)
        }
    };
    // Nothing that still runs here is of use to anybody.
    let now = CancellationToken::new();
    now.cancel();
    worker.end(&now).await;
    orchestrator.end().await;
    route.clear_away().await;
    played
}

fn orchestrator_config(args: &DemoArgs, folder: &Path, route: &Route) -> Config {
    let mut config = Config::local(folder.join("orchestrator"));
    // Whoever explores afterwards types less when it is where every command looks by default.
    let default_is_free = args.keep && TcpListener::bind(config.listen).is_ok();
    if !default_is_free {
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    }
    config.database_url.clone_from(&args.database_url);
    if let Route::Queue { url, queue } = route {
        config.sources.push(Source::queue(Broker::at(url), queue));
    }
    config
}

async fn on_stage(
    args: &DemoArgs,
    remote: &Remote,
    folder: &Path,
    url: &str,
    route: &Route,
    signals: &Signals,
) -> anyhow::Result<Exit> {
    let client = Client::at(url, remote.token.clone())?;
    is_fresh(&client).await?;
    let code = folder.join(WORKFLOW);
    std::fs::create_dir(&code).context("failed to write the example")?;
    for (name, text) in files::WORKFLOW {
        std::fs::write(code.join(name), text).context("failed to write the example")?;
    }
    if apply::apply(&[code], &client, Format::Table).await?.is_none() {
        return Ok(Exit::Definition);
    }
    let stage = story::Stage { client: &client, route, format: args.output.format };
    let Some(runs) = story::tell(&stage).await? else { return Ok(Exit::Failed) };
    finish(args, &runs, url)?;
    if args.keep {
        signals.drain.cancelled().await;
    }
    Ok(Exit::Ok)
}

/// The story begins without a champion; a database that has one already would tell another.
async fn is_fresh(client: &Client) -> anyhow::Result<()> {
    let known = client.workflows().await.context("failed to look at the database")?;
    if known.iter().any(|workflow| workflow.workflow == WORKFLOW) {
        bail!(
            "failed to begin: this database holds a workflow `{WORKFLOW}` already; name a fresh one with --database-url"
        );
    }
    Ok(())
}

fn finish(args: &DemoArgs, runs: &[RunView], url: &str) -> anyhow::Result<()> {
    if args.output.format != Format::Table {
        render::answer(args.output.format, &runs, String::new)?;
        if args.keep {
            render::note(format_args!("still running on {url}; Ctrl-C ends it"));
        }
        return Ok(());
    }
    let server = if url == SERVER_DEFAULT { String::new() } else { format!(" --server {url}") };
    let mut text = format!("\n{}\n", paint(BOLD, "Look further"));
    if args.keep {
        text.push_str(&format!("  It is still running on {}. In another terminal:\n\n", paint(BOLD, url)));
    } else {
        text.push_str("  Everything was in a temporary folder, which is gone now. Start it again with `refit demo --keep`, then:\n\n");
    }
    let server = if args.keep { server } else { String::new() };
    for (command, why) in story::next_commands(runs) {
        text.push_str(&format!(
            "  {:<42}  {}\n",
            format!("{command}{server}"),
            paint(DIM, format_args!("# {why}"))
        ));
    }
    if args.keep {
        text.push_str(&format!("\n  {}\n", paint(DIM, "Ctrl-C ends it and removes its folder.")));
    }
    render::print(text)
}

/// How the tour's events reach the orchestrator.
enum Route {
    /// `POST /api/v1/events`.
    Http,
    /// RabbitMQ.
    Queue { url: String, queue: String },
}

impl Route {
    async fn send(&self, client: &Client, events: &[CloudEvent]) -> anyhow::Result<()> {
        match self {
            Self::Http => client.send_events(events).await.map(drop).context("failed to send the events"),
            Self::Queue { url, queue } => {
                refit_orchestrator::intake::amqp::publish_events(url, queue, events)
                    .await
                    .context("failed to publish the events to RabbitMQ")
            }
        }
    }

    /// Leaves the broker as it was found.
    async fn clear_away(&self) {
        let Self::Queue { url, queue } = self else { return };
        if let Err(wrong) = refit_orchestrator::intake::amqp::delete_queue(url, queue).await {
            render::note(format_args!("the queue {queue} is still there: {wrong}"));
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Http => "over HTTP".to_owned(),
            Self::Queue { queue, .. } => format!("through the RabbitMQ queue {queue}"),
        }
    }
}
