//! Reads requests: body within its limit, JSON that fits its type, query, path, caller. Every refusal names the
//! field or the line at fault. Never hands a handler more bytes than its route allows.

use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use refit_workflows::digest::Digest;
use refit_workflows::names::RunName;
use refit_workflows::units::show_size;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde_json::Value;

use super::problem::Problem;
use crate::engine::Identity;
use crate::http::BodyStalled;

/// The most bytes a route's body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyMax(pub(crate) u64);

impl BodyMax {
    /// For routes that say nothing else.
    pub(crate) const DEFAULT: Self = Self(64 * 1024);

    /// 413, with the limit.
    pub(crate) fn exceeded(self) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body is larger than {}, the limit here", show_size(self.0)),
        )
    }

    /// Checks a declared Content-Length before a byte is read.
    pub(crate) fn check_declared(self, headers: &HeaderMap) -> Result<(), Problem> {
        if declared_length(headers).is_some_and(|length| length > self.0) {
            Err(self.exceeded())
        } else {
            Ok(())
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body whole, within its route's limit.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let max = request.extensions().get().copied().unwrap_or(BodyMax::DEFAULT);
    let (parts, body) = request.into_parts();
    if let Err(problem) = max.check_declared(&parts.headers) {
        discard(body, declared_length(&parts.headers)).await;
        return Err(problem);
    }
    let declared = declared_length(&parts.headers).unwrap_or_default();
    let mut stream = body.into_data_stream();
    let mut read = Vec::with_capacity(usize::try_from(declared).unwrap_or_default());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| broken_body(&error))?;
        if (read.len() + chunk.len()) as u64 > max.0 {
            return Err(max.exceeded());
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.into())
}

/// Reads on for a moment: a client that is still sending when the connection closes sees a reset and not the answer.
async fn discard(body: Body, declared: Option<u64>) {
    const WORTHWHILE: u64 = 16 * 1024 * 1024;
    const PATIENCE: Duration = Duration::from_secs(2);
    if declared.is_none_or(|length| length > WORTHWHILE) {
        return;
    }
    let mut stream = body.into_data_stream();
    let drained = async { while let Some(Ok(_)) = stream.next().await {} };
    // Out of patience, the connection closes; nothing depends on it.
    let _ = tokio::time::timeout(PATIENCE, drained).await;
}

/// What to answer when a body ends early.
pub(crate) fn broken_body(error: &axum::Error) -> Problem {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(stalled) = inner.downcast_ref::<BodyStalled>() {
            return Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", stalled.to_string());
        }
        cause = inner.source();
    }
    Problem::new(StatusCode::BAD_REQUEST, "body-incomplete", "the body ended before it was complete")
}

/// The media type of a request without its parameters, in lower case; none when the charset is not UTF-8.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let mut parts = value.split(';');
    let essence = parts.next()?.trim().to_ascii_lowercase();
    let readable = parts.all(|parameter| match parameter.trim().split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            let charset = charset.trim_matches('"');
            charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
        }
        _ => true,
    });
    readable.then_some(essence)
}

/// 415, with what would be right.
pub(crate) fn unsupported_media_type(accepted: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "media-type",
        format!("the Content-Type of this request must be {accepted} (in UTF-8)"),
    )
}

/// A JSON body from a person or a program: a key that is not known is refused, so that a typing error is not
/// silently a default. An empty body stands for `{}`.
pub(crate) struct Strict<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let media = media_type(request.headers());
        let body = read_body(request).await?;
        if body.is_empty() {
            return from_value(Value::Object(serde_json::Map::new())).map(Self);
        }
        if media.as_deref() != Some("application/json") {
            return Err(unsupported_media_type("application/json"));
        }
        from_value(parse_json(&body)?).map(Self)
    }
}

/// A JSON body of the worker protocol: keys that are not known are passed over, so that a newer worker can speak
/// to an older orchestrator.
pub(crate) struct Lenient<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Lenient<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if media_type(request.headers()).as_deref() != Some("application/json") {
            return Err(unsupported_media_type("application/json"));
        }
        let body = read_body(request).await?;
        let mut deserializer = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(misfit)?;
        deserializer.end().map_err(|error| not_json(&error))?;
        Ok(Self(value))
    }
}

