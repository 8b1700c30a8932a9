//! Whether a request comes from whom its hook is for: the signatures and secrets of webhooks, over the bytes as they came.
//! Pure: the time is an argument. Compares in constant time, tries every key that may be right, and looks at a body's
//! content never. Must never happen here: a secret, or what a signature would have to be, in a text.
//!
//! | scheme | headers | what is signed or sent |
//! |---|---|---|
//! | `standard` | `webhook-id`, `webhook-timestamp`, `webhook-signature` | `id.timestamp.body`: `v1,` base64 of HMAC-SHA256, `v1a,` base64 of Ed25519 (<https://www.standardwebhooks.com>) |
//! | `mlflow` | `x-mlflow-delivery-id`, `x-mlflow-timestamp`, `x-mlflow-signature` | the same as `v1,` (MLflow 3 documentation, "Webhooks") |
//! | `github` | `x-hub-signature-256` | the body: `sha256=` and hex of HMAC-SHA256 (GitHub documentation, "Validating webhook deliveries") |
//! | `dbt` | `authorization` | the body: hex of HMAC-SHA256 (dbt documentation, "Webhooks for your jobs") |
//! | `hugging_face` | `x-webhook-secret` | the secret (Hugging Face documentation, "Webhooks") |
//! | `bearer`, `basic`, `api_key` | `authorization`, or the header that is configured | the secret |

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use refit_workflows::time::Timestamp;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{Hook, Scheme, Secret};

/// The most signatures of one request that are looked at: two keys of each kind while both are replaced.
const SIGNATURES_MAX: usize = 4;
/// The most bytes of a header with signatures.
const SIGNATURES_BYTES_MAX: usize = 4096;
/// The fewest bytes of a secret: what is shorter was not meant as one.
const SECRET_BYTES_MIN: usize = 6;
/// What introduces the secrets and keys of Standard Webhooks.
const SHARED_PREFIX: &str = "whsec_";
const PUBLIC_PREFIX: &str = "whpk_";
const PRIVATE_PREFIX: &str = "whsk_";
const ED25519_KEY_BYTES: usize = 32;

/// Tells authentic requests of one hook from others.
pub(crate) struct Verifier {
    check: Check,
}

/// A scheme with its keys ready for use.
enum Check {
    Message { headers: MessageHeaders, keys: Vec<Key>, tolerance: Duration },
    GitHub(Vec<Hmac<Sha256>>),
    Dbt(Vec<Hmac<Sha256>>),
    HuggingFace(Vec<Fingerprint>),
    Bearer(Vec<Fingerprint>),
    Basic(Vec<Fingerprint>),
    ApiKey(HeaderName, Vec<Fingerprint>),
    Nothing,
}

/// The headers of a signature over `id.timestamp.body`.
struct MessageHeaders {
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

enum Key {
    Shared(Hmac<Sha256>),
    Public(UnparsedPublicKey<[u8; ED25519_KEY_BYTES]>),
}

/// The digest of a secret: compared instead of it, so that not even lengths tell.
type Fingerprint = [u8; 32];

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What proves who sends is missing or wrong. Which of the two is not told.
    NotAuthentic,
    /// It is authentic, and its time is too far from now: it may be a recording that somebody plays.
    Stale {
        /// Seconds from its time to now; negative when it is from the future.
        age: i64,
        /// The most that is taken, in seconds.
        max: u64,
    },
}

impl Verifier {
    /// A verifier for this scheme.
    ///
    /// # Errors
    /// A secret that cannot be one, none, or too many. Never shows it.
    pub(crate) fn new(scheme: &Scheme) -> Result<Self, String> {
        let check = match scheme {
            Scheme::Standard { secrets, tolerance } => Check::Message {
                headers: MessageHeaders::named("webhook-id", "webhook-timestamp", "webhook-signature"),
                keys: each(secrets, standard_key)?,
                tolerance: *tolerance,
            },
            Scheme::Mlflow { secrets, tolerance } => Check::Message {
                headers: MessageHeaders::named(
                    "x-mlflow-delivery-id",
                    "x-mlflow-timestamp",
                    "x-mlflow-signature",
                ),
                keys: each(secrets, |text| hmac_key(text.as_bytes()).map(Key::Shared))?,
                tolerance: *tolerance,
            },
            Scheme::GitHub { secrets } => Check::GitHub(each(secrets, |text| hmac_key(text.as_bytes()))?),
            Scheme::Dbt { secrets } => Check::Dbt(each(secrets, |text| hmac_key(text.as_bytes()))?),
            Scheme::HuggingFace { secrets } => {
                Check::HuggingFace(each(secrets, |text| Ok(fingerprint(text)))?)
            }
            Scheme::Bearer { secrets } => Check::Bearer(each(secrets, |text| Ok(fingerprint(text)))?),
            Scheme::Basic { user, secrets } => {
                if user.is_empty() || user.contains(':') {
                    return Err("`user` must be a name without a colon (RFC 7617)".to_owned());
                }
                Check::Basic(each(secrets, |text| Ok(fingerprint(&format!("{user}:{text}"))))?)
            }
            Scheme::ApiKey { header, secrets } => {
                let name = HeaderName::from_bytes(header.as_bytes())
                    .map_err(|_| format!("`{header}` is not the name of a header"))?;
                Check::ApiKey(name, each(secrets, |text| Ok(fingerprint(text)))?)
            }
            Scheme::None => Check::Nothing,
        };
        Ok(Self { check })
    }

