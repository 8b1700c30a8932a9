//! Batches, joins and schedules: what waits together, when that ends, and what a changed workflow does to it.

use super::*;

on_both_databases! {
    a_join_fires_once_every_part_was_seen
    a_join_that_expires_is_told_to_its_events
    a_batch_fires_at_its_sum
    when_somebody_looks_does_not_matter
    a_batch_waits_for_what_came_in_time
    a_trigger_that_moves_keeps_what_it_gathered
    a_changed_batch_rule_holds_for_what_is_gathered
    a_schedule_that_moves_skips_no_slot
}

/// A workflow whose runs wait for two events about the same day.
fn joined(on_expire: &str) -> String {
    format!(
        "
workflow: joined
on:
  - all: [{{ type: [features] }}, {{ type: [labels] }}]
    within: 1h
    by: data.day
    on_expire: {on_expire}
    params: {{ n: '${{{{ batch.count }}}}', last: '${{{{ batch.last.type }}}}' }}
params: {{ n: {{ type: integer, default: 0 }}, last: {{ type: string, default: '' }} }}
concurrency: {{ limit: 1, on_conflict: parallel }}
steps:
  a: {{ run: [x] }}
"
    )
}

async fn a_join_fires_once_every_part_was_seen(database: Database) {
    let house = House::open(&database).await;
    house.apply(&joined("drop")).await;
    house.send("f1", "features", json!({ "day": "mon" })).await;
    house.send("f2", "features", json!({ "day": "mon" })).await;
    house.send("other", "labels", json!({ "day": "tue" })).await;
    let open = house.open_batches("joined").await;
    let seen: Vec<_> = open.iter().map(|it| (it.key.as_str(), it.count, it.missing.clone())).collect();
    assert_eq!(seen, [("mon", 2, vec![1]), ("tue", 1, vec![0])]);
    // Another process takes over in the middle.
    let second = House::open(&database).await;
    second.at(3590);
    second.send("l1", "labels", json!({ "day": "mon" })).await;
    assert_eq!(second.states("joined", 1).await, ["running"]);
    assert_eq!(second.events("joined/1").await, ["f1", "f2", "l1"]);
    let run = second.run("joined/1").await;
    assert_eq!((run.trigger.as_str(), &run.params["n"]), ("a join of 3 events", &json!(3)));
    assert_eq!(run.params["last"], json!("labels"), "first and last are by arrival");
    for event in ["f1", "f2", "l1"] {
        let expected = pairs(&[("joined", "joined/1"), ("started", "joined/1")]);
        assert_eq!(second.decided(event).await, expected);
    }
    // The next one begins afresh.
    second.send("l2", "labels", json!({ "day": "mon" })).await;
    assert_eq!(second.open_batches("joined").await.len(), 2);
}

async fn a_join_that_expires_is_told_to_its_events(database: Database) {
    let house = House::open(&database).await;
    house.apply(&joined("drop")).await;
    house.send("f1", "features", json!({ "day": "mon" })).await;
    house.at(3601);
    // It arrives too late, although nobody has looked since.
    house.send("l1", "labels", json!({ "day": "mon" })).await;
    assert_eq!(house.decided("f1").await, pairs(&[("joined", ""), ("skipped", "")]));
    let reason = house.last_reason("f1").await;
    assert_eq!(reason, "the join expired: event labels did not come within 1h 0m");
    assert_eq!(house.decided("l1").await, pairs(&[("joined", "")]));
    assert_eq!(
        house.store.next_due().await.unwrap().map(|due| due.as_millis() / 1000),
        Some((START / 1000) + 7201)
    );
    house.at(7202);
    house.look().await;
    assert_eq!(house.decided("l1").await, pairs(&[("joined", ""), ("skipped", "")]));
    assert_eq!(house.open_batches("joined").await.len(), 0);
    // One that fires all the same knows what came.
    house.apply(&joined("fire").replace("limit: 1", "limit: 2")).await;
    house.send("f2", "features", json!({ "day": "mon" })).await;
    house.at(10_900);
    house.look().await;
    assert_eq!(house.events("joined/1").await, ["f2"]);
    let run = house.run("joined/1").await;
    assert_eq!(run.trigger, "a join of 1 event: event labels did not come within 1h 0m");
}

async fn a_batch_fires_at_its_sum(database: Database) {
    let house = House::open(&database).await;
    let sum = "sum: { of: data.rows, at_least: 100 } }\n    params: { rows: '${{ batch.sum }}'";
    let text = COUNTED.replace("count: 3", sum);
    house.apply(&text.replace("steps:", "params: { rows: { type: number, default: 0 } }\nsteps:")).await;
    house.send("a", "t", json!({ "rows": 60 })).await;
    house.send("wrong", "t", json!({ "rows": "many" })).await;
    assert_eq!(house.decided("wrong").await, pairs(&[("filter_error", "")]));
    assert!(house.last_reason("wrong").await.contains("must be a number"));
    assert_eq!(house.open_batches("counted").await[0].sum, Some(60.0));
    house.send("b", "t", json!({ "rows": 40.5 })).await;
    assert_eq!(house.events("counted/1").await, ["a", "b"]);
    assert_eq!(house.run("counted/1").await.params["rows"], json!(100.5));
}

