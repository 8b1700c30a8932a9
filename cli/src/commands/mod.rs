//! The commands, one file per noun or verb. Each asks the client, hands the answer to `render` and names an exit code;
//! none of them knows HTTP, SQL or how text looks.

mod apply;
mod check;
mod completion;
mod deadletter;
mod demo;
mod doctor;
mod event;
mod event_file;
mod init;
mod local;
mod model;
mod replay;
mod run;
mod schema;
mod serve;
mod simulate;
mod sources;
mod target;
mod test;
mod token;
mod unknown;
mod up;
mod work;
mod worker;
mod workflow;

pub(crate) use deadletter::Became;
pub(crate) use schema::{STEP_SCHEMA, TEST_SCHEMA, WORKFLOW_SCHEMA};

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::exit::Exit;
use crate::logging::{self, Level};

/// Does what the command line asks.
///
/// # Errors
/// Whatever was in the way; `exit::of` knows the code.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let level = match cli.command {
        Command::Serve(_) | Command::Work(_) => Level::Info,
        Command::Demo(_) => Level::Error,
        _ => Level::Warn,
    };
    logging::start(&cli.logging, level);
    let client = || Client::new(&cli.remote);
    match cli.command {
        Command::Demo(args) => Box::pin(demo::run(args, &cli.remote)).await,
        Command::Up(args) => Box::pin(up::run(args, &cli.remote)).await,
        Command::Serve(args) => Box::pin(serve::run(args)).await,
        Command::Work(args) => Box::pin(work::run(args, &cli.remote)).await,
        Command::Init(args) => init::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Test(args) => tokio::task::block_in_place(|| test::run(&args)),
        Command::Simulate(args) => Box::pin(simulate::run(args, &cli.remote)).await,
        Command::Apply(args) => Box::pin(apply::run(args, &client()?)).await,
        Command::Workflow(command) => Box::pin(workflow::run(command, &client()?)).await,
        Command::Event(command) => Box::pin(event::run(command, &client()?)).await,
        Command::DeadLetter(command) => Box::pin(deadletter::run(command, &client()?)).await,
        Command::Run(command) => Box::pin(run::run(command, &client()?)).await,
        Command::Model(command) => Box::pin(model::run(command, &client()?)).await,
        Command::Target(command) => Box::pin(target::run(command, &client()?)).await,
        Command::Worker(command) => Box::pin(worker::run(command, &client()?)).await,
        Command::Token(command) => Box::pin(token::run(command, &cli.remote)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, &cli.remote)).await,
        Command::Completion { shell } => completion::run(shell),
    }
}

/// At most this many, for listings the server does not bound.
fn first<T>(mut items: Vec<T>, limit: crate::args::Limit) -> Vec<T> {
    items.truncate(limit.limit as usize);
    items
}
