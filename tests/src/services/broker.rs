//! Queues and exchanges on RabbitMQ, under names that nobody else uses. Must never happen here: a message that counts as
//! published before the broker has confirmed it, or a name that outlives its value.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

use super::{off_runtime, service};
use crate::eventually;

/// A connection to RabbitMQ with publisher confirms. Everything under a name it gave is deleted with this value.
#[derive(Debug)]
pub struct Broker {
    url: String,
    connection: Connection,
    channel: Channel,
    names: Mutex<Vec<String>>,
}

/// Connects to the broker of `REFIT_TEST_AMQP_URL`.
///
/// # Panics
/// When the variable is not set or the broker does not answer.
pub async fn amqp() -> Broker {
    let url = service("REFIT_TEST_AMQP_URL", "a RabbitMQ broker");
    match connect(&url).await {
        Ok((connection, channel)) => Broker { url, connection, channel, names: Mutex::default() },
        Err(error) => panic!("failed to connect to REFIT_TEST_AMQP_URL: {error}"),
    }
}

async fn connect(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// How often a message is published that the broker cannot take.
const PUBLISH_TRIES: u32 = 50;

/// How the same broker is reached over TLS.
#[derive(Debug)]
pub struct BrokerTls {
    /// `amqps://HOST:PORT/VHOST`, without a user.
    pub url: String,
    /// A folder with `ca.pem`, the authority of the broker's certificate, and `client.pem` and `client.key`, which
    /// stand for a user. `server.pem` is of the same authority.
    pub certificates: PathBuf,
}

/// Where the broker of `REFIT_TEST_AMQP_URL` listens with TLS.
///
/// # Panics
/// When `REFIT_TEST_AMQPS_URL` or `REFIT_TEST_AMQPS_CERTIFICATES` is not set.
pub fn amqp_tls() -> BrokerTls {
    let what = "a RabbitMQ broker that listens with TLS";
    BrokerTls {
        url: service("REFIT_TEST_AMQPS_URL", what),
        certificates: service("REFIT_TEST_AMQPS_CERTIFICATES", what).into(),
    }
}

impl Broker {
    /// What `rubric` (`list_consumers`, `list_connections`, …) of rabbitmqctl lists of these columns, row by row.
    ///
    /// # Panics
    /// When `REFIT_TEST_RABBITMQCTL` is not set, or does not answer.
    pub async fn list(&self, rubric: &str, columns: &[&str]) -> Vec<serde_json::Value> {
        let listed = self.ctl(&[&[rubric], columns, &["--formatter", "json"]].concat()).await;
        serde_json::from_str(&listed)
            .unwrap_or_else(|error| panic!("rabbitmqctl {rubric}: {error}: {listed}"))
    }

    /// Has the broker close the only connection that shows itself under this name.
    ///
    /// # Panics
    /// When there is none within half a minute, or as [`Broker::list`].
    pub async fn close_connection(&self, name: &str) {
        let what = format!("a connection is called {name}");
        let pid = eventually(&what, Duration::from_secs(30), async || {
            // Not as JSON, which writes process ids as no command takes them.
            let all = self.ctl(&["list_connections", "pid", "client_properties"]).await;
            let found = all.lines().find(|connection| connection.contains(&format!("\"{name}\"")));
            found.and_then(|connection| connection.split_whitespace().next().map(str::to_owned))
        });
        self.ctl(&["close_connection", &pid.await, "the test says so"]).await;
    }

    async fn ctl(&self, arguments: &[&str]) -> String {
        let program = service("REFIT_TEST_RABBITMQCTL", "to administer RabbitMQ");
        let ran = tokio::process::Command::new(&program).args(arguments).output().await;
        let output = ran.unwrap_or_else(|error| panic!("failed to start {program}: {error}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {told}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Declares a durable exchange, which is deleted with this value when its name is one of [`Broker::name`].
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn declare_exchange(&self, exchange: &str, kind: ExchangeKind) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default());
        if let Err(error) = declared.await {
            panic!("failed to declare exchange {exchange}: {error}");
        }
    }

    /// Publishes a message to an exchange; false when no queue takes it.
    ///
    /// # Panics
    /// When the broker does not confirm it.
    pub async fn publish_to(&self, exchange: &str, key: &str, message: &Message) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = message.properties.clone().with_delivery_mode(2);
        let sent =
            self.channel.basic_publish(exchange.into(), key.into(), options, &message.body, properties);
        let confirmed = match sent.await {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(confirmed) => confirmed.take_message().is_none(),
            Err(error) => panic!("failed to publish to exchange {exchange}: {error}"),
        }
    }

    /// What `--amqp-url` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A channel in confirm mode, for what this type does not offer.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// A name nobody else uses, for a queue or an exchange; declares nothing. What goes by it, or by it and `.dead`,
    /// is deleted with this value.
    pub fn name(&self) -> String {
        let name = format!("refit-test-{}", uuid::Uuid::new_v4().simple());
        if let Ok(mut names) = self.names.lock() {
            names.extend([name.clone(), format!("{name}.dead")]);
        }
        name
    }

    /// Declares a durable queue of the broker's default type.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn declare(&self, queue: &str) {
        let declared =
            self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default());
        if let Err(error) = declared.await {
            panic!("failed to declare queue {queue}: {error}");
        }
    }

    /// A new queue that gets what is published to a topic exchange under these keys (`#` for everything). Declares the
    /// exchange as the outbox does.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn listen(&self, exchange: &str, keys: &str) -> String {
        let queue = self.name();
        self.declare(&queue).await;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let nothing = FieldTable::default;
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, nothing());
        if let Err(error) = declared.await {
            panic!("failed to declare exchange {exchange}: {error}");
        }
        let options = QueueBindOptions::default();
        let bound =
            self.channel.queue_bind(queue.as_str().into(), exchange.into(), keys.into(), options, nothing());
        if let Err(error) = bound.await {
            panic!("failed to bind queue {queue} to exchange {exchange}: {error}");
        }
        queue
    }

    /// Messages ready in a queue; none when it does not exist.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        // On a channel of its own: asking for a queue that does not exist closes the channel (404).
        let channel = match self.connection.create_channel().await {
            Ok(channel) => channel,
            Err(error) => panic!("failed to open a channel: {error}"),
        };
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        found.ok().map(|queue| queue.message_count())
    }

    /// Waits until somebody has declared the queue.
    ///
    /// # Panics
    /// After 30 seconds.
    pub async fn wait_for_queue(&self, queue: &str) {
        let what = format!("queue {queue} exists");
        eventually(&what, Duration::from_secs(30), async || self.depth(queue).await).await;
    }

    /// Publishes persistent messages to a queue and waits for all confirms.
    ///
    /// # Panics
    /// When a message is not confirmed, or came back because there is no such queue.
    pub async fn publish(&self, queue: &str, messages: impl IntoIterator<Item = Message>) {
        let mut open: Vec<Message> = messages.into_iter().collect();
        for _ in 0..PUBLISH_TRIES {
            let mut confirms = Vec::new();
            for message in open {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let properties = message.properties.clone().with_delivery_mode(2);
                let sent = self
                    .channel
                    .basic_publish("".into(), queue.into(), options, &message.body, properties)
                    .await
                    .unwrap_or_else(|error| panic!("failed to publish to {queue}: {error}"));
                confirms.push((message, sent));
            }
            // A queue that cannot take a message at the moment says so with a nack.
            let mut refused = Vec::new();
            for (message, confirm) in confirms {
                match confirm.await {
                    Ok(Confirmation::Nack(_)) => refused.push(message),
                    Ok(confirmed) => {
                        let returned = confirmed.take_message().is_some();
                        assert!(!returned, "a message for {queue} came back: there is no such queue");
                    }
                    Err(error) => panic!("a message for {queue} was not confirmed: {error}"),
                }
            }
            open = refused;
            if open.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("queue {queue} took {} messages in no try", open.len());
    }

    /// Takes one message off a queue.
    ///
    /// # Panics
    /// When none comes within `timeout`.
    pub async fn take(&self, queue: &str, timeout: Duration) -> Taken {
        let what = format!("queue {queue} has a message");
        let options = BasicGetOptions { no_ack: true };
        eventually(&what, timeout, async || match self.channel.basic_get(queue.into(), options).await {
            Ok(got) => got.map(|got| Taken {
                body: got.delivery.data.to_vec(),
                properties: got.delivery.properties.clone(),
                routing_key: got.delivery.routing_key.as_str().to_owned(),
            }),
            Err(error) => panic!("failed to read from queue {queue}: {error}"),
        })
        .await
    }

    /// Empties a queue.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn purge(&self, queue: &str) {
        if let Err(error) = self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await {
            panic!("failed to purge queue {queue}: {error}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let names = self.names.lock().map(|mut names| std::mem::take(&mut *names)).unwrap_or_default();
        let url = self.url.clone();
        off_runtime(async move {
            let Ok((connection, channel)) = connect(&url).await else { return };
            for name in names {
                // Deleting what does not exist is no error in RabbitMQ.
                let _ = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
                let _ = channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await;
            }
            let _ = connection.close(200, "done".into()).await;
        });
    }
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The bytes.
    pub body: Vec<u8>,
    /// Content type, headers and the rest; the delivery mode is set to persistent.
    pub properties: BasicProperties,
}

impl Message {
    /// A CloudEvent in structured mode (CloudEvents AMQP protocol binding 1.0.2, section 3.2).
    pub fn event(event: &serde_json::Value) -> Self {
        Self::with_content_type("application/cloudevents+json", event.to_string())
    }

    /// Any bytes under a content type.
    pub fn with_content_type(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            properties: BasicProperties::default().with_content_type(content_type.into()),
        }
    }
}

