//! Events from RabbitMQ, with everything on the way failing: orchestrators killed, the queue deleted, connections cut,
//! the database taken away. A real broker, real `refit serve` processes, and the tables as the last word.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use refit_tests::api::event;
use refit_tests::processes::{Options, Orchestrator};
use refit_tests::services::{self, Broker, Database, Message};
use refit_tests::{eventually, soak};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long anything may take that ought to take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(database: &Database, broker: &Broker, queue: &str) -> Options {
    Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.to_owned()),
        ..Options::default()
    }
}

/// Events that differ in nothing but their id.
fn numbered(numbers: std::ops::Range<usize>) -> Vec<Message> {
    numbers.map(|number| Message::event(&event(&format!("e{number}"), "data.plain", json!(number)))).collect()
}

const OURS: &str = "SELECT COUNT(*) FROM events WHERE source = '/tests'";

/// Deliveries of events that were there already.
const AGAIN: &str = "SELECT CAST(SUM(duplicates) AS BIGINT) FROM events WHERE source = '/tests'";

async fn wait_for_rows(database: &Database, rows: i64, timeout: Duration) {
    let what = format!("{rows} events are stored");
    eventually(&what, timeout, async || (database.number(OURS).await >= rows).then_some(())).await;
}

// ---------------------------------------------------------------------------------------------------------------
// Twice delivered, killed on the way

/// Steps the orchestrator decides by itself, so that a run needs no worker to end.
const BURST: &str = "
workflow: burst
on:
  - event: { type: [data.batched] }
    batch: { quiet: 500ms, max_wait: 5s, count: 100 }
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
";
const SINGLE: &str = "
workflow: single
on: [{ event: { type: [data.single] } }]
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
";

