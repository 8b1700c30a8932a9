//! Connections to brokers over TLS. Certificates and keys are read anew for each connection and kept nowhere; must never
//! happen here: a broker that is not verified.

use std::path::Path;
use std::sync::Arc;

use lapin::tcp::{AMQPUriTcpExt as _, RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{ANSWER_WITHIN, BrokerError, within};
use crate::config::{ClientCertificate, Tls};

/// The largest file with certificates or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Opens a connection to an `amqps://` broker. `what` completes "failed to …".
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: &Tls,
    what: &str,
) -> Result<Connection, BrokerError> {
    let name = tls.server_name.clone().unwrap_or_else(|| uri.authority.host.clone());
    if ServerName::try_from(name.as_str()).is_err() {
        return Err(BrokerError::Tls(format!("`{name}` is no name a certificate could have")));
    }
    let connector = Arc::new(connector(tls).await?);
    let connected = async {
        let runtime = lapin::runtime::default_runtime()?;
        let open = async move |uri: AMQPUri, runtime| {
            // lapin's own way from here on trusts the system's authorities whatever else is named.
            let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri };
            let stream = plain.connect_async(&runtime).await?;
            Ok(stream.into_rustls(&connector, &name).await?)
        };
        Connection::connector(uri, runtime, open, properties).await
    };
    within(ANSWER_WITHIN, what, connected).await
}

async fn connector(tls: &Tls) -> Result<RustlsConnector, BrokerError> {
    let config = match &tls.ca {
        Some(path) => {
            let mut config = RustlsConnectorConfig::default();
            config.add_parsable_certificates(certificates(path).await?);
            Ok(config)
        }
        None => RustlsConnectorConfig::new_with_native_certs(),
    };
    let config = config.map_err(|wrong| {
        BrokerError::Tls(format!(
            "the system trusts no authority ({wrong}): name one with `tls: {{ ca: FILE }}`"
        ))
    })?;
    let made = match &tls.client {
        None => config.connector_with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            config.connector_with_single_cert(certificates(certificate).await?, private_key(key).await?)
        }
    };
    made.map_err(|wrong| BrokerError::Tls(format!("the certificates cannot be used: {wrong}")))
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let bytes = read(path).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(BrokerError::Tls(format!("{} holds no certificate (PEM)", path.display()))),
        Err(wrong) => Err(BrokerError::Tls(format!("failed to read {}: {wrong}", path.display()))),
    }
}

async fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, BrokerError> {
    let bytes = read(path).await?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        BrokerError::Tls(format!("{} holds no private key (PEM, not encrypted)", path.display()))
    })
}

async fn read(path: &Path) -> Result<Vec<u8>, BrokerError> {
    let failed = |wrong: &dyn std::fmt::Display| {
        BrokerError::Tls(format!("failed to read {}: {wrong}", path.display()))
    };
    let size = tokio::fs::metadata(path).await.map_err(|wrong| failed(&wrong))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(&"it is larger than 1 MiB"));
    }
    tokio::fs::read(path).await.map_err(|wrong| failed(&wrong))
}
