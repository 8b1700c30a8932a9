//! Dead letters: kept as they came, read again, mended, dropped; never lost and never taken twice.

use refit_orchestrator::engine::DeadLetter;
use refit_orchestrator::store::Store;
use refit_tests::api::{Api, event};
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator, refit, run_to_end};
use refit_tests::services::{Database, Message};
use serde_json::{Value, json};

use super::{PATIENCE, services};

on_both_databases! {
    a_dead_letter_is_mended_once_and_by_one
    a_dead_letter_is_read_again_as_its_source_would
    a_reason_may_quote_what_no_database_keeps
}

const EVENTS: &str = "SELECT COUNT(*) FROM events";

async fn letters(api: &Api, query: &str) -> Vec<Value> {
    api.get(&format!("/api/v1/deadletters{query}")).await.ok().as_array().unwrap().clone()
}

fn seq(letter: &Value) -> i64 {
    letter["seq"].as_i64().unwrap()
}

async fn retry(api: &Api, letter: i64, body: Value) -> refit_tests::api::Reply {
    api.post(&format!("/api/v1/deadletters/{letter}/retry"), &body).await
}

/// Sets deliveries aside as the intake does: on the database, beside the server.
async fn bury(database: &Database, bodies: &[&[u8]]) {
    let store = Store::open(database.url(), Vec::new()).await.unwrap();
    for body in bodies {
        let context = json!({ "content_type": "application/json", "headers": { "x": "y" } });
        let reason = "it was not understood then".to_owned();
        let letter = DeadLetter::new("amqp:q", reason, context.clone(), &context, body);
        store.record(Vec::new(), vec![letter]).await.unwrap();
    }
    store.database().close().await;
}

async fn a_dead_letter_is_mended_once_and_by_one(database: Database) {
    let broker = services::amqp().await;
    let queue = broker.name();
    let orchestrator = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.clone()),
        ..Options::default()
    })
    .await;
    let api = orchestrator.api();
    broker.wait_for_queue(&queue).await;
    let bad = [
        Message::with_content_type("application/cloudevents+json", "{ not JSON"),
        Message::with_content_type("image/png", vec![0xff, 0x00, b'A']),
        Message::with_content_type("application/json", vec![b' '; 1024 * 1024 + 500]),
    ];
    broker.publish(&queue, bad.clone()).await;
    eventually("three letters", PATIENCE, async || (letters(&api, "").await.len() == 3).then_some(())).await;

    // What comes again is the same letter; what only looks the same is none.
    let [same, ..] = bad;
    let other = Message::with_content_type("application/json", "{ not JSON");
    broker.publish(&queue, [same.clone(), same, other]).await;
    eventually("a fourth letter", PATIENCE, async || (letters(&api, "").await.len() == 4).then_some(()))
        .await;
    let all = letters(&api, "?order=oldest").await;
    let duplicates: Vec<_> = all.iter().map(|letter| letter["duplicates"].as_i64().unwrap()).collect();
    assert_eq!(duplicates, [2, 0, 0, 0]);
    assert!(all[0]["duplicate_at"].as_str() >= all[0]["received_at"].as_str(), "{all:?}");
    api.send(reqwest::Method::DELETE, &format!("/api/v1/deadletters/{}", all[3]["seq"]), None).await.unwrap();

    // Newest first, in short; by source; oldest first in pages.
    let all = letters(&api, "").await;
    assert!(seq(&all[0]) > seq(&all[1]) && all[0].get("body").is_none(), "{all:?}");
    assert_eq!(letters(&api, "?source=amqp:other").await.len(), 0);
    assert_eq!(letters(&api, &format!("?source=amqp:{queue}&limit=2")).await.len(), 2);
    let oldest = letters(&api, "?order=oldest&limit=2").await;
    let rest = letters(&api, &format!("?order=oldest&after={}", seq(&oldest[1]))).await;
    assert_eq!([seq(&oldest[0]), seq(&oldest[1]), seq(&rest[0])], [seq(&all[2]), seq(&all[1]), seq(&all[0])]);

    // Whole, as it came.
    let show = async |letter: i64| api.get(&format!("/api/v1/deadletters/{letter}")).await.ok();
    let text = show(seq(&oldest[0])).await;
    assert_eq!((&text["body"], &text["direction"]), (&json!("{ not JSON"), &json!("in")));
    assert_eq!(text["context"]["content_type"], "application/cloudevents+json");
    assert_eq!(text["context"]["properties"]["routing_key"], queue.as_str());
    assert_eq!(show(seq(&oldest[1])).await["body_base64"], "/wBB");

    // Still no event: the letter stays and the try counts. What was too large stays too large.
    let refused = retry(&api, seq(&oldest[0]), json!({})).await.refused(422);
    assert!(refused["detail"].as_str().unwrap().contains("not JSON"), "{refused}");
    assert_eq!(show(seq(&oldest[0])).await["tries"], 1);
    let refused = retry(&api, seq(&rest[0]), json!({})).await.refused(422);
    assert!(refused["detail"].as_str().unwrap().contains("its body has 1049076 bytes"), "{refused}");
    let large = show(seq(&rest[0])).await;
    let kept = large["body"].as_str().unwrap().len();
    assert_eq!((&large["bytes"], &large["cut"], kept), (&json!(1_049_076), &json!(true), 1_048_576));
    retry(&api, seq(&oldest[0]), json!({ "event": { "id": "1" } })).await.refused(400);
    assert_eq!(database.number(EVENTS).await, 0);

    // Mended by several people at once: one is first, the others find it gone.
    let mended = json!({ "event": event("mended", "data.plain", json!(1)) });
    let tries = (0..8).map(|_| retry(&api, seq(&oldest[0]), mended.clone()));
    let replies = futures_util::future::join_all(tries).await;
    let count = |status| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(202), count(404)), (1, 7), "{replies:?}");
    assert_eq!(database.number(EVENTS).await, 1);

    // The same event again is no second event, and its letter goes all the same.
    let receipts = retry(&api, seq(&oldest[1]), mended).await.ok();
    assert_eq!(receipts["events"][0]["duplicate"], true);
    assert_eq!(database.number(EVENTS).await, 1);

    let drop = async |letter: i64| {
        let path = format!("/api/v1/deadletters/{letter}");
        api.send(reqwest::Method::DELETE, &path, None).await.unwrap()
    };
    assert_eq!(drop(seq(&rest[0])).await.ok()["seq"], rest[0]["seq"]);
    drop(seq(&rest[0])).await.refused(404);
    assert!(letters(&api, "").await.is_empty());
}

