//! Which hooks can work, and what of a request is kept.

use std::time::Duration;

use axum::http::HeaderValue;
use refit_workflows::format::Mapping;

use super::*;
use crate::config::Secret;

fn source(name: &str, scheme: Scheme, body_max: usize) -> Source {
    let mapping = Mapping::parse([("type", "'t'"), ("data", "headers")]).unwrap();
    let format = Format::new("json", Some(mapping)).unwrap();
    let transport = Transport::Webhook(Config { scheme, body_max });
    Source { name: name.to_owned(), transport, format }
}

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(*text)).collect()
}

fn standard(texts: &[&str]) -> Scheme {
    Scheme::Standard { secrets: secrets(texts), tolerance: Duration::from_secs(300) }
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    let api_key =
        |header: &str| Scheme::ApiKey { header: header.to_owned(), secrets: secrets(&["hunter22"]) };
    let basic = |user: &str| Scheme::Basic { user: user.to_owned(), secrets: secrets(&["hunter22"]) };
    for (name, scheme, body_max, told) in [
        ("a b", standard(&["hunter22"]), 1000, "letters, digits"),
        ("..", standard(&["hunter22"]), 1000, "letters, digits"),
        ("a", standard(&["hunter22"]), 0, "body_max"),
        ("a", standard(&["hunter22"]), Config::BODY_MAX + 1, "body_max"),
        ("a", Scheme::None, 1000, "127.0.0.1 only"),
        ("a", standard(&[]), 1000, "needs a secret"),
        ("a", standard(&["hunter22", "hunter23", "hunter24"]), 1000, "at most 2"),
        ("a", standard(&["short"]), 1000, "shorter than"),
        ("a", standard(&["whsec_no base64!"]), 1000, "no base64"),
        ("a", standard(&["whsec_"]), 1000, "no base64"),
        ("a", standard(&["whpk_aGVsbG8="]), 1000, "has 5 bytes"),
        ("a", standard(&["whsk_aGVsbG8="]), 1000, "private key"),
        ("a", api_key("X Key"), 1000, "not the name of a header"),
        ("a", basic(""), 1000, "without a colon"),
        ("a", basic("me:too"), 1000, "without a colon"),
    ] {
        let problem = Hooks::new(&[source(name, scheme, body_max)], false).err().unwrap().to_string();
        assert!(problem.contains(told) && problem.starts_with("source `"), "{problem}");
        assert!(!problem.contains("hunter2") && !problem.contains("aGVsbG8"), "{problem}");
    }
    assert!(Hooks::new(&[source("a", Scheme::None, 1000)], true).is_ok());
    assert!(Hooks::new(&[source("a_b-1", standard(&["hunter22"]), 1)], false).is_ok());
}

#[test]
fn what_proves_who_sent_it_is_in_no_event_and_no_dead_letter() {
    let shared = || secrets(&["canary-secret"]);
    for (scheme, proof) in [
        (standard(&["canary-secret"]), "webhook-signature"),
        (Scheme::Mlflow { secrets: shared(), tolerance: Duration::ZERO }, "x-mlflow-signature"),
        (Scheme::GitHub { secrets: shared() }, "x-hub-signature-256"),
        (Scheme::GitHub { secrets: shared() }, "x-hub-signature"),
        (Scheme::Dbt { secrets: shared() }, "authorization"),
        (Scheme::HuggingFace { secrets: shared() }, "x-webhook-secret"),
        (Scheme::Bearer { secrets: shared() }, "authorization"),
        (Scheme::Basic { user: "u".to_owned(), secrets: shared() }, "authorization"),
        (Scheme::ApiKey { header: "X-Key".to_owned(), secrets: shared() }, "x-key"),
        (Scheme::None, "cookie"),
    ] {
        let hooks = Hooks::new(&[source("a", scheme, 1000)], true).unwrap();
        let hook = hooks.get("a").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-kept", HeaderValue::from_static("kept"));
        headers.append("x-kept", HeaderValue::from_static("too"));
        headers.insert(proof, HeaderValue::from_static("canary-secret"));
        let event = hook.read(&headers, b"{}").unwrap().remove(0).to_json();
        let letter = format!("{:?}", hook.dead_letter(&headers, b"{}", "wrong".to_owned()).context);
        for kept in [event, letter] {
            assert!(kept.contains("kept, too") && !kept.contains("canary"), "{proof}: {kept}");
        }
    }
}

#[test]
fn only_json_and_events_are_read() {
    let hooks = Hooks::new(&[source("a", Scheme::None, 1000)], true).unwrap();
    let hook = hooks.get("a").unwrap();
    let mut headers = HeaderMap::new();
    assert_eq!(hook.unreadable(&headers, Some("application/json")), None);
    assert_eq!(hook.unreadable(&headers, Some("application/vnd.x+json")), None);
    assert!(hook.unreadable(&headers, Some("application/x-www-form-urlencoded")).is_some());
    assert!(hook.unreadable(&headers, None).is_some());
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert!(hook.unreadable(&headers, Some("application/json")).is_some());
}

#[test]
fn an_event_in_headers_may_have_any_data() {
    let events = Source { format: Format::CloudEvents, ..source("a", Scheme::None, 1000) };
    let hooks = Hooks::new(&[events, source("b", Scheme::None, 1000)], true).unwrap();
    let mut headers = HeaderMap::new();
    let taken = |name: &str, headers: &HeaderMap| {
        hooks.get(name).unwrap().unreadable(headers, Some("text/plain")).is_none()
    };
    assert!(!taken("a", &headers));
    headers.insert("ce-id", HeaderValue::from_static("1"));
    assert!(taken("a", &headers), "`ce-specversion` may be left out");
    assert!(!taken("b", &headers), "its format has no attributes in headers");
}
