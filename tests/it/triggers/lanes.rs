//! Concurrency and cooldown: what starts, waits, goes with another, is skipped or cancelled, and what that costs.

use super::*;

on_both_databases! {
    a_waiting_run_takes_events_in
    a_waiting_run_of_an_older_version_is_replaced
    a_retried_run_keeps_its_events_to_itself
    an_event_that_fires_two_triggers_counts_once
    what_is_skipped_is_told_so
    a_cooldown_keeps_starts_apart
    a_cooldown_skips_or_coalesces_as_the_workflow_says
    a_newer_run_cancels_what_goes_on
    what_has_begun_its_step_is_not_cancelled
    a_cooldown_cancels_only_when_it_is_over
    a_run_that_cannot_be_read_takes_nothing_along
    a_burst_into_one_batch_or_one_run_stays_cheap
}

/// A workflow whose runs share one lane.
fn lane(policy: &str) -> String {
    format!(
        "
workflow: w
on:
  - event: {{ type: [t] }}
    params: {{ n: '${{{{ batch.last.data.n }}}}' }}
params: {{ n: {{ type: integer, default: 0 }} }}
concurrency: {{ limit: 1, on_conflict: {policy} }}
steps:
  a: {{ run: [x] }}
  b: {{ needs: [a], run: [x] }}
"
    )
}

/// A workflow named as its policy is, started by events of that name, at most once an hour.
fn cooled(policy: &str) -> String {
    lane(policy)
        .replace("workflow: w", &format!("workflow: {policy}"))
        .replace("[t]", &format!("[{policy}]"))
        .replace("steps:", "cooldown: 1h\nsteps:")
}

/// Sends events named `e1`, `e2`, …, whose data tell their number.
async fn send(house: &House, numbers: std::ops::RangeInclusive<i64>) {
    for number in numbers {
        house.send(&format!("e{number}"), "t", json!({ "n": number })).await;
    }
}

async fn a_waiting_run_takes_events_in(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce")).await;
    send(&house, 1..=4).await;
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    assert_eq!(house.events("w/2").await, ["e2", "e3", "e4"]);
    let run = house.run("w/2").await;
    assert_eq!((&run.params["n"], run.coalesced.len()), (&json!(4), 0), "the newest params win");
    assert_eq!(run.reason.as_deref(), Some("1 of 1 running"));
    assert_eq!(house.decided("e2").await, pairs(&[("queued", "w/2")]));
    assert_eq!(house.decided("e3").await, pairs(&[("coalesced", "w/2")]));
    // By hand as well; and again with the same id.
    let by_hand = async || {
        let event = event("hand", "refit.run.requested", json!({}));
        let params = Map::from_iter([("n".to_owned(), json!(9))]);
        house.store.start_run("w", params, event, "manual, by ada", false).await.unwrap().0.to_string()
    };
    assert_eq!((by_hand().await, by_hand().await), ("w/2".to_owned(), "w/2".to_owned()));
    house.look().await;
    assert_eq!(house.events("w/2").await, ["e2", "e3", "e4", "hand"]);
    // Nothing of it depends on memory.
    let stored = house.replayed(&database, "w/2").await;
    assert_eq!(stored.facts().batch.first["id"], json!("e2"));
    assert_eq!(stored.facts().batch.last["id"], json!("hand"));
    house.lease("w/1", 0).await;
    house.finish("w/1", 0, failed()).await;
    assert_eq!(house.states("w", 2).await, ["failed", "running"]);
    send(&house, 5..=5).await;
    assert_eq!(house.decided("e5").await, pairs(&[("queued", "w/3")]), "what has started takes nothing in");
    house.replayed(&database, "w/2").await;
}

async fn a_waiting_run_of_an_older_version_is_replaced(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce")).await;
    send(&house, 1..=3).await;
    house.apply(&format!("{}  c: {{ run: [x] }}\n", lane("coalesce"))).await;
    send(&house, 4..=5).await;
    assert_eq!(house.states("w", 3).await, ["running", "coalesced", "waiting"]);
    assert_eq!(house.events("w/3").await, ["e2", "e3", "e4", "e5"]);
    assert_eq!(house.run("w/3").await.coalesced, ["w/2".parse().unwrap()]);
    let e2 = pairs(&[("queued", "w/2"), ("coalesced", "w/3")]);
    assert_eq!(house.decided("e2").await, e2);
    assert_eq!(house.run("w/2").await.reason.as_deref(), Some("its events went into w/3"));
    let heir = house.replayed(&database, "w/3").await;
    assert_eq!(heir.facts().batch.first["id"], json!("e2"));
    house.replayed(&database, "w/2").await;
}