/// Any JSON value without NUL characters, which the database cannot keep; a syntax error with its place.
fn parse_json(body: &[u8]) -> Result<Value, Problem> {
    let value = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    if holds_nul(&value) {
        return Err(Problem::invalid("the body holds a NUL character (\\u0000), which cannot be stored"));
    }
    Ok(value)
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(object) => object.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-json", format!("the body is not JSON: {error}"))
        .at(error.line(), error.column())
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    let known = fields_of::<T>();
    if let Value::Object(object) = &value
        && let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str()))
        && !known.is_empty()
    {
        return Err(Problem::invalid(format!("`{unknown}` is not a field of this request"))
            .field(unknown)
            .hint(format!("the fields are: {}", known.join(", "))));
    }
    serde_path_to_error::deserialize(value).map_err(misfit)
}

fn misfit(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    let cause = error.into_inner();
    if cause.is_syntax() || cause.is_eof() {
        return not_json(&cause);
    }
    let mut problem = Problem::invalid(format!("the body does not fit: {cause}"));
    if cause.line() > 0 {
        problem = problem.at(cause.line(), cause.column());
    }
    let missing = cause.to_string().strip_prefix("missing field `").and_then(|rest| {
        let name = rest.split('`').next()?;
        Some(if path == "." { name.to_owned() } else { format!("{path}.{name}") })
    });
    match missing {
        Some(field) => problem.field(field),
        None if path == "." => problem,
        None => problem.field(path),
    }
}

/// The names of a struct's fields as serde knows them, so that they need not be written a second time.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only asked for the fields"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // Always an error; what matters is what was asked on the way.
    let _ = T::deserialize(Ask(&mut fields));
    fields
}

/// The query of a request; the type decides which parameters there are.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Problem::invalid(rejection.body_text())),
        }
    }
}

/// Who calls; the guard has put it there.
pub(crate) struct Caller(pub(crate) Identity);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Identity>().cloned();
        identity.map(Self).ok_or_else(|| Problem::internal(&"a handler behind no guard asked who calls"))
    }
}

/// `{workflow}/{number}` of a path.
pub(crate) struct RunPath(pub(crate) RunName);

impl<S: Send + Sync> FromRequestParts<S> for RunPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (workflow, number): (String, String) = path(parts, state).await?;
        format!("{workflow}/{number}").parse().map(Self).map_err(Problem::invalid)
    }
}

/// `{digest}` of a path.
pub(crate) struct DigestPath(pub(crate) Digest);

impl<S: Send + Sync> FromRequestParts<S> for DigestPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let digest: String = path(parts, state).await?;
        digest.parse().map(Self).map_err(Problem::invalid)
    }
}

/// `{name}` and `{version}` of a path.
pub(crate) struct VersionPath(pub(crate) String, pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (model, version) = path(parts, state).await?;
        Ok(Self(model, version))
    }
}

/// `{name}` and `{alias}` of a path.
pub(crate) struct AliasPath(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for AliasPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (model, alias) = path(parts, state).await?;
        Ok(Self(model, alias))
    }
}

/// `{seq}` of a path.
pub(crate) struct SeqPath(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for SeqPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state).await.map(Self)
    }
}

/// The one variable part of a path.
pub(crate) struct NamePath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for NamePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state).await.map(Self)
    }
}

async fn path<T, S>(parts: &mut Parts, state: &S) -> Result<T, Problem>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    match Path::<T>::from_request_parts(parts, state).await {
        Ok(Path(value)) => Ok(value),
        Err(rejection) => Err(Problem::invalid(rejection.body_text())),
    }
}

#[cfg(test)]
mod tests {
    use refit_workflows::wire::{Apply, CreateToken, RetryRun, StartRun};

    use super::*;

    fn request(content_type: &str, body: impl Into<Body>) -> Request {
        Request::post("/").header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()
    }

    async fn refused<T: DeserializeOwned>(body: &str) -> refit_workflows::wire::ProblemDetails {
        match Strict::<T>::from_request(request("application/json", body.to_owned()), &()).await {
            Ok(_) => panic!("{body} was accepted"),
            Err(problem) => problem.details().clone(),
        }
    }

