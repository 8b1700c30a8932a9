//! A RabbitMQ broker as it is configured: where it is, and how it and Refit know each other. Reads no file; `broker` does
//! when it connects.

use std::path::PathBuf;

use super::Secret;

/// A RabbitMQ broker.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS.
    pub url: Secret,
    /// For `amqps://` only.
    pub tls: Tls,
}

/// What TLS to a broker rests on. Files are read again for every connection, so that a renewed certificate is used
/// without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that are trusted, in a PEM file, instead of those the system trusts.
    pub ca: Option<PathBuf>,
    /// What the broker knows Refit by. With it and a URL that names no user, the certificate stands for the user
    /// (SASL EXTERNAL).
    pub client: Option<ClientCertificate>,
    /// The name in the broker's certificate, where it is not the URL's host.
    pub server_name: Option<String>,
}

/// A certificate and the key to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A PEM file: the certificate first, then those it was signed with.
    pub certificate: PathBuf,
    /// A PEM file with the private key, not encrypted.
    pub key: PathBuf,
}

impl Broker {
    /// The broker at this URL; over `amqps://` known by an authority that the system trusts.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), tls: Tls::default() }
    }
}