async fn a_dead_letter_is_read_again_as_its_source_would(database: Database) {
    let settings = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let orchestrator = Orchestrator::start(settings).await;
    let api = orchestrator.api();
    api.apply(
        "workflow: w\non: [{ event: { type: [data.plain] } }]\nsteps:\n  tell: { emit: { type: told } }\n",
    )
    .await;
    let good = event("late", "data.plain", json!(1)).to_string();
    bury(&database, &[good.as_bytes(), b"{}", b"\xff\xfe"]).await;

    // As people do it: a listing, one of them, all again, the rest away.
    let server = orchestrator.base_url().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = refit(folder.path(), arguments);
        command.env("REFIT_SERVER", &server);
        let said = run_to_end(command, PATIENCE);
        (said.code, said.out, said.err)
    };
    let (code, out, err) = run(&["deadletter", "list", "--since", "1h"]);
    assert!(code == Some(0) && out.matches("it was not understood then").count() == 3, "{out}{err}");
    let seqs: Vec<i64> = letters(&api, "?order=oldest").await.iter().map(seq).collect();
    let (_, out, _) = run(&["deadletter", "show", &seqs[2].to_string()]);
    assert!(out.contains("ff fe") && out.contains(r#"{"x":"y"}"#), "{out}");

    let (code, out, err) = run(&["deadletter", "retry", "--all", "-o", "json"]);
    assert_eq!(code, Some(1), "{out}{err}");
    let became: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(became[0]["events"][0]["id"], "late");
    let words: Vec<&str> = became.iter().map(|one| one["became"].as_str().unwrap()).collect();
    assert_eq!(words, ["recorded", "still_dead", "still_dead"]);
    eventually("its run", PATIENCE, async || {
        (database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'w'").await == 1).then_some(())
    })
    .await;

    std::fs::write(folder.path().join("mended.json"), event("other", "data.plain", json!(2)).to_string())
        .unwrap();
    let second = seqs[1].to_string();
    assert_eq!(run(&["deadletter", "retry", &second, "--event", "mended.json"]).0, Some(0));
    assert_eq!(run(&["deadletter", "retry", &second]).0, Some(5), "it is gone");
    assert_eq!(run(&["deadletter", "drop", "--all"]).0, Some(2), "not without --yes");
    assert_eq!(letters(&api, "").await.len(), 1);
    let (code, out, _) = run(&["deadletter", "drop", "--all", "--yes"]);
    assert!(code == Some(0) && out.contains("dropped"), "{out}");
    assert!(letters(&api, "").await.is_empty());
    assert_eq!(database.number("SELECT COUNT(*) FROM events WHERE source = '/tests'").await, 2);
}

async fn a_reason_may_quote_what_no_database_keeps(database: Database) {
    let settings = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let orchestrator = Orchestrator::start(settings).await;
    let api = orchestrator.api();
    let store = Store::open(database.url(), Vec::new()).await.unwrap();
    let context = json!({ "content_type": "application/json", "headers": { "x\0": ["y\0"] } });
    let body = br#"{"id": "1", "source": "/s", "type": "t", "a\u0000b": 1}"#;
    let letter = DeadLetter::new("amqp:q", "a\0b".to_owned(), context.clone(), &context, body);
    store.record(Vec::new(), vec![letter]).await.unwrap();
    store.database().close().await;
    let kept = letters(&api, "").await.remove(0);
    assert_eq!(kept["reason"], "a\u{fffd}b");
    let path = format!("/api/v1/deadletters/{}", seq(&kept));
    assert_eq!(api.get(&path).await.ok()["context"]["headers"], json!({ "x\u{fffd}": ["y\u{fffd}"] }));
    let refused = retry(&api, seq(&kept), json!({})).await.refused(422);
    assert!(
        refused["detail"].as_str().unwrap().contains("`a\u{fffd}b` is not an attribute name"),
        "{refused}"
    );
    let kept = api.get(&path).await.ok();
    assert_eq!((&kept["reason"], &kept["tries"]), (&refused["detail"], &json!(1)));
}
