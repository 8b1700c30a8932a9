//! `refit serve`: the orchestrator, until it is told to end.

use super::local::Orchestrator;
use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::settings::Settings;
use crate::signals;

/// Serves until the first signal, then ends in order; the second signal leaves at once.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<Exit> {
    let settings = Settings::load(&args.config)?;
    let config = settings.orchestrator(&args.place, &args.broker, args.grace, &args.hosts)?;
    let signals = signals::listen()?;
    let mut orchestrator = tokio::select! {
        // The database may be waited for; a signal ends that, too.
        started = Box::pin(Orchestrator::start(config)) => started?,
        () = signals.drain.cancelled() => return Ok(Exit::Ok),
    };
    tracing::info!("serving on {}", orchestrator.listens());
    tokio::select! {
        wrong = orchestrator.ended() => return Err(wrong),
        () = signals.drain.cancelled() => {}
    }
    tracing::info!("ending; once more to leave at once");
    tokio::select! {
        _ = orchestrator.end() => Ok(Exit::Ok),
        () = signals.abort.cancelled() => Ok(Exit::Failed),
    }
}
