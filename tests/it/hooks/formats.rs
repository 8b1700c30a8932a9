//! What data platforms send becomes events that triggers can name: each payload through a webhook of its format, into the
//! log.

use refit_tests::processes::Options;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Headers, House, send};

const SECRET: &str = "a secret of this test";

/// A payload as its sender sends it, and the events it becomes: type and subject.
struct Payload {
    format: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Value,
    events: &'static [(&'static str, Option<&'static str>)],
}

fn records(encoded: &str) -> Value {
    let record = |name: &str, sequencer: &str| {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
               "eventTime": "2026-01-31T08:00:00.000Z", "eventName": name,
               "s3": {"s3SchemaVersion": "1.0", "configurationId": "labels", "bucket": {"name": "lake",
                      "arn": "arn:aws:s3:::lake"}, "object": {"key": encoded, "size": 5, "eTag": "b194",
                      "sequencer": sequencer}}})
    };
    json!([record("ObjectCreated:Put", "617f08"), record("ObjectRemoved:Delete", "617f09")])
}

fn payloads() -> Vec<Payload> {
    vec![
        Payload {
            format: "cloudevents",
            headers: &[("content-type", "application/cloudevents-batch+json")],
            body: json!([{"specversion": "1.0", "id": "1", "source": "/s", "type": "a"},
                         {"specversion": "1.0", "id": "2", "source": "/s", "type": "b", "subject": "x"}]),
            events: &[("a", None), ("b", Some("x"))],
        },
        Payload {
            format: "cloudevents",
            headers: &[
                ("content-type", "application/json"),
                ("ce-specversion", "1.0"),
                ("ce-id", "3"),
                ("ce-source", "/s"),
                ("ce-type", "c"),
                ("ce-subject", "Euro%20%E2%82%AC"),
            ],
            body: json!({"rows": 3}),
            events: &[("c", Some("Euro €"))],
        },
        Payload {
            format: "eventbridge",
            headers: &[
                ("content-type", "application/json; charset=utf-8"),
                ("user-agent", "Amazon/EventBridge/ApiDestinations"),
                ("range", "bytes=0-1048575"),
            ],
            body: json!({
                "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "Object Created",
                "source": "aws.s3", "account": "111122223333", "time": "2026-01-31T08:00:00Z", "region": "eu-central-1",
                "resources": ["arn:aws:s3:::lake"],
                "detail": {"bucket": {"name": "lake"}, "object": {"key": "customers/1.parquet", "size": 5}},
            }),
            events: &[("aws.s3.object_created", Some("arn:aws:s3:::lake"))],
        },
        Payload {
            format: "github",
            headers: &[
                ("x-github-event", "push"),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ],
            body: json!({"ref": "refs/heads/main", "after": "aaa1", "repository": {"full_name": "acme/features"},
                         "head_commit": {"id": "aaa1", "timestamp": "2026-01-31T09:00:00+01:00"}}),
            events: &[("github.push", Some("acme/features"))],
        },
        Payload {
            format: "github",
            headers: &[
                ("x-github-event", "ping"),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0959"),
            ],
            body: json!({"zen": "Keep it logically awesome.", "hook_id": 1, "hook": {"type": "Repository", "id": 1},
                         "repository": {"full_name": "acme/features"}}),
            events: &[("github.ping", Some("acme/features"))],
        },
        Payload {
            format: "alertmanager",
            headers: &[("user-agent", "Alertmanager/0.28.0")],
            body: json!({
                "version": "4", "groupKey": "{}:{alertname=\"FeatureDrift\"}", "truncatedAlerts": 0,
                "status": "firing", "receiver": "refit", "groupLabels": {"alertname": "FeatureDrift"},
                "commonLabels": {"alertname": "FeatureDrift", "model": "churn"}, "commonAnnotations": {},
                "externalURL": "http://alertmanager.example",
                "alerts": [{"status": "firing", "labels": {"column": "age"}, "annotations": {},
                            "startsAt": "2026-01-31T08:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
                            "generatorURL": "", "fingerprint": "c1"}],
            }),
            events: &[("alert.firing", Some("FeatureDrift"))],
        },
        Payload {
            format: "mlflow",
            headers: &[("x-mlflow-delivery-id", "91528563-cc7f-41d6-aaae-6ddd7d3e89ba")],
            body: json!({"entity": "model_version_alias", "action": "created",
                         "timestamp": "2026-01-31T08:00:00.123456+00:00",
                         "data": {"name": "churn", "alias": "champion", "version": "12"}}),
            events: &[("mlflow.model_version_alias.created", Some("churn"))],
        },
        Payload {
            format: "dbt",
            headers: &[],
            body: json!({"accountId": 1, "eventId": "wev_2L6m5BggBw9uPNuSmtg4MUiW4Re",
                         "timestamp": "2026-01-31T08:00:00Z", "eventType": "job.run.completed",
                         "webhookName": "refit",
                         "data": {"jobId": "123", "jobName": "features", "runId": "218726483", "environmentId": "1234",
                                  "runStatus": "Success"}}),
            events: &[("dbt.job.run.completed", Some("123"))],
        },
        Payload {
            format: "hugging_face",
            headers: &[],
            body: json!({
                "event": {"action": "update", "scope": "repo.content"},
                "repo": {"type": "dataset", "name": "acme/churn", "id": "621ffdd2", "private": true, "headSha": "aaa1",
                         "url": {"web": "https://hub.example/acme/churn", "api": "https://hub.example/api/acme/churn"},
                         "tags": [], "owner": {"id": "61d2"}},
                "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "aaa0", "newSha": "aaa1"}],
                "webhook": {"id": "6390e855", "version": 3},
            }),
            events: &[("hf.repo.content.update", Some("acme/churn"))],
        },
        Payload {
            format: "s3",
            headers: &[],
            body: json!({"Records": records("customers/a+b%3D1.parquet")}),
            events: &[
                ("s3.object.created", Some("lake/customers/a b=1.parquet")),
                ("s3.object.removed", Some("lake/customers/a b=1.parquet")),
            ],
        },
        Payload {
            format: "minio",
            headers: &[("user-agent", "MinIO (linux; amd64) MinIO/RELEASE")],
            body: json!({"EventName": "s3:ObjectCreated:Put", "Key": "lake/labels/1.csv",
                         "Records": [records("labels/1.csv")[0]]}),
            events: &[("s3.object.created", Some("lake/labels/1.csv"))],
        },
        Payload {
            format: "debezium",
            headers: &[],
            body: json!({"schema": null, "payload": {
                "before": null, "after": {"id": 1, "plan": "pro"},
                "source": {"version": "3.0.0.Final", "connector": "postgresql", "name": "crm",
                           "ts_ms": 1_769_846_400_123_i64, "snapshot": "false", "db": "crm", "schema": "public",
                           "table": "customers", "txId": 555, "lsn": 24_023_128, "xmin": null},
                "op": "c", "ts_ms": 1_769_846_400_456_i64, "transaction": null}}),
            events: &[("cdc.c", Some("crm.public.customers"))],
        },
        Payload {
            format: "debezium",
            headers: &[],
            body: json!({"schema": null, "payload": null}),
            events: &[],
        },
        Payload {
            format: "json",
            headers: &[("x-table", "customers")],
            body: json!({"kind": "loaded", "load": 7}),
            events: &[("orders.loaded", Some("customers"))],
        },
    ]
}

