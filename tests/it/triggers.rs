//! What triggers and lanes are in the store: one suite, both databases. Time is set by hand and nothing happens by
//! itself, so that "an hour later" is exact and nothing is waited for. What no file can say yet is set after parsing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use refit_orchestrator::store::{ChangeError, Store};
use refit_tests::services::{self, Database};
use refit_workflows::definition::{JoinTrigger, OnConflict, OnExpire, SumRule, Trigger, Workflow};
use refit_workflows::event::CloudEvent;
use refit_workflows::expression::Expression;
use refit_workflows::names::RunName;
use refit_workflows::pattern::Pattern;
use refit_workflows::run::{Input, Run};
use refit_workflows::time::Timestamp;
use refit_workflows::wire::*;
use serde_json::{Map, Value, json};

/// Each test on each database.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::services::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::services::postgres().await).await;
            })*
        }
    };
}

on_both_databases! {
    a_join_fires_once_every_part_was_seen
    a_join_that_expires_is_told_to_its_events
    a_batch_fires_at_its_sum
    when_somebody_looks_does_not_matter
    a_batch_waits_for_what_came_in_time
    a_trigger_that_moves_keeps_what_it_gathered
    a_changed_batch_rule_holds_for_what_is_gathered
    a_schedule_that_moves_skips_no_slot
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

/// When the tests begin, in milliseconds: far enough from the ends of time.
const START: i64 = 1_800_000_000_000;

/// A store, its clock in the test's hand.
struct House {
    store: Store,
}

impl House {
    async fn open(database: &Database) -> Self {
        let house = Self { store: Store::open(database.url(), Vec::new()).await.unwrap() };
        house.at(0);
        house
    }

    /// Sets the clock to this many seconds after the start; it goes on from there.
    fn at(&self, seconds: i64) {
        self.store.clock().follow(START + seconds * 1000);
    }

    async fn apply(&self, text: &str, change: impl FnOnce(&mut Workflow)) {
        let mut workflow = Workflow::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        change(&mut workflow);
        let apply = Apply { text: text.to_owned(), bundle: None };
        self.store.apply_workflow(apply, workflow, "ada").await.unwrap();
    }

    async fn send(&self, id: &str, kind: &str, data: Value) {
        self.store.record(vec![event(id, kind, data)], Vec::new()).await.unwrap();
        self.look().await;
    }

    /// Does everything that is due.
    async fn look(&self) {
        for _ in 0..100 {
            let done = self.store.dispatch().await.unwrap();
            assert!(done.trouble.is_none(), "{:?}", done.trouble);
            if !done.more && !done.hints.events && !done.hints.lanes {
                return;
            }
        }
        panic!("there is always something due");
    }

    async fn run(&self, name: &str) -> RunView {
        self.store.run_view(&name.parse().unwrap()).await.unwrap()
    }

    async fn state(&self, name: &str) -> String {
        self.run(name).await.state
    }

    /// The states of a workflow's runs, by number.
    async fn states(&self, workflow: &str, count: i64) -> Vec<String> {
        let mut states = Vec::new();
        for number in 1..=count {
            states.push(self.state(&format!("{workflow}/{number}")).await);
        }
        assert!(self.store.load_run(&RunName::new(workflow, count + 1)).await.is_err(), "one run too many");
        states
    }

    async fn events(&self, run: &str) -> Vec<String> {
        let view = self.run(run).await;
        let events = view.events.unwrap();
        assert_eq!(view.event_count, events.len() as u64, "{run} counts what it lists");
        events
    }

    async fn change(&self, run: &str, input: Input) {
        let once = move |_: &Run, done| Ok((done == 0).then(|| input.clone()));
        self.store.change_run(&run.parse().unwrap(), once).await.unwrap();
    }

    async fn lease(&self, run: &str, step: usize) {
        self.change(run, Input::Leased { step, worker: "w".to_owned(), session: "s".to_owned() }).await;
    }

    async fn finish(&self, run: &str, step: usize, outcome: Outcome) {
        let epoch = self.store.load_run(&run.parse().unwrap()).await.unwrap().steps()[step].epoch;
        self.change(run, Input::Finished { step, epoch, outcome }).await;
        self.look().await;
    }

    /// Runs a run of one step to its end.
    async fn complete(&self, run: &str) {
        self.lease(run, 0).await;
        self.finish(run, 0, success()).await;
    }

    /// What became of an event: each decision with its run.
    async fn decisions(&self, id: &str) -> Vec<(String, String)> {
        let event = self.store.event(id, None).await.unwrap().remove(0);
        let run =
            |decision: &DecisionView| decision.run.as_ref().map(ToString::to_string).unwrap_or_default();
        event.decisions.iter().map(|decision| (decision.decision.clone(), run(decision))).collect()
    }

    async fn last_reason(&self, id: &str) -> String {
        let mut event = self.store.event(id, None).await.unwrap().remove(0);
        event.decisions.pop().and_then(|decision| decision.reason).unwrap_or_default()
    }

    async fn open_batches(&self, workflow: &str) -> Vec<OpenBatch> {
        self.store.workflow_view(workflow).await.unwrap().unwrap().open_batches
    }

    /// Replays a run's journal; gives the run as stored.
    async fn replayed(&self, database: &Database, run: &str) -> Run {
        let name: RunName = run.parse().unwrap();
        let stored = Store::open(database.url(), Vec::new()).await.unwrap().load_run(&name).await.unwrap();
        let mut again = Run::create(stored.workflow().clone(), stored.facts().clone());
        for (at, input) in self.store.journal(&name).await.unwrap() {
            again.apply(&input, at).unwrap();
        }
        assert_eq!((again.head(), again.facts()), (stored.head(), stored.facts()));
        assert_eq!((again.steps(), again.version()), (stored.steps(), stored.version()));
        stored
    }
}

fn event(id: &str, kind: &str, data: Value) -> CloudEvent {
    CloudEvent::parse(json!({ "id": id, "source": "/test", "type": kind, "data": data })).unwrap()
}

fn success() -> Outcome {
    Outcome::Succeeded { outputs: BTreeMap::new(), metrics: BTreeMap::new(), artifacts: BTreeMap::new() }
}

fn failed() -> Outcome {
    Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "exit code 1".to_owned() }
}

