//! `sources` of `refit.yaml`: where events come from. Connects to nothing.

use std::collections::BTreeMap;

use refit_orchestrator::config::{
    Argument, Binding, Broker, Declaration, ExchangeType, Queue, Source, Topology, Transport,
};
use refit_workflows::format::Format;
use refit_workflows::names::check_name;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::broker::{self, TlsSettings};
use super::format::{self, MappingSettings, Wrong};
use super::hooks::HookSettings;
use super::secret::SecretUrl;
use crate::exit::Usage;

/// What a source is made of.
const EITHER: &str = "give it either `amqp` or `webhook`";

/// The most keys that one queue is bound by.
const ROUTING_KEYS_MAX: usize = 256;

/// One source, under its name: a queue or a webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SourceSettings {
    amqp: Option<QueueSettings>,
    webhook: Option<HookSettings>,
    /// The shape of what it delivers.
    format: Option<Spanned<String>>,
    /// Of the format `json`: which expression gives which attribute.
    mapping: Option<MappingSettings>,
}

/// A queue of RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueSettings {
    /// The broker, where it is another than that of `amqp.url`.
    url: Option<SecretUrl>,
    tls: Option<TlsSettings>,
    queue: String,
    #[serde(default = "yes")]
    declare: bool,
    #[serde(default)]
    bindings: Vec<BindingSettings>,
    prefetch: Option<u16>,
    consumer_tag: Option<String>,
    delivery_limit: Option<u32>,
    /// An exchange that is there already.
    dead_letter: Option<String>,
}

/// A queue's tie to an exchange.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingSettings {
    exchange: String,
    declare_exchange: Option<ExchangeTypeSetting>,
    #[serde(default)]
    routing_keys: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, ArgumentSetting>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExchangeTypeSetting {
    Topic,
    Direct,
    Fanout,
    Headers,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, a whole number, true or false")]
enum ArgumentSetting {
    Flag(bool),
    Number(i64),
    Text(String),
}

fn yes() -> bool {
    true
}

/// What is wrong with the sources, secrets aside. `text` is the file they are in.
///
/// # Errors
/// The first thing that is wrong, and where.
pub(super) fn check(settings: &BTreeMap<String, SourceSettings>, text: &str) -> Result<(), Wrong> {
    for (name, source) in settings {
        let wrong = |wrong: Wrong| Wrong { message: format!("source `{name}`: {}", wrong.message), ..wrong };
        check_name(name)
            .map_err(|message| wrong(Wrong { at: None, message: format!("its name {message}") }))?;
        source.check(text).map_err(wrong)?;
    }
    Ok(())
}

/// The sources as the orchestrator is told of them.
///
/// # Errors
/// One of them cannot work: which, and why.
pub(super) fn all(
    settings: &BTreeMap<String, SourceSettings>,
    default: Option<&Broker>,
) -> anyhow::Result<Vec<Source>> {
    settings.iter().map(|(name, source)| source.configured(name, default)).collect()
}

impl SourceSettings {
    fn configured(&self, name: &str, default: Option<&Broker>) -> anyhow::Result<Source> {
        let whose = format!("source `{name}`");
        let format = self.format("").map_err(|wrong| Usage(format!("{whose}: {}", wrong.message)))?;
        let transport = match (&self.amqp, &self.webhook) {
            (Some(queue), None) => Transport::Amqp(queue.configured(&whose, default)?),
            (None, Some(hook)) => Transport::Webhook(hook.configured(&whose)?),
            (Some(_), Some(_)) | (None, None) => return Err(Usage(format!("{whose}: {EITHER}")).into()),
        };
        Ok(Source { name: name.to_owned(), transport, format })
    }

    fn check(&self, text: &str) -> Result<(), Wrong> {
        let plain = |message| Wrong { at: None, message };
        match (&self.amqp, &self.webhook) {
            (Some(queue), None) => queue.check().map_err(plain)?,
            (None, Some(_)) => {}
            (Some(_), Some(_)) | (None, None) => return Err(plain(EITHER.to_owned())),
        }
        self.format(text).map(|_| ())
    }

    fn format(&self, text: &str) -> Result<Format, Wrong> {
        let default = self.webhook.as_ref().map_or("cloudevents", HookSettings::default_format);
        format::read(self.format.as_ref(), self.mapping.as_ref(), default, text)
    }
}

impl QueueSettings {
    fn check(&self) -> Result<(), String> {
        let prefetch = 1..=Queue::PREFETCH_MAX;
        if self.prefetch.is_some_and(|given| !prefetch.contains(&given)) {
            return Err(format!("`prefetch` must be 1 to {}", Queue::PREFETCH_MAX));
        }
        if self.queue.is_empty() {
            return Err("`queue` must not be empty".to_owned());
        }
        let makes = [
            ("bindings", !self.bindings.is_empty()),
            ("delivery_limit", self.delivery_limit.is_some()),
            ("dead_letter", self.dead_letter.is_some()),
        ];
        if let Some((key, _)) = makes.iter().find(|(_, given)| *given && !self.declare) {
            return Err(format!(
                "`{key}` changes the broker, and `declare: false` leaves it as it is: say one of them"
            ));
        }
        if self.delivery_limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
            return Err("`delivery_limit` must be 1 to 1000".to_owned());
        }
        let keys: usize = self.bindings.iter().map(|binding| binding.routing_keys.len().max(1)).sum();
        if keys > ROUTING_KEYS_MAX {
            return Err(format!("`bindings` has {keys} routing keys; at most {ROUTING_KEYS_MAX} are made"));
        }
        Ok(())
    }

    fn configured(&self, whose: &str, default: Option<&Broker>) -> anyhow::Result<Queue> {
        self.check().map_err(|wrong| Usage(format!("{whose}: {wrong}")))?;
        let broker = broker::configured(whose, self.url.as_ref(), self.tls.as_ref(), default)?;
        let topology = if self.declare {
            Topology::Declared(Declaration {
                delivery_limit: self.delivery_limit.unwrap_or(Declaration::DELIVERY_LIMIT_DEFAULT),
                dead_letter: self.dead_letter.clone(),
                bindings: self.bindings.iter().map(BindingSettings::configured).collect(),
            })
        } else {
            Topology::Checked
        };
        Ok(Queue {
            broker,
            queue: self.queue.clone(),
            topology,
            prefetch: self.prefetch.unwrap_or(Queue::PREFETCH_DEFAULT),
            consumer_tag: self.consumer_tag.clone(),
        })
    }
}

