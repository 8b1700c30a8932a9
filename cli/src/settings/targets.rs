//! `targets` of `refit.yaml`: where what happens to runs and models is sent. Connects to nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use refit_orchestrator::config::{Allow, Broker, Destination, Exchange, Target, Webhook};
use refit_orchestrator::outbox;
use refit_workflows::expression::Expression;
use refit_workflows::names::check_name;
use refit_workflows::pattern::Pattern;
use serde::Deserialize;

use super::broker::{self, TlsSettings};
use super::duration;
use super::secret::{SecretPlace, SecretUrl};
use crate::exit::Usage;

/// One target, under its name: an exchange or a webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TargetSettings {
    /// Event patterns; without them every event of Refit's own goes there.
    events: Option<Vec<serde_json::Value>>,
    #[serde(deserialize_with = "duration")]
    give_up_after: Option<Duration>,
    amqp: Option<ExchangeSettings>,
    webhook: Option<WebhookSettings>,
}

/// An exchange of RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeSettings {
    /// The broker, where it is another than that of `amqp.url`.
    url: Option<SecretUrl>,
    tls: Option<TlsSettings>,
    exchange: String,
    /// Whether to declare it; true by default.
    declare: Option<bool>,
    /// CEL over the event's attributes.
    routing_key: Option<String>,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSettings {
    url: SecretUrl,
    secret: Option<SecretPlace>,
    #[serde(default)]
    secrets: Vec<SecretPlace>,
    #[serde(default, deserialize_with = "duration")]
    timeout: Option<Duration>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, SecretPlace>,
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
        check_name(name).map_err(|wrong| Usage(format!("{whose}: this {wrong}")))?;
        let destination = match (&self.amqp, &self.webhook) {
            (Some(exchange), None) => Destination::Exchange(exchange.configured(&whose, default)?),
            (None, Some(webhook)) => Destination::Webhook(webhook.configured(&whose)?),
            (Some(_), Some(_)) | (None, None) => {
                return Err(Usage(format!("{whose}: give it either `amqp` or `webhook`")).into());
            }
        };
        let give_up_after = within(
            self.give_up_after.unwrap_or(Target::GIVE_UP_AFTER_DEFAULT),
            Target::GIVE_UP_AFTER_MAX,
            || format!("{whose}: `give_up_after` must be between 1s and 30d"),
        )?;
        let events = self.patterns().map_err(|wrong| Usage(format!("{whose}: {wrong}")))?;
        let target = Target { name: name.to_owned(), events, give_up_after, destination };
        outbox::check(&target).map_err(|wrong| Usage(format!("{whose}: {wrong}")))?;
        Ok(target)
    }

    fn patterns(&self) -> Result<Vec<Pattern>, String> {
        match self.events.as_deref() {
            None => Ok(Vec::new()),
            Some([]) => {
                Err("`events` is empty: leave it out to send all events, or the target to send none"
                    .to_owned())
            }
            Some(patterns) => patterns.iter().enumerate().map(pattern).collect(),
        }
    }
}

fn pattern((at, pattern): (usize, &serde_json::Value)) -> Result<Pattern, String> {
    Pattern::parse(pattern).map_err(|wrong| {
        let path = wrong.path.iter().map(|part| format!(".{part}")).collect::<String>();
        format!("`events[{at}]{path}`: {}", wrong.message)
    })
}

impl ExchangeSettings {
    fn configured(&self, whose: &str, default: Option<&Broker>) -> anyhow::Result<Exchange> {
        let broker = broker::configured(whose, self.url.as_ref(), self.tls.as_ref(), default)?;
        let routing_key = self.routing_key.as_deref().map(Expression::parse).transpose();
        let routing_key = routing_key.map_err(|wrong| Usage(format!("{whose}: `routing_key`: {wrong}")))?;
        let declare = self.declare.unwrap_or(true);
        Ok(Exchange { broker, exchange: self.exchange.clone(), declare, routing_key })
    }
}

