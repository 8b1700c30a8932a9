//! The command line, typed: every command, flag and variable, with the help people read. Nothing is done here and
//! nothing is looked up; whatever parses is well formed, whatever is not ends with exit code 2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint};
use refit_workflows::names::{RunName, check_name};
use refit_workflows::time::{Timestamp, parse_duration};
use refit_workflows::wire::Role;

/// Where an orchestrator is looked for when nobody says otherwise.
pub(crate) const SERVER_DEFAULT: &str = "http://127.0.0.1:7433";

const HELP_TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Try it:
  demo        The tour: real data, real training, three runs, one refusal
  up          Orchestrator and one worker in one process, for a laptop

Run it:
  serve       The orchestrator
  work        A worker on this host
  token       Make, list and revoke access tokens

Define:
  init        A workflow to start from
  check       Check workflow files without a server
  test        Unit tests of workflows, on a virtual clock
  simulate    What events would have started, on a virtual clock
  apply       Register workflows and their code
  workflow    List and show registered workflows

Follow:
  event       Send, list and show events, and what became of them
  run         Start, watch, explain, cancel, retry and approve runs
  model       Versions, aliases, history and rollback
  worker      List the workers

Shell:
  completion  Print a completion script

Options:
{options}{after-help}";

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  what was asked about failed or was rejected
  2  the command line or the settings make no sense
  3  a workflow definition is invalid
  4  the server is not reachable
  5  not found, or refused

Every flag of `serve`, `work` and `up` may also stand in `refit.yaml`, and has a variable: \
--database-url is REFIT_DATABASE_URL. A flag wins over a variable, a variable over the file.

Begin with `refit demo`, then `refit up` in a folder that holds a workflow.";

/// Refit retrains models when data changes, and promotes a new one only when it is better.
#[derive(Debug, Parser)]
#[command(
    name = "refit",
    version,
    help_template = HELP_TEMPLATE,
    after_help = AFTER_HELP,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(flatten)]
    pub(crate) logging: Logging,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the orchestrator.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(crate) struct Remote {
    /// The orchestrator's address
    #[arg(long, global = true, env = "REFIT_SERVER", value_name = "URL", default_value = SERVER_DEFAULT,
          value_parser = server_url, value_hint = ValueHint::Url)]
    pub(crate) server: String,
    /// Access token, when the server asks for one; better given as a variable, which other users cannot see
    #[arg(long, global = true, env = "REFIT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// How the program's own log looks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub(crate) struct Logging {
    /// The form of the log on standard error
    #[arg(long, global = true, env = "REFIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log more; repeat for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Up(UpArgs),
    Serve(ServeArgs),
    Work(WorkArgs),
    Init(InitArgs),
    Check(CheckArgs),
    Test(TestArgs),
    Simulate(SimulateArgs),
    Apply(ApplyArgs),
    /// List and show registered workflows
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Send, list and show events
    #[command(subcommand)]
    Event(EventCommand),
    /// Start, watch, explain, cancel, retry and approve runs
    #[command(subcommand)]
    Run(RunCommand),
    /// Versions, aliases, history and rollback
    #[command(subcommand)]
    Model(ModelCommand),
    /// List the workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Make, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  refit completion bash > ~/.local/share/bash-completion/completions/refit
  refit completion zsh > ~/.zfunc/_refit
  refit completion fish > ~/.config/fish/completions/refit.fish")]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `-o`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// The form of the answer: a table for people, JSON or YAML for programs
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; not stable.
    Table,
    /// Stable: keys are added, never renamed.
    Json,
    /// The same as JSON.
    Yaml,
}

/// `--graph`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Graph {
    /// Draw the graph: here (text), or as text for documents (mermaid, dot)
    #[arg(long = "graph", value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true,
          default_missing_value = "text", conflicts_with = "format")]
    pub(crate) form: Option<GraphForm>,
}

/// The form of a drawn graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphForm {
    /// Rails in the terminal, one step a line.
    Text,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// `--limit`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

// ---------------------------------------------------------------------------------------------------------------
// Running it

/// The tour: real data, real training, three runs, one refusal
///
/// Starts an orchestrator and a worker in a temporary folder and retrains a classifier of handwritten digits three
/// times: a first model, a better one, and one whose labels were shuffled, which the gate refuses. Every number shown
/// comes from the training. Needs Python 3; the first run prepares an environment, which takes about a minute.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit demo                     watch it
  refit demo --keep              leave it running afterwards, to explore
  refit demo -o json             the three runs, as `refit run show -o json` prints them
  refit demo --database-url postgres://localhost/refit --amqp-url amqp://localhost")]
