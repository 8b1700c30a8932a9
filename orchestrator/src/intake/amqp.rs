//! Events from a RabbitMQ queue. A delivery is acknowledged only after the engine has stored it, and is never put
//! back in a loop: while the database is away nothing is consumed at all.
//!
//! The consumer supervises itself. A connection, its channel and its consumer are one generation; at the first
//! doubt (an error, an ended stream, a refused acknowledgement, a probe without answer, a queue that has messages
//! and delivers none) the whole generation is thrown away and another is built. What it had not acknowledged comes
//! again, and the store knows what it has seen.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use refit_workflows::event::CloudEvent;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::again::{CONTENT_ENCODING, CONTENT_TYPE, HEADERS};
use super::delivery::Message;
use crate::broker::{self, ANSWER_WITHIN, Backoff, BrokerError};
use crate::config::{Broker, Queue};
use crate::engine::{DeadLetter, Engine, EngineError};
use crate::health::{Part, PartKind};
use crate::store::{BODY_BYTES_MAX, StoreError};

/// Deliveries the broker may have outstanding here.
const PREFETCH: u16 = 250;
/// The most deliveries stored in one transaction, by number and by weight.
const BATCH_MAX: usize = 200;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long to wait for a batch to fill up.
const GATHER: Duration = Duration::from_millis(10);
/// The longest a batch may take to be stored before the database counts as gone.
const STORE_WITHIN: Duration = Duration::from_secs(30);
/// How often to look whether a database that was away is back.
const DATABASE_POLL: Duration = Duration::from_secs(1);
/// How often the queue is asked after, and how long the answer may take.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// The same for a consumer that is new or looks deaf: one that never hears anything is replaced within seconds.
const PROBE_SOON: Duration = Duration::from_secs(5);
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// Messages in flight when publishing.
const PUBLISH_AT_ONCE: usize = 100;

/// A queue to consume events from.
#[derive(Clone, Debug)]
pub struct AmqpSource {
    broker: Broker,
    queue: String,
}

impl AmqpSource {
    /// The source that is configured so.
    pub fn new(queue: &Queue) -> Self {
        Self { broker: queue.broker.clone(), queue: queue.queue.clone() }
    }

    /// What it is called in the list of parts and in its dead letters.
    fn name(&self) -> String {
        source_name(&self.queue)
    }
}