#[tokio::test(flavor = "multi_thread")]
async fn every_event_counts_once_although_delivered_twice_and_killed_on_the_way_sqlite() {
    twice_delivered_and_killed(services::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_counts_once_although_delivered_twice_and_killed_on_the_way_postgres() {
    twice_delivered_and_killed(services::postgres().await).await;
}

/// What is published: how many distinct events, which of them start a run each, and what is no event at all.
struct Load {
    distinct: usize,
    malformed: usize,
    kills: usize,
}

impl Load {
    const SINGLE_EVERY: usize = 10;

    fn singles(&self) -> usize {
        self.distinct.div_ceil(Self::SINGLE_EVERY)
    }

    /// Every event twice and every malformed message once, in no order.
    fn messages(&self) -> Vec<Message> {
        let events = (0..self.distinct).map(|number| {
            let kind = if number % Self::SINGLE_EVERY == 0 { "data.single" } else { "data.batched" };
            Message::event(&event(&format!("e{number}"), kind, json!({ "number": number })))
        });
        let mut messages: Vec<Message> = events.flat_map(|message| [message.clone(), message]).collect();
        messages.extend((0..self.malformed).map(|number| match number % 3 {
            0 => Message::with_content_type("application/cloudevents+json", format!("{{ not JSON {number}")),
            1 => Message::with_content_type(
                "application/cloudevents+json",
                json!({ "id": format!("no type {number}"), "source": "/tests" }).to_string(),
            ),
            _ => Message::with_content_type("application/json", format!("[\"a list {number}\"]")),
        }));
        messages.shuffle(&mut rand::rng());
        messages
    }
}

async fn twice_delivered_and_killed(database: Database) {
    let load = if soak() {
        Load { distinct: 10_000, malformed: 100, kills: 3 }
    } else {
        Load { distinct: 1_500, malformed: 15, kills: 2 }
    };
    let broker = services::amqp().await;
    let queue = broker.name();
    let mut orchestrator = Orchestrator::start(options(&database, &broker, &queue)).await;
    for workflow in [BURST, SINGLE] {
        orchestrator.api().apply(workflow).await;
    }
    broker.wait_for_queue(&queue).await;
    // Everything is there before anything is taken, so that every kill meets work in progress.
    orchestrator.kill9();
    broker.publish(&queue, load.messages()).await;

    let begun = Instant::now();
    orchestrator.restart().await;
    for kill in 1..=load.kills {
        let share = (kill as f64 - rand::rng().random_range(0.2..0.8)) / (load.kills + 1) as f64;
        wait_for_rows(&database, (share * load.distinct as f64) as i64, PATIENCE * 2).await;
        // Not always just after a commit.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..60))).await;
        orchestrator.kill9();
        let what = "the broker takes back what the killed orchestrator had";
        eventually(what, PATIENCE, async || broker.depth(&queue).await.filter(|&depth| depth > 0)).await;
        orchestrator.restart().await;
    }
    wait_for_rows(&database, load.distinct as i64, PATIENCE * 4).await;
    wait_until_settled(&database, &broker, &queue).await;
    let seconds = begun.elapsed().as_secs_f64();

    check_rows(&database, &load).await;
    check_runs(&database, &load).await;
    check_dead_letters(&database, &broker, &queue, &load).await;
    let figure = async |sql: &str| database.number(sql).await;
    println!(
        "{}: {} events delivered twice, {} malformed, {} kills: {} rows, {} runs, {} deliveries known already, {} dead \
         letters, {} events/s, {seconds:.1} s",
        database.kind(),
        load.distinct,
        load.malformed,
        load.kills,
        figure(OURS).await,
        figure("SELECT COUNT(*) FROM runs").await,
        figure(AGAIN).await,
        figure("SELECT COUNT(*) FROM dead_letters").await,
        (load.distinct as f64 * 2.0 / seconds).round(),
    );
}

/// Nothing is on its way any more: not in the queue, not unrouted, not in an open batch, not in a run.
async fn wait_until_settled(database: &Database, broker: &Broker, queue: &str) {
    eventually("the queue is empty", PATIENCE, async || (broker.depth(queue).await == Some(0)).then_some(()))
        .await;
    for left in [
        "SELECT COUNT(*) FROM events WHERE routed = 0",
        "SELECT COUNT(*) FROM batches WHERE open = 1",
        "SELECT COUNT(*) FROM runs WHERE state IN ('waiting', 'running')",
    ] {
        let what = format!("this is 0: {left}");
        eventually(&what, PATIENCE * 2, async || (database.number(left).await == 0).then_some(())).await;
    }
}

async fn check_rows(database: &Database, load: &Load) {
    let ids = database.texts("SELECT id FROM events WHERE source = '/tests'").await;
    assert_eq!(ids.len(), load.distinct, "one row per event");
    let distinct: HashSet<String> = ids.into_iter().collect();
    let missing: Vec<usize> =
        (0..load.distinct).filter(|number| !distinct.contains(&format!("e{number}"))).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    let again = database.number(AGAIN).await;
    assert!(
        again >= load.distinct as i64,
        "every event came twice, but only {again} deliveries were second ones"
    );
}

async fn check_runs(database: &Database, load: &Load) {
    for (workflow, kind, events) in
        [("single", "data.single", load.singles()), ("burst", "data.batched", load.distinct - load.singles())]
    {
        let listed = database
            .texts(&format!(
                "SELECT e.id FROM run_events l JOIN runs r ON r.id = l.run JOIN events e ON e.seq = l.event \
                 WHERE r.workflow = '{workflow}' AND e.type = '{kind}'"
            ))
            .await;
        let distinct: HashSet<&String> = listed.iter().collect();
        assert_eq!(distinct.len(), events, "events of {workflow} that are in a run");
        assert_eq!(listed.len(), events, "an event of {workflow} is in two runs");
    }
    let singles = database.number("SELECT COUNT(*) FROM runs WHERE workflow = 'single'").await;
    assert_eq!(singles, load.singles() as i64, "one run per event that starts one by itself");
    let empty =
        "SELECT COUNT(*) FROM runs r WHERE NOT EXISTS (SELECT 1 FROM run_events l WHERE l.run = r.id)";
    assert_eq!(database.number(empty).await, 0, "runs without an event");
    let ended_otherwise = "SELECT COUNT(*) FROM runs WHERE state <> 'succeeded'";
    assert_eq!(database.number(ended_otherwise).await, 0);
}

async fn check_dead_letters(database: &Database, broker: &Broker, queue: &str, load: &Load) {
    // A kill between the commit and the broker's hearing of it buries a message twice; none may be missing.
    let distinct = database.number("SELECT COUNT(DISTINCT body) FROM dead_letters").await;
    assert_eq!(distinct, load.malformed as i64, "malformed messages that are dead letters");
    for reason in database.texts("SELECT DISTINCT reason FROM dead_letters").await {
        let told = ["not JSON", "`type` is missing", "JSON object"];
        assert!(told.iter().any(|part| reason.contains(part)), "the reason tells nothing: {reason}");
    }
    let dead = format!("{queue}.dead");
    let malformed = u32::try_from(load.malformed).unwrap();
    let what = format!("the broker's dead-letter queue holds the {malformed} malformed messages");
    eventually(&what, PATIENCE, async || (broker.depth(&dead).await == Some(malformed)).then_some(())).await;
}

// ---------------------------------------------------------------------------------------------------------------
// The broker goes and comes back

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_made_again_and_consumed() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let orchestrator = Orchestrator::start(options(&database, &broker, &queue)).await;
    broker.wait_for_queue(&queue).await;
    broker.publish(&queue, numbered(0..10)).await;
    wait_for_rows(&database, 10, PATIENCE).await;

    broker.channel().queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    broker.wait_for_queue(&queue).await;
    broker.publish(&queue, numbered(10..20)).await;
    wait_for_rows(&database, 20, PATIENCE).await;
    let logs = orchestrator.logs();
    assert!(logs.contains("was the queue deleted?"), "nobody was told:\n{logs}");
}

/// Stands between an orchestrator and the broker, to cut or refuse its connections.
struct Wire {
    url: String,
    open: Arc<AtomicBool>,
    cut: watch::Sender<()>,
}

impl Wire {
    async fn to(broker: &Broker) -> Self {
        let mut url = reqwest::Url::parse(broker.url()).unwrap();
        let there = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (open, cut) = (Arc::new(AtomicBool::new(true)), watch::Sender::new(()));
        let wire = Self { url: url.into(), open: Arc::clone(&open), cut: cut.clone() };
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                if !open.load(Ordering::Relaxed) {
                    continue;
                }
                let (there, mut cut) = (there.clone(), cut.subscribe());
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(there).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        wire
    }

    /// Ends every connection and lets none in until [`Wire::mend`].
    fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.cut.send_replace(());
    }

    fn mend(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_start_or_later_is_waited_for() {
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let wire = Wire::to(&broker).await;
    let queue = broker.name();
    wire.cut();
    let mut settings = options(&database, &broker, &queue);
    settings.amqp_url = Some(wire.url.clone());
    // Ready without a broker: everything but the queue works.
    let orchestrator = Orchestrator::start(settings).await;
    eventually("the log says so", PATIENCE, async || {
        orchestrator.logs().contains("not consuming").then_some(())
    })
    .await;
    wire.mend();
    broker.wait_for_queue(&queue).await;
    broker.publish(&queue, numbered(0..10)).await;
    wait_for_rows(&database, 10, PATIENCE).await;

    for cut in 1..=3 {
        let stored = cut * 200;
        let publish = broker.publish(&queue, numbered(stored - 200..stored));
        let hurt = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            wire.cut();
            tokio::time::sleep(Duration::from_millis(200)).await;
            wire.mend();
        };
        tokio::join!(publish, hurt);
        wait_for_rows(&database, i64::try_from(stored).unwrap(), PATIENCE).await;
    }
    assert_eq!(database.number(OURS).await, 600);
    assert_eq!(database.number("SELECT COUNT(*) FROM dead_letters").await, 0);
}

// ---------------------------------------------------------------------------------------------------------------
// The database goes and comes back

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_in_the_broker_while_the_database_is_away() {
    let (database, broker) = (services::postgres().await, services::amqp().await);
    let queue = broker.name();
    let orchestrator = Orchestrator::start(options(&database, &broker, &queue)).await;
    let api = orchestrator.api();
    api.apply(&SINGLE.replace("data.single", "data.plain")).await;
    broker.wait_for_queue(&queue).await;
    let rounds = if soak() { 10 } else { 2 };
    let mut sent = 0;
    for round in 0..rounds {
        // In the middle of the intake: some are stored, some in flight, some to come.
        let publish = broker.publish(&queue, numbered(sent..sent + 500));
        let hurt = async {
            wait_for_rows(&database, i64::try_from(sent).unwrap() + 100, PATIENCE).await;
            database.take_away().await;
        };
        tokio::join!(publish, hurt);
        broker.publish(&queue, numbered(sent + 500..sent + 600)).await;
        sent += 600;
        let what = "the log says that it waits";
        let outages = round + 1;
        eventually(what, PATIENCE, async || (told(&orchestrator, "not consuming") >= outages).then_some(()))
            .await;
        let refused = api.post("/api/v1/events", &json!([event("by-http", "data.plain", json!(1))])).await;
        refused.refused(503);
        assert_eq!(api.get("/readyz").await.status, 503);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let waiting = broker.depth(&queue).await.unwrap();
        assert!(waiting >= 100, "only {waiting} events wait in the queue: where are the others?");

        database.give_back().await;
        wait_for_rows(&database, i64::try_from(sent).unwrap(), PATIENCE).await;
        wait_until_settled(&database, &broker, &queue).await;
    }
    let sent = i64::try_from(sent).unwrap();
    assert_eq!(database.number(OURS).await, sent);
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, sent, "one run per event");
    // What is wrong with the database is not the events' fault.
    assert_eq!(database.number("SELECT COUNT(*) FROM dead_letters").await, 0);
    let decided = "SELECT COUNT(*) FROM decisions WHERE decision = 'started'";
    assert_eq!(database.number(decided).await, sent);
    let blamed = "SELECT COUNT(*) FROM decisions WHERE decision = 'filter_error'";
    assert_eq!(database.number(blamed).await, 0);
    assert_eq!(broker.depth(&format!("{queue}.dead")).await, Some(0));
    let generations = told(&orchestrator, "not consuming");
    assert!(
        generations <= 3 * rounds,
        "{generations} times given back in {rounds} outages:\n{}",
        orchestrator.logs()
    );
}

