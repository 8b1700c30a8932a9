//! The promise about events, in one storm: bursts, duplicates and rubbish through RabbitMQ while the orchestrator, the
//! broker and the database are killed, connections closed and the queue deleted. Afterwards every event is stored once, every
//! piece of rubbish is a dead letter, and the runs are those that `refit simulate` makes of the server's own log.
//!
//! The services are this test's own: nobody else could bear what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use refit_tests::api::event;
use refit_tests::private::{Postgres, RabbitMq};
use refit_tests::processes::{Options, Orchestrator, refit};
use refit_tests::services::{self, Database, Message};
use refit_tests::{eventually, soak};
use serde_json::{Value, json};

const QUEUE: &str = "storm";
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages in flight when publishing.
const AT_ONCE: usize = 200;

/// What an event may start: a run at once, a batch by count, a batch that falls quiet. Steps that the orchestrator decides by
/// itself, so that no worker is needed.
const WORKFLOWS: &str = "
workflow: single
on: [{ event: { type: [data.single] } }]
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
---
workflow: counted
on:
  - event: { type: [data.counted] }
    by: data.key
    batch: { count: 25 }
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
---
workflow: quiet
on:
  - event: { type: [data.quiet] }
    by: data.key
    batch: { quiet: 300ms, max_wait: 2s }
concurrency: { on_conflict: parallel }
steps:
  tell: { emit: { type: told } }
";

/// What is done to the orchestrator and what it stands on, each at its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    KillOrchestrator,
    CrashBroker,
    CutConnections,
    DeleteQueue,
    CrashDatabase,
}

struct Storm {
    /// How many distinct events.
    events: usize,
    /// How many messages that are none.
    rubbish: usize,
    blows: Vec<Blow>,
}

impl Storm {
    /// With its blows in no order; those to the database only where there is one that can bear them.
    fn new(database: bool, dice: &mut StdRng) -> Self {
        let (events, rubbish, kills) = if soak() { (100_000, 1_000, 10) } else { (3_000, 30, 2) };
        let mut blows = vec![Blow::KillOrchestrator; kills];
        let (twice, once) = if soak() { (2, 2) } else { (1, 1) };
        blows.extend(vec![Blow::CrashBroker; twice]);
        blows.extend(vec![Blow::CutConnections; once]);
        blows.push(Blow::DeleteQueue);
        if database {
            blows.extend(vec![Blow::CrashDatabase; twice]);
        }
        blows.shuffle(dice);
        // RabbitMQ 3.10 itself does not always bring back a quorum queue that was made just before its node was killed.
        let last = blows.len() - 1;
        if let Some(at) = blows.windows(2).position(|two| two == [Blow::DeleteQueue, Blow::CrashBroker]) {
            blows.swap(at, last);
        }
        Self { events, rubbish, blows }
    }

