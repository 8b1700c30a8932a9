//! Outbound targets as they are configured: a name, and where events go. What a target does is `outbox`'s business.

use super::{Broker, Secret};

/// Where outbound events go.
#[derive(Clone, Debug)]
pub struct Target {
    /// Names it in the outbox, in readiness and in the log.
    pub name: String,
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

/// A topic exchange to publish to.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The broker it is at.
    pub broker: Broker,
    /// Its name; it is declared when it is not there.
    pub exchange: String,
}

/// A webhook (Standard Webhooks 1.0 signatures).
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to POST.
    pub url: String,
    /// The shared secret: `whsec_` and base64, or plain text. None: unsigned.
    pub secret: Option<Secret>,
}

impl Target {
    /// The target of the exchange that is named by flags and variables.
    pub fn exchange(broker: Broker, exchange: impl Into<String>) -> Self {
        let exchange = exchange.into();
        Self { name: "amqp".to_owned(), destination: Destination::Exchange(Exchange { broker, exchange }) }
    }

    /// A webhook.
    pub fn webhook(name: impl Into<String>, url: impl Into<String>, secret: Option<Secret>) -> Self {
        Self { name: name.into(), destination: Destination::Webhook(Webhook { url: url.into(), secret }) }
    }
}