fn told(orchestrator: &Orchestrator, words: &str) -> usize {
    orchestrator.logs().matches(words).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_waits_for_a_database_that_is_away_at_start() {
    let database = services::postgres().await;
    database.take_away().await;
    let settings = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let mut orchestrator = Orchestrator::launch(settings);
    let what = "the log says that it waits";
    eventually(what, PATIENCE, async || (told(&orchestrator, "waiting for the database") > 0).then_some(()))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    database.give_back().await;
    orchestrator.wait_ready().await;
    orchestrator.api().send_events(&[event("e0", "data.plain", json!(0))]).await;
    assert_eq!(database.number(OURS).await, 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Several at once

#[tokio::test(flavor = "multi_thread")]
async fn orchestrators_that_start_together_on_an_empty_postgres_all_come_up() {
    for _ in 0..if soak() { 20 } else { 2 } {
        let (database, broker) = (services::postgres().await, services::amqp().await);
        let queue = broker.name();
        let mut orchestrators: Vec<Orchestrator> =
            (0..3).map(|_| Orchestrator::launch(options(&database, &broker, &queue))).collect();
        for orchestrator in &mut orchestrators {
            orchestrator.wait_ready().await;
        }
        orchestrators[0].api().apply(SINGLE).await;
        // Through each of them by HTTP and through all of them by the queue, all the same events.
        let events: Vec<_> =
            (0..50).map(|number| event(&format!("e{number}"), "data.single", json!(number))).collect();
        broker.wait_for_queue(&queue).await;
        broker.publish(&queue, events.iter().map(Message::event)).await;
        for orchestrator in &orchestrators {
            orchestrator.api().send_events(&events).await;
        }
        wait_until_settled(&database, &broker, &queue).await;
        assert_eq!(database.number(OURS).await, 50);
        assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_orchestrators_cannot_share_a_sqlite_database_whatever_their_folders() {
    let database = services::sqlite();
    let settings = || Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let _first = Orchestrator::start(settings()).await;
    let second = Orchestrator::launch(settings());
    let what = "the second says why it does not start";
    let told = async || (told(&second, "another orchestrator is running on it") > 0).then_some(());
    eventually(what, PATIENCE, told).await;
}
