//! How the values of flags are read. A reader refuses with a sentence that says what would be right, and looks nothing up.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use refit_orchestrator::Config;
use refit_workflows::names::check_name;
use refit_workflows::time::{Timestamp, parse_duration};
use refit_workflows::wire::REASON_BYTES_MAX;
use refit_workflows::wire::Role;

use super::SERVER_DEFAULT;

/// A moment to list from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl Since {
    /// The moment, seen from `now`.
    pub(crate) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(duration) => now.minus(duration),
            Self::At(at) => at,
        }
    }
}

pub(super) fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["viewer", "operator", "worker", "admin"])
        .try_map(|text| text.parse::<Role>().map_err(std::io::Error::other))
}

pub(super) fn decision() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(refit_workflows::trigger::DECISIONS)
}

pub(super) fn since(text: &str) -> Result<Since, String> {
    parse_duration(text).map(Since::Ago).or_else(|_| Timestamp::parse(text).map(Since::At)).map_err(|_| {
        format!(
            "`{text}` is neither a duration such as 90s, 2h or 3d nor a time such as 2026-01-31T08:00:00Z"
        )
    })
}

/// How long a worker may be out of reach: long enough to be heard of in between.
pub(crate) fn grace(text: &str) -> Result<Duration, String> {
    let grace = parse_duration(text)?;
    if grace < Config::GRACE_MIN {
        return Err(format!(
            "`{text}` is too short for a worker to be heard of in time, so that each step would be taken for lost: write {}s or more",
            Config::GRACE_MIN.as_secs()
        ));
    }
    Ok(grace)
}

pub(super) fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|wrong| format!("`{text}` {wrong}"))
}

/// As the server bounds it: a longer one might not even fit a request.
pub(super) fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=REASON_BYTES_MAX => Ok(text.to_owned()),
        long => Err(format!("the reason is {long} bytes long; at most {REASON_BYTES_MAX} are kept")),
    }
}

pub(super) fn gpus(text: &str) -> Result<refit_workers::GpuChoice, String> {
    text.parse()
}

pub(super) fn worker_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a worker's name has 1 to 128 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

pub(super) fn token_id(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("that is not a token's id; `refit token list` shows them".to_owned())
    }
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("expected KEY=VALUE, not `{text}`")),
    }
}

pub(super) fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|wrong| format!("not JSON: {wrong}"))
}

pub(super) fn server_url(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let url = reqwest::Url::parse(trimmed)
        .map_err(|wrong| format!("{wrong}; expected a URL such as {SERVER_DEFAULT}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("expected http:// or https:// and a host, such as {SERVER_DEFAULT}"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err("only scheme, host, port and path belong here; a token goes into REFIT_TOKEN".to_owned());
    }
    Ok(trimmed.to_owned())
}
