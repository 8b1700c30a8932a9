//! Every kind of decision, by real workflows, as `refit event explain` tells it.

use super::*;

on_both_databases! {
    every_kind_of_decision_is_told
    what_matched_nothing_is_told_why_not
    a_workflow_that_came_later_would_match
}

const WORKFLOWS: [&str; 6] = [
    "
workflow: lane
on: [{ event: { type: [t] } }]
concurrency: { limit: 1, on_conflict: coalesce }
steps: { a: { run: [x] } }
",
    "
workflow: skips
on: [{ event: { type: [s] } }]
concurrency: { limit: 1, on_conflict: skip }
steps: { a: { run: [x] } }
",
    "
workflow: cooled
on: [{ event: { type: [c] } }]
concurrency: { limit: 5, on_conflict: skip }
cooldown: 1h
steps: { a: { run: [x] } }
",
    "
workflow: batches
on: [{ event: { type: [b] }, by: data.day, batch: { count: 2, quiet: 5m } }]
steps: { a: { run: [x] } }
",
    "
workflow: joins
on: [{ all: [{ type: [features] }, { type: [labels] }], within: 1h }]
steps: { a: { run: [x] } }
",
    "
workflow: picky
on: [{ event: { type: [p] }, where: 'data.rows > 10' }]
steps: { a: { run: [x] } }
",
];

async fn open(database: &Database) -> House {
    let house = House::open(database).await;
    for text in WORKFLOWS {
        house.apply(text).await;
    }
    house
}

async fn every_kind_of_decision_is_told(database: Database) {
    let house = open(&database).await;
    house.at(60);
    for (id, kind, data) in [
        ("t1", "t", json!(1)),
        ("t2", "t", json!(2)),
        ("t3", "t", json!(3)),
        ("s1", "s", json!(1)),
        ("s2", "s", json!(1)),
        ("c1", "c", json!(1)),
        ("c2", "c", json!(1)),
        ("b1", "b", json!({ "day": "mon" })),
        ("j1", "features", json!(1)),
        ("p1", "p", json!({ "rows": 3 })),
        ("p2", "p", json!({})),
        ("n1", "nothing", json!(1)),
    ] {
        house.send(id, kind, data).await;
    }
    house.send("t1", "t", json!(1)).await;
    house.at(90);
    house.send("t1", "t", json!(1)).await;
    house.pause("skips", Some("moving house")).await;
    house.send("s3", "s", json!(1)).await;

    let batched = "It matches trigger 1 of `batches` (event b by data.day in batches (quiet 5m 0s, count 2)) and joined \
                   batch 1 of `mon`";
    assert_eq!(
        house.sentences("b1").await,
        [format!("{batched}: 1 event so far, it waits for 1 more event or 5m 0s without another.")]
    );
    for (id, expected) in [
        (
            "t1",
            vec![
                "It matches trigger 1 of `lane` (event t); run lane/1 started at once.",
                "It was delivered 2 times more, which changed nothing; the first delivery, at T, counts, the latest was at T.",
            ],
        ),
        (
            "t2",
            vec![
                "It matches trigger 1 of `lane` (event t); run lane/2 was made for it and is queued: 1 of 1 running: \
                     waits for its turn.",
            ],
        ),
        (
            "t3",
            vec![
                "It matches trigger 1 of `lane` (event t); run lane/2 was waiting already and takes it in: 1 of 1 \
                     running: goes with the run that waits.",
            ],
        ),
        (
            "s2",
            vec![
                "It matches trigger 1 of `skips` (event s), but starts nothing: 1 of 1 running, and `on_conflict` is \
                     `skip`.",
            ],
        ),
        (
            "s3",
            vec![
                "It matches trigger 1 of `skips` (event s), but starts nothing, because `skips` was paused then: paused since \
                     T by ada: moving house.",
            ],
        ),
        (
            "c2",
            vec![
                "It matches trigger 1 of `cooled` (event c), but starts nothing, because `cooled` skips during its \
                     cooldown: cooldown until T.",
            ],
        ),
        (
            "j1",
            vec![
                "It matches trigger 1 of `joins` (all of event features, event labels within 1h 0m) and waits in join 2 \
                     (part 1 of 2: event labels is missing): 1 event so far, it waits for event labels, until T.",
            ],
        ),
        (
            "p1",
            vec![
                "It starts nothing of `picky`, trigger 1: the pattern matches, `where` does not hold: data.rows > 10.",
            ],
        ),
        (
            "p2",
            vec![
                "It matches trigger 1 of `picky` (event p where data.rows > 10), but starts nothing, because what \
                     cannot be evaluated is never taken for false: where `data.rows > 10` (column 6): `data.rows > 10`: \
                     there is no `rows`; guard it with has() if it may be missing.",
            ],
        ),
        ("n1", vec!["It starts nothing: no trigger matches."]),
    ] {
        assert_eq!(house.sentences(id).await, expected, "{id}");
    }

    // A batch and a join that are over tell what they came to.
    house.send("b2", "b", json!({ "day": "mon" })).await;
    house.send("j2", "labels", json!(1)).await;
    assert_eq!(house.sentences("b1").await, [
        format!("{batched}: it was over at 2 events, which went into run batches/1."),
        "What trigger 1 of `batches` (event b by data.day in batches (quiet 5m 0s, count 2)) had gathered is over; run \
         batches/1 started."
            .to_owned(),
    ]);
    assert!(house.sentences("j1").await[1].ends_with("had gathered is over; run joins/1 started."));

    the_json_stays(&house).await;
}

