//! Webhooks as their senders meet them: over a socket, at a real `refit serve` that is configured by a real `refit.yaml`.
//! Signatures are made here from each sender's documentation and never with what checks them.

mod formats;
mod overload;
mod page;
mod refusals;
mod schemes;
mod senders;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use refit_tests::processes::{Options, Orchestrator};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);

/// An orchestrator with these settings, and the folder that holds them.
struct House {
    orchestrator: Orchestrator,
    _folder: tempfile::TempDir,
}

impl House {
    /// Starts one whose `refit.yaml` is this text, with these variables.
    async fn start(settings: &str, env: &[(&str, &str)], options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refit.yaml");
        std::fs::write(&path, settings).unwrap();
        let mut options = options;
        options.arguments.extend(["--config".to_owned(), path.display().to_string()]);
        options.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { orchestrator: Orchestrator::start(options).await, _folder: folder }
    }

    fn url(&self) -> &str {
        self.orchestrator.base_url()
    }

    /// `HOST:PORT`
    fn address(&self) -> &str {
        self.url().trim_start_matches("http://")
    }

    /// Sends JSON to a webhook with these headers.
    async fn post(&self, hook: &str, headers: &Headers, body: &str) -> Answer {
        let mut headers = headers.clone();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        send(self.url(), Method::POST, &format!("/hooks/{hook}"), &headers, body.to_owned()).await
    }

    /// The events of a source, oldest first, with their data.
    async fn events(&self, source: &str) -> Vec<Value> {
        let path = format!("/api/v1/events?source={source}&order=oldest&data=true&limit=1000");
        self.orchestrator.api().get(&path).await.ok().as_array().unwrap().clone()
    }
}

type Headers = Vec<(String, String)>;

/// An answer with its headers.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    took: Duration,
}

fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Somebody else in this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No pool: a pooled connection dies with the runtime of the test that made it.
        let built = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(30));
        built.no_proxy().build().unwrap()
    })
}

/// Sends one request on a connection of its own.
async fn send(
    server: &str,
    method: Method,
    path: &str,
    headers: &Headers,
    body: impl Into<reqwest::Body>,
) -> Answer {
    let mut request = client().request(method, format!("{server}{path}"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let begun = std::time::Instant::now();
    let response = request.body(body).send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, headers, body, took: begun.elapsed() }
}

impl Answer {
    /// Checks that this is a refusal in the one shape all have (RFC 9457), of this kind.
    #[track_caller]
    fn refused(&self, what: &str, status: u16, kind: &str) -> &Value {
        assert_eq!((self.status, self.body["type"].as_str()), (status, Some(kind)), "{what}: {self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(self.body["status"], status, "{what}");
        assert!(self.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {self:?}");
        assert_eq!(self.headers.contains_key("www-authenticate"), status == 401, "{what}");
        &self.body
    }

    /// Checks that it was taken and gives the one receipt.
    #[track_caller]
    fn taken(&self, what: &str) -> &Value {
        assert_eq!(self.status, 202, "{what}: {self:?}");
        match self.body["events"].as_array().map(Vec::as_slice) {
            Some([receipt]) => receipt,
            _ => panic!("{what}: not one receipt: {self:?}"),
        }
    }
}

/// Seconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
