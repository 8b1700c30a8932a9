//! A simulation decides as the live server does: the same 500 events, the same workflows, every decision and every run
//! compared. And `refit simulate` as people and scripts use it (`command`).

mod command;
mod live;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use refit_orchestrator::simulation::{Attempt, Came, Script, Simulation, Stage};
use refit_tests::services::{self, Database};
use refit_workflows::definition::Workflow;
use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DecisionView, EventView, RunView};
use serde_json::{Value, json};

use live::Live;

const START: Timestamp = Timestamp::from_millis(1_767_600_000_000);
const EVENTS: u64 = 500;
/// `quiet` and `max_wait` of the workflow that gathers.
const QUIET: Duration = Duration::from_secs(17 * 60);
const MAX_WAIT: Duration = Duration::from_secs(50 * 60);
/// Long after the last event: everything has come to rest.
const END: Duration = Duration::from_secs(20 * 24 * 3600);

/// Every way an event can go, but for schedules: the slots of the live server are those of the real clock. Names are in the
/// order in which a file would be read.
const WORKFLOWS: [&str; 14] = [
    "
workflow: counted
on:
  - event: { type: [rows] }
    where: data.rows > 2
    by: data.region
    batch: { count: 3 }
    params: { region: '${{ batch.key }}', rows: '${{ batch.count }}' }
params: { region: { type: string }, rows: { type: integer } }
concurrency: { key: params.region, limit: 1, on_conflict: queue }
steps:
  a: { run: [x] }
  b: { run: [x], needs: [a] }
",
    "
workflow: gathered
on: [{ event: { type: [rows] }, by: data.region, batch: { quiet: 17m, max_wait: 50m } }]
concurrency: { limit: 1, on_conflict: coalesce }
steps: { a: { run: [x] } }
",
    "
workflow: merged
on: [{ event: { type: [merge] } }]
concurrency: { limit: 1, on_conflict: coalesce }
steps:
  a: { run: [x] }
  b: { run: [x], needs: [a] }
",
    "
workflow: picky
on:
  - event: { type: [merge, wide] }
    where: data.rows < 9
    params: { rows: '${{ batch.first.data.rows }}' }
params: { rows: { type: integer, default: 0 } }
concurrency: { limit: 2, on_conflict: queue }
steps:
  a: { run: [x] }
  tell: { needs: [a], emit: { type: told, data: { rows: '${{ params.rows }}' } } }
",
    "
workflow: wide
on: [{ event: { type: [wide], data: { region: [eu, us] } } }]
concurrency: { on_conflict: parallel }
steps: { a: { run: [x] } }
",
    "
workflow: chained
on: [{ event: { type: [refit.run.succeeded], data: { workflow: [merged, wide] } }, batch: { count: 2 } }]
concurrency: { limit: 1, on_conflict: coalesce }
steps: { a: { run: [x] } }
",
    "
workflow: listener
on: [{ event: { type: [told] } }]
concurrency: { limit: 1, on_conflict: queue }
steps: { a: { run: [x] } }
",
    "
workflow: joined
on:
  - all: [{ type: [rows] }, { type: [wide] }]
    by: data.region
    within: 30d
concurrency: { on_conflict: parallel }
steps: { a: { run: [x] } }
",
    "
workflow: skipping
on: [{ event: { type: [merge, wide] } }]
concurrency: { limit: 1, on_conflict: skip }
steps: { a: { run: [x] } }
",
    "
workflow: summed
on: [{ event: { type: [rows] }, by: data.region, batch: { sum: { of: data.rows, at_least: 20 } } }]
concurrency: { on_conflict: parallel }
steps: { a: { run: [x] } }
",
    "
workflow: lapsing
on: [{ all: [{ type: [rows] }, { type: [wide] }], by: data.region, within: 13m }]
concurrency: { on_conflict: parallel }
steps: { a: { run: [x] } }
",
    "
workflow: late
on: [{ all: [{ type: [merge] }, { type: [wide] }], by: data.region, within: 11m, on_expire: fire }]
concurrency: { on_conflict: parallel }
steps: { a: { run: [x] } }
",
    "
workflow: replaced
on: [{ event: { type: [merge] } }]
concurrency: { limit: 2, on_conflict: cancel_running }
steps: { a: { run: [x] } }
",
    "
workflow: kept
on: [{ event: { type: [wide] } }]
concurrency: { limit: 1, on_conflict: cancel_running, before: b }
steps:
  a: { run: [x] }
  b: { run: [x], needs: [a] }
",
];