/// Everything is recorded first and routed long after: the same as if somebody had looked all the time.
async fn when_somebody_looks_does_not_matter(database: Database) {
    let house = House::open(&database).await;
    house.apply(&COUNTED.replace("count: 3", "quiet: 2m, count: 5")).await;
    let mut sent = 0;
    for (at, count) in [(0, 2), (60, 1), (300, 4), (310, 3), (600, 1)] {
        house.at(at);
        for _ in 0..count {
            let one = event(&format!("e{sent:02}"), "t", json!(1));
            house.store.record(vec![one], Vec::new()).await.unwrap();
            sent += 1;
        }
    }
    house.at(3600);
    house.look().await;
    assert_eq!(house.states("counted", 4).await, ["running"; 4]);
    assert_eq!(house.events("counted/1").await, ["e00", "e01", "e02"], "quiet for two minutes");
    assert_eq!(house.events("counted/2").await, ["e03", "e04", "e05", "e06", "e07"], "five");
    assert_eq!(house.events("counted/3").await, ["e08", "e09"]);
    assert_eq!(house.events("counted/4").await, ["e10"]);
}

/// The batch is due when somebody looks, but most of its events are not routed yet.
async fn a_batch_waits_for_what_came_in_time(database: Database) {
    let house = House::open(&database).await;
    house.apply(&COUNTED.replace("count: 3", "quiet: 2m")).await;
    let all = (0..700).map(|number| event(&format!("e{number}"), "t", json!(1))).collect();
    house.store.record(all, Vec::new()).await.unwrap();
    house.at(3600);
    house.look().await;
    assert_eq!(house.states("counted", 1).await, ["running"]);
    assert_eq!(house.run("counted/1").await.event_count, 700);
}

async fn a_trigger_that_moves_keeps_what_it_gathered(database: Database) {
    let house = House::open(&database).await;
    house.apply(COUNTED).await;
    house.send("a", "t", json!(1)).await;
    house.send("b", "t", json!(1)).await;
    let before = COUNTED.replace("on:\n", "on:\n  - event: { type: [other] }\n    batch: { count: 9 }\n");
    house.apply(&before).await;
    house.send("x", "other", json!(1)).await;
    let open = house.open_batches("counted").await;
    let seen: Vec<_> = open.iter().map(|batch| (batch.trigger, batch.count)).collect();
    assert_eq!(seen, [(1, 2), (0, 1)]);
    house.send("c", "t", json!(1)).await;
    assert_eq!(house.events("counted/1").await, ["a", "b", "c"]);
    // And one that is taken out tells its events, at once.
    house.apply(COUNTED).await;
    assert_eq!(house.decided("x").await, pairs(&[("batched", ""), ("skipped", "")]));
    assert!(house.last_reason("x").await.contains("taken out of the workflow"));
    assert_eq!(database.number("SELECT COUNT(*) FROM batches WHERE open = 1").await, 0);
}

async fn a_changed_batch_rule_holds_for_what_is_gathered(database: Database) {
    let house = House::open(&database).await;
    house.apply(COUNTED).await;
    house.send("a", "t", json!(1)).await;
    assert_eq!(house.store.next_due().await.unwrap(), None);
    house.at(10);
    house.apply(&COUNTED.replace("count: 3", "count: 3, quiet: 1m")).await;
    let due = house.store.next_due().await.unwrap().unwrap();
    assert_eq!(due.as_millis() / 1000, START / 1000 + 60);
    house.at(61);
    house.look().await;
    assert_eq!(house.events("counted/1").await, ["a"]);
    // Without a batch, what was gathered fires with what there is.
    house.send("b", "t", json!(1)).await;
    house.apply(&COUNTED.replace("    batch: { count: 3 }\n", "")).await;
    house.look().await;
    assert_eq!(house.events("counted/2").await, ["b"]);
}

async fn a_schedule_that_moves_skips_no_slot(database: Database) {
    let house = House::open(&database).await;
    let text = "workflow: nightly\non:\n  - cron: '0 3 * * *'\nsteps:\n  a: { run: [x] }\n";
    house.apply(text).await;
    let slot = house.store.next_due().await.unwrap().unwrap();
    // The slot is due, and before anybody looks the schedule moves to another place in the file.
    house.store.clock().follow(slot.as_millis() + 30_000);
    house.apply(&text.replace("on:\n", "on:\n  - event: { type: [t] }\n")).await;
    house.look().await;
    assert_eq!(house.states("nightly", 1).await, ["running"]);
    assert_eq!(house.run("nightly/1").await.trigger, "cron 0 3 * * * UTC");
    // Another schedule has slots of its own, and the old one has none any more.
    house.apply(&text.replace("0 3", "0 4")).await;
    let next = house.store.next_due().await.unwrap().unwrap();
    assert_eq!(next, slot.plus(Duration::from_secs(3600)));
}