fn source_name(queue: &str) -> String {
    format!("amqp:{queue}")
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
pub async fn consume(engine: Engine, settings: AmqpSource, shutdown: CancellationToken) {
    let part = engine.health().register(PartKind::Source, settings.name());
    let mut backoff = Backoff::default();
    loop {
        match generation(&engine, &settings, &part, &shutdown, &mut backoff).await {
            Ended::Stopping => return,
            ended @ (Ended::Broker(_) | Ended::Doubt(_) | Ended::Store(_)) => {
                part.degraded(ended.to_string());
            }
        }
        let pause = async {
            tokio::time::sleep(backoff.next()).await;
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
    settings: &AmqpSource,
    part: &Part,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Ended {
    let mut subscription = match shutdown.run_until_cancelled(Subscription::open(settings)).await {
        Some(Ok(subscription)) => subscription,
        Some(Err(error)) => return error.into(),
        None => return Ended::Stopping,
    };
    part.working();
    let ended = loop {
        let batch = match subscription.next_batch(&settings.queue, shutdown).await {
            Ok(batch) => batch,
            Err(ended) => break ended,
        };
        // Not cut short by a shutdown: what is stored is acknowledged as well.
        if let Err(ended) = settle(engine, &settings.queue, &batch).await {
            break ended;
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
    probe_at: Instant,
    deliveries_since_probe: u64,
    idle_with_messages: bool,
}

impl Subscription {
    async fn open(settings: &AmqpSource) -> Result<Self, BrokerError> {
        let connection = broker::connect(&settings.broker, "refit intake").await?;
        broker::declare_queue(&connection, &settings.queue).await?;
        let channel = broker::open_channel(&connection).await?;
        broker::within(
            ANSWER_WITHIN,
            "set the prefetch",
            channel.basic_qos(PREFETCH, BasicQosOptions::default()),
        )
        .await?;
        let consumer = channel.basic_consume(
            broker::short(&settings.queue)?,
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer =
            broker::within(ANSWER_WITHIN, &format!("consume from {}", settings.queue), consumer).await?;
        Ok(Self {
            connection,
            channel,
            consumer,
            probe_at: Instant::now() + PROBE_SOON,
            deliveries_since_probe: 0,
            idle_with_messages: false,
        })
    }

    /// The next deliveries: at least one, and what comes within a moment of it.
    async fn next_batch(
        &mut self,
        queue: &str,
        shutdown: &CancellationToken,
    ) -> Result<Vec<Delivery>, Ended> {
        let first = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Ended::Stopping),
                // Before the deliveries: a busy queue must not keep the probe from running.
                () = tokio::time::sleep_until(self.probe_at) => self.probe(queue).await?,
                delivery = self.consumer.next() => break received(delivery)?,
            }
        };
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

fn received(delivery: Option<lapin::Result<Delivery>>) -> Result<Delivery, Ended> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(source)) => Err(BrokerError::Refused { what: "receive events".to_owned(), source }.into()),
        None => Err(Ended::Doubt("RabbitMQ cancelled the consumer: was the queue deleted?")),
    }
}

/// What a delivery has become: `Some` when it is dead.
type Death = Option<DeadLetter>;

/// Stores a batch, then tells the broker.
async fn settle(engine: &Engine, queue: &str, batch: &[Delivery]) -> Result<(), Ended> {
    let mut events = Vec::with_capacity(batch.len());
    let mut deaths: Vec<Death> = Vec::with_capacity(batch.len());
    for delivery in batch {
        match message(delivery).event() {
            Ok(event) => {
                events.push(event);
                deaths.push(None);
            }
            Err(reason) => deaths.push(Some(dead_letter(queue, delivery, reason))),
        }
    }
    let dead = deaths.iter().flatten().cloned().collect();
    match store(engine, events.clone(), dead).await? {
        Ok(()) => {}
        Err(reason) => {
            tracing::warn!(queue, "a batch of {} was refused ({reason}), storing one by one", batch.len());
            store_singly(engine, queue, batch, events, &mut deaths).await?;
        }
    }
    acknowledge(batch, &deaths).await
}

/// One event that the store refuses must not hold up the others: it becomes a dead letter.
async fn store_singly(
    engine: &Engine,
    queue: &str,
    batch: &[Delivery],
    events: Vec<CloudEvent>,
    deaths: &mut [Death],
) -> Result<(), Ended> {
    let mut events = events.into_iter();
    for (delivery, verdict) in batch.iter().zip(deaths) {
        if verdict.is_none()
            && let Some(event) = events.next()
            && let Err(reason) = store(engine, vec![event], Vec::new()).await?
        {
            *verdict = Some(dead_letter(queue, delivery, format!("the store refused the event: {reason}")));
        }
        if let Some(dead) = verdict
            && let Err(reason) = store(engine, Vec::new(), vec![dead.clone()]).await?
        {
            return Err(Ended::Store(format!("a dead letter was refused: {reason}")));
        }
    }
    Ok(())
}

/// Stores; the inner error is a refusal of what was to be stored, the outer one an absent database.
async fn store(
    engine: &Engine,
    events: Vec<CloudEvent>,
    dead: Vec<DeadLetter>,
) -> Result<Result<(), String>, Ended> {
    match timeout(STORE_WITHIN, engine.record(events, dead)).await {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(EngineError::Store(error @ (StoreError::Unavailable(_) | StoreError::Conflict(_))))) => {
            Err(Ended::Store(error.to_string()))
        }
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => {
            Err(Ended::Store(format!("no answer from the database within {} s", STORE_WITHIN.as_secs())))
        }
    }
}

/// Everything up to the last good delivery in one frame, after each dead one on its own: the broker hands those to
/// its dead-letter exchange.
async fn acknowledge(batch: &[Delivery], deaths: &[Death]) -> Result<(), Ended> {
    const GONE: Ended = Ended::Doubt("RabbitMQ takes no acknowledgement on this channel any more");
    for (delivery, _) in batch.iter().zip(deaths).filter(|(_, verdict)| verdict.is_some()) {
        let rejected = delivery.acker.reject(BasicRejectOptions { requeue: false });
        if !broker::within(ANSWER_WITHIN, "reject a dead letter", rejected).await? {
            return Err(GONE);
        }
    }
    if let Some((last, _)) = batch.iter().zip(deaths).rfind(|(_, verdict)| verdict.is_none()) {
        let acked = last.acker.ack(BasicAckOptions { multiple: true });
        if !broker::within(ANSWER_WITHIN, "acknowledge events", acked).await? {
            return Err(GONE);
        }
    }
    Ok(())
}

fn message(delivery: &Delivery) -> Message<'_> {
    let properties = &delivery.properties;
    Message {
        content_type: properties.content_type().as_ref().map(|text| text.as_str()),
        content_encoding: properties.content_encoding().as_ref().map(|text| text.as_str()),
        headers: properties.headers().as_ref(),
        body: &delivery.data,
    }
}

fn dead_letter(queue: &str, delivery: &Delivery, reason: String) -> DeadLetter {
    let properties = &delivery.properties;
    DeadLetter {
        source: source_name(queue),
        reason,
        body: delivery.data[..delivery.data.len().min(BODY_BYTES_MAX)].to_vec(),
        context: json!({
            "exchange": delivery.exchange.as_str(),
            "routing_key": delivery.routing_key.as_str(),
            "redelivered": delivery.redelivered,
            CONTENT_TYPE: properties.content_type().as_ref().map(|text| text.as_str()),
            CONTENT_ENCODING: properties.content_encoding().as_ref().map(|text| text.as_str()),
            "message_id": properties.message_id().as_ref().map(|text| text.as_str()),
            HEADERS: message(delivery).headers_as_json(),
        }),
    }
}

/// Publishes events to a queue, declared as [`consume`] declares it; returns when the broker has confirmed all.
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
    broker::declare_queue(connection, queue).await?;
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
