//! Events from a RabbitMQ queue. A delivery is acknowledged only after the engine has stored it, and is never put
//! back in a loop: while the database is away nothing is consumed at all.
//!
//! The consumer supervises itself. A connection, its channel and its consumer are one generation; at the first
//! doubt (an error, an ended stream, a refused acknowledgement, a probe without answer, a queue that has messages
//! and delivers none) the whole generation is thrown away and another is built. What it had not acknowledged comes
//! again, and the store knows what it has seen.
//!
//! When a consumer goes, the broker counts a failed delivery for every message it had out. So that a message which takes
//! the consumer down counts for itself alone, each generation begins with one delivery at a time, and takes many only
//! once it has met a message that never came before.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use refit_workflows::event::CloudEvent;
use refit_workflows::format::Format;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::source_uri;
use crate::broker::{self, ANSWER_WITHIN, Backoff, BrokerError};
use crate::config::{Broker, Declaration, Queue, Source, Topology};
use crate::engine::Engine;
use crate::health::{Part, PartKind};

mod settle;

/// The most deliveries settled together, by number and by weight.
const BATCH_MAX: usize = 200;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long to wait for a batch to fill up.
const GATHER: Duration = Duration::from_millis(10);
/// How often to look whether a database that was away is back.
const DATABASE_POLL: Duration = Duration::from_secs(1);
/// How often the queue is asked after, and how long the answer may take.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// The same for a consumer that is new or looks deaf: one that never hears anything is replaced within seconds.
const PROBE_SOON: Duration = Duration::from_secs(5);
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// The longest pause after a generation that the broker had let in: a message that takes it down each time must reach
/// its delivery limit soon, because the others wait behind it.
const REOPEN_WITHIN: Duration = Duration::from_secs(2);
/// Messages in flight when publishing.
const PUBLISH_AT_ONCE: usize = 100;

/// A queue to consume events from.
#[derive(Clone, Debug)]
pub struct AmqpSource {
    name: String,
    /// The `source` of events whose format gives none.
    uri: String,
    format: Format,
    queue: Queue,
    consumer_tag: String,
}

impl AmqpSource {
    /// The source that is configured so.
    pub fn new(source: &Source, queue: &Queue) -> Self {
        let made = || {
            let random = uuid::Uuid::new_v4().simple().to_string();
            format!("refit-{}-{}", source.name, &random[..8])
        };
        Self {
            name: source.name.clone(),
            uri: source_uri(&source.name),
            format: source.format.clone(),
            consumer_tag: queue.consumer_tag.clone().unwrap_or_else(made),
            queue: queue.clone(),
        }
    }
}

/// Why a generation ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The orchestrator is stopping.
    #[error("stopping")]
    Stopping,
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("{0}")]
    Doubt(&'static str),
    #[error("the events cannot be stored: {0}")]
    Store(String),
}

