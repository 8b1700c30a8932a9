//! What data platforms send: for each payload the event it becomes, and that its id stays the same.

use serde_json::json;

use super::*;

/// A payload and the event it must become.
struct Case {
    name: &'static str,
    format: Format,
    headers: &'static [(&'static str, &'static str)],
    body: Value,
    kind: &'static str,
    subject: Option<&'static str>,
    /// None when it is derived.
    id: Option<&'static str>,
    time: Option<&'static str>,
}

impl Case {
    fn given(&self) -> Given {
        self.with(&self.body)
    }

    fn with(&self, body: &Value) -> Given {
        self.headers
            .iter()
            .fold(Given::http(body.to_string()), |given, (name, text)| given.header(name, *text))
    }
}

fn eventbridge() -> Value {
    json!({
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "Object Created",
        "source": "aws.s3", "account": "111122223333", "time": "2026-01-31T08:00:00Z", "region": "eu-central-1",
        "resources": ["arn:aws:s3:::lake"],
        "detail": {"bucket": {"name": "lake"}, "object": {"key": "customers/1.parquet", "size": 5}},
    })
}

fn alerts(status: &str) -> Value {
    json!({
        "version": "4", "groupKey": "{}:{alertname=\"FeatureDrift\"}", "truncatedAlerts": 0, "status": status,
        "receiver": "refit", "groupLabels": {"alertname": "FeatureDrift"},
        "commonLabels": {"alertname": "FeatureDrift", "model": "churn"}, "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
        "alerts": [
            {"status": status, "labels": {"column": "age"}, "annotations": {}, "startsAt": "2026-01-31T08:00:00.5Z",
             "endsAt": "2026-01-31T09:00:00Z", "generatorURL": "", "fingerprint": "c1"},
            {"status": "resolved", "labels": {"column": "plan"}, "annotations": {}, "startsAt": "2026-01-31T07:00:00Z",
             "endsAt": "2026-01-31T09:30:00Z", "generatorURL": "", "fingerprint": "a7"},
        ],
    })
}

fn hugging_face() -> Value {
    json!({
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {"type": "dataset", "name": "acme/churn", "id": "621ffdd2", "private": true, "headSha": "aaa1",
                 "url": {"web": "https://hub.example/acme/churn", "api": "https://hub.example/api/acme/churn"},
                 "tags": [], "owner": {"id": "61d2"}},
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "aaa0", "newSha": "aaa1"},
                        {"ref": "refs/tags/v2", "oldSha": null, "newSha": "aaa1"}],
        "webhook": {"id": "6390e855", "version": 3},
    })
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "eventbridge",
            format: Format::EventBridge,
            headers: &[],
            body: eventbridge(),
            kind: "aws.s3.object_created",
            subject: Some("arn:aws:s3:::lake"),
            id: Some("6a7e8feb-b491-4cf7-a9f1-bf3703467718"),
            time: Some("2026-01-31T08:00:00Z"),
        },
        Case {
            name: "eventbridge, a source of one's own",
            format: Format::EventBridge,
            headers: &[],
            body: json!({"version": "0", "id": "7", "detail-type": "Orders: loaded (EU)", "source": "acme.orders",
                         "account": "1", "region": "eu-west-1", "resources": [], "detail": {}}),
            kind: "aws.acme.orders.orders_loaded_eu",
            subject: None,
            id: Some("7"),
            time: None,
        },
        Case {
            name: "github push",
            format: Format::GitHub,
            headers: &[
                ("x-github-event", "push"),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ],
            body: json!({"ref": "refs/heads/main", "after": "aaa1", "repository": {"full_name": "acme/features"},
                         "head_commit": {"id": "aaa1", "timestamp": "2026-01-31T09:00:00+01:00"}}),
            kind: "github.push",
            subject: Some("acme/features"),
            id: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            time: Some("2026-01-31T09:00:00+01:00"),
        },
        Case {
            name: "github release",
            format: Format::GitHub,
            headers: &[("x-github-event", "release"), ("x-github-delivery", "d-2")],
            body: json!({"action": "published", "repository": {"full_name": "acme/features"},
                         "release": {"tag_name": "v2", "published_at": "2026-01-31T08:00:00Z"}}),
            kind: "github.release.published",
            subject: Some("acme/features"),
            id: Some("d-2"),
            time: Some("2026-01-31T08:00:00Z"),
        },
        Case {
            name: "github, of an organization",
            format: Format::GitHub,
            headers: &[("X-GitHub-Event", "team"), ("X-GitHub-Delivery", "d-3")],
            body: json!({"action": "created", "team": {"name": "ml"}, "organization": {"login": "acme"}}),
            kind: "github.team.created",
            subject: Some("acme"),
            id: Some("d-3"),
            time: None,
        },
        Case {
            name: "alertmanager, firing",
            format: Format::Alertmanager,
            headers: &[],
            body: alerts("firing"),
            kind: "alert.firing",
            subject: Some("FeatureDrift"),
            id: None,
            time: Some("2026-01-31T08:00:00.5Z"),
        },
        Case {
            name: "alertmanager, resolved",
            format: Format::Alertmanager,
            headers: &[],
            body: alerts("resolved"),
            kind: "alert.resolved",
            subject: Some("FeatureDrift"),
            id: None,
            time: Some("2026-01-31T09:30:00Z"),
        },
        Case {
            name: "mlflow",
            format: Format::Mlflow,
            headers: &[("x-mlflow-delivery-id", "0f9b5a4e"), ("x-mlflow-timestamp", "1769846400")],
            body: json!({"entity": "model_version_alias", "action": "created",
                         "timestamp": "2026-01-31T08:00:00.123456+00:00",
                         "data": {"name": "churn", "alias": "champion", "version": "12"}}),
            kind: "mlflow.model_version_alias.created",
            subject: Some("churn"),
            id: Some("0f9b5a4e"),
            time: Some("2026-01-31T08:00:00.123456+00:00"),
        },
        Case {
            name: "mlflow, a time without a zone and no name",
            format: Format::Mlflow,
            headers: &[("x-mlflow-delivery-id", "2")],
            body: json!({"entity": "budget_policy", "action": "exceeded", "timestamp": "2026-01-31T08:00:00.5",
                         "data": {}}),
            kind: "mlflow.budget_policy.exceeded",
            subject: None,
            id: Some("2"),
            time: Some("2026-01-31T08:00:00.5Z"),
        },
        Case {
            name: "dbt",
            format: Format::Dbt,
            headers: &[],
            body: json!({"accountId": 1, "eventId": "wev_2L6m5BggBw9uPNuSmtg4MUiW4Re",
                         "timestamp": "2026-01-31T08:00:00Z", "eventType": "job.run.completed", "webhookName": "refit",
                         "data": {"jobId": "123", "jobName": "features", "runId": "218726483",
                                  "environmentId": "1234", "runStatus": "Success"}}),
            kind: "dbt.job.run.completed",
            subject: Some("123"),
            id: Some("wev_2L6m5BggBw9uPNuSmtg4MUiW4Re"),
            time: Some("2026-01-31T08:00:00Z"),
        },
        Case {
            name: "hugging face",
            format: Format::HuggingFace,
            headers: &[],
            body: hugging_face(),
            kind: "hf.repo.content.update",
            subject: Some("acme/churn"),
            id: None,
            time: None,
        },
    ]
}

