//! The typed HTTP client of the API (`/api/v1`, types in `refit_workflows::wire`). Turns every failure into a
//! [`ClientError`] that says what to do; never prints, never decides about retries or exit codes beyond naming them.

use std::time::Duration;

use refit_workflows::digest::Digest;
use refit_workflows::event::CloudEvent;
use refit_workflows::names::RunName;
use refit_workflows::wire::{
    Accepted, Apply, CreateToken, DeadLetterView, Decide, DeletedWorkflow, EventExplanation, EventView,
    EvidenceView, HistoryView, LogPage, MissingReply, MissingRequest, ModelView, PauseWorkflow,
    ProblemDetails, PromoteVersion, ReplayFilter, ReplayPlan, ReplayView, RetriedDeadLetter, RetryDeadLetter,
    RetryRun, Rollback, RunView, SERIES_PAGE, SeriesView, ServerView, StartRun, TargetDropped, TargetView,
    TokenView, VersionDetail, VersionDiff, VersionRef, WaitingView, WorkerView, WorkflowView,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::Remote;
use crate::exit::Exit;

/// The longest an ordinary request may take; long polls add their own wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest one blob may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers there.
    #[error(
        "failed to reach {server}: is it running? start one with `refit up` or name it with --server ({cause})"
    )]
    Unreachable {
        /// The address.
        server: String,
        /// The cause, in words.
        cause: String,
    },
    /// The connection broke, or the answer took too long, after it had been reached.
    #[error("failed to get an answer from {server}: {cause}")]
    Broken {
        /// The address.
        server: String,
        /// The cause, in words.
        cause: String,
    },
    /// The orchestrator said no, and why.
    #[error("{}", describe(.0))]
    Problem(Box<ProblemDetails>),
    /// Somebody answers, but not as an orchestrator does.
    #[error("failed to understand the answer of {server}: {cause}; is it a refit server of this version ({})?",
            env!("CARGO_PKG_VERSION"))]
    NotRefit {
        /// The address.
        server: String,
        /// What is odd about it.
        cause: String,
    },
    /// The client could not be made.
    #[error("failed to prepare HTTP: {0}")]
    Setup(String),
}

impl ClientError {
    /// How a command that meets this ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => Exit::Unreachable,
            Self::Problem(problem) => match problem.status {
                422 if problem.kind == "definition-invalid" || !problem.problems.is_empty() => {
                    Exit::Definition
                }
                502..=504 => Exit::Unreachable,
                400..=499 => Exit::Refused,
                _ => Exit::Failed,
            },
            Self::NotRefit { .. } | Self::Setup(_) => Exit::Failed,
        }
    }

    /// Whether trying again later may help: the orchestrator, or its database, is away for the moment.
    pub(crate) fn is_away(&self) -> bool {
        self.exit() == Exit::Unreachable
    }
}