impl BindingSettings {
    fn configured(&self) -> Binding {
        let argument = |value: &ArgumentSetting| match value {
            ArgumentSetting::Flag(value) => Argument::Flag(*value),
            ArgumentSetting::Number(value) => Argument::Number(*value),
            ArgumentSetting::Text(value) => Argument::Text(value.clone()),
        };
        Binding {
            exchange: self.exchange.clone(),
            declare_exchange: self.declare_exchange.map(|kind| match kind {
                ExchangeTypeSetting::Topic => ExchangeType::Topic,
                ExchangeTypeSetting::Direct => ExchangeType::Direct,
                ExchangeTypeSetting::Fanout => ExchangeType::Fanout,
                ExchangeTypeSetting::Headers => ExchangeType::Headers,
            }),
            routing_keys: self.routing_keys.clone(),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), argument(value))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_cannot_work_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "a secret\n").unwrap();
        let wrong = |text: &str| {
            let text = text.replace("THERE", &format!("{{ file: {} }}", path.display()));
            let settings: BTreeMap<String, SourceSettings> =
                serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            all(&settings, None).unwrap_err().to_string()
        };
        for (text, told) in [
            ("a: {}", "either `amqp` or `webhook`"),
            ("a: { amqp: { queue: q } }", "no broker is named"),
            ("a: { webhook: { scheme: standard, secret: { env: REFIT_TEST_UNSET } } }", "REFIT_TEST_UNSET"),
            ("a: { webhook: { scheme: standard, secret: THERE, secrets: [THERE] } }", "either `secret`"),
            ("a: { webhook: { scheme: bearer, secret: THERE, tolerance: 1m } }", "leave it out"),
            ("a: { webhook: { scheme: bearer, secret: THERE, user: me } }", "`basic`"),
            ("a: { webhook: { scheme: bearer, secret: THERE, header: X-Key } }", "`api_key`"),
            ("a: { webhook: { scheme: none, secret: THERE } }", "every scheme but `none`"),
            ("a: { webhook: { scheme: basic, secret: THERE } }", "`user`"),
            ("a: { webhook: { scheme: bearer, secret: THERE }, format: jsn }", "did you mean `json`?"),
            ("a: { webhook: { scheme: bearer, secret: THERE }, format: json }", "needs a mapping"),
            (
                "a: { webhook: { scheme: bearer, secret: THERE }, format: json, mapping: { type: 'body.' } }",
                "mapping of `type`",
            ),
        ] {
            let told_is = wrong(text);
            assert!(told_is.starts_with("source `a`: ") && told_is.contains(told), "{text}: {told_is}");
        }
    }

    #[test]
    fn keys_and_schemes_that_do_not_exist_are_refused() {
        for text in [
            "a: { webhook: { scheme: hmac } }",
            "a: { webhook: { scheme: github, key: x } }",
            "a: { webhook: { scheme: github, body_max: 5 } }",
            "a: { webhook: { scheme: standard, tolerance: 5 } }",
            "a: { webhook: {} }",
        ] {
            assert!(serde_yaml::from_str::<BTreeMap<String, SourceSettings>>(text).is_err(), "{text}");
        }
    }
}
