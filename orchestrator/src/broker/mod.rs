//! What both directions of RabbitMQ share: connecting, queues, confirms, waiting between tries.
//! Every wait on the broker is bounded here, and a URL's password never reaches a log.
//!
//! lapin's own recovery stays off: it can leave a consumer that looks alive and never hears anything again. Whoever
//! uses a connection drops it at the first doubt and builds another.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind};
use refit_workflows::event::CloudEvent;

use crate::config::Broker;

mod tls;
mod topology;

pub(crate) use topology::{
    dead_letter_exchange, delete_queue, find_exchange, find_queue, prepare_queue, probe_queue,
    unlike_declared,
};

/// The longest any single answer of the broker is waited for.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Proposed to the broker; it counts as dead after two silent intervals. RabbitMQ recommends 5 to 20 s.
const HEARTBEAT_SECONDS: u16 = 10;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// What the broker did not do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL cannot be read.
    #[error("failed to read the RabbitMQ URL: {0}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST")]
    Url(String),
    /// TLS cannot be set up on this side.
    #[error("failed to prepare TLS for RabbitMQ: {0}")]
    Tls(String),
    /// Something is not there that Refit is not to make; what, and what to do.
    #[error("{0}")]
    Missing(String),
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

    /// Whether something does not exist (404).
    pub(crate) fn is_not_found(&self) -> bool {
        self.reply_code() == Some(NOT_FOUND)
    }

    fn reply_code(&self) -> Option<u16> {
        match self {
            Self::Refused { source, .. } => match source.kind() {
                ErrorKind::ProtocolError(error) => Some(error.get_id()),
                _ => None,
            },
            Self::Url(_) | Self::Tls(_) | Self::Missing(_) | Self::Silent { .. } | Self::NotTaken(_) => None,
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
    if broker.tls.client.is_some() && uri.query.auth_mechanism.is_none() && !names_user(broker.url.reveal()) {
        uri.query.auth_mechanism = Some(SASLMechanism::External);
    }
    match uri.scheme {
        AMQPScheme::AMQP => within(ANSWER_WITHIN, &what, Connection::connect_uri(uri, properties)).await,
        AMQPScheme::AMQPS => tls::connect(uri, properties, &broker.tls, &what).await,
    }
}

/// Which virtual host of which broker this is: host, port and name, whoever connects to it. None: its URL is none.
pub(crate) fn place(broker: &Broker) -> Option<(String, u16, String)> {
    let uri: AMQPUri = broker.url.reveal().parse().ok()?;
    Some((uri.authority.host, uri.authority.port, uri.vhost))
}

/// Whether a URL says who connects; lapin's reading fills in `guest` where it does not.
fn names_user(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| !url.username().is_empty())
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
    let traced = |name| Some((name, event.attributes().get(name)?.as_str()?));
    let trace: Vec<_> = ["traceparent", "tracestate"].into_iter().filter_map(traced).collect();
    if !trace.is_empty() {
        let headers: Vec<_> = trace.into_iter().map(|(name, value)| (name, topology::text(value))).collect();
        properties = properties.with_headers(topology::table(headers));
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
        self.next_within(Self::LONGEST)
    }

    /// The next wait, and this one at most.
    pub(crate) fn next_within(&mut self, longest: Duration) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(longest);
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
