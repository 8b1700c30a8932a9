//! The orchestrator as a worker sees it: one method per route of the worker protocol, what each status means, and
//! when to try again. Knows nothing of steps or processes; never gives up by itself, its callers bound it in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use refit_workflows::digest::Digest;
use refit_workflows::wire::{
    AttemptKey, Finish, Finished, LeaseRequest, Leased, MissingReply, MissingRequest, ProblemDetails,
    Register, Registered, Renew, Renewed, Report, UploadView,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::WorkError;

/// For calls that are answered at once.
const SHORT: Duration = Duration::from_secs(10);
/// For calls that carry data or wait for a transaction.
const LONG: Duration = Duration::from_secs(30);
/// For a download to begin, and for each further piece of it.
const SILENCE: Duration = Duration::from_secs(60);
/// For a piece of an upload; one that is slower is sent again.
const PIECE: Duration = Duration::from_secs(120);
/// Most digests asked about in one call.
const MISSING_MAX: usize = 5_000;

/// Why a call did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer, or one that says nothing about the request (5xx, 408, 429): try again.
    #[error("the orchestrator is out of reach: {0}")]
    Unavailable(String),
    /// 401 or 403: the token is not known or may not do this.
    #[error("{0}")]
    Denied(String),
    /// 409: the caller's picture is out of date.
    #[error("{detail}")]
    Stale {
        /// The problem's `type`: `stale-lease`, `unknown-session`, …
        kind: String,
        /// In words.
        detail: String,
    },
    /// 410: it is settled already.
    #[error("{0}")]
    Over(String),
    /// Any other 4xx: the same request will not be accepted another time.
    #[error("{detail}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// In words.
        detail: String,
    },
}

impl CallError {
    /// Whether a piece of an upload does not go on where what is there ends.
    pub(crate) fn is_wrong_offset(&self) -> bool {
        matches!(self, Self::Stale { kind, .. } if kind == "wrong-offset")
    }

    /// Whether a piece of an upload arrived damaged.
    pub(crate) fn is_damaged_piece(&self) -> bool {
        matches!(self, Self::Stale { kind, .. } if kind == "damaged-piece")
    }

    /// Whether the orchestrator does not know this worker's session: register again.
    pub(crate) fn is_unknown_session(&self) -> bool {
        matches!(self, Self::Stale { kind, .. } if kind == "unknown-session")
    }

    /// Whether the attempt the call was about is not this worker's any more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Over(_)) || (matches!(self, Self::Stale { .. }) && !self.is_unknown_session())
    }
}

/// Tries again for as long as the caller keeps polling, with growing pauses of at most five seconds.
pub(crate) async fn persist<T, F, Fut>(call: F) -> Result<T, CallError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, CallError>>,
{
    // A token that is refused in the middle of the work may be put right while the lease lasts.
    call.retry(pauses())
        .when(|refusal| matches!(refusal, CallError::Unavailable(_) | CallError::Denied(_)))
        .await
}

fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
}

/// The client of one orchestrator.
#[derive(Debug)]
pub(crate) struct Orchestrator {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    reachable: AtomicBool,
}

