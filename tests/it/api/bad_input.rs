//! What is wrong is refused in words that help, leaves nothing behind, and is nobody else's problem.

use std::time::{Duration, Instant};

use refit_tests::api::event;
use refit_tests::processes::{Options, Orchestrator};
use refit_workflows::digest::Digest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{WAIT, ask};

const SOUND: &str =
    "workflow: sound\non:\n  - event: { type: [good] }\nsteps:\n  only: { emit: { type: done } }\n";

/// What is sent, and what the refusal says: status, `type`, and for each of these keys a piece of its text.
struct Bad {
    what: &'static str,
    to: (&'static str, &'static str),
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    kind: &'static str,
    says: &'static [(&'static str, &'static str)],
}

fn bad(
    what: &'static str,
    to: (&'static str, &'static str),
    body: impl Into<Vec<u8>>,
    (status, kind): (u16, &'static str),
    says: &'static [(&'static str, &'static str)],
) -> Bad {
    Bad { what, to, content_type: "application/json", body: body.into(), status, kind, says }
}

const SEND: (&str, &str) = ("POST", "/api/v1/events");
const APPLY: (&str, &str) = ("POST", "/api/v1/workflows");
const START: (&str, &str) = ("POST", "/api/v1/runs");

fn bad_events() -> Vec<Bad> {
    let mut with_a_bad_one: Vec<Value> =
        (0..20).map(|n| event(&format!("of-a-bad-array-{n}"), "t", json!({}))).collect();
    with_a_bad_one[13]["type"] = Value::Null;
    let many: Vec<Value> = (0..1001).map(|n| event(&format!("too-many-{n}"), "t", json!({}))).collect();
    let deep = format!(
        r#"{{"id":"deep","source":"/s","type":"t","data":{}1{}}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let large = event("large", "t", json!("x".repeat(2 << 20)));
    let invalid = (400, "event-invalid");
    let malformed = (400, "malformed-json");
    vec![
        bad("no type", SEND, r#"{"id":"1","source":"/s"}"#, invalid, &[("field", "type")]),
        bad("an empty id", SEND, r#"{"id":"","source":"/s","type":"t"}"#, invalid, &[("field", "id")]),
        bad(
            "an id that is a number",
            SEND,
            r#"{"id":1,"source":"/s","type":"t"}"#,
            invalid,
            &[("field", "id")],
        ),
        bad("no source", SEND, r#"{"id":"1","type":"t"}"#, invalid, &[("field", "source")]),
        bad(
            "a time that is none",
            SEND,
            r#"{"id":"1","source":"/s","type":"t","time":"noon"}"#,
            invalid,
            &[("field", "time")],
        ),
        bad(
            "another specversion",
            SEND,
            r#"{"specversion":"9","id":"1","source":"/s","type":"t"}"#,
            invalid,
            &[("field", "specversion")],
        ),
        bad(
            "a bad attribute name",
            SEND,
            r#"{"id":"1","source":"/s","type":"t","Bad-Name":1}"#,
            invalid,
            &[("field", "Bad-Name")],
        ),
        bad(
            "one bad event in an array",
            SEND,
            Value::from(with_a_bad_one).to_string(),
            invalid,
            &[("field", "[13].type")],
        ),
        bad(
            "1001 events",
            SEND,
            Value::from(many).to_string(),
            (400, "invalid"),
            &[("detail", "at most 1000"), ("detail", "several requests")],
        ),
        bad("neither object nor array", SEND, "7", (400, "invalid"), &[("detail", "CloudEvent")]),
        bad("no JSON", SEND, "{\n  \"id\": oops}", malformed, &[("line", "2")]),
        bad("half a JSON", SEND, r#"{"id":"1","#, malformed, &[]),
        bad("no UTF-8", SEND, b"{\"id\":\"\xff\xfe\"}".to_vec(), malformed, &[]),
        bad(
            "a number beyond all bounds",
            SEND,
            r#"{"id":"1","source":"/s","type":"t","data":1e999}"#,
            malformed,
            &[],
        ),
        bad("nothing", SEND, "", malformed, &[]),
        bad("nesting without end", SEND, deep, malformed, &[]),
        bad("2 MiB", SEND, large.to_string(), (413, "too-large"), &[("detail", "1 MiB")]),
        Bad {
            content_type: "text/plain",
            ..bad("plain text", SEND, "hello", (415, "media-type"), &[("detail", "application/json")])
        },
        Bad {
            content_type: "application/json; charset=utf-16",
            ..bad("UTF-16", SEND, "{}", (415, "media-type"), &[])
        },
        Bad {
            content_type: "application/cloudevents+json",
            ..bad("an array as one event", SEND, "[]", (400, "invalid"), &[])
        },
    ]
}

fn bad_workflow(what: &'static str, text: &str, says: &'static [(&'static str, &'static str)]) -> Bad {
    bad(what, APPLY, json!({"text": text, "bundle": null}).to_string(), (422, "definition-invalid"), says)
}

fn bad_workflows() -> Vec<Bad> {
    let cycle = "workflow: w\nsteps:\n  a: { run: [a], needs: [b] }\n  b: { run: [b], needs: [a] }\n";
    let endless = format!("workflow: w\nsteps: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    let lacking = json!({"text": SOUND, "bundle": Digest::of(b"never uploaded")}).to_string();
    vec![
        bad_workflow("a cycle", cycle, &[("detail", "a -> b -> a"), ("line", "3"), ("hint", "needs")]),
        bad_workflow(
            "an unknown key",
            "workflow: w\nsteps:\n  a:\n    run: [a]\n    nedes: []\n",
            &[("line", "5"), ("column", "5"), ("hint", "`needs`")],
        ),
        bad_workflow(
            "a duplicate key",
            "workflow: w\nsteps:\n  a: { run: [a] }\n  a: { run: [b] }\n",
            &[("detail", "a"), ("line", "4"), ("column", "3")],
        ),
        bad_workflow(
            "an unknown step",
            "workflow: w\nsteps:\n  train: { run: [a] }\n  b: { run: [b], needs: [trian] }\n",
            &[("line", "4"), ("hint", "`train`")],
        ),
        bad_workflow(
            "data in no bucket",
            "workflow: w\nsteps:\n  a:\n    validate: { data: s3:///x.csv, checks: [{ rows: { min: 1 } }] }\n",
            &[("detail", "names no bucket"), ("line", "4")],
        ),
        bad_workflow(
            "a value in a shell string",
            "workflow: w\nparams: { p: { type: string, default: x } }\nsteps:\n  a: { run: 'echo ${{ params.p }}' }\n",
            &[("line", "4"), ("hint", "env")],
        ),
        bad_workflow("no YAML", "workflow: [", &[("line", "1")]),
        bad_workflow("an empty file", "", &[("detail", "")]),
        bad_workflow("nesting without end", &endless, &[("line", "2")]),
        bad("a bundle that was not uploaded", APPLY, lacking, (400, "invalid"), &[("field", "bundle")]),
        bad(
            "1 MiB of workflow",
            APPLY,
            json!({"text": "#".repeat(1 << 20)}).to_string(),
            (413, "too-large"),
            &[("detail", "512 KiB")],
        ),
        bad(
            "an unknown field",
            APPLY,
            r#"{"txet": ""}"#,
            (400, "invalid"),
            &[("field", "txet"), ("hint", "text")],
        ),
        bad("no text", APPLY, r#"{"bundle": null}"#, (400, "invalid"), &[("field", "text")]),
    ]
}

fn bad_others() -> Vec<Bad> {
    let invalid = (400, "invalid");
    let missing = (404, "not-found");
    let elsewhere =
        ("PUT", "/api/v1/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let digests = json!({"digests": vec![Digest::of(b""); 10_001]}).to_string();
    vec![
        bad("an unknown run", ("GET", "/api/v1/runs/sound/99"), "", missing, &[("detail", "sound/99")]),
        bad(
            "a run's number that is none",
            ("GET", "/api/v1/runs/sound/zero"),
            "",
            invalid,
            &[("detail", "churn/12")],
        ),
        bad("a run's number 0", ("GET", "/api/v1/runs/sound/0"), "", invalid, &[]),
        bad(
            "a run's number beyond all bounds",
            ("GET", "/api/v1/runs/sound/99999999999999999999"),
            "",
            invalid,
            &[],
        ),
        bad("a run's name that is none", ("GET", "/api/v1/runs/so%20und/1"), "", invalid, &[]),
        bad("the log of an unknown run", ("GET", "/api/v1/runs/sound/99/logs"), "", missing, &[]),
        bad("cancelling an unknown run", ("POST", "/api/v1/runs/sound/99/cancel"), "{}", missing, &[]),
        bad(
            "an unknown workflow",
            ("GET", "/api/v1/workflows/nothing"),
            "",
            missing,
            &[("detail", "nothing")],
        ),
        bad(
            "starting an unknown workflow",
            START,
            r#"{"workflow":"nothing"}"#,
            missing,
            &[("detail", "nothing")],
        ),
        bad(
            "an unknown param",
            START,
            r#"{"workflow":"sound","params":{"x":1}}"#,
            invalid,
            &[("field", "params"), ("detail", "`x`")],
        ),
        bad(
            "a field that is none",
            START,
            r#"{"workflow":"sound","parms":{}}"#,
            invalid,
            &[("field", "parms")],
        ),
        bad("a field of another type", START, r#"{"workflow":7}"#, invalid, &[("field", "workflow")]),
        bad("an unknown model", ("GET", "/api/v1/models/nothing"), "", missing, &[("detail", "nothing")]),
        bad(
            "rolling back an unknown model",
            ("POST", "/api/v1/models/nothing/rollback"),
            r#"{"alias":"champion"}"#,
            missing,
            &[],
        ),
        bad(
            "a reason without end for a rollback",
            ("POST", "/api/v1/models/nothing/rollback"),
            json!({"alias": "champion", "reason": "x".repeat(2001)}).to_string(),
            invalid,
            &[("field", "reason"), ("detail", "at most 2000")],
        ),
        bad(
            "a reason without end for an approval",
            ("POST", "/api/v1/runs/nothing/1/approve"),
            json!({"reason": "x".repeat(2001)}).to_string(),
            invalid,
            &[("field", "reason"), ("detail", "at most 2000")],
        ),
        bad(
            "an unknown event",
            ("GET", "/api/v1/events/by-id?id=nothing"),
            "",
            missing,
            &[("detail", "nothing")],
        ),
        bad("an event without an id", ("GET", "/api/v1/events/by-id"), "", invalid, &[("detail", "id")]),
        bad("a limit of 0", ("GET", "/api/v1/runs?limit=0"), "", invalid, &[("field", "limit")]),
        bad(
            "a limit that is none",
            ("GET", "/api/v1/events?limit=many"),
            "",
            invalid,
            &[("detail", "limit")],
        ),
        bad(
            "a filter that is none",
            ("GET", "/api/v1/runs?colour=red"),
            "",
            invalid,
            &[("detail", "colour")],
        ),
        bad(
            "a state that is none",
            ("GET", "/api/v1/runs?state=happy"),
            "",
            invalid,
            &[("field", "state"), ("hint", "succeeded")],
        ),
        bad("a since that is none", ("GET", "/api/v1/runs?since=yesterday"), "", invalid, &[]),
        bad("bytes of another digest", elsewhere, "not nothing", invalid, &[("detail", "sha256:")]),
        bad("a digest that is none", ("PUT", "/api/v1/blobs/sha256:xyz"), "", invalid, &[]),
        bad(
            "a blob that is not there",
            ("GET", "/api/v1/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            "",
            missing,
            &[],
        ),
        bad("10,001 digests", ("POST", "/api/v1/blobs/missing"), digests, invalid, &[("field", "digests")]),
        bad(
            "a role that is none",
            ("POST", "/api/v1/tokens"),
            r#"{"name":"x","role":"root"}"#,
            invalid,
            &[("field", "role")],
        ),
        bad("an unknown token", ("DELETE", "/api/v1/tokens/nothing"), "", missing, &[]),
        bad(
            "a worker that knows no step",
            ("POST", "/api/v1/worker/finish"),
            "{}",
            invalid,
            &[("field", "key")],
        ),
        bad("no such path", ("GET", "/api/v2/runs"), "", (404, "no-such-path"), &[]),
        bad("a path that climbs", ("GET", "/api/v1/blobs/..%2f..%2fetc%2fpasswd"), "", invalid, &[]),
        bad("no such method", ("PATCH", "/api/v1/runs"), "{}", (405, "method-not-allowed"), &[]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_clear_answer_and_leaves_nothing_behind() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let (server, api) = (orchestrator.base_url(), orchestrator.api());
    api.apply(SOUND).await;
    let mut wrong = Vec::new();
    for one in bad_events().into_iter().chain(bad_workflows()).chain(bad_others()) {
        let answer = ask(server, one.to, &[("content-type", one.content_type)], one.body, 1).await;
        let told = &answer.body;
        let holds = |(key, part): &(&str, &str)| match &told[*key] {
            Value::String(text) => text.contains(part),
            Value::Null => false,
            other => format!("{other}") == *part,
        };
        if !answer.is_refusal(one.status) || told["type"] != one.kind || !one.says.iter().all(holds) {
            wrong.push(format!(
                "{}: expected {} {} {:?}, got {} {:#}",
                one.what, one.status, one.kind, one.says, answer.status, told
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(api.get("/api/v1/events").await.ok(), json!([]), "a refused event was stored");
    assert_eq!(
        api.get("/api/v1/workflows").await.ok().as_array().unwrap().len(),
        1,
        "a refused workflow was kept"
    );
    assert_eq!(api.get("/api/v1/tokens").await.ok(), json!([]));

    api.send_events(&[event("good", "good", json!({"nested": {"is": ["fine"]}}))]).await;
    api.wait_run("sound/1", "succeeded", WAIT).await;
    assert!(!orchestrator.logs().contains("panicked"), "{}", orchestrator.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_workflow_is_reported_at_once() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let text =
        "workflow: w\ncolour: red\nsteps:\n  a: { run: [a], needs: [x] }\n  b: { run: [b], nedes: [] }\n";
    let problem = orchestrator
        .api()
        .post("/api/v1/workflows", &json!({"text": text, "bundle": null}))
        .await
        .refused(422);
    let lines: Vec<u64> = problem["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["position"]["line"].as_u64())
        .collect();
    assert_eq!(lines, [2, 4, 5], "{problem:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_go_in_one_request_and_listings_stay_bounded() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    let events: Vec<Value> = (0..1000).map(|n| event(&format!("e{n}"), "many", json!({"n": n}))).collect();
    let receipts = api.send_events(&events).await;
    let ids: Vec<&str> = receipts.as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(
        ids,
        (0..1000).map(|n| format!("e{n}")).collect::<Vec<_>>(),
        "receipts come in the order sent"
    );
    assert!(receipts.as_array().unwrap().iter().all(|one| one["duplicate"] == false));
    let again = api.send_events(&events).await;
    assert!(again.as_array().unwrap().iter().all(|one| one["duplicate"] == true));
    for (query, count) in [("limit=1000", 1000), ("limit=999999999", 1000), ("", 100), ("limit=1", 1)] {
        let listed = api.get(&format!("/api/v1/events?{query}")).await.ok();
        assert_eq!(listed.as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_hold_up_nobody() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let address = orchestrator.base_url().strip_prefix("http://").unwrap().to_owned();
    let mut slow = Vec::new();
    for number in 0..120 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let part = if number % 2 == 0 {
            "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-".to_owned()
        } else {
            format!(
                "POST /api/v1/events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{{\"id\":"
            )
        };
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let api = orchestrator.api();
    let begun = Instant::now();
    for number in 0..20 {
        api.send_events(&[event(&format!("quick-{number}"), "quick", json!({}))]).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "20 events took {:?} beside slow senders",
        begun.elapsed()
    );
    // The one whose head never ends is sent away; nothing of it or of the half bodies was stored.
    let mut rest = Vec::new();
    let gone =
        tokio::time::timeout(Duration::from_secs(25), slow.swap_remove(0).read_to_end(&mut rest)).await;
    assert!(gone.is_ok(), "a head that never ends keeps its connection");
    drop(slow);
    assert_eq!(api.get("/api/v1/events").await.ok().as_array().unwrap().len(), 20);
}
