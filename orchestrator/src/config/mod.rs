//! What an orchestrator is told when it starts: every setting with its default and its unit. Reads nothing itself;
//! the command line fills it from flags, variables and `refit.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod blobs;
mod broker;
mod hooks;
mod registry;
mod retention;
mod secrets;
mod sources;
mod targets;

pub use blobs::{AccessKey, BlobPlace, BlobPlaces, Bucket};
pub use broker::{Broker, ClientCertificate, Tls};
pub use hooks::{Hook, Scheme};
pub use registry::Mlflow;
pub use retention::{Keep, Retention};
pub use secrets::{AgeFile, SecretSources};
pub use sources::{Argument, Binding, Declaration, ExchangeType, Queue, Source, Topology, Transport};
pub use targets::{Allow, Destination, Exchange, Target, Webhook};

/// The settings of one orchestrator process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the HTTP API listens. Anything but loopback needs a token in the database first.
    pub listen: SocketAddr,
    /// Folder for the SQLite database.
    pub data: PathBuf,
    /// `sqlite:PATH` or `postgres://…`; without it SQLite in [`Config::data`].
    pub database_url: Option<String>,
    /// Where events come from, beside the HTTP API and schedules. Their names differ.
    pub sources: Vec<Source>,
    /// Where what happens to runs and models is sent. Their names differ.
    pub targets: Vec<Target>,
    /// Host names, beside loopback and the listen address, that requests may be addressed to.
    pub hosts: Vec<String>,
    /// How long a lease lives without a renewal: how long a worker may be out of reach before its steps are given
    /// to another.
    pub grace: Duration,
    /// How often everything that hints can wake is looked at all the same.
    pub poll: Duration,
    /// How long what has happened is kept.
    pub retention: Retention,
    /// Where the secrets of steps are.
    pub secrets: SecretSources,
    /// Where the bytes of blobs are.
    pub blobs: BlobPlaces,
    /// What the registry is mirrored to.
    pub mlflow: Option<Mlflow>,
    /// How long to wait for a database that is down at start; forever when none.
    pub database_wait: Option<Duration>,
}

/// Text that nobody may read in a log, an error or an answer: it shows itself as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that uses it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Config {
    /// The shortest [`Config::grace`] that people may ask for.
    pub const GRACE_MIN: Duration = Duration::from_secs(1);

    /// Loopback, SQLite in `data`, no broker.
    pub fn local(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7433)),
            data: data.into(),
            database_url: None,
            sources: Vec::new(),
            targets: Vec::new(),
            hosts: Vec::new(),
            grace: Duration::from_secs(600),
            poll: Duration::from_secs(2),
            retention: Retention::default(),
            secrets: SecretSources::default(),
            blobs: BlobPlaces::default(),
            mlflow: None,
            database_wait: None,
        }
    }
}
