//! Outbound events to an exchange of RabbitMQ, with the event's type as routing key unless an expression says otherwise. An
//! event counts as sent when the broker has confirmed it and some queue has it.
//!
//! Messages are mandatory: one that no queue is bound for comes back and counts as failed, so that a binding that
//! was forgotten delays events instead of losing them. Whoever wants some types only lists them in the target's `events`,
//! binds a queue for `#` too, or sets an alternate exchange.

use futures_util::future::FutureExt as _;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::{Expression, Scope};

use super::{Outcome, Refusal, Shipment};
use crate::broker::{self, ANSWER_WITHIN, BrokerError};
use crate::config;
use crate::engine::Outbound;

/// How many events are published together.
pub(super) const AT_ONCE: usize = 100;

/// The exchange, and the connection to it while there is one. Own connection: an alarm of the broker blocks
/// connections that publish, and must not hold up the intake.
pub(super) struct Exchange {
    settings: config::Exchange,
    open: Option<(Connection, Channel)>,
}

impl Exchange {
    pub(super) fn new(settings: &config::Exchange) -> Self {
        Self { settings: settings.clone(), open: None }
    }

    /// Whether the connection there is still good.
    pub(super) fn is_ready(&self) -> bool {
        let connected = |(connection, channel): &(Connection, Channel)| {
            connection.status().connected() && channel.status().connected()
        };
        self.open.as_ref().is_some_and(connected)
    }

    /// Connects anew.
    pub(super) async fn prepare(&mut self) -> Result<(), String> {
        self.disconnect();
        self.open = Some(self.connect().await.map_err(|error| error.to_string())?);
        Ok(())
    }

    pub(super) fn disconnect(&mut self) {
        self.open = None;
    }

    async fn connect(&self) -> Result<(Connection, Channel), BrokerError> {
        let connection = broker::connect(&self.settings.broker, "refit outbox").await?;
        if self.settings.declare {
            self.declare(&connection).await?;
        }
        let channel = broker::open_confirming(&connection).await?;
        Ok((connection, channel))
    }

    async fn declare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let channel = broker::open_channel(connection).await?;
        let name = &self.settings.exchange;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(
            broker::short(name)?,
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        );
        match broker::within(ANSWER_WITHIN, &format!("declare exchange {name}"), declared).await {
            Err(error) if error.is_precondition_failed() => {
                tracing::warn!(exchange = name, "using the exchange as it is: {error}");
                Ok(())
            }
            declared => declared,
        }
    }

    /// Publishes events together.
    pub(super) fn ship(&self, due: Vec<Outbound>) -> Shipment {
        let Some((_, channel)) = &self.open else {
            let away = || Refusal {
                reason: "not connected to RabbitMQ".to_owned(),
                away: true,
                ..Refusal::default()
            };
            let all = due.into_iter().map(|outbound| (outbound, Outcome::Refused(away()))).collect();
            return futures_util::future::ready(all).boxed();
        };
        let (channel, exchange) = (channel.clone(), self.settings.exchange.clone());
        let key = self.settings.routing_key.clone();
        async move { publish(&channel, &exchange, key.as_ref(), due).await }.boxed()
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: Option<&Expression>,
    due: Vec<Outbound>,
) -> Vec<(Outbound, Outcome)> {
    let keys: Vec<Result<String, String>> =
        due.iter().map(|outbound| routing_key(key, &outbound.event)).collect();
    let addressed: Vec<(&str, &CloudEvent)> = keys
        .iter()
        .zip(&due)
        .filter_map(|(key, outbound)| key.as_ref().ok().map(|key| (key.as_str(), &outbound.event)))
        .collect();
    let mut published = broker::publish_all(channel, exchange, &addressed).await.into_iter();
    let outcomes: Vec<Outcome> = keys
        .iter()
        .map(|key| match key {
            Ok(_) => outcome(published.next()),
            Err(reason) => Outcome::Refused(Refusal { reason: reason.clone(), ..Refusal::default() }),
        })
        .collect();
    due.into_iter().zip(outcomes).collect()
}

fn outcome(published: Option<Result<(), BrokerError>>) -> Outcome {
    let away = match &published {
        Some(Ok(())) => return Outcome::Taken,
        Some(Err(BrokerError::NotTaken(_))) => false,
        Some(Err(BrokerError::Refused { .. } | BrokerError::Silent { .. } | BrokerError::Url(_))) | None => {
            true
        }
    };
    let reason = match published {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) | None => "RabbitMQ was not asked".to_owned(),
    };
    Outcome::Refused(Refusal { reason, away, ..Refusal::default() })
}

fn routing_key(expression: Option<&Expression>, event: &CloudEvent) -> Result<String, String> {
    let Some(expression) = expression else { return Ok(event.kind().to_owned()) };
    let scope = Scope { roots: event.attributes().clone(), ..Scope::default() };
    match expression.evaluate(&scope) {
        Ok(serde_json::Value::String(key)) => Ok(key),
        Ok(_) => Err(format!("the routing key `{}` is not text", expression.source())),
        Err(wrong) => Err(format!("the routing key `{}`: {wrong}", expression.source())),
    }
}

#[cfg(test)]
mod tests {
    use refit_workflows::time::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_routing_key_is_the_type_or_what_an_expression_makes_of_the_event() {
        let at = Timestamp::from_millis(0);
        let event = CloudEvent::new("1", "/s", "model.promoted", Some("churn"), at, json!({ "n": 1 }));
        let key = |text: &str| routing_key(Some(&Expression::parse(text).unwrap()), &event);
        assert_eq!(routing_key(None, &event).unwrap(), "model.promoted");
        assert_eq!(key("'ml.' + subject + '.' + type").unwrap(), "ml.churn.model.promoted");
        assert!(key("data.n").unwrap_err().contains("not text"));
        assert!(key("data.missing").unwrap_err().contains("routing key `data.missing`"));
    }
}
