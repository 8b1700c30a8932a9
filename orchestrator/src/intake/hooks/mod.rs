//! Webhooks that events come in by: which there are, what each takes, and what its requests say. Pure: the requests come
//! through `api`, which also records what is read here. Must never happen here: an event or a dead letter that holds what
//! proves who sent it.

mod verify;

use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use refit_workflows::event::CloudEvent;
use refit_workflows::format::{Delivery, Format, HTTP_ATTRIBUTE_PREFIX, Malformed, Transport as Carrier};
use refit_workflows::names::check_name;
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value, json};

use super::source_uri;
use crate::config::{Hook as Config, Scheme, Source, Transport};
use crate::engine::DeadLetter;
use crate::health::{Counts, Health, Part, PartKind};
pub(crate) use verify::Refusal;
use verify::Verifier;

/// What the context of a dead letter says of how it came.
pub(super) const HTTP: &str = "http";

/// Every hook there is, by name.
pub struct Hooks {
    by_name: HashMap<String, Hook>,
}

/// A hook that requests may be sent to.
pub(crate) struct Hook {
    name: String,
    /// The `source` of events whose format gives none.
    uri: String,
    verifier: Verifier,
    format: Format,
    body_max: usize,
    /// Its place on the list of sources, once it is listed.
    part: Option<Part>,
}

/// A hook that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("source `{source_name}`: {problem}")]
pub struct HookProblem {
    /// The source whose hook it is.
    pub source_name: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl Hooks {
    /// The hooks among these sources. `loopback`: whether only this host reaches the listener.
    ///
    /// # Errors
    /// The first hook that cannot work.
    pub fn new(sources: &[Source], loopback: bool) -> Result<Self, HookProblem> {
        let mut by_name = HashMap::new();
        for source in sources {
            let Transport::Webhook(hook) = &source.transport else { continue };
            let hook = Hook::new(source, hook, loopback)
                .map_err(|problem| HookProblem { source_name: source.name.clone(), problem })?;
            by_name.insert(source.name.clone(), hook);
        }
        Ok(Self { by_name })
    }

    /// The same hooks, on this list for as long as they live.
    #[must_use]
    pub fn listed(mut self, health: &Health) -> Self {
        for hook in self.by_name.values_mut() {
            let part = health.register(PartKind::Source, &hook.name);
            // It waits for others: whenever the server answers, it does its work.
            part.working();
            hook.part = Some(part);
        }
        self
    }

    /// The hook of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Hook> {
        self.by_name.get(name)
    }
}

impl Hook {
    fn new(source: &Source, hook: &Config, loopback: bool) -> Result<Self, String> {
        let name = source.name.as_str();
        check_name(name).map_err(|wrong| format!("its name, a part of its path, {wrong}"))?;
        if hook.body_max == 0 || hook.body_max > Config::BODY_MAX {
            return Err(format!(
                "`body_max` must be from 1 B to {} KiB, the most that one event may weigh",
                Config::BODY_MAX / 1024
            ));
        }
        if matches!(hook.scheme, Scheme::None) && !loopback {
            return Err(
                "with the scheme `none`, anybody who reaches the listener could start runs: it is for \
                        127.0.0.1 only; choose a scheme with a secret"
                    .to_owned(),
            );
        }
        Ok(Self {
            name: name.to_owned(),
            uri: source_uri(name),
            verifier: Verifier::new(&hook.scheme)?,
            format: source.format.clone(),
            body_max: hook.body_max,
            part: None,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The largest body it takes, in bytes.
    pub(crate) fn body_max(&self) -> usize {
        self.body_max
    }

    /// What it takes, when this is not it: the media types, or an encoding.
    pub(crate) fn unreadable(&self, headers: &HeaderMap, media: Option<&str>) -> Option<&'static str> {
        let encoding =
            headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        if !matches!(encoding.as_deref(), None | Some(b"" | b"identity" | b"utf-8")) {
            return Some("the body must be sent uncompressed, without a Content-Encoding");
        }
        let media = media.unwrap_or_default();
        if media == "application/json" || media.ends_with("+json") {
            return None;
        }
        if !matches!(self.format, Format::CloudEvents) {
            return Some("the Content-Type must be application/json (in UTF-8), not a form and not text");
        }
        // In binary mode the data may be anything.
        let is_binary = headers.keys().any(|name| name.as_str().starts_with(HTTP_ATTRIBUTE_PREFIX));
        (!is_binary).then_some(
            "the Content-Type must be application/json, application/cloudevents+json or \
             application/cloudevents-batch+json (in UTF-8), or the attributes must be `ce-` headers",
        )
    }

    /// Checks that a request comes from whom this hook is for, and lately.
    ///
    /// # Errors
    /// [`Refusal`]
    pub(crate) fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
        self.verifier.check(headers, body, now)
    }

    /// What a request must have to be taken.
    pub(crate) fn expects(&self) -> String {
        self.verifier.expects()
    }

    /// The challenge of a refusal.
    pub(crate) fn challenge(&self) -> &'static str {
        self.verifier.challenge()
    }

    /// The events of a request.
    ///
    /// # Errors
    /// It is not of the hook's format.
    pub(crate) fn read(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<CloudEvent>, Malformed> {
        let headers_kept = self.without_proof(headers);
        self.format.read(&Delivery {
            transport: Carrier::Http,
            source: &self.uri,
            content_type: content_type(headers),
            headers: &headers_kept,
            properties: &Map::new(),
            body,
        })
    }

    /// Counts a request that was recorded: with how many events, or as a dead letter.
    pub(crate) fn count(&self, events: Option<usize>) {
        let Some(part) = &self.part else { return };
        part.count(Counts {
            deliveries: 1,
            events: events.unwrap_or(0) as u64,
            dead_letters: u64::from(events.is_none()),
            empty: u64::from(events == Some(0)),
        });
    }

    /// A request of which no event could be read, to be kept with the reason.
    pub(crate) fn dead_letter(&self, headers: &HeaderMap, body: &[u8], reason: String) -> DeadLetter {
        let context = json!({
            "transport": HTTP,
            "content_type": content_type(headers),
            "headers": self.without_proof(headers),
        });
        DeadLetter::new(&self.name, reason, context.clone(), &context, body)
    }

    /// The headers by lower-case name, without those that prove who sends. Several of one name become one.
    fn without_proof(&self, headers: &HeaderMap) -> Map<String, Value> {
        let mut kept = Map::new();
        for name in headers.keys().filter(|name| !self.verifier.is_proof(name)) {
            let values = headers.get_all(name).iter();
            let text: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            kept.insert(name.as_str().to_owned(), Value::from(text.join(", ")));
        }
        kept
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

#[cfg(test)]
mod tests;
