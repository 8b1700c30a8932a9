//! What the store is: one suite, both databases. A third database would be "pass this". Everything goes through the
//! engine and the store as they run in production; nothing is mocked.

mod blobs;
mod cache;
mod children;
mod events;
mod garbage;
mod instances;
mod outbox;
mod placement;
mod promotions;
mod registry;
mod replays;
mod retention;
mod runs;
mod schemas;
mod series;
mod together;
mod tokens;
mod watches;

use std::collections::BTreeMap;
use std::time::Duration;

use refit_orchestrator::engine::{Access, Engine, EngineError, EventFilter, Identity};
use refit_orchestrator::{Config, open_engine};
use refit_tests::services::{self, Database};
use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Run};
use refit_workflows::wire::*;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

fn somebody() -> Identity {
    Identity { name: "ada".to_owned(), role: Role::Admin, groups: Vec::new() }
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
        self.engine.finish(Finish::of(key.clone(), outcome)).await
    }

    async fn run(&self, name: &str) -> RunView {
        self.engine.run(&name.parse().unwrap(), None, Duration::ZERO).await.unwrap()
    }

    async fn start_run(&self, workflow: &str) -> RunView {
        let start = StartRun { workflow: workflow.to_owned(), params: Map::new(), id: None, no_cache: false };
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
    Outcome::Succeeded(Handed {
        metrics: BTreeMap::from([("accuracy".to_owned(), accuracy)]),
        artifacts: BTreeMap::from([("model".to_owned(), model)]),
        ..Handed::default()
    })
}

fn failed() -> Outcome {
    Outcome::Failed { failure: Failure::Exit { code: 1 }, reason: "exit code 1".to_owned() }
}

const ONE_STEP: &str = "workflow: one\nsteps:\n  a: { run: [x] }\n";

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
