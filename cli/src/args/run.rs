//! `refit run`.

use clap::{Args, Subcommand};
use refit_workflows::digest::Digest;
use refit_workflows::names::RunName;

use super::common::{Graph, Limit, Output};
use super::values::{Since, key_value, name, reason, since};

/// `refit run`.
#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Start a run by hand
    #[command(after_help = "Examples:
  refit run start churn --param region=eu
  refit run start churn --wait          exit code 1 unless it succeeds")]
    Start {
        /// The workflow
        #[arg(value_parser = name)]
        workflow: String,
        /// A param of the run; repeatable
        #[arg(long = "param", value_name = "K=V", value_parser = key_value)]
        params: Vec<(String, String)>,
        /// Run every step, also those whose earlier outcome would be taken (`cache`)
        #[arg(long)]
        no_cache: bool,
        /// Follow the run to its end
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List runs, newest first
    #[command(after_help = "Examples:
  refit run list --workflow churn --since 2d
  refit run list --state failed -o json")]
    List {
        /// Only runs of this workflow
        #[arg(long, value_name = "NAME", value_parser = name)]
        workflow: Option<String>,
        /// Only runs in this state: waiting, running, succeeded, rejected, failed, cancelled or coalesced
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only runs created since: 90s, 2h, 3d, or an RFC 3339 time
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<Since>,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
    /// Show a run: its steps, its gate's decision check by check, its events
    #[command(after_help = "Examples:
  refit run show churn/12
  refit run show churn/12 --graph       its steps as a graph
  refit run show churn/12 --graph=dot | dot -Tsvg > churn-12.svg")]
    Show {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        #[command(flatten)]
        graph: Graph,
        #[command(flatten)]
        output: Output,
    },
    /// Follow a run live to its end; exit code 1 unless it succeeds
    Watch {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
    },
    /// Print what a run's steps wrote
    Logs {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        /// Only this step
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
        /// Only what was written to standard output
        #[arg(long, conflicts_with = "stderr")]
        stdout: bool,
        /// Only what was written to standard error
        #[arg(long)]
        stderr: bool,
        /// Go on until the run is over
        #[arg(short, long)]
        follow: bool,
        /// One JSON object a line: step, attempt, at, stream, text
        #[arg(long)]
        json: bool,
    },
    /// Print the metrics of a run's steps over time
    Metrics {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        /// Only this step
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Print the record of what a run's promotion rested on: gates, figures, approvals, events
    #[command(after_help = "Examples:
  refit run evidence churn/12 > churn-12.md
  refit run evidence churn/12 -o json")]
    Evidence {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        /// The form
        #[arg(short = 'o', long = "output", value_enum, default_value_t = EvidenceForm::Markdown)]
        form: EvidenceForm,
    },
    /// End a run and its steps
    Cancel {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        #[command(flatten)]
        output: Output,
    },
    /// Carry on a failed run from what failed
    Retry {
        /// The run
        #[arg(value_name = "WORKFLOW/NUMBER")]
        run: RunName,
        /// Start over: every step again
        #[arg(long)]
        all: bool,
        /// Follow the run to its end
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Say yes to a run that waits for an approval
    Approve(DecideArgs),
    /// Say no to a run that waits for an approval
    Reject(DecideArgs),
}

/// How a record is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EvidenceForm {
    /// For people: a document.
    Markdown,
    /// For programs.
    Json,
}

/// `refit run approve` and `refit run reject`.
#[derive(Args, Debug)]
pub(crate) struct DecideArgs {
    /// The run
    #[arg(value_name = "WORKFLOW/NUMBER")]
    pub(crate) run: RunName,
    /// The approval step, when several wait
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// What `refit run show` says that the step covers: refused when that is something else by now
    #[arg(long, value_name = "DIGEST")]
    pub(crate) covers: Option<Digest>,
    /// Why; kept with the run
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}