impl WebhookSettings {
    fn configured(&self, whose: &str) -> anyhow::Result<Webhook> {
        let secrets: Vec<_> = self.secret.iter().chain(&self.secrets).collect();
        if secrets.len() > Webhook::SECRETS_MAX {
            return Err(
                Usage(format!("{whose}: at most {} secrets sign at once", Webhook::SECRETS_MAX)).into()
            );
        }
        let secrets = secrets.into_iter().map(|place| place.fetch(whose)).collect::<Result<_, _>>()?;
        let headers = self
            .headers
            .iter()
            .map(|(name, place)| Ok((name.clone(), place.fetch(&format!("{whose}, header `{name}`"))?)));
        let timeout = within(self.timeout.unwrap_or(Webhook::TIMEOUT_DEFAULT), Webhook::TIMEOUT_MAX, || {
            format!("{whose}: `timeout` must be between 1s and 30s")
        })?;
        Ok(Webhook {
            url: self.url.fetch(whose)?,
            secrets,
            timeout,
            allow: Allow::parse(&self.allow).map_err(|wrong| Usage(format!("{whose}: {wrong}")))?,
            headers: headers.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// The duration, where it is at least a second and at most `longest`.
fn within(duration: Duration, longest: Duration, wrong: impl Fn() -> String) -> Result<Duration, Usage> {
    if duration >= Duration::from_secs(1) && duration <= longest { Ok(duration) } else { Err(Usage(wrong())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<Target>> {
        let settings: BTreeMap<String, TargetSettings> = serde_yaml::from_str(text).unwrap();
        all(&settings, Some(&Broker::at("amqp://broker")))
    }

    #[test]
    fn a_target_that_cannot_work_is_told() {
        let settings: BTreeMap<String, TargetSettings> =
            serde_yaml::from_str("a: { amqp: { exchange: x } }").unwrap();
        assert!(all(&settings, None).unwrap_err().to_string().contains("no broker is named"));
        for (text, told) in [
            ("a: {}", "either"),
            ("A b: { amqp: { exchange: x } }", "is not a name"),
            ("a: { webhook: { url: nowhere } }", "not a URL"),
            ("a: { webhook: { url: 'http://h', secret: { env: REFIT_TEST_UNSET } } }", "REFIT_TEST_UNSET"),
            (
                "a: { webhook: { url: 'http://h', headers: { X-Key: { env: REFIT_TEST_UNSET } } } }",
                "header `X-Key`",
            ),
            ("a: { webhook: { url: { env: REFIT_TEST_UNSET } } }", "REFIT_TEST_UNSET"),
            ("a: { webhook: { url: 'http://h', timeout: 31s } }", "`timeout`"),
            ("a: { give_up_after: 500ms, webhook: { url: 'http://h' } }", "`give_up_after`"),
            ("a: { webhook: { url: 'http://h', allow: [10.0.0.0/99] } }", "10.0.0.0/99"),
            ("a: { webhook: { url: 'http://127.0.0.1:8080/' } }", r#"add `allow: ["127.0.0.1"]`"#),
            ("a: { events: [], amqp: { exchange: x } }", "`events` is empty"),
            (
                "a: { events: [{ type: [a] }, { type: { prefix: b } }], amqp: { exchange: x } }",
                "`events[1].type",
            ),
            ("a: { amqp: { exchange: x, routing_key: 'type +' } }", "`routing_key`"),
        ] {
            let wrong = read(text).unwrap_err().to_string();
            assert!(wrong.starts_with("target `") && wrong.contains(told), "{text}: {wrong}");
        }
    }

    #[test]
    fn a_target_is_what_its_settings_say() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "hunter2").unwrap();
        let url = folder.path().join("url");
        std::fs::write(&url, "http://hunter2@127.0.0.1/hook\n").unwrap();
        let (secret, url) = (secret.display(), url.display());
        let targets = read(&format!(
            "
bus: {{ amqp: {{ exchange: x, declare: false, routing_key: \"'ml.' + type\" }} }}
hook:
  events: [{{ type: [{{ prefix: refit.model. }}] }}]
  give_up_after: 2h
  webhook:
    url: http://127.0.0.1/
    secrets: [{{ file: {secret} }}, {{ file: {secret} }}]
    timeout: 3s
    allow: [127.0.0.0/8]
    headers: {{ Authorization: {{ file: {secret} }} }}
kept: {{ webhook: {{ url: {{ file: {url} }}, allow: [127.0.0.0/8] }} }}
plain: {{ webhook: {{ url: 'http://h/?key=hunter2' }} }}
"
        ))
        .unwrap();
        let [bus, hook, kept, plain] = targets.as_slice() else { panic!("{targets:?}") };
        let Destination::Exchange(exchange) = &bus.destination else { panic!("{bus:?}") };
        assert!(!exchange.declare && exchange.routing_key.is_some() && bus.events.is_empty());
        assert_eq!(bus.give_up_after, Target::GIVE_UP_AFTER_DEFAULT);
        let Destination::Webhook(webhook) = &hook.destination else { panic!("{hook:?}") };
        assert_eq!((webhook.secrets.len(), webhook.timeout), (2, Duration::from_secs(3)));
        assert_eq!(webhook.headers[0].1.reveal(), "hunter2");
        assert_eq!((hook.events.len(), hook.give_up_after), (1, Duration::from_secs(7200)));
        for (target, url) in [(kept, "http://hunter2@127.0.0.1/hook"), (plain, "http://h/?key=hunter2")] {
            let Destination::Webhook(webhook) = &target.destination else { panic!("{target:?}") };
            assert_eq!(webhook.url.reveal(), url);
        }
        assert!(!format!("{targets:?}").contains("hunter2"));
    }
}
