//! An orchestrator, and a worker beside it, inside this process: what `serve`, `up` and `demo` start and end. The
//! worker talks to the orchestrator over loopback, exactly as one on another host would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use refit_orchestrator::Running;
use refit_workers::WorkError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long an orchestrator that was told to end may take before it is left behind.
const END_WAIT: Duration = Duration::from_secs(20);

/// A running orchestrator.
pub(super) struct Orchestrator {
    running: Running,
    shutdown: CancellationToken,
}

impl Orchestrator {
    /// Starts it; answers requests when this returns.
    pub(super) async fn start(config: refit_orchestrator::Config) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        keep_to_itself(&config.data)?;
        let running = refit_orchestrator::serve(config, shutdown.clone()).await?;
        Ok(Self { running, shutdown })
    }

    /// The addresses it listens on, as a URL.
    pub(super) fn listens(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// Where it is reached from this host.
    pub(super) fn url(&self) -> String {
        format!("http://{}", reachable(self.running.address))
    }

    /// Returns when it has ended although nobody told it to.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.running.done).await {
            Ok(()) => anyhow::anyhow!("the orchestrator ended by itself; its log says why"),
            Err(wrong) => anyhow::Error::new(wrong).context("the orchestrator ended by itself"),
        }
    }

    /// Ends it in order. True when it did within the time.
    pub(super) async fn end(self) -> bool {
        self.shutdown.cancel();
        if self.running.done.is_finished() {
            return true;
        }
        tokio::time::timeout(END_WAIT, self.running.done).await.is_ok()
    }
}

/// An address to connect to: a listener on all addresses is reached on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Makes a data folder that neither git nor a bundle takes along, wherever it lies.
///
/// # Errors
/// It cannot be made.
fn keep_to_itself(data: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to make the data folder {}", data.display());
    std::fs::create_dir_all(data).with_context(failed)?;
    let ignore = data.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(&ignore, "*\n").with_context(failed)?;
    }
    Ok(())
}

/// A running worker.
pub(super) struct Worker {
    task: JoinHandle<Result<(), WorkError>>,
    drain: CancellationToken,
    abort: CancellationToken,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// Its data folder cannot be made.
    pub(super) fn start(config: refit_workers::Config) -> anyhow::Result<Self> {
        keep_to_itself(&config.data)?;
        let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(refit_workers::work(config, drain.clone(), abort.clone()));
        Ok(Self { task, drain, abort })
    }

    /// Returns when it has ended, and why it could not go on.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        let ended = (&mut self.task).await.context("the worker ended by itself")?;
        ended.context("the worker cannot work")
    }

    /// Takes no more work and waits for what runs; ends that too as soon as `abort` is cancelled.
    pub(super) async fn end(self, abort: &CancellationToken) {
        self.drain.cancel();
        if self.task.is_finished() {
            return;
        }
        let mut task = self.task;
        tokio::select! {
            _ = &mut task => return,
            () = abort.cancelled() => self.abort.cancel(),
        }
        // Its steps get TERM, then KILL; the worker itself bounds how long that takes.
        let _ = tokio::time::timeout(END_WAIT, task).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("10.0.0.1:3", "10.0.0.1:3"),
            ("127.0.0.1:4", "127.0.0.1:4"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
