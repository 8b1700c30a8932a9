//! Webhooks that events come in by, as they are configured. What makes a request authentic is `intake::hooks`' business.

use std::time::Duration;

use super::Secret;

/// A webhook that events come in by: `POST /hooks/NAME`, under the name of its source.
#[derive(Clone, Debug)]
pub struct Hook {
    /// How its sender proves who it is.
    pub scheme: Scheme,
    /// The largest body it may send, in bytes; at most [`Hook::BODY_MAX`].
    pub body_max: usize,
}

impl Hook {
    /// The largest body a hook may be allowed, and the default: what one event may weigh.
    pub const BODY_MAX: usize = refit_workflows::event::EVENT_BYTES_MAX;
    /// How far a signed time may be from this host's clock, either way, unless told otherwise (Standard Webhooks 1.0).
    pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);
    /// The header that an API key is in unless told otherwise.
    pub const API_KEY_HEADER: &'static str = "X-Api-Key";
    /// How many secrets may be right at once: the one in use, and the one that replaces it.
    pub const SECRETS_MAX: usize = 2;
}

/// How the sender of a webhook proves who it is. Any of `secrets` is right, so that one can be replaced while both are
/// in use.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks 1.0: `v1` with a secret (`whsec_` and base64, or plain text), `v1a` with the sender's public key
    /// (`whpk_` and base64).
    Standard {
        /// Secrets and public keys.
        secrets: Vec<Secret>,
        /// How far the signed time may be from now, either way.
        tolerance: Duration,
    },
    /// GitHub, and what signs like it (Gitea, Forgejo): `X-Hub-Signature-256`.
    GitHub {
        /// Secrets.
        secrets: Vec<Secret>,
    },
    /// MLflow: the construction of Standard Webhooks under its own headers, with the secret's text as the key.
    Mlflow {
        /// Secrets.
        secrets: Vec<Secret>,
        /// How far the signed time may be from now, either way.
        tolerance: Duration,
    },
    /// The dbt platform: a bare HMAC in `Authorization`.
    Dbt {
        /// Secrets.
        secrets: Vec<Secret>,
    },
    /// The Hugging Face Hub: the secret itself in `X-Webhook-Secret`.
    HuggingFace {
        /// Secrets.
        secrets: Vec<Secret>,
    },
    /// `Authorization: Bearer TOKEN` (RFC 6750).
    Bearer {
        /// Tokens.
        secrets: Vec<Secret>,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// Passwords.
        secrets: Vec<Secret>,
    },
    /// A key in a header of the sender's choice.
    ApiKey {
        /// The header's name.
        header: String,
        /// Keys.
        secrets: Vec<Secret>,
    },
    /// Nothing: whoever reaches the listener may send. On loopback only.
    None,
}

impl Scheme {
    /// As written in the settings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standard { .. } => "standard",
            Self::GitHub { .. } => "github",
            Self::Mlflow { .. } => "mlflow",
            Self::Dbt { .. } => "dbt",
            Self::HuggingFace { .. } => "hugging_face",
            Self::Bearer { .. } => "bearer",
            Self::Basic { .. } => "basic",
            Self::ApiKey { .. } => "api_key",
            Self::None => "none",
        }
    }
}
