//! What a source's messages are: CloudEvents in both modes, plain JSON by a mapping, and what platforms send. What cannot be
//! read goes to the table, whole and with the reason, and to the broker's dead-letter queue.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::*;

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn headers(pairs: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn message(properties: BasicProperties, body: impl Into<Vec<u8>>) -> Message {
    Message { body: body.into(), properties }
}

/// A source of this format with these messages: the server, once all of them are settled.
struct Settled {
    database: Database,
    broker: Broker,
    queue: String,
    orchestrator: Orchestrator,
}

impl Settled {
    async fn of(format: Value, messages: Vec<Message>) -> Self {
        let (database, broker) = (services::sqlite(), services::amqp().await);
        let queue = broker.name();
        let mut settings = format;
        settings["amqp"] = json!({ "queue": queue });
        let orchestrator = Orchestrator::start(with_source(&database, &broker, &settings)).await;
        broker.wait_for_queue(&queue).await;
        let count = messages.len() as u64;
        broker.publish(&queue, messages).await;
        let settled = Self { database, broker, queue, orchestrator };
        let what = format!("{count} deliveries are settled");
        eventually(&what, PATIENCE, async || (settled.counted("settled").await >= count).then_some(())).await;
        settled
    }

    async fn counted(&self, what: &str) -> u64 {
        source(&self.orchestrator.api()).await["deliveries"][what].as_u64().unwrap()
    }

    /// Type, source, subject and id of the events, by their text: those of one transaction have no order.
    async fn events(&self) -> Vec<[String; 4]> {
        let all = self.orchestrator.api().get("/api/v1/events").await.ok();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = |event: &Value| ["type", "source", "subject", "id"].map(|name| text(&event[name]));
        let mut events: Vec<_> = all.as_array().unwrap().iter().map(event).collect();
        events.sort();
        events
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_events_have_their_attributes_in_headers_with_either_separator() {
    let binary = |separator: &str, id: &str| {
        let name = |attribute: &str| format!("cloudEvents{separator}{attribute}");
        let table = headers(&[
            (&name("specversion"), text("1.0")),
            (&name("id"), text(id)),
            (&name("source"), text("/warehouse")),
            (&name("type"), text("dataset.updated")),
            (&name("subject"), text("customers")),
        ]);
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_headers(table);
        message(properties, r#"{"rows": 3}"#)
    };
    let settled = Settled::of(json!({}), vec![binary(":", "1"), binary("_", "2")]).await;
    let event = |id: &str| ["dataset.updated", "/warehouse", "customers", id].map(str::to_owned);
    assert_eq!(settled.events().await, [event("1"), event("2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_json_is_mapped_from_body_headers_and_properties() {
    let format = json!({ "format": "json", "mapping": {
        "type": "'dataset.' + body.op", "subject": "properties.routing_key + '/' + string(headers['x-shard'])",
        "source": "'/lake/' + properties.app_id", "data": "{'rows': body.count}",
    } });
    let properties = |id: &str| {
        let table = headers(&[("x-shard", AMQPValue::LongInt(7))]);
        let named = BasicProperties::default().with_message_id(id.into()).with_app_id("loader".into());
        named.with_headers(table)
    };
    let messages = vec![
        message(properties("m-1"), r#"{"op": "updated", "count": 3}"#),
        // The same message again.
        message(properties("m-1"), r#"{"op": "updated", "count": 3}"#),
        message(properties("m-2"), r#"{"count": 3}"#),
    ];
    let settled = Settled::of(format, messages).await;
    let subject = format!("{}/7", settled.queue);
    let expected = ["dataset.updated", "/lake/loader", &subject, "m-1"].map(str::to_owned);
    assert_eq!(settled.events().await, [expected]);
    let reasons = settled.database.texts("SELECT reason FROM dead_letters").await;
    assert!(reasons.len() == 1 && reasons[0].contains("`type` (`'dataset.' + body.op`)"), "{reasons:?}");
    assert_eq!((settled.counted("events").await, settled.counted("dead_letters").await), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_changes_are_events_and_tombstones_are_nothing() {
    let change = |op: &str, lsn: u64| {
        let envelope = json!({
            "before": null, "after": {"id": 7}, "op": op, "ts_ms": 1_769_846_400_000_i64,
            "source": {"connector": "postgresql", "name": "shop", "ts_ms": 1_769_846_400_000_i64, "db": "shop",
                       "schema": "public", "table": "orders", "lsn": lsn},
        });
        // Debezium Server: no content type, no message id.
        message(BasicProperties::default(), envelope.to_string())
    };
    let tombstone = message(BasicProperties::default(), "default");
    let messages = vec![change("c", 1), tombstone, change("u", 2), change("u", 2)];
    let settled = Settled::of(json!({ "format": "debezium" }), messages).await;
    let events = settled.events().await;
    let told: Vec<_> = events.iter().map(|event| &event[..3]).collect();
    let event = |kind: &'static str| [kind, "/sources/orders", "shop.public.orders"];
    assert_eq!(told, [event("cdc.c"), event("cdc.u")]);
    assert_eq!((settled.counted("empty").await, settled.counted("events").await), (1, 3));
    assert_eq!(settled.broker.depth(&settled.queue).await, Some(0));
}

fn records(keys: &[&str]) -> Value {
    let record = |(at, key): (usize, &&str)| {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "", "eventTime": "2026-01-31T08:00:00.000Z",
            "eventName": "s3:ObjectCreated:Put",
            "s3": {"bucket": {"name": "lake"}, "object": {"key": key, "eTag": format!("e{at}"), "sequencer": "0A"}},
        })
    };
    keys.iter().enumerate().map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_an_object_store_is_an_event() {
    let keys = ["customers/part+1.parquet", "customers/2.parquet"];
    let expected = ["lake/customers/2.parquet", "lake/customers/part 1.parquet"];
    let minio = json!({ "EventName": "s3:ObjectCreated:Put", "Key": "lake/x", "Records": records(&keys) });
    for (format, body) in [("s3", json!({ "Records": records(&keys) })), ("minio", minio)] {
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let settled =
            Settled::of(json!({ "format": format }), vec![message(properties, body.to_string())]).await;
        let events = settled.events().await;
        let mut subjects: Vec<_> = events.iter().map(|[_, _, subject, _]| subject.as_str()).collect();
        subjects.sort_unstable();
        assert_eq!(subjects, expected, "{format}");
        assert_eq!(settled.counted("settled").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_many_events_is_stored_whole_beside_others() {
    let keys: Vec<String> = (0..600).map(|number| format!("{number}.parquet")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let large = |bucket: &str| {
        let mut records = records(&keys);
        for record in records.as_array_mut().unwrap() {
            record["s3"]["bucket"]["name"] = bucket.into();
        }
        message(BasicProperties::default(), json!({ "Records": records }).to_string())
    };
    let settled = Settled::of(json!({ "format": "s3" }), ["a", "b", "c"].map(large).to_vec()).await;
    assert_eq!(settled.database.number("SELECT COUNT(*) FROM events").await, 1800);
    assert_eq!((settled.counted("settled").await, settled.counted("events").await), (3, 1800));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_message_is_kept_whole_with_the_reason_and_handed_to_the_broker() {
    let table = headers(&[
        ("x-tenant", text("eu")),
        ("x-tries", AMQPValue::LongInt(2)),
        ("x-inside", AMQPValue::FieldTable(headers(&[("deep", AMQPValue::Boolean(true))]))),
    ]);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("m-1".into())
        .with_type("order".into())
        .with_correlation_id("c-1".into())
        .with_timestamp(1_769_846_400)
        .with_headers(table);
    let bad = message(properties, "{ not JSON");
    let good = numbered(0..1).remove(0);
    let settled = Settled::of(json!({}), vec![bad, good]).await;
    wait_for_rows(&settled.database, 1, PATIENCE).await;
    wait_for_dead(&settled.database, 1).await;
    let letters = settled.database.texts("SELECT source || '|' || reason FROM dead_letters").await;
    assert!(letters[0].starts_with("orders|the body is not JSON"), "{letters:?}");
    let context = settled.database.texts("SELECT context FROM dead_letters").await.remove(0);
    let expected = json!({
        "content_type": "application/json", "redelivered": false,
        "headers": {"x-tenant": "eu", "x-tries": 2, "x-inside": {"deep": true}},
        "properties": {
            "exchange": "", "routing_key": settled.queue, "content_type": "application/json", "message_id": "m-1",
            "type": "order", "correlation_id": "c-1", "timestamp": "2026-01-31T08:00:00.000Z", "delivery_mode": 2,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&context).unwrap(), expected);
    let taken = settled.broker.take(&format!("{}.dead", settled.queue), PATIENCE).await;
    assert_eq!(taken.body, b"{ not JSON");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_read_again_in_the_format_of_its_source() {
    let format = |kind: &str| json!({ "format": "json", "mapping": { "type": kind } });
    let body = r#"{"operation": "updated"}"#;
    let mut settled =
        Settled::of(format("'data.' + body.op"), vec![message(BasicProperties::default(), body)]).await;
    wait_for_dead(&settled.database, 1).await;
    settled.orchestrator.terminate();
    // The mapping is mended, and the letter is what it was.
    let mut settings = format("'data.' + body.operation");
    settings["amqp"] = json!({ "queue": settled.queue });
    let options = with_source(&settled.database, &settled.broker, &settings);
    settled.orchestrator = Orchestrator::start(options).await;
    let api = settled.orchestrator.api();
    let letters = api.get("/api/v1/deadletters").await.ok();
    api.post(&format!("/api/v1/deadletters/{}/retry", letters[0]["seq"]), &json!({})).await.ok();
    let events = settled.events().await;
    assert_eq!((events.len(), events[0][0].as_str()), (1, "data.updated"));
}