/// What scripts read: the event's own keys, and those of the explanation beside them.
async fn the_json_stays(house: &House) {
    let told = [
        ("t1", 0, "started", "lane", Some("lane/1")),
        ("t1", 1, "duplicate", "", None),
        ("t2", 0, "queued", "lane", Some("lane/2")),
        ("t3", 0, "coalesced", "lane", Some("lane/2")),
        ("b1", 0, "batched", "batches", Some("batches/1")),
        ("b1", 1, "started", "batches", Some("batches/1")),
        ("j1", 0, "joined", "joins", Some("joins/1")),
        ("s2", 0, "skipped", "skips", None),
        ("s3", 0, "paused", "skips", None),
        ("c2", 0, "cooldown", "cooled", None),
        ("p1", 0, "unmatched", "picky", None),
        ("p2", 0, "filter_error", "picky", None),
        ("n1", 0, "unmatched", "", None),
    ];
    for (id, place, decision, workflow, run) in told {
        let json = serde_json::to_value(house.explained(id).await).unwrap();
        for key in [
            "seq",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "received_at",
            "data",
            "decisions",
            "explanation",
        ] {
            assert!(json.get(key).is_some(), "no `{key}` in {json:#}");
        }
        let one = &json["decisions"][place];
        assert_eq!(
            (one["decision"].as_str(), one["workflow"].as_str(), one["run"].as_str()),
            (Some(decision), Some(workflow), run),
            "{id}: {one:#}"
        );
        let trigger = if workflow.is_empty() { Value::Null } else { json!(0) };
        assert_eq!(one["trigger"], trigger, "{id}");
        assert!(one.get("reason").is_some() && one["at"].is_string(), "{id}: {one:#}");
        let again: EventExplanation = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(again).unwrap(), json, "{id}");
    }
    // The latest delivery is when the decision about duplicates was made, so to speak.
    let duplicate = house.explained("t1").await.event.decisions.remove(1);
    assert_eq!(duplicate.at.as_millis() / 1000, START / 1000 + 90);
    // Explaining writes nothing down.
    assert_eq!(house.decisions("t1").await, ["started", "duplicate"]);
}

async fn what_matched_nothing_is_told_why_not(database: Database) {
    let house = House::open(&database).await;
    let near = "
workflow: near
on:
  - event: { type: [other] }
  - event: { type: [dataset.updated], data: { table: [customers], rows: [{ numeric: ['>', 0] }] } }
steps: { a: { run: [x] } }
";
    house.apply(near).await;
    house.apply("workflow: nightly\non: [{ cron: '0 3 * * *' }]\nsteps: { a: { run: [x] } }\n").await;
    for number in 0..25 {
        let text = format!(
            "workflow: far{number:02}\non: [{{ event: {{ type: [far] }} }}]\nsteps: {{ a: {{ run: [x] }} }}\n"
        );
        house.apply(&text).await;
    }
    house.send("load", "dataset.updated", json!({ "tabel": "customers", "rows": 5 })).await;
    house.send("typo", "dataset.update", json!({ "table": "customers", "rows": 5 })).await;

    let load = house.explained("load").await;
    let first = &load.not_matched[0];
    assert_eq!(
        (first.workflow.as_str(), first.trigger, first.path.as_deref()),
        ("near", Some(1), Some("data.table"))
    );
    assert_eq!(
        first.reason,
        "trigger 2 (event dataset.updated): there is no `data.table`, the pattern wants \"customers\"; the event has \
         `data.tabel`: is one of them misspelt?"
    );
    let names: Vec<&str> = load.not_matched.iter().map(|not| not.workflow.as_str()).collect();
    assert_eq!((names.len(), names[1], names[19], load.not_listed), (20, "far00", "far18", 6));
    assert!(load.not_matched[1].reason.contains("`type` is \"dataset.updated\", the pattern wants \"far\""));
    let typo = house.explained("typo").await;
    assert_eq!(
        typo.not_matched[0].reason,
        "trigger 2 (event dataset.updated): `type` is \"dataset.update\", the pattern wants \"dataset.updated\"; did you \
         mean `dataset.updated`?"
    );

    // What matched something is told why not only of the workflow that is asked about.
    house.send("good", "far", json!(1)).await;
    assert_eq!(house.explained("good").await.not_matched, []);
    let asked = async |workflow: &str| {
        house.store.explain_event("good", None, Some(workflow)).await.unwrap().remove(0).not_matched
    };
    assert_eq!(asked("near").await.len(), 1);
    assert_eq!(asked("far03").await, [], "its decision tells");
    assert_eq!(
        asked("nightly").await[0].reason,
        "no trigger of it is about events: people and schedules start it"
    );
}

async fn a_workflow_that_came_later_would_match(database: Database) {
    let house = House::open(&database).await;
    house.send("early", "t", json!(1)).await;
    assert_eq!(house.sentences("early").await, ["It starts nothing: no workflow is registered."]);
    house.at(60);
    house.apply(WORKFLOWS[0]).await;
    let not = house.explained("early").await.not_matched.remove(0);
    assert_eq!(
        timeless(&not.reason),
        "trigger 1 (event t) would match it now: the workflow was applied at T"
    );
    assert_eq!(not.path, None);
    // And one that was changed since is not told as if it had been so then.
    house.send("t1", "t", json!(1)).await;
    house.at(120);
    house.apply(&WORKFLOWS[0].replace("[t]", "[u]")).await;
    assert_eq!(
        house.sentences("t1").await,
        ["It matches trigger 1 of `lane` as it was then; run lane/1 started at once."]
    );
}