pub(crate) struct DemoArgs {
    /// Leave it running at the end, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// How many steps run at once
    #[arg(long, env = "REFIT_SLOTS", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: u32,
    /// A database that holds no `digits` yet, instead of SQLite: sqlite:PATH or postgres://…
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Send the events through this RabbitMQ, instead of the HTTP API
    #[arg(long, value_name = "URL")]
    pub(crate) amqp_url: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Orchestrator and one worker in one process, for a laptop
///
/// Keeps everything in one folder, listens on loopback, registers the workflows in PATH and runs their steps here.
/// The first Ctrl-C lets running steps finish, the second ends them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit up                       the workflows of this folder
  refit up examples/digits       those of another one
  refit up --listen 127.0.0.1:0  on any free port")]
pub(crate) struct UpArgs {
    /// A workflow file, or a folder with workflow files directly in it
    #[arg(default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// How many steps run at once [default: the CPUs of this host]
    #[arg(long, env = "REFIT_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256),
          help_heading = "Worker")]
    pub(crate) slots: Option<u32>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

/// The orchestrator
///
/// Takes events in, decides what they start, hands steps to workers and keeps the models. Several may share one
/// PostgreSQL. Anything but loopback needs a token first; see `refit token create --help`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit serve
  refit serve --database-url postgres://refit@db/refit --amqp-url amqp://broker --listen 0.0.0.0:7433
  REFIT_LISTEN=0.0.0.0:7433 refit serve --config /etc/refit.yaml --log-format json")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) broker: Broker,
    /// How long a worker may be out of reach before its steps go to another, such as 90s or 10m [default: 10m]
    #[arg(long, env = "REFIT_GRACE", value_name = "DURATION", value_parser = parse_duration,
          help_heading = "Orchestrator")]
    pub(crate) grace: Option<Duration>,
    /// A host name that requests may be addressed to, beside loopback and the listen address; repeatable
    #[arg(
        long = "host",
        env = "REFIT_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Orchestrator"
    )]
    pub(crate) hosts: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

/// Where an orchestrator listens and stores.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Orchestrator")]
pub(crate) struct Place {
    /// Where to listen [default: 127.0.0.1:7433]
    #[arg(long, env = "REFIT_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Which database.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Database {
    /// Folder for the SQLite database [default: .refit]
    #[arg(long, env = "REFIT_DATA", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME [default: SQLite in the data folder]
    #[arg(long, env = "REFIT_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
}

/// RabbitMQ.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "RabbitMQ")]
pub(crate) struct Broker {
    /// The broker to consume events from, such as amqp://USER:PASSWORD@HOST/VHOST
    #[arg(long, env = "REFIT_AMQP_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) amqp_url: Option<String>,
    /// The durable queue events come from [default: refit.events]
    #[arg(long, env = "REFIT_AMQP_QUEUE", value_name = "NAME")]
    pub(crate) amqp_queue: Option<String>,
    /// The topic exchange to publish what happens to; without it nothing is published
    #[arg(long, env = "REFIT_AMQP_EXCHANGE", value_name = "NAME")]
    pub(crate) amqp_exchange: Option<String>,
}

/// `refit.yaml`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConfigFile {
    /// The settings file [default: refit.yaml in this folder, when there is one]
    #[arg(long, env = "REFIT_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Options")]
    pub(crate) config: Option<PathBuf>,
}

/// A worker on this host
///
/// Asks the orchestrator for steps over HTTP and runs them here; nothing connects to it. The first Ctrl-C (or TERM)
/// lets running steps finish, the second ends them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit work --server http://refit.internal:7433 --slots 2 --labels zone=eu,disk=nvme
  REFIT_TOKEN=… refit work --name gpu-7")]
