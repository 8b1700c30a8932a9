//! `refit model`.

use std::path::PathBuf;

use clap::Subcommand;
use refit_workflows::wire::{DEFAULT_ALIAS, VersionRef};

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
    /// Show a model's versions, aliases and metrics, or where one version comes from
    Show {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// A version: its number, or an alias that points to it
        version: Option<VersionRef>,
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
    /// Show what two versions of a model differ in: metrics, params, data, code
    Diff {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// One version: its number, or an alias that points to it
        from: VersionRef,
        /// The other
        to: VersionRef,
        #[command(flatten)]
        output: Output,
    },
    /// Fetch what is in a version
    Download {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// The alias whose version is meant
        #[arg(long, value_name = "NAME", default_value = DEFAULT_ALIAS, value_parser = name)]
        alias: String,
        /// The version, by its number
        #[arg(long, value_name = "N", conflicts_with = "alias")]
        version: Option<i64>,
        /// Where to; the artifact's name in this folder when left out. A folder must not be there yet
        #[arg(short = 'o', long = "output", value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Move an alias to a version by hand, on a gate that passed against what the alias points to now
    Promote {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// The version
        version: i64,
        /// The alias to move
        #[arg(long, value_name = "NAME", default_value = DEFAULT_ALIAS, value_parser = name)]
        alias: String,
        /// Only if the alias points to this version now; 0: to none
        #[arg(long, value_name = "N")]
        expect: Option<i64>,
        /// Whatever the gates say; needs --reason
        #[arg(long = "override", requires = "reason")]
        override_gate: bool,
        /// Why; kept in the history
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Move an alias back to the version it stood on before
    Rollback {
        /// The model
        #[arg(value_parser = name)]
        model: String,
        /// The alias to move back
        #[arg(long, value_name = "NAME", default_value = DEFAULT_ALIAS, value_parser = name)]
        alias: String,
        /// The version to go back to, one that the alias pointed to before; the one before when left out
        #[arg(long, value_name = "N")]
        to: Option<i64>,
        /// Only if the alias points to this version now
        #[arg(long, value_name = "N")]
        expect: Option<i64>,
        /// Why; kept in the history
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}
