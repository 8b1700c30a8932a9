//! Pausing, resuming and deleting a workflow: nothing that was gathered is lost, and nothing is started that should not be.

use std::time::Duration;

use refit_orchestrator::config::{Keep, Retention};

use super::*;

on_both_databases! {
    a_batch_that_falls_due_while_paused_is_held
    what_was_due_before_the_pause_fires
    only_triggers_are_paused
    slots_that_came_while_paused_are_caught_up_as_the_schedule_says
    what_is_held_by_a_pause_outlives_what_is_kept_of_events
    a_pause_outlives_a_change_of_the_workflow
    a_workflow_with_active_runs_is_deleted_only_by_force
    a_deleted_workflow_goes_on_with_its_numbers
}

const GATHERS: &str = "
workflow: gathers
on: [{ event: { type: [t] }, batch: { quiet: 2m, count: 3 } }]
concurrency: { limit: 1, on_conflict: parallel }
steps: { a: { run: [x] } }
";

async fn a_batch_that_falls_due_while_paused_is_held(database: Database) {
    let house = House::open(&database).await;
    house.apply(GATHERS).await;
    house.send("e1", "t", json!(1)).await;
    house.send("e2", "t", json!(1)).await;
    house.at(60);
    house.pause("gathers", None).await;
    house.at(3600);
    assert_eq!(house.store.next_due().await.unwrap(), None, "nobody waits for what is held");
    house.send("e3", "t", json!(1)).await;
    assert!(!house.exists("gathers/1").await);
    assert_eq!(house.decisions("e3").await, ["paused"]);
    let view = house.workflow("gathers").await;
    assert_eq!(
        view.paused.as_ref().map(|paused| (paused.by.as_str(), paused.reason.clone())),
        Some(("ada", None))
    );
    assert!(view.open_batches[0].held && view.open_batches[0].count == 2);
    let told = &house.sentences("e1").await[0];
    assert!(told.ends_with("2 events so far; it is held while `gathers` is paused, since T."), "{told}");
    // Pausing again changes nothing; with a reason, it is told from now on. It is paused since then all the same.
    house.store.pause_workflow("gathers", "bob", None).await.unwrap();
    assert_eq!(house.workflow("gathers").await.paused, view.paused);
    house.store.pause_workflow("gathers", "bob", Some("again")).await.unwrap();
    let told = house.workflow("gathers").await.paused.unwrap();
    assert_eq!((told.at, told.by.as_str()), (view.paused.unwrap().at, "bob"));
    assert_eq!(told.reason.as_deref(), Some("again"));

    // Whoever takes over knows of it, and after it everything goes on.
    let second = House::open(&database).await;
    second.at(7200);
    second.resume("gathers").await;
    assert_eq!(second.run("gathers/1").await.events.unwrap(), ["e1", "e2"]);
    assert_eq!(second.decisions("e1").await, ["batched", "started"]);
    assert_eq!(second.decisions("e3").await, ["paused"], "it starts nothing later either");
    assert_eq!(second.workflow("gathers").await.paused, None);
    for id in ["e4", "e5", "e6"] {
        second.send(id, "t", json!(1)).await;
    }
    assert_eq!(second.run("gathers/2").await.event_count, 3);
}

/// What is decided depends on when events were received and things were due, not on when somebody looked.
async fn what_was_due_before_the_pause_fires(database: Database) {
    let house = House::open(&database).await;
    house.apply(GATHERS).await;
    house.send("e1", "t", json!(1)).await;
    house.at(200);
    for id in ["e2", "e3"] {
        house.record(id, "t", json!(1)).await;
    }
    house.at(210);
    // The first batch has been due for a minute, and two events are not routed yet.
    house.pause("gathers", None).await;
    house.at(220);
    house.look().await;
    assert_eq!(house.run("gathers/1").await.events.unwrap(), ["e1"]);
    assert_eq!(house.decisions("e2").await, ["batched"]);
    house.at(3600);
    house.look().await;
    assert!(!house.exists("gathers/2").await);
    house.resume("gathers").await;
    assert_eq!(house.run("gathers/2").await.events.unwrap(), ["e2", "e3"]);
}

