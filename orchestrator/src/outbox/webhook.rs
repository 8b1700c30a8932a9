//! Outbound events to a webhook: one POST per event, signed as Standard Webhooks 1.0 says
//! (<https://www.standardwebhooks.com>). Follows no redirect, uses no proxy, dials no address that is not allowed, waits
//! for nobody long, and never shows a secret.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::FutureExt as _;
use hmac::{Hmac, KeyInit, Mac};
use refit_workflows::event::CloudEvent;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use sha2::Sha256;

use super::{Outcome, Refusal, Shipment};
use crate::answers::{causes, retry_after};
use crate::clock::Clock;
use crate::config::{self, Allow};
use crate::engine::Outbound;

/// The longest to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How much of an answer is read so that the connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;
/// How many requests may be under way.
pub(super) const AT_ONCE: usize = 16;
/// What introduces the base64 form of a secret.
const SECRET_PREFIX: &str = "whsec_";
/// Headers that are set here, or by HTTP itself.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// A webhook, and how to reach it once that is known.
pub(super) struct Webhook {
    settings: config::Webhook,
    ready: Option<Arc<Ready>>,
}

struct Ready {
    client: Client,
    clock: Clock,
    url: Url,
    keys: Vec<Vec<u8>>,
    headers: HeaderMap,
}

/// Whether a webhook can be sent to with these settings, as far as they tell.
pub(super) fn check(settings: &config::Webhook) -> Result<(), String> {
    url_of(settings)?;
    keys_of(settings)?;
    headers_of(settings).map(drop)
}

/// Which endpoint it is, without user, password and query. None: its URL is none.
pub(super) fn place(settings: &config::Webhook) -> Option<String> {
    let url: Url = settings.url.reveal().parse().ok()?;
    Some(format!("{}{}", url.origin().ascii_serialization(), url.path()))
}

impl Webhook {
    pub(super) fn new(settings: &config::Webhook) -> Self {
        Self { settings: settings.clone(), ready: None }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Checks the settings.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        let settings = &self.settings;
        let client = Client::builder()
            .redirect(Policy::none())
            // A proxy would dial in place of this process, and not ask what is allowed.
            .no_proxy()
            .dns_resolver(Allowed(settings.allow.clone()))
            .connect_timeout(CONNECT_WITHIN.min(settings.timeout))
            .timeout(settings.timeout)
            .user_agent(concat!("refit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("failed to set up the HTTP client: {error}"))?;
        let (url, keys, headers) = (url_of(settings)?, keys_of(settings)?, headers_of(settings)?);
        self.ready = Some(Arc::new(Ready { client, clock: Clock::default(), url, keys, headers }));
        Ok(())
    }

    /// Posts one event.
    pub(super) fn ship(&self, outbound: Outbound) -> Shipment {
        let ready = self.ready.clone();
        async move {
            let posted = match ready {
                Some(ready) => ready.post(&outbound.event).await,
                None => Err(Refusal { reason: "the webhook is not set up".to_owned(), ..Refusal::default() }),
            };
            let outcome = posted.map_or_else(Outcome::Refused, |()| Outcome::Taken);
            vec![(outbound, outcome)]
        }
        .boxed()
    }
}

impl Ready {
    /// Any 2xx is a success.
    async fn post(&self, event: &CloudEvent) -> Result<(), Refusal> {
        let refused = |reason| Refusal { reason, ..Refusal::default() };
        let body = event.to_json();
        let timestamp = self.clock.now().as_millis().div_euclid(1000);
        let id = HeaderValue::from_str(event.id()).map_err(|_| {
            refused(format!("the event's id `{}` cannot be sent in an HTTP header", event.id()))
        })?;
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp);
        if !self.keys.is_empty() {
            let signatures: Vec<String> = self
                .keys
                .iter()
                .map(|key| sign(key, event.id(), timestamp, &body))
                .collect::<Result<_, _>>()
                .map_err(refused)?;
            request = request.header("webhook-signature", signatures.join(" "));
        }
        for name in ["traceparent", "tracestate"] {
            let value = event.attributes().get(name).and_then(serde_json::Value::as_str);
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                request = request.header(name, value);
            }
        }
        let answer = request.body(body).send().await.map_err(|error| Refusal {
            away: error.is_connect(),
            // Without the URL: it may hold a credential, and the reason is kept and shown.
            ..refused(causes(&error.without_url()))
        })?;
        let status = answer.status();
        let rest = answer.headers().get(RETRY_AFTER).and_then(retry_after);
        discard(answer).await;
        if status.is_success() {
            return Ok(());
        }
        let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
        let reason = format!("the webhook answered {status}{redirect}");
        Err(Refusal { rest, gone: status == StatusCode::GONE, ..refused(reason) })
    }
}

