//! Every event twice, in no order, with orchestrators killed on the way: each counts once.

use std::collections::HashSet;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use refit_tests::soak;

use super::*;

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
    let kept = database.number("SELECT COUNT(*) FROM dead_letters").await;
    assert_eq!(kept, load.malformed as i64, "malformed messages that are dead letters");
    for reason in database.texts("SELECT DISTINCT reason FROM dead_letters").await {
        let told = ["not JSON", "`type` is missing", "JSON object"];
        assert!(told.iter().any(|part| reason.contains(part)), "the reason tells nothing: {reason}");
    }
    let dead = format!("{queue}.dead");
    let malformed = u32::try_from(load.malformed).unwrap();
    let what = format!("the broker's dead-letter queue holds the {malformed} malformed messages");
    eventually(&what, PATIENCE, async || (broker.depth(&dead).await == Some(malformed)).then_some(())).await;
}
