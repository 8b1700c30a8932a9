//! What both directions of RabbitMQ share: connecting, declaring Refit's queue, confirms, waiting between tries.
//! Every wait on the broker is bounded here, and a URL's password never reaches a log.
//!
//! lapin's own recovery stays off: it can leave a consumer that looks alive and never hears anything again. Whoever
//! uses a connection drops it at the first doubt and builds another.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
};
use refit_workflows::event::CloudEvent;

use crate::config::Broker;

/// The longest any single answer of the broker is waited for.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Proposed to the broker; it counts as dead after two silent intervals. RabbitMQ recommends 5 to 20 s.
const HEARTBEAT_SECONDS: u16 = 10;
/// A message that took the consumer down this often goes to the dead-letter queue (RabbitMQ 4 has the same default).
const DELIVERY_LIMIT: i32 = 20;
/// The most messages kept in the dead-letter queue; the oldest go first. What Refit refused is in its own table as well.
const DEAD_MAX: i32 = 100_000;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// What the broker did not do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL cannot be read.
    #[error("failed to read the RabbitMQ URL: {0}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST")]
    Url(String),
    /// It refused, or the connection is gone.
    #[error("failed to {what}: {source}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// The cause.
        source: lapin::Error,
    },
    /// It did not answer.
    #[error("failed to {what}: no answer from RabbitMQ within {} s", .within.as_secs())]
    Silent {
        /// What was asked of it.
        what: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// It did not take a message.
    #[error("{0}")]
    NotTaken(String),
}

impl BrokerError {
    /// Whether something exists already with other properties (406).
    pub(crate) fn is_precondition_failed(&self) -> bool {
        self.reply_code() == Some(PRECONDITION_FAILED)
    }

    fn reply_code(&self) -> Option<u16> {
        match self {
            Self::Refused { source, .. } => match source.kind() {
                ErrorKind::ProtocolError(error) => Some(error.get_id()),
                _ => None,
            },
            Self::Url(_) | Self::Silent { .. } | Self::NotTaken(_) => None,
        }
    }
}

/// Waits for the broker, but not for ever. `what` completes "failed to …".
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(BrokerError::Refused { what: what.to_owned(), source }),
        Err(_) => Err(BrokerError::Silent { what: what.to_owned(), within: limit }),
    }
}

/// Opens a connection that shows up at the broker under `name`.
pub(crate) async fn connect(broker: &Broker, name: &str) -> Result<Connection, BrokerError> {
    let mut uri: AMQPUri = broker.url.reveal().parse().map_err(BrokerError::Url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let what = format!("connect to RabbitMQ at {}:{}", uri.authority.host, uri.authority.port);
    within(ANSWER_WITHIN, &what, Connection::connect_uri(uri, properties)).await
}

/// Opens a channel.
pub(crate) async fn open_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    within(ANSWER_WITHIN, "open a channel", connection.create_channel()).await
}

/// Opens a channel whose messages the broker confirms.
pub(crate) async fn open_confirming(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = open_channel(connection).await?;
    within(ANSWER_WITHIN, "ask for confirms", channel.confirm_select(ConfirmSelectOptions::default()))
        .await?;
    Ok(channel)
}

/// Says goodbye, so that the broker does not log a lost connection. Waits a moment at most.
pub(crate) async fn close(connection: Connection) {
    const NORMAL: u16 = 200;
    if let Err(error) = within(Duration::from_secs(2), "close", connection.close(NORMAL, "done".into())).await
    {
        tracing::debug!("{error}");
    }
}