/// Resolves names as the host does, and keeps the addresses that may be dialled: what is dialled is what was judged, and
/// a name that resolves otherwise a moment later changes nothing.
struct Allowed(Allow);

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = self.0.clone();
        async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await?;
            let (mut good, mut wrong) = (Vec::new(), None);
            for address in found {
                match allow.check(host, address.ip()) {
                    Ok(()) => good.push(address),
                    Err(why) => wrong = Some(why),
                }
            }
            match wrong {
                Some(why) if good.is_empty() => Err(why.into()),
                Some(_) | None => Ok(Box::new(good.into_iter()) as Addrs),
            }
        }
        .boxed()
    }
}

/// The URL. A host that is written as an address is judged here, because no name is resolved for it; the URL's reader has
/// brought it into one form before, be it decimal, hexadecimal or IPv6 (WHATWG URL, "host parsing").
fn url_of(settings: &config::Webhook) -> Result<Url, String> {
    let url: Url = settings
        .url
        .reveal()
        .parse()
        .map_err(|error| format!("the webhook's `url` is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the webhook's `url` must begin with https:// or http://".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        settings.allow.check(host, address)?;
    }
    Ok(url)
}

fn keys_of(settings: &config::Webhook) -> Result<Vec<Vec<u8>>, String> {
    settings.secrets.iter().map(|secret| key_of(secret.reveal())).collect()
}

fn headers_of(settings: &config::Webhook) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(format!("the webhook's header `{name}` is set by Refit itself"));
        }
        let header: HeaderName =
            name.parse().map_err(|_| format!("the webhook's header `{name}` is not a header's name"))?;
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| format!("the value of the webhook's header `{name}` cannot be sent in a header"))?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
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
            (status, [("location", "/elsewhere"), ("retry-after", "7")], "x".repeat(200_000))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(crate::http::serve(listener, router, shutdown.clone()));
        (url, seen, shutdown)
    }

    fn settings(url: &str, secrets: &[&str], allow: &[&str]) -> config::Webhook {
        let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        config::Webhook { secrets, allow: Allow::parse(allow).unwrap(), ..config::Webhook::at(url) }
    }

    fn ready(settings: &config::Webhook) -> Arc<Ready> {
        // A second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut webhook = Webhook::new(settings);
        webhook.prepare().unwrap();
        webhook.ready.unwrap()
    }

    async fn post(settings: &config::Webhook, event: &CloudEvent) -> Result<(), Refusal> {
        ready(settings).post(event).await
    }

    const LOOPBACK: &[&str] = &["127.0.0.0/8"];

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn event() -> CloudEvent {
        CloudEvent::parse(json!({
            "id": "churn-1-end", "source": "/refit", "type": "refit.run.succeeded", "traceparent": TRACE,
            "data": { "n": 1 },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn an_event_arrives_signed_over_what_arrives() {
        let (url, seen, shutdown) = receiver(StatusCode::NO_CONTENT).await;
        let mut settings = settings(&url, &["topsecret", "older"], LOOPBACK);
        settings.headers = vec![("X-Key".to_owned(), Secret::new("hunter2"))];
        post(&settings, &event()).await.unwrap();
        shutdown.cancel();
        let seen = seen.lock().unwrap();
        let [(headers, body)] = seen.as_slice() else { panic!("{} requests", seen.len()) };
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(headers["webhook-id"], "churn-1-end");
        let timestamp: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        let signed =
            |key: &[u8]| sign(key, "churn-1-end", timestamp, std::str::from_utf8(body).unwrap()).unwrap();
        let both = format!("{} {}", signed(b"topsecret"), signed(b"older"));
        assert_eq!(headers["webhook-signature"], both);
        assert_eq!(headers["x-key"], "hunter2");
        assert_eq!(headers["traceparent"], TRACE);
        assert_eq!(CloudEvent::parse(serde_json::from_slice(body).unwrap()).unwrap(), event());
    }

    #[tokio::test]
    async fn anything_but_2xx_is_a_failure_and_no_redirect_is_followed() {
        for status in [StatusCode::FOUND, StatusCode::GONE, StatusCode::INTERNAL_SERVER_ERROR] {
            let (url, seen, shutdown) = receiver(status).await;
            let refusal = post(&settings(&url, &[], LOOPBACK), &event()).await.unwrap_err();
            shutdown.cancel();
            assert!(refusal.reason.contains(status.as_str()), "{refusal:?}");
            assert_eq!((refusal.away, refusal.gone), (false, status == StatusCode::GONE));
            assert_eq!(refusal.rest, Some(Duration::from_secs(7)));
            assert_eq!(seen.lock().unwrap().len(), 1);
            assert!(!seen.lock().unwrap()[0].0.contains_key("webhook-signature"));
        }
    }

    #[tokio::test]
    async fn a_webhook_that_is_away_is_told_without_its_url() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        drop(listener);
        let refusal = post(&settings(&url, &[], LOOPBACK), &event()).await.unwrap_err();
        assert!(refusal.away && !refusal.reason.contains("hunter2"), "{refusal:?}");
    }

    #[test]
    fn settings_that_cannot_work_are_told() {
        let wrong = |url: &str, secrets: &[&str]| check(&settings(url, secrets, &[])).unwrap_err();
        assert!(wrong("not a url", &[]).contains("not a URL"));
        assert!(wrong("ftp://example.org", &[]).contains("https://"));
        assert!(wrong("https://example.org", &["whsec_!"]).contains("base64"));
        for name in ["Webhook-Id", "a b"] {
            let mut settings = settings("https://example.org", &[], &[]);
            settings.headers = vec![(name.to_owned(), Secret::new("x"))];
            assert!(check(&settings).unwrap_err().contains(name));
        }
    }

    /// However an address is written, it is judged before anything is dialled.
    #[test]
    fn addresses_that_are_not_public_are_refused_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "127.0.0.1.",
            "\u{ff11}27.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[::127.0.0.1]",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "0",
            "[::]",
            "10.0.0.1",
            "user:pass@192.168.0.1",
        ] {
            let told = check(&settings(&format!("http://{host}:8080/hook"), &[], &[])).unwrap_err();
            assert!(told.contains("allow: ["), "{host}: {told}");
        }
        for url in ["http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://127.9.9.9/"] {
            check(&settings(url, &[], LOOPBACK)).unwrap();
        }
        check(&settings("https://1.1.1.1/", &[], &[])).unwrap();
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_address_that_is_dialled() {
        let (url, seen, shutdown) = receiver(StatusCode::NO_CONTENT).await;
        let url = url.replace("127.0.0.1", "localhost");
        let refusal = post(&settings(&url, &[], &[]), &event()).await.unwrap_err();
        assert!(refusal.away && refusal.reason.contains("loopback"), "{refusal:?}");
        let refusal = post(&settings(&url, &[], &["10.0.0.0/8", "localhost.example"]), &event()).await;
        assert!(refusal.is_err());
        assert!(seen.lock().unwrap().is_empty(), "it was asked all the same");
        post(&settings(&url, &[], &["localhost"]), &event()).await.unwrap();
        post(&settings(&url, &[], LOOPBACK), &event()).await.unwrap();
        shutdown.cancel();
        assert_eq!(seen.lock().unwrap().len(), 2);
    }
}
