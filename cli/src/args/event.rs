//! `refit event`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::common::{Limit, Output};
use super::values::{Since, json, since};

/// `refit event`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    Send(EventSendArgs),
    /// List events, newest first
    #[command(after_help = "Examples:
  refit event list --since 2h
  refit event list --type dataset.updated --unmatched")]
    List {
        /// Only events of this type
        #[arg(long = "type", value_name = "T")]
        kind: Option<String>,
        /// Only events from this source
        #[arg(long, value_name = "S")]
        source: Option<String>,
        /// Only events that started nothing
        #[arg(long)]
        unmatched: bool,
        /// Only events received since: 90s, 2h, 3d, or an RFC 3339 time
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<Since>,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show an event and, in order, what became of it
    Show {
        /// The event's id
        id: String,
        /// Its source, when several sources use the same id
        #[arg(long, value_name = "S")]
        source: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// Send events
///
/// One event from flags, or many from a file with one CloudEvent (a JSON object) a line. Sending an event again is
/// harmless: the same source and id is the same event.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit event send --type dataset.updated --data '{\"table\": \"customers\", \"rows\": 1200}'
  refit event send --file events.jsonl
  tail -n 100 events.jsonl | refit event send --file -")]
pub(crate) struct EventSendArgs {
    /// What happened: the CloudEvent's type
    #[arg(long = "type", value_name = "T", required_unless_present = "file")]
    pub(crate) kind: Option<String>,
    /// Where it happened
    #[arg(long, value_name = "S", default_value = "/command-line")]
    pub(crate) source: String,
    /// Unique within the source [default: a new one]
    #[arg(long, value_name = "I")]
    pub(crate) id: Option<String>,
    /// To what it happened
    #[arg(long, value_name = "S")]
    pub(crate) subject: Option<String>,
    /// The payload
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub(crate) data: Option<serde_json::Value>,
    /// A file with one CloudEvent a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "source", "id", "subject", "data"],
          value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
