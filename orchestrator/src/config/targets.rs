//! Outbound targets as they are configured: a name, which events go there, and where that is. What a target does is
//! `outbox`'s business.

use std::time::Duration;

use refit_workflows::expression::Expression;
use refit_workflows::pattern::Pattern;

use super::{Broker, Secret};
pub use crate::address::Allow;

/// Where outbound events go.
#[derive(Clone, Debug)]
pub struct Target {
    /// Names it in the outbox, in readiness and in the log.
    pub name: String,
    /// An event goes there when one of these matches it; none: every event does.
    pub events: Vec<Pattern>,
    /// How long an event is tried before it becomes a dead letter.
    pub give_up_after: Duration,
    /// What takes its events.
    pub destination: Destination,
}

/// What takes a target's events.
#[derive(Clone, Debug)]
pub enum Destination {
    /// An exchange of RabbitMQ.
    Exchange(Exchange),
    /// An HTTP endpoint.
    Webhook(Webhook),
}

impl Destination {
    /// `amqp` or `webhook`, as in `refit.yaml`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exchange(_) => "amqp",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// An exchange to publish to.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The broker it is at.
    pub broker: Broker,
    /// Its name.
    pub exchange: String,
    /// Whether it is declared (as a durable topic exchange) where it is not there. An exchange that is not declared may
    /// be of any type.
    pub declare: bool,
    /// The routing key, over the event's attributes; without it the event's type.
    pub routing_key: Option<Expression>,
}

/// A webhook (Standard Webhooks 1.0 signatures).
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to POST. What is in it may be all that a receiver asks for.
    pub url: Secret,
    /// The shared secrets: `whsec_` and base64, or plain text. Each signs, so that receivers can change over from one to
    /// another. None: unsigned.
    pub secrets: Vec<Secret>,
    /// The longest a request may take.
    pub timeout: Duration,
    /// Addresses it may be at although they are not public.
    pub allow: Allow,
    /// Further headers, by name.
    pub headers: Vec<(String, Secret)>,
}

impl Webhook {
    /// The longest a request may take where nobody says otherwise.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
    /// The longest it may be told to take: a worker of Refit's waits that long for one event.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(30);
    /// The most secrets that sign at once.
    pub const SECRETS_MAX: usize = 2;

    /// An unsigned webhook at a public address.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            secrets: Vec::new(),
            timeout: Self::TIMEOUT_DEFAULT,
            allow: Allow::default(),
            headers: Vec::new(),
        }
    }
}

impl Target {
    /// How long an event is tried where nobody says otherwise.
    pub const GIVE_UP_AFTER_DEFAULT: Duration = Duration::from_secs(24 * 3600);
    /// The longest an event may be tried.
    pub const GIVE_UP_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

    /// A target of all events.
    pub fn new(name: impl Into<String>, destination: Destination) -> Self {
        let (name, events) = (name.into(), Vec::new());
        Self { name, events, give_up_after: Self::GIVE_UP_AFTER_DEFAULT, destination }
    }

    /// The target of the exchange that is named by flags and variables.
    pub fn exchange(broker: Broker, exchange: impl Into<String>) -> Self {
        let exchange = Exchange { broker, exchange: exchange.into(), declare: true, routing_key: None };
        Self::new("amqp", Destination::Exchange(exchange))
    }
}