    #[tokio::test]
    async fn what_is_wrong_in_a_body_is_named() {
        let unknown = refused::<Apply>(r#"{"text": "", "bundel": null}"#).await;
        assert_eq!((unknown.status, unknown.field.as_deref()), (400, Some("bundel")));
        assert_eq!(unknown.hint.as_deref(), Some("the fields are: text, used, bundle"));
        let missing = refused::<StartRun>(r#"{"params": {}}"#).await;
        assert_eq!((missing.status, missing.field.as_deref()), (400, Some("workflow")));
        let typed = refused::<CreateToken>(r#"{"name": "ci", "role": "root"}"#).await;
        assert_eq!((typed.status, typed.field.as_deref()), (400, Some("role")));
        let malformed = refused::<StartRun>("{\n  \"workflow\": churn}").await;
        assert_eq!(malformed.kind, "malformed-json");
        assert_eq!((malformed.line, malformed.column), (Some(2), Some(15)));
        assert_eq!(refused::<StartRun>("{} trailing").await.kind, "malformed-json");
        assert_eq!(refused::<StartRun>("[]").await.status, 400);
        assert_eq!(refused::<StartRun>(&"[".repeat(100_000)[..60_000]).await.kind, "malformed-json");
    }

    #[tokio::test]
    async fn text_with_nul_is_refused_wherever_it_stands() {
        for body in [
            r#"{"workflow": "a\u0000"}"#,
            r#"{"workflow": "a", "params": {"b": ["c", "\u0000"]}}"#,
            r#"{"workflow": "a", "params": {"\u0000": 1}}"#,
        ] {
            let refused = refused::<StartRun>(body).await;
            assert_eq!((refused.status, refused.kind.as_str()), (400, "invalid"), "{body}");
            assert!(refused.detail.contains("NUL"), "{body}: {}", refused.detail);
        }
        // What only looks like it: a backslash and digits.
        let written = r#"{"workflow": "a\\u0000"}"#;
        let read = Strict::<StartRun>::from_request(request("application/json", written), &()).await;
        assert_eq!(read.ok().unwrap().0.workflow, r"a\u0000");
    }

    #[tokio::test]
    async fn no_body_means_every_default() {
        let empty = Request::post("/").body(Body::empty()).unwrap();
        assert!(!Strict::<RetryRun>::from_request(empty, &()).await.ok().unwrap().0.all);
    }

    #[tokio::test]
    async fn a_worker_may_know_more_fields() {
        let body = r#"{"workflow": "churn", "colour": "red"}"#;
        let Lenient(start) =
            Lenient::<StartRun>::from_request(request("application/json", body), &()).await.ok().unwrap();
        assert_eq!(start.workflow, "churn");
        let wrong =
            Lenient::<StartRun>::from_request(request("application/json", "{\"workflow\": 3}"), &()).await;
        let details = wrong.err().unwrap().details().clone();
        assert_eq!((details.field.as_deref(), details.line), (Some("workflow"), Some(1)));
    }

    #[tokio::test]
    async fn bodies_are_bounded_whether_they_say_their_length_or_not() {
        let mut declared = request("application/json", Body::empty());
        declared.headers_mut().insert(header::CONTENT_LENGTH, "65537".parse().unwrap());
        let problem = read_body(declared).await.unwrap_err();
        assert_eq!(problem.details().status, 413);
        assert!(problem.details().detail.contains("64 KiB"), "{}", problem.details().detail);

        let endless =
            futures_util::stream::repeat(Bytes::from_static(&[b' '; 1000])).map(Ok::<_, std::io::Error>);
        let problem = read_body(request("application/json", Body::from_stream(endless))).await.unwrap_err();
        assert_eq!(problem.details().status, 413);

        let mut exact = request("application/json", vec![b' '; 100]);
        exact.extensions_mut().insert(BodyMax(100));
        assert_eq!(read_body(exact).await.unwrap().len(), 100);
    }

    #[test]
    fn only_utf8_json_is_json() {
        for (content_type, read) in [
            ("application/json", Some("application/json")),
            ("Application/JSON; charset=UTF-8", Some("application/json")),
            ("application/json; charset=utf-7", None),
            ("text/plain", Some("text/plain")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            assert_eq!(media_type(&headers).as_deref(), read, "{content_type}");
        }
    }
}
