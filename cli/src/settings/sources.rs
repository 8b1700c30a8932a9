//! `sources` of `refit.yaml`: where events come from. Connects to nothing.

use std::collections::BTreeMap;

use refit_orchestrator::config::{
    Argument, Binding, Broker, Declaration, ExchangeType, Queue, Source, Topology, Transport,
};
use refit_workflows::names::check_name;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::broker::{self, BrokerUrl, TlsSettings};
use super::format::{self, MappingSettings, Wrong};
use crate::exit::Usage;

/// The most keys that one queue is bound by.
const ROUTING_KEYS_MAX: usize = 256;

/// One source, under its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceSettings {
    amqp: QueueSettings,
    format: Option<Spanned<String>>,
    mapping: Option<MappingSettings>,
}

/// A queue of RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueSettings {
    /// The broker, where it is another than that of `amqp.url`.
    url: Option<BrokerUrl>,
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
#[serde(untagged)]
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
        let plain = |message| wrong(Wrong { at: None, message });
        check_name(name).map_err(|message| plain(format!("its name {message}")))?;
        source.amqp.check().map_err(plain)?;
        format::read(source.format.as_ref(), source.mapping.as_ref(), text).map_err(wrong)?;
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
        let format = format::read(self.format.as_ref(), self.mapping.as_ref(), "")
            .map_err(|wrong| Usage(format!("{whose}: {}", wrong.message)))?;
        let transport = Transport::Amqp(self.amqp.configured(&whose, default)?);
        Ok(Source { name: name.to_owned(), transport, format })
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
