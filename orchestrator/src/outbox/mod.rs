//! Sends what transactions put into the outbox: to a RabbitMQ exchange and to webhooks. One task per target; a
//! target that is away holds up no other. Never decides what is sent or when to try again: that is the engine's.
//!
//! At least once, in order per run: the engine hands out at most one event of a run at a time, and an event counts
//! as sent only when its target has confirmed it.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::Backoff;
use crate::config::{Config, Destination};
use crate::engine::{Engine, EngineError, Outbound, Sent};
use crate::health::PartKind;

mod amqp;
mod webhook;

use amqp::Exchange;
use webhook::Webhook;

/// How many events are taken from the outbox at once, for a target that confirms them together.
const AT_ONCE: i64 = 100;

/// The names of the targets that these settings ask for.
pub fn targets(config: &Config) -> Vec<String> {
    config.targets.iter().map(|target| target.name.clone()).collect()
}

/// Starts one task per target. They end soon after `shutdown` is cancelled, each with its last results written down.
pub fn spawn(engine: &Engine, config: &Config, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for target in &config.targets {
        let way = match &target.destination {
            Destination::Exchange(exchange) => Way::Exchange(Box::new(Exchange::new(exchange))),
            Destination::Webhook(webhook) => Way::Webhook(Webhook::new(webhook)),
        };
        tasks.spawn(Relay::new(engine, &target.name, way, config.poll).run(shutdown.clone()));
    }
    tasks
}

/// How a target's events get there.
enum Way {
    Exchange(Box<Exchange>),
    Webhook(Webhook),
}

impl Way {
    /// Makes ready to send. While this fails, events are left where they are instead of being tried in vain.
    async fn prepare(&mut self) -> Result<(), String> {
        match self {
            Self::Exchange(exchange) => exchange.prepare().await,
            Self::Webhook(webhook) => webhook.prepare(),
        }
    }

    /// How many events one round takes. It ends, whatever the target does, well before another orchestrator may take over.
    fn at_once(&self) -> i64 {
        match self {
            Self::Exchange(_) => AT_ONCE,
            Self::Webhook(_) => webhook::POSTS_AT_ONCE,
        }
    }

    /// One result per event, in order.
    async fn send(&mut self, due: &[Outbound]) -> Vec<Result<(), String>> {
        match self {
            Self::Exchange(exchange) => exchange.send(due).await,
            Self::Webhook(webhook) => webhook.send(due).await,
        }
    }
}

/// One target and its way there.
struct Relay {
    engine: Engine,
    name: String,
    way: Way,
    poll: Duration,
    /// Why an event of the latest round was not sent.
    refused: Option<String>,
}

impl Relay {
    fn new(engine: &Engine, name: &str, way: Way, poll: Duration) -> Self {
        Self { engine: engine.clone(), name: name.to_owned(), way, poll, refused: None }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let part = self.engine.health().register(PartKind::Target, &self.name);
        let mut backoff = Backoff::default();
        let mut signal = self.engine.outbox_signal();
        while !shutdown.is_cancelled() {
            let rest = match self.drain(&shutdown).await {
                Ok(()) => {
                    match &self.refused {
                        None => part.working(),
                        Some(reason) => part.degraded(reason),
                    }
                    backoff.reset();
                    None
                }
                Err(reason) => {
                    part.degraded(reason);
                    Some(backoff.next())
                }
            };
            let woken = async {
                match rest {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => tokio::select! {
                        _ = signal.changed() => {}
                        () = tokio::time::sleep(self.poll) => {}
                    },
                }
            };
            // The loop's condition looks at the outcome.
            let _ = shutdown.run_until_cancelled(woken).await;
        }
        if let Err(error) = self.engine.outbox_leave(&self.name).await {
            tracing::debug!(target_name = self.name, %error, "another orchestrator takes over only after a while");
        }
    }

    /// Sends until nothing is due.
    async fn drain(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        while !shutdown.is_cancelled() {
            match shutdown.run_until_cancelled(self.way.prepare()).await {
                Some(ready) => ready?,
                None => break,
            }
            let limit = self.way.at_once();
            let due = self.engine.outbox_due(&self.name, limit).await.map_err(|error| in_store(&error))?;
            if due.is_empty() {
                break;
            }
            let outcomes = self.way.send(&due).await;
            self.refused = outcomes.iter().find_map(|outcome| outcome.clone().err());
            let results = due.into_iter().zip(outcomes).map(|(outbound, outcome)| match outcome {
                Ok(()) => (outbound, Sent::Done),
                Err(reason) => {
                    let (id, attempts) = (outbound.event.id(), outbound.attempts + 1);
                    tracing::debug!(target_name = self.name, event = id, attempts, "not sent: {reason}");
                    (outbound, Sent::Failed(reason))
                }
            });
            let results = results.collect();
            self.engine.outbox_sent(results).await.map_err(|error| in_store(&error))?;
        }
        Ok(())
    }
}

fn in_store(error: &EngineError) -> String {
    format!("the outbox cannot be read or written: {error}")
}