pub(crate) struct WorkArgs {
    /// The worker's name, unique among hosts [default: this host's name]
    #[arg(long, env = "REFIT_NAME", value_name = "NAME", value_parser = worker_name)]
    pub(crate) name: Option<String>,
    /// How many steps run at once [default: the CPUs of this host]
    #[arg(long, env = "REFIT_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: Option<u32>,
    /// What this host offers; repeatable, or separated by commas
    #[arg(long, env = "REFIT_LABELS", value_name = "K=V", value_delimiter = ',', value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Folder for environments, caches and working directories [default: .refit]
    #[arg(long, env = "REFIT_DATA", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

// ---------------------------------------------------------------------------------------------------------------
// Defining

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

/// Check workflow files without a server
///
/// Shows every problem with its line, the offending text and what would be right. Exit code 3 when there is one.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  refit check .                  all workflow files of this folder
  refit check churn.yaml -o json
  refit check . --format github  annotations for a pull request
  refit check churn.yaml --graph
  refit check churn.yaml --graph=mermaid > churn.mmd")]
pub(crate) struct CheckArgs {
    /// Workflow files, or folders with workflow files directly in them
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
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
}

// ---------------------------------------------------------------------------------------------------------------
// Following

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
        /// Go on until the run is over
        #[arg(short, long)]
        follow: bool,
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

/// `refit run approve` and `refit run reject`.
#[derive(Args, Debug)]
pub(crate) struct DecideArgs {
    /// The run
    #[arg(value_name = "WORKFLOW/NUMBER")]
    pub(crate) run: RunName,
    /// The approval step, when several wait
    #[arg(long, value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Why; kept with the run
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

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
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// `refit worker`.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers, what they offer and what they run
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        output: Output,
    },
}

/// `refit token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    #[command(after_help = "\
The first token of a server that is to listen on more than loopback is made on its database, before it starts:

  refit token create --name ops --role admin --database-url postgres://refit@db/refit

From then on every request needs a token, on loopback too.")]
    Create {
        /// Who or what will hold it; shown as the author of what it does
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do: viewer looks, operator sends and starts and approves, worker runs steps, admin everything
        #[arg(long, value_name = "ROLE", value_parser = role())]
        role: Role,
        /// Days until it expires [default: 90]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: Option<u32>,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
    /// List the tokens, without their secrets
    List {
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
    /// End a token at once
    Revoke {
        /// The token's id, from `refit token list`
        #[arg(value_parser = token_id)]
        id: String,
        #[command(flatten)]
        direct: Direct,
        #[command(flatten)]
        output: Output,
    },
}

/// Acting on the database itself: for the first token, and for a server that is down.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Without a server")]
pub(crate) struct Direct {
    #[command(flatten)]
    pub(crate) database: Database,
}

// ---------------------------------------------------------------------------------------------------------------
// Reading

/// A moment to list from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// The moment, seen from `now`.
    pub(crate) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(duration) => now.minus(duration),
            Self::At(at) => at,
        }
    }
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["viewer", "operator", "worker", "admin"])
        .try_map(|text| text.parse::<Role>().map_err(std::io::Error::other))
}

fn since(text: &str) -> Result<Since, String> {
    parse_duration(text).map(Since::Ago).or_else(|_| Timestamp::parse(text).map(Since::At)).map_err(|_| {
        format!(
            "`{text}` is neither a duration such as 90s, 2h or 3d nor a time such as 2026-01-31T08:00:00Z"
        )
    })
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|wrong| format!("`{text}` {wrong}"))
}

fn worker_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a worker's name has 1 to 128 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

fn token_id(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("that is not a token's id; `refit token list` shows them".to_owned())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("expected KEY=VALUE, not `{text}`")),
    }
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|wrong| format!("not JSON: {wrong}"))
}

fn server_url(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let url = reqwest::Url::parse(trimmed)
        .map_err(|wrong| format!("{wrong}; expected a URL such as {SERVER_DEFAULT}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("expected http:// or https:// and a host, such as {SERVER_DEFAULT}"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err("only scheme, host, port and path belong here; a token goes into REFIT_TOKEN".to_owned());
    }
    Ok(trimmed.to_owned())
}

/// The command as clap knows it, finished for people: commands that ask no server do not offer `--server`.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    for (offline, flags) in [
        ("demo", &["server"][..]),
        ("up", &["server"]),
        ("serve", &["server", "token"]),
        ("init", &["server", "token"]),
        ("check", &["server", "token"]),
        ("completion", &["server", "token"]),
    ] {
        // An argument of the command's own, accepted and not shown, keeps the global one of the same name away.
        command = command.mut_subcommand(offline, |sub| {
            sub.args(flags.iter().map(|flag| clap::Arg::new(*flag).long(*flag).hide(true)))
        });
    }
    command
}

