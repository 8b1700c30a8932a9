//! What the store is: one suite, both databases. A third database would be "pass this". Everything goes through the
//! engine and the store as they run in production; nothing is mocked.

mod children;
mod instances;
mod together;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use refit_orchestrator::engine::{Access, Engine, EngineError, Identity};
use refit_orchestrator::{Config, open_engine};
use refit_tests::services::{self, Database};
use refit_workflows::definition::Workflow;
use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::Run;
use refit_workflows::wire::*;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

on_both_databases! {
    an_event_is_recorded_once_however_often_it_is_delivered
    a_burst_becomes_one_run_that_lists_every_event
    every_decision_about_an_event_is_written_down
    runs_queue_or_go_side_by_side_as_their_workflow_says
    of_all_reports_about_a_step_one_is_accepted
    a_lost_worker_gives_its_step_to_another
    replaying_the_journal_gives_the_stored_run
    two_gated_runs_cannot_both_replace_one_champion
    a_rollback_goes_back_one_promotion_at_a_time
    a_schedule_slot_fires_once_over_two_orchestrators
    starting_a_run_twice_with_one_id_starts_one
    blobs_are_what_their_digest_says
    tokens_work_until_they_expire_or_are_revoked
    outbound_events_go_out_one_per_run_at_a_time
    an_abandoned_call_leaves_no_transaction_behind
    what_an_orchestrator_knew_another_knows
    a_batch_fires_at_its_count
    a_run_that_cannot_be_read_holds_up_nobody
    a_retry_after_a_promotion_leaves_the_champion_alone
}

fn somebody() -> Identity {
    Identity { name: "ada".to_owned(), role: Role::Admin }
}

/// An orchestrator's inside without its HTTP face; `start` makes things happen by themselves.
struct House {
    engine: Engine,
    stop: CancellationToken,
}

impl House {
    async fn open(database: &Database) -> Self {
        Self::open_with(database, |_| {}).await
    }

    async fn open_with(database: &Database, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::local(std::env::temp_dir());
        config.database_url = Some(database.url().to_owned());
        config.poll = Duration::from_millis(100);
        config.grace = Duration::from_secs(60);
        change(&mut config);
        let engine = open_engine(config).await.unwrap();
        Self { engine, stop: CancellationToken::new() }
    }

    async fn started(database: &Database) -> Self {
        let house = Self::open(database).await;
        house.start();
        house
    }

    fn start(&self) {
        let mut loops = self.engine.start(&self.stop);
        tokio::spawn(async move { while loops.join_next().await.is_some() {} });
    }

