//! `refit workflow`.

use clap::Subcommand;

use super::common::{Limit, Output};
use super::values::{name, reason};

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
    /// Let a workflow's triggers start nothing until it is resumed
    ///
    /// Events and schedule slots that match meanwhile are told `paused`, and start nothing later either; what was gathered
    /// before is held and fires after. Runs that are asked for by hand, or by another workflow, still start, and so do runs
    /// that wait already. One that is paused already stays so; with --reason, that reason is told from now on.
    #[command(after_help = "Example:
  refit workflow pause churn --reason 'the warehouse is being moved'")]
    Pause {
        /// The workflow
        #[arg(value_parser = name)]
        workflow: String,
        /// Why; told with every event that starts nothing
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Let a paused workflow's triggers go on
    ///
    /// Batches and joins that were held are due by their rules; of the slots of a schedule that came meanwhile, those fire
    /// that its `catch_up` asks for.
    Resume {
        /// The workflow
        #[arg(value_parser = name)]
        workflow: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take a workflow out; its runs and its model stay
    ///
    /// Refused while runs of it are waiting or running. What its triggers have gathered starts nothing. Applied again, it
    /// goes on with the numbers of its runs.
    Delete {
        /// The workflow
        #[arg(value_parser = name)]
        workflow: String,
        /// Cancel the runs that are waiting or running
        #[arg(long)]
        force: bool,
        /// Why; kept with the workflow, and told with the events it had gathered
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}
