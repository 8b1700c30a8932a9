//! `refit workflow`.

use clap::Subcommand;

use super::common::{Limit, Output};
use super::values::name;

/// `refit workflow`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// List the registered workflows
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show one: triggers, steps, gathering batches, next slot
    Show {
        /// The workflow
        #[arg(value_parser = name)]
        workflow: String,
        /// Print its file as it was applied, and nothing else
        #[arg(long, conflicts_with = "format")]
        text: bool,
        #[command(flatten)]
        output: Output,
    },
}
