//! `refit target`.

use clap::Subcommand;

use super::common::{Limit, Output};
use super::values::name;

/// `refit target`.
#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// List the targets that events are sent to, how they are and what waits for them
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show a target, which events it gets and why the latest try failed
    Show {
        /// The target
        #[arg(value_parser = name)]
        target: String,
        #[command(flatten)]
        output: Output,
    },
    /// Send to a target again that said it wants no more (410 Gone), or at once to one that is retried with pauses
    Enable {
        /// The target
        #[arg(value_parser = name)]
        target: String,
        #[command(flatten)]
        output: Output,
    },
    /// Drop the events that wait for a target which is disabled, or in the settings of no orchestrator
    Drop {
        /// The target
        #[arg(value_parser = name)]
        target: String,
        #[command(flatten)]
        output: Output,
    },
}