async fn only_triggers_are_paused(database: Database) {
    let house = House::open(&database).await;
    let text = "
workflow: lane
on: [{ event: { type: [t] }, where: data.n > 0 }]
concurrency: { limit: 1, on_conflict: queue }
steps: { a: { run: [x] } }
";
    house.apply(text).await;
    house.send("e1", "t", json!({ "n": 1 })).await;
    house.send("e2", "t", json!({ "n": 1 })).await;
    house.pause("lane", None).await;
    // What does not count is told as always, and what people ask for starts.
    house.send("zero", "t", json!({ "n": 0 })).await;
    house.send("error", "t", json!({})).await;
    assert_eq!(house.decisions("zero").await, ["unmatched"]);
    assert_eq!(house.decisions("error").await, ["filter_error"]);
    assert_eq!(house.start("lane", "by-hand").await, "lane/3");
    assert_eq!(
        house.sentences("by-hand").await,
        [
            "It asked for a run of `lane`; run lane/3 was made for it and is queued: 1 of 1 running: waits for its turn."
        ]
    );
    // A run that waits has its turn.
    house.change("lane/1", Input::Cancelled { by: "ada".to_owned() }).await;
    house.look().await;
    assert_eq!(house.run("lane/2").await.state, "running");
}

async fn slots_that_came_while_paused_are_caught_up_as_the_schedule_says(database: Database) {
    let house = House::open(&database).await;
    for (name, catch_up) in [("none", "none"), ("last", "last"), ("all", "all")] {
        let text = format!(
            "workflow: {name}\non: [{{ cron: '0 * * * *', catch_up: {catch_up} }}]\n\
             concurrency: {{ on_conflict: parallel }}\nsteps: {{ a: {{ run: [x] }} }}\n"
        );
        house.apply(&text).await;
    }
    // Somebody else is started by the same slots, and must not be twice.
    let listens = "workflow: listens\non: [{ event: { type: [refit.schedule], subject: [all] } }]\n\
                   concurrency: { on_conflict: parallel }\nsteps: { a: { run: [x] } }\n";
    house.apply(listens).await;
    for name in ["none", "last", "all"] {
        house.pause(name, None).await;
    }
    for hour in 1..=3 {
        house.at(hour * 3600 + 1);
        house.look().await;
    }
    for name in ["none", "last", "all"] {
        assert!(!house.exists(&format!("{name}/1")).await, "{name} is paused");
    }
    let paused = EventFilter { decision: Some("paused".to_owned()), ..EventFilter::default() };
    assert_eq!(house.list(paused).await.len(), 9, "every slot is told so");
    house.at(4 * 3600 - 1800);
    for name in ["none", "last", "all"] {
        house.resume(name).await;
    }
    assert!(!house.exists("none/1").await);
    assert!(house.exists("last/1").await && !house.exists("last/2").await);
    assert!(house.exists("all/3").await && !house.exists("all/4").await);
    assert!(house.exists("listens/3").await && !house.exists("listens/4").await);
    assert_eq!(house.run("all/1").await.trigger, "cron 0 * * * * UTC");
    // Resuming once more starts nothing, and the next slot is one run each.
    house.resume("all").await;
    house.pause("all", None).await;
    house.resume("all").await;
    assert!(!house.exists("all/4").await);
    house.at(4 * 3600 + 1);
    house.look().await;
    for run in ["none/1", "last/2", "all/4", "listens/4"] {
        assert!(house.exists(run).await, "{run}");
    }
}

async fn what_is_held_by_a_pause_outlives_what_is_kept_of_events(database: Database) {
    let house = House::open(&database).await;
    house
        .apply(
            "workflow: all\non: [{ cron: '0 * * * *', catch_up: all }]\n\
             concurrency: { on_conflict: parallel }\nsteps: { a: { run: [x] } }\n",
        )
        .await;
    house.apply(GATHERS).await;
    house.send("e1", "t", json!(1)).await;
    house.pause("all", None).await;
    house.pause("gathers", None).await;
    house.send("told", "t", json!(1)).await;
    for hour in 1..=3 {
        house.at(hour * 3600 + 1);
        house.look().await;
    }
    house.at(4 * 3600 - 1800);
    let minute = Keep { age: Some(Duration::from_secs(60)), count: None };
    let retention = Retention { events: minute, ..Retention::ALL };
    let paused = || EventFilter { decision: Some("paused".to_owned()), ..EventFilter::default() };
    assert_eq!(house.list(paused()).await.len(), 4);
    house.store.sweep(retention, "here").await.unwrap();
    let left = house.list(paused()).await;
    assert!(left.len() == 3 && !left.contains(&"told".to_owned()), "{left:?}");

    house.resume("all").await;
    house.resume("gathers").await;
    assert_eq!(house.run("gathers/1").await.events.unwrap(), ["e1"]);
    // Neither the pause that is over nor a later one holds them.
    for run in ["all/1", "all/2", "all/3"] {
        house.change(run, Input::Cancelled { by: "ada".to_owned() }).await;
    }
    house.at(4 * 3600 - 900);
    house.pause("all", None).await;
    house.store.sweep(retention, "here").await.unwrap();
    assert!(house.list(paused()).await.is_empty());
}

