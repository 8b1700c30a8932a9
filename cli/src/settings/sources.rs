//! `sources` of `refit.yaml`: where events come from. Connects to nothing.

use std::collections::BTreeMap;

use refit_orchestrator::config::{Broker, Queue, Source, Transport};
use serde::Deserialize;

use crate::exit::Usage;

/// One source, under its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceSettings {
    amqp: QueueSettings,
}

/// A queue of RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueSettings {
    /// The broker, where it is another than that of `amqp.url`.
    url: Option<String>,
    queue: String,
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
        let QueueSettings { url, queue } = &self.amqp;
        let broker = url.clone().map(Broker::at).or_else(|| default.cloned()).ok_or_else(|| {
            Usage(format!("source `{name}`: no broker is named; give it `amqp: {{ url: … }}`, or --amqp-url"))
        })?;
        let transport = Transport::Amqp(Queue { broker, queue: queue.clone() });
        Ok(Source { name: name.to_owned(), transport })
    }
}
