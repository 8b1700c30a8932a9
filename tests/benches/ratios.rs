//! What Refit costs, each figure beside the bare operation it cannot do without, measured in the same run: spawns,
//! durable commits, consume plus batched insert. Prints a table; judges nothing. `tests/run --bench` runs it.
//!
//! Machines differ and are noisy: read the ratios, not the seconds. Each figure is the median of several rounds, bare
//! and Refit in turn.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has nobody to tell but its terminal")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use refit_orchestrator::intake::amqp::publish_events;
use refit_tests::api::{Api, event};
use refit_tests::processes::{Options, Orchestrator, Worker};
use refit_tests::services::{self, Database};
use refit_workflows::event::CloudEvent;
use serde_json::{Value, json};
use sqlx::Connection as _;

/// Rounds of each measurement; odd, so that there is a middle one.
const ROUNDS: usize = 3;
/// Attempts a worker runs at once.
const SLOTS: usize = 4;
/// Steps of the chain.
const CHAIN: usize = 40;
/// Steps side by side.
const FAN: usize = 100;
/// One-step runs.
const SINGLES: usize = 200;
/// Events taken in.
const EVENTS: usize = 5_000;
/// Events in one insert, and in one request.
const BATCH: usize = 100;
/// Chains whose cost per step is compared.
const SHORT_CHAIN: usize = 20;
const LONG_CHAIN: usize = 2_000;

fn main() {
    // Two things would be measured at once if this ran in a debug build of refit.
    if std::env::var_os("REFIT_TEST_BINARY").is_none() {
        let release = refit_tests::processes::release_binary();
        let this = std::env::current_exe().expect("this program has a path");
        let status = Command::new(this).env("REFIT_TEST_BINARY", release).status();
        std::process::exit(status.expect("this program starts again").code().unwrap_or(1));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let mut table = Table::default();
        measure(&mut table, services::sqlite()).await;
        measure(&mut table, services::postgres().await).await;
        table.print();
    });
}

#[derive(Default)]
struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    fn add(&mut self, database: &str, what: &str, refit: String, bare: String, ratio: f64) {
        eprintln!("{database:9} {what}: {refit}, bare {bare}: {ratio:.2}");
        self.rows.push([database.to_owned(), what.to_owned(), refit, bare, format!("{ratio:.2}")]);
    }

    fn print(&self) {
        println!("| database | what | Refit | bare | ratio |\n| --- | --- | ---: | ---: | ---: |");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

async fn measure(table: &mut Table, database: Database) {
    let kind = database.kind();
    let server =
        Orchestrator::start(Options { database_url: Some(database.url().to_owned()), ..Options::default() });
    let server = server.await;
    let worker = Worker::start(server.base_url(), "bench", SLOTS as u32);
    let api = server.api();
    warm_up(&api).await;

    let (refit, bare) = alternate(
        async || chain(&api, CHAIN).await,
        async || spawns(CHAIN, 1) + commits(&database, 2 * CHAIN).await,
    )
    .await;
    let what = format!("chain of {CHAIN} trivial steps ({CHAIN} spawns + {} commits)", 2 * CHAIN);
    table.add(kind, &what, millis(refit), millis(bare), ratio(refit, bare));

    let (refit, bare) = alternate(async || fan_out(&api).await, async || spawns(FAN, SLOTS)).await;
    let what = format!("fan-out of {FAN} trivial steps ({FAN} spawns, {SLOTS} at once)");
    table.add(kind, &what, millis(refit), millis(bare), ratio(refit, bare));

    let (refit, bare) =
        alternate(async || singles(&api, &database).await, async || spawns(SINGLES, SLOTS)).await;
    let what = format!("one-step runs ({SINGLES}; bare spawns, {SLOTS} at once)");
    table.add(kind, &what, rate(SINGLES, refit), rate(SINGLES, bare), ratio(bare, refit));

    let (short, long) = alternate(
        async || chain(&api, SHORT_CHAIN).await / SHORT_CHAIN as u32,
        async || chain(&api, LONG_CHAIN).await / LONG_CHAIN as u32,
    )
    .await;
    let what = format!("cost per step, chain of {LONG_CHAIN} (Refit) against chain of {SHORT_CHAIN} (bare)");
    table.add(kind, &what, micros(long), micros(short), ratio(long, short));
    drop(worker);

    let (refit, bare) =
        alternate(async || intake_http(&api).await, async || inserts(&database, EVENTS).await).await;
    let what = format!("events over HTTP, {BATCH} a request (bare: insert of {BATCH} a commit)");
    table.add(kind, &what, rate(EVENTS, refit), rate(EVENTS, bare), ratio(bare, refit));

    // A SQLite database is for one orchestrator at a time.
    drop(server);
    let (refit, bare) =
        alternate(async || intake_amqp(&database).await, async || consume_and_insert(&database).await).await;
    let what = format!("events from RabbitMQ (bare: consume, insert of {BATCH} a commit, ack)");
    table.add(kind, &what, rate(EVENTS, refit), rate(EVENTS, bare), ratio(bare, refit));
}

/// Both in turn, several times; the middle of each.
async fn alternate(
    mut first: impl AsyncFnMut() -> Duration,
    mut second: impl AsyncFnMut() -> Duration,
) -> (Duration, Duration) {
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        firsts.push(first().await);
        seconds.push(second().await);
    }
    firsts.sort();
    seconds.sort();
    (firsts[ROUNDS / 2], seconds[ROUNDS / 2])
}