/// A message that was taken off a queue.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The bytes.
    pub body: Vec<u8>,
    /// Content type, headers and the rest.
    pub properties: BasicProperties,
    /// The key it was published under.
    pub routing_key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_published_is_taken_and_the_queue_goes_with_the_broker() {
        let broker = amqp().await;
        let queue = broker.name();
        assert_eq!(broker.depth(&queue).await, None);
        broker.declare(&queue).await;
        broker.publish(&queue, [Message::with_content_type("text/plain", "hello")]).await;
        let taken = broker.take(&queue, Duration::from_secs(10)).await;
        assert_eq!((taken.body.as_slice(), taken.routing_key.as_str()), (&b"hello"[..], queue.as_str()));
        drop(broker);
        assert_eq!(amqp().await.depth(&queue).await, None, "{queue} is still on the broker");
    }

    #[tokio::test]
    async fn a_listener_hears_what_its_keys_match() {
        let broker = amqp().await;
        let exchange = broker.name();
        let queue = broker.listen(&exchange, "digits.#").await;
        for key in ["other.thing", "digits.retrained"] {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let sent = broker.channel().basic_publish(
                exchange.as_str().into(),
                key.into(),
                options,
                b"x",
                properties,
            );
            sent.await.unwrap().await.unwrap();
        }
        let taken = broker.take(&queue, Duration::from_secs(10)).await;
        assert_eq!(taken.routing_key, "digits.retrained");
        assert_eq!(broker.depth(&queue).await, Some(0));
    }

    #[tokio::test]
    #[should_panic(expected = "there is no such queue")]
    async fn publishing_into_nothing_is_noticed() {
        let broker = amqp().await;
        broker.publish(&broker.name(), [Message::default()]).await;
    }
}
