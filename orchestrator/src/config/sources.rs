//! Sources as they are configured: a name, and what brings the events there. What a source does is `intake`'s business.

use super::{Broker, Hook};

/// Where events come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Names it in dead letters, in readiness and in the log.
    pub name: String,
    /// What brings its events.
    pub transport: Transport,
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
    /// Its name; it is declared when it is not there.
    pub queue: String,
}

impl Source {
    /// The queue that is consumed from where nobody names one.
    pub const QUEUE_DEFAULT: &'static str = "refit.events";

    /// The source of a queue, named like it.
    pub fn queue(broker: Broker, queue: impl Into<String>) -> Self {
        let queue = queue.into();
        Self { name: queue.clone(), transport: Transport::Amqp(Queue { broker, queue }) }
    }
}