    /// Checks a request: first that it is authentic, then that it is not old.
    ///
    /// # Errors
    /// [`Refusal`]
    pub(crate) fn check(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
        let authentic = match &self.check {
            Check::Message { headers: names, keys, tolerance } => {
                let at = signed_at(names, keys, headers, body).ok_or(Refusal::NotAuthentic)?;
                return fresh(at, now, *tolerance);
            }
            Check::GitHub(keys) => only(headers, &header_name("x-hub-signature-256"))
                .and_then(|value| value.strip_prefix(b"sha256="))
                .is_some_and(|given| any(keys, |key| same(hex(&signature(key, &[body])).as_bytes(), given))),
            Check::Dbt(keys) => only(headers, &header::AUTHORIZATION)
                .is_some_and(|given| any(keys, |key| same(hex(&signature(key, &[body])).as_bytes(), given))),
            Check::HuggingFace(secrets) => {
                only(headers, &header_name("x-webhook-secret")).is_some_and(|given| shared(secrets, given))
            }
            Check::Bearer(secrets) => {
                credentials(headers, "bearer").is_some_and(|given| shared(secrets, given))
            }
            Check::Basic(secrets) => credentials(headers, "basic")
                .and_then(|given| STANDARD.decode(given).ok())
                .is_some_and(|given| shared(secrets, &given)),
            Check::ApiKey(name, secrets) => only(headers, name).is_some_and(|given| shared(secrets, given)),
            Check::Nothing => true,
        };
        if authentic { Ok(()) } else { Err(Refusal::NotAuthentic) }
    }

    /// What a request must have to be taken, for whoever sends it.
    pub(crate) fn expects(&self) -> String {
        match &self.check {
            Check::Message { headers: MessageHeaders { id, timestamp, signature }, .. } => {
                format!("the headers {id}, {timestamp} and {signature}")
            }
            Check::GitHub(_) => "the header X-Hub-Signature-256: sha256=…".to_owned(),
            Check::Dbt(_) => "the header Authorization with the hex HMAC-SHA256 of the body".to_owned(),
            Check::HuggingFace(_) => "the header X-Webhook-Secret".to_owned(),
            Check::Bearer(_) => "the header Authorization: Bearer …".to_owned(),
            Check::Basic(_) => "the header Authorization: Basic …".to_owned(),
            Check::ApiKey(name, _) => format!("the header {name}"),
            Check::Nothing => "nothing".to_owned(),
        }
    }

    /// The challenge of a 401 (RFC 9110, section 11.6.1). For signatures there is no registered one.
    pub(crate) fn challenge(&self) -> &'static str {
        match &self.check {
            Check::Bearer(_) => "Bearer realm=\"refit\"",
            Check::Basic(_) => "Basic realm=\"refit\"",
            Check::Message { .. }
            | Check::GitHub(_)
            | Check::Dbt(_)
            | Check::HuggingFace(_)
            | Check::ApiKey(..)
            | Check::Nothing => "Webhook realm=\"refit\"",
        }
    }

    /// Whether a header proves who sends, and so must be neither kept nor shown. Those that carry credentials by
    /// their meaning count for every scheme.
    pub(crate) fn is_proof(&self, name: &HeaderName) -> bool {
        let own = match &self.check {
            Check::Message { headers, .. } => *name == headers.signature,
            Check::GitHub(_) => name == "x-hub-signature-256" || name == "x-hub-signature",
            Check::HuggingFace(_) => name == "x-webhook-secret",
            Check::ApiKey(key, _) => name == key,
            Check::Dbt(_) | Check::Bearer(_) | Check::Basic(_) | Check::Nothing => false,
        };
        own || [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(name)
    }
}

impl MessageHeaders {
    fn named(id: &'static str, timestamp: &'static str, signature: &'static str) -> Self {
        Self { id: header_name(id), timestamp: header_name(timestamp), signature: header_name(signature) }
    }
}

impl Key {
    fn fits(&self, message: &[&[u8]], given: &[u8]) -> bool {
        match self {
            Self::Shared(key) => {
                let expected = format!("v1,{}", STANDARD.encode(signature(key, message)));
                same(expected.as_bytes(), given)
            }
            Self::Public(key) => given
                .strip_prefix(b"v1a,")
                .and_then(|encoded| STANDARD.decode(encoded).ok())
                .is_some_and(|signature| key.verify(&message.concat(), &signature).is_ok()),
        }
    }
}

