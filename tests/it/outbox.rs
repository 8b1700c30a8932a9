//! Events that go out: to a RabbitMQ exchange and to a webhook, from orchestrators that are killed meanwhile and to a
//! receiver that refuses at first. Nothing missing, every run's events in order, the same event under the same id.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use refit_tests::api::event;
use refit_tests::processes::{Options, Orchestrator};
use refit_tests::services::{self, Database};
use refit_tests::{eventually, soak};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(60);

/// A chain whose every step says something; the end of the run says more.
const CHAIN: &str = "
workflow: chain
on: [{ event: { type: [data.go] } }]
concurrency: { on_conflict: parallel }
steps:
  first: { emit: { type: chain.first, data: { run: '${{ run.name }}' } } }
  second: { needs: [first], emit: { type: chain.second } }
  third: { needs: [second], emit: { type: chain.third } }
";
const TYPES: [&str; 4] = ["chain.first", "chain.second", "chain.third", "refit.run.succeeded"];

/// The run an outbound event is of: its id begins with the run's name (`chain/7/…`).
fn run_of(event: &Value) -> String {
    let id = event["id"].as_str().unwrap();
    id.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")
}

/// Checks that these deliveries, in the order they were accepted, tell everything that these runs said: each event at
/// least once, always the same under one id, and first deliveries in the order of the run.
fn check_deliveries(accepted: &[Value], runs: usize) {
    let mut known: HashMap<&str, &Value> = HashMap::new();
    let mut firsts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for event in accepted {
        match known.insert(event["id"].as_str().unwrap(), event) {
            Some(before) => assert_eq!(before, event, "one id, two events"),
            None => firsts.entry(run_of(event)).or_default().push(event["type"].as_str().unwrap()),
        }
    }
    assert_eq!(firsts.len(), runs, "runs that were heard of");
    for (run, types) in firsts {
        assert_eq!(types, TYPES, "events of {run}");
    }
}

async fn go(orchestrator: &Orchestrator, numbers: std::ops::Range<usize>) {
    let events: Vec<Value> =
        numbers.map(|number| event(&format!("go-{number}"), "data.go", json!(number))).collect();
    orchestrator.api().send_events(&events).await;
}

// ---------------------------------------------------------------------------------------------------------------
// A webhook

/// What a request was.
#[derive(Clone)]
struct Request {
    headers: HashMap<String, String>,
    body: String,
    accepted: bool,
}

impl Request {
    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Somebody else's HTTP server: as much of HTTP/1.1 as a POST with a length needs, from the specification and not from
/// the libraries that Refit uses.
struct Receiver {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// One that answers 500 to the first try of every third event.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let receiver = Self { url, requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&requests)));
            }
        });
        receiver
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn accepted(&self) -> Vec<Value> {
        self.requests().iter().filter(|request| request.accepted).map(Request::event).collect()
    }

    async fn wait_for(&self, events: usize) {
        let what = format!("the webhook has {events} events");
        eventually(&what, PATIENCE, async || (self.distinct() >= events).then_some(())).await;
    }

    fn distinct(&self) -> usize {
        self.accepted().iter().map(|event| event["id"].to_string()).collect::<HashSet<_>>().len()
    }
}

async fn answer(stream: TcpStream, requests: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    // Ends when the sender hangs up, be it in the middle.
    while let Some((headers, body)) = read_request(&mut stream).await {
        let id = headers["webhook-id"].clone();
        let accepted = {
            let mut requests = requests.lock().unwrap();
            let again = requests.iter().any(|request| request.headers["webhook-id"] == id);
            let accepted = again || id.bytes().map(u32::from).sum::<u32>() % 3 != 0;
            requests.push(Request { headers, body, accepted });
            accepted
        };
        let status = if accepted { "204 No Content" } else { "500 Internal Server Error" };
        let answer =
            format!("HTTP/1.1 {status}\r\n{}\r\n", if accepted { "" } else { "content-length: 0\r\n" });
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(HashMap<String, String>, String)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|&bytes| bytes > 0)?;
    assert_eq!(line, "POST /hook HTTP/1.1\r\n");
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|&bytes| bytes > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some((headers, String::from_utf8(body).unwrap()))
}

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
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("refit.yaml");
    let webhook = json!({ "webhook": { "url": receiver.url, "secret": { "env": "OPS_SECRET" } } });
    // JSON is YAML.
    std::fs::write(&settings, json!({ "targets": { "ops": webhook } }).to_string()).unwrap();
    let options = Options {
        database_url: Some(database.url().to_owned()),
        arguments: vec!["--config".to_owned(), settings.display().to_string()],
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
    let refused = requests.iter().filter(|request| !request.accepted).count();
    assert!(refused > runs, "the receiver refused only {refused} requests");
    println!(
        "{}: {runs} runs, {kills} restarts: {} events heard, {} requests, {refused} of them refused at first",
        database.kind(),
        receiver.distinct(),
        requests.len(),
    );
}

// ---------------------------------------------------------------------------------------------------------------
// RabbitMQ

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
