//! The live server, led through the events of the comparison: its own loops route, fire and admit on the real clock. Made up
//! is when an event comes, a step is over, a quiet batch or a join is due and a cooldown over: one after the other, in the
//! order in which they would happen, and each only when everything that follows from the one before is done. So no pause of
//! this machine can change what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use refit_orchestrator::engine::{Engine, EventFilter, Identity};
use refit_orchestrator::store::LeaseRow;
use refit_orchestrator::store::database::Database as Pools;
use refit_orchestrator::{Config, open_engine};
use refit_tests::services::Database;
use refit_workflows::definition::Workflow;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::*;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use super::{Decided, MAX_WAIT, QUIET, arrivals, takes, workflows};

/// What is still to be done by the loops: events to route, batches and joins to end, waiting runs to start or to make room
/// for; then how many steps a worker could take, and how many runs are being cancelled.
///
/// In a lane with a start that was not moved back (see [`Live::rest`]) a cooldown is on, and nothing is to be done. Where it is over, a run
/// that may be cancelled is in nobody's way any more once it is.
const TO_DO: &str = r#"SELECT (SELECT COUNT(*) FROM events WHERE routed = 0)
    + (SELECT COUNT(*) FROM batches WHERE open = 1 AND due_at = 0)
    + (SELECT COUNT(*) FROM (SELECT workflow, lane FROM runs WHERE state IN ('waiting', 'running')
        GROUP BY workflow, lane
        HAVING SUM(CASE WHEN state = 'waiting' THEN 1 ELSE 0 END) > 0
            AND SUM(CASE WHEN state <> 'running' THEN 0
                WHEN workflow = 'resting-cancel-running' AND head NOT LIKE '%"cancel":{%' THEN 0
                WHEN workflow = 'resting-parallel' THEN 0 ELSE 1 END)
                < CASE WHEN workflow IN ('picky', 'replaced') THEN 2 ELSE 1 END
            AND NOT (workflow LIKE 'resting-%' AND EXISTS (SELECT 1 FROM runs started
                WHERE started.workflow = runs.workflow AND started.lane = runs.lane AND started.started_at > 1))) AS lanes),
    (SELECT COUNT(*) FROM steps WHERE state = 'ready'),
    (SELECT COUNT(*) FROM runs WHERE state = 'running' AND head LIKE '%"cancel":{%')"#;
/// The joins that may expire, and how long they may wait.
const JOINS: &str = "SELECT seq, CASE WHEN workflow = 'lapsing' THEN 13 ELSE 11 END FROM batches
    WHERE workflow IN ('lapsing', 'late') AND open = 1 AND due_at > 0";

pub(super) struct Live {
    engine: Engine,
    beside: Pools,
    stop: CancellationToken,
    /// What comes when.
    ahead: BTreeMap<Timestamp, Next>,
    /// By region: when its batch opened, and when it is due.
    gathering: BTreeMap<String, (Timestamp, Timestamp)>,
    /// The joins that were seen to open.
    joins: BTreeSet<i64>,
    /// By workflow: its cooldown, if it has one.
    cooldowns: BTreeMap<String, Duration>,
}

enum Next {
    Arrival(CloudEvent),
    Finish(AttemptKey),
    Due(String),
    /// A join has waited for as long as it may, unless it was complete before.
    Expired(i64),
    /// The cooldown after a run's start is over.
    Rested(RunName),
}