fn describe(problem: &ProblemDetails) -> String {
    let mut text = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    if text.is_empty() {
        text = format!("the server answered {}", problem.status);
    }
    if let Some(field) = problem.field.as_deref().filter(|field| !text.contains(*field)) {
        text = format!("`{field}`: {text}");
    }
    match problem.status {
        401 => text.push_str("; give a token with REFIT_TOKEN or --token"),
        413 => text.push_str("; send less at once"),
        _ => {}
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

type Answer<T> = Result<T, ClientError>;

/// One orchestrator, seen from here. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    /// A client for the orchestrator the command line names. Sends nothing yet.
    pub(crate) fn new(remote: &Remote) -> Answer<Self> {
        Self::at(&remote.server, remote.token.clone())
    }

    /// A client for the orchestrator at this address.
    pub(crate) fn at(server: &str, token: Option<String>) -> Answer<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("refit/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            // A redirect would carry the token to wherever it points.
            .redirect(reqwest::redirect::Policy::none());
        let host = reqwest::Url::parse(server).ok().and_then(|url| url.host_str().map(str::to_owned));
        if host.is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]") {
            // What runs on this host is not to be asked for at a proxy.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|wrong| ClientError::Setup(causes(&wrong)))?;
        // A variable that is set to nothing is no token.
        let token = token.filter(|token| !token.is_empty());
        Ok(Self { http, server: server.to_owned(), token })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.http.request(method, format!("{}/api/v1{path}", self.server)).timeout(REQUEST_TIMEOUT);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn failed(&self, wrong: &reqwest::Error) -> ClientError {
        let (server, cause) = (self.server.clone(), causes(wrong));
        if wrong.is_connect() {
            ClientError::Unreachable { server, cause }
        } else {
            ClientError::Broken { server, cause }
        }
    }

    async fn bytes(&self, request: RequestBuilder) -> Answer<Vec<u8>> {
        let reply = request.send().await.map_err(|wrong| self.failed(&wrong))?;
        let status = reply.status();
        let body = reply.bytes().await.map_err(|wrong| self.failed(&wrong))?;
        if status.is_success() { Ok(body.to_vec()) } else { Err(self.refused(status, &body)) }
    }

    /// What an answer that is no success says.
    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ProblemDetails>(body) {
            Ok(mut problem) => {
                problem.status = status.as_u16();
                ClientError::Problem(Box::new(problem))
            }
            Err(_)
                if matches!(
                    status,
                    StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                ) =>
            {
                ClientError::Unreachable { server: self.server.clone(), cause: status.to_string() }
            }
            Err(_) => {
                ClientError::NotRefit { server: self.server.clone(), cause: format!("status {status}") }
            }
        }
    }

    /// What is at a path, as it comes.
    async fn open(&self, path: &str) -> Answer<Download> {
        let request = self.request(Method::GET, path).timeout(UPLOAD_TIMEOUT);
        let reply = request.send().await.map_err(|wrong| self.failed(&wrong))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(Download { client: self.clone(), reply });
        }
        let body = reply.bytes().await.map_err(|wrong| self.failed(&wrong))?;
        Err(self.refused(status, &body))
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Answer<T> {
        let body = self.bytes(request).await?;
        serde_json::from_slice(&body)
            .map_err(|wrong| ClientError::NotRefit { server: self.server.clone(), cause: wrong.to_string() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Answer<T> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Answer<T> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `GET /server`
    pub(crate) async fn about(&self) -> Answer<ServerView> {
        self.get("/server", &[]).await
    }

    /// `POST /events`
    pub(crate) async fn send_events(&self, events: &[CloudEvent]) -> Answer<Accepted> {
        self.post("/events", &events).await
    }

    /// `GET /events`
    pub(crate) async fn events(&self, query: &[(&str, String)]) -> Answer<Vec<EventView>> {
        self.get("/events", query).await
    }

    /// `GET /events/by-id`: ids may hold any character, so they travel in the query.
    pub(crate) async fn event(&self, id: &str, source: Option<&str>) -> Answer<Vec<EventView>> {
        let mut query = vec![("id", id.to_owned())];
        query.extend(source.map(|source| ("source", source.to_owned())));
        self.get("/events/by-id", &query).await
    }

    /// `POST /replays`
    pub(crate) async fn ask_replay(&self, filter: &ReplayFilter) -> Answer<ReplayView> {
        self.post("/replays", filter).await
    }

    /// `POST /replays/plan`
    pub(crate) async fn plan_replay(&self, filter: &ReplayFilter) -> Answer<ReplayPlan> {
        self.post("/replays/plan", filter).await
    }

    /// `GET /replays`
    pub(crate) async fn replays(&self, query: &[(&str, String)]) -> Answer<Vec<ReplayView>> {
        self.get("/replays", query).await
    }

    /// `GET /replays/{seq}`
    pub(crate) async fn replay(&self, seq: i64) -> Answer<ReplayView> {
        self.get(&format!("/replays/{seq}"), &[]).await
    }

    /// `DELETE /replays/{seq}`
    pub(crate) async fn stop_replay(&self, seq: i64) -> Answer<ReplayView> {
        self.send(self.request(Method::DELETE, &format!("/replays/{seq}"))).await
    }

    /// `GET /deadletters`
    pub(crate) async fn dead_letters(&self, query: &[(&str, String)]) -> Answer<Vec<DeadLetterView>> {
        self.get("/deadletters", query).await
    }

    /// `GET /deadletters/{seq}`
    pub(crate) async fn dead_letter(&self, seq: i64) -> Answer<DeadLetterView> {
        self.get(&format!("/deadletters/{seq}"), &[]).await
    }

    /// `POST /deadletters/{seq}/retry`
    pub(crate) async fn retry_dead_letter(
        &self,
        seq: i64,
        retry: &RetryDeadLetter,
    ) -> Answer<RetriedDeadLetter> {
        self.post(&format!("/deadletters/{seq}/retry"), retry).await
    }

    /// `DELETE /deadletters/{seq}`
    pub(crate) async fn drop_dead_letter(&self, seq: i64) -> Answer<DeadLetterView> {
        self.send(self.request(Method::DELETE, &format!("/deadletters/{seq}"))).await
    }

    /// `GET /events/explain`
    pub(crate) async fn explain_event(
        &self,
        id: &str,
        source: Option<&str>,
        workflow: Option<&str>,
    ) -> Answer<Vec<EventExplanation>> {
        let mut query = vec![("id", id.to_owned())];
        query.extend(source.map(|source| ("source", source.to_owned())));
        query.extend(workflow.map(|workflow| ("workflow", workflow.to_owned())));
        self.get("/events/explain", &query).await
    }

    /// `POST /workflows`
    pub(crate) async fn apply(&self, apply: &Apply) -> Answer<WorkflowView> {
        self.post("/workflows", apply).await
    }

    /// `GET /workflows`
    pub(crate) async fn workflows(&self) -> Answer<Vec<WorkflowView>> {
        self.get("/workflows", &[]).await
    }

    /// `GET /workflows/{name}`
    pub(crate) async fn workflow(&self, name: &str) -> Answer<WorkflowView> {
        self.get(&format!("/workflows/{name}"), &[]).await
    }

    /// `POST /workflows/{name}/pause`
    pub(crate) async fn pause(&self, name: &str, pause: &PauseWorkflow) -> Answer<WorkflowView> {
        self.post(&format!("/workflows/{name}/pause"), pause).await
    }

    /// `POST /workflows/{name}/resume`
    pub(crate) async fn resume(&self, name: &str) -> Answer<WorkflowView> {
        self.post(&format!("/workflows/{name}/resume"), &serde_json::json!({})).await
    }

    /// `DELETE /workflows/{name}`
    pub(crate) async fn delete_workflow(
        &self,
        name: &str,
        force: bool,
        reason: Option<&str>,
    ) -> Answer<DeletedWorkflow> {
        let mut query = vec![("force", force.to_string())];
        query.extend(reason.map(|reason| ("reason", reason.to_owned())));
        self.send(self.request(Method::DELETE, &format!("/workflows/{name}")).query(&query)).await
    }

    /// `POST /blobs/missing`
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Answer<Vec<Digest>> {
        let reply: MissingReply =
            self.post("/blobs/missing", &MissingRequest { digests: digests.to_vec() }).await?;
        Ok(reply.missing)
    }

    /// `PUT /blobs/{digest}`
    pub(crate) async fn put_blob(&self, digest: &Digest, body: impl Into<reqwest::Body>) -> Answer<()> {
        let request = self.request(Method::PUT, &format!("/blobs/{digest}"));
        self.bytes(request.timeout(UPLOAD_TIMEOUT).body(body)).await.map(drop)
    }

    /// `POST /runs`
    pub(crate) async fn start_run(&self, start: &StartRun) -> Answer<RunView> {
        self.post("/runs", start).await
    }

    /// `GET /runs`
    pub(crate) async fn runs(&self, query: &[(&str, String)]) -> Answer<Vec<RunView>> {
        self.get("/runs", query).await
    }

    /// `GET /runs/{workflow}/{number}`
    pub(crate) async fn run(&self, run: &RunName) -> Answer<RunView> {
        self.get(&format!("/runs/{run}"), &[]).await
    }

    /// `GET /runs/{workflow}/{number}/evidence`
    pub(crate) async fn evidence(&self, run: &RunName) -> Answer<EvidenceView> {
        self.get(&format!("/runs/{run}/evidence"), &[]).await
    }

    /// The run as soon as its version is greater than `after`, or as it is when `wait` is over.
    pub(crate) async fn run_after(&self, run: &RunName, after: i64, wait: Duration) -> Answer<RunView> {
        let query = [("after", after.to_string()), ("wait_ms", wait.as_millis().to_string())];
        let request = self.request(Method::GET, &format!("/runs/{run}")).query(&query);
        self.send(request.timeout(REQUEST_TIMEOUT + wait)).await
    }

    /// `GET /runs/{workflow}/{number}/logs`
    pub(crate) async fn logs(
        &self,
        run: &RunName,
        step: Option<&str>,
        after: i64,
        wait: Duration,
    ) -> Answer<LogPage> {
        let mut query = vec![("after", after.to_string()), ("wait_ms", wait.as_millis().to_string())];
        query.extend(step.map(|step| ("step", step.to_owned())));
        let request = self.request(Method::GET, &format!("/runs/{run}/logs")).query(&query);
        self.send(request.timeout(REQUEST_TIMEOUT + wait)).await
    }

    /// `GET /runs/{workflow}/{number}/metrics`, page by page.
    pub(crate) async fn series(&self, run: &RunName, step: Option<&str>) -> Answer<Vec<SeriesView>> {
        let mut all: Vec<SeriesView> = Vec::new();
        loop {
            let mut query = vec![("after", all.len().to_string())];
            query.extend(step.map(|step| ("step", step.to_owned())));
            let page: Vec<SeriesView> = self.get(&format!("/runs/{run}/metrics"), &query).await?;
            let full = page.len() == SERIES_PAGE;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// `POST /runs/{workflow}/{number}/cancel`
    pub(crate) async fn cancel(&self, run: &RunName) -> Answer<RunView> {
        self.post(&format!("/runs/{run}/cancel"), &serde_json::json!({})).await
    }

    /// `POST /runs/{workflow}/{number}/retry`
    pub(crate) async fn retry(&self, run: &RunName, retry: &RetryRun) -> Answer<RunView> {
        self.post(&format!("/runs/{run}/retry"), retry).await
    }

    /// `POST /runs/{workflow}/{number}/approve` or `…/reject`
    pub(crate) async fn decide(&self, run: &RunName, approve: bool, decide: &Decide) -> Answer<RunView> {
        let verb = if approve { "approve" } else { "reject" };
        self.post(&format!("/runs/{run}/{verb}"), decide).await
    }

    /// `GET /models`
    pub(crate) async fn models(&self) -> Answer<Vec<ModelView>> {
        self.get("/models", &[]).await
    }

    /// `GET /models/{model}`
    pub(crate) async fn model(&self, model: &str) -> Answer<ModelView> {
        self.get(&format!("/models/{model}"), &[]).await
    }

    /// `GET /models/{model}/versions/{version}`, or by an alias
    pub(crate) async fn version(&self, model: &str, version: &VersionRef) -> Answer<VersionDetail> {
        let kind = match version {
            VersionRef::Number(_) => "versions",
            VersionRef::Alias(_) => "aliases",
        };
        self.get(&format!("/models/{model}/{kind}/{version}"), &[]).await
    }

    /// `GET /models/{model}/diff`
    pub(crate) async fn diff(&self, model: &str, from: &VersionRef, to: &VersionRef) -> Answer<VersionDiff> {
        let query = [("from", from.to_string()), ("to", to.to_string())];
        self.get(&format!("/models/{model}/diff"), &query).await
    }

    /// `GET /models/{model}/versions/{version}/artifact`
    pub(crate) async fn artifact(&self, model: &str, version: i64) -> Answer<Download> {
        self.open(&format!("/models/{model}/versions/{version}/artifact")).await
    }

    /// `GET /blobs/{digest}`
    pub(crate) async fn blob(&self, digest: &Digest) -> Answer<Download> {
        self.open(&format!("/blobs/{digest}")).await
    }

    /// `POST /models/{model}/promote`
    pub(crate) async fn promote(&self, model: &str, ask: &PromoteVersion) -> Answer<HistoryView> {
        self.post(&format!("/models/{model}/promote"), ask).await
    }

    /// `GET /models/{model}/history`
    pub(crate) async fn history(&self, model: &str) -> Answer<Vec<HistoryView>> {
        self.get(&format!("/models/{model}/history"), &[]).await
    }

    /// `POST /models/{model}/rollback`
    pub(crate) async fn rollback(&self, model: &str, rollback: &Rollback) -> Answer<HistoryView> {
        self.post(&format!("/models/{model}/rollback"), rollback).await
    }

    /// `GET /targets`
    pub(crate) async fn targets(&self) -> Answer<Vec<TargetView>> {
        self.get("/targets", &[]).await
    }

    /// `GET /targets/{name}`
    pub(crate) async fn target(&self, name: &str) -> Answer<TargetView> {
        self.get(&format!("/targets/{name}"), &[]).await
    }

    /// `POST /targets/{name}/enable`
    pub(crate) async fn enable_target(&self, name: &str) -> Answer<TargetView> {
        self.post(&format!("/targets/{name}/enable"), &serde_json::json!({})).await
    }

    /// `DELETE /targets/{name}/events`
    pub(crate) async fn drop_events(&self, name: &str) -> Answer<TargetDropped> {
        self.send(self.request(Method::DELETE, &format!("/targets/{name}/events"))).await
    }

    /// `GET /workers`
    pub(crate) async fn workers(&self) -> Answer<Vec<WorkerView>> {
        self.get("/workers", &[]).await
    }

    /// `GET /workers/{name}`
    pub(crate) async fn worker(&self, name: &str) -> Answer<WorkerView> {
        self.get(&format!("/workers/{name}"), &[]).await
    }

    /// `POST /workers/{name}/drain`, or `resume`
    pub(crate) async fn drain_worker(&self, name: &str, drained: bool) -> Answer<WorkerView> {
        let verb = if drained { "drain" } else { "resume" };
        self.post(&format!("/workers/{name}/{verb}"), &serde_json::json!({})).await
    }

    /// `GET /waiting`
    pub(crate) async fn waiting(&self) -> Answer<Vec<WaitingView>> {
        self.get("/waiting", &[]).await
    }

    /// `POST /tokens`
    pub(crate) async fn create_token(&self, create: &CreateToken) -> Answer<TokenView> {
        self.post("/tokens", create).await
    }

    /// `GET /tokens`
    pub(crate) async fn tokens(&self) -> Answer<Vec<TokenView>> {
        self.get("/tokens", &[]).await
    }

    /// `DELETE /tokens/{id}`
    pub(crate) async fn revoke_token(&self, id: &str) -> Answer<TokenView> {
        self.send(self.request(Method::DELETE, &format!("/tokens/{id}"))).await
    }
}

/// Content on its way here.
#[derive(Debug)]
pub(crate) struct Download {
    client: Client,
    reply: reqwest::Response,
}

impl Download {
    /// What has come since; none: that was all.
    pub(crate) async fn next(&mut self) -> Answer<Option<Vec<u8>>> {
        let chunk = self.reply.chunk().await.map_err(|wrong| self.client.failed(&wrong))?;
        Ok(chunk.map(|chunk| chunk.to_vec()))
    }
}

/// The innermost cause of a reqwest error: the outer ones only say that sending failed.
fn causes(wrong: &reqwest::Error) -> String {
    if wrong.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = wrong;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_says_what_to_do() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Bound and dropped: nobody listens there now.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::at(&format!("http://127.0.0.1:{port}"), None).unwrap();
        let wrong = client.about().await.unwrap_err();
        assert_eq!(wrong.exit(), Exit::Unreachable);
        assert!(wrong.to_string().contains("is it running? start one with `refit up`"), "{wrong}");
    }

    #[test]
    fn a_problem_shows_its_field_detail_and_hint() {
        let problem = ProblemDetails {
            status: 400,
            detail: "must not be empty".to_owned(),
            field: Some("type".to_owned()),
            hint: Some("say what happened".to_owned()),
            ..ProblemDetails::default()
        };
        assert_eq!(describe(&problem), "`type`: must not be empty\nhint: say what happened");
    }
}
