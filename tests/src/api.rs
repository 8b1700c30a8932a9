//! A small client of the HTTP API that shows a test the status and the JSON as they came. Knows no types of the
//! orchestrator's answers on purpose: what it reads is what other people's programs read.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use refit_workflows::digest::Digest;
use refit_workflows::wire::{Tree, TreeFile};
use serde_json::{Value, json};

/// The states in which a run is over.
pub const OVER: [&str; 5] = ["succeeded", "rejected", "failed", "cancelled", "coalesced"];

/// An answer: status and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body; null when there is none, text when it is not JSON.
    pub body: Value,
}

impl Reply {
    /// The body of a 2xx answer.
    ///
    /// # Panics
    /// When the answer is anything else.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "the server answered {}: {}", self.status, self.body);
        self.body
    }

    /// Checks the status of a refusal and gives its problem details.
    ///
    /// # Panics
    /// When the answer has another status.
    #[track_caller]
    pub fn refused(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Api {
    base_url: String,
    token: Option<String>,
}

impl Api {
    /// A client without a token of the server at `http://HOST:PORT`.
    pub fn new(base_url: &str) -> Self {
        Self { base_url: base_url.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same client with a bearer token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { base_url: self.base_url.clone(), token: Some(token.to_owned()) }
    }

    /// Sends one request. `path` is from the root: `/readyz`, `/api/v1/runs`.
    ///
    /// # Errors
    /// The server cannot be reached, or went away before it had answered.
    pub async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = http().request(method, format!("{}{path}", self.base_url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some((content_type, bytes)) = body {
            request = request.header("content-type", content_type).body(bytes);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => Value::from(String::from_utf8_lossy(&bytes).into_owned()),
        };
        Ok(Reply { status, body })
    }

    /// GET, for a server that may be away.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn try_get(&self, path: &str) -> Result<Reply, reqwest::Error> {
        self.send(reqwest::Method::GET, path, None).await
    }

    /// POST of JSON, for a server that may be away.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Reply, reqwest::Error> {
        self.send(reqwest::Method::POST, path, Some(("application/json", body.to_string().into_bytes())))
            .await
    }

    /// GET.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn get(&self, path: &str) -> Reply {
        reached(path, self.try_get(path).await)
    }

    /// POST of JSON.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        reached(path, self.try_post(path, body).await)
    }

    /// Stores a blob and gives its digest.
    ///
    /// # Panics
    /// When the server does not take it.
    pub async fn put_blob(&self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        let path = format!("/api/v1/blobs/{digest}");
        let sent = self.send(reqwest::Method::PUT, &path, Some(("application/octet-stream", bytes))).await;
        reached(&path, sent).ok();
        digest
    }

    /// Registers a workflow without a bundle.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn apply(&self, text: &str) -> Value {
        self.post("/api/v1/workflows", &json!({"text": text, "bundle": null})).await.ok()
    }

    /// Registers a workflow with these files, given by relative path, as its bundle.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn apply_with_files(&self, text: &str, files: &[(&str, &str)]) -> Value {
        let mut tree = Tree::default();
        for (path, content) in files {
            let digest = self.put_blob(content.as_bytes().to_vec()).await;
            let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
            tree.files.push(TreeFile { path: (*path).to_owned(), digest, bytes, executable: false });
        }
        let bundle = self.put_blob(tree.to_json().into_bytes()).await;
        self.post("/api/v1/workflows", &json!({"text": text, "bundle": bundle})).await.ok()
    }

    /// Registers `FOLDER/workflow.yaml` with the files beside it (not those in folders below) as its bundle.
    ///
    /// # Panics
    /// When a file cannot be read or the server refuses it.
    pub async fn apply_folder(&self, folder: &Path) -> Value {
        let mut files = Vec::new();
        let entries = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
        for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
            files.push((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())));
        }
        let borrowed: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        self.apply_with_files(&read(&folder.join("workflow.yaml")), &borrowed).await
    }

    /// Sends CloudEvents in one request and gives their receipts.
    ///
    /// # Panics
    /// When the server does not accept all of them.
    pub async fn send_events(&self, events: &[Value]) -> Value {
        let reply = self.post("/api/v1/events", &Value::from(events.to_vec())).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        reply.body["events"].clone()
    }

    /// Starts a run by hand and gives its name.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn start_run(&self, workflow: &str, params: Value) -> String {
        let run = self.post("/api/v1/runs", &json!({"workflow": workflow, "params": params})).await.ok();
        match run["run"].as_str() {
            Some(name) => name.to_owned(),
            None => panic!("the answer names no run: {run}"),
        }
    }

    /// A run as `run show -o json` prints it.
    ///
    /// # Panics
    /// When there is no such run.
    pub async fn run(&self, run: &str) -> Value {
        self.get(&format!("/api/v1/runs/{run}")).await.ok()
    }

    /// The runs of a workflow, newest first, without their steps.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn runs(&self, workflow: &str) -> Vec<Value> {
        let list = self.get(&format!("/api/v1/runs?workflow={workflow}&limit=1000")).await.ok();
        list.as_array().cloned().unwrap_or_default()
    }

    /// A step of a run that was read.
    ///
    /// # Panics
    /// When the run has no such step.
    #[track_caller]
    pub fn step<'a>(run: &'a Value, step: &str) -> &'a Value {
        let found = run["steps"].as_array().and_then(|steps| steps.iter().find(|one| one["step"] == step));
        match found {
            Some(step) => step,
            None => panic!("the run has no step `{step}`: {run}"),
        }
    }

    /// Waits until a run that may not exist yet satisfies `wanted`. A server that is away or answers 5xx is waited for.
    ///
    /// # Panics
    /// After `timeout`, with the run as it was last seen.
    pub async fn wait_run_until(
        &self,
        run: &str,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let begun = Instant::now();
        let mut last = Value::Null;
        loop {
            let after = last["version"].as_i64().map(|version| format!("?after={version}&wait_ms=1000"));
            let path = format!("/api/v1/runs/{run}{}", after.unwrap_or_default());
            match self.try_get(&path).await {
                Ok(reply) if reply.status == 200 => {
                    if wanted(&reply.body) {
                        return reply.body;
                    }
                    last = reply.body;
                }
                Ok(reply) if reply.status == 404 || reply.status >= 500 => {}
                Ok(reply) => panic!("asked for {run}, the server answered {}: {}", reply.status, reply.body),
                Err(_) => {}
            }
            assert!(
                begun.elapsed() < timeout,
                "waited {timeout:?} in vain for run {run}; last seen: {last:#}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a run is in this state.
    ///
    /// # Panics
    /// After `timeout`, or at once when the run is over in another state.
    pub async fn wait_run(&self, run: &str, state: &str, timeout: Duration) -> Value {
        let found = self.wait_run_until(run, timeout, |seen| is_over(seen) || seen["state"] == state).await;
        assert_eq!(found["state"], state, "run {run} is over: {found:#}");
        found
    }

    /// Waits until a run is over, in whatever state.
    ///
    /// # Panics
    /// After `timeout`.
    pub async fn wait_over(&self, run: &str, timeout: Duration) -> Value {
        self.wait_run_until(run, timeout, is_over).await
    }

    /// A run's log so far, or one step's, as one text.
    ///
    /// # Panics
    /// When there is no such run.
    pub async fn log(&self, run: &str, step: Option<&str>) -> String {
        let mut text = String::new();
        let mut after = 0;
        loop {
            let step = step.map(|step| format!("&step={step}")).unwrap_or_default();
            let page = self.get(&format!("/api/v1/runs/{run}/logs?after={after}{step}")).await.ok();
            let pieces = page["lines"].as_array().cloned().unwrap_or_default();
            pieces.iter().filter_map(|piece| piece["text"].as_str()).for_each(|piece| text.push_str(piece));
            if pieces.is_empty() || page["done"] == true {
                return text;
            }
            after = page["next"].as_i64().unwrap_or(after);
        }
    }
}

/// Whether a run that was read is over.
pub fn is_over(run: &Value) -> bool {
    OVER.iter().any(|state| run["state"] == *state)
}

/// A CloudEvent for tests; `source` is `/tests`.
pub fn event(id: &str, kind: &str, data: Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/tests", "type": kind, "data": data})
}

/// One client for all tests: it needs no TLS, but reqwest wants a provider to be installed.
pub(crate) fn http() -> &'static reqwest::Client {
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    HTTP.get_or_init(|| {
        // Somebody else in this process may have installed it already; either way there is one afterwards.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No pool: each test has a runtime of its own, and a pooled connection dies with the runtime that made it.
        let built = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build();
        built.unwrap_or_else(|error| panic!("failed to make an HTTP client: {error}"))
    })
}

fn reached(path: &str, sent: Result<Reply, reqwest::Error>) -> Reply {
    sent.unwrap_or_else(|error| panic!("failed to reach the server for {path}: {error:?}"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}
