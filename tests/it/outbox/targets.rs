//! What one target does to itself and not to the others: filters, pauses, rest, being gone, giving up.

use refit_tests::processes::{refit, run_to_end};

use super::receiver::{Answer, Receiver, Request};
use super::*;

/// A webhook that may be on this host.
fn webhook(receiver: &Receiver) -> Value {
    json!({ "webhook": { "url": receiver.url, "allow": ["127.0.0.0/8"] } })
}

async fn start(targets: &Value, change: impl FnOnce(&mut Options)) -> (Orchestrator, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { arguments: settings(folder.path(), targets), ..Options::default() };
    change(&mut options);
    let orchestrator = Orchestrator::start(options).await;
    orchestrator.api().apply(CHAIN).await;
    (orchestrator, folder)
}

fn is_of(request: &Request, run: &str) -> bool {
    run_of(&request.event()) == run
}

/// Those of these requests that are about one event of one run.
fn tries(requests: &[Request], run: &str, kind: &str) -> Vec<Request> {
    requests
        .iter()
        .filter(|request| is_of(request, run) && request.event()["type"] == kind)
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_gets_what_it_asked_for() {
    let (some, all, broker) = (Receiver::willing().await, Receiver::willing().await, services::amqp().await);
    let exchange = broker.name();
    let queue = broker.listen(&exchange, "ml.#").await;
    let mut wanted = webhook(&some);
    wanted["events"] = json!([{ "type": [{ "prefix": "refit." }] }, { "type": ["chain.second"] }]);
    let amqp = json!({ "url": broker.url(), "exchange": exchange, "declare": false,
        "routing_key": "'ml.' + type" });
    let bus = json!({ "events": [{ "type": ["chain.third"] }], "amqp": amqp });
    let targets = json!({ "some": wanted, "all": webhook(&all), "bus": bus });
    // A proxy that nobody answers at: it is not asked.
    let proxy = |name: &str| (name.to_owned(), "http://127.0.0.1:9".to_owned());
    let proxies = ["http_proxy", "HTTP_PROXY", "ALL_PROXY"].map(proxy);
    let (orchestrator, _folder) = start(&targets, |options| options.env = proxies.into()).await;
    go(&orchestrator, 0..3).await;
    all.wait_for(3 * TYPES.len()).await;
    some.wait_for(3 * 2).await;
    let kinds: HashSet<String> =
        some.accepted().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["chain.second", "refit.run.succeeded"].map(str::to_owned).into());
    for _ in 0..3 {
        assert_eq!(broker.take(&queue, PATIENCE).await.routing_key, "ml.chain.third");
    }
    let api = orchestrator.api();
    for (name, sent) in [("some", 6), ("all", 12), ("bus", 3)] {
        let found = eventually("all is written down", PATIENCE, async || {
            Some(target(&api, name).await).filter(|found| found["pending"] == 0)
        })
        .await;
        assert_eq!((&found["state"], &found["sent"]), (&json!("ok"), &json!(sent)), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_slows_no_other_and_a_slow_run_no_other() {
    const TIMEOUT: Duration = Duration::from_secs(30);
    let quick = Receiver::willing().await;
    let slow = Receiver::start(|_, _| Answer::Held).await;
    let one = Receiver::start(|request, _| match is_of(request, "chain/1") {
        true => Answer::Held,
        false => Answer::Status(204),
    })
    .await;
    let patient = |receiver| {
        let mut target = webhook(receiver);
        target["webhook"]["timeout"] = json!(format!("{}s", TIMEOUT.as_secs()));
        target
    };
    let targets = json!({ "quick": webhook(&quick), "slow": patient(&slow), "one": patient(&one) });
    let (orchestrator, _folder) = start(&targets, |_| {}).await;
    let begun = std::time::Instant::now();
    go(&orchestrator, 0..20).await;
    // Not one answer of the slow ones has come, and the others have everything.
    quick.wait_for(20 * TYPES.len()).await;
    one.wait_for(19 * TYPES.len()).await;
    assert!(begun.elapsed() < TIMEOUT, "the others waited until those that are held were given up");
    assert!(slow.requests().is_empty() && one.accepted().iter().all(|event| run_of(event) != "chain/1"));
    slow.let_go();
    one.let_go();
    slow.wait_for(20 * TYPES.len()).await;
    one.wait_for(20 * TYPES.len()).await;
    for receiver in [&quick, &slow, &one] {
        check_deliveries(&receiver.accepted(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_is_asked_seldom_and_gets_everything_once_it_is_back() {
    let receiver = Receiver::start(|_, _| Answer::Status(503)).await;
    let (orchestrator, _folder) = start(&json!({ "ops": webhook(&receiver) }), |_| {}).await;
    let api = orchestrator.api();
    go(&orchestrator, 0..60).await;
    let found = wait_for_state(&api, "ops", "open").await;
    assert!(found["error"].as_str().unwrap().contains("503") && found["since"].is_string(), "{found}");
    // Some were under way when it opened; then one at a time, with pauses that grow.
    let asked = eventually("it is probed, with pauses that grow", PATIENCE, async || {
        let asked = receiver.requests();
        let [.., before, last] = asked.as_slice() else { return None };
        (last.at - before.at > Duration::from_millis(200)).then_some(asked)
    })
    .await;
    assert!(asked.len() < 25, "{} requests to a target that is down", asked.len());
    let ready = api.get("/readyz").await.ok();
    let part = ready["parts"].as_array().unwrap().iter().find(|part| part["name"] == "ops").unwrap();
    assert_eq!((&part["state"], &ready["status"]), (&json!("degraded"), &json!("degraded")));

    receiver.heal();
    receiver.wait_for(60 * TYPES.len()).await;
    wait_for_state(&api, "ops", "ok").await;
    let heard: Vec<Value> = receiver.accepted();
    check_deliveries(&heard, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_asks_for_rest_gets_it() {
    const REST: Duration = Duration::from_secs(3);
    let receiver = Receiver::start(|_, before| match before.len() {
        0 => Answer::Later(429, REST.as_secs()),
        _ => Answer::Status(204),
    })
    .await;
    let (orchestrator, _folder) = start(&json!({ "ops": webhook(&receiver) }), |_| {}).await;
    go(&orchestrator, 0..1).await;
    wait_for_state(&orchestrator.api(), "ops", "open").await;
    go(&orchestrator, 1..4).await;
    receiver.wait_for(4 * TYPES.len()).await;
    let requests = receiver.requests();
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= REST && pause < REST * 4, "asked again after {pause:?}");
    check_deliveries(&receiver.accepted(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_is_left_alone_until_it_is_enabled() {
    let receiver = Receiver::start(|_, _| Answer::Status(410)).await;
    let (mut orchestrator, folder) = start(&json!({ "ops": webhook(&receiver) }), |_| {}).await;
    go(&orchestrator, 0..1).await;
    wait_for_state(&orchestrator.api(), "ops", "disabled").await;
    go(&orchestrator, 1..5).await;
    let api = orchestrator.api();
    eventually("they wait", PATIENCE, async || {
        (target(&api, "ops").await["pending"] == 5 * TYPES.len()).then_some(())
    })
    .await;
    // Neither more events nor another start make it ask again.
    orchestrator.terminate();
    orchestrator.restart().await;
    go(&orchestrator, 5..6).await;
    eventually("they wait", PATIENCE, async || {
        (target(&orchestrator.api(), "ops").await["pending"] == 6 * TYPES.len()).then_some(())
    })
    .await;
    assert_eq!(receiver.requests().len(), 1);

    let enable = || {
        let mut enable = refit(folder.path(), &["target", "enable", "ops"]);
        enable.env("REFIT_SERVER", orchestrator.base_url());
        run_to_end(enable, PATIENCE)
    };
    // Enabled while it still wants nothing, it is not told as if it took something.
    let said = enable();
    assert!(said.code == Some(0) && said.out.contains("✗ ops") && said.out.contains("410"), "{said:?}");
    assert_eq!(target(&orchestrator.api(), "ops").await["state"], "disabled");

    receiver.heal();
    let said = enable();
    assert!(
        said.code == Some(0) && said.out.contains("✓ ops takes events again; 24 events waited"),
        "{said:?}"
    );
    receiver.wait_for(6 * TYPES.len()).await;
    check_deliveries(&receiver.accepted(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_never_taken_is_given_up_and_its_run_goes_on() {
    let receiver = Receiver::start(|request, _| {
        let poison = is_of(request, "chain/1") && request.event()["type"] == "chain.first";
        Answer::Status(if poison { 422 } else { 204 })
    })
    .await;
    let mut ops = webhook(&receiver);
    ops["give_up_after"] = json!("1s");
    let (orchestrator, folder) = start(&json!({ "ops": ops }), |_| {}).await;
    let api = orchestrator.api();
    go(&orchestrator, 0..5).await;
    receiver.wait_for(5 * TYPES.len() - 1).await;
    let requests = receiver.requests();
    let poison = tries(&requests, "chain/1", "chain.first");
    assert!(poison.len() >= 10 && poison.iter().all(|one| one.id() == poison[0].id()), "{}", poison.len());
    // The rest of its run came after it was given up, in order; other runs did not wait for that.
    let last_try = requests.iter().rposition(|one| one.id() == poison[0].id()).unwrap();
    let place = |run: &str, kind: &str| {
        requests.iter().position(|one| is_of(one, run) && one.event()["type"] == kind).unwrap()
    };
    assert!(place("chain/1", "chain.second") > last_try && place("chain/5", TYPES[3]) < last_try);

    let letters = api.get("/api/v1/deadletters").await.ok();
    let letter = &letters[0];
    assert_eq!((&letter["direction"], &letter["target"]), (&json!("out"), &json!("ops")), "{letters}");
    assert!(letter["reason"].as_str().unwrap().contains("422"), "{letter}");
    let whole = api.get(&format!("/api/v1/deadletters/{}", letter["seq"])).await.ok();
    let body: Value = serde_json::from_str(whole["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, poison[0].event());
    assert!(whole["context"]["attempts"].as_i64().unwrap() >= 10, "{whole}");

    let mended = json!({ "event": event("other", "data.other", json!(1)) });
    api.post(&format!("/api/v1/deadletters/{}/retry", letter["seq"]), &mended).await.refused(400);
    // Tried again, it is the same event under the same id.
    receiver.heal();
    let mut command = refit(folder.path(), &["deadletter", "retry", "--source", "target:ops", "-o", "json"]);
    command.env("REFIT_SERVER", orchestrator.base_url());
    let said = run_to_end(command, PATIENCE);
    let became: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
    assert_eq!(
        (&became[0]["became"], &became[0]["events"][0]["id"]),
        (&json!("sent_again"), &json!(poison[0].id()))
    );
    receiver.wait_for(5 * TYPES.len()).await;
    assert_eq!(receiver.accepted().last().unwrap(), &body);
    assert!(api.get("/api/v1/deadletters").await.ok().as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_dead_for_too_long_keeps_nothing_waiting() {
    let receiver = Receiver::start(|_, _| Answer::Status(500)).await;
    let mut ops = webhook(&receiver);
    ops["give_up_after"] = json!("1s");
    let (orchestrator, _folder) = start(&json!({ "ops": ops }), |_| {}).await;
    go(&orchestrator, 0..30).await;
    let api = orchestrator.api();
    eventually("all are given up", PATIENCE, async || {
        let letters = api.get("/api/v1/deadletters?limit=1000").await.ok();
        (letters.as_array().unwrap().len() == 30 * TYPES.len()).then_some(())
    })
    .await;
    assert_eq!(target(&api, "ops").await["pending"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_target_that_is_no_more_is_told_and_can_be_dropped() {
    let receiver = Receiver::start(|_, _| Answer::Status(500)).await;
    let (mut orchestrator, folder) = start(&json!({ "old": webhook(&receiver) }), |_| {}).await;
    go(&orchestrator, 0..2).await;
    let api = orchestrator.api();
    eventually("they wait", PATIENCE, async || {
        (target(&api, "old").await["pending"] == 2 * TYPES.len()).then_some(())
    })
    .await;
    let path = "/api/v1/targets/old/events";
    let drop = async || orchestrator.api().send(reqwest::Method::DELETE, path, None).await.unwrap();
    drop().await.refused(409);
    orchestrator.terminate();
    settings(folder.path(), &json!({}));
    orchestrator.restart().await;
    let api = orchestrator.api();
    let found = wait_for_state(&api, "old", "absent").await;
    assert_eq!(found["pending"], 2 * TYPES.len());
    eventually("readiness tells", PATIENCE, async || {
        let server = api.get("/api/v1/server").await.ok();
        let part = server["parts"].as_array()?.iter().find(|part| part["name"] == "old")?.clone();
        part["reason"].as_str()?.contains("refit target drop old").then_some(())
    })
    .await;
    // What happens now is not for it.
    go(&orchestrator, 2..3).await;
    eventually("the run is over", PATIENCE, async || {
        let run = api.get("/api/v1/runs/chain/3").await;
        (run.status == 200 && run.body["state"] == "succeeded").then_some(())
    })
    .await;
    assert_eq!(target(&api, "old").await["pending"], 2 * TYPES.len());
    let said = {
        let mut command = refit(folder.path(), &["target", "drop", "old"]);
        command.env("REFIT_SERVER", orchestrator.base_url());
        run_to_end(command, PATIENCE)
    };
    assert!(said.code == Some(0) && said.out.contains("8 events dropped"), "{}{}", said.out, said.err);
    api.get("/api/v1/targets/old").await.refused(404);
}