async fn a_retried_run_keeps_its_events_to_itself(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce")).await;
    send(&house, 1..=1).await;
    house.complete("w/1").await;
    house.lease("w/1", 1).await;
    house.finish("w/1", 1, failed()).await;
    send(&house, 2..=2).await;
    house.change("w/1", Input::Retried { all: false, by: "ada".to_owned() }).await;
    send(&house, 3..=4).await;
    assert_eq!(house.states("w", 3).await, ["waiting", "running", "waiting"]);
    assert_eq!(house.events("w/1").await, ["e1"]);
    assert_eq!(house.events("w/3").await, ["e3", "e4"]);
    assert_eq!(house.run("w/3").await.reason.as_deref(), Some("1 of 1 running"));
    house.change("w/2", Input::Cancelled { by: "ada".to_owned() }).await;
    house.look().await;
    assert_eq!(house.states("w", 3).await, ["running", "cancelled", "waiting"], "in the order they came");
}

async fn an_event_that_fires_two_triggers_counts_once(database: Database) {
    let house = House::open(&database).await;
    let text = lane("coalesce").replace("on:\n", "on:\n  - event: { type: [t] }\n    batch: { count: 2 }\n");
    house.apply(&text).await;
    send(&house, 1..=5).await;
    let run = house.run("w/2").await;
    assert_eq!((run.state.as_str(), run.event_count), ("waiting", 5));
    assert_eq!(house.events("w/1").await, ["e1"]);
    let listed = house.events("w/2").await;
    assert_eq!(listed, ["e1", "e2", "e3", "e4", "e5"], "e1 waited in a batch as well");
    let stored = house.replayed(&database, "w/2").await;
    assert_eq!(stored.facts().batch.count, 5, "what steps are told");
}

async fn what_is_skipped_is_told_so(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("skip")).await;
    send(&house, 1..=2).await;
    assert_eq!(house.states("w", 1).await, ["running"]);
    assert_eq!(house.decided("e2").await, pairs(&[("skipped", "")]));
    assert_eq!(house.last_reason("e2").await, "1 of 1 running, and `on_conflict` is `skip`");
    let hand = event("hand", "refit.run.requested", json!({}));
    let refused = house.store.start_run("w", Map::new(), hand, "manual", false).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(_)), "{refused}");
    assert_eq!(refused.to_string(), "w skips what it has no room for: 1 of 1 running");
    assert!(house.store.event("hand", None).await.unwrap().is_empty(), "a refused start leaves nothing");
    house.change("w/1", Input::Cancelled { by: "ada".to_owned() }).await;
    send(&house, 3..=3).await;
    assert_eq!(house.decided("e3").await, pairs(&[("started", "w/2")]));
}

