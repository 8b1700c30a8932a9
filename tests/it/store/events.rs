//! Events in the store: recorded once, routed, gathered, each with what was decided about it.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use super::*;

on_both_databases! {
    an_event_is_recorded_once_however_often_it_is_delivered
    a_burst_becomes_one_run_that_lists_every_event
    every_decision_about_an_event_is_written_down
    a_batch_fires_at_its_count
    events_are_gathered_in_the_order_in_which_they_were_received
    a_schedule_slot_fires_once_over_two_orchestrators
}

async fn an_event_is_recorded_once_however_often_it_is_delivered(database: Database) {
    let house = House::open(&database).await;
    let batch = |ids: &[&str]| ids.iter().map(|id| event(id, "t", json!(1))).collect::<Vec<_>>();
    let receipts = house.engine.record(batch(&["b", "a", "b"]), Vec::new()).await.unwrap();
    let seen: Vec<_> = receipts.iter().map(|receipt| (receipt.id.as_str(), receipt.duplicate)).collect();
    assert_eq!(seen, [("b", false), ("a", false), ("b", true)], "receipts are in the order sent");
    let other = CloudEvent::parse(json!({ "id": "a", "source": "/other", "type": "t" })).unwrap();
    let receipts = house.engine.record(vec![other], Vec::new()).await.unwrap();
    assert!(!receipts[0].duplicate, "the same id from another source is another event");

    // Many deliveries of the same events at once, in different orders.
    let many: Vec<String> = (0..50).map(|number| format!("e{number}")).collect();
    let tasks = (0..8).map(|round| {
        let engine = house.engine.clone();
        let mut events: Vec<CloudEvent> = many.iter().map(|id| event(id, "t", json!(null))).collect();
        events.rotate_left(round * 7);
        tokio::spawn(async move { engine.record(events, Vec::new()).await.unwrap() })
    });
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap().iter().filter(|receipt| !receipt.duplicate).count();
    }
    assert_eq!(new, 50, "each is new exactly once");
    assert_eq!(database.number("SELECT COUNT(*) FROM events").await, 53);
}

async fn a_burst_becomes_one_run_that_lists_every_event(database: Database) {
    let house = House::started(&database).await;
    house
        .apply(
            "
workflow: churn
on:
  - event: { type: [dataset.updated], data: { rows: [{ numeric: ['>', 0] }] } }
    by: data.region
    batch: { quiet: 300ms, max_wait: 10s }
    params: { region: '${{ batch.key }}', rows: '${{ batch.count }}' }
params:
  region: { type: string }
  rows: { type: integer }
steps:
  a: { run: [x] }
",
        )
        .await;
    for number in 0..20 {
        let region = if number % 4 == 0 { "us" } else { "eu" };
        house.send(&format!("e{number}"), "dataset.updated", json!({ "rows": 10, "region": region })).await;
    }
    house.send("ignored", "dataset.updated", json!({ "rows": 0, "region": "eu" })).await;
    let (first, second) = (house.wait("churn/1", "running").await, house.wait("churn/2", "running").await);
    let mut counts: Vec<(Value, u64)> =
        [&first, &second].iter().map(|run| (run.params["region"].clone(), run.event_count)).collect();
    counts.sort_by_key(|(region, _)| region.to_string());
    assert_eq!(counts, [(json!("eu"), 15), (json!("us"), 5)]);
    for run in [&first, &second] {
        assert_eq!(run.events.as_ref().map(Vec::len), Some(run.event_count as usize));
        assert_eq!(run.params["rows"], json!(run.event_count));
    }
    let decisions = house.decisions("e1").await;
    assert_eq!(decisions[0].decision, "batched");
    assert_eq!(decisions[0].run, decisions.last().unwrap().run);
    assert_eq!(decisions.last().unwrap().decision, "started");
    assert_eq!(house.decisions("ignored").await[0].decision, "unmatched");
    let workflow = house.engine.workflow("churn").await.unwrap();
    assert!(workflow.open_batches.is_empty());

    // A step of the run reads all of them.
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    let pages: Vec<_> = house.engine.attempt_events(&order.key).await.unwrap().collect().await;
    let lines: String = pages.into_iter().map(|page| page.unwrap()).collect();
    assert_eq!(lines.lines().count() as u64, order.events);
    assert!(lines.lines().all(|line| serde_json::from_str::<CloudEvent>(line).is_ok()));
}