impl Orchestrator {
    /// A client of the orchestrator at `server`; connects to nothing yet.
    ///
    /// # Errors
    /// [`WorkError::Refused`] when `server` is not an `http` or `https` address.
    pub(crate) fn new(server: &str, token: Option<String>) -> Result<Self, WorkError> {
        let wrong = |why: String| {
            WorkError::Refused(format!("`{server}` is not a server's address: {why}; write http://HOST:PORT"))
        };
        let url = reqwest::Url::parse(server).map_err(|cause| wrong(cause.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("`{}` is not http or https", url.scheme())));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(50))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("refit-worker/", env!("CARGO_PKG_VERSION")));
        // A proxy of the host is for the world outside; the loopback never goes through it.
        if matches!(url.host_str(), Some("localhost" | "[::1]"))
            || url.host_str().is_some_and(|h| h.starts_with("127."))
        {
            builder = builder.no_proxy();
        } else if url.scheme() == "http" {
            tracing::warn!(
                server,
                "the orchestrator is reached without TLS: whoever is on the way can read this worker's token and the \
                 secrets of its steps; put TLS before the orchestrator and write https://"
            );
        }
        let http = builder.build().map_err(|cause| {
            WorkError::Refused(format!("failed to set up the HTTP client: {}", chain(&cause)))
        })?;
        Ok(Self {
            http,
            base: server.trim_end_matches('/').to_owned(),
            token,
            reachable: AtomicBool::new(true),
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends; says once when the orchestrator goes out of reach, and once when it is back.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CallError> {
        let result = match request.send().await {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(refusal(response).await),
            Err(cause) => Err(CallError::Unavailable(chain(&cause))),
        };
        match &result {
            Err(CallError::Unavailable(why)) => {
                if self.reachable.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        server = self.base,
                        why,
                        "the orchestrator is out of reach; trying again until it is back"
                    );
                }
            }
            Ok(_) | Err(_) => {
                if !self.reachable.swap(true, Ordering::Relaxed) {
                    tracing::info!(server = self.base, "the orchestrator is back");
                }
            }
        }
        result
    }

    async fn post<T, R>(&self, path: &str, body: &T, timeout: Duration) -> Result<R, CallError>
    where
        T: Serialize + Sync,
        R: DeserializeOwned,
    {
        let response =
            self.send(self.request(reqwest::Method::POST, path).timeout(timeout).json(body)).await?;
        response.json().await.map_err(|cause| CallError::Unavailable(chain(&cause)))
    }

    /// `POST /worker/register`: waits for an orchestrator that is out of reach, but not for one that says no. With the
    /// answer comes when the call that got it was sent, on [`crate::host::steady_clock`].
    pub(crate) async fn register(&self, register: &Register) -> Result<(Registered, Duration), CallError> {
        let call = || async {
            let asked = crate::host::steady_clock();
            Ok((self.post("/worker/register", register, LONG).await?, asked))
        };
        call.retry(pauses()).when(|refusal| matches!(refusal, CallError::Unavailable(_))).await
    }

    /// `POST /worker/lease`: waits as long as the request says, and some more for the answer.
    pub(crate) async fn lease(&self, request: &LeaseRequest) -> Result<Leased, CallError> {
        self.post("/worker/lease", request, LONG + Duration::from_millis(request.wait_ms)).await
    }

    /// `POST /worker/renew`.
    pub(crate) async fn renew(&self, renew: &Renew) -> Result<Renewed, CallError> {
        self.post("/worker/renew", renew, SHORT).await
    }

    /// `POST /worker/report`.
    pub(crate) async fn report(&self, report: &Report) -> Result<(), CallError> {
        let request = self.request(reqwest::Method::POST, "/worker/report").timeout(LONG).json(report);
        self.send(request).await.map(|_| ())
    }

    /// `POST /worker/finish`.
    pub(crate) async fn finish(&self, finish: &Finish) -> Result<Finished, CallError> {
        self.post("/worker/finish", finish, LONG).await
    }

    /// `GET /worker/events`: the body is JSON Lines.
    pub(crate) async fn events(&self, key: &AttemptKey) -> Result<reqwest::Response, CallError> {
        let (run, epoch) = (key.run.to_string(), key.epoch.to_string());
        let query = [("run", run.as_str()), ("step", key.step.as_str()), ("epoch", epoch.as_str())];
        self.download(self.request(reqwest::Method::GET, "/worker/events").query(&query)).await
    }

    /// `GET /blobs/DIGEST`, from a byte on.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<reqwest::Response, CallError> {
        let mut request = self.request(reqwest::Method::GET, &format!("/blobs/{digest}"));
        if from > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={from}-"));
        }
        self.download(request).await
    }

    async fn download(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CallError> {
        match tokio::time::timeout(SILENCE, self.send(request)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Unavailable(format!("no answer within {} s", SILENCE.as_secs()))),
        }
    }

    /// Which of these the orchestrator does not have yet.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        let mut missing = Vec::new();
        for some in digests.chunks(MISSING_MAX) {
            let request = MissingRequest { digests: some.to_vec() };
            let reply: MissingReply = self.post("/blobs/missing", &request, LONG).await?;
            missing.extend(reply.missing);
        }
        Ok(missing)
    }

    /// `GET /blobs/DIGEST/upload`: how far it is there.
    pub(crate) async fn upload_of(&self, digest: &Digest) -> Result<UploadView, CallError> {
        let request = self.request(reqwest::Method::GET, &format!("/blobs/{digest}/upload"));
        let response = self.send(request.timeout(LONG)).await?;
        response.json().await.map_err(|cause| CallError::Unavailable(chain(&cause)))
    }

    /// `PUT /blobs/DIGEST/upload`: the bytes `from` on of a blob of `of` bytes, with their own digest.
    pub(crate) async fn upload_piece(
        &self,
        digest: &Digest,
        (from, of): (u64, u64),
        (piece, data): (&Digest, reqwest::Body),
    ) -> Result<UploadView, CallError> {
        let (from, of) = (from.to_string(), of.to_string());
        let query = [("from", from.as_str()), ("of", of.as_str()), ("digest", piece.as_str())];
        let request = self
            .request(reqwest::Method::PUT, &format!("/blobs/{digest}/upload"))
            .query(&query)
            .timeout(PIECE)
            .header(reqwest::header::CONTENT_TYPE, "application/octet-stream")
            .body(data);
        let response = self.send(request).await?;
        response.json().await.map_err(|cause| CallError::Unavailable(chain(&cause)))
    }
}

/// The next piece of a download; silence longer than a minute is taken for a broken connection.
pub(crate) async fn next_chunk(
    response: &mut reqwest::Response,
) -> Result<Option<impl AsRef<[u8]> + use<>>, CallError> {
    match tokio::time::timeout(SILENCE, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(cause)) => Err(CallError::Unavailable(chain(&cause))),
        Err(_) => {
            Err(CallError::Unavailable(format!("the download stood still for {} s", SILENCE.as_secs())))
        }
    }
}

/// Reads an answer that is not a success: a problem (RFC 9457), or whatever a proxy in between says.
async fn refusal(response: reqwest::Response) -> CallError {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    let problem = serde_json::from_str::<ProblemDetails>(&text).unwrap_or_else(|_| ProblemDetails {
        detail: format!("HTTP {status}: {}", text.trim().chars().take(200).collect::<String>()),
        ..ProblemDetails::default()
    });
    let detail = if problem.detail.is_empty() { problem.title } else { problem.detail };
    match status.as_u16() {
        401 | 403 => CallError::Denied(detail),
        409 => CallError::Stale { kind: problem.kind, detail },
        410 => CallError::Over(detail),
        408 | 425 | 429 => CallError::Unavailable(detail),
        code @ 400..500 => CallError::Rejected { status: code, detail },
        _ => CallError::Unavailable(detail),
    }
}

/// An error with its causes: reqwest's own text leaves out why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
