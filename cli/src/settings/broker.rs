//! Brokers in `refit.yaml`: their URL, which may hold a password, and TLS. Connects to nothing; only looks whether the
//! files are there.

use std::path::PathBuf;

use refit_orchestrator::config::{Broker, ClientCertificate, Secret, Tls};
use serde::Deserialize;
use serde::de::{self, value::MapAccessDeserializer};

use super::secret::SecretPlace;
use crate::exit::Usage;

/// A broker's URL: itself, or `{ env: VARIABLE }` or `{ file: PATH }`.
#[derive(Clone, Debug)]
pub(super) enum BrokerUrl {
    Text(Secret),
    Place(SecretPlace),
}

/// `tls` of a broker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSettings {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
}

impl<'de> Deserialize<'de> for BrokerUrl {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = BrokerUrl;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a URL, `{ env: VARIABLE }` or `{ file: PATH }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BrokerUrl::Text(Secret::new(text)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                SecretPlace::deserialize(MapAccessDeserializer::new(map)).map(BrokerUrl::Place)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl BrokerUrl {
    /// Fetches it. `whose` begins the errors: "source `orders`".
    pub(super) fn fetch(&self, whose: &str) -> anyhow::Result<Secret> {
        match self {
            Self::Text(url) => Ok(url.clone()),
            Self::Place(place) => place.fetch(whose),
        }
    }
}

impl TlsSettings {
    fn configured(&self, whose: &str) -> anyhow::Result<Tls> {
        let client = match (&self.certificate, &self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() })
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(Usage(format!("{whose}: `tls` needs `certificate` and `key` together")).into());
            }
        };
        for path in [&self.ca, &self.certificate, &self.key].into_iter().flatten() {
            if !path.is_file() {
                let path = path.display();
                return Err(Usage(format!("{whose}: `tls` names {path}, which is no file")).into());
            }
        }
        Ok(Tls { ca: self.ca.clone(), client, server_name: self.server_name.clone() })
    }
}

/// The broker of `whose` (source `orders`): its own URL and TLS, else those of the broker that `amqp` and flags name.
///
/// # Errors
/// None is named, or it cannot be used.
pub(super) fn configured(
    whose: &str,
    url: Option<&BrokerUrl>,
    tls: Option<&TlsSettings>,
    default: Option<&Broker>,
) -> anyhow::Result<Broker> {
    let url_given = url.map(|url| url.fetch(whose)).transpose()?;
    let Some(url) = url_given.clone().or_else(|| default.map(|broker| broker.url.clone())) else {
        let hint = "give it `amqp: { url: … }`, or --amqp-url";
        return Err(Usage(format!("{whose}: no broker is named; {hint}")).into());
    };
    let tls_given = tls.map(|tls| tls.configured(whose)).transpose()?;
    let tls = tls_given.unwrap_or_else(|| match (default, &url_given) {
        // Another broker's authority says nothing about this one.
        (Some(broker), None) => broker.tls.clone(),
        (Some(_), Some(_)) | (None, _) => Tls::default(),
    });
    let scheme = url.reveal().split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "amqps" => {}
        "amqp" if tls == Tls::default() => {}
        "amqp" => {
            return Err(
                Usage(format!("{whose}: `tls` is for amqps:// URLs, and its begins with amqp://")).into()
            );
        }
        _ => {
            let expected = "amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://…";
            return Err(Usage(format!("{whose}: its broker's URL is none; expected {expected}")).into());
        }
    }
    Ok(Broker { url, tls })
}