fn settings() -> String {
    let mut settings = "sources:\n".to_owned();
    let mut known = std::collections::BTreeSet::new();
    for Payload { format, .. } in payloads() {
        if !known.insert(format) {
            continue;
        }
        let mapping = match format {
            "json" => {
                ", mapping: { type: \"'orders.' + body.kind\", id: string(body.load), subject: \"headers['x-table']\" }"
            }
            _ => "",
        };
        settings.push_str(&format!(
            "  {format}: {{ webhook: {{ scheme: bearer, secret: {{ env: HOOK_SECRET }} }}, format: {format}{mapping} }}\n"
        ));
    }
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn what_platforms_send_becomes_events() {
    let house = House::start(&settings(), &[("HOOK_SECRET", SECRET)], Options::default()).await;
    for Payload { format, headers, body, events } in payloads() {
        let mut all: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        all.push(("authorization".to_owned(), format!("Bearer {SECRET}")));
        let path = format!("/hooks/{format}");
        for duplicate in [false, true] {
            let answer = send(house.url(), Method::POST, &path, &all, body.to_string()).await;
            assert_eq!(answer.status, 202, "{format}: {answer:?}");
            let receipts = answer.body["events"].as_array().unwrap();
            assert_eq!(receipts.len(), events.len(), "{format}: {answer:?}");
            assert!(receipts.iter().all(|receipt| receipt["duplicate"] == duplicate), "{format}: {answer:?}");
            for (receipt, (kind, subject)) in receipts.iter().zip(events) {
                let (id, source) = (receipt["id"].as_str().unwrap(), receipt["source"].as_str().unwrap());
                let kept = house.events(source).await;
                let event = kept
                    .iter()
                    .find(|event| event["id"] == id)
                    .unwrap_or_else(|| panic!("{format}: {kept:?}"));
                assert_eq!(
                    (event["type"].as_str(), event["subject"].as_str()),
                    (Some(*kind), *subject),
                    "{event}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_a_webhook_starts_a_run() {
    let settings = "sources: { github: { webhook: { scheme: github, secret: { env: HOOK_SECRET } } } }\n";
    let house = House::start(settings, &[("HOOK_SECRET", SECRET)], Options::default()).await;
    let api = house.orchestrator.api();
    api.apply(
        "workflow: retrain\non:\n  - event: { type: [github.push], data: { ref: [refs/heads/main] } }\nsteps:\n  only: { emit: { type: done } }\n",
    )
    .await;
    let github = super::senders::all().into_iter().find(|sender| sender.hook == "github").unwrap();
    for (reference, delivery) in [("refs/heads/other", "d-1"), ("refs/heads/main", "d-2")] {
        let body = json!({"ref": reference, "repository": {"full_name": "acme/features"}}).to_string();
        let mut headers = github.headers(SECRET, &body);
        headers.push(("X-GitHub-Event".to_owned(), "push".to_owned()));
        headers.push(("X-GitHub-Delivery".to_owned(), delivery.to_owned()));
        house.post("github", &headers, &body).await.taken(reference);
    }
    let run = api.wait_run("retrain/1", "succeeded", super::WAIT).await;
    assert_eq!(run["events"], json!(["d-2"]), "{run}");
}
