//! A message that takes the consumer down each time it is delivered: the broker's delivery limit ends it, and it
//! takes no other message with it.

use super::wire::Wire;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_the_consumer_ends_alone_in_the_dead_letter_queue() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let wire = Wire::deadly(&broker, "kills whoever reads it").await;
    let settings =
        json!({ "amqp": { "url": wire.url, "queue": queue, "delivery_limit": 3, "prefetch": 100 } });
    let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
    broker.wait_for_queue(&queue).await;
    let mut messages = numbered(0..200);
    let deadly = event("deadly", "data.plain", json!("kills whoever reads it"));
    messages.insert(20, Message::event(&deadly));
    broker.publish(&queue, messages).await;

    wait_for_rows(&database, 200, PATIENCE * 2).await;
    let dead = format!("{queue}.dead");
    eventually("the broker sets it aside", PATIENCE, async || {
        broker.depth(&dead).await.filter(|&depth| depth > 0)
    })
    .await;
    let taken = broker.take(&dead, PATIENCE).await;
    assert_eq!(serde_json::from_slice::<Value>(&taken.body).unwrap()["id"], "deadly");
    let headers = taken.properties.headers().clone().unwrap();
    let reason = headers.inner().get("x-first-death-reason").and_then(|reason| reason.as_long_string());
    assert_eq!(reason.map(|reason| reason.to_string()), Some("delivery_limit".to_owned()));
    // Its own count and nobody else's: the others that were out with it came back and were taken.
    assert_eq!(broker.depth(&dead).await, Some(0), "other messages went with it");
    assert_eq!(wire.deaths(), 4, "the first delivery and three more");
    assert_eq!(database.number("SELECT COUNT(*) FROM events WHERE id = 'deadly'").await, 0);
    assert_eq!(database.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    wait_until_working(&orchestrator.api()).await;
}
