//! What is done with workflow files: `init`, `schema`, `check`, `test`, `simulate`, `apply`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use refit_workflows::time::parse_duration;

use super::common::{Graph, Limit, Output};
use super::values::{Since, name, since};

/// A workflow to start from
///
/// Writes a commented workflow with a small training script, its tests and a README, which runs as it stands: `refit up`
/// in that folder works at once. Needs Python 3 and nothing else. Overwrites nothing: exit code 2 when a file is in the way.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit init churn               in the new folder churn
  refit init                     in this folder, which gives the workflow its name")]
pub(crate) struct InitArgs {
    /// The workflow's name, and the folder [default: this folder]
    #[arg(value_parser = name)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// JSON Schema of workflow files, for editors
///
/// Editors with YAML support complete keys, show what they mean and mark mistakes while you type, once the file names the
/// schema in its first line:
///
///     # yaml-language-server: $schema=./workflow.schema.json
///
/// `refit check` finds more than a schema can say. The schema is for this version of Refit: write it anew after an upgrade.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  refit schema > workflow.schema.json            beside workflow.yaml; no part of what `refit apply` packs
  refit schema step > steps/step.schema.json     for the files that steps use
  refit schema test > test.schema.json           for *.test.yaml"
)]
pub(crate) struct SchemaArgs {
    /// What the schema is of
    #[arg(value_enum, default_value_t = SchemaOf::Workflow)]
    pub(crate) of: SchemaOf,
}

/// What a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// A workflow file, each document of it.
    Workflow,
    /// A file that steps use.
    Step,
    /// A file of tests, `*.test.yaml`.
    Test,
}

/// Check workflow files without a server
///
/// Shows every problem with its line, the offending text and what would be right. Exit code 3 when there is one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit check                    all workflow files of this folder
  refit check churn.yaml -o json
  refit check . --format github  annotations for a pull request
  refit check churn.yaml --graph
  refit check churn.yaml --graph=mermaid > churn.mmd")]
pub(crate) struct CheckArgs {
    /// Workflow files, or folders with workflow files directly in them
    #[arg(default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) graph: Graph,
    /// How problems are told: as a compiler does, as JSON, or as annotations of a pull request
    #[arg(long = "format", value_enum, value_name = "FORMAT", conflicts_with_all = ["format", "form"])]
    pub(crate) report: Option<CheckFormat>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How `check` tells problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// With the source line underlined.
    Human,
    /// As `-o json`.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Unit tests of workflows, on a virtual clock
///
/// Plays the cases of `*.test.yaml` files offline: given events and what each step comes to, which runs start, how do they
/// go, what does the gate say, where does the alias point at the end? The triggers, runs and gates are the server's own;
/// hours pass in milliseconds. Exit code 1 when a case failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit test .                   every *.test.yaml in this folder, however deep
  refit test churn.test.yaml --case burst
  refit test . --junit results.xml")]
pub(crate) struct TestArgs {
    /// Test files, or folders with test files in them
    #[arg(default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Only the cases whose name contains this; repeat for more
    #[arg(long = "case", value_name = "TEXT")]
    pub(crate) cases: Vec<String>,
    /// Write the results as JUnit XML as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What events would have started, on a virtual clock
///
/// Lets events arrive at their times and tells which runs they would have started, and of each event why or why not:
/// triggers, batches, concurrency and chained workflows decide as on the server, for it is the same code. Steps are not
/// run: each takes --step-takes and succeeds, gates pass, approvals are given at once. It ends when everything has come
/// to rest, with schedules a day after the last event.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit simulate churn.yaml --events events.jsonl
  refit simulate . --events - --step-takes 2h < events.jsonl
  refit simulate . --history --since 30d        what last month's events would start with these files
  refit simulate --history -o json              the same, with the server's own workflows")]
pub(crate) struct SimulateArgs {
    /// Workflow files, or folders with workflow files directly in them; without any, those of the server
    #[arg(required_unless_present = "history", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// The events: one CloudEvent a line, or a JSON array; `-` for standard input. Each arrives at its `time`, one
    /// without with the one before
    #[arg(long, value_name = "FILE", required_unless_present = "history", value_hint = ValueHint::FilePath)]
    pub(crate) events: Option<PathBuf>,
    /// The events are those the server received, oldest first. Its own are left out: the simulation makes them anew
    #[arg(long, conflicts_with = "events")]
    pub(crate) history: bool,
    /// Where the history begins: 90s, 2h, 3d, or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = since, default_value = "30d", conflicts_with = "events")]
    pub(crate) since: Since,
    /// How long each step takes
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1m")]
    pub(crate) step_takes: Duration,
    /// How long it goes on after the first event
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lasts: Option<Duration>,
    #[command(flatten)]
    pub(crate) limit: Limit,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Register workflows and their code
///
/// Checks the files, packs the folder around each (honouring .gitignore and .refitignore; hidden files stay out),
/// uploads what the server does not have yet, and registers. New runs use the new version, running ones keep theirs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit apply .
  refit apply workflows/churn/churn.yaml workflows/fraud")]
pub(crate) struct ApplyArgs {
    /// Workflow files, or folders with workflow files directly in them
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
