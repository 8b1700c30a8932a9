//! Retention in the store: what is old and nothing refers to goes; everything else stays, whatever is going on.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;
use refit_orchestrator::config::{Destination, Keep, Retention, Target, Webhook};
use refit_orchestrator::engine::DeadLetter;
use refit_orchestrator::store::Next;

use super::*;

on_both_databases! {
    what_is_referred_to_stays_and_everything_else_goes
    nothing_is_lost_of_what_comes_in_while_old_things_go
    what_is_kept_by_number_is_the_newest
    a_run_says_which_of_its_events_are_gone
    a_run_that_has_come_to_something_since_it_was_chosen_stays
    a_replay_stays_while_a_decision_names_it
}

const NOTHING: Keep = Keep { age: Some(Duration::ZERO), count: None };
const NOTHING_KEPT: Retention =
    Retention { events: NOTHING, runs: NOTHING, logs: NOTHING, dead_letters: NOTHING };

const TOLD: &str = "workflow: told
on: [{ event: { type: [told] } }]
concurrency: { key: 'batch.first.id', on_conflict: parallel }
steps:
  a: { emit: { type: told.done } }
";
const WORK: &str = "workflow: work
on: [{ event: { type: [work] } }]
concurrency: { key: 'batch.first.id', on_conflict: parallel }
steps:
  a: { run: [x] }
";
const GATHER: &str = "workflow: gather
on: [{ event: { type: [gather] }, by: data.key, batch: { count: 4 } }]
concurrency: { key: 'batch.first.id', on_conflict: parallel }
steps:
  a: { emit: { type: gathered } }
