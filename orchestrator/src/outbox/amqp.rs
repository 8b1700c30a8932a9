//! Outbound events to a durable topic exchange of RabbitMQ, with the event's type as routing key. An event counts
//! as sent when the broker has confirmed it and some queue has it.
//!
//! Messages are mandatory: one that no queue is bound for comes back and counts as failed, so that a binding that
//! was forgotten delays events instead of losing them. Whoever wants some types only binds a queue for `#` too, or
//! sets an alternate exchange.

use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};

use crate::broker::{self, ANSWER_WITHIN, BrokerError};
use crate::config::{self, Broker};
use crate::engine::Outbound;

/// The exchange, and the connection to it while there is one. Own connection: an alarm of the broker blocks
/// connections that publish, and must not hold up the intake.
pub(super) struct Exchange {
    broker: Broker,
    name: String,
    open: Option<(Connection, Channel)>,
}

impl Exchange {
    pub(super) fn new(exchange: &config::Exchange) -> Self {
        Self { broker: exchange.broker.clone(), name: exchange.exchange.clone(), open: None }
    }

    /// Connects, unless the connection there is still good.
    pub(super) async fn prepare(&mut self) -> Result<(), String> {
        if let Some((connection, channel)) = &self.open
            && connection.status().connected()
            && channel.status().connected()
        {
            return Ok(());
        }
        self.open = None;
        self.open = Some(self.connect().await.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn connect(&self) -> Result<(Connection, Channel), BrokerError> {
        let connection = broker::connect(&self.broker, "refit outbox").await?;
        if let Err(error) = self.declare(&connection, false).await {
            if !error.is_precondition_failed() {
                return Err(error);
            }
            tracing::warn!(exchange = self.name, "using the exchange as it is: {error}");
            self.declare(&connection, true).await?;
        }
        let channel = broker::open_confirming(&connection).await?;
        Ok((connection, channel))
    }

    async fn declare(&self, connection: &Connection, passive: bool) -> Result<(), BrokerError> {
        let channel = broker::open_channel(connection).await?;
        let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
        let name = broker::short(&self.name)?;
        let declared = channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default());
        broker::within(ANSWER_WITHIN, &format!("declare exchange {}", self.name), declared).await
    }

    /// Publishes events; one result per event, in order.
    pub(super) async fn send(&mut self, due: &[Outbound]) -> Vec<Result<(), String>> {
        let Some((_, channel)) = &self.open else {
            return due.iter().map(|_| Err("not connected to RabbitMQ".to_owned())).collect();
        };
        let addressed: Vec<_> = due.iter().map(|outbound| (outbound.event.kind(), &outbound.event)).collect();
        let results = broker::publish_all(channel, &self.name, &addressed).await;
        if results.iter().any(|r| matches!(r, Err(BrokerError::Refused { .. } | BrokerError::Silent { .. })))
        {
            self.open = None;
        }
        results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect()
    }
}
