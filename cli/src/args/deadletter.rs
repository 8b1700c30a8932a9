//! `refit deadletter`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::common::{Limit, Output};
use super::values::{Since, since};

/// `refit deadletter`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterCommand {
    /// List dead letters, newest first
    #[command(after_help = "Examples:
  refit deadletter list --since 2h
  refit deadletter list --source target:audit
  refit deadletter list --source amqp:refit.events -o json")]
    List {
        /// Only those from this source, as the listing shows it
        #[arg(long, value_name = "S")]
        source: Option<String>,
        /// Only those received since: 90s, 2h, 3d, or an RFC 3339 time
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<Since>,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show a dead letter: why it is dead, what came with it, and its body
    Show {
        /// Its number, from `refit deadletter list`
        seq: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Read dead letters again, as their source would today; what is an event now is recorded, and its letter is gone;
    /// what a target refused is sent again
    #[command(after_help = "Examples:
  refit deadletter retry 12 13
  refit deadletter retry --source amqp:refit.events --since 2h
  refit deadletter retry 12 --event mended.json

A letter that is still no event stays, with the reason; the command ends with 1 then.")]
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Record the CloudEvent in this file in place of the letter; - for standard input
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
              conflicts_with_all = ["source", "since", "all"])]
        event: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Drop dead letters for good
    #[command(after_help = "Examples:
  refit deadletter drop 12 13
  refit deadletter drop --all --yes")]
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        /// Mean it: needed with --all
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// Which dead letters.
#[derive(Args, Clone, Debug)]
#[group(id = "which", required = true, multiple = true)]
pub(crate) struct Chosen {
    /// Their numbers, from `refit deadletter list`
    #[arg(value_name = "SEQ", conflicts_with_all = ["source", "since", "all"])]
    pub(crate) seqs: Vec<i64>,
    /// All from this source, as the listing shows it
    #[arg(long, value_name = "S")]
    pub(crate) source: Option<String>,
    /// All received since: 90s, 2h, 3d, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Every one there is
    #[arg(long, conflicts_with_all = ["source", "since"])]
    pub(crate) all: bool,
}
