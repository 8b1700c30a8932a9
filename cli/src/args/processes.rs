//! What keeps running: `demo`, `up`, `serve` and `work`, with where they listen, store and consume.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use refit_workers::GpuChoice;
use refit_workflows::units::parse_size;

use super::common::Output;
use super::values::{gpus, grace, key_value, worker_name};

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
    #[arg(long, env = "REFIT_GRACE", value_name = "DURATION", value_parser = grace,
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

/// Where an orchestrator listens and stores, and what has its registry as well.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Orchestrator")]
pub(crate) struct Place {
    /// Where to listen [default: 127.0.0.1:7433]
    #[arg(long, env = "REFIT_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) database: Database,
    /// An MLflow server that models, versions and aliases are written to as well
    #[arg(long, env = "REFIT_MLFLOW_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) mlflow_url: Option<String>,
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
    /// CPUs this host offers to steps that ask for some [default: all of them]
    #[arg(long, env = "REFIT_CPUS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) cpus: Option<u32>,
    /// Memory this host offers to steps that ask for some, such as 64GiB [default: all of it]
    #[arg(long, env = "REFIT_MEMORY", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// GPUs this host offers: how many, as in 2, or which, as in 0,3 [default: those that nvidia-smi lists]
    #[arg(long, env = "REFIT_GPUS", value_name = "N|IDS", value_parser = gpus)]
    pub(crate) gpus: Option<GpuChoice>,
    /// Folder for environments, caches and working directories [default: .refit]
    #[arg(long, env = "REFIT_DATA", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// How much of code and artifacts is kept for steps to come, 20GiB for example [default: 10GiB]
    #[arg(long, env = "REFIT_CACHE_MAX", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) cache_max: Option<u64>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}
