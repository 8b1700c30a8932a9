//! What an orchestrator is told when it starts: every setting with its default and its unit. Reads nothing itself;
//! the command line fills it from flags, variables and `refit.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of one orchestrator process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the HTTP API listens. Anything but loopback needs a token in the database first.
    pub listen: SocketAddr,
    /// Folder for the SQLite database.
    pub data: PathBuf,
    /// `sqlite:PATH` or `postgres://…`; without it SQLite in [`Config::data`].
    pub database_url: Option<String>,
    /// RabbitMQ to consume events from and publish lifecycle events to.
    pub amqp_url: Option<String>,
    /// The durable queue events are consumed from.
    pub amqp_queue: String,
    /// Topic exchange that outbound events are published to; none: no outbound events over RabbitMQ.
    pub amqp_exchange: Option<String>,
    /// Webhooks that outbound events are sent to.
    pub webhooks: Vec<WebhookTarget>,
    /// Host names, beside loopback and the listen address, that requests may be addressed to.
    pub hosts: Vec<String>,
    /// How long a lease lives without a renewal: how long a worker may be out of reach before its steps are given
    /// to another.
    pub grace: Duration,
    /// How often everything that hints can wake is looked at all the same.
    pub poll: Duration,
    /// How long to wait for a database that is down at start; forever when none.
    pub database_wait: Option<Duration>,
}

/// An outbound webhook (Standard Webhooks 1.0 signatures).
#[derive(Clone, Debug)]
pub struct WebhookTarget {
    /// Names the target in the outbox and the log.
    pub name: String,
    /// Where to POST.
    pub url: String,
    /// The shared secret: `whsec_` and base64, or plain text. None: unsigned.
    pub secret: Option<String>,
}

impl Config {
    /// Loopback, SQLite in `data`, no broker.
    pub fn local(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7433)),
            data: data.into(),
            database_url: None,
            amqp_url: None,
            amqp_queue: "refit.events".to_owned(),
            amqp_exchange: None,
            webhooks: Vec::new(),
            hosts: Vec::new(),
            grace: Duration::from_secs(600),
            poll: Duration::from_secs(2),
            database_wait: None,
        }
    }
}
