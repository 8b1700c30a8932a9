//! Outbound events to a webhook: one POST per event, signed as Standard Webhooks 1.0 says
//! (<https://www.standardwebhooks.com>). Follows no redirect, waits for nobody long, and never shows the secret.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use refit_workflows::event::CloudEvent;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use sha2::Sha256;

use crate::clock::Clock;
use crate::config;
use crate::engine::Outbound;

/// The longest to wait for a connection, and for the whole exchange.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How much of an answer is read so that the connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;
/// Requests at once: a round of them takes no longer than one.
pub(super) const POSTS_AT_ONCE: i64 = 16;
/// What introduces the base64 form of a secret.
const SECRET_PREFIX: &str = "whsec_";

/// A webhook, and how to reach it once that is known.
pub(super) struct Webhook {
    target: config::Webhook,
    clock: Clock,
    ready: Option<Ready>,
}

struct Ready {
    client: Client,
    url: Url,
    key: Option<Vec<u8>>,
}

impl Webhook {
    pub(super) fn new(target: &config::Webhook) -> Self {
        Self { target: target.clone(), clock: Clock::default(), ready: None }
    }

    /// Checks the settings.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        if self.ready.is_some() {
            return Ok(());
        }
        let url: Url =
            self.target.url.parse().map_err(|error| format!("the webhook's URL cannot be read: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the webhook's URL must begin with https:// or http://".to_owned());
        }
        let key = self.target.secret.as_ref().map(|secret| key_of(secret.reveal())).transpose()?;
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .user_agent(concat!("refit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("failed to set up the HTTP client: {error}"))?;
        self.ready = Some(Ready { client, url, key });
        Ok(())
    }

    /// Posts events, all at once; one result per event, in order.
    pub(super) async fn send(&self, due: &[Outbound]) -> Vec<Result<(), String>> {
        futures_util::future::join_all(due.iter().map(|outbound| self.post(&outbound.event))).await
    }

    /// Posts one event; any 2xx is a success.
    async fn post(&self, event: &CloudEvent) -> Result<(), String> {
        let Some(Ready { client, url, key }) = &self.ready else {
            return Err("the webhook is not set up".to_owned());
        };
        let body = event.to_json();
        let timestamp = self.clock.now().as_millis().div_euclid(1000);
        let id = HeaderValue::from_str(event.id())
            .map_err(|_| format!("the event's id `{}` cannot be sent in an HTTP header", event.id()))?;
        let mut request = client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp);
        if let Some(key) = key {
            request = request.header("webhook-signature", sign(key, event.id(), timestamp, &body)?);
        }
        // Without the URL: it may hold a credential, and the reason is kept and shown.
        let answer = request.body(body).send().await.map_err(|error| causes(&error.without_url()))?;
        let status = answer.status();
        discard(answer).await;
        if status.is_success() { Ok(()) } else { Err(format!("the webhook answered {status}")) }
    }
}

async fn discard(mut answer: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER_MAX {
            return;
        }
    }
}

/// reqwest says what failed on top and why underneath.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The signing key of a secret: what the base64 behind `whsec_` stands for, else the text itself.
fn key_of(secret: &str) -> Result<Vec<u8>, String> {
    let key = match secret.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
            format!("the webhook's secret begins with {SECRET_PREFIX} but goes on with no base64")
        })?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() { Err("the webhook's secret is empty".to_owned()) } else { Ok(key) }
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks 1.0, "Signature scheme").
fn sign(key: &[u8], id: &str, timestamp: i64, body: &str) -> Result<String, String> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).map_err(|error| format!("the webhook's secret: {error}"))?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode};
    use refit_workflows::time::Timestamp;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Secret;

    /// The example of the standard, and one made with an independent HMAC.
    #[test]
    fn signatures_are_those_of_the_standard() {
        for (secret, id, timestamp, body, expected) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "topsecret",
                "evt-1",
                1_700_000_000,
                "{\"a\":\"ü\"}",
                "v1,gTk3zkxmDDJXJ4i5yOniARvJdi0orwx9glkOknNzFKs=",
            ),
        ] {
            assert_eq!(sign(&key_of(secret).unwrap(), id, timestamp, body).unwrap(), expected);
        }
    }

    #[test]
    fn secrets_that_cannot_be_meant_are_refused() {
        assert!(key_of("whsec_not base64!").is_err());
        assert!(key_of("whsec_").is_err());
        assert!(key_of("").is_err());
    }

    type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

    async fn receiver(status: StatusCode) -> (String, Seen, CancellationToken) {
        let seen = Seen::default();
        let record = Arc::clone(&seen);
        let router = axum::Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            record.lock().unwrap().push((headers, body));
            (status, [("location", "/elsewhere")], "x".repeat(200_000))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(crate::http::serve(listener, router, shutdown.clone()));
        (url, seen, shutdown)
    }

    fn webhook(url: &str, secret: Option<&str>) -> Webhook {
        // A second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secret = secret.map(Secret::new);
        let mut webhook = Webhook::new(&config::Webhook { url: url.to_owned(), secret });
        webhook.prepare().unwrap();
        webhook
    }

    fn event() -> CloudEvent {
        CloudEvent::new(
            "churn-1-end",
            "/refit",
            "refit.run.succeeded",
            None,
            Timestamp::from_millis(0),
            json!({"n": 1}),
        )
    }

    #[tokio::test]
    async fn an_event_arrives_signed_over_what_arrives() {
        let (url, seen, shutdown) = receiver(StatusCode::NO_CONTENT).await;
        webhook(&url, Some("topsecret")).post(&event()).await.unwrap();
        shutdown.cancel();
        let seen = seen.lock().unwrap();
        let [(headers, body)] = seen.as_slice() else { panic!("{} requests", seen.len()) };
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(headers["webhook-id"], "churn-1-end");
        let timestamp: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        let signature =
            sign(b"topsecret", "churn-1-end", timestamp, std::str::from_utf8(body).unwrap()).unwrap();
        assert_eq!(headers["webhook-signature"], signature);
        assert_eq!(CloudEvent::parse(serde_json::from_slice(body).unwrap()).unwrap(), event());
    }

    #[tokio::test]
    async fn anything_but_2xx_is_a_failure_and_no_redirect_is_followed() {
        for status in [StatusCode::FOUND, StatusCode::GONE, StatusCode::INTERNAL_SERVER_ERROR] {
            let (url, seen, shutdown) = receiver(status).await;
            let reason = webhook(&url, None).post(&event()).await.unwrap_err();
            shutdown.cancel();
            assert!(reason.contains(status.as_str()), "{reason}");
            assert_eq!(seen.lock().unwrap().len(), 1);
            assert!(!seen.lock().unwrap()[0].0.contains_key("webhook-signature"));
        }
    }

    #[tokio::test]
    async fn a_webhook_that_is_away_is_told_without_its_url() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        drop(listener);
        let reason = webhook(&url, None).post(&event()).await.unwrap_err();
        assert!(!reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn settings_that_cannot_work_are_told() {
        let wrong = |url: &str, secret: Option<&str>| {
            let target = config::Webhook { url: url.to_owned(), secret: secret.map(Secret::new) };
            Webhook::new(&target).prepare().unwrap_err()
        };
        assert!(wrong("not a url", None).contains("URL"));
        assert!(wrong("ftp://example.org", None).contains("https://"));
        assert!(wrong("https://example.org", Some("whsec_!")).contains("base64"));
    }
}