async fn a_cooldown_keeps_starts_apart(database: Database) {
    let house = House::open(&database).await;
    for policy in ["queue", "parallel"] {
        house.at(0);
        house.apply(&cooled(policy)).await;
        for number in 1..=3 {
            house.send(&format!("{policy}{number}"), policy, json!({ "n": number })).await;
        }
        assert_eq!(house.states(policy, 3).await, ["running", "waiting", "waiting"]);
        let reason = house.run(&format!("{policy}/2")).await.reason.unwrap();
        assert!(reason.starts_with("cooldown until 2027-01-15T09:00:0"), "{reason}");
        assert!(
            house.last_reason(&format!("{policy}2")).await.starts_with("cooldown until 2027-01-15T09:00:0")
        );
        let listed = house.store.runs(Default::default()).await.unwrap();
        assert!(listed[0].reason.as_ref().unwrap().starts_with("cooldown until"), "{:?}", listed[0].reason);
        let first: RunName = format!("{policy}/1").parse().unwrap();
        house.change(&first.to_string(), Input::Cancelled { by: "ada".to_owned() }).await;
        house.look().await;
        assert_eq!(
            house.states(policy, 3).await,
            ["cancelled", "waiting", "waiting"],
            "there is room, and no run"
        );
        let due = house.store.next_due().await.unwrap().unwrap();
        assert!((3600..3620).contains(&(due.since(Timestamp::from_millis(START)).as_secs())), "{due}");
        house.at(3590);
        house.look().await;
        assert_eq!(house.states(policy, 3).await, ["cancelled", "waiting", "waiting"]);
        // Another process, after a restart.
        let second = House::open(&database).await;
        second.at(3620);
        second.look().await;
        assert_eq!(second.states(policy, 3).await, ["cancelled", "running", "waiting"], "one a cooldown");
        // What somebody wants again waits for no cooldown.
        second.change(&format!("{policy}/2"), Input::Cancelled { by: "ada".to_owned() }).await;
        second.change(&format!("{policy}/1"), Input::Retried { all: true, by: "ada".to_owned() }).await;
        second.look().await;
        assert_eq!(second.states(policy, 3).await, ["running", "cancelled", "waiting"]);
        second.change(&format!("{policy}/1"), Input::Cancelled { by: "ada".to_owned() }).await;
        second.at(7240);
        second.look().await;
        assert_eq!(
            second.states(policy, 3).await,
            ["cancelled", "cancelled", "running"],
            "nor does it begin one"
        );
        second.change(&format!("{policy}/3"), Input::Cancelled { by: "ada".to_owned() }).await;
    }
}

async fn a_cooldown_skips_or_coalesces_as_the_workflow_says(database: Database) {
    let house = House::open(&database).await;
    for policy in ["skip", "coalesce"] {
        house.at(0);
        house.apply(&cooled(policy)).await;
        house.send(&format!("{policy}1"), policy, json!({ "n": 1 })).await;
        house.change(&format!("{policy}/1"), Input::Cancelled { by: "ada".to_owned() }).await;
        for number in 2..=3 {
            house.send(&format!("{policy}{number}"), policy, json!({ "n": number })).await;
        }
    }
    assert_eq!(house.states("skip", 1).await, ["cancelled"]);
    assert_eq!(house.decided("skip3").await, pairs(&[("cooldown", "")]));
    assert!(house.last_reason("skip3").await.starts_with("cooldown until 2027-01-15T09:00:0"));
    assert_eq!(house.states("coalesce", 2).await, ["cancelled", "waiting"]);
    assert_eq!(house.decided("coalesce3").await, pairs(&[("coalesced", "coalesce/2")]));
    house.at(3660);
    house.look().await;
    assert_eq!(house.states("coalesce", 2).await, ["cancelled", "running"]);
    assert_eq!(house.events("coalesce/2").await, ["coalesce2", "coalesce3"]);
    house.send("skip4", "skip", json!({ "n": 4 })).await;
    assert_eq!(house.decided("skip4").await, pairs(&[("started", "skip/2")]));
}

async fn a_newer_run_cancels_what_goes_on(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("cancel_running")).await;
    send(&house, 1..=1).await;
    house.lease("w/1", 0).await;
    send(&house, 2..=3).await;
    // A worker has a step of it: it is being ended, and the newer ones wait for that together.
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    let run = house.run("w/1").await;
    assert!(run.reason.unwrap().contains("cancelled by w/2, which starts in its place"));
    assert_eq!(house.events("w/2").await, ["e1", "e2", "e3"], "no event is lost to a newer one");
    let heir = house.run("w/2").await;
    assert_eq!((heir.coalesced, &heir.params["n"]), (vec!["w/1".parse().unwrap()], &json!(3)));
    assert_eq!(house.decided("e1").await, pairs(&[("started", "w/1"), ("coalesced", "w/2")]));
    assert_eq!(house.last_reason("e1").await, "w/1 was cancelled and its events went into w/2");
    assert_eq!(house.decided("e2").await, pairs(&[("queued", "w/2")]));
    house.finish("w/1", 0, Outcome::Cancelled).await;
    assert_eq!(house.states("w", 2).await, ["cancelled", "running"]);
    // Where no worker has a step, its place is free at once.
    send(&house, 4..=4).await;
    assert_eq!(house.states("w", 3).await, ["cancelled", "cancelled", "running"]);
    assert_eq!(house.events("w/3").await, ["e1", "e2", "e3", "e4"]);
    let heir = house.replayed(&database, "w/3").await;
    assert_eq!((&heir.facts().batch.first["id"], heir.facts().batch.count), (&json!("e1"), 4));
    assert_eq!(house.run("w/3").await.coalesced, ["w/2".parse().unwrap()]);
}

