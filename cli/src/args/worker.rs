//! `refit worker`.

use clap::Subcommand;

use super::common::{Limit, Output};
use super::values::worker_name;

/// `refit worker`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers, what they offer and what they run
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show a worker: what it offers, what it runs, and why it is not given what waits
    Show {
        /// The worker
        #[arg(value_parser = worker_name)]
        worker: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give a worker no more steps; it finishes those it runs, and stays connected until its process is ended
    Drain {
        /// The worker
        #[arg(value_parser = worker_name)]
        worker: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give a drained worker steps again
    Resume {
        /// The worker
        #[arg(value_parser = worker_name)]
        worker: String,
        #[command(flatten)]
        output: Output,
    },
}