/// Reads the command line of this process; ends it with help, version or a usage error where that is due.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|wrong| wrong.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        let words = std::iter::once("refit").chain(line.split_whitespace());
        Cli::from_arg_matches(&command().try_get_matches_from(words)?)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_lines_parse() {
        for line in [
            "demo --keep -o json --slots 4 --database-url sqlite:x --amqp-url amqp://localhost",
            "up",
            "up examples/digits --listen 127.0.0.1:0 --data /tmp/x --slots 3",
            "serve --listen 0.0.0.0:7433 --data d --database-url postgres://h/d --amqp-url amqp://h --amqp-queue q \
             --amqp-exchange e --grace 90s --host a --host b",
            "work --server http://h:1 --name gpu-7.example --slots 2 --labels zone=eu,disk=nvme --labels a=b --data d",
            "init",
            "init churn -o json",
            "check a.yaml b",
            "check --graph a.yaml b",
            "check a.yaml --graph=dot",
            "apply .",
            "simulate a.yaml b --events - --step-takes 2h --for 30d --limit 5 -o yaml",
            "simulate --history --since 3d --server http://h:1",
            "workflow list -o yaml --limit 3",
            "workflow show churn --text",
            "event send --type t --source s --id i --subject u --data {\"a\":1}",
            "event send --file -",
            "event list --type t --source s --unmatched --since 2h --limit 10 -o json",
            "event show a/b/c --source s",
            "run start churn --param a=b --param c= --wait",
            "run list --workflow churn --state failed --since 2026-01-31T08:00:00Z",
            "run show churn/12 -o json",
            "run show churn/12 --graph=mermaid",
            "run watch churn/12",
            "run logs churn/12 -f --step train[depth=4]",
            "run cancel churn/12",
            "run retry churn/12 --all",
            "run approve churn/12 --step ok --reason fine",
            "run reject churn/12",
            "model list",
            "model show churn",
            "model history churn",
            "model rollback churn --alias champion --reason worse",
            "worker list --log-format json -vv",
            "token create --name ops --role admin --days 30 --data d",
            "token list --database-url sqlite:x",
            "token revoke 0198-abc",
            "completion bash",
            "--server http://h:1/ run list",
            "run list --server http://h:1",
        ] {
            assert!(read(line).is_ok(), "{line}: {}", read(line).unwrap_err());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "run show churn",
            "run show churn/0",
            "run show churn/1 --graph -o json",
            "run show churn/1 --graph=svg",
            "check a.yaml -o json --graph=mermaid",
            "run show ../1",
            "run list --since yesterday",
            "run list --limit 0",
            "run list --limit 1001",
            "run start churn --param novalue",
            "event send",
            "event send --type t --data {",
            "event send --type t --file x",
            "workflow show Churn",
            "model show a/b",
            "token revoke ../x",
            "token create --name a --role boss",
            "work --labels x",
            "work --slots 0",
            "serve --grace 10",
            "run list --server ftp://x",
            "run list --server http://user:secret@h",
            "check",
            "init Churn",
            "init a/b",
            "simulate a.yaml",
            "simulate --events e.jsonl",
            "simulate a.yaml --events e.jsonl --history",
            "simulate a.yaml --events e.jsonl --since 3d",
            "simulate a.yaml --events e.jsonl --for 1",
            "nothing",
        ] {
            assert!(read(line).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn values_come_out_typed() {
        let cli = read("work --server http://h:1/ --labels zone=eu,disk=nvme").unwrap();
        assert_eq!(cli.remote.server, "http://h:1");
        let Command::Work(work) = cli.command else { panic!("not work") };
        assert_eq!(work.labels, [("zone".into(), "eu".into()), ("disk".into(), "nvme".into())]);
        assert_eq!(since("2h"), Ok(Since::Ago(Duration::from_secs(7200))));
        let now = Timestamp::from_millis(10_000);
        assert_eq!(Since::Ago(Duration::from_secs(4)).moment(now), Timestamp::from_millis(6_000));
    }

    #[test]
    fn the_grouped_help_names_every_command() {
        for sub in Cli::command().get_subcommands() {
            let line = format!("\n  {:<12}", sub.get_name());
            assert!(HELP_TEMPLATE.contains(&line), "{} is missing from the help", sub.get_name());
        }
    }

    #[test]
    fn every_command_has_help() {
        for sub in Cli::command().get_subcommands() {
            let wrong = read(&format!("{} --help", sub.get_name())).unwrap_err();
            assert_eq!(wrong.kind(), clap::error::ErrorKind::DisplayHelp, "{}: {wrong}", sub.get_name());
        }
    }

    #[test]
    fn offline_commands_do_not_offer_a_server() {
        let help = |name: &str| read(&format!("{name} --help")).unwrap_err().to_string();
        assert!(!help("check").contains("--server") && !help("serve").contains("--token"));
        let (apply, up) = (help("apply"), help("up"));
        assert!(apply.contains("--server") && up.contains("--token"), "{apply}\n{up}");
    }
}
