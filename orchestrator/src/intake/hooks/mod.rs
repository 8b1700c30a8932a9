//! Webhooks that events come in by: which there are, what each takes, and what its requests say. Pure: the requests come
//! through `api`, which also records what is read here. Must never happen here: an event or a dead letter that holds what
//! proves who sent it.

mod verify;

use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use refit_workflows::event::{CloudEvent, EVENT_BYTES_MAX};
use refit_workflows::format::{Delivery, Format, Malformed, Transport as Carrier};
use refit_workflows::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{Hook as Config, Scheme, Source, Transport};
use crate::engine::DeadLetter;
pub(crate) use verify::Refusal;
use verify::Verifier;

/// The longest name of a hook, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Every hook there is, by name.
#[derive(Default)]
pub struct Hooks {
    by_name: HashMap<String, Hook>,
}

/// A hook that requests may be sent to.
pub(crate) struct Hook {
    name: String,
    /// The CloudEvents `source` of formats that give none.
    source: String,
    verifier: Verifier,
    format: Format,
    body_max: usize,
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

    /// The hook of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Hook> {
        self.by_name.get(name)
    }
}

impl Hook {
    fn new(source: &Source, hook: &Config, loopback: bool) -> Result<Self, String> {
        let name = source.name.as_str();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(fits)
        {
            return Err(format!(
                "a webhook's name is a part of its path: at most {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
            ));
        }
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
            source: format!("/sources/{name}"),
            verifier: Verifier::new(&hook.scheme)?,
            format: source.format.clone(),
            body_max: hook.body_max,
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
        let is_binary = headers.contains_key("ce-specversion");
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
            source: &self.source,
            content_type: headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()),
            headers: &headers_kept,
            properties: &Map::new(),
            body,
        })
    }

    /// How dead letters of this hook name it.
    pub(crate) fn letters_from(&self) -> String {
        format!("webhook:{}", self.name)
    }

    /// A request of which no event could be read, to be kept with the reason.
    pub(crate) fn dead_letter(&self, headers: &HeaderMap, body: &[u8], reason: String) -> DeadLetter {
        DeadLetter {
            source: self.letters_from(),
            reason,
            body: body[..body.len().min(EVENT_BYTES_MAX)].to_vec(),
            context: json!({"format": self.format.name(), "headers": self.without_proof(headers)}),
        }
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

#[cfg(test)]
mod tests;