fn ratio(over: Duration, under: Duration) -> f64 {
    over.as_secs_f64() / under.as_secs_f64()
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

fn micros(duration: Duration) -> String {
    format!("{:.0} µs", duration.as_secs_f64() * 1e6)
}

fn rate(count: usize, duration: Duration) -> String {
    format!("{:.0} /s", count as f64 / duration.as_secs_f64())
}

// ---------------------------------------------------------------------------------------------------------------
// Refit

async fn warm_up(api: &Api) {
    for _ in 0..3 {
        chain(api, SHORT_CHAIN).await;
    }
}

/// One run of a chain of trivial steps, from asking for it to its end.
async fn chain(api: &Api, steps: usize) -> Duration {
    let mut text = format!("workflow: chain-{steps}\nsteps:\n  s0: {{ run: ['true'] }}\n");
    for step in 1..steps {
        text.push_str(&format!("  s{step}: {{ needs: [s{}], run: ['true'] }}\n", step - 1));
    }
    api.apply(&text).await;
    run_to_end(api, &format!("chain-{steps}")).await
}

/// One run of many steps side by side.
async fn fan_out(api: &Api) -> Duration {
    let mut text = "workflow: fan\nsteps:\n".to_owned();
    for step in 0..FAN {
        text.push_str(&format!("  s{step}: {{ run: ['true'] }}\n"));
    }
    api.apply(&text).await;
    run_to_end(api, "fan").await
}

async fn run_to_end(api: &Api, workflow: &str) -> Duration {
    let begun = Instant::now();
    let run = api.start_run(workflow, json!({})).await;
    api.wait_run(&run, "succeeded", Duration::from_secs(600)).await;
    begun.elapsed()
}

/// Many runs of one step, started by events.
async fn singles(api: &Api, database: &Database) -> Duration {
    api.apply("workflow: single\non: [{ event: { type: [single] } }]\nsteps:\n  a: { run: ['true'] }\n")
        .await;
    let first = uuid::Uuid::new_v4().simple().to_string();
    let events: Vec<Value> =
        (0..SINGLES).map(|number| event(&format!("{first}-{number}"), "single", json!({}))).collect();
    let done = "SELECT COUNT(*) FROM runs WHERE workflow = 'single' AND state = 'succeeded'";
    let before = database.number(done).await;
    let begun = Instant::now();
    api.send_events(&events).await;
    while database.number(done).await < before + SINGLES as i64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

async fn intake_http(api: &Api) -> Duration {
    let round = uuid::Uuid::new_v4().simple().to_string();
    let events: Vec<Value> =
        (0..EVENTS).map(|number| event(&format!("{round}-{number}"), "bench.data", payload())).collect();
    let begun = Instant::now();
    for batch in events.chunks(BATCH) {
        api.send_events(batch).await;
    }
    begun.elapsed()
}

/// From the first delivery to the last event's being in the database.
async fn intake_amqp(database: &Database) -> Duration {
    let broker = services::amqp().await;
    let queue = broker.name();
    publish_events(broker.url(), &queue, &cloud_events()).await.expect("events are published");
    let before = database.number("SELECT COUNT(*) FROM events").await;
    let begun = Instant::now();
    let server = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue),
        ..Options::default()
    });
    // Starting is not what is measured: the clock begins when the first event is there.
    let _server = server.await;
    let mut first = begun;
    loop {
        let now = database.number("SELECT COUNT(*) FROM events").await - before;
        if now == 0 {
            first = Instant::now();
        }
        if now as usize >= EVENTS {
            return first.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn payload() -> Value {
    json!({ "table": "customers", "rows": 1000, "note": "x".repeat(600) })
}

fn cloud_events() -> Vec<CloudEvent> {
    let round = uuid::Uuid::new_v4().simple().to_string();
    (0..EVENTS)
        .map(|number| {
            CloudEvent::parse(event(&format!("{round}-{number}"), "bench.data", payload())).expect("an event")
        })
        .collect()
}

// ---------------------------------------------------------------------------------------------------------------
// Bare operations

/// Starts `true` this often, so many at once, and waits for each.
fn spawns(count: usize, at_once: usize) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..at_once {
            let share = count / at_once + usize::from(thread < count % at_once);
            scope.spawn(move || {
                for _ in 0..share {
                    let mut child = Command::new("true");
                    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(child.status().expect("true starts").success());
                }
            });
        }
    });
    begun.elapsed()
}

