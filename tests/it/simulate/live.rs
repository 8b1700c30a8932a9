//! The live server, led through the events of the comparison: its own loops route, fire and admit on the real clock. Made up
//! is when an event comes, a step is over or a quiet batch is due: one after the other, in the order in which they would
//! happen, and each only when everything that follows from the one before is done. So no pause of this machine can change
//! what is decided.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_orchestrator::engine::{Engine, EventFilter, Identity};
use refit_orchestrator::store::database::Database as Pools;
use refit_orchestrator::{Config, open_engine};
use refit_tests::services::Database;
use refit_workflows::event::CloudEvent;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::*;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use super::{Decided, MAX_WAIT, QUIET, WORKFLOWS, arrivals, takes};

/// What is still to be done: events to route, batches to fire, waiting runs to start. Of `picky` two may run at once.
const UNDONE: &str = "SELECT (SELECT COUNT(*) FROM events WHERE routed = 0)
    + (SELECT COUNT(*) FROM batches WHERE open = 1 AND due_at = 0)
    + (SELECT COUNT(*) FROM (SELECT workflow, lane FROM runs WHERE state IN ('waiting', 'running')
        GROUP BY workflow, lane HAVING SUM(CASE WHEN state = 'waiting' THEN 1 ELSE 0 END) > 0
            AND SUM(CASE WHEN state = 'running' THEN 1 ELSE 0 END) < CASE WHEN workflow = 'picky' THEN 2 ELSE 1 END) AS lanes)";

pub(super) struct Live {
    engine: Engine,
    beside: Pools,
    stop: CancellationToken,
    /// What comes when.
    ahead: BTreeMap<Timestamp, Next>,
    /// By region: when its batch opened, and when it is due.
    gathering: BTreeMap<String, (Timestamp, Timestamp)>,
}

enum Next {
    Arrival(CloudEvent),
    Finish(AttemptKey),
    Due(String),
}

impl Live {
    pub(super) async fn open(database: &Database) -> Self {
        let mut config = Config::local(std::env::temp_dir());
        config.database_url = Some(database.url().to_owned());
        config.poll = Duration::from_millis(50);
        config.grace = Duration::from_secs(600);
        let engine = open_engine(config).await.unwrap();
        let by = Identity { name: "ada".to_owned(), role: Role::Admin };
        for text in WORKFLOWS {
            let apply = Apply { text: text.to_owned(), bundle: None, used: Default::default() };
            engine.apply_workflow(apply, &by).await.unwrap();
        }
        let register = Register {
            protocol: WORKER_PROTOCOL,
            worker: "w".to_owned(),
            session: "s".to_owned(),
            labels: BTreeMap::new(),
            slots: 100,
            cpus: 2,
            memory: 1 << 30,
            gpus: 0,
            version: "test".to_owned(),
        };
        engine.register(register).await.unwrap();
        let stop = CancellationToken::new();
        let mut loops = engine.start(&stop);
        tokio::spawn(async move { while loops.join_next().await.is_some() {} });
        let beside = Pools::open(database.url()).await.unwrap();
        Self { engine, beside, stop, ahead: BTreeMap::new(), gathering: BTreeMap::new() }
    }

    /// Lets everything happen.
    pub(super) async fn play(mut self) -> Decided {
        for (at, event) in arrivals() {
            self.later(at, Next::Arrival(event));
        }
        while let Some((at, next)) = self.ahead.pop_first() {
            match next {
                Next::Arrival(event) => self.arrive(at, event).await,
                Next::Finish(key) => {
                    let outcome = Outcome::Succeeded {
                        outputs: BTreeMap::new(),
                        metrics: BTreeMap::new(),
                        artifacts: BTreeMap::new(),
                    };
                    self.engine.finish(Finish { key, outcome, next: None }).await.unwrap();
                }
                Next::Due(region) => self.fall_due(at, &region).await,
            }
            self.settle().await;
            self.lease(at).await;
        }
        self.decided().await
    }

    fn later(&mut self, at: Timestamp, next: Next) {
        assert!(self.ahead.insert(at, next).is_none(), "two things happen at {at}: which is first is open");
    }

    async fn arrive(&mut self, at: Timestamp, event: CloudEvent) {
        let receipts = self.engine.record(vec![event.clone()], Vec::new()).await.unwrap();
        if event.kind() == "rows" && !receipts[0].duplicate {
            let region = event.data()["region"].as_str().unwrap().to_owned();
            let opened = self.gathering.get(&region).map_or(at, |(opened, _)| *opened);
            let due = at.plus(QUIET).min(opened.plus(MAX_WAIT));
            if let Some((_, before)) = self.gathering.insert(region.clone(), (opened, due)) {
                self.ahead.remove(&before);
            }
            self.later(due, Next::Due(region));
        }
    }

    /// As if a batch had waited for as long as its trigger says.
    async fn fall_due(&mut self, at: Timestamp, region: &str) {
        assert_eq!(self.gathering.remove(region).map(|(_, due)| due), Some(at));
        let due = format!(
            "UPDATE batches SET due_at = 0 WHERE workflow = 'gathered' AND batch_key = '{region}' AND open = 1"
        );
        let due = sqlx::AssertSqlSafe(due);
        let changed = match &self.beside {
            Pools::Sqlite { writer, .. } => sqlx::query(due).execute(writer).await.unwrap().rows_affected(),
            Pools::Postgres(pool) => sqlx::query(due).execute(pool).await.unwrap().rows_affected(),
        };
        assert_eq!(changed, 1, "no batch of {region} is open at {at}");
    }

    /// Waits until the loops have done everything.
    async fn settle(&self) {
        let begun = std::time::Instant::now();
        loop {
            let undone: i64 = match &self.beside {
                Pools::Sqlite { writer, .. } => {
                    sqlx::query_scalar(AssertSqlSafe(UNDONE)).fetch_one(writer).await.unwrap()
                }
                Pools::Postgres(pool) => {
                    sqlx::query_scalar(AssertSqlSafe(UNDONE)).fetch_one(pool).await.unwrap()
                }
            };
            if undone == 0 {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{undone} things are not done");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The worker takes what is ready.
    async fn lease(&mut self, at: Timestamp) {
        let lease = LeaseRequest { worker: "w".to_owned(), session: "s".to_owned(), slots: 100, wait_ms: 0 };
        for order in self.engine.lease(lease).await.unwrap().orders {
            let over = at.plus(takes(&order.key.run.workflow, &order.key.step));
            self.later(over, Next::Finish(order.key));
        }
    }

    async fn decided(&self) -> Decided {
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let filter =
                EventFilter { oldest_first: true, after: Some(after), limit: 50, ..EventFilter::default() };
            let page = self.engine.events(filter).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            events.extend(page);
        }
        let mut runs = Vec::new();
        for name in self.engine.store().every_run().await.unwrap() {
            runs.push(self.engine.run(&name, None, Duration::ZERO).await.unwrap());
        }
        Decided::of(&events, &runs)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
