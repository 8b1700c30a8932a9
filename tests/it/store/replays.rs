//! Replays in the store: stored events through today's triggers once more, each once, over kills and several orchestrators.

use refit_orchestrator::store::Next;

use super::*;

on_both_databases! {
    a_replay_routes_stored_events_by_todays_triggers_and_records_nothing
    a_plan_says_what_the_replay_then_does
    to_a_paused_workflow_a_replay_tells_so_and_its_plan_does
    no_more_replays_are_under_way_than_may_be_whoever_asks_at_once
    two_orchestrators_share_a_replay_and_a_kill_repeats_nothing
    a_batch_counts_an_event_once_although_it_is_replayed
    an_event_that_cannot_be_read_is_set_aside_and_the_replay_goes_on
}

const FIRES: &str = "workflow: fires
on: [{ event: { type: [t] }, where: data.n > 1 }]
concurrency: { on_conflict: parallel }
steps:
  a: { emit: { type: told } }
";

async fn settle(house: &House) {
    while {
        let dispatched = house.engine.store().dispatch().await.unwrap();
        dispatched.next >= Next::Held || dispatched.hints != Default::default()
    } {}
}

async fn replay(house: &House, filter: ReplayFilter) -> ReplayView {
    house.engine.ask_replay(filter, &somebody()).await.unwrap()
}

async fn a_replay_routes_stored_events_by_todays_triggers_and_records_nothing(database: Database) {
    let house = House::open(&database).await;
    for n in 0..4 {
        house.send(&format!("e{n}"), "t", json!({ "n": n })).await;
    }
    house.send("other", "u", json!({})).await;
    settle(&house).await;
    assert_eq!(house.decisions("e3").await[0].decision, "unmatched");

    // The workflow comes afterwards: nothing happens by itself.
    house.apply(FIRES).await;
    settle(&house).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 0);
    let filter = ReplayFilter { workflow: Some("nobody".to_owned()), ..ReplayFilter::default() };
    let wrong = house.engine.ask_replay(filter, &somebody()).await.unwrap_err();
    assert!(matches!(wrong, EngineError::NotFound(_)), "{wrong}");

    let events = "SELECT COUNT(*) FROM events WHERE source = '/test'";
    let asked =
        replay(&house, ReplayFilter { workflow: Some("fires".to_owned()), ..ReplayFilter::default() }).await;
    assert_eq!((asked.state.as_str(), asked.events, asked.by.as_str()), ("running", 5, "ada"));
    settle(&house).await;
    let done = house.engine.replay(asked.replay).await.unwrap();
    assert_eq!((done.state.as_str(), done.routed), ("finished", 5));
    assert_eq!(done.decisions, BTreeMap::from([("started".to_owned(), 2), ("unmatched".to_owned(), 3)]));
    assert_eq!(database.number(events).await, 5, "nothing was recorded again");
    let decisions = house.decisions("e3").await;
    let last = decisions.last().unwrap();
    assert_eq!((last.decision.as_str(), last.replay), ("started", Some(asked.replay)));
    assert_eq!((last.replayed_by.as_deref(), decisions[0].replay), (Some("ada"), None));

    // What started something is not among those that started nothing, whatever was decided before.
    let unmatched = EventFilterOf { unmatched: true, limit: 100, ..Default::default() };
    let ids: Vec<String> =
        house.engine.events(unmatched).await.unwrap().into_iter().map(|event| event.id).collect();
    assert!(ids.contains(&"e0".to_owned()) && !ids.contains(&"e3".to_owned()), "{ids:?}");

    // Once more is another act of a person; the same delivery again is not.
    house.send("e3", "t", json!({ "n": 3 })).await;
    settle(&house).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 2);
    let filter = ReplayFilter { ids: vec!["e3".to_owned()], ..ReplayFilter::default() };
    assert_eq!(replay(&house, filter).await.events, 1);
    settle(&house).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 3);

    // What workflows emitted is left out unless asked for.
    assert_eq!(replay(&house, ReplayFilter::default()).await.events, 5);
    let told = ReplayFilter { kind: Some("told".to_owned()), limit: Some(2), ..ReplayFilter::default() };
    assert_eq!(replay(&house, told).await.events, 2);
    let none = ReplayFilter { kind: Some("none".to_owned()), ..ReplayFilter::default() };
    let none = replay(&house, none).await;
    assert_eq!((none.state.as_str(), none.events), ("finished", 0));
}

