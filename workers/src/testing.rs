//! A small orchestrator for tests: real HTTP, the worker protocol, everything kept in memory. It decides nothing; a
//! test says what is to be leased, answered and refused, and looks at what came in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use refit_workflows::digest::Digest;
use refit_workflows::names::RunName;
use refit_workflows::wire::*;
use tokio::sync::Notify;

use crate::blobs::Blobs;
use crate::cgroup::Cgroups;
use crate::client::Orchestrator;
use crate::execute::{Caller, Places, Tools};
use crate::orphans;
use crate::python::Environments;

/// What the test orchestrator knows and was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ready: VecDeque<StepOrder>,
    pub(crate) leased: u32,
    pub(crate) registered: Vec<Register>,
    pub(crate) renewed: Vec<Renew>,
    pub(crate) finished: Vec<Finish>,
    pub(crate) reports: Vec<Report>,
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    /// What has come of blobs that come in pieces.
    pub(crate) uploads: HashMap<Digest, Vec<u8>>,
    /// So many pieces of uploads are said to have arrived damaged.
    pub(crate) damage: u32,
    pub(crate) downloads: u32,
    pub(crate) events: String,
    /// What renewals say; `continue` without.
    pub(crate) instruction: Option<Instruction>,
    /// Answers every call of the protocol, when set.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// The worker is not known until it registers again.
    pub(crate) forgotten: bool,
    /// Registering does not help against being forgotten.
    pub(crate) forgetful: bool,
    /// Calls of all kinds.
    pub(crate) calls: Vec<&'static str>,
    pub(crate) grace_ms: u64,
    pub(crate) renew_every_ms: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TestOrchestrator {
    seen: Arc<Mutex<Seen>>,
    bell: Arc<Notify>,
    pub(crate) address: String,
}