/// Consumes until `shutdown` is cancelled, whatever happens to the broker and the database meanwhile.
pub async fn consume(engine: Engine, source: AmqpSource, shutdown: CancellationToken) {
    let part = engine.health().register(PartKind::Source, &source.name);
    let mut backoff = Backoff::default();
    loop {
        let opened = match shutdown.run_until_cancelled(Subscription::open(&source)).await {
            Some(opened) => opened,
            None => return,
        };
        let (ended, pause) = match opened {
            Ok(subscription) => {
                part.working();
                let ended = generation(&engine, &source, &part, subscription, &shutdown, &mut backoff).await;
                (ended, backoff.next_within(REOPEN_WITHIN))
            }
            Err(error) => (error.into(), backoff.next()),
        };
        match ended {
            Ended::Stopping => return,
            Ended::Broker(_) | Ended::Doubt(_) | Ended::Store(_) => part.degraded(ended.to_string()),
        }
        let pause = async {
            tokio::time::sleep(pause).await;
            // Consuming while the database is away, full or read-only would only use up the broker's delivery count.
            while engine.writable().await.is_err() {
                tokio::time::sleep(DATABASE_POLL).await;
            }
        };
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

async fn generation(
    engine: &Engine,
    source: &AmqpSource,
    part: &Part,
    mut subscription: Subscription,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Ended {
    let ended = loop {
        let batch = match subscription.next_batch(source, shutdown).await {
            Ok(batch) => batch,
            Err(ended) => break ended,
        };
        // Not cut short by a shutdown: what is stored is acknowledged as well.
        match settle::settle(engine, source, &batch).await {
            Ok(counts) => part.count(counts),
            Err(ended) => break ended,
        }
        backoff.reset();
    };
    // Closing gives back to the broker whatever was not acknowledged.
    broker::close(subscription.connection).await;
    ended
}

/// One generation's connection, channel and consumer.
struct Subscription {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// One delivery at a time: what comes may have taken a consumer down before.
    careful: bool,
    probe_at: Instant,
    deliveries_since_probe: u64,
    idle_with_messages: bool,
}

impl Subscription {
    async fn open(source: &AmqpSource) -> Result<Self, BrokerError> {
        let queue = &source.queue;
        let connection = broker::connect(&queue.broker, &format!("refit source {}", source.name)).await?;
        broker::prepare_queue(&connection, &queue.queue, &queue.topology).await?;
        let channel = broker::open_channel(&connection).await?;
        // The tag that operators know is for the consumer that stays.
        let consumer =
            subscribe(&channel, &queue.queue, &format!("{}-first", source.consumer_tag), 1).await?;
        Ok(Self {
            connection,
            channel,
            consumer,
            careful: true,
            probe_at: Instant::now() + PROBE_SOON,
            deliveries_since_probe: 0,
            idle_with_messages: false,
        })
    }

    /// Takes as many deliveries at a time as it is to. Only while the one delivery that is out is not settled yet, so
    /// that nothing more can be on its way to the consumer that is given up.
    async fn widen(&mut self, source: &AmqpSource) -> Result<(), BrokerError> {
        let AmqpSource { queue, consumer_tag, .. } = source;
        let consumer = subscribe(&self.channel, &queue.queue, consumer_tag, queue.prefetch).await?;
        let careful = std::mem::replace(&mut self.consumer, consumer);
        let cancelled = self.channel.basic_cancel(careful.tag(), BasicCancelOptions::default());
        broker::within(ANSWER_WITHIN, "replace a consumer", cancelled).await?;
        self.careful = false;
        Ok(())
    }

    /// The next deliveries: at least one, and what comes within a moment of it.
    async fn next_batch(
        &mut self,
        source: &AmqpSource,
        shutdown: &CancellationToken,
    ) -> Result<Vec<Delivery>, Ended> {
        let first = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Ended::Stopping),
                // Before the deliveries: a busy queue must not keep the probe from running.
                () = tokio::time::sleep_until(self.probe_at) => self.probe(&source.queue.queue).await?,
                delivery = self.consumer.next() => break received(delivery)?,
            }
        };
        if self.careful {
            if first.redelivered {
                self.deliveries_since_probe += 1;
                return Ok(vec![first]);
            }
            self.widen(source).await?;
        }
        let mut bytes = first.data.len();
        let mut batch = vec![first];
        let full_at = Instant::now() + GATHER;
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match timeout_at(full_at, self.consumer.next()).await {
                // What ended the stream also poisoned what it delivered: nothing of the batch could be settled.
                Ok(delivery) => batch.push(received(delivery)?),
                Err(_) => break,
            }
            bytes += batch.last().map_or(0, |delivery| delivery.data.len());
        }
        self.deliveries_since_probe += batch.len() as u64;
        Ok(batch)
    }

    /// Makes sure that the broker still answers on this channel, and that messages that wait are delivered.
    async fn probe(&mut self, queue: &str) -> Result<(), Ended> {
        if !self.connection.status().connected() {
            return Err(Ended::Doubt("the connection to RabbitMQ is gone"));
        }
        let ready = broker::probe_queue(&self.channel, queue, PROBE_WITHIN).await?;
        let idle_with_messages = ready > 0 && self.deliveries_since_probe == 0;
        if idle_with_messages && self.idle_with_messages {
            return Err(Ended::Doubt("the queue has messages, but RabbitMQ delivers none"));
        }
        self.idle_with_messages = idle_with_messages;
        self.deliveries_since_probe = 0;
        self.probe_at = Instant::now() + if idle_with_messages { PROBE_SOON } else { PROBE_EVERY };
        Ok(())
    }
}

/// Begins to consume with this prefetch, which is the consumer's own (quorum queues know no other).
async fn subscribe(
    channel: &Channel,
    queue: &str,
    tag: &str,
    prefetch: u16,
) -> Result<Consumer, BrokerError> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    broker::within(ANSWER_WITHIN, "set the prefetch", qos).await?;
    let (name, tag) = (broker::short(queue)?, broker::short(tag)?);
    let consumer = channel.basic_consume(name, tag, BasicConsumeOptions::default(), FieldTable::default());
    broker::within(ANSWER_WITHIN, &format!("consume from {queue}"), consumer).await
}

fn received(delivery: Option<lapin::Result<Delivery>>) -> Result<Delivery, Ended> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(source)) => Err(BrokerError::Refused { what: "receive events".to_owned(), source }.into()),
        None => Err(Ended::Doubt("RabbitMQ cancelled the consumer: was the queue deleted?")),
    }
}

/// Publishes events to a queue, declared as [`consume`] declares one that nothing is configured about; returns when the broker has confirmed all.
///
/// # Errors
/// The first event that was not confirmed. Those before it may have been taken: publishing again is safe, because
/// an event is stored once.
pub async fn publish_events(url: &str, queue: &str, events: &[CloudEvent]) -> Result<(), PublishError> {
    let connection = broker::connect(&Broker::at(url), "refit publish").await?;
    let published = publish_on(&connection, queue, events).await;
    broker::close(connection).await;
    Ok(published?)
}

async fn publish_on(connection: &Connection, queue: &str, events: &[CloudEvent]) -> Result<(), BrokerError> {
    let topology = Topology::Declared(Declaration::default());
    broker::prepare_queue(connection, queue, &topology).await?;
    let channel = broker::open_confirming(connection).await?;
    for some in events.chunks(PUBLISH_AT_ONCE) {
        let addressed: Vec<_> = some.iter().map(|event| (queue, event)).collect();
        broker::publish_all(&channel, "", &addressed).await.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Deletes a queue that was declared by [`consume`] or [`publish_events`], with its messages and its dead letters. For
/// queues that were made for a while only; nobody may be consuming from it any more.
///
/// # Errors
/// The broker cannot be reached, or refuses.
pub async fn delete_queue(url: &str, queue: &str) -> Result<(), PublishError> {
    let connection = broker::connect(&Broker::at(url), "refit delete").await?;
    let deleted = broker::delete_queue(&connection, queue).await;
    broker::close(connection).await;
    Ok(deleted?)
}

/// Why the broker did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PublishError(#[from] BrokerError);