async fn what_has_begun_its_step_is_not_cancelled(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("cancel_running, before: b")).await;
    send(&house, 1..=1).await;
    house.complete("w/1").await;
    house.lease("w/1", 1).await;
    send(&house, 2..=3).await;
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    assert_eq!(house.events("w/2").await, ["e2", "e3"]);
    assert_eq!(house.run("w/1").await.reason, None, "nobody ends it");
    house.finish("w/1", 1, success()).await;
    assert_eq!(house.states("w", 2).await, ["succeeded", "running"]);
    // Its first step has begun, its second has not.
    house.lease("w/2", 0).await;
    send(&house, 4..=4).await;
    house.finish("w/2", 0, Outcome::Cancelled).await;
    assert_eq!(house.states("w", 3).await, ["succeeded", "cancelled", "running"]);
    assert_eq!(house.events("w/3").await, ["e2", "e3", "e4"]);
}

async fn a_cooldown_cancels_only_when_it_is_over(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("cancel_running").replace("steps:", "cooldown: 1h\nsteps:")).await;
    send(&house, 1..=3).await;
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    assert_eq!(house.events("w/2").await, ["e2", "e3"]);
    house.at(3660);
    house.look().await;
    assert_eq!(house.states("w", 2).await, ["cancelled", "running"], "it could not have started any earlier");
    assert_eq!(house.events("w/2").await, ["e1", "e2", "e3"]);
    house.replayed(&database, "w/2").await;
}

async fn a_run_that_cannot_be_read_takes_nothing_along(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce")).await;
    send(&house, 1..=2).await;
    // The run that waits, and would take the next event in, cannot be read any more; nothing is in memory.
    execute(&database, "UPDATE runs SET facts = '{' WHERE number = 2").await;
    let house = House::open(&database).await;
    send(&house, 3..=3).await;
    assert_eq!(house.decided("e3").await, pairs(&[("queued", "w/3")]), "the event is not blamed");
    house.change("w/1", Input::Cancelled { by: "ada".to_owned() }).await;
    house.look().await;
    assert_eq!(house.state("w/3").await, "running", "nor does it hold up who waits behind it");
}

/// Changes the database beside the orchestrator.
async fn execute(database: &Database, statement: &'static str) {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    let mut tx = Opened::open(database.url()).await.unwrap().begin().await.unwrap();
    tx.execute(sql(statement)).await.unwrap();
    tx.commit().await.unwrap();
}

/// Neither a waiting run nor a batch is written once for each event that goes into it: each such write is as large as
/// what it stands for is described by, and so many of them made a long run's line expensive.
async fn a_burst_into_one_batch_or_one_run_stays_cheap(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce")).await;
    house.apply(&COUNTED.replace("[t]", "[gathered]").replace("count: 3", "count: 100000")).await;
    send(&house, 1..=1).await;
    let mut sent = 0;
    let mut burst = async |kind: &str, events: usize| {
        let all: Vec<CloudEvent> = (0..events)
            .map(|number| event(&format!("b{}", sent + number), kind, json!({ "n": number })))
            .collect();
        sent += events;
        house.store.record(all, Vec::new()).await.unwrap();
        let begun = Instant::now();
        house.look().await;
        begun.elapsed().as_secs_f64() * 1000.0
    };
    let (first, second) = (burst("t", 1000).await, burst("t", 1000).await);
    let (third, gathered) = (burst("t", 1000).await, burst("gathered", 1000).await);
    println!(
        "{}: 1,000 events into a waiting run {first:.0} ms, 1,000 more {second:.0} ms, again {third:.0} ms (ratio {:.2}); \
         into a batch {gathered:.0} ms",
        database.kind(),
        third / first,
    );
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    assert_eq!(house.run("w/2").await.event_count, 3000);
    assert_eq!(house.open_batches("counted").await[0].count, 1000);
    // What is bounded: a look routes 200 events and writes a run or a batch once.
    let journal = house.store.journal(&"w/2".parse().unwrap()).await.unwrap();
    assert!(journal.len() <= 3000 / 200 + 1, "{} entries for 3,000 events", journal.len());
    house.replayed(&database, "w/2").await;
}