/// Declares the durable quorum queue `queue`, and beside it the exchange and queue `queue.dead` for what cannot be
/// taken. A queue that exists with other arguments is used as it is.
pub(crate) async fn declare_queue(connection: &Connection, queue: &str) -> Result<(), BrokerError> {
    let dead = format!("{queue}.dead");
    let (name, dead_name) = (short(queue)?, short(&dead)?);
    let declared = async {
        let channel = open_channel(connection).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange =
            channel.exchange_declare(dead_name.clone(), ExchangeKind::Fanout, durable, FieldTable::default());
        within(ANSWER_WITHIN, &format!("declare exchange {dead}"), exchange).await?;
        let arguments =
            table(&[("x-queue-type", text("quorum")), ("x-max-length", AMQPValue::LongInt(DEAD_MAX))]);
        declare(&channel, &dead_name, arguments).await?;
        let bind = channel.queue_bind(
            dead_name.clone(),
            dead_name.clone(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(ANSWER_WITHIN, &format!("bind queue {dead}"), bind).await?;
        declare(&channel, &name, queue_arguments(&dead)).await
    };
    match declared.await {
        Err(error) if error.is_precondition_failed() => {
            tracing::warn!(queue, "using what is there as it is: {error}");
            // The refusal has closed the channel.
            probe_queue(&open_channel(connection).await?, queue, ANSWER_WITHIN).await.map(|_| ())
        }
        done => done,
    }
}

/// How Refit's queues are declared; `dead` is their dead-letter exchange.
fn queue_arguments(dead: &str) -> FieldTable {
    table(&[
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(dead)),
        // Without these a dead letter can get lost on its way (RabbitMQ, quorum queues, at-least-once dead lettering).
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ])
}

/// A queue as the broker tells of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundQueue {
    /// Messages that are ready.
    pub(crate) messages: u32,
    /// Who consumes from it.
    pub(crate) consumers: u32,
}

