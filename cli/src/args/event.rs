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
    Replay(EventReplayArgs),
    /// List replays, newest first
    Replays {
        /// Stop this replay where it is
        #[arg(long, value_name = "SEQ")]
        stop: Option<i64>,
        #[command(flatten)]
        limit: Limit,
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
    /// Only events that no trigger wanted, and no run stands for
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

/// Send stored events through today's triggers once more
///
/// Nothing is recorded again: the decisions are added to each event's own, marked with the replay. Waits until all are
/// through; interrupted, the server goes on. Events of Refit's own and of workflows are left out unless a type, a source
/// or an id asks for them.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("chosen").required(true).multiple(true)
    .args(["since", "until", "kind", "source", "ids", "all"]))]
#[command(after_help = "Examples:
  refit event replay --since 2h --workflow churn --dry-run
  refit event replay --type dataset.updated --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z
  refit event replay --id load-17 --id load-18")]
pub(crate) struct EventReplayArgs {
    /// Received since: 90s, 2h, 3d, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Since>,
    /// Received until: 90s ago, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) until: Option<Since>,
    /// Of this type
    #[arg(long = "type", value_name = "T")]
    pub(crate) kind: Option<String>,
    /// From this source
    #[arg(long, value_name = "S")]
    pub(crate) source: Option<String>,
    /// With this id; repeatable
    #[arg(long = "id", value_name = "I")]
    pub(crate) ids: Vec<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["since", "until", "kind", "source", "ids"])]
    pub(crate) all: bool,
    /// Only through the triggers of this workflow
    #[arg(long, value_name = "W", value_parser = name)]
    pub(crate) workflow: Option<String>,
    /// At most this many, those received first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Show what it would do, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not wait until it is through
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) no_wait: bool,
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