    async fn apply(&self, text: &str) {
        let apply = Apply { text: text.to_owned(), used: Default::default(), bundle: None };
        match self.engine.apply_workflow(apply, &somebody()).await {
            Ok(_) => {}
            Err(EngineError::Definition(problems)) => panic!("{problems:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Applies a workflow whose text is parsed and which is changed then: for what the tests need. Each orchestrator has
    /// to be told, because the text alone does not say it.
    async fn apply_changed(&self, text: &str, change: impl FnOnce(&mut Workflow)) {
        let mut workflow = Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"));
        change(&mut workflow);
        self.engine.store().apply_workflow(None, workflow, "ada").await.unwrap();
    }

    async fn send(&self, id: &str, kind: &str, data: Value) {
        self.engine.record(vec![event(id, kind, data)], Vec::new()).await.unwrap();
    }

    async fn register(&self, worker: &str, session: &str) {
        let register = Register {
            protocol: WORKER_PROTOCOL,
            worker: worker.to_owned(),
            session: session.to_owned(),
            labels: BTreeMap::new(),
            slots: 4,
            cpus: 2,
            memory: 1 << 30,
            gpus: 0,
            version: "test".to_owned(),
        };
        self.engine.register(register).await.unwrap();
    }

    async fn lease(&self, worker: &str, session: &str, slots: u32, wait_ms: u64) -> Vec<StepOrder> {
        let request = LeaseRequest { worker: worker.to_owned(), session: session.to_owned(), slots, wait_ms };
        self.engine.lease(request).await.unwrap().orders
    }

    async fn lease_one(&self, worker: &str, session: &str) -> StepOrder {
        let mut orders = self.lease(worker, session, 1, 10_000).await;
        assert_eq!(orders.len(), 1, "no step to lease");
        orders.remove(0)
    }

    async fn finish(&self, key: &AttemptKey, outcome: Outcome) -> Result<Finished, EngineError> {
        self.engine.finish(Finish { key: key.clone(), outcome, next: None }).await
    }

    async fn run(&self, name: &str) -> RunView {
        self.engine.run(&name.parse().unwrap(), None, Duration::ZERO).await.unwrap()
    }

    async fn start_run(&self, workflow: &str) -> RunView {
        let start = StartRun { workflow: workflow.to_owned(), params: Map::new(), id: None };
        self.engine.start_run(start, &somebody()).await.unwrap()
    }

    /// Waits until the run is in this state.
    async fn wait(&self, name: &str, state: &str) -> RunView {
        let name: RunName = name.parse().unwrap();
        refit_tests::eventually(&format!("{name} {state}"), Duration::from_secs(20), async || {
            let view = self.engine.run(&name, None, Duration::ZERO).await.ok()?;
            (view.state == state).then_some(view)
        })
        .await
    }

    async fn decisions(&self, id: &str) -> Vec<DecisionView> {
        refit_tests::eventually("decisions", Duration::from_secs(20), async || {
            let events = self.engine.event(id, None).await.unwrap();
            let decisions = events.first()?.decisions.clone();
            // A second delivery is told at once, routing takes a moment.
            decisions.iter().any(|one| one.decision != "duplicate").then_some(decisions)
        })
        .await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn event(id: &str, kind: &str, data: Value) -> CloudEvent {
    CloudEvent::parse(json!({ "id": id, "source": "/test", "type": kind, "data": data })).unwrap()
}

fn success() -> Outcome {
    succeeded_with(0.9)
}

fn succeeded_with(accuracy: f64) -> Outcome {
    let model = ArtifactRef { digest: Digest::of(b"model"), bytes: 5, kind: ArtifactKind::File };
    Outcome::Succeeded {
        outputs: BTreeMap::new(),
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::from([("model".to_owned(), model)]),
    }
}

fn failed() -> Outcome {
    Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "exit code 1".to_owned() }
}

const ONE_STEP: &str = "workflow: one\nsteps:\n  a: { run: [x] }\n";

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
        tokio::spawn(async move { engine.finish(Finish { key, outcome, next: None }).await })
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
    let report = Report {
        key: lost.key.clone(),
        attempt: 1,
        logs: vec![LogChunk { seq: 0, at: house.engine.store().clock().now(), text: "late\n".to_owned() }],
        metrics: BTreeMap::new(),
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

/// The journal of a run, replayed, gives the run as it is stored.
async fn assert_replays(reader: &House, name: &RunName) {
    let stored = reader.engine.store().load_run(name).await.unwrap();
    let mut replayed = Run::create(stored.workflow().clone(), stored.facts().clone());
    for (at, input) in reader.engine.store().journal(name).await.unwrap() {
        replayed.apply(&input, at).unwrap();
    }
    assert_eq!(replayed.head(), stored.head());
    assert_eq!(replayed.steps(), stored.steps());
    assert_eq!(replayed.version(), stored.version());
}

const GATED: &str = "
model: m
on: [{ event: { type: [data] } }]
steps:
  train: { run: [x], artifacts: { model: m } }
  gate:
    needs: [train]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0.01 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";

/// Runs a gated workflow with this accuracy to its end.
async fn retrain(house: &House, workflow: &str, accuracy: f64) -> RunView {
    let name = house.start_run(workflow).await.run.to_string();
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, succeeded_with(accuracy)).await.unwrap();
    house.run(&name).await
}

async fn two_gated_runs_cannot_both_replace_one_champion(database: Database) {
    // Two orchestrators where the database allows it, so that no memory is shared.
    let one = House::started(&database).await;
    let two = if database.kind() == "postgres" { Some(House::started(&database).await) } else { None };
    let two = two.as_ref().unwrap_or(&one);
    one.apply(&format!("workflow: gated{GATED}")).await;
    assert_eq!(retrain(&one, "gated", 0.7).await.state, "succeeded");
    for round in 0..10u32 {
        let base = 0.7 + f64::from(round) * 0.02;
        let mut orders = Vec::new();
        for _ in 0..2 {
            one.start_run("gated").await;
            orders.push(one.lease_one("w", "s").await);
        }
        // Both candidates are better than the champion, the second no better than the first.
        let reports = orders.iter().zip([&one, two]).map(|(order, house)| {
            let (engine, key) = (house.engine.clone(), order.key.clone());
            let outcome = succeeded_with(base + 0.02);
            tokio::spawn(async move { engine.finish(Finish { key, outcome, next: None }).await.unwrap() })
        });
        for report in reports {
            report.await.unwrap();
        }
        let mut states: Vec<(String, RunView)> = Vec::new();
        for order in &orders {
            let run = one.run(&order.key.run.to_string()).await;
            states.push((run.state.clone(), run));
        }
        states.sort_by(|a, b| b.0.cmp(&a.0));
        assert_eq!(states[0].0, "succeeded");
        assert_eq!(states[1].0, "rejected", "the second is judged against the first");
        let decision = states[1].1.steps.as_ref().unwrap()[1].decision.clone().unwrap();
        assert_eq!(decision.champion, states[0].1.promoted.as_ref().map(|promoted| promoted.version));
    }
    let model = one.engine.model("m").await.unwrap();
    assert_eq!((model.versions.len(), model.aliases["champion"]), (11, 11));
    let history = one.engine.history("m").await.unwrap();
    let moves: Vec<_> = history.iter().rev().map(|entry| (entry.from, entry.to)).collect();
    let expected: Vec<_> = (1..=11).map(|to| ((to > 1).then_some(to - 1), to)).collect();
    assert_eq!(moves, expected, "each promotion replaced the version before it");
    assert!(history.iter().all(|entry| entry.evidence.is_some() && entry.reason.is_some()));
}

async fn a_rollback_goes_back_one_promotion_at_a_time(database: Database) {
    let house = House::started(&database).await;
    house.apply(&format!("workflow: gated{GATED}")).await;
    for accuracy in [0.6, 0.7, 0.8] {
        assert_eq!(retrain(&house, "gated", accuracy).await.state, "succeeded");
    }
    let back = || Rollback { alias: "champion".to_owned(), reason: Some("it forgets".to_owned()) };
    let first = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((first.from, first.to), (Some(3), 2));
    let second = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((second.from, second.to), (Some(2), 1));
    let third = house.engine.rollback("m", back(), &somebody()).await.unwrap_err();
    assert!(matches!(third, EngineError::Refused { kind: "nothing-to-roll-back", .. }), "{third}");
    // The next candidate is compared with the version that is in use now.
    let next = retrain(&house, "gated", 0.65).await;
    assert_eq!(next.promoted.map(|promoted| promoted.version), Some(4));
    let fourth = house.engine.rollback("m", back(), &somebody()).await.unwrap();
    assert_eq!((fourth.from, fourth.to), (Some(4), 1));
    let history = house.engine.history("m").await.unwrap();
    assert_eq!((history[0].by.as_str(), history[0].reason.as_deref()), ("ada", Some("it forgets")));
    let filter = refit_orchestrator::engine::EventFilter {
        kind: Some("refit.model.rolled_back".to_owned()),
        limit: 10,
        ..Default::default()
    };
    assert_eq!(house.engine.events(filter).await.unwrap().len(), 3, "each is an event as well");
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

async fn starting_a_run_twice_with_one_id_starts_one(database: Database) {
    let house = House::started(&database).await;
    house.apply("workflow: p\nparams: { n: { type: integer } }\nsteps:\n  a: { run: [x] }\n").await;
    let start = |params: Value, id: Option<&str>| {
        let Value::Object(params) = params else { panic!("params are an object") };
        StartRun { workflow: "p".to_owned(), params, id: id.map(str::to_owned) }
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
    let nobody = StartRun { workflow: "nobody".to_owned(), params: Map::new(), id: None };
    let refused = house.engine.start_run(nobody, &somebody()).await.unwrap_err();
    assert!(matches!(refused, EngineError::NotFound(_)), "{refused}");
}

async fn blobs_are_what_their_digest_says(database: Database) {
    let house = House::open(&database).await;
    let content: Vec<u8> =
        (0..3_000_000u32).map(|number| number.to_le_bytes()[number as usize % 4]).collect();
    let digest = Digest::of(&content);
    let pieces = |bytes: &[u8]| {
        let pieces: Vec<Result<bytes::Bytes, String>> =
            bytes.chunks(70_000).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces)
    };
    assert_eq!(house.engine.missing(vec![digest.clone()]).await.unwrap(), std::slice::from_ref(&digest));
    let wrong = house.engine.put_blob(digest.clone(), pieces(&content[1..])).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    let broken = stream::iter([Ok(bytes::Bytes::from_static(b"abc")), Err("gone".to_owned())]);
    assert!(house.engine.put_blob(digest.clone(), broken).await.is_err());
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 0, "what was refused is not kept");
    for _ in 0..2 {
        house.engine.put_blob(digest.clone(), pieces(&content)).await.unwrap();
    }
    house.engine.put_blob(Digest::of(b""), pieces(b"")).await.unwrap();
    let (bytes, chunks) = house.engine.get_blob(&digest).await.unwrap();
    let chunks: Vec<bytes::Bytes> = chunks.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(bytes, 3_000_000);
    assert!(chunks.concat() == content);
    assert_eq!(database.number("SELECT COUNT(*) FROM blob_chunks").await, 3, "kept once");
    assert!(house.engine.missing(vec![digest]).await.unwrap().is_empty());
}

async fn tokens_work_until_they_expire_or_are_revoked(database: Database) {
    let house = House::open(&database).await;
    assert!(!house.engine.tokens_required().await.unwrap());
    let create = CreateToken { name: "trainer".to_owned(), role: Role::Worker, days: None };
    let made = house.engine.create_token(create).await.unwrap();
    let secret = made.token.clone().unwrap();
    assert!(house.engine.tokens_required().await.unwrap());
    match house.engine.authenticate(&secret).await.unwrap() {
        Access::Known(identity) => {
            assert_eq!(identity, Identity { name: "trainer".to_owned(), role: Role::Worker })
        }
        Access::Unknown => panic!("a fresh token is known"),
    }
    for wrong in
        ["", "refit_", "refit_admin", &secret[..secret.len() - 1], &secret.replace("worker", "admin")]
    {
        assert!(matches!(house.engine.authenticate(wrong).await.unwrap(), Access::Unknown), "{wrong}");
    }
    let stored = database.number("SELECT COUNT(*) FROM tokens WHERE hash LIKE 'refit%'").await;
    assert_eq!(stored, 0, "the secret is not stored");
    assert!(house.engine.tokens().await.unwrap().iter().all(|token| token.token.is_none()));
    house.engine.revoke_token(&made.id).await.unwrap();
    assert!(matches!(house.engine.authenticate(&secret).await.unwrap(), Access::Unknown));
    assert!(house.engine.tokens_required().await.unwrap(), "there is no way back to no tokens");
    let create = CreateToken { name: "old".to_owned(), role: Role::Admin, days: Some(1) };
    let old = house.engine.create_token(create).await.unwrap().token.unwrap();
    execute(&database, "UPDATE tokens SET expires_at = 1 WHERE name = 'old'".to_owned()).await;
    assert!(matches!(house.engine.authenticate(&old).await.unwrap(), Access::Unknown));
}

async fn outbound_events_go_out_one_per_run_at_a_time(database: Database) {
    use refit_orchestrator::engine::Sent;
    let house = House::open_with(&database, |config| {
        config.webhooks.push(refit_orchestrator::config::WebhookTarget {
            name: "hook".to_owned(),
            url: "http://127.0.0.1:9/".to_owned(),
            secret: None,
        });
    })
    .await;
    house.apply("workflow: e\nsteps:\n  a: { emit: { type: first } }\n  b: { needs: [a], emit: { type: second } }\n").await;
    house.start_run("e").await;
    house.start_run("e").await;
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut tries = 0;
    loop {
        let due = house.engine.outbox_due("hook", 100).await.unwrap();
        if due.is_empty() {
            break;
        }
        let mut runs: Vec<String> = due.iter().map(|outbound| stream_of(&outbound.event)).collect();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), due.len(), "two events of one run were handed out together");
        let results = due
            .into_iter()
            .map(|outbound| {
                sent.entry(stream_of(&outbound.event)).or_default().push(outbound.event.kind().to_owned());
                (outbound, Sent::Done)
            })
            .collect();
        house.engine.outbox_sent(results).await.unwrap();
        tries += 1;
        assert!(tries < 20, "the outbox does not get empty");
    }
    let order = vec!["first".to_owned(), "second".to_owned(), "refit.run.succeeded".to_owned()];
    assert_eq!(sent, BTreeMap::from([("e/1".to_owned(), order.clone()), ("e/2".to_owned(), order)]));

    // A failure holds up the rest of its run, and nothing is lost.
    house.start_run("e").await;
    let due = house.engine.outbox_due("hook", 100).await.unwrap();
    assert_eq!(due.len(), 1);
    let failed = due.into_iter().map(|outbound| (outbound, Sent::Failed("away".to_owned()))).collect();
    house.engine.outbox_sent(failed).await.unwrap();
    assert!(house.engine.outbox_due("hook", 100).await.unwrap().is_empty(), "not before its pause is over");
    assert_eq!(database.number("SELECT COUNT(*) FROM outbox").await, 3);
    // Another orchestrator does not send to the same target meanwhile.
    execute(&database, "UPDATE outbox SET due_at = 0".to_owned()).await;
    let other = House::open(&database).await;
    assert!(other.engine.outbox_due("hook", 100).await.unwrap().is_empty());
    assert_eq!(house.engine.outbox_due("hook", 100).await.unwrap().len(), 1);
}

fn stream_of(event: &CloudEvent) -> String {
    event.id().split('/').take(2).collect::<Vec<_>>().join("/")
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
            let start = StartRun { workflow: "one".to_owned(), params: Map::new(), id: None };
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
    first.engine.finish(Finish { key: order.key, outcome: success(), next }).await.unwrap();
    assert_eq!(second.run(&name).await.state, "succeeded");
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

async fn a_retry_after_a_promotion_leaves_the_champion_alone(database: Database) {
    let house = House::started(&database).await;
    house.apply(&format!("workflow: gated{GATED}  tell: {{ needs: [promote], run: [x] }}\n")).await;
    let name = house.start_run("gated").await.run;
    house.register("w", "s").await;
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, succeeded_with(0.7)).await.unwrap();
    let order = house.lease_one("w", "s").await;
    house.finish(&order.key, failed()).await.unwrap();
    house.wait("gated/1", "failed").await;
    house.engine.retry_run(&name, RetryRun { all: false }, &somebody()).await.unwrap();
    let order = house.lease_one("w", "s").await;
    assert_eq!(order.key.step, "tell");
    house.finish(&order.key, success()).await.unwrap();
    let run = house.wait("gated/1", "succeeded").await;
    assert_eq!(run.promoted.map(|promoted| promoted.version), Some(1));
    assert_eq!(house.engine.model("m").await.unwrap().versions.len(), 1);
}

/// Changes the database beside the orchestrator, for what tests cannot wait for.
async fn execute(database: &Database, statement: String) {
    let changed = refit_orchestrator::store::database::Database::open(database.url()).await.unwrap();
    match changed {
        refit_orchestrator::store::database::Database::Sqlite { writer, .. } => {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&writer).await.unwrap();
        }
        refit_orchestrator::store::database::Database::Postgres(pool) => {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
        }
    }
}

/// The two schemas are twins: same tables, same columns, same nullability.
#[tokio::test(flavor = "multi_thread")]
async fn both_schemas_have_the_same_columns() {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    let (lite, pg) = (services::sqlite(), services::postgres().await);
    let (lite, pg) = (Opened::open(lite.url()).await.unwrap(), Opened::open(pg.url()).await.unwrap());
    let columns = async |database: &Opened, query: &'static str| {
        let mut tx = database.read().await.unwrap();
        let rows = tx.all(sql(query)).await.unwrap();
        rows.iter().map(|row| row.text("it").unwrap()).collect::<Vec<_>>()
    };
    let lite = columns(
        &lite,
        "SELECT m.name || '.' || c.name || CASE WHEN c.\"notnull\" = 1 THEN '' ELSE ' NULL' END AS it
         FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations' ORDER BY it",
    )
    .await;
    let mut pg = columns(
        &pg,
        "SELECT table_name || '.' || column_name || CASE WHEN is_nullable = 'NO' THEN '' ELSE ' NULL' END AS it
         FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations' ORDER BY it",
    )
    .await;
    pg.sort();
    let mut lite = lite;
    lite.sort();
    assert!(lite.len() > 60, "only {} columns were found", lite.len());
    assert_eq!(lite, pg);
}

/// NULL where a value is expected is an error on both, not an empty text.
#[tokio::test(flavor = "multi_thread")]
async fn null_is_never_read_as_an_empty_value() {
    use refit_orchestrator::store::database::{Database as Opened, sql};
    for database in [services::sqlite(), services::postgres().await] {
        let opened = Opened::open(database.url()).await.unwrap();
        let mut tx = opened.read().await.unwrap();
        let row = tx.one(sql("SELECT CAST(NULL AS TEXT) AS t, CAST(NULL AS BIGINT) AS i")).await.unwrap();
        assert!(row.text("t").is_err() && row.int("i").is_err());
        assert_eq!((row.opt_text("t").unwrap(), row.opt_int("i").unwrap()), (None, None));
        let mut tx = opened.begin().await.unwrap();
        for (text, number) in [(Some("x"), None), (None, Some(1i64)), (None, None)] {
            let row = tx
                .one(sql("SELECT CAST($1 AS TEXT) AS t, CAST($2 AS BIGINT) AS i").bind(text).bind(number))
                .await
                .unwrap();
            assert_eq!(row.opt_text("t").unwrap().as_deref(), text, "nullable binds");
            assert_eq!(row.opt_int("i").unwrap(), number);
        }
    }
}