async fn every_decision_about_an_event_is_written_down(database: Database) {
    let house = House::started(&database).await;
    house
        .apply(
            "
workflow: picky
on:
  - event: { type: [t] }
    where: data.rows > 10
    params: { rows: '${{ batch.first.data.rows }}' }
params: { rows: { type: integer, default: 0 } }
steps:
  a: { run: [x] }
",
        )
        .await;
    house.send("started", "t", json!({ "rows": 11 })).await;
    house.send("filtered", "t", json!({ "rows": 1 })).await;
    house.send("error", "t", json!({})).await;
    house.send("bad-param", "t", json!({ "rows": 11.5 })).await;
    house.send("nobody", "other", json!({})).await;
    house.send("started", "t", json!({ "rows": 11 })).await;
    let decided = async |id: &str| {
        let decisions = house.decisions(id).await;
        (decisions[0].decision.clone(), decisions[0].reason.clone().unwrap_or_default())
    };
    assert_eq!(decided("started").await.0, "started");
    let (decision, reason) = decided("filtered").await;
    assert!(decision == "unmatched" && reason.contains("where"), "{decision} {reason}");
    let (decision, reason) = decided("error").await;
    assert!(decision == "filter_error" && reason.contains("rows"), "{decision} {reason}");
    let (decision, reason) = decided("bad-param").await;
    assert!(decision == "filter_error" && reason.contains("whole number"), "{decision} {reason}");
    assert_eq!(decided("nobody").await, ("unmatched".to_owned(), "no trigger matches".to_owned()));
    let duplicate = house.decisions("started").await.pop().unwrap();
    assert_eq!(duplicate.decision, "duplicate");
    assert_eq!(house.engine.runs(Default::default()).await.unwrap().len(), 1);
}

async fn a_batch_fires_at_its_count(database: Database) {
    let house = House::open(&database).await;
    house
        .apply(
            "workflow: counted\non: [{ event: { type: [t] }, batch: { count: 5 } }]\nsteps:\n  a: { run: [x] }\n",
        )
        .await;
    // All at once, before anything is routed.
    let events = (0..12).map(|number| event(&format!("e{number}"), "t", json!(number))).collect();
    house.engine.record(events, Vec::new()).await.unwrap();
    house.start();
    house.wait("counted/2", "running").await;
    for number in [1, 2] {
        assert_eq!(house.run(&format!("counted/{number}")).await.event_count, 5);
    }
    let open = house.engine.workflow("counted").await.unwrap().open_batches;
    assert_eq!(open.iter().map(|batch| batch.count).collect::<Vec<_>>(), [2]);
}

/// Who was first by the clock is first in the batch, even if its transaction ends last.
async fn events_are_gathered_in_the_order_in_which_they_were_received(database: Database) {
    use refit_orchestrator::store::database::Database as Opened;
    let house = House::started(&database).await;
    house
        .apply("workflow: pairs\non: [{ event: { type: [t] }, batch: { count: 2 } }]\nsteps: { a: { run: [x] } }\n")
        .await;
    let other = Opened::open(database.url()).await.unwrap();
    let mut slow = other.begin().await.unwrap();
    record_in(&mut slow, "first", now_ms(), event("first", "t", json!(1)).to_json()).await;
    let engine = house.engine.clone();
    let sent = tokio::spawn(async move {
        for id in ["second", "third", "fourth"] {
            engine.record(vec![event(id, "t", json!(1))], Vec::new()).await.unwrap();
        }
    });
    // Several looks at what is due fall into this.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        database.number("SELECT COUNT(*) FROM decisions").await,
        0,
        "one that came before is on its way"
    );
    slow.commit().await.unwrap();
    sent.await.unwrap();
    let over = "SELECT COUNT(*) FROM runs";
    refit_tests::eventually("both pairs are gathered", Duration::from_secs(20), async || {
        (database.number(over).await == 2).then_some(())
    })
    .await;
    for (run, pair) in [("pairs/1", ["first", "second"]), ("pairs/2", ["third", "fourth"])] {
        assert_eq!(house.run(run).await.events.unwrap(), pair, "{run}");
    }
}

