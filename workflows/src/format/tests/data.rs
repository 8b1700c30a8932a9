//! What databases and object stores send: changes of rows, notifications of objects.

use serde_json::json;

use super::*;

fn change(operation: &str) -> Value {
    json!({
        "before": null, "after": {"id": 1, "plan": "pro"},
        "source": {"version": "3.0.0.Final", "connector": "postgresql", "name": "crm", "ts_ms": 1_769_846_400_123_i64,
                   "snapshot": "false", "db": "crm", "schema": "public", "table": "customers", "txId": 555,
                   "lsn": 24_023_128, "xmin": null},
        "op": operation, "ts_ms": 1_769_846_400_456_i64, "transaction": null,
    })
}

#[test]
fn a_change_is_an_event_with_or_without_its_schema() {
    for operation in ["c", "u", "d", "r", "t", "m"] {
        let bare = change(operation);
        let wrapped = json!({"schema": {"type": "struct", "fields": []}, "payload": bare});
        let events =
            [&bare, &wrapped].map(|body| Given::amqp(body.to_string()).typed(None).event(&Format::Debezium));
        assert_eq!(events[0], events[1]);
        let event = &events[0];
        assert_eq!(event.kind(), format!("cdc.{operation}"));
        assert_eq!((event.subject(), event.source()), (Some("crm.public.customers"), "/sources/test"));
        assert_eq!(event.time().unwrap().to_string(), "2026-01-31T08:00:00.123Z");
        assert_eq!(event.data(), &bare);
    }
}

#[test]
fn what_says_nothing_of_a_row_is_nothing_to_keep() {
    let heartbeat = json!({"ts_ms": 1_769_846_400_123_i64});
    for body in [
        String::new(),
        "default".to_owned(),
        "null".to_owned(),
        json!({"schema": null, "payload": null}).to_string(),
        heartbeat.to_string(),
        json!({"schema": {}, "payload": heartbeat}).to_string(),
    ] {
        assert_eq!(Given::amqp(body.clone()).typed(None).read(&Format::Debezium).unwrap(), [], "{body}");
    }
}

fn id(body: &Value) -> String {
    Given::amqp(body.to_string()).event(&Format::Debezium).id().to_owned()
}

#[test]
fn a_change_sent_again_has_its_id_and_every_other_another() {
    let first = change("c");
    let mut again = first.clone();
    again["ts_ms"] = json!(1_769_846_999_999_i64);
    again["source"]["version"] = json!("3.1.0.Final");
    assert_eq!(id(&again), id(&first));

    let mysql = |pos: u64, row: u64| {
        json!({"op": "c", "after": {"id": 1}, "source": {"name": "shop", "db": "shop", "table": "orders", "ts_ms": 1,
               "file": "binlog.000003", "pos": pos, "row": row}})
    };
    let mongo = |ord: u64| {
        json!({"op": "c", "after": "{\"_id\": 1}", "source": {"name": "m", "db": "d", "collection": "c", "ts_ms": 1,
               "ord": ord}})
    };
    let other = |order: u64| {
        json!({"op": "c", "after": {"id": 1}, "source": {"name": "x", "txId": "t1"},
               "transaction": {"id": "t1", "total_order": order}})
    };
    let set = |path: &str, value: Value| {
        let mut changed = first.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    let all = [
        first.clone(),
        set("/op", json!("u")),
        set("/source/lsn", json!(24_023_129)),
        set("/source/name", json!("other")),
        set("/source/table", json!("orders")),
        set("/after/id", json!(2)),
        set("/transaction", json!({"id": "555", "total_order": 2})),
        mysql(4, 0),
        mysql(4, 1),
        mysql(5, 0),
        mongo(1),
        mongo(2),
        other(1),
        other(2),
    ];
    let ids: std::collections::BTreeSet<String> = all.iter().map(id).collect();
    assert_eq!(ids.len(), all.len());
    let subjects = [mysql(4, 0), mongo(1), other(1)]
        .map(|body| Given::amqp(body.to_string()).event(&Format::Debezium).subject().map(str::to_owned));
    assert_eq!(subjects, [Some("shop.orders".to_owned()), Some("d.c".to_owned()), None]);
}

#[test]
fn what_is_no_change_is_told_what_is_missing() {
    for (body, expected) in [
        ("[]".to_owned(), "the body is a list and not an object"),
        ("DEFAULT".to_owned(), "not JSON"),
        (json!({"id": 1, "plan": "pro"}).to_string(), "`op` is missing; send its whole envelope"),
        (json!({"op": "x", "source": {}}).to_string(), "`op` is none of c, u, d, r, t, m"),
        (json!({"op": "c"}).to_string(), "`source` is missing"),
        (json!({"op": "c", "source": {"lsn": 1}}).to_string(), "`source.name` is missing"),
        (json!({"payload": [1]}).to_string(), "the body is a list"),
    ] {
        let reason = Given::amqp(body).refusal(&Format::Debezium);
        assert!(reason.contains(expected), "{reason}");
    }
}

fn record(name: &str, object: Value) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
        "eventTime": "2026-01-31T08:00:00.000Z", "eventName": name, "userIdentity": {"principalId": "p"},
        "requestParameters": {}, "responseElements": {},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "refit", "object": object,
               "bucket": {"name": "lake", "ownerIdentity": {"principalId": "p"}, "arn": "arn:aws:s3:::lake"}},
    })
}