async fn a_pause_outlives_a_change_of_the_workflow(database: Database) {
    let house = House::open(&database).await;
    house.apply(GATHERS).await;
    house.send("e1", "t", json!(1)).await;
    house.at(60);
    house.pause("gathers", Some("slow")).await;
    // By this rule it would have been due before the pause.
    house.apply(&GATHERS.replace("quiet: 2m", "quiet: 10s")).await;
    house.at(3600);
    house.look().await;
    assert!(!house.exists("gathers/1").await, "it is held still");
    assert!(house.workflow("gathers").await.paused.is_some());
    // A trigger that is taken out tells its events, paused or not.
    house.apply(&GATHERS.replace("type: [t]", "type: [u]")).await;
    assert_eq!(house.decisions("e1").await, ["batched", "skipped"]);
}

async fn a_workflow_with_active_runs_is_deleted_only_by_force(database: Database) {
    let house = House::open(&database).await;
    let text = GATHERS.replace("on: [", "on: [{ cron: '0 3 * * *' }, { event: { type: [now] } }, ");
    house.apply(&text.replace("limit: 1, on_conflict: parallel", "limit: 1, on_conflict: queue")).await;
    house.send("e1", "t", json!(1)).await;
    house.send("now1", "now", json!(1)).await;
    house.send("now2", "now", json!(1)).await;
    match house.delete("gathers", false).await {
        Deletion::Busy(2, first) => assert_eq!(first.to_string(), "gathers/1"),
        other => panic!("{other:?}"),
    }
    assert_eq!(house.workflow("gathers").await.active_runs, 2, "nothing has changed");
    assert_eq!(house.decisions("e1").await, ["batched"]);

    house
        .change("gathers/1", Input::Leased { step: 0, worker: "w".to_owned(), session: "s".to_owned() })
        .await;
    match house.delete("gathers", true).await {
        Deletion::Done { cancelled, gathered } => assert_eq!((cancelled.len(), gathered), (2, 1)),
        other => panic!("{other:?}"),
    }
    assert!(house.store.workflow_view("gathers").await.unwrap().is_none());
    assert!(house.store.workflow_names().await.unwrap().is_empty());
    assert_eq!(house.run("gathers/2").await.state, "cancelled");
    let ending = house.run("gathers/1").await;
    assert_eq!(ending.state, "running", "its step ends first");
    assert_eq!(
        ending.reason.unwrap(),
        "being cancelled by ada, who deleted the workflow: steps are still ending"
    );
    let skipped = house.sentences("e1").await.pop().unwrap();
    assert_eq!(
        skipped,
        "What trigger 3 of `gathers` as it was then had gathered is over, but starts nothing: the workflow was deleted by \
         ada: not needed."
    );
    // Nothing of it is due, and its events start nothing.
    house.at(100_000);
    house.send("now3", "now", json!(1)).await;
    assert_eq!(house.store.next_due().await.unwrap(), None);
    assert_eq!(house.sentences("now3").await, ["It starts nothing: no workflow is registered."]);
    let gone = house.store.pause_workflow("gathers", "ada", None).await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no workflow gathers");
}

async fn a_deleted_workflow_goes_on_with_its_numbers(database: Database) {
    let house = House::open(&database).await;
    let text = "workflow: again\non: [{ event: { type: [t] } }]\nsteps: { a: { run: [x] } }\n";
    house.apply(text).await;
    house.send("e1", "t", json!(1)).await;
    house.change("again/1", Input::Cancelled { by: "ada".to_owned() }).await;
    assert!(matches!(house.delete("again", false).await,
        Deletion::Done { cancelled, gathered: 0 } if cancelled.is_empty()));
    assert_eq!(house.run("again/1").await.events.unwrap(), ["e1"], "its history stays");
    // A run of it can be taken up again.
    house.change("again/1", Input::Retried { all: true, by: "ada".to_owned() }).await;
    house.look().await;
    assert_eq!(house.run("again/1").await.state, "running");
    house.apply(text).await;
    let view = house.workflow("again").await;
    assert_eq!((view.version, view.paused), (2, None));
    house.send("e2", "t", json!(1)).await;
    assert!(house.exists("again/2").await);
    assert_eq!(house.decisions("e1").await, ["started"]);
}