    /// Every event one to five times, every piece of rubbish once, in no order; a burst before each blow and one after all.
    fn bursts(&self, dice: &mut StdRng) -> Vec<Vec<Message>> {
        let mut messages: Vec<Message> = Vec::new();
        for number in 0..self.events {
            let kind = match number % 10 {
                0 if number % 100 == 0 => "data.single",
                0..=4 => "data.counted",
                _ => "data.quiet",
            };
            let data = json!({ "number": number, "key": format!("k{}", number % 7) });
            let message = Message::event(&event(&format!("e{number}"), kind, data));
            messages.extend(vec![message; dice.random_range(1..=5)]);
        }
        messages.extend((0..self.rubbish).map(|number| match number % 2 {
            0 => Message::with_content_type("application/cloudevents+json", format!("{{ not JSON {number}")),
            _ => Message::with_content_type(
                "application/cloudevents+json",
                json!({ "id": format!("no type {number}"), "source": "/tests" }).to_string(),
            ),
        }));
        messages.shuffle(dice);
        let size = messages.len().div_ceil(self.blows.len() + 1);
        messages.chunks(size).map(<[Message]>::to_vec).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_loses_and_doubles_nothing_sqlite() {
    weather(services::sqlite(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_loses_and_doubles_nothing_postgres() {
    let server = Postgres::start().await;
    weather(Database::at(server.url()), Some(&server)).await;
}

async fn weather(database: Database, server: Option<&Postgres>) {
    let seed = std::env::var("REFIT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("{}: seed {seed} (REFIT_TEST_SEED={seed} repeats the choices)", database.kind());
    let mut dice = StdRng::seed_from_u64(seed);
    let storm = Storm::new(server.is_some(), &mut dice);
    let bursts = storm.bursts(&mut dice);
    let deliveries: usize = bursts.iter().map(Vec::len).sum();

    let broker = RabbitMq::start().await;
    let mut orchestrator = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(QUEUE.to_owned()),
        ..Options::default()
    })
    .await;
    let code = tempfile::tempdir().unwrap();
    std::fs::write(code.path().join("storm.yaml"), WORKFLOWS).unwrap();
    command(code.path(), &["apply", "storm.yaml", "--server", orchestrator.base_url()]);

    let begun = Instant::now();
    let mut blows = storm.blows.iter();
    let mut sent = BTreeSet::new();
    for burst in bursts {
        sent.extend(burst.iter().map(|message| message.body.clone()));
        publish(broker.url(), burst).await;
        let Some(&blow) = blows.next() else { break };
        if blow == Blow::DeleteQueue {
            // Whoever deletes a queue loses what is in it.
            stored(&database, &sent).await;
        } else {
            // In the middle of it, not always just after a commit.
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..400))).await;
        }
        match blow {
            Blow::KillOrchestrator => {
                orchestrator.kill9();
                orchestrator.restart().await;
            }
            Blow::CrashBroker => broker.crash(),
            Blow::CutConnections => broker.cut(),
            Blow::DeleteQueue => delete_queue(broker.url()).await,
            Blow::CrashDatabase => {
                if let Some(server) = server {
                    server.crash();
                }
            }
        }
    }
    stored(&database, &sent).await;
    settled(&database).await;
    let seconds = begun.elapsed().as_secs_f64();

    let (stored, dead) = recorded(&database, &storm).await;
    let live = runs_stored(&database).await;
    let simulated = runs_simulated(code.path(), orchestrator.base_url());
    compare(&live, &simulated);
    println!(
        "{}: {} events in {deliveries} deliveries, {} pieces of rubbish, {:?}: {stored} stored, {dead} dead letters, {} \
         runs as simulated, {:.0} deliveries/s, {seconds:.1} s",
        database.kind(),
        storm.events,
        storm.rubbish,
        storm.blows,
        live.values().map(Vec::len).sum::<usize>(),
        deliveries as f64 / seconds,
    );
}

/// A burst within two seconds is one run, and nothing of it is left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_5000_events_is_one_run_that_lists_them_all() {
    const EVENTS: usize = 5_000;
    const BURST: &str = "
workflow: burst
on: [{ event: { type: [data.changed] }, batch: { quiet: 1s } }]
steps:
  tell: { emit: { type: told, data: { count: '${{ batch.count }}' } } }
";
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let queue = broker.name();
    let options = Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.clone()),
        ..Options::default()
    };
    let orchestrator = Orchestrator::start(options).await;
    orchestrator.api().apply(BURST).await;
    broker.wait_for_queue(&queue).await;
    let message = |number| Message::event(&event(&format!("e{number}"), "data.changed", json!(number)));
    let begun = Instant::now();
    broker.publish(&queue, (0..EVENTS).map(message)).await;
    let published = begun.elapsed();

    let over = "SELECT COUNT(*) FROM runs WHERE state = 'succeeded'";
    eventually("the run is over", PATIENCE, async || (database.number(over).await > 0).then_some(())).await;
    assert_eq!(database.number("SELECT COUNT(*) FROM runs").await, 1);
    let run = orchestrator.api().get("/api/v1/runs/burst/1").await.ok();
    let mut listed: Vec<&str> =
        run["events"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!((run["event_count"].as_u64(), listed.len()), (Some(EVENTS as u64), EVENTS));
    println!(
        "{EVENTS} events published in {published:.1?}: one run, {:.1?} after the first",
        begun.elapsed()
    );
}

// ---------------------------------------------------------------------------------------------------------------
// The broker's side

async fn connect(url: &str) -> Result<(Connection, Channel), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Publishes until the broker has confirmed every message, whatever happens to it meanwhile: as a sender that keeps its promise.
async fn publish(url: &str, burst: Vec<Message>) {
    let mut open = burst;
    let begun = Instant::now();
    while !open.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} messages are not confirmed", open.len());
        if let Ok((connection, channel)) = connect(url).await {
            open = publish_on(&channel, open).await;
            // One that is gone already needs no goodbye.
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.close(200, "done".into())).await;
        }
        if !open.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What was not confirmed, or reached no queue.
async fn publish_on(channel: &Channel, messages: Vec<Message>) -> Vec<Message> {
    let mut open = Vec::new();
    for some in messages.chunks(AT_ONCE) {
        let mut confirms = Vec::new();
        for message in some {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = message.properties.clone().with_delivery_mode(2);
            let sent = channel.basic_publish("".into(), QUEUE.into(), options, &message.body, properties);
            confirms.push(sent.await);
        }
        let mut all = true;
        for confirm in confirms {
            let confirmed = match confirm {
                Ok(confirm) => tokio::time::timeout(Duration::from_secs(5), confirm).await,
                Err(_) => Ok(Ok(Confirmation::NotRequested)),
            };
            // A message that came back belongs to whichever confirm completes next: then none of them counts.
            all &= matches!(confirmed, Ok(Ok(Confirmation::Ack(None))));
        }
        if !all {
            open.extend_from_slice(some);
        }
    }
    open
}

