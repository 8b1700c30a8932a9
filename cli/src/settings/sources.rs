//! `sources` of `refit.yaml`: where events come from. Connects to nothing.

use std::collections::BTreeMap;

use refit_orchestrator::config::{Broker, Queue, Source, Transport};
use refit_workflows::format::{Format, Mapping};
use serde::Deserialize;

use super::hooks::HookSettings;
use crate::exit::Usage;

/// One source, under its name: a queue or a webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SourceSettings {
    amqp: Option<QueueSettings>,
    webhook: Option<HookSettings>,
    /// The shape of what it delivers.
    format: Option<String>,
    /// Of the format `json`: which expression gives which attribute.
    mapping: Option<BTreeMap<String, String>>,
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
        let whose = format!("source `{name}`");
        let transport = match (&self.amqp, &self.webhook) {
            (Some(QueueSettings { url, queue }), None) => {
                if self.format.is_some() || self.mapping.is_some() {
                    return Err(
                        Usage(format!("{whose}: a queue brings CloudEvents; leave out `format`")).into()
                    );
                }
                let broker = url.clone().map(Broker::at).or_else(|| default.cloned()).ok_or_else(|| {
                    Usage(format!("{whose}: no broker is named; give it `amqp: {{ url: … }}`, or --amqp-url"))
                })?;
                Transport::Amqp(Queue { broker, queue: queue.clone() })
            }
            (None, Some(hook)) => {
                let format = self.format(&whose, hook.default_format())?;
                Transport::Webhook(hook.configured(&whose, format)?)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Usage(format!("{whose}: give it either `amqp` or `webhook`")).into());
            }
        };
        Ok(Source { name: name.to_owned(), transport })
    }

    fn format(&self, whose: &str, default: &str) -> anyhow::Result<Format> {
        let mapping = self.mapping.as_ref().map(|mapping| {
            let attributes = mapping.iter().map(|(name, text)| (name.as_str(), text.as_str()));
            Mapping::parse(attributes).map_err(|problems| {
                let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Usage(format!("{whose}: the mapping: {}", all.join("; ")))
            })
        });
        let name = self.format.as_deref().unwrap_or(default);
        let format = Format::new(name, mapping.transpose()?);
        Ok(format.map_err(|wrong| Usage(format!("{whose}: {wrong}")))?)
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
                "the mapping: `type`",
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
