//! `refit work`: a worker on this host, until it is told to end.

use super::local::Worker;
use crate::args::{Remote, WorkArgs};
use crate::exit::Exit;
use crate::settings::Settings;
use crate::signals;

/// Works until the first signal, then finishes what runs; the second signal ends that, too.
pub(crate) async fn run(args: WorkArgs, remote: &Remote) -> anyhow::Result<Exit> {
    let settings = Settings::load(&args.config)?;
    let config = settings.worker(&args, &remote.server, remote.token.as_deref());
    let signals = signals::listen()?;
    tracing::info!("worker {} for {} with {} slots", config.name, config.server, config.slots);
    let mut worker = Worker::start(config)?;
    tokio::select! {
        ended = worker.ended() => return ended.map(|()| Exit::Ok),
        () = signals.drain.cancelled() => {}
    }
    tracing::info!("finishing what runs; once more to end it");
    worker.end(&signals.abort).await;
    Ok(Exit::Ok)
}
