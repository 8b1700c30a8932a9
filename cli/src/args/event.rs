//! `refit event`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use refit_workflows::names::RunName;

use super::common::{Limit, Output};
use super::values::{Since, decision, json, name, since};

/// `refit event`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    Send(EventSendArgs),
    List(EventListArgs),
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
    /// Explain, in sentences, why an event started what it did, or nothing
    ///
    /// Of an event that matched nothing, it tells for each workflow which part of which pattern does not hold, the closest
    /// first.
    #[command(after_help = "Examples:
  refit event explain load-2027-01-15
  refit event explain load-2027-01-15 --workflow churn     why not churn?")]
    Explain {
        /// The event's id
        id: String,
        /// Its source, when several sources use the same id
        #[arg(long, value_name = "S")]
        source: Option<String>,
        /// Why this workflow has nothing to do with it
        #[arg(long, value_name = "NAME", value_parser = name)]
        workflow: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// List events, newest first
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit event list --since 2h
  refit event list --type dataset.updated --unmatched
  refit event list --workflow churn --decision skipped
  refit event list --run churn/12 --oldest --limit 1000")]
pub(crate) struct EventListArgs {
    /// Only events of this type
    #[arg(long = "type", value_name = "T")]
    pub(crate) kind: Option<String>,
    /// Only events from this source
    #[arg(long, value_name = "S")]
    pub(crate) source: Option<String>,
    /// Only events about this subject
    #[arg(long, value_name = "S")]
    pub(crate) subject: Option<String>,
    /// Only events that a workflow, or all, had nothing to do with: --decision unmatched
    #[arg(long, conflicts_with = "decision")]
    pub(crate) unmatched: bool,
    /// Only events about which this was decided
    #[arg(long, value_name = "D", value_parser = decision())]
    pub(crate) decision: Option<String>,
    /// Only events about which something was decided for this workflow; with --decision, that was
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) workflow: Option<String>,
    /// Only events that this run stands for
    #[arg(long, value_name = "WORKFLOW/NUMBER")]
    pub(crate) run: Option<RunName>,
    /// Only events received since: 90s, 2h, 3d, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Oldest first
    #[arg(long)]
    pub(crate) oldest: bool,
    /// Only events that come behind the one with this `seq` in the list: the next page
    #[arg(long, value_name = "SEQ")]
    pub(crate) after: Option<i64>,
    #[command(flatten)]
    pub(crate) limit: Limit,
    #[command(flatten)]
    pub(crate) output: Output,
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
