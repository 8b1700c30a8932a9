//! Brokers in `refit.yaml`: their URL, which may hold a password, and TLS. Connects to nothing; only looks whether the
//! files are there.

use std::path::PathBuf;

use refit_orchestrator::config::{Broker, ClientCertificate, Tls};
use serde::Deserialize;

use super::secret::SecretUrl;
use crate::exit::Usage;

/// `tls` of a broker.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSettings {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
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
    url: Option<&SecretUrl>,
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
