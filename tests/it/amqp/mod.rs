//! Events from RabbitMQ, as its operators expect it, and with everything on the way failing. A real broker, real
//! `refit serve` processes, and the tables as the last word.

mod formats;
mod outages;
mod poison;
mod tls;
mod topology;
mod twice;
mod wire;

use std::time::{Duration, Instant};

use refit_tests::api::{Api, event};
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator};
use refit_tests::services::{self, Broker, Database, Message};
use serde_json::{Value, json};

/// How long anything may take that ought to take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(database: &Database, broker: &Broker, queue: &str) -> Options {
    Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.to_owned()),
        ..Options::default()
    }
}

/// An orchestrator with the one source `orders`: `settings` stands under its name in `refit.yaml`.
fn with_source(database: &Database, broker: &Broker, settings: &Value) -> Options {
    let file = json!({ "amqp": { "url": broker.url() }, "sources": { "orders": settings } });
    Options {
        database_url: Some(database.url().to_owned()),
        settings: Some(file.to_string()),
        ..Options::default()
    }
}

/// How the source `orders` is doing, as who may look is told.
async fn source(api: &Api) -> Value {
    let parts = api.get("/api/v1/server").await.ok()["parts"].clone();
    let found = parts.as_array().into_iter().flatten().find(|part| part["name"] == "orders");
    found.unwrap_or_else(|| panic!("no source `orders`: {parts}")).clone()
}

/// Waits until the source `orders` is degraded for a reason with these words in it.
async fn wait_for_reason(api: &Api, words: &str) -> Value {
    let what = format!("the source is degraded: {words}");
    eventually(&what, PATIENCE, async || {
        let part = source(api).await;
        let reason = part["reason"].as_str().unwrap_or_default();
        (part["state"] == "degraded" && reason.contains(words)).then_some(part)
    })
    .await
}

async fn wait_until_working(api: &Api) {
    eventually("the source works", PATIENCE, async || (source(api).await["state"] == "ok").then_some(()))
        .await;
}

/// Events that differ in nothing but their id.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<Message> {
    numbers.map(|number| Message::event(&event(&format!("e{number}"), "data.plain", json!(number)))).collect()
}

const OURS: &str = "SELECT COUNT(*) FROM events WHERE source = '/tests'";

/// Deliveries of events that were there already.
const AGAIN: &str = "SELECT CAST(SUM(duplicates) AS BIGINT) FROM events WHERE source = '/tests'";

async fn wait_for_rows(database: &Database, rows: i64, timeout: Duration) {
    let what = format!("{rows} events are stored");
    eventually(&what, timeout, async || (database.number(OURS).await >= rows).then_some(())).await;
}

/// Waits until so many dead letters are kept.
async fn wait_for_dead(database: &Database, count: i64) {
    let what = format!("{count} dead letters are kept");
    let kept = "SELECT COUNT(*) FROM dead_letters";
    eventually(&what, PATIENCE, async || (database.number(kept).await >= count).then_some(())).await;
}

/// A workflow whose one step the orchestrator decides by itself, so that a run needs no worker to end.
const SINGLE: &str = "
workflow: single
on: [{ event: { type: [data.single] } }]
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
";

/// Nothing is on its way any more: not in the queue, not unrouted, not in an open batch, not in a run.
async fn wait_until_settled(database: &Database, broker: &Broker, queue: &str) {
    eventually("the queue is empty", PATIENCE, async || (broker.depth(queue).await == Some(0)).then_some(()))
        .await;
    for left in [
        "SELECT COUNT(*) FROM events WHERE routed = 0",
        "SELECT COUNT(*) FROM batches WHERE open = 1",
        "SELECT COUNT(*) FROM runs WHERE state IN ('waiting', 'running')",
    ] {
        let what = format!("this is 0: {left}");
        eventually(&what, PATIENCE * 2, async || (database.number(left).await == 0).then_some(())).await;
    }
}

fn told(orchestrator: &Orchestrator, words: &str) -> usize {
    orchestrator.logs().matches(words).count()
}