async fn delete_queue(url: &str) {
    let (_connection, channel) = connect(url).await.unwrap();
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
}

// ---------------------------------------------------------------------------------------------------------------
// What came of it

/// Waits until everything that was sent is an event or a dead letter.
async fn stored(database: &Database, sent: &BTreeSet<Vec<u8>>) {
    let events = "SELECT COUNT(*) FROM events WHERE source = '/tests'";
    let dead = "SELECT COUNT(*) FROM dead_letters";
    eventually("everything that was sent is stored", PATIENCE * 5, async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let there = database.number(events).await + database.number(dead).await;
        (there >= sent.len() as i64).then_some(())
    })
    .await;
}

/// How many events and dead letters there are: each event once, and each piece of rubbish.
async fn recorded(database: &Database, storm: &Storm) -> (i64, i64) {
    let stored = database.number("SELECT COUNT(*) FROM events WHERE source = '/tests'").await;
    assert_eq!(stored, storm.events as i64, "one row for each event");
    let distinct = "SELECT COUNT(DISTINCT id) FROM events WHERE source = '/tests'";
    assert_eq!(database.number(distinct).await, storm.events as i64);
    let dead = database.number("SELECT COUNT(*) FROM dead_letters").await;
    assert_eq!(dead, storm.rubbish as i64, "one dead letter for each piece of rubbish");
    (stored, dead)
}

/// Nothing is on its way any more; batches by count may stay open.
async fn settled(database: &Database) {
    for left in [
        "SELECT COUNT(*) FROM events WHERE routed = 0",
        "SELECT COUNT(*) FROM batches WHERE open = 1 AND workflow = 'quiet'",
        "SELECT COUNT(*) FROM runs WHERE state IN ('waiting', 'running')",
    ] {
        let what = format!("this is 0: {left}");
        eventually(&what, PATIENCE * 5, async || (database.number(left).await == 0).then_some(())).await;
    }
}

/// By workflow: the ids of the events of each run, in the order of the log.
type Runs = BTreeMap<String, Vec<Vec<String>>>;

async fn runs_stored(database: &Database) -> Runs {
    let rows = database
        .texts(
            "SELECT r.workflow || ' ' || r.id || ' ' || e.id FROM runs r JOIN run_events l ON l.run = r.id
             JOIN events e ON e.seq = l.event ORDER BY r.id, e.seq",
        )
        .await;
    let mut runs: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for row in rows {
        let [workflow, run, event] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        runs.entry(workflow.to_owned())
            .or_default()
            .entry(run.to_owned())
            .or_default()
            .push(event.to_owned());
    }
    sorted(runs.into_iter().map(|(workflow, runs)| (workflow, runs.into_values().collect())).collect())
}

fn runs_simulated(code: &std::path::Path, server: &str) -> Runs {
    let since = ["--history", "--since", "1d", "-o", "json", "--server", server];
    let printed = command(code, &[&["simulate", "storm.yaml"][..], &since[..]].concat());
    let simulated: Value = serde_json::from_str(&printed).unwrap();
    let mut runs = Runs::new();
    for run in simulated["runs"].as_array().unwrap() {
        let ids = run["events"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
        runs.entry(run["workflow"].as_str().unwrap().to_owned()).or_default().push(ids.collect());
    }
    sorted(runs)
}

fn sorted(mut runs: Runs) -> Runs {
    runs.values_mut().for_each(|runs| runs.sort());
    runs
}

fn compare(live: &Runs, simulated: &Runs) {
    for (workflow, live) in live {
        let simulated = simulated.get(workflow).map_or(&[][..], Vec::as_slice);
        let only_live: Vec<_> = live.iter().filter(|run| !simulated.contains(run)).take(2).collect();
        let only_simulated: Vec<_> = simulated.iter().filter(|run| !live.contains(run)).take(2).collect();
        assert!(
            only_live.is_empty() && only_simulated.is_empty() && live.len() == simulated.len(),
            "{workflow}: {} runs live, {} simulated\nonly live: {only_live:?}\nonly simulated: {only_simulated:?}",
            live.len(),
            simulated.len(),
        );
    }
    assert_eq!(live.len(), simulated.len(), "workflows with runs");
}

fn command(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = refit(folder, arguments).output().unwrap();
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "refit {arguments:?}: {}\n{out}\n{error}", output.status);
    out
}
