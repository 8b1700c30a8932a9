//! `refit worker`.

use clap::Subcommand;

use super::common::{Limit, Output};

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
}