/// Every way to meet a conflict, with a cooldown: the workflows `resting-queue` and so on.
const RESTING: [&str; 5] = ["queue", "coalesce", "skip", "cancel_running", "parallel"];

fn workflows() -> impl Iterator<Item = String> {
    let resting = |(place, on_conflict): (usize, &str)| {
        // No two of them rest for as long, so that no two cooldowns are over at the same moment.
        let (region, minutes) = (["eu", "us", "asia"][place % 3], 21 + 2 * place);
        format!(
            "workflow: resting-{}
on: [{{ event: {{ type: [merge], data: {{ region: [{region}] }} }} }}]
cooldown: {minutes}m
concurrency: {{ on_conflict: {on_conflict} }}
steps: {{ a: {{ run: [x] }} }}
",
            on_conflict.replace('_', "-")
        )
    };
    WORKFLOWS.into_iter().map(str::to_owned).chain(RESTING.into_iter().enumerate().map(resting))
}

/// How long a step takes: another time for each, so that no two are ever over at the same moment.
fn takes(workflow: &str, step: &str) -> Duration {
    let place = workflows().position(|text| text.contains(&format!("workflow: {workflow}\n"))).unwrap();
    Duration::from_millis(301_003 + 97_211 * place as u64 + if step == "a" { 0 } else { 41_017 })
}

/// Small numbers that look random and are the same every time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Events with the moments of their arrival, in order; one in twenty comes a second time later.
fn arrivals() -> Vec<(Timestamp, CloudEvent)> {
    let mut random = Random(2026);
    let (mut at, mut arrivals) = (START, Vec::new());
    for number in 0..EVENTS {
        at = at.plus(Duration::from_millis(1 + random.below(240_000)));
        let kind = ["rows", "rows", "merge", "wide", "nobody"][random.below(5) as usize];
        let region = ["eu", "us", "asia"][random.below(3) as usize];
        let mut data = json!({ "region": region });
        data["rows"] = match random.below(10) {
            0 => json!("many"),
            1 => json!(2.5),
            rows => json!(rows),
        };
        if random.below(15) == 0 {
            data.as_object_mut().unwrap().remove("rows");
        }
        let event = json!({ "id": format!("e{number}"), "source": "/test", "type": kind, "data": data });
        let event = CloudEvent::parse(event).unwrap();
        if random.below(20) == 0 {
            let again = at.plus(Duration::from_millis(1 + random.below(3_000_000)));
            arrivals.push((again, event.clone()));
        }
        arrivals.push((at, event));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

/// What was decided about every event, Refit's own too, and what became of every run. No times: the live ones are real.
#[derive(Debug, PartialEq)]
struct Decided {
    events: BTreeMap<(String, String), Vec<Value>>,
    runs: BTreeMap<String, Value>,
}

impl Decided {
    fn of(events: &[EventView], runs: &[RunView]) -> Self {
        let decision = |one: &DecisionView| {
            json!([one.workflow, one.trigger, one.decision, one.reason.as_deref().map(timeless), one.run])
        };
        let event = |event: &EventView| {
            let decisions = event.decisions.iter().map(decision).collect();
            ((event.source.clone(), event.id.clone()), decisions)
        };
        let run = |run: &RunView| {
            let steps: Vec<(&str, &str)> =
                run.steps.iter().flatten().map(|step| (step.step.as_str(), step.state.as_str())).collect();
            let told = json!([
                run.state,
                run.reason,
                run.trigger,
                run.key,
                run.params,
                run.coalesced,
                run.event_count,
                run.events,
                steps
            ]);
            (run.run.to_string(), told)
        };
        Self { events: events.iter().map(event).collect(), runs: runs.iter().map(run).collect() }
    }

    /// The decisions about events, by workflow.
    fn of_workflow(&self, workflow: &str, decision: &str) -> usize {
        self.events.values().flatten().filter(|one| one[0] == workflow && one[2] == decision).count()
    }

    fn count(&self, decision: &str) -> usize {
        self.events.values().flatten().filter(|one| one[2] == decision).count()
    }
}

/// A reason without the end of a cooldown, which is a time.
fn timeless(reason: &str) -> String {
    match reason.split_once("cooldown until ") {
        Some((before, after)) => {
            let words = after.split_once(' ').map(|(_, words)| words).unwrap_or_default();
            format!("{before}cooldown until then {words}")
        }
        None => reason.to_owned(),
    }
}

/// Made once, beside the live servers, and on one thread: what waits for one another does not have to be woken on another.
static SIMULATED: LazyLock<Decided> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(simulated())
});