fn pairs(decisions: &[(&str, &str)]) -> Vec<(String, String)> {
    decisions.iter().map(|(decision, run)| ((*decision).to_owned(), (*run).to_owned())).collect()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const JOINED: &str = "
workflow: joined
params: { n: { type: integer, default: 0 }, last: { type: string, default: '' } }
concurrency: { limit: 1, on_conflict: parallel }
steps:
  a: { run: [x] }
";

fn join(on_expire: OnExpire) -> impl FnOnce(&mut Workflow) {
    move |workflow| {
        let part = |kind: &str| Pattern::parse(&json!({ "type": [kind] })).unwrap();
        let template = |text: &str| refit_workflows::template::Template::parse(text).unwrap();
        workflow.triggers.push(Trigger::Join(JoinTrigger {
            parts: vec![part("features"), part("labels")],
            filter: None,
            key: Some(Expression::parse("data.day").unwrap()),
            within: minutes(60),
            on_expire,
            params: BTreeMap::from([
                ("n".to_owned(), template("${{ batch.count }}")),
                ("last".to_owned(), template("${{ batch.last.type }}")),
            ]),
        }));
    }
}

async fn a_join_fires_once_every_part_was_seen(database: Database) {
    let house = House::open(&database).await;
    house.apply(JOINED, join(OnExpire::Drop)).await;
    house.send("f1", "features", json!({ "day": "mon" })).await;
    house.send("f2", "features", json!({ "day": "mon" })).await;
    house.send("other", "labels", json!({ "day": "tue" })).await;
    let open = house.open_batches("joined").await;
    let seen: Vec<_> = open.iter().map(|it| (it.key.as_str(), it.count, it.missing.clone())).collect();
    assert_eq!(seen, [("mon", 2, vec![1]), ("tue", 1, vec![0])]);
    // Another process takes over in the middle.
    let second = House::open(&database).await;
    second.apply(JOINED, join(OnExpire::Drop)).await;
    second.at(3590);
    second.send("l1", "labels", json!({ "day": "mon" })).await;
    assert_eq!(second.states("joined", 1).await, ["running"]);
    assert_eq!(second.events("joined/1").await, ["f1", "f2", "l1"]);
    let run = second.run("joined/1").await;
    assert_eq!((run.trigger.as_str(), &run.params["n"]), ("a join of 3 events", &json!(3)));
    assert_eq!(run.params["last"], json!("labels"), "first and last are by arrival");
    for event in ["f1", "f2", "l1"] {
        let expected = pairs(&[("joined", "joined/1"), ("started", "joined/1")]);
        assert_eq!(second.decisions(event).await, expected);
    }
    // The next one begins afresh.
    second.send("l2", "labels", json!({ "day": "mon" })).await;
    assert_eq!(second.open_batches("joined").await.len(), 2);
}

async fn a_join_that_expires_is_told_to_its_events(database: Database) {
    let house = House::open(&database).await;
    house.apply(JOINED, join(OnExpire::Drop)).await;
    house.send("f1", "features", json!({ "day": "mon" })).await;
    house.at(3601);
    // It arrives too late, although nobody has looked since.
    house.send("l1", "labels", json!({ "day": "mon" })).await;
    assert_eq!(house.decisions("f1").await, pairs(&[("joined", ""), ("skipped", "")]));
    let reason = house.last_reason("f1").await;
    assert_eq!(reason, "the join expired: event labels did not come within 1h 0m");
    assert_eq!(house.decisions("l1").await, pairs(&[("joined", "")]));
    assert_eq!(
        house.store.next_due().await.unwrap().map(|due| due.as_millis() / 1000),
        Some((START / 1000) + 7201)
    );
    house.at(7202);
    house.look().await;
    assert_eq!(house.decisions("l1").await, pairs(&[("joined", ""), ("skipped", "")]));
    assert_eq!(house.open_batches("joined").await.len(), 0);
    // One that fires all the same knows what came.
    house.apply(&JOINED.replace("limit: 1", "limit: 2"), join(OnExpire::Fire)).await;
    house.send("f2", "features", json!({ "day": "mon" })).await;
    house.at(10_900);
    house.look().await;
    assert_eq!(house.events("joined/1").await, ["f2"]);
    let run = house.run("joined/1").await;
    assert_eq!(run.trigger, "a join of 1 event: event labels did not come within 1h 0m");
}

const COUNTED: &str = "
workflow: counted
on:
  - event: { type: [t] }
    batch: { count: 3 }
concurrency: { limit: 1, on_conflict: parallel }
steps:
  a: { run: [x] }
";

fn trigger(workflow: &mut Workflow, place: usize) -> &mut refit_workflows::definition::EventTrigger {
    match &mut workflow.triggers[place] {
        Trigger::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

async fn a_batch_fires_at_its_sum(database: Database) {
    let house = House::open(&database).await;
    let text = COUNTED.replace("steps:", "params: { rows: { type: number, default: 0 } }\nsteps:");
    house
        .apply(&text, |workflow| {
            let trigger = trigger(workflow, 0);
            let of = Expression::parse("data.rows").unwrap();
            let batch = trigger.batch.as_mut().unwrap();
            (batch.count, batch.sum) = (None, Some(SumRule { of, at_least: 100.0 }));
            let rows = refit_workflows::template::Template::parse("${{ batch.sum }}").unwrap();
            trigger.params.insert("rows".to_owned(), rows);
        })
        .await;
    house.send("a", "t", json!({ "rows": 60 })).await;
    house.send("wrong", "t", json!({ "rows": "many" })).await;
    assert_eq!(house.decisions("wrong").await, pairs(&[("filter_error", "")]));
    assert!(house.last_reason("wrong").await.contains("must be a number"));
    assert_eq!(house.open_batches("counted").await[0].sum, Some(60.0));
    house.send("b", "t", json!({ "rows": 40.5 })).await;
    assert_eq!(house.events("counted/1").await, ["a", "b"]);
    assert_eq!(house.run("counted/1").await.params["rows"], json!(100.5));
}

/// Everything is recorded first and routed long after: the same as if somebody had looked all the time.
async fn when_somebody_looks_does_not_matter(database: Database) {
    let house = House::open(&database).await;
    house.apply(&COUNTED.replace("count: 3", "quiet: 2m, count: 5"), |_| {}).await;
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
    house.apply(&COUNTED.replace("count: 3", "quiet: 2m"), |_| {}).await;
    let all = (0..700).map(|number| event(&format!("e{number}"), "t", json!(1))).collect();
    house.store.record(all, Vec::new()).await.unwrap();
    house.at(3600);
    house.look().await;
    assert_eq!(house.states("counted", 1).await, ["running"]);
    assert_eq!(house.run("counted/1").await.event_count, 700);
}

async fn a_trigger_that_moves_keeps_what_it_gathered(database: Database) {
    let house = House::open(&database).await;
    house.apply(COUNTED, |_| {}).await;
    house.send("a", "t", json!(1)).await;
    house.send("b", "t", json!(1)).await;
    let before = COUNTED.replace("on:\n", "on:\n  - event: { type: [other] }\n    batch: { count: 9 }\n");
    house.apply(&before, |_| {}).await;
    house.send("x", "other", json!(1)).await;
    let open = house.open_batches("counted").await;
    let seen: Vec<_> = open.iter().map(|batch| (batch.trigger, batch.count)).collect();
    assert_eq!(seen, [(1, 2), (0, 1)]);
    house.send("c", "t", json!(1)).await;
    assert_eq!(house.events("counted/1").await, ["a", "b", "c"]);
    // And one that is taken out tells its events, at once.
    house.apply(COUNTED, |_| {}).await;
    assert_eq!(house.decisions("x").await, pairs(&[("batched", ""), ("skipped", "")]));
    assert!(house.last_reason("x").await.contains("taken out of the workflow"));
    assert_eq!(database.number("SELECT COUNT(*) FROM batches WHERE open = 1").await, 0);
}

async fn a_changed_batch_rule_holds_for_what_is_gathered(database: Database) {
    let house = House::open(&database).await;
    house.apply(COUNTED, |_| {}).await;
    house.send("a", "t", json!(1)).await;
    assert_eq!(house.store.next_due().await.unwrap(), None);
    house.at(10);
    house.apply(&COUNTED.replace("count: 3", "count: 3, quiet: 1m"), |_| {}).await;
    let due = house.store.next_due().await.unwrap().unwrap();
    assert_eq!(due.as_millis() / 1000, START / 1000 + 60);
    house.at(61);
    house.look().await;
    assert_eq!(house.events("counted/1").await, ["a"]);
    // Without a batch, what was gathered fires with what there is.
    house.send("b", "t", json!(1)).await;
    house.apply(&COUNTED.replace("    batch: { count: 3 }\n", ""), |_| {}).await;
    house.look().await;
    assert_eq!(house.events("counted/2").await, ["b"]);
}

async fn a_schedule_that_moves_skips_no_slot(database: Database) {
    let house = House::open(&database).await;
    let text = "workflow: nightly\non:\n  - cron: '0 3 * * *'\nsteps:\n  a: { run: [x] }\n";
    house.apply(text, |_| {}).await;
    let slot = house.store.next_due().await.unwrap().unwrap();
    // The slot is due, and before anybody looks the schedule moves to another place in the file.
    house.store.clock().follow(slot.as_millis() + 30_000);
    house.apply(&text.replace("on:\n", "on:\n  - event: { type: [t] }\n"), |_| {}).await;
    house.look().await;
    assert_eq!(house.states("nightly", 1).await, ["running"]);
    assert_eq!(house.run("nightly/1").await.trigger, "cron 0 3 * * * UTC");
    // Another schedule has slots of its own, and the old one has none any more.
    house.apply(&text.replace("0 3", "0 4"), |_| {}).await;
    let next = house.store.next_due().await.unwrap().unwrap();
    assert_eq!(next, slot.plus(minutes(60)));
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

/// Sends events named `e1`, `e2`, …, whose data tell their number.
async fn send(house: &House, numbers: std::ops::RangeInclusive<i64>) {
    for number in numbers {
        house.send(&format!("e{number}"), "t", json!({ "n": number })).await;
    }
}

async fn a_waiting_run_takes_events_in(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce"), |_| {}).await;
    send(&house, 1..=4).await;
    assert_eq!(house.states("w", 2).await, ["running", "waiting"]);
    assert_eq!(house.events("w/2").await, ["e2", "e3", "e4"]);
    let run = house.run("w/2").await;
    assert_eq!((&run.params["n"], run.coalesced.len()), (&json!(4), 0), "the newest params win");
    assert_eq!(run.reason.as_deref(), Some("1 of 1 running"));
    assert_eq!(house.decisions("e2").await, pairs(&[("queued", "w/2")]));
    assert_eq!(house.decisions("e3").await, pairs(&[("coalesced", "w/2")]));
    // By hand as well; and again with the same id.
    let by_hand = async || {
        let event = event("hand", "refit.run.requested", json!({}));
        let params = Map::from_iter([("n".to_owned(), json!(9))]);
        house.store.start_run("w", params, event, "manual, by ada").await.unwrap().0.to_string()
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
    assert_eq!(house.decisions("e5").await, pairs(&[("queued", "w/3")]), "what has started takes nothing in");
    house.replayed(&database, "w/2").await;
}

async fn a_waiting_run_of_an_older_version_is_replaced(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce"), |_| {}).await;
    send(&house, 1..=3).await;
    house.apply(&format!("{}  c: {{ run: [x] }}\n", lane("coalesce")), |_| {}).await;
    send(&house, 4..=5).await;
    assert_eq!(house.states("w", 3).await, ["running", "coalesced", "waiting"]);
    assert_eq!(house.events("w/3").await, ["e2", "e3", "e4", "e5"]);
    assert_eq!(house.run("w/3").await.coalesced, ["w/2".parse().unwrap()]);
    let e2 = pairs(&[("queued", "w/2"), ("coalesced", "w/3")]);
    assert_eq!(house.decisions("e2").await, e2);
    assert_eq!(house.run("w/2").await.reason.as_deref(), Some("its events went into w/3"));
    let heir = house.replayed(&database, "w/3").await;
    assert_eq!(heir.facts().batch.first["id"], json!("e2"));
    house.replayed(&database, "w/2").await;
}

async fn a_retried_run_keeps_its_events_to_itself(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("coalesce"), |_| {}).await;
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
    house.apply(&text, |_| {}).await;
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
    house.apply(&lane("queue"), |workflow| workflow.concurrency.on_conflict = OnConflict::Skip).await;
    send(&house, 1..=2).await;
    assert_eq!(house.states("w", 1).await, ["running"]);
    assert_eq!(house.decisions("e2").await, pairs(&[("skipped", "")]));
    assert_eq!(house.last_reason("e2").await, "1 of 1 running");
    let hand = event("hand", "refit.run.requested", json!({}));
    let refused = house.store.start_run("w", Map::new(), hand, "manual").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(_)), "{refused}");
    assert_eq!(refused.to_string(), "w skips what it has no room for: 1 of 1 running");
    assert!(house.store.event("hand", None).await.unwrap().is_empty(), "a refused start leaves nothing");
    house.change("w/1", Input::Cancelled { by: "ada".to_owned() }).await;
    send(&house, 3..=3).await;
    assert_eq!(house.decisions("e3").await, pairs(&[("started", "w/2")]));
}

async fn a_cooldown_keeps_starts_apart(database: Database) {
    let house = House::open(&database).await;
    let cooled = |workflow: &mut Workflow| workflow.cooldown = Some(minutes(60));
    for policy in ["queue", "parallel"] {
        house.at(0);
        let text = lane(policy).replace("workflow: w", &format!("workflow: {policy}"));
        house.apply(&text.replace("[t]", &format!("[{policy}]")), cooled).await;
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
        second.apply(&text.replace("[t]", &format!("[{policy}]")), cooled).await;
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
    for (policy, on_conflict) in [("skip", OnConflict::Skip), ("coalesce", OnConflict::Coalesce)] {
        house.at(0);
        let text = lane("queue").replace("workflow: w", &format!("workflow: {policy}"));
        let change = |workflow: &mut Workflow| {
            workflow.concurrency.on_conflict = on_conflict;
            workflow.cooldown = Some(minutes(60));
        };
        house.apply(&text.replace("[t]", &format!("[{policy}]")), change).await;
        house.send(&format!("{policy}1"), policy, json!({ "n": 1 })).await;
        house.change(&format!("{policy}/1"), Input::Cancelled { by: "ada".to_owned() }).await;
        for number in 2..=3 {
            house.send(&format!("{policy}{number}"), policy, json!({ "n": number })).await;
        }
    }
    assert_eq!(house.states("skip", 1).await, ["cancelled"]);
    assert_eq!(house.decisions("skip3").await, pairs(&[("cooldown", "")]));
    assert!(house.last_reason("skip3").await.starts_with("cooldown until 2027-01-15T09:00:0"));
    assert_eq!(house.states("coalesce", 2).await, ["cancelled", "waiting"]);
    assert_eq!(house.decisions("coalesce3").await, pairs(&[("coalesced", "coalesce/2")]));
    house.at(3660);
    house.look().await;
    assert_eq!(house.states("coalesce", 2).await, ["cancelled", "running"]);
    assert_eq!(house.events("coalesce/2").await, ["coalesce2", "coalesce3"]);
    house.send("skip4", "skip", json!({ "n": 4 })).await;
    assert_eq!(house.decisions("skip4").await, pairs(&[("started", "skip/2")]));
}

fn cancels(before: Option<usize>) -> impl Fn(&mut Workflow) {
    move |workflow| workflow.concurrency.on_conflict = OnConflict::CancelRunning { before }
}

async fn a_newer_run_cancels_what_goes_on(database: Database) {
    let house = House::open(&database).await;
    house.apply(&lane("queue"), cancels(None)).await;
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
    assert_eq!(house.decisions("e1").await, pairs(&[("started", "w/1"), ("coalesced", "w/2")]));
    assert_eq!(house.last_reason("e1").await, "w/1 was cancelled and its events went into w/2");
    assert_eq!(house.decisions("e2").await, pairs(&[("queued", "w/2")]));
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
    house.apply(&lane("queue"), cancels(Some(1))).await;
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
    let change = |workflow: &mut Workflow| {
        cancels(None)(workflow);
        workflow.cooldown = Some(minutes(60));
    };
    house.apply(&lane("queue"), change).await;
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
    house.apply(&lane("coalesce"), |_| {}).await;
    send(&house, 1..=2).await;
    // The run that waits, and would take the next event in, cannot be read any more; nothing is in memory.
    execute(&database, "UPDATE runs SET facts = '{' WHERE number = 2").await;
    let house = House::open(&database).await;
    send(&house, 3..=3).await;
    assert_eq!(house.decisions("e3").await, pairs(&[("queued", "w/3")]), "the event is not blamed");
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
    house.apply(&lane("coalesce"), |_| {}).await;
    house.apply(&COUNTED.replace("[t]", "[gathered]").replace("count: 3", "count: 100000"), |_| {}).await;
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
