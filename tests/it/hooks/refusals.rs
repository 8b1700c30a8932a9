//! What a webhook does not take: in which words, within which bounds, and what is kept of it.

use std::time::{Duration, Instant};

use refit_tests::processes::{Options, free_port, refit, run_to_end};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::senders;
use super::{Answer, Headers, House, WAIT, send};

const SECRET: &str = "a secret of this test";

/// An orchestrator with a hook of every scheme, each with one secret, and with one that has none.
async fn house() -> House {
    let mut settings = "sources:\n  open: { webhook: { scheme: none } }\n  small: { webhook: { scheme: none, body_max: 1KiB } }\n".to_owned();
    let mut env = Vec::new();
    for sender in senders::all() {
        settings.push_str(&sender.settings());
        env.extend(sender.variables().map(|variable| (variable, sender.held(SECRET))));
    }
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    House::start(&settings, &env, Options::default()).await
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

async fn post_as(house: &House, hook: &str, headers: Headers, body: impl Into<reqwest::Body>) -> Answer {
    send(house.url(), Method::POST, &format!("/hooks/{hook}"), &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_no_json_is_refused_by_every_scheme() {
    let house = house().await;
    for sender in senders::all() {
        let (hook, sound) = (sender.hook, json!({"id": "1"}).to_string());
        let with = |headers: Headers, name: &str, value: &str| [headers, vec![header(name, value)]].concat();
        let signed = || sender.headers(SECRET, &sound);
        for kind in ["text/html", "application/x-www-form-urlencoded", "application/json; charset=utf-7"] {
            let answer = post_as(&house, hook, with(signed(), "content-type", kind), sound.clone()).await;
            answer.refused(&format!("{hook}: {kind}"), 415, "media-type");
        }
        post_as(&house, hook, signed(), sound.clone()).await.refused(hook, 415, "media-type");
        let json = || with(signed(), "content-type", "application/json");
        for encoding in ["gzip", "deflate, br"] {
            let answer =
                post_as(&house, hook, with(json(), "content-encoding", encoding), sound.clone()).await;
            answer.refused(&format!("{hook}: {encoding}"), 415, "media-type");
        }
        let large = json!({"id": "1", "data": "x".repeat(1 << 20)}).to_string();
        let headers = with(sender.headers(SECRET, &large), "content-type", "application/json");
        let declared = post_as(&house, hook, headers.clone(), large.clone()).await;
        assert!(declared.refused(hook, 413, "too-large")["detail"].as_str().unwrap().contains("1 MiB"));
        // One byte too many, the last one: no sender is cut off in the middle.
        let pieces = [vec![b' '; 1 << 20], vec![b' ']].map(Ok::<_, std::io::Error>);
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        post_as(&house, hook, headers, chunked).await.refused(&format!("{hook}, chunked"), 413, "too-large");
    }
    let json = vec![header("content-type", "application/json")];
    let small = post_as(&house, "small", json, " ".repeat(1025)).await;
    assert!(small.refused("small", 413, "too-large")["detail"].as_str().unwrap().contains("1 KiB"));
    assert_eq!(house.orchestrator.api().get("/api/v1/events").await.ok(), json!([]));
}

/// Sends the beginning of a request, then a byte now and again; gives the answer and how long it took.
async fn dawdle(
    address: String,
    hook: &'static str,
    headers: Headers,
    pause: Duration,
) -> (String, Duration) {
    let begun = Instant::now();
    let stream = TcpStream::connect(&address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let mut head = format!(
        "POST /hooks/{hook} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    );
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    to.write_all(format!("{head}\r\n{{").as_bytes()).await.unwrap();
    let drip = tokio::spawn(async move {
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(25), from.read_to_end(&mut answer)).await;
    drip.abort();
    assert!(read.is_ok(), "{hook} still waits after {:?}", begun.elapsed());
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up_by_every_scheme_and_holds_up_nobody() {
    let house = house().await;
    let slow: Vec<_> = senders::all()
        .into_iter()
        .flat_map(|sender| {
            // One stops, the other goes on for ever.
            [Duration::from_secs(3600), Duration::from_millis(200)].map(|pause| {
                let headers = sender.headers(SECRET, "{}");
                tokio::spawn(dawdle(house.address().to_owned(), sender.hook, headers, pause))
            })
        })
        .collect();
    let quick = house.post("open", &Headers::new(), r#"{"id": "1", "source": "/s", "type": "t"}"#).await;
    quick.taken("beside slow senders");
    assert!(quick.took < Duration::from_secs(5), "{quick:?}");
    for one in slow {
        let (answer, took) = one.await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"),
            "{answer}"
        );
        assert!(answer.contains("body-timeout") && took < Duration::from_secs(15), "{took:?}: {answer}");
    }
    assert_eq!(house.orchestrator.api().get("/api/v1/events").await.ok().as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_authentic_and_not_understood_is_a_dead_letter() {
    let house = house().await;
    for (hook, body, field, line) in [
        ("open", r#"{"id": "1", "source": "/s"}"#, Some("type"), None),
        ("open", "{\n  oops}", None, Some(2)),
        ("open", "[1]", Some("[0]"), None),
    ] {
        let answer = house.post(hook, &Headers::new(), body).await;
        let told = answer.refused(body, 400, "delivery-malformed");
        assert_eq!((told["field"].as_str(), told["line"].as_u64()), (field, line), "{told}");
        assert!(told["hint"].as_str().unwrap().contains("--source open"), "{told}");
    }
    let github = senders::all().into_iter().find(|sender| sender.hook == "github").unwrap();
    house.post("github", &github.headers("another secret", "{}"), "{}").await.refused(
        "github",
        401,
        "not-authentic",
    );
    house.post("github", &github.headers(SECRET, "{}"), "{}").await.refused(
        "github",
        400,
        "delivery-malformed",
    );

    let database = format!("sqlite:{}", house.orchestrator.data().join("refit.db").display());
    let kept = super::overload::rows(
        &database,
        "SELECT source || ' ' || CAST(body AS TEXT) FROM dead_letters ORDER BY seq",
    )
    .await;
    let expected = ["open {\"id\": \"1\", \"source\": \"/s\"}", "open {\n  oops}", "open [1]", "github {}"];
    assert_eq!(kept, expected);
    let context = super::overload::rows(&database, "SELECT context FROM dead_letters ORDER BY seq").await;
    assert!(context[3].contains("content-type") && !context[3].contains("sha256="), "{}", context[3]);

    let api = house.orchestrator.api();
    let retried = api.post("/api/v1/deadletters/1/retry", &json!({})).await;
    assert!(retried.refused(422)["detail"].as_str().unwrap().contains("`type` is missing"));
    let server = api.get("/api/v1/server").await.ok();
    let parts = server["parts"].as_array().unwrap();
    let counts = |name: &str| parts.iter().find(|part| part["name"] == name).unwrap()["deliveries"].clone();
    assert_eq!(counts("open"), json!({"settled": 3, "events": 0, "dead_letters": 3, "empty": 0}));
    assert_eq!(counts("github")["dead_letters"], 1);
    assert_eq!(house.orchestrator.api().get("/api/v1/events").await.ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_headers_is_taken_by_hooks_as_by_the_api() {
    let house = house().await;
    for (path, id) in [("/api/v1/events", "1"), ("/hooks/open", "2")] {
        let mut headers = vec![header("ce-id", id), header("ce-source", "/s"), header("ce-type", "t")];
        headers.push(header("content-type", "text/plain"));
        send(house.url(), Method::POST, path, &headers, "anything").await.taken(path);
        let headers = vec![header("content-type", "text/plain")];
        assert_eq!(send(house.url(), Method::POST, path, &headers, "anything").await.status, 415, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_not_there_is_like_any_path_that_is_not_there() {
    let house = house().await;
    for method in [Method::POST, Method::OPTIONS] {
        for path in
            ["/hooks/nothing", "/hooks/OPEN", "/hooks/open%2f..%2f..", "/hooks/%00", "/hooks/..%2fopen"]
        {
            let answer = send(house.url(), method.clone(), path, &Headers::new(), "").await;
            let told = answer.refused(path, 404, "no-such-path").clone();
            let other = send(house.url(), method.clone(), "/nowhere", &Headers::new(), "").await;
            let expected = other.body["detail"].as_str().unwrap().replace("/nowhere", path);
            assert_eq!(told["detail"].as_str(), Some(expected.as_str()));
        }
    }
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = send(house.url(), method, "/hooks/open", &Headers::new(), "").await;
        answer.refused("open", 405, "method-not-allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_of_cloudevents_are_told_that_they_may_send() {
    let house = house().await;
    let ask =
        async |headers: Headers| send(house.url(), Method::OPTIONS, "/hooks/github", &headers, "").await;
    let origin = header("WebHook-Request-Origin", "emitter.example");
    let plain = ask(vec![origin.clone()]).await;
    assert_eq!(plain.status, 200);
    let told = |answer: &Answer, name: &str| {
        answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(told(&plain, "webhook-allowed-origin").as_deref(), Some("emitter.example"));
    assert_eq!(told(&plain, "webhook-allowed-rate").as_deref(), Some("*"));
    assert_eq!(told(&plain, "allow").as_deref(), Some("OPTIONS, POST"));
    let rated = ask(vec![origin, header("WebHook-Request-Rate", "120")]).await;
    assert_eq!(told(&rated, "webhook-allowed-rate").as_deref(), Some("120"));
    let bare = ask(Headers::new()).await;
    assert_eq!((bare.status, told(&bare, "webhook-allowed-origin")), (200, None));
}

#[test]
fn a_hook_without_a_secret_is_for_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("0.0.0.0:{}", free_port());
    for (webhook, told) in [
        ("{ scheme: none }", "127.0.0.1 only"),
        ("{ scheme: github }", "needs a secret"),
        ("{ scheme: github, secret: { env: TOO_SHORT } }", "shorter than"),
    ] {
        std::fs::write(
            folder.path().join("refit.yaml"),
            format!("sources: {{ open: {{ webhook: {webhook} }} }}\n"),
        )
        .unwrap();
        let mut command = refit(folder.path(), &["serve", "--listen", &listen, "--data", "data"]);
        command.env("TOO_SHORT", "qzx");
        let said = run_to_end(command, WAIT);
        assert!(said.code.is_some_and(|code| code != 0), "{webhook} started: {said:?}");
        assert!(said.err.contains("source `open`") && said.err.contains(told), "{}", said.err);
        assert!(!said.err.contains("qzx"), "{}", said.err);
    }
}
