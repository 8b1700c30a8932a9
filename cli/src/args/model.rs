//! `refit model`.

use clap::Subcommand;

use super::common::{Limit, Output};
use super::values::{name, reason};

/// `refit model`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List the models
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show a model's versions, aliases and metrics
    Show {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show how a model's aliases moved, newest first
    History {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Move an alias back to the version it stood on before
    Rollback {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// The alias to move back
        #[arg(long, value_name = "NAME", default_value = "champion", value_parser = name)]
        alias: String,
        /// Why; kept in the history
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}
