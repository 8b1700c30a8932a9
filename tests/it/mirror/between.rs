//! What stands between Refit and MLflow and lets through what it is told to: as much of HTTP/1.1 as that needs, from the
//! specification and not from the libraries that Refit uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use refit_tests::services::Mlflow;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
}

impl Asked {
    /// `POST runs/create`.
    pub(super) fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {}", self.method, path.trim_start_matches("/api/2.0/mlflow/"))
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// MLflow is asked, and answers.
    Pass,
    /// MLflow is not asked, and nobody ever answers.
    HoldRequest,
    /// MLflow does it, and nobody ever answers.
    HoldAnswer,
    /// MLflow does it, and the connection breaks.
    LoseAnswer,
    /// Something else answers in its place: all of an answer, as it is sent.
    Say(&'static str),
    /// Something else answers and does not end.
    SayForEver,
}

type Decide = dyn Fn(&Asked) -> Act + Send + Sync;

pub(super) struct Between {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    decide: Arc<Mutex<Arc<Decide>>>,
}

impl Between {
    pub(super) async fn start(
        mlflow: &Mlflow,
        decide: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", mlflow, decide).await
    }

    pub(super) async fn start_at(
        address: &str,
        mlflow: &Mlflow,
        decide: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let decide: Arc<Decide> = Arc::new(decide);
        let between = Self { url, asked: Arc::default(), decide: Arc::new(Mutex::new(decide)) };
        let (asked, decide) = (Arc::clone(&between.asked), Arc::clone(&between.decide));
        let mlflow = mlflow.url().trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, mlflow.clone(), Arc::clone(&asked), Arc::clone(&decide)));
            }
        });
        between
    }

    /// Decides so from now on.
    pub(super) fn decide(&self, decide: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Arc::new(decide);
    }

    /// Does this to the first such request from now on, and lets everything else pass.
    pub(super) fn once(&self, what: &str, act: Act) {
        let (what, left) = (what.to_owned(), Mutex::new(true));
        self.decide(move |asked| {
            let is_it = asked.what() == what && std::mem::take(&mut *left.lock().unwrap());
            if is_it { act } else { Act::Pass }
        });
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often this was asked.
    pub(super) fn count(&self, what: &str) -> usize {
        self.asked().iter().filter(|asked| asked.what() == what).count()
    }
}

async fn serve(
    stream: TcpStream,
    mlflow: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    decide: Arc<Mutex<Arc<Decide>>>,
) {
    let mut stream = BufReader::new(stream);
    // Ends when the sender hangs up, be it in the middle.
    while let Some((request, head, body)) = read(&mut stream).await {
        let decide = Arc::clone(&decide.lock().unwrap());
        let act = decide(&request);
        let answer = match act {
            Act::Pass | Act::HoldAnswer | Act::LoseAnswer => forward(&mlflow, &head, &body).await,
            Act::Say(text) => text.as_bytes().to_vec(),
            Act::HoldRequest | Act::SayForEver => Vec::new(),
        };
        // Told once it has been done.
        asked.lock().unwrap().push(request);
        match act {
            Act::Pass | Act::Say(_) if stream.write_all(&answer).await.is_ok() => {}
            Act::Pass | Act::Say(_) | Act::LoseAnswer => return,
            Act::HoldRequest | Act::HoldAnswer => std::future::pending().await,
            Act::SayForEver => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":\"".to_vec();
                let mut next = head;
                while stream.write_all(&next).await.is_ok() {
                    next = vec![b'x'; 64 * 1024];
                }
                return;
            }
        }
    }
}

/// The request, and its head and body as they came.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(Asked, String, Vec<u8>)> {
    let mut head = String::new();
    stream.read_line(&mut head).await.ok().filter(|&bytes| bytes > 0)?;
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let from = head.len();
        stream.read_line(&mut head).await.ok().filter(|&bytes| bytes > 0)?;
        let Some((name, value)) = head[from..].trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((Asked { method, path, headers }, head, body))
}

/// Asks MLflow on a connection of its own, and gives its answer as it came.
async fn forward(mlflow: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(mlflow).await.unwrap();
    let head = head.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}