impl TestOrchestrator {
    pub(crate) async fn start() -> Self {
        // Some test is the first; the others find it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { address, ..Self::default() };
        server.seen().grace_ms = 60_000;
        server.seen().renew_every_ms = 50;
        let routes = axum::Router::new()
            .route("/api/v1/worker/register", post(register))
            .route("/api/v1/worker/lease", post(lease))
            .route("/api/v1/worker/renew", post(renew))
            .route("/api/v1/worker/report", post(report))
            .route("/api/v1/worker/finish", post(finish))
            .route("/api/v1/worker/events", get(events))
            .route("/api/v1/blobs/missing", post(missing))
            .route("/api/v1/blobs/{digest}", get(get_blob))
            .route("/api/v1/blobs/{digest}/upload", get(upload_of).put(put_piece))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(crate) fn offer(&self, order: StepOrder) {
        self.seen().ready.push_back(order);
        self.bell.notify_one();
    }

    pub(crate) fn store(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.seen().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    pub(crate) fn store_tree(&self, files: &[(&str, &str, bool)]) -> Digest {
        let mut tree = Tree::default();
        for (path, text, executable) in files {
            let digest = self.store(text.as_bytes());
            let (path, bytes) = ((*path).to_owned(), text.len() as u64);
            tree.files.push(TreeFile { path, digest, bytes, executable: *executable });
        }
        self.store(tree.to_json().as_bytes())
    }

    /// The whole log that was reported.
    pub(crate) fn log(&self) -> String {
        let mut chunks = BTreeMap::new();
        for chunk in self.seen().reports.iter().flat_map(|report| &report.logs) {
            chunks.insert(chunk.seq, chunk.text.clone());
        }
        assert!(chunks.keys().copied().eq(0..chunks.len() as i64), "a hole in the log: {:?}", chunks.keys());
        chunks.into_values().collect()
    }

    pub(crate) fn tools(&self, data: &Path) -> Tools {
        for folder in ["attempts", "blobs", "environments"] {
            std::fs::create_dir_all(data.join(folder)).unwrap();
        }
        orphans::adopt();
        let orchestrator = Arc::new(Orchestrator::new(&self.address, None).unwrap());
        Tools {
            places: Places::new(data.join("attempts")),
            cgroups: Cgroups::open(data),
            blobs: Blobs::open(data.join("blobs"), orchestrator.clone(), 1024 * 1024).unwrap(),
            environments: Environments::new(data.join("environments")),
            caller: Caller::new().unwrap(),
            orchestrator,
            gpus: crate::gpus::Gpus::new(Vec::new()),
            leaving: tokio::sync::watch::Sender::new(()),
        }
    }

    fn enter(&self, call: &'static str) -> Result<MutexGuard<'_, Seen>, Box<Response>> {
        let mut seen = self.seen();
        seen.calls.push(call);
        match seen.refuse {
            Some((status, kind)) => Err(Box::new(problem(status, kind))),
            None if call == "register" => {
                seen.forgotten = seen.forgetful;
                Ok(seen)
            }
            None if seen.forgotten => Err(Box::new(problem(409, "unknown-session"))),
            None => Ok(seen),
        }
    }
}

/// An order for a shell text.
pub(crate) fn shell(text: &str) -> StepOrder {
    StepOrder {
        key: AttemptKey { run: RunName::new("churn", 12), step: "train".to_owned(), epoch: 3 },
        attempt: 1,
        task: OrderTask::Run(RunOrder {
            command: OrderCommand::Shell(text.to_owned()),
            env: BTreeMap::new(),
            python: None,
            container: None,
        }),
        params: serde_json::Map::new(),
        bundle: None,
        inputs: BTreeMap::new(),
        champion: None,
        artifacts: BTreeMap::new(),
        checkpoint: None,
        events: 0,
        gpus: 0,
        timeout_ms: 60_000,
        limits: Limits::default(),
        secrets: BTreeMap::new(),
    }
}

/// The process of an order.
pub(crate) fn process(order: &mut StepOrder) -> &mut RunOrder {
    match &mut order.task {
        OrderTask::Run(run) => run,
        OrderTask::Call(_) | OrderTask::Evaluate(_) | OrderTask::Validate(_) => {
            panic!("the order runs no process")
        }
    }
}

/// Waits until something holds; fails after twenty seconds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

fn problem(status: u16, kind: &str) -> Response {
    let problem = ProblemDetails {
        kind: kind.to_owned(),
        title: kind.to_owned(),
        status,
        detail: format!("the test says {kind}"),
        ..ProblemDetails::default()
    };
    (StatusCode::from_u16(status).unwrap(), Json(problem)).into_response()
}

async fn register(State(server): State<TestOrchestrator>, Json(body): Json<Register>) -> Response {
    match server.enter("register") {
        Ok(mut seen) => {
            seen.registered.push(body);
            Json(Registered { renew_every_ms: seen.renew_every_ms, grace_ms: seen.grace_ms }).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn lease(State(server): State<TestOrchestrator>, Json(body): Json<LeaseRequest>) -> Response {
    if let Err(refusal) = server.enter("lease").map(drop) {
        return *refusal;
    }
    let until = tokio::time::Instant::now() + Duration::from_millis(body.wait_ms);
    loop {
        let orders = take(&mut server.seen(), body.slots);
        if !orders.is_empty() || tokio::time::timeout_at(until, server.bell.notified()).await.is_err() {
            return Json(Leased { orders, drain: false }).into_response();
        }
    }
}

fn take(seen: &mut Seen, slots: u32) -> Vec<StepOrder> {
    let count = seen.ready.len().min(slots as usize);
    seen.leased += count as u32;
    seen.ready.drain(..count).collect()
}

async fn renew(State(server): State<TestOrchestrator>, Json(body): Json<Renew>) -> Response {
    match server.enter("renew") {
        Ok(mut seen) => {
            let instruction = seen.instruction.unwrap_or(Instruction::Continue);
            let attempts = body.attempts.iter().map(|_| instruction).collect();
            seen.renewed.push(body);
            Json(Renewed { attempts, drain: false }).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn report(State(server): State<TestOrchestrator>, Json(body): Json<Report>) -> Response {
    match server.enter("report") {
        Ok(mut seen) => {
            seen.reports.push(body);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn finish(State(server): State<TestOrchestrator>, Json(body): Json<Finish>) -> Response {
    match server.enter("finish") {
        Ok(mut seen) => {
            let orders = body.next.as_ref().map(|next| take(&mut seen, next.slots)).unwrap_or_default();
            seen.finished.push(body);
            Json(Finished { orders }).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn events(State(server): State<TestOrchestrator>) -> Response {
    server.enter("events").map_or_else(|refusal| *refusal, |seen| seen.events.clone().into_response())
}

async fn missing(State(server): State<TestOrchestrator>, Json(body): Json<MissingRequest>) -> Response {
    match server.enter("missing") {
        Ok(seen) => {
            let missing =
                body.digests.into_iter().filter(|digest| !seen.blobs.contains_key(digest)).collect();
            Json(MissingReply { missing }).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn get_blob(State(server): State<TestOrchestrator>, UrlPath(digest): UrlPath<String>) -> Response {
    match server.enter("get_blob") {
        Ok(mut seen) => {
            seen.downloads += 1;
            let blob = digest.parse().ok().and_then(|digest: Digest| seen.blobs.get(&digest).cloned());
            blob.map_or_else(|| problem(404, "not-found"), IntoResponse::into_response)
        }
        Err(refusal) => *refusal,
    }
}

async fn upload_of(State(server): State<TestOrchestrator>, UrlPath(digest): UrlPath<Digest>) -> Response {
    server.enter("upload_of").map_or_else(|refusal| *refusal, |seen| view(&seen, &digest).into_response())
}

fn view(seen: &Seen, digest: &Digest) -> Json<UploadView> {
    let bytes = seen.uploads.get(digest).map_or(0, |bytes| bytes.len() as u64);
    Json(UploadView { bytes, whole: seen.blobs.contains_key(digest) })
}

#[derive(serde::Deserialize)]
struct PieceQuery {
    from: u64,
    of: u64,
    digest: Digest,
}

async fn put_piece(
    State(server): State<TestOrchestrator>,
    UrlPath(digest): UrlPath<Digest>,
    Query(piece): Query<PieceQuery>,
    body: Bytes,
) -> Response {
    let mut seen = match server.enter("put_piece") {
        Ok(seen) => seen,
        Err(refusal) => return *refusal,
    };
    if seen.damage > 0 {
        seen.damage -= 1;
        return problem(409, "damaged-piece");
    }
    assert_eq!(Digest::of(&body), piece.digest);
    let bytes = seen.uploads.entry(digest.clone()).or_default();
    if bytes.len() as u64 != piece.from {
        return problem(409, "wrong-offset");
    }
    bytes.extend_from_slice(&body);
    if bytes.len() as u64 == piece.of {
        let bytes = seen.uploads.remove(&digest).unwrap_or_default();
        assert_eq!(Digest::of(&bytes), digest);
        seen.blobs.insert(digest.clone(), bytes);
    }
    view(&seen, &digest).into_response()
}
