//! Runs in the store: started once, one outcome a step, the same after any orchestrator's going and coming.

use super::*;

on_both_databases! {
    starting_a_run_twice_with_one_id_starts_one
    runs_queue_or_go_side_by_side_as_their_workflow_says
    of_all_reports_about_a_step_one_is_accepted
    a_lost_worker_gives_its_step_to_another
    replaying_the_journal_gives_the_stored_run
    what_an_orchestrator_knew_another_knows
    an_abandoned_call_leaves_no_transaction_behind
    a_run_that_cannot_be_read_holds_up_nobody
}

async fn starting_a_run_twice_with_one_id_starts_one(database: Database) {
    let house = House::started(&database).await;
    house.apply("workflow: p\nparams: { n: { type: integer } }\nsteps:\n  a: { run: [x] }\n").await;
    let start = |params: Value, id: Option<&str>| {
        let Value::Object(params) = params else { panic!("params are an object") };
        StartRun { workflow: "p".to_owned(), params, id: id.map(str::to_owned), no_cache: false }
    };
    let first = house.engine.start_run(start(json!({ "n": "7" }), Some("x")), &somebody()).await.unwrap();
    let second = house.engine.start_run(start(json!({ "n": "7" }), Some("x")), &somebody()).await.unwrap();
    assert_eq!(first.run, second.run);
    assert_eq!(first.params["n"], json!(7));
    for (params, word) in [
        (json!({}), "missing"),
        (json!({ "n": "x" }), "whole number"),
        (json!({ "n": 1, "m": 2 }), "not a param"),
    ] {
        let refused = house.engine.start_run(start(params, None), &somebody()).await.unwrap_err();
        assert!(refused.to_string().contains(word), "{refused}");
    }
    assert_eq!(
        house.engine.runs(Default::default()).await.unwrap().len(),
        1,
        "a refused start leaves nothing"
    );
    let nobody = StartRun { workflow: "nobody".to_owned(), params: Map::new(), id: None, no_cache: false };
    let refused = house.engine.start_run(nobody, &somebody()).await.unwrap_err();
    assert!(matches!(refused, EngineError::NotFound(_)), "{refused}");
}

async fn runs_queue_or_go_side_by_side_as_their_workflow_says(database: Database) {
    let house = House::started(&database).await;
    let text = |name: &str, policy: &str| {
        format!(
            "workflow: {name}\non: [{{ event: {{ type: [{name}] }} }}]\nconcurrency: {{ limit: 1, on_conflict: {policy} }}\n\
             steps:\n  a: {{ run: [x] }}\n"
        )
    };
    for policy in ["queue", "parallel"] {
        house.apply(&text(policy, policy)).await;
        for number in 1..=3 {
            house.send(&format!("{policy}-{number}"), policy, json!(number)).await;
            house.decisions(&format!("{policy}-{number}")).await;
        }
    }
    let states = async |workflow: &str| {
        let mut states = Vec::new();
        for number in 1..=3 {
            states.push(house.run(&format!("{workflow}/{number}")).await.state);
        }
        states
    };
    assert_eq!(states("queue").await, ["running", "waiting", "waiting"]);
    assert_eq!(states("parallel").await, ["running", "running", "running"]);

    // Each end makes room for one more.
    house.register("w", "s").await;
    for expected in ["queue/1", "queue/2", "queue/3"] {
        house.wait(expected, "running").await;
        let order = loop {
            let order = house.lease_one("w", "s").await;
            if order.key.run.to_string() == expected {
                break order;
            }
            house.finish(&order.key, success()).await.unwrap();
        };
        house.finish(&order.key, success()).await.unwrap();
        house.wait(expected, "succeeded").await;
    }
}

