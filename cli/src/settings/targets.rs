//! `targets` of `refit.yaml`: where what happens to runs and models is sent. Connects to nothing.

use std::collections::BTreeMap;

use refit_orchestrator::config::{Broker, Destination, Exchange, Target, Webhook};
use serde::Deserialize;

use super::broker::{self, BrokerUrl, TlsSettings};
use super::secret::SecretPlace;
use crate::exit::Usage;

/// One target, under its name: an exchange or a webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetSettings {
    amqp: Option<ExchangeSettings>,
    webhook: Option<WebhookSettings>,
}

/// A topic exchange of RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeSettings {
    /// The broker, where it is another than that of `amqp.url`.
    url: Option<BrokerUrl>,
    tls: Option<TlsSettings>,
    exchange: String,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSettings {
    url: String,
    secret: Option<SecretPlace>,
}

/// The targets as the orchestrator is told of them.
///
/// # Errors
/// One of them cannot work: which, and why.
pub(super) fn all(
    settings: &BTreeMap<String, TargetSettings>,
    default: Option<&Broker>,
) -> anyhow::Result<Vec<Target>> {
    settings.iter().map(|(name, target)| target.configured(name, default)).collect()
}

impl TargetSettings {
    fn configured(&self, name: &str, default: Option<&Broker>) -> anyhow::Result<Target> {
        let whose = format!("target `{name}`");
        let destination = match (&self.amqp, &self.webhook) {
            (Some(ExchangeSettings { url, tls, exchange }), None) => {
                let broker = broker::configured(&whose, url.as_ref(), tls.as_ref(), default)?;
                Destination::Exchange(Exchange { broker, exchange: exchange.clone() })
            }
            (None, Some(WebhookSettings { url, secret })) => {
                if reqwest::Url::parse(url).is_err() {
                    return Err(Usage(format!("{whose}: `url` is not a URL")).into());
                }
                let secret = secret.as_ref().map(|place| place.fetch(&whose)).transpose()?;
                Destination::Webhook(Webhook { url: url.clone(), secret })
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Usage(format!("{whose}: give it either `amqp` or `webhook`")).into());
            }
        };
        Ok(Target { name: name.to_owned(), destination })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_cannot_work_is_told() {
        let wrong = |text: &str| {
            let settings: BTreeMap<String, TargetSettings> = serde_yaml::from_str(text).unwrap();
            all(&settings, None).unwrap_err().to_string()
        };
        assert!(wrong("a: { amqp: { exchange: x } }").contains("no broker is named"));
        assert!(wrong("a: {}").contains("either"));
        assert!(wrong("a: { webhook: { url: nowhere } }").contains("not a URL"));
        let unset = "a: { webhook: { url: 'http://h', secret: { env: REFIT_TEST_UNSET } } }";
        assert!(wrong(unset).contains("REFIT_TEST_UNSET"));
    }
}