/// When a message was signed, in seconds since the Unix epoch; none when it was not signed with one of these keys.
fn signed_at(names: &MessageHeaders, keys: &[Key], headers: &HeaderMap, body: &[u8]) -> Option<i64> {
    let id = only(headers, &names.id)?;
    let timestamp = only(headers, &names.timestamp)?;
    let signatures = only(headers, &names.signature).filter(|value| value.len() <= SIGNATURES_BYTES_MAX)?;
    // The parts are joined by dots, so the same bytes could be cut elsewhere: a JSON body begins with one of these, and
    // an id that reached into it would hold it.
    if id.iter().any(|byte| matches!(byte, b'{' | b'[')) || !timestamp.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let message = [id, b".", timestamp, b".", body];
    let given = signatures.split(|byte| *byte == b' ').take(SIGNATURES_MAX);
    let authentic = given.fold(false, |fits, given| fits | any(keys, |key| key.fits(&message, given)));
    authentic.then(|| std::str::from_utf8(timestamp).ok()?.parse().ok()).flatten()
}

fn fresh(at: i64, now: Timestamp, tolerance: Duration) -> Result<(), Refusal> {
    let age = now.as_millis().div_euclid(1000).saturating_sub(at);
    let max = tolerance.as_secs();
    if age.unsigned_abs() <= max { Ok(()) } else { Err(Refusal::Stale { age, max }) }
}

/// Makes something of each secret, after the checks that all need.
fn each<T>(secrets: &[Secret], make: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    match secrets.len() {
        0 => return Err("its scheme needs a secret: say where it is with `secret`".to_owned()),
        1..=Hook::SECRETS_MAX => {}
        more => {
            return Err(format!(
                "it has {more} secrets: at most {} are right at once, the one in use and the one that replaces it",
                Hook::SECRETS_MAX
            ));
        }
    }
    let made = secrets.iter().map(|secret| match secret.reveal() {
        text if text.len() < SECRET_BYTES_MIN => {
            Err(format!("its secret is shorter than {SECRET_BYTES_MIN} bytes"))
        }
        text => make(text),
    });
    made.collect()
}

/// A key of Standard Webhooks, by its prefix; plain text is a shared secret as it stands.
fn standard_key(text: &str) -> Result<Key, String> {
    let decoded = |prefix: &str, encoded: &str| {
        STANDARD
            .decode(encoded)
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| format!("its secret begins with {prefix} but goes on with no base64"))
    };
    if text.starts_with(PRIVATE_PREFIX) {
        return Err(format!(
            "its secret is the sender's private key ({PRIVATE_PREFIX}…): give the public one ({PUBLIC_PREFIX}…), and \
             have the sender make another pair"
        ));
    }
    if let Some(encoded) = text.strip_prefix(PUBLIC_PREFIX) {
        let key = decoded(PUBLIC_PREFIX, encoded)?.try_into().map_err(|key: Vec<u8>| {
            format!("its public key has {} bytes: an Ed25519 key has {ED25519_KEY_BYTES}", key.len())
        })?;
        return Ok(Key::Public(UnparsedPublicKey::new(&ED25519, key)));
    }
    match text.strip_prefix(SHARED_PREFIX) {
        Some(encoded) => hmac_key(&decoded(SHARED_PREFIX, encoded)?),
        None => hmac_key(text.as_bytes()),
    }
    .map(Key::Shared)
}

fn hmac_key(bytes: &[u8]) -> Result<Hmac<Sha256>, String> {
    Hmac::new_from_slice(bytes).map_err(|error| format!("its secret cannot be a key: {error}"))
}

fn signature(key: &Hmac<Sha256>, message: &[&[u8]]) -> [u8; 32] {
    let mut mac = key.clone();
    message.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn fingerprint(text: &str) -> Fingerprint {
    Sha256::digest(text.as_bytes()).into()
}

fn shared(secrets: &[Fingerprint], given: &[u8]) -> bool {
    let given: Fingerprint = Sha256::digest(given).into();
    any(secrets, |secret| same(secret, &given))
}

/// Constant time for equal lengths; the lengths of signatures are no secret.
fn same(expected: &[u8], given: &[u8]) -> bool {
    expected.ct_eq(given).into()
}

/// Asks all, so that the time does not tell which one it was.
fn any<T>(all: &[T], fits: impl Fn(&T) -> bool) -> bool {
    all.iter().fold(false, |found, one| found | fits(one))
}

/// A header that is there once: of two, a proxy may have looked at the other.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

/// What follows the name of the scheme in `Authorization`.
fn credentials<'h>(headers: &'h HeaderMap, scheme: &str) -> Option<&'h [u8]> {
    let value = only(headers, &header::AUTHORIZATION)?;
    let (given, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ").filter(|rest| !rest.is_empty())?;
    given.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
}

fn header_name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
