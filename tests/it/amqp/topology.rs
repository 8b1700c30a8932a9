//! What Refit makes at the broker, what it only looks for, and how it shows itself there.

use lapin::ExchangeKind;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_only_looked_for_is_never_made() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let settings = json!({ "amqp": { "queue": queue, "declare": false } });
    let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    let api = orchestrator.api();
    let part = wait_for_reason(&api, &format!("there is no queue {queue} at RabbitMQ")).await;
    // Since when, whatever it says between.
    let since = part["since"].as_str().unwrap().to_owned();
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("degraded")));
    assert_eq!(broker.depth(&queue).await, None);
    assert_eq!(source(&api).await["since"], since.as_str());

    // Whoever is to make it makes it; consumed within seconds, and nothing else appears beside it.
    broker.declare(&queue).await;
    broker.publish(&queue, numbered(0..3)).await;
    wait_for_rows(&database, 3, PATIENCE).await;
    assert_eq!(broker.depth(&format!("{queue}.dead")).await, None);
    broker.channel().queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    wait_for_reason(&api, "there is no queue").await;
    assert_eq!(broker.depth(&queue).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_there_is_used_as_it_is() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1000));
    let declared =
        broker.channel().queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments);
    declared.await.unwrap();
    let settings = json!({ "amqp": { "queue": queue, "delivery_limit": 5 } });
    let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    broker.publish(&queue, numbered(0..3)).await;
    wait_for_rows(&database, 3, PATIENCE).await;
    assert!(
        orchestrator.logs().contains("using the queue that is there as it is"),
        "{}",
        orchestrator.logs()
    );
    assert_eq!(broker.depth(&format!("{queue}.dead")).await, None, "something was made beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_bound_as_the_settings_say() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let (queue, lake, made, by_headers) = (broker.name(), broker.name(), broker.name(), broker.name());
    broker.declare_exchange(&lake, ExchangeKind::Direct).await;
    let settings = json!({ "amqp": { "queue": queue, "bindings": [
        { "exchange": lake, "routing_keys": ["customers", "orders"] },
        { "exchange": made, "declare_exchange": "topic", "routing_keys": ["shop.*.orders"] },
        { "exchange": by_headers, "declare_exchange": "headers",
          "headers": { "x-match": "all", "kind": "orders", "rows": 3 } },
    ] } });
    let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    wait_until_working(&orchestrator.api()).await;

    let message = |number: usize| numbered(number..number + 1).remove(0);
    assert!(broker.publish_to(&lake, "customers", &message(0)).await);
    assert!(broker.publish_to(&lake, "orders", &message(1)).await);
    assert!(!broker.publish_to(&lake, "other", &message(2)).await);
    assert!(broker.publish_to(&made, "shop.eu.orders", &message(3)).await);
    assert!(!broker.publish_to(&made, "shop.eu.customers", &message(4)).await);
    let with_headers = |number, rows| {
        let mut table = FieldTable::default();
        table.insert("kind".into(), AMQPValue::LongString("orders".into()));
        table.insert("rows".into(), AMQPValue::LongInt(rows));
        let message = message(number);
        Message { properties: message.properties.with_headers(table), ..message }
    };
    assert!(broker.publish_to(&by_headers, "", &with_headers(5, 3)).await);
    assert!(!broker.publish_to(&by_headers, "", &with_headers(6, 4)).await);
    wait_for_rows(&database, 4, PATIENCE).await;
    let ids = database.texts("SELECT id FROM events WHERE source = '/tests' ORDER BY id").await;
    assert_eq!(ids, ["e0", "e1", "e3", "e5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_not_to_be_made_is_waited_for() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let (queue, lake) = (broker.name(), broker.name());
    let settings =
        json!({ "amqp": { "queue": queue, "bindings": [{ "exchange": lake, "routing_keys": ["#"] }] } });
    let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    wait_for_reason(&orchestrator.api(), &format!("there is no exchange {lake} at RabbitMQ")).await;
    broker.declare_exchange(&lake, ExchangeKind::Topic).await;
    wait_until_working(&orchestrator.api()).await;
    assert!(broker.publish_to(&lake, "anything", &numbered(0..1)[0]).await);
    wait_for_rows(&database, 1, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_to_the_exchange_that_is_named() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let (queue, exchange) = (broker.name(), broker.name());
    let listening = broker.listen(&exchange, "#").await;
    let settings = json!({ "amqp": { "queue": queue, "dead_letter": exchange } });
    let _orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    broker.wait_for_queue(&queue).await;
    broker.publish(&queue, [Message::with_content_type("text/plain", "no event")]).await;
    let taken = broker.take(&listening, PATIENCE).await;
    assert_eq!((taken.body.as_slice(), taken.routing_key.as_str()), (&b"no event"[..], queue.as_str()));
    assert_eq!(broker.depth(&format!("{queue}.dead")).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_shows_itself_at_the_broker_as_configured() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let settings = json!({ "amqp": { "queue": queue, "prefetch": 37, "consumer_tag": "churn-intake" } });
    let _orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    broker.wait_for_queue(&queue).await;
    broker.publish(&queue, numbered(0..1)).await;
    wait_for_rows(&database, 1, PATIENCE).await;
    let consumers = broker.list("list_consumers", &["queue_name", "consumer_tag", "prefetch_count"]).await;
    let ours: Vec<_> = consumers.iter().filter(|consumer| consumer["queue_name"] == queue.as_str()).collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert_eq!((&ours[0]["consumer_tag"], &ours[0]["prefetch_count"]), (&json!("churn-intake"), &json!(37)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_broker_closes_is_built_again() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let orchestrator = Orchestrator::start(options(&database, &broker, &queue)).await;
    broker.wait_for_queue(&queue).await;
    for round in 1..=2 {
        broker.close_connection(&format!("refit source amqp:{queue}")).await;
        let stored = round * 10;
        broker.publish(&queue, numbered(stored - 10..stored)).await;
        wait_for_rows(&database, i64::try_from(stored).unwrap(), PATIENCE).await;
    }
    let logs = orchestrator.logs();
    assert!(logs.contains("the test says so"), "nobody was told why:\n{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_told_before_anything_starts() {
    let amqp = json!({ "url": "amqp://guest@127.0.0.1:1/%2f", "queue": "q" });
    let with = |key: &str, value: Value| {
        let mut amqp = amqp.clone();
        amqp[key] = value;
        json!({ "amqp": amqp })
    };
    for (settings, words) in [
        (with("prefetch", json!(0)), "`prefetch` must be 1 to 2000"),
        (with("prefetch", json!(2001)), "`prefetch` must be 1 to 2000"),
        (
            json!({ "amqp": { "queue": "q", "declare": false, "dead_letter": "x" } }),
            "`dead_letter` changes the broker",
        ),
        (with("tls", json!({ "server_name": "x" })), "`tls` is for amqps:// URLs"),
        (with("url", json!("http://x")), "expected amqp://USER:PASSWORD@HOST:PORT/VHOST"),
        (with("url", json!({ "env": "REFIT_TEST_UNSET" })), "REFIT_TEST_UNSET"),
        (json!({ "amqp": amqp, "format": "debezum" }), "did you mean `debezium`?"),
        (json!({ "amqp": amqp, "format": "json" }), "needs a mapping"),
    ] {
        let (database, broker) = (services::sqlite(), services::amqp().await);
        let orchestrator = Orchestrator::launch(with_source(&database, &broker, &settings));
        let what = format!("`refit serve` says: {words}");
        eventually(&what, PATIENCE, async || orchestrator.logs().contains(words).then_some(())).await;
    }
}
