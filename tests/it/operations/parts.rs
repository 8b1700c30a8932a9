//! Sources and targets say how they are doing, and `/readyz` tells it part by part.

use refit_tests::api::Api;
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator};
use serde_json::{Value, json};

use super::{PATIENCE, services};

async fn state_of(api: &Api, part: &str, name: &str) -> Option<Value> {
    let ready = api.get("/readyz").await.ok();
    let parts = ready["parts"].as_array().unwrap().clone();
    parts.into_iter().find(|found| found["part"] == part && found["name"] == name)
}

async fn wait_for(api: &Api, part: &str, name: &str, state: &str) {
    let what = format!("{part} {name} is {state}");
    eventually(&what, PATIENCE, async || {
        state_of(api, part, name).await.filter(|found| found["state"] == state).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_and_a_target_that_work_are_ok() {
    let broker = services::amqp().await;
    let (queue, exchange) = (broker.name(), broker.name());
    let orchestrator = Orchestrator::start(Options {
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.clone()),
        amqp_exchange: Some(exchange),
        ..Options::default()
    })
    .await;
    let api = orchestrator.api();
    wait_for(&api, "source", &format!("amqp:{queue}"), "ok").await;
    wait_for(&api, "target", "amqp", "ok").await;
    assert_eq!(api.get("/readyz").await.ok()["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_degrades_its_source_and_not_the_server() {
    // Bound and dropped: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("amqp://user:hunter2@127.0.0.1:{port}/%2f");
    let orchestrator = Orchestrator::start(Options { amqp_url: Some(url), ..Options::default() }).await;
    let api = orchestrator.api();
    wait_for(&api, "source", "amqp:refit.events", "degraded").await;
    let reply = api.get("/readyz").await;
    assert_eq!((reply.status, &reply.body["status"]), (200, &json!("degraded")));
    assert_eq!(reply.body["parts"][0], json!({ "part": "database", "name": "sqlite", "state": "ok" }));
    assert!(!reply.body.to_string().contains(&port.to_string()), "told to anybody: {}", reply.body);

    let server = api.get("/api/v1/server").await.ok();
    let reason = server["parts"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("127.0.0.1:{port}")) && !reason.contains("hunter2"), "{reason}");
}