type EventFilterOf = refit_orchestrator::engine::EventFilter;

async fn a_plan_says_what_the_replay_then_does(database: Database) {
    let house = House::open(&database).await;
    house.apply(FIRES).await;
    house.apply(&FIRES.replace("fires", "lazy").replace("where: data.n > 1", "batch: { count: 100 }")).await;
    for n in 0..450 {
        house.send(&format!("e{n}"), "t", json!({ "n": n % 3 })).await;
    }
    house.send("wrong", "t", json!({})).await;
    house.send("other", "u", json!({})).await;
    settle(&house).await;
    let counts = "SELECT COUNT(*) FROM decisions";
    let (before, runs) = (database.number(counts).await, database.number("SELECT COUNT(*) FROM runs").await);
    let filter = ReplayFilter { workflow: Some("fires".to_owned()), ..ReplayFilter::default() };
    let plan = house.engine.plan_replay(filter.clone()).await.unwrap();
    assert_eq!((plan.events, plan.looked_at, plan.triggers.len()), (452, 452, 1));
    let trigger = &plan.triggers[0];
    assert_eq!((trigger.fires, trigger.gathers, trigger.unmatched, trigger.errors), (150, 0, 300, 1));
    let wrong = plan.decisions.iter().find(|found| found.decision == "filter_error").unwrap();
    assert!(wrong.id == "wrong" && wrong.reason.as_ref().unwrap().contains("where"), "{wrong:?}");
    let reasons = |workflow: &str| {
        let found =
            plan.decisions.iter().filter(|found| found.decision == "unmatched" && found.workflow == workflow);
        found.map(|found| found.reason.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(""), ["no trigger matches"]);
    assert!(
        reasons("fires").len() == 300 && reasons("fires")[0].contains("where"),
        "{:?}",
        reasons("fires")[0]
    );
    assert_eq!(database.number(counts).await, before, "a plan changes nothing");
    let everywhere = house.engine.plan_replay(ReplayFilter::default()).await.unwrap();
    assert_eq!(everywhere.triggers.iter().map(|one| one.gathers).sum::<u64>(), 451);

    let asked = replay(&house, filter).await.replay;
    settle(&house).await;
    let done = house.engine.replay(asked).await.unwrap();
    let expected = [("filter_error", 1), ("started", 150), ("unmatched", 301)];
    assert_eq!(done.decisions, expected.map(|(word, times)| (word.to_owned(), times)).into());
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, runs + 150);
}

async fn to_a_paused_workflow_a_replay_tells_so_and_its_plan_does(database: Database) {
    let house = House::open(&database).await;
    for n in 1..=2 {
        house.send(&format!("e{n}"), "t", json!({ "n": n })).await;
    }
    settle(&house).await;
    house.apply(FIRES).await;
    let pause = PauseWorkflow { reason: Some("slow".to_owned()) };
    house.engine.pause_workflow("fires", pause, &somebody()).await.unwrap();
    let plan = house.engine.plan_replay(ReplayFilter::default()).await.unwrap();
    let trigger = &plan.triggers[0];
    assert_eq!((trigger.fires, trigger.paused, trigger.unmatched), (0, 1, 1));
    let told = plan.decisions.iter().find(|found| found.decision == "paused").unwrap();

    let asked = replay(&house, ReplayFilter::default()).await.replay;
    settle(&house).await;
    let done = house.engine.replay(asked).await.unwrap().decisions;
    assert_eq!(done, [("paused", 1), ("unmatched", 1)].map(|(word, n)| (word.to_owned(), n)).into());
    assert_eq!(house.decisions("e2").await.last().unwrap().reason, told.reason, "in the same words");
    house.engine.resume_workflow("fires").await.unwrap();
    let plan = house.engine.plan_replay(ReplayFilter::default()).await.unwrap();
    assert_eq!((plan.triggers[0].fires, plan.triggers[0].paused), (1, 0));
}