async fn of_all_reports_about_a_step_one_is_accepted(database: Database) {
    let house = House::started(&database).await;
    house.apply(ONE_STEP).await;
    let run = house.start_run("one").await.run.to_string();
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    assert!(house.lease("w", "s", 1, 0).await.is_empty(), "one lease a step");

    let future = AttemptKey { epoch: order.key.epoch + 1, ..order.key.clone() };
    let refused = house.finish(&future, success()).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { kind: "stale-lease", .. }), "{refused}");

    // Twenty contradicting reports at once: one is accepted, the others change nothing.
    let reports = (0..20).map(|number| {
        let (engine, key) = (house.engine.clone(), order.key.clone());
        let outcome = if number % 2 == 0 { success() } else { failed() };
        tokio::spawn(async move { engine.finish(Finish::of(key, outcome)).await })
    });
    let mut accepted = 0;
    for report in reports {
        match report.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(EngineError::Over(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(accepted, 1);
    let outcomes = house.engine.store().journal(&run.parse().unwrap()).await.unwrap();
    let finished = outcomes
        .iter()
        .filter(|(_, input)| matches!(input, refit_workflows::run::Input::Finished { .. }))
        .count();
    assert_eq!(finished, 1);
}

async fn a_lost_worker_gives_its_step_to_another(database: Database) {
    let house = House::open_with(&database, |config| config.grace = Duration::from_millis(700)).await;
    house.start();
    house.apply(ONE_STEP).await;
    let run = house.start_run("one").await.run.to_string();
    house.register("first", "1").await;
    let lost = house.lease_one("first", "1").await;

    // A worker that comes back as another process has lost what it held, at once.
    house.register("first", "2").await;
    let again = house.lease_one("first", "2").await;
    assert!(again.key.epoch > lost.key.epoch);
    let late = house.finish(&lost.key, success()).await.unwrap_err();
    assert!(matches!(late, EngineError::Refused { kind: "stale-lease", .. }), "{late}");
    // The epoch alone is no proof: a database that was put back gives it out anew.
    let other = Finish { session: Some("1".to_owned()), ..Finish::of(again.key.clone(), success()) };
    let other = house.engine.finish(other).await.unwrap_err();
    assert!(matches!(other, EngineError::Refused { kind: "stale-lease", .. }), "{other}");
    let report = Report {
        key: lost.key.clone(),
        attempt: 1,
        logs: vec![LogChunk {
            seq: 0,
            at: house.engine.store().clock().now(),
            text: "late\n".to_owned(),
            marks: Vec::new(),
        }],
        metrics: BTreeMap::new(),
        checkpoint: None,
        points: Vec::new(),
        set_up_ms: None,
    };
    assert!(house.engine.report(report).await.is_err(), "nor may it write to the log");
    let old = LeaseRequest { worker: "first".to_owned(), session: "1".to_owned(), slots: 1, wait_ms: 0 };
    let refused = house.engine.lease(old).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { kind: "unknown-session", .. }), "{refused}");

    // A worker that falls silent loses it after the grace.
    house.register("second", "1").await;
    let taken = house.lease_one("second", "1").await;
    assert!(taken.key.epoch > again.key.epoch);
    let renew =
        |attempts| Renew { worker: "second".to_owned(), session: "1".to_owned(), attempts, draining: false };
    let renewed = house.engine.renew(renew(vec![taken.key.clone(), again.key.clone()])).await.unwrap();
    assert_eq!(renewed.attempts, [Instruction::Continue, Instruction::Stop]);
    house.finish(&taken.key, success()).await.unwrap();
    let run = house.wait(&run, "succeeded").await;
    assert_eq!(run.steps.unwrap()[0].attempt, 3);
}

async fn replaying_the_journal_gives_the_stored_run(database: Database) {
    let house = House::started(&database).await;
    house
        .apply(
            "
workflow: full
model: m
steps:
  train: { run: [x], artifacts: { model: m }, retry: { attempts: 2, backoff: 1ms } }
  gate: { needs: [train], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  ok: { needs: [gate], approval: {} }
  promote: { needs: [ok], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
  tell: { needs: [promote], emit: { type: done, data: { version: '${{ steps.promote.outputs.version }}' } } }
",
        )
        .await;
    let name = house.start_run("full").await.run;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, failed()).await.unwrap();
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, success()).await.unwrap();
    house.engine.decide(&name, Decide::default(), true, &somebody()).await.unwrap();
    let view = house.wait("full/1", "succeeded").await;
    assert_eq!(view.promoted.map(|promoted| promoted.version), Some(1));
    let emitted = refit_tests::eventually("the emitted event", Duration::from_secs(5), async || {
        let filter = refit_orchestrator::engine::EventFilter {
            kind: Some("done".to_owned()),
            limit: 10,
            ..Default::default()
        };
        house.engine.events(filter).await.unwrap().pop()
    })
    .await;
    let emitted = house.engine.event(&emitted.id, None).await.unwrap();
    assert_eq!(emitted[0].data, Some(json!({ "version": 1 })));

    // Read by another process, so that nothing comes from memory.
    assert_replays(&House::open(&database).await, &name).await;
}