#[test]
fn each_payload_becomes_its_event() {
    for case in cases() {
        let event = case.given().event(&case.format);
        let name = case.name;
        assert_eq!((event.kind(), event.subject()), (case.kind, case.subject), "{name}");
        assert_eq!(event.attributes().get("time").and_then(Value::as_str), case.time, "{name}");
        match case.id {
            Some(id) => assert_eq!(event.id(), id, "{name}"),
            None => assert!(event.id().starts_with("sha256:") && event.id().len() == 71, "{name}"),
        }
        if case.format.name() == "eventbridge" {
            assert_eq!(event.data(), &case.body["detail"]);
        } else {
            assert_eq!((event.source(), event.data()), ("/sources/test", &case.body), "{name}");
        }
        assert_eq!(
            event,
            case.given().event(&case.format),
            "{name}: the same delivery again is another event"
        );
    }
}

#[test]
fn the_envelope_of_eventbridge_is_kept_as_attributes() {
    let event = Given::http(eventbridge().to_string()).event(&Format::EventBridge);
    assert_eq!(event.source(), "urn:aws:aws.s3:111122223333:eu-central-1");
    let kept =
        ["awssource", "awsdetailtype", "awsaccount", "awsregion"].map(|name| &event.attributes()[name]);
    assert_eq!(kept, ["aws.s3", "Object Created", "111122223333", "eu-central-1"]);
}

/// The ids before and after a change to a payload.
#[track_caller]
fn ids(format: &Format, body: &Value, change: impl FnOnce(&mut Value)) -> [String; 2] {
    let mut changed = body.clone();
    change(&mut changed);
    assert_ne!(&changed, body, "the change changes nothing");
    [body, &changed].map(|body| Given::http(body.to_string()).event(format).id().to_owned())
}

#[test]
fn a_group_of_alerts_is_a_new_event_when_it_has_changed() {
    let body = alerts("firing");
    let same = |change: fn(&mut Value)| {
        let [before, after] = ids(&Format::Alertmanager, &body, change);
        assert_eq!(before, after);
    };
    same(|body| body["alerts"].as_array_mut().unwrap().reverse());
    same(|body| body["alerts"][0]["annotations"] = json!({"summary": "worse"}));
    let other = |change: fn(&mut Value)| {
        let [before, after] = ids(&Format::Alertmanager, &body, change);
        assert_ne!(before, after);
    };
    other(|body| body["groupKey"] = json!("another"));
    other(|body| body["status"] = json!("resolved"));
    other(|body| body["alerts"][0]["status"] = json!("resolved"));
    other(|body| body["alerts"][0]["startsAt"] = json!("2026-01-31T10:00:00Z"));
    other(|body| body["alerts"][0]["fingerprint"] = json!("c2"));
    other(|body| drop(body["alerts"].as_array_mut().unwrap().pop()));
}