/// Looks for a queue without declaring it.
pub(crate) async fn find_queue(
    connection: &Connection,
    queue: &str,
) -> Result<Option<FoundQueue>, BrokerError> {
    let channel = open_channel(connection).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(queue)?, passive, FieldTable::default());
    match within(ANSWER_WITHIN, &format!("ask after queue {queue}"), asked).await {
        Ok(found) => {
            Ok(Some(FoundQueue { messages: found.message_count(), consumers: found.consumer_count() }))
        }
        Err(error) if error.reply_code() == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a queue that is there differs from what [`declare_queue`] would declare, in the broker's words: it tells so only
/// when the queue is declared again, which changes nothing.
pub(crate) async fn unlike_ours(connection: &Connection, queue: &str) -> Result<Option<String>, BrokerError> {
    let channel = open_channel(connection).await?;
    match declare(&channel, &short(queue)?, queue_arguments(&format!("{queue}.dead"))).await {
        Ok(()) => Ok(None),
        Err(error) if error.is_precondition_failed() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Whether there is an exchange of this name.
pub(crate) async fn find_exchange(connection: &Connection, exchange: &str) -> Result<bool, BrokerError> {
    let channel = open_channel(connection).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let asked =
        channel.exchange_declare(short(exchange)?, ExchangeKind::Topic, passive, FieldTable::default());
    match within(ANSWER_WITHIN, &format!("ask after exchange {exchange}"), asked).await {
        Ok(()) => Ok(true),
        Err(error) if error.reply_code() == Some(NOT_FOUND) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes what [`declare_queue`] declares, with the messages in it. What is not there is no error.
pub(crate) async fn delete_queue(connection: &Connection, queue: &str) -> Result<(), BrokerError> {
    let dead = format!("{queue}.dead");
    let channel = open_channel(connection).await?;
    for name in [queue, &dead] {
        let deleted = channel.queue_delete(short(name)?, QueueDeleteOptions::default());
        within(ANSWER_WITHIN, &format!("delete queue {name}"), deleted).await?;
    }
    let deleted = channel.exchange_delete(short(&dead)?, ExchangeDeleteOptions::default());
    within(ANSWER_WITHIN, &format!("delete exchange {dead}"), deleted).await
}

async fn declare(channel: &Channel, queue: &ShortString, arguments: FieldTable) -> Result<(), BrokerError> {
    let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
    within(ANSWER_WITHIN, &format!("declare queue {queue}"), declared).await.map(|_| ())
}

/// Asks after a queue without changing it: how many messages are ready. The channel does not survive a refusal.
pub(crate) async fn probe_queue(channel: &Channel, queue: &str, limit: Duration) -> Result<u32, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(queue)?, passive, FieldTable::default());
    let state = within(limit, &format!("ask after queue {queue}"), asked).await?;
    Ok(state.message_count())
}

/// Publishes events, structured (CloudEvents 1.0.2, AMQP binding), persistent and mandatory, and waits for the
/// broker's confirms: one result per event, in order. An event that reached no queue counts as not taken, although
/// the broker confirms it too.
///
/// lapin hands a returned message to whichever confirm completes next, not to its own. So confirms are judged
/// together: what came back is found by its content, and when one confirm is missing, none of them counts. The
/// channel must not be used again after a [`BrokerError::Refused`] or [`BrokerError::Silent`].
pub(crate) async fn publish_all(
    channel: &Channel,
    exchange: &str,
    events: &[(&str, &CloudEvent)],
) -> Vec<Result<(), BrokerError>> {
    let bodies: Vec<String> = events.iter().map(|(_, event)| event.to_json()).collect();
    let confirms: Vec<_> = events
        .iter()
        .zip(&bodies)
        .map(|((key, event), body)| confirm(channel, exchange, key, event, body))
        .collect();
    let mut confirms = futures_util::future::join_all(confirms).await;
    let complete = !confirms
        .iter()
        .any(|confirm| matches!(confirm, Err(BrokerError::Refused { .. } | BrokerError::Silent { .. })));
    let returned: HashMap<Vec<u8>, String> = confirms
        .iter_mut()
        .flatten()
        .filter_map(|confirm| match confirm {
            Confirmation::Ack(message) | Confirmation::Nack(message) => message.take(),
            Confirmation::NotRequested => None,
        })
        .map(|message| (message.delivery.data, message.reply_text.to_string()))
        .collect();
    let not_taken = |text: String| Err(BrokerError::NotTaken(text));
    let judge = |(confirm, ((key, _), body)): (Result<Confirmation, BrokerError>, (&(&str, _), &String))| {
        let confirm = confirm?;
        if let Some(why) = returned.get(body.as_bytes()) {
            return not_taken(match exchange {
                "" => format!("RabbitMQ returned the event ({why}): there is no queue {key}"),
                _ => format!(
                    "RabbitMQ returned the event ({why}): no queue is bound to {exchange} for routing key {key}"
                ),
            });
        }
        match confirm {
            Confirmation::Ack(_) if complete => Ok(()),
            Confirmation::Ack(_) => not_taken("RabbitMQ did not confirm all events sent together".to_owned()),
            Confirmation::Nack(_) => not_taken("RabbitMQ could not store the event".to_owned()),
            Confirmation::NotRequested => not_taken("RabbitMQ was not asked to confirm".to_owned()),
        }
    };
    confirms.into_iter().zip(events.iter().zip(&bodies)).map(judge).collect()
}

async fn confirm(
    channel: &Channel,
    exchange: &str,
    routing_key: &str,
    event: &CloudEvent,
    body: &str,
) -> Result<Confirmation, BrokerError> {
    let (exchange, key) = (short(exchange)?, short(routing_key)?);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = async {
        channel.basic_publish(exchange, key, options, body.as_bytes(), properties(event)).await?.await
    };
    within(ANSWER_WITHIN, "publish an event", confirm).await
}

fn properties(event: &CloudEvent) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/cloudevents+json".into());
    // For people and for tools; an id too long for an AMQP short string stays in the body alone.
    if let Ok(id) = ShortString::try_new(event.id()) {
        properties = properties.with_message_id(id);
    }
    if let Ok(kind) = ShortString::try_new(event.kind()) {
        properties = properties.with_type(kind);
    }
    properties
}

/// A name as AMQP carries it: at most 255 bytes.
pub(crate) fn short(text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        BrokerError::NotTaken(format!(
            "`{shown}…` is longer than the 255 bytes AMQP allows for a name or routing key"
        ))
    })
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// How long to wait before the next try: from half a second to half a minute, doubling, with jitter, for ever.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    /// It worked: begin anew at the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_to_a_bound_and_begins_anew() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!(first >= Backoff::FIRST / 2 && first <= Backoff::FIRST, "{first:?}");
        let later = (0..100).map(|_| backoff.next()).last().unwrap();
        assert!(later >= Backoff::LONGEST / 2 && later <= Backoff::LONGEST, "{later:?}");
        backoff.reset();
        assert!(backoff.next() <= Backoff::FIRST);
    }

    #[tokio::test]
    async fn a_refused_connection_is_told_without_the_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = connect(&Broker::at(format!("amqp://user:hunter2@127.0.0.1:{port}/%2f")), "test")
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains("hunter2"), "{text}");
        assert!(matches!(connect(&Broker::at("http://x"), "test").await, Err(BrokerError::Url(_))));
    }

    #[test]
    fn names_too_long_for_amqp_are_refused_instead_of_cut() {
        assert!(short(&"x".repeat(255)).is_ok());
        assert!(short(&"x".repeat(256)).is_err());
    }
}
