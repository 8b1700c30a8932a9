//! Sources as they are configured: a name, what brings the events there, and how they are read. What a source does is
//! `intake`'s business.

use std::collections::BTreeMap;

use refit_workflows::format::Format;

use super::{Broker, Hook};

/// Where events come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Names it in dead letters, in readiness and in the log.
    pub name: String,
    /// What brings its events.
    pub transport: Transport,
    /// How what it brings is read as events.
    pub format: Format,
}

/// What brings a source's events.
#[derive(Clone, Debug)]
pub enum Transport {
    /// A queue of RabbitMQ.
    Amqp(Queue),
    /// Requests to `/hooks/NAME`.
    Webhook(Hook),
}

/// A queue to consume from.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The broker it is at.
    pub broker: Broker,
    /// Its name.
    pub queue: String,
    /// Who sees to it that it is there.
    pub topology: Topology,
    /// Deliveries the broker may have outstanding here, 1 to [`Queue::PREFETCH_MAX`].
    pub prefetch: u16,
    /// Names the consumer at the broker; none: one is made of the source's name.
    pub consumer_tag: Option<String>,
}

/// Who sees to it that a queue is there.
#[derive(Clone, Debug)]
pub enum Topology {
    /// Somebody else. Refit looks for it and changes nothing; while it is not there, the source is degraded.
    Checked,
    /// Refit: the queue is declared when it is not there. One that is there with other properties is used as it is.
    Declared(Declaration),
}

/// A durable quorum queue, as Refit declares it.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// How often a message may come back before it is a dead letter.
    pub delivery_limit: u32,
    /// The exchange that dead letters go to, which must be there; none: the exchange and queue `QUEUE.dead` are made.
    pub dead_letter: Option<String>,
    /// What the queue is bound to. Bindings that are there beside these stay.
    pub bindings: Vec<Binding>,
}

/// A queue's tie to an exchange.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// Declared with this type, durable, when it is not there; none: it must be there.
    pub declare_exchange: Option<ExchangeType>,
    /// One binding for each; none: one with an empty key.
    pub routing_keys: Vec<String>,
    /// The arguments of each, for an exchange of the type headers.
    pub headers: BTreeMap<String, Argument>,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeType {
    /// By patterns of routing keys.
    Topic,
    /// By equal routing keys.
    Direct,
    /// To every queue.
    Fanout,
    /// By headers.
    Headers,
}

/// A value that a binding asks of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A boolean.
    Flag(bool),
}

impl Source {
    /// The queue that is consumed from where nobody names one.
    pub const QUEUE_DEFAULT: &'static str = "refit.events";

    /// The source of the queue that flags and variables name. Its name cannot be that of a source in `refit.yaml`.
    pub fn queue(broker: Broker, queue: impl Into<String>) -> Self {
        let queue = Queue::new(broker, queue);
        let name = format!("amqp:{}", queue.queue);
        Self { name, transport: Transport::Amqp(queue), format: Format::CloudEvents }
    }
}

impl Queue {
    /// [`Queue::prefetch`] where nobody names one.
    pub const PREFETCH_DEFAULT: u16 = 250;
    /// The most that quorum queues allow (RabbitMQ, consumer prefetch).
    pub const PREFETCH_MAX: u16 = 2000;

    /// The queue of this name, declared when it is not there and bound to nothing.
    pub fn new(broker: Broker, queue: impl Into<String>) -> Self {
        Self {
            broker,
            queue: queue.into(),
            topology: Topology::Declared(Declaration::default()),
            prefetch: Self::PREFETCH_DEFAULT,
            consumer_tag: None,
        }
    }
}

impl Declaration {
    /// [`Declaration::delivery_limit`] where nobody names one; RabbitMQ 4 has the same.
    pub const DELIVERY_LIMIT_DEFAULT: u32 = 20;
}

impl Default for Declaration {
    fn default() -> Self {
        Self { delivery_limit: Self::DELIVERY_LIMIT_DEFAULT, dead_letter: None, bindings: Vec::new() }
    }
}