async fn a_schedule_slot_fires_once_over_two_orchestrators(database: Database) {
    let one = House::open(&database).await;
    one.apply("workflow: nightly\non: [{ cron: '* * * * *' }]\nsteps:\n  a: { run: [x] }\n").await;
    // As if the next slot had come twenty minutes ago and nobody was there since.
    let now = one.engine.store().clock().now().as_millis();
    let due = (now / 60_000 - 20) * 60_000;
    execute(&database, format!("UPDATE schedules SET next_at = {due}")).await;
    let two = House::open(&database).await;
    one.start();
    two.start();
    one.wait("nightly/1", "running").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A slot of the present may come at any moment: its run follows, but not in the same instant.
    let runs = refit_tests::eventually("a run a slot", Duration::from_secs(20), async || {
        let slots = database.number("SELECT COUNT(*) FROM events WHERE type = 'refit.schedule'").await;
        let runs = one.engine.runs(Default::default()).await.unwrap();
        (runs.len() as i64 == slots).then_some(runs)
    })
    .await;
    assert!(runs.len() <= 2, "`catch_up: last` is the default: {} runs", runs.len());
    let twice = "SELECT COUNT(*) FROM (SELECT event FROM decisions WHERE decision = 'started' GROUP BY event
        HAVING COUNT(*) > 1) AS twice";
    assert_eq!(database.number(twice).await, 0, "a slot started two runs");
    assert!(runs[0].trigger.starts_with("cron * * * * *"), "{}", runs[0].trigger);
}

/// One more event, in this transaction.
async fn record_in(
    tx: &mut refit_orchestrator::store::database::Transaction,
    id: &str,
    at: i64,
    body: String,
) {
    use refit_orchestrator::store::database::sql;
    let record = "INSERT INTO events (id, source, type, subject, received_at, routed, duplicates, body)
        VALUES ($1, '/tests', 't', NULL, $2, 0, 0, $3)";
    tx.execute(sql(record).bind(id).bind(at).bind(body)).await.unwrap();
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

const ONE: &str = "workflow: one\non: [{ event: { type: [t] } }]\nconcurrency: { on_conflict: parallel }\nsteps: { a: { run: [x] } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_hangs_keeps_events_from_being_routed_for_seconds_at_most() {
    let database = services::postgres().await;
    let house = House::started(&database).await;
    house.apply(ONE).await;
    let other = refit_orchestrator::store::database::Database::open(database.url()).await.unwrap();
    let hanging = other.begin().await.unwrap();
    house.send("e", "t", json!(1)).await;
    let runs = "SELECT COUNT(*) FROM runs";
    refit_tests::eventually("the run", Duration::from_secs(20), async || {
        (database.number(runs).await == 1).then_some(())
    })
    .await;
    drop(hanging);
}

/// Two that find the same event impossible to route set it aside once, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_cannot_be_routed_is_set_aside_by_two_orchestrators() {
    const ROUNDS: i64 = 40;
    let database = services::postgres().await;
    let houses = (House::started(&database).await, House::started(&database).await);
    houses.0.apply(ONE).await;
    let other = refit_orchestrator::store::database::Database::open(database.url()).await.unwrap();
    for round in 0..ROUNDS {
        let mut tx = other.begin().await.unwrap();
        record_in(&mut tx, &format!("bad-{round}"), now_ms(), "no event".to_owned()).await;
        for place in 0..3 {
            let id = format!("good-{round}-{place}");
            record_in(&mut tx, &id, now_ms(), event(&id, "t", json!(1)).to_json()).await;
        }
        tx.commit().await.unwrap();
        refit_tests::eventually("all are routed", Duration::from_secs(20), async || {
            (database.number("SELECT COUNT(*) FROM events WHERE routed = 0").await == 0).then_some(())
        })
        .await;
    }
    let aside = "SELECT COUNT(*) FROM decisions WHERE decision = 'filter_error'";
    assert_eq!(database.number(aside).await, ROUNDS);
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 3 * ROUNDS);
}
