//! Somebody else's HTTP server: as much of HTTP/1.1 as a POST with a length needs, from the specification and not from the
//! libraries that Refit uses.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use refit_tests::eventually;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::PATIENCE;

/// What a request was, and what was answered.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
    pub(super) status: u16,
    pub(super) at: Instant,
}

impl Request {
    pub(super) fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(super) fn accepted(&self) -> bool {
        self.status < 300
    }
}

/// What a receiver does about a request.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Status(u16),
    /// With `Retry-After`, in seconds.
    Later(u16, u64),
    /// 204, once the receiver lets go.
    Held,
}

/// Decides about a request (its status does not count), knowing those before it.
type Decide = dyn Fn(&Request, &[Request]) -> Answer + Send + Sync;

pub(super) struct Receiver {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    decide: Arc<Mutex<Arc<Decide>>>,
    held: watch::Sender<bool>,
}

impl Receiver {
    /// One that answers as it is told.
    pub(super) async fn start(
        decide: impl Fn(&Request, &[Request]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let decide: Arc<Decide> = Arc::new(decide);
        let receiver = Self {
            url,
            requests: Arc::default(),
            decide: Arc::new(Mutex::new(decide)),
            held: watch::Sender::new(true),
        };
        let (requests, decide, held) =
            (Arc::clone(&receiver.requests), Arc::clone(&receiver.decide), receiver.held.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&requests), Arc::clone(&decide), held.subscribe()));
            }
        });
        receiver
    }

    /// One that takes everything.
    pub(super) async fn willing() -> Self {
        Self::start(|_, _| Answer::Status(204)).await
    }

    /// Takes everything from now on.
    pub(super) fn heal(&self) {
        *self.decide.lock().unwrap() = Arc::new(|_, _| Answer::Status(204));
    }

    /// Answers what was held.
    pub(super) fn let_go(&self) {
        self.held.send_replace(false);
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn accepted(&self) -> Vec<Value> {
        self.requests().iter().filter(|request| request.accepted()).map(Request::event).collect()
    }

    pub(super) async fn wait_for(&self, events: usize) {
        let what = format!("the webhook has {events} events");
        eventually(&what, PATIENCE, async || (self.distinct() >= events).then_some(())).await;
    }

    pub(super) fn distinct(&self) -> usize {
        self.accepted().iter().map(|event| event["id"].to_string()).collect::<HashSet<_>>().len()
    }
}

async fn answer(
    stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    decide: Arc<Mutex<Arc<Decide>>>,
    mut held: watch::Receiver<bool>,
) {
    let mut stream = BufReader::new(stream);
    // Ends when the sender hangs up, be it in the middle.
    while let Some((headers, body)) = read_request(&mut stream).await {
        let request = Request { headers, body, status: 0, at: Instant::now() };
        let decide = Arc::clone(&decide.lock().unwrap());
        let answer = decide(&request, &requests.lock().unwrap());
        let (status, later) = match answer {
            Answer::Status(status) => (status, None),
            Answer::Later(status, seconds) => (status, Some(seconds)),
            Answer::Held => {
                if held.wait_for(|held| !held).await.is_err() {
                    return;
                }
                (204, None)
            }
        };
        requests.lock().unwrap().push(Request { status, ..request });
        let mut answer = format!("HTTP/1.1 {status} Because\r\n");
        if let Some(seconds) = later {
            answer.push_str(&format!("retry-after: {seconds}\r\n"));
        }
        if status != 204 {
            answer.push_str("content-length: 0\r\n");
        }
        answer.push_str("\r\n");
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