/// One row a commit, one connection, as durable as Refit's.
async fn commits(database: &Database, count: usize) -> Duration {
    let mut bare = Bare::open(database).await;
    let begun = Instant::now();
    for _ in 0..count {
        bare.insert(1).await;
    }
    begun.elapsed()
}

/// Rows in batches.
async fn inserts(database: &Database, count: usize) -> Duration {
    let mut bare = Bare::open(database).await;
    let begun = Instant::now();
    for _ in 0..count / BATCH {
        bare.insert(BATCH).await;
    }
    begun.elapsed()
}

/// The least that durable intake can be: consume, insert a batch, commit, ack.
async fn consume_and_insert(database: &Database) -> Duration {
    let broker = services::amqp().await;
    let queue = broker.name();
    publish_events(broker.url(), &queue, &cloud_events()).await.expect("events are published");
    let mut bare = Bare::open(database).await;
    let channel = broker.channel();
    channel.basic_qos(200, BasicQosOptions::default()).await.expect("prefetch is set");
    let consumer = channel.basic_consume(
        queue.as_str().into(),
        "bare".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consumer.await.expect("the queue can be consumed");
    let begun = Instant::now();
    let mut taken = 0;
    while taken < EVENTS {
        let delivery = consumer.next().await.expect("a delivery").expect("no error");
        taken += 1;
        if taken % BATCH == 0 {
            bare.insert(BATCH).await;
            delivery.ack(BasicAckOptions { multiple: true }).await.expect("an ack");
        }
    }
    begun.elapsed()
}

/// A connection of its own with a table of its own: a kilobyte a row, an index, durable commits.
enum Bare {
    Sqlite { connection: sqlx::SqliteConnection, _folder: tempfile::TempDir },
    Postgres(sqlx::PgConnection),
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS bare (id TEXT PRIMARY KEY, body TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO bare (id, body) VALUES ($1, $2)";

impl Bare {
    async fn open(database: &Database) -> Self {
        if database.kind() == "postgres" {
            let mut connection =
                sqlx::PgConnection::connect(database.url()).await.expect("PostgreSQL answers");
            sqlx::query(TABLE).execute(&mut connection).await.expect("a table");
            return Self::Postgres(connection);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.path().join("bare.db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("SQLite opens");
        sqlx::query(TABLE).execute(&mut connection).await.expect("a table");
        Self::Sqlite { connection, _folder: folder }
    }

    /// Inserts rows in one transaction.
    async fn insert(&mut self, rows: usize) {
        let body = "x".repeat(1024);
        match self {
            Self::Sqlite { connection, .. } => {
                let mut tx = connection.begin().await.expect("a transaction");
                for _ in 0..rows {
                    let id = uuid::Uuid::new_v4().to_string();
                    sqlx::query(INSERT).bind(id).bind(&body).execute(&mut *tx).await.expect("an insert");
                }
                tx.commit().await.expect("a commit");
            }
            Self::Postgres(connection) => {
                let mut tx = connection.begin().await.expect("a transaction");
                for _ in 0..rows {
                    let id = uuid::Uuid::new_v4().to_string();
                    sqlx::query(INSERT).bind(id).bind(&body).execute(&mut *tx).await.expect("an insert");
                }
                tx.commit().await.expect("a commit");
            }
        }
    }
}
