//! The broker and the database go and come back, several orchestrators at once: nothing is lost and all goes on by itself.

use refit_tests::soak;

use super::wire::Wire;
use super::*;

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
        orchestrator.logs().contains("not taking").then_some(())
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
        eventually(what, PATIENCE, async || (told(&orchestrator, "not taking") >= outages).then_some(()))
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
    let generations = told(&orchestrator, "not taking");
    assert!(
        generations <= 3 * rounds,
        "{generations} times given back in {rounds} outages:\n{}",
        orchestrator.logs()
    );
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