async fn what_an_orchestrator_knew_another_knows(database: Database) {
    let text = "workflow: chain\nsteps:\n  a: { run: [x] }\n  b: { needs: [a], run: [x] }\n  c: { needs: [b], run: [x] }\n";
    let first = House::started(&database).await;
    first.apply(text).await;
    let name = first.start_run("chain").await.run.to_string();
    first.register("w", "s").await;
    let order = first.lease_one("w", "s").await;
    first.finish(&order.key, success()).await.unwrap();
    // The second takes a step over while the first still has the run in memory, and back again.
    let second = House::started(&database).await;
    let order = second.lease_one("w", "s").await;
    assert_eq!(order.key.step, "b");
    second.finish(&order.key, success()).await.unwrap();
    let order = first.lease_one("w", "s").await;
    assert_eq!(order.key.step, "c");
    let next = Some(LeaseRequest { worker: "w".to_owned(), session: "s".to_owned(), slots: 1, wait_ms: 0 });
    first.engine.finish(Finish { next, ..Finish::of(order.key, success()) }).await.unwrap();
    assert_eq!(second.run(&name).await.state, "succeeded");
}

/// Drops calls half-way, at every point where they can be dropped: what is acknowledged afterwards must be there.
async fn an_abandoned_call_leaves_no_transaction_behind(database: Database) {
    let house = House::open(&database).await;
    house.apply(ONE_STEP).await;
    for polls in 0..60u32 {
        let engine = house.engine.clone();
        let abandoned = async move {
            let _ =
                engine.record(vec![event(&format!("abandoned-{polls}"), "t", json!(1))], Vec::new()).await;
            let _ = engine.runs(Default::default()).await;
            let start =
                StartRun { workflow: "one".to_owned(), params: Map::new(), id: None, no_cache: false };
            let _ = engine.start_run(start, &somebody()).await;
        };
        drop_after(abandoned, polls % 12).await;
    }
    for number in 0..100 {
        house.send(&format!("kept-{number}"), "t", json!(1)).await;
    }
    // Another connection sees everything that was acknowledged.
    let other = House::open(&database).await;
    drop(house);
    let kept = database.number("SELECT COUNT(*) FROM events WHERE id LIKE 'kept-%'").await;
    assert_eq!(kept, 100, "acknowledged events were lost");
    let runs = database.number("SELECT COUNT(*) FROM runs").await;
    let events = database.number("SELECT COUNT(*) FROM events WHERE type = 'refit.run.requested'").await;
    assert_eq!(runs, events, "a run and its event are one transaction");
    drop(other);
}

/// Polls a future a number of times, then drops it.
async fn drop_after(future: impl Future<Output = ()>, polls: u32) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if tokio::time::timeout(Duration::from_millis(1), &mut future).await.is_ok() {
            return;
        }
    }
}

async fn a_run_that_cannot_be_read_holds_up_nobody(database: Database) {
    let first = House::open(&database).await;
    first
        .apply("workflow: bad\nconcurrency: { limit: 1, on_conflict: queue }\nsteps:\n  a: { run: [x] }\n")
        .await;
    first.start_run("bad").await;
    first.start_run("bad").await;
    // The first offers a ready step, the second could start now; neither can be read any more.
    execute(&database, "UPDATE runs SET facts = '{'".to_owned()).await;
    execute(&database, "UPDATE runs SET state = 'failed' WHERE number = 1".to_owned()).await;
    let house = House::started(&database).await;
    let queue = "concurrency: { limit: 1, on_conflict: queue }";
    let good =
        format!("workflow: good\non: [{{ event: {{ type: [t] }} }}]\n{queue}\nsteps:\n  a: {{ run: [x] }}\n");
    house.apply(&good).await;
    house.send("e", "t", json!(1)).await;
    assert_eq!(house.decisions("e").await[0].decision, "started", "the event is not blamed");
    house.send("f", "t", json!(2)).await;
    assert_eq!(house.decisions("f").await[0].decision, "queued");
    house.register("w", "s").await;
    // The second waits in a lane that is looked at after the broken one.
    for run in ["good/1", "good/2"] {
        let order = house.lease_one("w", "s").await;
        assert_eq!(order.key.run.to_string(), run);
        house.finish(&order.key, success()).await.unwrap();
        house.wait(run, "succeeded").await;
    }
}