async fn simulated() -> Decided {
    let mut stage = Stage::new().await.unwrap();
    let mut simulation = Simulation::open(&mut stage, START).await.unwrap();
    for text in workflows() {
        let workflow = Workflow::parse(&text).unwrap();
        let attempt =
            |step: &str| vec![Attempt { takes: takes(&workflow.name, step), came: Came::default() }];
        let attempts = ["a", "b"].map(|step| (step.to_owned(), attempt(step)));
        let script = Script { attempts: attempts.into(), ..Script::default() };
        simulation.apply(&workflow, script).await.unwrap();
    }
    for (at, event) in arrivals() {
        simulation.advance(at).await.unwrap();
        simulation.record(vec![event]).await.unwrap();
    }
    simulation.advance(START.plus(END)).await.unwrap();
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = simulation.log(after, 50).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
        events.extend(page);
    }
    Decided::of(&events, &simulation.runs().await.unwrap())
}

async fn the_live_server_and_a_simulation_decide_alike(database: Database) {
    let simulated = tokio::task::spawn_blocking(|| &*SIMULATED);
    let live = Live::open(&database).await.play().await;
    let simulated = simulated.await.unwrap();
    for (event, decisions) in &live.events {
        assert_eq!(simulated.events.get(event), Some(decisions), "of event {event:?} (simulated, live)");
    }
    for (run, told) in &live.runs {
        assert_eq!(simulated.runs.get(run), Some(told), "of run {run} (simulated, live)");
    }
    assert_eq!((simulated.events.len(), simulated.runs.len()), (live.events.len(), live.runs.len()));
    // It compares nothing if nothing happened.
    for decision in [
        "started",
        "batched",
        "joined",
        "queued",
        "coalesced",
        "skipped",
        "cooldown",
        "unmatched",
        "filter_error",
        "duplicate",
    ] {
        assert!(live.count(decision) >= 10, "{decision}: {}", live.count(decision));
    }
    for text in workflows() {
        let workflow = Workflow::parse(&text).unwrap().name;
        let runs = live.runs.keys().filter(|run| run.starts_with(&format!("{workflow}/"))).count();
        assert!(runs >= 10, "{runs} runs of {workflow}");
    }
    assert!(live.of_workflow("lapsing", "skipped") >= 10, "no join expires");
    let cancelled = |workflow: &str| {
        live.runs.iter().filter(|(run, told)| run.starts_with(workflow) && told[0] == "cancelled").count()
    };
    for workflow in ["replaced/", "kept/", "resting-cancel-running/"] {
        assert!(cancelled(workflow) >= 5, "{} of {workflow} are cancelled", cancelled(workflow));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_the_live_server_and_a_simulation_decide_alike() {
    the_live_server_and_a_simulation_decide_alike(services::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_the_live_server_and_a_simulation_decide_alike() {
    the_live_server_and_a_simulation_decide_alike(services::postgres().await).await;
}
