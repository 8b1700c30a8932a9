//! Listings of events by whatever people ask for, and how a run's events came.

use super::*;

on_both_databases! {
    events_are_listed_by_what_is_asked_for
    a_listing_goes_on_where_the_page_before_ended
    a_run_tells_how_its_events_came
    a_workflow_tells_what_it_waits_for
}

/// Decisions, batch, count, first and last event of an arrival.
type Line = (Vec<String>, Option<i64>, i64, String, String);

async fn some_events(database: &Database) -> House {
    let house = House::open(database).await;
    house.apply("workflow: w\non: [{ event: { type: [t] } }]\nsteps: { a: { run: [x] } }\n").await;
    house
        .apply("workflow: v\non: [{ event: { type: [t] }, where: data > 1 }]\nsteps: { a: { run: [x] } }\n")
        .await;
    house.send("t1", "t", json!(1)).await;
    house.send("u1", "u", json!(1)).await;
    house.at(3600);
    house.send("t2", "t", json!(2)).await;
    house.send("t2", "t", json!(2)).await;
    house.send("u2", "u", json!(1)).await;
    house
}

async fn events_are_listed_by_what_is_asked_for(database: Database) {
    let house = some_events(&database).await;
    let text = |text: &str| Some(text.to_owned());
    let no = EventFilter::default;
    let since = Some(refit_workflows::time::Timestamp::from_millis(START + 1_800_000));
    for (what, filter, expected) in [
        ("all", no(), vec!["u2", "t2", "u1", "t1"]),
        ("type", EventFilter { kind: text("t"), ..no() }, vec!["t2", "t1"]),
        ("source", EventFilter { source: text("/test"), ..no() }, vec!["u2", "t2", "u1", "t1"]),
        ("subject", EventFilter { subject: text("s"), kind: text("u"), ..no() }, vec!["u2", "u1"]),
        ("no subject", EventFilter { subject: text("other"), ..no() }, vec![]),
        ("unmatched", EventFilter { decision: text("unmatched"), ..no() }, vec!["u2", "u1", "t1"]),
        ("of one", EventFilter { decision: text("unmatched"), workflow: text("v"), ..no() }, vec!["t1"]),
        ("workflow", EventFilter { workflow: text("v"), ..no() }, vec!["t2", "t1"]),
        // Two runs, one event: it is listed once.
        ("started", EventFilter { decision: text("started"), ..no() }, vec!["t2", "t1"]),
        ("duplicate", EventFilter { decision: text("duplicate"), ..no() }, vec!["t2"]),
        ("duplicate of", EventFilter { decision: text("duplicate"), kind: text("u"), ..no() }, vec![]),
        ("run", EventFilter { run: "v/1".parse().ok(), ..no() }, vec!["t2"]),
        ("no run", EventFilter { run: "v/9".parse().ok(), ..no() }, vec![]),
        ("since", EventFilter { since, ..no() }, vec!["u2", "t2"]),
        ("since, type", EventFilter { since, kind: text("u"), ..no() }, vec!["u2"]),
        ("since, decided", EventFilter { since, decision: text("unmatched"), ..no() }, vec!["u2"]),
    ] {
        assert_eq!(house.list(filter.clone()).await, expected, "{what}");
        let mut oldest = house.list(EventFilter { oldest_first: true, ..filter }).await;
        oldest.reverse();
        assert_eq!(oldest, expected, "{what}, oldest first");
    }
}

async fn a_listing_goes_on_where_the_page_before_ended(database: Database) {
    let house = some_events(&database).await;
    for oldest_first in [false, true] {
        for (decision, workflow, expected) in
            [(None, None, 4), (Some("started"), None, 2), (None, Some("v"), 2)]
        {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let filter = EventFilter {
                    decision: decision.map(str::to_owned),
                    workflow: workflow.map(str::to_owned),
                    oldest_first,
                    after,
                    limit: 1,
                    ..EventFilter::default()
                };
                let Some(event) = house.store.events(filter).await.unwrap().pop() else { break };
                after = Some(event.seq);
                found.push(event.id);
            }
            assert_eq!(found.len(), expected, "{decision:?} {workflow:?} {oldest_first}: {found:?}");
        }
    }
}

