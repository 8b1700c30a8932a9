//! The verb `call`: one HTTP request, bounded in time and size, and what its answer comes to. Starts no process; must
//! never happen here: following a redirect, or trying again (that is the step's `retry`).

use std::collections::BTreeMap;
use std::time::Duration;

use refit_workflows::time::show_duration;
use refit_workflows::wire::{AttemptKey, CallOrder, Failure, Handed, Outcome};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::logs::Log;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How much of an answer that says no is shown.
const SHOWN_MAX: usize = 300;

/// Makes the requests of this host's steps.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Client);

impl Caller {
    /// # Errors
    /// TLS cannot be set up on this host.
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let agent = concat!("refit/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder()
            .user_agent(agent)
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self(client))
    }

    /// Makes one request. Dropping the future gives it up.
    pub(crate) async fn call(&self, key: &AttemptKey, order: &CallOrder, log: &Log) -> Outcome {
        match self.try_call(key, order, log).await {
            Ok(outputs) => Outcome::Succeeded(Handed { outputs, ..Handed::default() }),
            Err((failure, reason)) => {
                log.say(&reason);
                Outcome::Failed { failure, reason }
            }
        }
    }

    async fn try_call(
        &self,
        key: &AttemptKey,
        order: &CallOrder,
        log: &Log,
    ) -> Result<BTreeMap<String, Value>, (Failure, String)> {
        let (method, url, headers) = parts(key, order).map_err(|reason| (Failure::CouldNotStart, reason))?;
        let shown = format!("{method} {}", without_secrets(&url));
        let mut request = self.0.request(method, url).headers(headers);
        if let Some(body) = &order.json {
            request = request.json(body);
        }
        let begun = Instant::now();
        let unanswered = |cause: reqwest::Error| {
            // Its text repeats the URL, with whatever the query holds.
            (Failure::Unanswered, format!("{shown}: no answer: {}", causes(&cause.without_url())))
        };
        let response = request.send().await.map_err(unanswered)?;
        let status = response.status();
        let body =
            read(response).await.map_err(|reason| (Failure::Unanswered, format!("{shown}: {reason}")))?;
        log.say(&format!("{shown} → {status} in {}", show_duration(begun.elapsed())));
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN_MAX).collect();
            let said = if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
            let reason = format!("{shown} was answered with {status}{said}");
            return Err((Failure::Status { status: status.as_u16() }, reason));
        }
        let body = match serde_json::from_slice(&body) {
            Ok(value) => value,
            Err(_) => Value::String(String::from_utf8_lossy(&body).into_owned()),
        };
        Ok(BTreeMap::from([("status".to_owned(), json!(status.as_u16())), ("body".to_owned(), body)]))
    }
}

fn parts(key: &AttemptKey, order: &CallOrder) -> Result<(Method, Url, HeaderMap), String> {
    let method = Method::from_bytes(order.method.as_bytes())
        .map_err(|_| format!("`{}` is no HTTP method", order.method))?;
    let url = Url::parse(&order.url).map_err(|wrong| format!("the URL cannot be read: {wrong}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("a call goes to http:// or https://, not {}:", url.scheme()));
    }
    let mut headers = HeaderMap::new();
    // The same for every attempt of the step: a receiver that honours it acts once (draft-ietf-httpapi-idempotency-key-header).
    let once = format!("{}/{}", key.run, key.step);
    let once = HeaderValue::from_str(&once).map_err(|_| format!("`{once}` cannot stand in a header"))?;
    headers.insert(HeaderName::from_static("idempotency-key"), once);
    for (name, value) in &order.headers {
        let header =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header's name"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of the header `{name}` cannot be sent"))?;
        headers.insert(header, value);
    }
    Ok((method, url, headers))
}

/// A URL that may be shown: without user, password, query and fragment.
fn without_secrets(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|cause| format!("the answer broke off: {}", causes(&cause.without_url())))?
    {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is larger than {} KiB", ANSWER_BYTES_MAX / 1024));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::IntoResponse as _;
    use axum::routing::{get, post};

    use super::*;

    async fn serve() -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let echo = async |headers: HeaderMap, axum::Json(body): axum::Json<Value>| {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            axum::Json(json!({ "once": header("idempotency-key"), "token": header("x-token"), "sent": body }))
        };
        let routes = axum::Router::new()
            .route("/echo", post(echo))
            .route("/plain", get(async || "fine"))
            .route("/busy", get(async || (StatusCode::SERVICE_UNAVAILABLE, "try later").into_response()))
            .route("/moved", get(async || axum::response::Redirect::temporary("/plain")))
            .route("/large", get(async || "x".repeat(ANSWER_BYTES_MAX + 1)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    fn order(method: &str, url: String) -> CallOrder {
        CallOrder { method: method.to_owned(), url, headers: BTreeMap::new(), json: None }
    }

    async fn call(order: &CallOrder) -> (Outcome, String) {
        let key = AttemptKey { run: "churn/12".parse().unwrap(), step: "tell[zone=eu]".to_owned(), epoch: 3 };
        let log = Log::default();
        let outcome = Caller::new().unwrap().call(&key, order, &log).await;
        let text = log.unsent(10, true).into_iter().map(|chunk| chunk.text).collect();
        (outcome, text)
    }

    fn failed(outcome: Outcome) -> (Failure, String) {
        match outcome {
            Outcome::Failed { failure, reason } => (failure, reason),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_answer_becomes_outputs() {
        let address = serve().await;
        let mut sent = order("POST", format!("{address}/echo?token=secret"));
        sent.headers.insert("X-Token".to_owned(), "t0".to_owned());
        sent.json = Some(json!({ "version": 4 }));
        let (outcome, log) = call(&sent).await;
        let Outcome::Succeeded(Handed { outputs, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(outputs["status"], json!(200));
        let expected = json!({ "once": "churn/12/tell[zone=eu]", "token": "t0", "sent": { "version": 4 } });
        assert_eq!(outputs["body"], expected);
        assert!(log.contains("/echo → 200") && !log.contains("secret"), "{log}");
        let (outcome, _) = call(&order("GET", format!("{address}/plain"))).await;
        let Outcome::Succeeded(Handed { outputs, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(outputs["body"], json!("fine"));
    }

    #[tokio::test]
    async fn whatever_is_no_success_says_so() {
        let address = serve().await;
        for (path, status, words) in
            [("busy", 503, "try later"), ("moved", 307, "307"), ("nowhere", 404, "404")]
        {
            let (failure, reason) = failed(call(&order("GET", format!("{address}/{path}"))).await.0);
            assert_eq!(failure, Failure::Status { status });
            assert!(reason.contains(words), "{reason}");
        }
        let (failure, reason) = failed(call(&order("GET", format!("{address}/large"))).await.0);
        assert_eq!(failure, Failure::Unanswered);
        assert!(reason.contains("larger than"), "{reason}");
        let nobody = order("GET", "http://user:pass@127.0.0.1:9/x?key=secret".to_owned());
        let (failure, reason) = failed(call(&nobody).await.0);
        assert_eq!(failure, Failure::Unanswered);
        assert!(
            reason.contains("127.0.0.1:9") && !reason.contains("secret") && !reason.contains("pass"),
            "{reason}"
        );
        for (method, url) in [("GET", "ftp://host/x"), ("GET", "no url"), ("G ET", "http://127.0.0.1/")] {
            let (failure, _) = failed(call(&order(method, url.to_owned())).await.0);
            assert_eq!(failure, Failure::CouldNotStart);
        }
    }
}