impl Live {
    pub(super) async fn open(database: &Database) -> Self {
        let mut config = Config::local(std::env::temp_dir());
        config.database_url = Some(database.url().to_owned());
        // Nobody wakes the loops when something is made due.
        config.poll = Duration::from_millis(20);
        config.grace = Duration::from_secs(600);
        let engine = open_engine(config).await.unwrap();
        let by = Identity { name: "ada".to_owned(), role: Role::Admin, groups: Vec::new() };
        let mut cooldowns = BTreeMap::new();
        for text in workflows() {
            let workflow = Workflow::parse(&text).unwrap();
            cooldowns.extend(workflow.cooldown.map(|cooldown| (workflow.name, cooldown)));
            let apply = Apply { text, bundle: None, used: Default::default() };
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
        let (ahead, gathering, joins) = Default::default();
        Self { engine, beside, stop, ahead, gathering, joins, cooldowns }
    }

    /// Lets everything happen.
    pub(super) async fn play(mut self) -> Decided {
        for (at, event) in arrivals() {
            self.later(at, Next::Arrival(event));
        }
        while let Some((at, next)) = self.ahead.pop_first() {
            match next {
                Next::Arrival(event) => {
                    self.arrive(at, event).await;
                    self.settle().await;
                    self.see_joins(at).await;
                }
                Next::Finish(key) => {
                    let outcome = Outcome::Succeeded(Handed::default());
                    self.engine.finish(Finish::of(key, outcome)).await.unwrap();
                }
                Next::Due(region) => self.fall_due(at, &region).await,
                Next::Expired(join) => {
                    let due = format!("UPDATE batches SET due_at = 0 WHERE seq = {join} AND open = 1");
                    if self.change(due).await == 0 {
                        continue;
                    }
                }
                Next::Rested(run) => self.rest(&run).await,
            }
            self.follow(at).await;
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
        assert_eq!(self.change(due).await, 1, "no batch of {region} is open at {at}");
    }

    /// As if a run had started a cooldown ago.
    async fn rest(&self, run: &RunName) {
        let RunName { workflow, number } = run;
        let start =
            format!("UPDATE runs SET started_at = 1 WHERE workflow = '{workflow}' AND number = {number}");
        assert_eq!(self.change(start).await, 1);
    }

    async fn change(&self, statement: String) -> u64 {
        let statement = AssertSqlSafe(statement);
        match &self.beside {
            Pools::Sqlite { writer, .. } => {
                sqlx::query(statement).execute(writer).await.unwrap().rows_affected()
            }
            Pools::Postgres(pool) => sqlx::query(statement).execute(pool).await.unwrap().rows_affected(),
        }
    }

    /// Everything that follows at once: what the loops do, what the worker takes, and what it is told to end.
    async fn follow(&mut self, at: Timestamp) {
        loop {
            let (ready, cancelling) = self.settle().await;
            if ready > 0 {
                self.lease(at).await;
            }
            if cancelling == 0 || !self.end_cancelled().await {
                return;
            }
        }
    }

    /// Waits until the loops have done everything. How many steps are ready then, and how many runs being cancelled.
    async fn settle(&self) -> (i64, i64) {
        let begun = std::time::Instant::now();
        loop {
            let to_do = AssertSqlSafe(TO_DO);
            let (undone, ready, cancelling): (i64, i64, i64) = match &self.beside {
                Pools::Sqlite { writer, .. } => sqlx::query_as(to_do).fetch_one(writer).await.unwrap(),
                Pools::Postgres(pool) => sqlx::query_as(to_do).fetch_one(pool).await.unwrap(),
            };
            if undone == 0 {
                return (ready, cancelling);
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{undone} things are not done");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The worker takes what is ready.
    async fn lease(&mut self, at: Timestamp) {
        let lease = LeaseRequest { worker: "w".to_owned(), session: "s".to_owned(), slots: 100, wait_ms: 0 };
        for order in self.engine.lease(lease).await.unwrap().orders {
            let AttemptKey { run, step, .. } = &order.key;
            // The first step of a run is ready when the run starts.
            if let Some(&cooldown) = self.cooldowns.get(&run.workflow).filter(|_| step == "a") {
                self.later(at.plus(cooldown), Next::Rested(run.clone()));
            }
            self.later(at.plus(takes(&run.workflow, step)), Next::Finish(order.key));
        }
    }

    /// The worker ends what it is told to end. Whether there was anything.
    async fn end_cancelled(&mut self) -> bool {
        let held = self.engine.store().leases_of("s").await.unwrap();
        let mut any = false;
        for LeaseRow { run, step, epoch, .. } in held.into_iter().filter(|lease| lease.cancelling) {
            let key = AttemptKey { run, step, epoch };
            self.ahead.retain(|_, next| !matches!(next, Next::Finish(other) if *other == key));
            self.engine.finish(Finish::of(key, Outcome::Cancelled)).await.unwrap();
            any = true;
        }
        any
    }

    /// Joins that opened now expire later.
    async fn see_joins(&mut self, at: Timestamp) {
        let open = AssertSqlSafe(JOINS);
        let open: Vec<(i64, i32)> = match &self.beside {
            Pools::Sqlite { writer, .. } => sqlx::query_as(open).fetch_all(writer).await.unwrap(),
            Pools::Postgres(pool) => sqlx::query_as(open).fetch_all(pool).await.unwrap(),
        };
        for (join, minutes) in open {
            if self.joins.insert(join) {
                let within = Duration::from_secs(60 * minutes.unsigned_abs() as u64);
                self.later(at.plus(within), Next::Expired(join));
            }
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