async fn a_run_tells_how_its_events_came(database: Database) {
    let house = House::open(&database).await;
    let text = "
workflow: w
on:
  - event: { type: [t] }
  - event: { type: [b] }
    batch: { count: 3 }
concurrency: { limit: 1, on_conflict: coalesce }
steps: { a: { run: [x] } }
";
    house.apply(text).await;
    house.send("first", "t", json!(1)).await;
    house.send("waits", "t", json!(1)).await;
    for number in 1..=3 {
        house.send(&format!("b{number}"), "b", json!(1)).await;
    }
    house.send("goes", "t", json!(1)).await;
    assert_eq!(house.start("w", "by-hand").await, "w/2");
    assert_eq!(
        house.sentences("by-hand").await,
        [
            "It asked for a run of `w`; run w/2 was waiting already and takes it in: 1 of 1 running: goes with the run \
          that waits."
        ]
    );
    // A newer version of the workflow takes over what waits.
    house.apply(&text.replace("run: [x]", "run: [y]")).await;
    house.send("newer", "t", json!(1)).await;
    let shape = |run: RunView| -> Vec<Line> {
        let arrivals = run.arrivals.unwrap();
        arrivals.into_iter().map(|it| (it.decisions, it.batch, it.count, it.first, it.last)).collect()
    };
    let line = |decisions: &[&str], batch, count, first: &str, last: &str| {
        let decisions = decisions.iter().map(|decision| (*decision).to_owned()).collect();
        (decisions, batch, count, first.to_owned(), last.to_owned())
    };
    assert_eq!(
        shape(house.run("w/2").await),
        [
            line(&["queued"], None, 1, "waits", "waits"),
            line(&["batched", "coalesced"], Some(1), 3, "b1", "b3"),
            line(&["coalesced"], None, 1, "goes", "goes"),
            line(&["coalesced"], None, 1, "by-hand", "by-hand"),
        ]
    );
    let heir = house.run("w/3").await;
    let inherited = heir.arrivals.as_ref().unwrap().last().unwrap().clone();
    assert!(inherited.inherited);
    assert_eq!(inherited.reason.unwrap(), "w/2 was waiting and its events went into w/3");
    assert_eq!(
        shape(heir),
        [line(&["queued"], None, 1, "newer", "newer"), line(&["coalesced"], None, 6, "waits", "by-hand"),]
    );
    let of_run = EventFilter { run: "w/3".parse().ok(), oldest_first: true, ..EventFilter::default() };
    assert_eq!(house.list(of_run).await, ["waits", "b1", "b2", "b3", "goes", "by-hand", "newer"]);
    assert_eq!(
        house.sentences("b1").await.last().unwrap(),
        "w/2 was waiting and its events went into w/3; w/3 stands for it now."
    );
}

async fn a_workflow_tells_what_it_waits_for(database: Database) {
    let house = House::open(&database).await;
    let text = "
workflow: w
on:
  - cron: '0 3 * * *'
  - event: { type: [t] }
    by: data.day
    batch: { count: 10, max_wait: 1h, sum: { of: data.rows, at_least: 100 } }
  - all: [{ type: [features] }, { type: [labels] }]
    within: 1h
  - event: { type: [now] }
    params: { region: '${{ batch.last.data.region }}' }
params: { region: { type: string, default: eu } }
concurrency: { key: params.region, limit: 1, on_conflict: queue }
cooldown: 30m
steps: { a: { run: [x] } }
";
    house.apply(text).await;
    house.send("t1", "t", json!({ "day": "mon", "rows": 40 })).await;
    house.send("f1", "features", json!(1)).await;
    house.send("n1", "now", json!({ "region": "us" })).await;
    house.at(600);
    house.send("n2", "now", json!({ "region": "eu" })).await;
    let view = house.workflow("w").await;
    let waits: Vec<String> = view.open_batches.iter().map(|batch| timeless(&batch.waits_for)).collect();
    assert_eq!(
        waits,
        ["9 more events or a sum of 100 of data.rows (so far 40) or T", "event labels, until T"]
    );
    assert!(view.open_batches.iter().all(|batch| !batch.held));
    assert_eq!(view.schedules.len(), 1);
    assert_eq!((view.schedules[0].trigger, view.schedules[0].next_slot), (0, view.next_slot));
    let left = |view: WorkflowView| -> Vec<(String, i64)> {
        let until = view.cooldowns.into_iter().map(|it| (it.key, (it.until.as_millis() - START) / 1000));
        until.collect()
    };
    assert_eq!(left(view), [("eu".to_owned(), 2400), ("us".to_owned(), 1800)]);
    house.at(2000);
    assert_eq!(left(house.workflow("w").await), [("eu".to_owned(), 2400)]);
}
