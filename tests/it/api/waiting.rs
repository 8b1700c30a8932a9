//! Long polls: an answer that waits for news comes with the news, and not before.

use std::time::{Duration, Instant};

use refit_tests::processes::{Options, Orchestrator, Worker};
use serde_json::json;

use super::WAIT;

const ON_A_WORKER: &str = "workflow: slow\nsteps:\n  talk: { run: 'echo one; sleep 1; echo two' }\n";

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_run_waits_until_it_changes() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    api.apply(ON_A_WORKER).await;
    let run = api.start_run("slow", json!({})).await;
    let version = api.run(&run).await["version"].as_i64().unwrap();

    let begun = Instant::now();
    let seen = api.get(&format!("/api/v1/runs/{run}?after={}&wait_ms=5000", version - 1)).await.ok();
    assert!(
        seen["version"].as_i64().unwrap() >= version && begun.elapsed() < Duration::from_secs(2),
        "news was there"
    );

    let begun = Instant::now();
    let seen = api.get(&format!("/api/v1/runs/{run}?after={version}&wait_ms=400")).await.ok();
    assert_eq!(seen["version"], version, "nothing changed");
    assert!(begun.elapsed() >= Duration::from_millis(400), "it did not wait: {:?}", begun.elapsed());

    let (asking, path) = (api.clone(), format!("/api/v1/runs/{run}?after={version}&wait_ms=20000"));
    let waiting = tokio::spawn(async move { asking.get(&path).await.ok() });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it answered without news");
    let begun = Instant::now();
    api.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await.ok();
    let seen = waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "news took {:?}", begun.elapsed());
    assert_eq!(seen["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_log_waits_for_the_next_lines() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    api.apply(ON_A_WORKER).await;
    let run = api.start_run("slow", json!({})).await;
    let begun = Instant::now();
    let path = format!("/api/v1/runs/{run}/logs?after=0&wait_ms=300");
    assert_eq!(api.get(&path).await.ok()["lines"], json!([]), "nobody has said anything yet");
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let _worker = Worker::start(orchestrator.base_url(), "talker", 1);
    let (mut after, mut pieces, mut done) = (0, Vec::new(), false);
    let begun = Instant::now();
    while !done {
        assert!(begun.elapsed() < WAIT, "the log does not end: {pieces:?}");
        let page = api.get(&format!("/api/v1/runs/{run}/logs?after={after}&wait_ms=10000")).await.ok();
        let lines = page["lines"].as_array().unwrap();
        pieces.extend(lines.iter().map(|piece| piece["text"].as_str().unwrap().to_owned()));
        (after, done) = (page["next"].as_i64().unwrap(), page["done"] == true);
    }
    assert_eq!(pieces.concat(), "one\ntwo\n");
    assert!(pieces.len() > 1, "nothing was shown before the end: {pieces:?}");
    assert_eq!(api.log(&run, Some("talk")).await, "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_asks_for_work_waits_until_there_is_some() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    api.apply(ON_A_WORKER).await;
    let host = json!({"protocol": 1, "worker": "w", "session": "s", "labels": {}, "slots": 1, "cpus": 1, "memory": 1,
                      "gpus": 0, "version": "0"});
    api.post("/api/v1/worker/register", &host).await.ok();
    let lease = |wait: u64| json!({"worker": "w", "session": "s", "slots": 1, "wait_ms": wait});
    let begun = Instant::now();
    assert_eq!(api.post("/api/v1/worker/lease", &lease(400)).await.ok()["orders"], json!([]));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let (asking, request) = (api.clone(), lease(20_000));
    let waiting = tokio::spawn(async move { asking.post("/api/v1/worker/lease", &request).await.ok() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let run = api.start_run("slow", json!({})).await;
    let leased = waiting.await.unwrap();
    assert_eq!(leased["orders"][0]["key"]["run"], run);
    assert!(begun.elapsed() < Duration::from_secs(2), "work took {:?} to be handed out", begun.elapsed());
}
