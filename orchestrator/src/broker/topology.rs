//! The queues that events are consumed from: looked for, declared and bound. What is there is never changed and never
//! deleted, except by [`delete_queue`] for queues that were made for a while.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::{ANSWER_WITHIN, BrokerError, open_channel, short, within};
use crate::config::{Argument, Binding, Declaration, ExchangeType, Topology};

/// The most messages kept in the dead-letter queue; the oldest go first. What Refit refused is in its own table as well.
const DEAD_MAX: i32 = 100_000;

/// Makes sure that a queue is there, as its configuration says.
pub(crate) async fn prepare_queue(
    connection: &Connection,
    queue: &str,
    topology: &Topology,
) -> Result<(), BrokerError> {
    match topology {
        Topology::Checked => {
            match probe_queue(&open_channel(connection).await?, queue, ANSWER_WITHIN).await {
                Err(error) if error.is_not_found() => Err(BrokerError::Missing(format!(
                    "there is no queue {queue} at RabbitMQ, and `declare: false` leaves it to others to make it"
                ))),
                found => found.map(|_| ()),
            }
        }
        Topology::Declared(declaration) => {
            declare_queue(connection, queue, declaration).await?;
            for binding in &declaration.bindings {
                bind(connection, queue, binding).await?;
            }
            Ok(())
        }
    }
}

/// Declares a durable quorum queue, and what its dead letters go to. A queue that exists with other arguments is used as
/// it is, and nothing is made beside it.
async fn declare_queue(
    connection: &Connection,
    queue: &str,
    declaration: &Declaration,
) -> Result<(), BrokerError> {
    let dead = dead_letter_exchange(queue, declaration);
    if declaration.dead_letter.is_some() {
        require_exchange(connection, &dead, "`dead_letter` names it, so make it first").await?;
    }
    let arguments = queue_arguments(declaration, &dead);
    match declare(&open_channel(connection).await?, &short(queue)?, arguments).await {
        Err(error) if error.is_precondition_failed() => {
            tracing::warn!(queue, "using the queue that is there as it is: {error}");
            // The refusal has closed the channel.
            return probe_queue(&open_channel(connection).await?, queue, ANSWER_WITHIN).await.map(|_| ());
        }
        done => done?,
    }
    match declaration.dead_letter {
        Some(_) => Ok(()),
        None => declare_dead(connection, &dead).await,
    }
}

/// The exchange that the dead letters of a queue go to.
pub(crate) fn dead_letter_exchange(queue: &str, declaration: &Declaration) -> String {
    declaration.dead_letter.clone().unwrap_or_else(|| format!("{queue}.dead"))
}

fn queue_arguments(declaration: &Declaration, dead: &str) -> FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongLongInt(declaration.delivery_limit.into())),
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
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a queue that is there differs from what would be declared, in the broker's words: it tells so only when the queue
/// is declared again, which changes nothing.
pub(crate) async fn unlike_declared(
    connection: &Connection,
    queue: &str,
    declaration: &Declaration,
) -> Result<Option<String>, BrokerError> {
    let channel = open_channel(connection).await?;
    let arguments = queue_arguments(declaration, &dead_letter_exchange(queue, declaration));
    match declare(&channel, &short(queue)?, arguments).await {
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
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Declares the exchange and the queue that dead letters go to where nobody names an exchange for them.
async fn declare_dead(connection: &Connection, dead: &str) -> Result<(), BrokerError> {
    let channel = open_channel(connection).await?;
    let name = short(dead)?;
    declare_exchange(&channel, &name, ExchangeKind::Fanout).await?;
    let arguments = table([("x-queue-type", text("quorum")), ("x-max-length", AMQPValue::LongInt(DEAD_MAX))]);
    declare(&channel, &name, arguments).await?;
    bind_one(&channel, &name, &name, "", FieldTable::default()).await
}

async fn bind(connection: &Connection, queue: &str, binding: &Binding) -> Result<(), BrokerError> {
    let exchange = short(&binding.exchange)?;
    match binding.declare_exchange {
        None => {
            let so_that = "name its type with `declare_exchange`, and Refit makes it";
            require_exchange(connection, &binding.exchange, so_that).await?;
        }
        Some(kind) => {
            let channel = open_channel(connection).await?;
            match declare_exchange(&channel, &exchange, exchange_kind(kind)).await {
                Err(error) if error.is_precondition_failed() => {
                    tracing::warn!(
                        exchange = binding.exchange,
                        "using the exchange that is there as it is: {error}"
                    );
                }
                done => done?,
            }
        }
    }
    let channel = open_channel(connection).await?;
    let arguments = table(binding.headers.iter().map(|(name, value)| (name.as_str(), argument(value))));
    let without = [String::new()];
    let keys = if binding.routing_keys.is_empty() { &without[..] } else { &binding.routing_keys[..] };
    for key in keys {
        bind_one(&channel, &short(queue)?, &exchange, key, arguments.clone()).await?;
    }
    Ok(())
}

/// Looks for an exchange; `otherwise` says what is to be done when it is not there.
async fn require_exchange(
    connection: &Connection,
    exchange: &str,
    otherwise: &str,
) -> Result<(), BrokerError> {
    match find_exchange(connection, exchange).await? {
        true => Ok(()),
        false => {
            Err(BrokerError::Missing(format!("there is no exchange {exchange} at RabbitMQ: {otherwise}")))
        }
    }
}

/// Deletes what is declared for a queue that nothing is configured about, with the messages in it. What is not there is
/// no error.
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

/// Asks after a queue without changing it: how many messages are ready. The channel does not survive a refusal.
pub(crate) async fn probe_queue(channel: &Channel, queue: &str, limit: Duration) -> Result<u32, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(queue)?, passive, FieldTable::default());
    let state = within(limit, &format!("ask after queue {queue}"), asked).await?;
    Ok(state.message_count())
}

async fn declare(channel: &Channel, queue: &ShortString, arguments: FieldTable) -> Result<(), BrokerError> {
    let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments);
    within(ANSWER_WITHIN, &format!("declare queue {queue}"), declared).await.map(|_| ())
}

async fn declare_exchange(
    channel: &Channel,
    exchange: &ShortString,
    kind: ExchangeKind,
) -> Result<(), BrokerError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(exchange.clone(), kind, durable, FieldTable::default());
    within(ANSWER_WITHIN, &format!("declare exchange {exchange}"), declared).await
}

async fn bind_one(
    channel: &Channel,
    queue: &ShortString,
    exchange: &ShortString,
    key: &str,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.clone(), exchange.clone(), short(key)?, options, arguments);
    within(ANSWER_WITHIN, &format!("bind queue {queue} to exchange {exchange}"), bound).await
}

fn exchange_kind(kind: ExchangeType) -> ExchangeKind {
    match kind {
        ExchangeType::Topic => ExchangeKind::Topic,
        ExchangeType::Direct => ExchangeKind::Direct,
        ExchangeType::Fanout => ExchangeKind::Fanout,
        ExchangeType::Headers => ExchangeKind::Headers,
    }
}

fn argument(value: &Argument) -> AMQPValue {
    match value {
        Argument::Text(value) => text(value),
        Argument::Number(value) => AMQPValue::LongLongInt(*value),
        Argument::Flag(value) => AMQPValue::Boolean(*value),
    }
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub(super) fn table<'a>(arguments: impl IntoIterator<Item = (&'a str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    table
}
