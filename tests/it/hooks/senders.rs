//! How each sender proves who it is, written down from its documentation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

use super::{Headers, now};

/// A scheme: what Refit is told, and what a sender with the same secret sends.
pub(super) struct Sender {
    /// The name of its hook.
    pub(super) hook: &'static str,
    /// The scheme, and what else the settings say of it.
    scheme: &'static str,
    /// What Refit is given of a secret.
    held: fn(&str) -> String,
    /// The headers of a request that is signed with a secret `seconds` from now.
    sign: fn(&str, &str, i64) -> Vec<(&'static str, String)>,
    /// Whether its headers depend on the body.
    pub(super) signs_body: bool,
    /// Whether they depend on the time.
    pub(super) signs_time: bool,
}

impl Sender {
    /// The headers of a request with this body, signed now.
    pub(super) fn headers(&self, secret: &str, body: &str) -> Headers {
        self.headers_at(secret, body, 0)
    }

    /// The same, signed by a clock that is `seconds` ahead.
    pub(super) fn headers_at(&self, secret: &str, body: &str, seconds: i64) -> Headers {
        let signed = (self.sign)(secret, body, now() + seconds);
        signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Its source in the settings, whose secrets are in the variables `{HOOK}_OLD` and `{HOOK}_NEW`.
    pub(super) fn settings(&self) -> String {
        let [old, new] = self.variables();
        format!(
            "  {}:\n    webhook: {{ scheme: {}, secrets: [{{ env: {old} }}, {{ env: {new} }}] }}\n    format: json\n    \
             mapping: {{ type: \"'sent'\", id: body.id }}\n",
            self.hook, self.scheme
        )
    }

    pub(super) fn variables(&self) -> [String; 2] {
        ["OLD", "NEW"].map(|which| format!("HOOK_{}_{which}", self.hook.to_uppercase().replace('-', "_")))
    }

    pub(super) fn held(&self, secret: &str) -> String {
        (self.held)(secret)
    }
}

fn as_is(secret: &str) -> String {
    secret.to_owned()
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pair(secret: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&Sha256::digest(secret)).unwrap()
}

/// Every scheme with a secret.
pub(super) fn all() -> Vec<Sender> {
    let sender = |hook, scheme, sign, (signs_body, signs_time)| Sender {
        hook,
        scheme,
        held: as_is,
        sign,
        signs_body,
        signs_time,
    };
    vec![
        Sender {
            held: |secret| format!("whsec_{}", STANDARD.encode(secret)),
            ..sender("standard", "standard", standard, (true, true))
        },
        Sender {
            held: |secret| format!("whpk_{}", STANDARD.encode(pair(secret).public_key().as_ref())),
            ..sender("asymmetric", "standard, tolerance: 2m", asymmetric, (true, true))
        },
        sender("mlflow", "mlflow, tolerance: 5m", mlflow, (true, true)),
        sender("github", "github", github, (true, false)),
        sender("dbt", "dbt", dbt, (true, false)),
        sender("hugging-face", "hugging_face", hugging_face, (false, false)),
        sender("bearer", "bearer", bearer, (false, false)),
        sender("basic", "basic, user: refit", basic, (false, false)),
        sender("api-key", "api_key, header: X-Acme-Key", api_key, (false, false)),
    ]
}

/// Standard Webhooks 1.0, `v1`.
fn standard(secret: &str, body: &str, at: i64) -> Vec<(&'static str, String)> {
    let signature = STANDARD.encode(mac(secret.as_bytes(), &format!("msg_1.{at}.{body}")));
    vec![
        ("webhook-id", "msg_1".to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", format!("v1,{signature}")),
    ]
}

/// Standard Webhooks 1.0, `v1a`.
fn asymmetric(secret: &str, body: &str, at: i64) -> Vec<(&'static str, String)> {
    let signature = pair(secret).sign(format!("msg_1.{at}.{body}").as_bytes());
    vec![
        ("webhook-id", "msg_1".to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", format!("v1a,{}", STANDARD.encode(signature.as_ref()))),
    ]
}

fn mlflow(secret: &str, body: &str, at: i64) -> Vec<(&'static str, String)> {
    let signature = STANDARD.encode(mac(secret.as_bytes(), &format!("d-1.{at}.{body}")));
    vec![
        ("X-MLflow-Delivery-Id", "d-1".to_owned()),
        ("X-MLflow-Timestamp", at.to_string()),
        ("X-MLflow-Signature", format!("v1,{signature}")),
    ]
}

fn github(secret: &str, body: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("X-Hub-Signature-256", format!("sha256={}", hex(&mac(secret.as_bytes(), body))))]
}

fn dbt(secret: &str, body: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("Authorization", hex(&mac(secret.as_bytes(), body)))]
}

fn hugging_face(secret: &str, _: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("X-Webhook-Secret", secret.to_owned())]
}

fn bearer(secret: &str, _: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Bearer {secret}"))]
}

fn basic(secret: &str, _: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("Authorization", format!("Basic {}", STANDARD.encode(format!("refit:{secret}"))))]
}

fn api_key(secret: &str, _: &str, _: i64) -> Vec<(&'static str, String)> {
    vec![("X-Acme-Key", secret.to_owned())]
}
