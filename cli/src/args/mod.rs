//! The command line, typed: every command, flag and variable, with the help people read; a file a noun. Nothing is done here
//! and nothing is looked up; whatever parses is well formed, whatever is not ends with exit code 2.

mod common;
mod deadletter;
mod define;
mod doctor;
mod event;
mod model;
mod processes;
mod run;
mod target;
#[cfg(test)]
mod tests;
mod token;
mod values;
mod worker;
mod workflow;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use common::{Format, GraphForm, Limit, Output};
pub(crate) use deadletter::{Chosen, DeadLetterCommand};
pub(crate) use define::{
    ApplyArgs, CheckArgs, CheckFormat, InitArgs, SchemaArgs, SchemaOf, SimulateArgs, TestArgs,
};
pub(crate) use doctor::DoctorArgs;
pub(crate) use event::{EventCommand, EventListArgs, EventReplayArgs, EventSendArgs};
pub(crate) use model::ModelCommand;
pub(crate) use processes::{Broker, ConfigFile, Database, DemoArgs, Place, ServeArgs, UpArgs, WorkArgs};
pub(crate) use run::{DecideArgs, EvidenceForm, RunCommand};
pub(crate) use target::TargetCommand;
pub(crate) use token::{Direct, TokenCommand};
pub(crate) use worker::WorkerCommand;
pub(crate) use workflow::WorkflowCommand;

pub(crate) use values::grace;
use values::server_url;

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
  doctor      Check database, broker, disk, clocks and versions, and say what to do

Define:
  init        A workflow to start from
  schema      JSON Schema of workflow files, for editors
  check       Check workflow files without a server
  test        Unit tests of workflows, on a virtual clock
  simulate    What events would have started, on a virtual clock
  apply       Register workflows and their code
  workflow    List, show, pause, resume and delete registered workflows

Follow:
  event       Send, list, show, explain and replay events
  deadletter  List, show, retry and drop what could not be taken
  run         Start, watch, explain, cancel, retry and approve runs
  model       Versions, aliases, history and rollback
  worker      List the workers
  target      Where events are sent, and what waits there

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
    Schema(SchemaArgs),
    Check(CheckArgs),
    Test(TestArgs),
    Simulate(SimulateArgs),
    Apply(ApplyArgs),
    /// List, show, pause, resume and delete registered workflows
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Send, list, show, explain and replay events
    #[command(subcommand)]
    Event(EventCommand),
    /// List, show, retry and drop what could not be taken
    #[command(subcommand, name = "deadletter")]
    DeadLetter(DeadLetterCommand),
    /// Start, watch, explain, cancel, retry and approve runs
    #[command(subcommand)]
    Run(RunCommand),
    /// Versions, aliases, history and rollback
    #[command(subcommand)]
    Model(ModelCommand),
    /// Where events are sent, and what waits there
    #[command(subcommand)]
    Target(TargetCommand),
    /// List the workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Make, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    Doctor(DoctorArgs),
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

/// The command as clap knows it, finished for people: commands that ask no server do not offer `--server`.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    for (offline, flags) in [
        ("demo", &["server"][..]),
        ("up", &["server"]),
        ("serve", &["server", "token"]),
        ("init", &["server", "token"]),
        ("schema", &["server", "token"]),
        ("test", &["server", "token"]),
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