#[test]
fn the_hubs_commits_make_its_events() {
    let body = hugging_face();
    let same = |change: fn(&mut Value)| {
        let [before, after] = ids(&Format::HuggingFace, &body, change);
        assert_eq!(before, after);
    };
    same(|body| body["updatedRefs"].as_array_mut().unwrap().reverse());
    same(|body| body["repo"]["tags"] = json!(["tabular"]));
    let other = |change: fn(&mut Value)| {
        let [before, after] = ids(&Format::HuggingFace, &body, change);
        assert_ne!(before, after);
    };
    other(|body| body["updatedRefs"][0]["newSha"] = json!("aaa2"));
    other(|body| body["repo"]["id"] = json!("other"));
    other(|body| body["webhook"]["id"] = json!("other"));
    let comment = json!({
        "event": {"action": "create", "scope": "discussion.comment"}, "repo": {"id": "1", "name": "acme/churn"},
        "discussion": {"id": "d1"}, "comment": {"id": "c1", "content": "one"}, "webhook": {"id": "w", "version": 3},
    });
    let [before, after] =
        ids(&Format::HuggingFace, &comment, |body| body["comment"] = json!({"id": "c2", "content": "two"}));
    assert_ne!(before, after);
}

#[test]
fn what_is_not_of_the_format_is_told_what_is_missing() {
    let github = &[("x-github-event", "push"), ("x-github-delivery", "1")][..];
    let mlflow = &[("x-mlflow-delivery-id", "1")][..];
    for (format, headers, body, expected) in [
        (
            Format::EventBridge,
            &[][..],
            json!({"id": "1"}),
            "an event of EventBridge: `source` is missing; have the rule",
        ),
        (Format::EventBridge, &[], json!({"id": 1}), "`id` is a number and not text"),
        (Format::EventBridge, &[], json!([eventbridge()]), "the body is a list and not an object"),
        (
            Format::GitHub,
            &[],
            json!({}),
            "a GitHub webhook: the header `x-github-event` is missing; send what GitHub",
        ),
        (Format::GitHub, &github[..1], json!({}), "the header `x-github-delivery` is missing"),
        (Format::GitHub, github, json!([]), "the body is a list"),
        (Format::GitHub, github, json!({"action": {}}), "`action` is an object and not text"),
        (Format::GitHub, github, json!({"action": "a b"}), "`action` is `a b`, which is no name"),
        (Format::GitHub, &[("x-github-event", "a b")], json!({}), "`x-github-event` is `a b`"),
        (Format::GitHub, github, json!({"repository": {"full_name": "a\u{1}"}}), "`subject` holds a control"),
        (Format::Alertmanager, &[], json!({"status": "firing"}), "`groupKey` is missing"),
        (
            Format::Alertmanager,
            &[],
            json!({"groupKey": "g", "status": "firing", "alerts": []}),
            "`alerts` is empty",
        ),
        (
            Format::Alertmanager,
            &[],
            json!({"groupKey": "g", "status": "firing", "alerts": {}}),
            "and not a list",
        ),
        (
            Format::Alertmanager,
            &[],
            json!({"groupKey": "g", "status": "firing", "alerts": [{"fingerprint": "f"}]}),
            "`alerts[0].startsAt` is missing",
        ),
        (
            Format::Alertmanager,
            &[],
            json!({"groupKey": "g", "status": "firing", "alerts": [3]}),
            "`alerts[0]` is a number",
        ),
        (Format::Mlflow, &[], json!({}), "the header `x-mlflow-delivery-id` is missing"),
        (Format::Mlflow, mlflow, json!({"entity": "model_version"}), "`action` is missing"),
        (
            Format::Mlflow,
            mlflow,
            json!({"entity": "e", "action": "a", "data": []}),
            "`data` is a list and not an object",
        ),
        (Format::Dbt, &[], json!({"eventType": "job.run.started"}), "`eventId` is missing"),
        (Format::Dbt, &[], json!({"eventId": "1", "eventType": "t", "data": {}}), "`data.jobId` is missing"),
        (Format::HuggingFace, &[], json!({"event": {"scope": "repo"}}), "`event.action` is missing"),
        (Format::HuggingFace, &[], json!({"event": "update"}), "`event` is a string and not an object"),
        (
            Format::HuggingFace,
            &[],
            json!({"event": {"scope": "repo", "action": "update"}, "webhook": {"id": "1"}, "repo": {"name": "n"}}),
            "`repo.id` is missing",
        ),
    ] {
        let given = Given::http(body.to_string());
        let given = headers.iter().fold(given, |given, (name, text)| given.header(name, *text));
        let reason = given.refusal(&format);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    let form = Given::http("payload=%7B%7D").typed(Some("application/x-www-form-urlencoded"));
    let form = form.header("x-github-event", "push").header("x-github-delivery", "1");
    assert!(form.refusal(&Format::GitHub).contains("content type set to application/json"));
}

#[test]
fn where_the_json_breaks_is_said() {
    let refused = Given::http("{\n  \"eventId\": oops}").read(&Format::Dbt).unwrap_err();
    assert_eq!(refused.position, Some((2, 14)));
}
