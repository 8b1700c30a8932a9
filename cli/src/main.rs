//! The one binary: orchestrator, worker and command line. Only starts what the modules hold and turns what they
//! answer into an exit code; no decision of any command is made here.

mod args;
mod bundle;
mod client;
mod commands;
mod download;
mod exit;
mod logging;
mod render;
mod settings;
mod signals;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::parse();
    // Everything that speaks TLS uses this provider; a second installation would be refused, which is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(wrong) => return exit::report(&anyhow::Error::new(wrong).context("failed to start the runtime")),
    };
    let answer = runtime.block_on(commands::run(cli));
    // A read of standard input cannot be cancelled; do not wait for it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match answer {
        Ok(exit) => exit.into(),
        Err(wrong) => exit::report(&wrong),
    }
}
