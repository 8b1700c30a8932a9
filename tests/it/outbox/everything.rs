//! Everything that a run says is heard: whatever is killed, refused or away meanwhile, nothing is missing, nothing is heard
//! that did not happen, and each run's events come in order.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::receiver::{Answer, Receiver, Request};
use super::*;

const SECRET: &[u8] = b"between these two and nobody else";

/// What a receiver does by Standard Webhooks 1.0: the signature is over id, time and the bytes as they came.
fn verify(request: &Request) {
    let (id, timestamp) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(format!("{id}.{timestamp}.{}", request.body).as_bytes());
    let expected = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(request.headers["webhook-signature"], format!("v1,{expected}"));
    assert_eq!(request.event()["id"].as_str().unwrap(), id);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(timestamp.parse().unwrap()) < 300, "the time {timestamp} is not now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_hears_everything_in_order_and_signed_sqlite() {
    webhook_hears_everything(services::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_hears_everything_in_order_and_signed_postgres() {
    webhook_hears_everything(services::postgres().await).await;
}

async fn webhook_hears_everything(database: Database) {
    let (runs, kills) = if soak() { (400, 5) } else { (40, 2) };
    let receiver = Receiver::start(|request, before| {
        let again = before.iter().any(|other| other.id() == request.id());
        let accepted = again || request.id().bytes().map(u32::from).sum::<u32>() % 3 != 0;
        Answer::Status(if accepted { 204 } else { 500 })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let webhook = json!({ "url": receiver.url, "secret": { "env": "OPS_SECRET" }, "allow": ["127.0.0.0/8"] });
    let options = Options {
        database_url: Some(database.url().to_owned()),
        arguments: settings(folder.path(), &json!({ "ops": { "webhook": webhook } })),
        env: vec![("OPS_SECRET".to_owned(), format!("whsec_{}", STANDARD.encode(SECRET)))],
        ..Options::default()
    };
    let mut orchestrator = Orchestrator::start(options).await;
    orchestrator.api().apply(CHAIN).await;
    let part = runs / (kills + 1);
    for kill in 0..kills {
        go(&orchestrator, kill * part..(kill + 1) * part).await;
        // Some of this part are out, some are not.
        receiver.wait_for(kill * part * TYPES.len() + part).await;
        if database.kind() == "postgres" && !soak() {
            // Another may be alive: one that was killed keeps its targets for 20 s, one that left hands them over.
            orchestrator.terminate();
        } else {
            orchestrator.kill9();
        }
        orchestrator.restart().await;
    }
    go(&orchestrator, kills * part..runs).await;
    receiver.wait_for(runs * TYPES.len()).await;
    let empty = "SELECT COUNT(*) FROM outbox";
    eventually("the outbox is empty", PATIENCE, async || (database.number(empty).await == 0).then_some(()))
        .await;

    let requests = receiver.requests();
    requests.iter().for_each(verify);
    check_deliveries(&receiver.accepted(), runs);
    let refused = requests.iter().filter(|request| !request.accepted()).count();
    assert!(refused > runs, "the receiver refused only {refused} requests");
    println!(
        "{}: {runs} runs, {kills} restarts: {} events heard, {} requests, {refused} of them refused at first",
        database.kind(),
        receiver.distinct(),
        requests.len(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_hears_everything_in_order_although_killed() {
    let (runs, kills) = if soak() { (1_000, 5) } else { (100, 2) };
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let exchange = broker.name();
    let options = Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(broker.name()),
        amqp_exchange: Some(exchange.clone()),
        ..Options::default()
    };
    let mut orchestrator = Orchestrator::start(options).await;
    orchestrator.api().apply(CHAIN).await;
    // Nobody listens yet: what goes out is returned, and kept.
    go(&orchestrator, 0..1).await;
    let failed = "SELECT COUNT(*) FROM outbox WHERE attempts > 0";
    eventually("it was tried in vain", PATIENCE, async || (database.number(failed).await > 0).then_some(()))
        .await;
    let queue = broker.listen(&exchange, "#").await;

    let part = (runs - 1) / (kills + 1);
    let mut heard = Vec::new();
    let take = async |heard: &mut Vec<Value>| {
        let taken = broker.take(&queue, PATIENCE).await;
        let event: Value = serde_json::from_slice(&taken.body).unwrap();
        assert_eq!(taken.routing_key, event["type"], "the key is the event's type");
        heard.push(event);
    };
    for kill in 0..kills {
        go(&orchestrator, 1 + kill * part..1 + (kill + 1) * part).await;
        for _ in 0..part {
            take(&mut heard).await;
        }
        orchestrator.kill9();
        orchestrator.restart().await;
    }
    go(&orchestrator, 1 + kills * part..runs).await;
    let known =
        |heard: &[Value]| heard.iter().map(|event| event["id"].to_string()).collect::<HashSet<_>>().len();
    while known(&heard) < runs * TYPES.len() {
        take(&mut heard).await;
    }
    let empty = "SELECT COUNT(*) FROM outbox";
    eventually("the outbox is empty", PATIENCE, async || (database.number(empty).await == 0).then_some(()))
        .await;
    check_deliveries(&heard, runs);
    println!("{runs} runs, {kills} kills: {} events heard, {} deliveries", known(&heard), heard.len());
}

/// A way to a broker that can be cut and mended.
struct Link {
    address: String,
    broker: String,
    open: Option<tokio::task::JoinHandle<()>>,
}

impl Link {
    /// To the broker of an AMQP URL; the same URL through the link.
    async fn to(url: &str) -> (Self, String) {
        let (before, rest) = url.split_at(url.rfind('@').map_or("amqp://".len(), |at| at + 1));
        let broker = rest.split('/').next().unwrap().to_owned();
        let broker = if broker.contains(':') { broker } else { format!("{broker}:5672") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind = rest.find('/').map_or("", |slash| &rest[slash..]);
        let through = format!("{before}{address}{behind}");
        let mut link = Self { address, broker, open: None };
        link.carry(listener);
        (link, through)
    }

    fn carry(&mut self, listener: TcpListener) {
        let broker = self.broker.clone();
        self.open = Some(tokio::spawn(async move {
            // Ended with this task: what it carries is cut with it.
            let mut carried = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let broker = broker.clone();
                carried.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(broker).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }));
    }

    async fn cut(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
            let _ = open.await;
        }
    }

    async fn mend(&mut self) {
        let listener =
            eventually("the address is free", PATIENCE, async || TcpListener::bind(&self.address).await.ok())
                .await;
        self.carry(listener);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_misses_nothing_although_killed() {
    let (runs, away) = if soak() { (600, Duration::from_secs(60)) } else { (60, Duration::from_secs(3)) };
    let (database, broker) = (services::sqlite(), services::amqp().await);
    let (mut link, url) = Link::to(broker.url()).await;
    let (exchange, folder) = (broker.name(), tempfile::tempdir().unwrap());
    let queue = broker.listen(&exchange, "#").await;
    let amqp = json!({ "url": url, "exchange": exchange });
    let mut orchestrator = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        arguments: settings(folder.path(), &json!({ "bus": { "amqp": amqp } })),
        ..Options::default()
    })
    .await;
    orchestrator.api().apply(CHAIN).await;
    let part = runs / 3;
    go(&orchestrator, 0..part).await;
    let depth = async |least: u32| {
        eventually("some are out", PATIENCE, async || {
            broker.depth(&queue).await.filter(|depth| *depth >= least)
        })
        .await
    };
    depth(1).await;
    link.cut().await;
    let cut = std::time::Instant::now();
    go(&orchestrator, part..2 * part).await;
    // Killed while events of finished runs wait; those of others are being written.
    let waiting = "SELECT COUNT(*) FROM outbox";
    eventually("events wait", PATIENCE, async || (database.number(waiting).await > 0).then_some(())).await;
    orchestrator.kill9();
    orchestrator.restart().await;
    go(&orchestrator, 2 * part..3 * part).await;
    wait_for_state(&orchestrator.api(), "bus", "open").await;
    tokio::time::sleep(away.saturating_sub(cut.elapsed())).await;
    link.mend().await;
    eventually("the outbox is empty", PATIENCE, async || (database.number(waiting).await == 0).then_some(()))
        .await;
    wait_for_state(&orchestrator.api(), "bus", "ok").await;

    let mut heard: Vec<Value> = Vec::new();
    while broker.depth(&queue).await.is_some_and(|depth| depth > 0) {
        heard.push(serde_json::from_slice(&broker.take(&queue, PATIENCE).await.body).unwrap());
    }
    check_deliveries(&heard, 3 * part);
    let happened: HashSet<String> = database.texts("SELECT id FROM events").await.into_iter().collect();
    assert!(heard.iter().all(|event| happened.contains(event["id"].as_str().unwrap())), "heard, but not so");
    println!("{} runs, broker away for {away:?}: {} deliveries", 3 * part, heard.len());
}