fn object() -> Value {
    json!({"key": "customers/day%3D31/part+1.parquet", "size": 5, "eTag": "b194", "sequencer": "617f08299329d189"})
}

fn notification(records: &[Value]) -> Value {
    json!({"Records": records})
}

fn minio(records: &[Value]) -> Value {
    json!({"EventName": "s3:ObjectCreated:Put", "Key": "lake/customers/day=31/part 1.parquet", "Records": records})
}

#[test]
fn every_record_is_an_event_of_its_object() {
    let records = [
        record("ObjectCreated:Put", object()),
        record("ObjectRemoved:DeleteMarkerCreated", json!({"key": "a%2Fb", "versionId": "v1"})),
        record("ObjectRestore:Completed", object()),
        record("LifecycleExpiration:Delete", object()),
        record("s3:ObjectCreated:CompleteMultipartUpload", json!({"key": "Z%C3%BCrich.csv", "eTag": "e"})),
    ];
    let expected = [
        ("s3.object.created", "lake/customers/day=31/part 1.parquet"),
        ("s3.object.removed", "lake/a/b"),
        ("s3.object.restore", "lake/customers/day=31/part 1.parquet"),
        ("s3.lifecycle_expiration", "lake/customers/day=31/part 1.parquet"),
        ("s3.object.created", "lake/Zürich.csv"),
    ];
    let s3 = Given::http(notification(&records).to_string()).read(&Format::S3).unwrap();
    let minio =
        Given::amqp(minio(&records).to_string()).header("minio-bucket", "lake").read(&Format::Minio).unwrap();
    assert_eq!(s3, minio);
    let read: Vec<_> = s3.iter().map(|event| (event.kind(), event.subject().unwrap())).collect();
    assert_eq!(read, expected);
    for (event, record) in s3.iter().zip(&records) {
        assert_eq!(event.data(), record);
        assert_eq!(event.time().unwrap().to_string(), "2026-01-31T08:00:00.000Z");
    }
}

#[test]
fn a_record_sent_again_has_its_id_and_every_other_another() {
    let id = |record: &Value| {
        let body = notification(std::slice::from_ref(record)).to_string();
        Given::http(body).event(&Format::S3).id().to_owned()
    };
    let first = record("ObjectCreated:Put", object());
    let set = |path: &str, value: Value| {
        let mut changed = first.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    assert_eq!(id(&set("/eventTime", json!("2026-01-31T08:00:01.000Z"))), id(&first));
    assert_eq!(id(&record("s3:ObjectCreated:Put", object())), id(&first));
    let unordered = record("ObjectCreated:Put", json!({"key": "k", "eTag": "e"}));
    let mut later = unordered.clone();
    later["eventTime"] = json!("2026-01-31T09:00:00.000Z");
    let all = [
        first.clone(),
        set("/eventName", json!("ObjectCreated:Copy")),
        set("/s3/bucket/name", json!("other")),
        set("/s3/object/key", json!("other")),
        set("/s3/object/eTag", json!("other")),
        set("/s3/object/sequencer", json!("617f08299329d18a")),
        set("/s3/object", json!({"key": "k", "versionId": "v1"})),
        unordered,
        later,
    ];
    let ids: std::collections::BTreeSet<String> = all.iter().map(id).collect();
    assert_eq!(ids.len(), all.len());
}

#[test]
fn a_notification_is_checked_and_bounded() {
    let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "lake"});
    assert_eq!(Given::http(test.to_string()).read(&Format::S3).unwrap(), []);
    assert_eq!(Given::http(notification(&[]).to_string()).read(&Format::S3).unwrap(), []);
    let small =
        json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}});
    let many = |count: usize| Given::http(notification(&vec![small.clone(); count]).to_string());
    assert_eq!(many(1000).read(&Format::S3).unwrap().len(), 1000);
    assert!(many(1001).refusal(&Format::S3).contains("more than 1000"));
    let records = [record("ObjectCreated:Put", object())];
    for (format, body, expected) in [
        (Format::S3, json!({}), "a notification of S3: `Records` is missing; send"),
        (Format::S3, json!({"Records": [small, 3]}), "`Records[1]` is a number and not an object"),
        (Format::S3, json!({"Records": [{"eventName": "x"}]}), "`Records[0].s3` is missing"),
        (Format::S3, notification(&[record("x", json!({}))]), "`Records[0].s3.object.key` is missing"),
        (Format::S3, notification(&[record("::", object())]), "`Records[0].eventName` names no event"),
        (Format::S3, notification(&[record("x", json!({"key": "%FF"}))]), "does not decode to UTF-8"),
        (Format::Minio, notification(&records), "a notification of MinIO: `EventName` is missing"),
        (Format::Minio, json!({"EventName": "s3:ObjectCreated:Put"}), "`Records` is missing"),
    ] {
        let reason = Given::http(body.to_string()).refusal(&format);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}