async fn no_more_replays_are_under_way_than_may_be_whoever_asks_at_once(database: Database) {
    let house = House::open(&database).await;
    house.send("e1", "t", json!({})).await;
    settle(&house).await;
    let others = "INSERT INTO replays (asked_at, asked_by, next_event, last_event, body)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 99)
        SELECT 0, 'bob', 1, 1, '{\"filter\": {}, \"events\": 1, \"routed\": 0, \"stopped\": false}' FROM n";
    execute(&database, others.to_owned()).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let engine = house.engine.clone();
        asking.spawn(async move { engine.ask_replay(ReplayFilter::default(), &somebody()).await.is_ok() });
    }
    let asked = asking.join_all().await;
    assert_eq!(asked.iter().filter(|asked| **asked).count(), 1, "{asked:?}");
    assert_eq!(database.number("SELECT COUNT(*) FROM replays WHERE finished_at IS NULL").await, 100);
}

async fn two_orchestrators_share_a_replay_and_a_kill_repeats_nothing(database: Database) {
    let house = House::open(&database).await;
    let events = (0..2_000).map(|n| event(&format!("e{n}"), "t", json!({ "n": n }))).collect();
    house.engine.record(events, Vec::new()).await.unwrap();
    settle(&house).await;
    house.apply(FIRES).await;
    let asked = replay(&house, ReplayFilter::default()).await.replay;
    // Taken up and dropped at any moment, as by a kill, by one orchestrator after the other and by two at once.
    for round in 0..6 {
        let (one, two) = (House::open(&database).await, House::open(&database).await);
        one.start();
        if database.kind() == "postgres" {
            two.start();
        }
        tokio::time::sleep(Duration::from_millis(15 * round)).await;
    }
    let last = House::started(&database).await;
    refit_tests::eventually("the replay is through", Duration::from_secs(60), async || {
        (last.engine.replay(asked).await.unwrap().state == "finished").then_some(())
    })
    .await;
    let done = last.engine.replay(asked).await.unwrap();
    assert_eq!((done.routed, done.decisions["started"]), (2_000, 1_998));
    let twice = "SELECT COUNT(*) FROM (SELECT event FROM decisions WHERE replay IS NOT NULL
        GROUP BY event HAVING COUNT(*) > 1) AS twice";
    assert_eq!(database.number(twice).await, 0, "an event was routed twice by one replay");
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 1_998);
}

async fn a_batch_counts_an_event_once_although_it_is_replayed(database: Database) {
    let house = House::open(&database).await;
    house.apply(&FIRES.replace("where: data.n > 1", "batch: { count: 3 }")).await;
    for n in 0..2 {
        house.send(&format!("e{n}"), "t", json!({ "n": n })).await;
    }
    settle(&house).await;
    for _ in 0..2 {
        replay(&house, ReplayFilter::default()).await;
        settle(&house).await;
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 0, "two events are not three");
    let decisions = house.decisions("e0").await;
    assert!(decisions[1].decision == "skipped" && decisions[1].replay.is_some(), "{decisions:?}");
    house.send("e2", "t", json!({})).await;
    settle(&house).await;
    assert_eq!(house.run("fires/1").await.event_count, 3);
    // The batch is over: now they may come into another.
    replay(&house, ReplayFilter::default()).await;
    settle(&house).await;
    assert_eq!(house.run("fires/2").await.event_count, 3);
    assert_eq!(house.decisions("e0").await.last().unwrap().replay, Some(3));
}

async fn an_event_that_cannot_be_read_is_set_aside_and_the_replay_goes_on(database: Database) {
    let house = House::open(&database).await;
    for n in 2..7 {
        house.send(&format!("e{n}"), "t", json!({ "n": n })).await;
    }
    settle(&house).await;
    house.apply(FIRES).await;
    execute(&database, "UPDATE events SET body = '{ broken' WHERE id = 'e4'".to_owned()).await;
    let asked = replay(&house, ReplayFilter::default()).await.replay;
    settle(&house).await;
    let done = house.engine.replay(asked).await.unwrap();
    assert_eq!((done.state.as_str(), done.routed), ("finished", 5));
    let expected = [("filter_error".to_owned(), 1), ("started".to_owned(), 4)];
    assert_eq!(done.decisions, expected.into());

    // One that is stopped stays where it is.
    execute(&database, "DELETE FROM events WHERE id = 'e4'".to_owned()).await;
    let asked = replay(&house, ReplayFilter::default()).await.replay;
    let stopped = house.engine.stop_replay(asked).await.unwrap();
    settle(&house).await;
    assert_eq!((stopped.state.as_str(), stopped.routed), ("stopped", 0));
    assert_eq!(house.engine.replay(asked).await.unwrap(), stopped);
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 4);
}