";
const MODEL: &str = "workflow: model
model: m
on: [{ event: { type: [model] } }]
concurrency: { key: 'batch.first.id', on_conflict: parallel }
steps:
  train: { run: [x], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

async fn keeping(database: &Database, retention: Retention) -> House {
    House::open_with(database, |config| {
        config.retention = retention;
        config.targets =
            vec![Target::new("audit", Destination::Webhook(Webhook::at("http://127.0.0.1:1/hook")))];
    })
    .await
}

/// Routes everything there is.
async fn settle(house: &House) {
    loop {
        let (dispatched, _) =
            (house.engine.store().dispatch().await.unwrap(), house.engine.store().follow_children().await);
        if dispatched.next < Next::Held && dispatched.hints == Default::default() {
            return;
        }
    }
}

/// Waits until the clock has moved on from whatever was recorded.
async fn let_the_clock_move(house: &House) {
    let now = house.engine.store().clock().now();
    refit_tests::eventually("the clock moves", Duration::from_secs(5), async || {
        (house.engine.store().clock().now() > now).then_some(())
    })
    .await;
}

async fn numbers(database: &Database, sql: &str) -> BTreeSet<i64> {
    database.texts(sql).await.iter().map(|text| text.parse().unwrap()).collect()
}

async fn pairs(database: &Database, sql: &str) -> Vec<(i64, i64)> {
    let texts = database.texts(sql).await;
    let pair = |text: &String| text.split_once(' ').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
    texts.iter().map(|text| pair(text).unwrap()).collect()
}

const EVENTS: &str = "SELECT CAST(seq AS TEXT) FROM events";
const RUNS: &str = "SELECT CAST(id AS TEXT) FROM runs";

/// What must stay, worked out from the tables in another way than the store does.
async fn referred_to(database: &Database) -> (BTreeSet<i64>, BTreeSet<i64>) {
    let live =
        numbers(database, "SELECT CAST(id AS TEXT) FROM runs WHERE state IN ('waiting', 'running')").await;
    let models = numbers(database, "SELECT CAST(run AS TEXT) FROM versions").await;
    let of_runs =
        pairs(database, "SELECT CAST(run AS TEXT) || ' ' || CAST(event AS TEXT) FROM run_events").await;
    let mut events: BTreeSet<i64> = of_runs
        .iter()
        .filter(|(run, _)| live.contains(run) || models.contains(run))
        .map(|(_, event)| *event)
        .collect();
    for sql in [
        "SELECT CAST(seq AS TEXT) FROM events WHERE routed = 0",
        "SELECT CAST(event AS TEXT) FROM outbox",
        "SELECT CAST(event AS TEXT) FROM dead_letters WHERE event IS NOT NULL",
        "SELECT CAST(event AS TEXT) FROM decisions WHERE batch IN (SELECT seq FROM batches WHERE open = 1)",
    ] {
        events.extend(numbers(database, sql).await);
    }
    let ranges = "SELECT CAST(next_event AS TEXT) || ' ' || CAST(last_event AS TEXT) FROM replays";
    let ranges = pairs(database, ranges).await;
    let all = numbers(database, EVENTS).await;
    events.extend(all.iter().filter(|seq| ranges.iter().any(|(from, to)| (from..=to).contains(seq))));

    // One run a lane stays for cooldowns: the latest that was started. Each event has a lane of its own here.
    let mut latest: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let started =
        "SELECT CAST(id AS TEXT) || ' ' || CAST(started_at AS TEXT) || ' ' || workflow || '/' || lane
        FROM runs WHERE started_at IS NOT NULL ORDER BY id";
    for text in database.texts(started).await {
        let [id, at, lane] = text.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let (id, at) = (id.parse().unwrap(), at.parse().unwrap());
        let place = latest.entry(lane.to_owned()).or_insert((at, id));
        *place = (*place).max((at, id));
    }
    let mut runs: BTreeSet<i64> = live.union(&models).copied().collect();
    runs.extend(latest.values().map(|(_, id)| *id));
    (events, runs)
}

async fn what_is_referred_to_stays_and_everything_else_goes(database: Database) {
    let house = keeping(&database, NOTHING_KEPT).await;
    for workflow in [TOLD, WORK, GATHER, MODEL] {
        house.apply(workflow).await;
    }
    house.register("w", "s").await;
    for number in 0..120 {
        let kind = ["told", "work", "gather", "model", "nobody"][rand::rng().random_range(0..5)];
        let key = rand::rng().random_range(0..3);
        house.send(&format!("e{number}"), kind, json!({ "key": key })).await;
    }
    settle(&house).await;
    // Half of the work is done, some of it well enough for a model.
    for order in house.lease("w", "s", 4, 0).await.into_iter().chain(house.lease("w", "s", 40, 0).await) {
        if rand::rng().random_bool(0.5) {
            let accuracy = if rand::rng().random_bool(0.5) { 0.9 } else { 0.1 };
            house.finish(&order.key, succeeded_with(accuracy)).await.unwrap();
        }
    }
    settle(&house).await;
    // Most of what was to be sent is sent; a target has refused one for ever; a replay is under way; some just came.
    execute(&database, "DELETE FROM outbox WHERE seq % 4 <> 0".to_owned()).await;
    execute(
        &database,
        "INSERT INTO dead_letters
            (direction, source, reason, received_at, tries, context, body, bytes, duplicates, target, event)
         SELECT 'out', '/refit', 'gone', 9000000000000000, 0, '{}', BODY, 0, 0, 'audit', MIN(seq) FROM events"
            .replace("BODY", if database.kind() == "sqlite" { "X''" } else { "''" }),
    )
    .await;
    execute(
        &database,
        "INSERT INTO replays (asked_at, asked_by, next_event, last_event, body)
         SELECT 0, 'ada', MIN(seq) + 20, MIN(seq) + 30,
            '{\"filter\": {\"type\": \"none\"}, \"events\": 1, \"routed\": 0, \"stopped\": false}' FROM events"
            .to_owned(),
    )
    .await;
    house.send("unrouted", "told", json!({})).await;
    let_the_clock_move(&house).await;

    let (events, runs) = referred_to(&database).await;
    let before = numbers(&database, EVENTS).await;
    assert!(events.len() > 20 && events.len() < before.len() - 20, "{} of {}", events.len(), before.len());
    let swept = house.engine.sweep().await.unwrap();
    assert_eq!(numbers(&database, EVENTS).await, events);
    assert_eq!(swept.events as usize, before.len() - events.len());
    assert_eq!(numbers(&database, RUNS).await, runs);
    let orphans = [
        "SELECT COUNT(*) FROM decisions WHERE event NOT IN (SELECT seq FROM events)",
        "SELECT COUNT(*) FROM steps WHERE run NOT IN (SELECT id FROM runs)",
        "SELECT COUNT(*) FROM journal WHERE run NOT IN (SELECT id FROM runs)",
        "SELECT COUNT(*) FROM metric_series WHERE run NOT IN (SELECT id FROM runs)",
        "SELECT COUNT(*) FROM run_events WHERE run NOT IN (SELECT id FROM runs)",
        "SELECT COUNT(*) FROM batches WHERE open = 0 AND seq NOT IN
            (SELECT batch FROM decisions WHERE batch IS NOT NULL)",
    ];
    for sql in orphans {
        assert_eq!(database.number(sql).await, 0, "{sql}");
    }
    // Nothing that is left is broken: what goes on goes on.
    for order in house.lease("w", "s", 100, 0).await {
        house.finish(&order.key, success()).await.unwrap();
    }
    settle(&house).await;
    for name in house.engine.store().every_run().await.unwrap() {
        assert_replays(&house, &name).await;
    }
    assert_eq!(house.engine.sweep().await.unwrap().dead_letters, 0, "the letter is of the far future");
}

async fn nothing_is_lost_of_what_comes_in_while_old_things_go(database: Database) {
    let house = keeping(&database, NOTHING_KEPT).await;
    house.apply(TOLD).await;
    let some = |from: usize, kind: &str| {
        (from..from + 100).map(|number| event(&format!("e{number}"), kind, json!(number))).collect::<Vec<_>>()
    };
    for round in 0..30 {
        house.engine.record(some(round * 100, "nobody"), Vec::new()).await.unwrap();
    }
    settle(&house).await;
    let_the_clock_move(&house).await;
    let intake = async {
        for round in 0..30 {
            let receipts = house.engine.record(some(10_000 + round * 100, "told"), Vec::new()).await.unwrap();
            assert!(receipts.iter().all(|receipt| !receipt.duplicate));
        }
    };
    let (swept, ()) = tokio::join!(house.engine.sweep(), intake);
    assert_eq!(swept.unwrap().events, 3000);
    assert_eq!(database.number("SELECT COUNT(*) FROM events WHERE source = '/test'").await, 3000);
    settle(&house).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'told'").await, 3000);
}

async fn what_is_kept_by_number_is_the_newest(database: Database) {
    let few = |count| Keep { age: None, count: Some(count) };
    let retention = Retention { events: few(3), runs: Keep::ALL, logs: few(2), dead_letters: few(1) };
    let house = keeping(&database, retention).await;
    house.apply("workflow: one\nsteps:\n  a: { run: [x] }\n").await;
    let name = house.start_run("one").await.run;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    for seq in 0..5 {
        let chunk = LogChunk {
            seq,
            at: house.engine.store().clock().now(),
            text: format!("line {seq}\n"),
            marks: Vec::new(),
        };
        let key = order.key.clone();
        let report = Report {
            key,
            attempt: 1,
            logs: vec![chunk],
            metrics: BTreeMap::new(),
            checkpoint: None,
            points: Vec::new(),
            set_up_ms: None,
        };
        house.engine.report(report).await.unwrap();
    }
    let letter = |reason: &str| DeadLetter::new("amqp:q", reason.to_owned(), json!({}), &json!(reason), b"");
    house.engine.record(Vec::new(), vec![letter("first"), letter("second")]).await.unwrap();
    let swept = house.engine.sweep().await.unwrap();
    assert_eq!((swept.logs, swept.dead_letters), (0, 1), "a run under way keeps its log");
    assert_eq!(database.texts("SELECT reason FROM dead_letters").await, ["second"]);

    house.finish(&order.key, success()).await.unwrap();
    for number in 0..5 {
        house.send(&format!("e{number}"), "nobody", json!({})).await;
    }
    execute(&database, "DELETE FROM outbox".to_owned()).await;
    settle(&house).await;
    let swept = house.engine.sweep().await.unwrap();
    assert_eq!(swept.logs, 3);
    let left = database.texts("SELECT id FROM events ORDER BY seq").await;
    assert_eq!(left, ["e2", "e3", "e4"]);
    assert_eq!(house.run(&name.to_string()).await.state, "succeeded");
}

async fn a_run_says_which_of_its_events_are_gone(database: Database) {
    let retention = Retention { events: NOTHING, ..Retention::ALL };
    let house = keeping(&database, retention).await;
    house.apply(TOLD).await;
    house.send("e1", "told", json!({})).await;
    settle(&house).await;
    let run = house.run("told/1").await;
    assert_eq!((run.state.as_str(), run.event_count, run.events_gone), ("succeeded", 1, 0));
    execute(&database, "DELETE FROM outbox".to_owned()).await;
    let_the_clock_move(&house).await;
    house.engine.sweep().await.unwrap();
    let run = house.run("told/1").await;
    assert_eq!((run.event_count, run.events_gone, run.events), (1, 1, Some(Vec::new())));
}

async fn a_run_that_has_come_to_something_since_it_was_chosen_stays(database: Database) {
    let house = keeping(&database, Retention { runs: NOTHING, ..Retention::ALL }).await;
    house.apply(ONE_STEP).await;
    house.register("w", "s").await;
    for number in 1..=3 {
        house.start_run("one").await;
        let order = house.lease_one("w", "s").await;
        if number == 1 {
            let chunk = LogChunk {
                seq: 0,
                at: house.engine.store().clock().now(),
                text: "line\n".to_owned(),
                marks: Vec::new(),
            };
            let key = order.key.clone();
            let report = Report {
                key,
                attempt: 1,
                logs: vec![chunk],
                metrics: BTreeMap::new(),
                checkpoint: None,
                points: Vec::new(),
                set_up_ms: None,
            };
            house.engine.report(report).await.unwrap();
        }
        house.finish(&order.key, success()).await.unwrap();
        let_the_clock_move(&house).await;
    }
    // Between the last piece of its log and itself, as if somebody had retried it and it were over again.
    let insert =
        "INSERT INTO versions (model, version, run, artifact, artifact_ref, metrics, evidence, created_at)
        VALUES ('m', 1, OLD.run, '', '{}', '{}', '{}', 0);";
    if database.kind() == "sqlite" {
        let trigger = format!("CREATE TRIGGER retried AFTER DELETE ON logs BEGIN {insert} END");
        execute(&database, trigger).await;
    } else {
        let function = format!(
            "CREATE FUNCTION retried() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {insert} RETURN NULL; END $$"
        );
        execute(&database, function).await;
        let trigger = "CREATE TRIGGER retried AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION retried()";
        execute(&database, trigger.to_owned()).await;
    }
    let swept = house.engine.sweep().await.unwrap();
    let left = database.texts("SELECT CAST(number AS TEXT) FROM runs ORDER BY number").await;
    assert_eq!(left, ["1", "3"], "the second goes, and the latest stays for cooldowns");
    assert_eq!(swept.runs, 1);
    assert_eq!(house.run("one/1").await.state, "succeeded");
}

async fn a_replay_stays_while_a_decision_names_it(database: Database) {
    let house = keeping(&database, Retention { events: NOTHING, ..Retention::ALL }).await;
    house.apply(TOLD).await;
    house.apply(GATHER).await;
    house.send("e1", "told", json!({})).await;
    house.send("e2", "gather", json!({ "key": 1 })).await;
    settle(&house).await;
    let mut asked = Vec::new();
    for kind in ["told", "gather", "none"] {
        let filter = ReplayFilter { kind: Some(kind.to_owned()), ..ReplayFilter::default() };
        asked.push(house.engine.ask_replay(filter, &somebody()).await.unwrap().replay);
        settle(&house).await;
    }
    let under_way = "INSERT INTO replays (asked_at, asked_by, next_event, last_event, body)
        VALUES (0, 'ada', 1000000, 1000001,
            '{\"filter\": {}, \"events\": 1, \"routed\": 0, \"stopped\": false}')";
    execute(&database, under_way.to_owned()).await;
    execute(&database, "DELETE FROM outbox".to_owned()).await;
    let_the_clock_move(&house).await;

    let swept = house.engine.sweep().await.unwrap();
    let left =
        numbers(&database, "SELECT CAST(seq AS TEXT) FROM replays WHERE finished_at IS NOT NULL").await;
    assert_eq!((swept.replays, left), (2, BTreeSet::from([asked[1]])), "an open batch keeps its event");
    assert_eq!(house.decisions("e2").await.last().unwrap().replay, Some(asked[1]));
    assert_eq!(database.number("SELECT COUNT(*) FROM replays WHERE finished_at IS NULL").await, 1);
}
