//! Sends what transactions put into the outbox: to RabbitMQ exchanges and to webhooks. One task per target; a target that
//! is away or slow holds up no other. Must never happen here: deciding which events are sent.
//!
//! At least once, in order per run: the engine hands out at most one event of a run at a time, and an event counts
//! as sent only when its target has confirmed it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use refit_workflows::digest::Digest;
use refit_workflows::pattern::Pattern;
use refit_workflows::wire::TargetView;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::config::{Config, Destination, Target};
use crate::engine::{Engine, Outbound};
use crate::health::{Health, Part, PartKind};
use crate::store::ListedTarget;

mod amqp;
pub(crate) mod breaker;
mod relay;
mod webhook;

use amqp::Exchange;
use relay::Relay;
use webhook::Webhook;

/// How often an orchestrator says which targets it has.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The targets of these settings, as the database lists them.
pub fn listed(config: &Config) -> Vec<ListedTarget> {
    config.targets.iter().map(list).collect()
}

fn list(target: &Target) -> ListedTarget {
    let events: Vec<_> = target.events.iter().map(Pattern::source).collect();
    let place = match &target.destination {
        Destination::Exchange(exchange) => json!([broker::place(&exchange.broker), exchange.exchange]),
        Destination::Webhook(webhook) => json!([webhook::place(webhook)]),
    };
    let kind = target.destination.kind();
    // Whatever proves who sends is left out, in URLs too: a digest of what is short can be guessed.
    let digest = Digest::of(json!([kind, events, place]).to_string().as_bytes()).to_string();
    ListedTarget { name: target.name.clone(), kind, events: target.events.clone(), digest }
}

/// Whether events can be sent with these settings, as far as can be told without trying.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check(target: &Target) -> Result<(), String> {
    match &target.destination {
        Destination::Exchange(_) => Ok(()),
        Destination::Webhook(webhook) => webhook::check(webhook),
    }
}

/// Starts one task per target, and one that keeps the list of targets. They end soon after `shutdown` is cancelled, each
/// with its last results written down.
pub fn spawn(engine: &Engine, config: &Config, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for target in &config.targets {
        let way = match &target.destination {
            Destination::Exchange(exchange) => Way::Exchange(Box::new(Exchange::new(exchange))),
            Destination::Webhook(webhook) => Way::Webhook(Webhook::new(webhook)),
        };
        tasks.spawn(Relay::new(engine, target, way, config.poll).run(shutdown.clone()));
    }
    let names: Vec<String> = config.targets.iter().map(|target| target.name.clone()).collect();
    let (engine, shutdown) = (engine.clone(), shutdown.clone());
    tasks.spawn(async move {
        let _ = shutdown.run_until_cancelled(keep_list(&engine, &names)).await;
    });
    tasks
}

/// Says again and again which targets this orchestrator has, and shows those that none has although events wait for them.
async fn keep_list(engine: &Engine, names: &[String]) {
    let mut orphans = BTreeMap::new();
    loop {
        let kept = match engine.keep_targets(names).await {
            Ok(()) => engine.targets().await,
            Err(error) => Err(error),
        };
        match kept {
            Ok(targets) => show_orphans(engine.health(), &targets, &mut orphans),
            Err(error) => tracing::debug!(%error, "failed to keep the list of targets"),
        }
        tokio::time::sleep(KEEP_EVERY).await;
    }
}

fn show_orphans(health: &Health, targets: &[TargetView], shown: &mut BTreeMap<String, Part>) {
    let orphans = || targets.iter().filter(|target| target.state == "absent" && target.pending > 0);
    shown.retain(|name, _| orphans().any(|target| target.name == *name));
    for TargetView { name, .. } in orphans() {
        let part = shown.entry(name.clone()).or_insert_with(|| health.register(PartKind::Target, name));
        part.degraded(format!(
            "events wait for it, and no orchestrator that runs has it in its settings: put it back into refit.yaml, or \
             drop them with `refit target drop {name}`"
        ));
    }
}

/// What became of one event that was sent.
#[derive(Debug)]
enum Outcome {
    /// The target has it.
    Taken,
    /// It has not.
    Refused(Refusal),
}

/// Why a target has not taken an event.
#[derive(Debug, Default)]
struct Refusal {
    reason: String,
    /// The event did not get there.
    away: bool,
    /// The target wants no more events.
    gone: bool,
    /// How long the target is not to be asked again.
    rest: Option<Duration>,
}

/// Events on their way, and what became of each.
type Shipment = BoxFuture<'static, Vec<(Outbound, Outcome)>>;

/// How a target's events get there.
enum Way {
    Exchange(Box<Exchange>),
    Webhook(Webhook),
}

impl Way {
    /// Whether events can be sent.
    fn is_ready(&self) -> bool {
        match self {
            Self::Exchange(exchange) => exchange.is_ready(),
            Self::Webhook(webhook) => webhook.is_ready(),
        }
    }

    /// Makes ready to send. While this fails, events are left where they are instead of being tried in vain.
    async fn prepare(&mut self) -> Result<(), String> {
        match self {
            Self::Exchange(exchange) => exchange.prepare().await,
            Self::Webhook(webhook) => webhook.prepare(),
        }
    }

    /// How many events may be on their way at once.
    fn at_once(&self) -> usize {
        match self {
            Self::Exchange(_) => amqp::AT_ONCE,
            Self::Webhook(_) => webhook::AT_ONCE,
        }
    }

    /// Sends these off: together where they are confirmed together, else each by itself.
    fn ship(&self, due: Vec<Outbound>) -> Vec<Shipment> {
        match self {
            Self::Exchange(exchange) => vec![exchange.ship(due)],
            Self::Webhook(webhook) => due.into_iter().map(|outbound| webhook.ship(outbound)).collect(),
        }
    }

    /// Something did not get there: what is held open for it may be broken.
    fn doubt(&mut self) {
        match self {
            Self::Exchange(exchange) => exchange.disconnect(),
            Self::Webhook(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Broker};

    fn digest(destination: Destination) -> String {
        list(&Target::new("t", destination)).digest
    }

    #[test]
    fn what_is_listed_of_a_target_is_where_it_is_and_never_who_sends() {
        let exchange = |url: &str, exchange: &str| {
            let Destination::Exchange(exchange) = Target::exchange(Broker::at(url), exchange).destination
            else {
                panic!("an exchange")
            };
            digest(Destination::Exchange(exchange))
        };
        let one = exchange("amqp://refit:secret@h/v", "x");
        assert_eq!(one, exchange("amqp://other:hunter2@h:5672/v?heartbeat=9", "x"));
        for (url, name) in
            [("amqp://i/v", "x"), ("amqp://h:1/v", "x"), ("amqp://h/w", "x"), ("amqp://h/v", "y")]
        {
            assert_ne!(one, exchange(url, name), "{url} {name}");
        }
        let webhook = |url: &str| digest(Destination::Webhook(config::Webhook::at(url)));
        let one = webhook("https://refit:secret@h/p?key=a");
        assert_eq!(one, webhook("https://h:443/p?key=b#c"));
        for url in ["http://h/p", "https://i/p", "https://h:1/p", "https://h/q"] {
            assert_ne!(one, webhook(url), "{url}");
        }
    }
}
