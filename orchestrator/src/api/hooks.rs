//! Webhooks over HTTP: a request is read within bounds, found authentic, understood and recorded, in this order, before its
//! sender hears 202. Nothing is parsed before it is authentic, and no refusal tells more than what the sender must know
//! to do better.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use refit_workflows::format::Malformed;
use refit_workflows::wire::Accepted;

use super::extract::{BodyMax, NamePath, media_type, read_body};
use super::problem::Problem;
use crate::engine::Engine;
use crate::intake::hooks::{Hook, Hooks, Refusal};

/// The longest that a body may take to arrive. Senders give up on the whole exchange after 5 to 30 s.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// The headers of the handshake (CloudEvents 1.0.2, HTTP webhooks, section 4).
const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// `POST /hooks/NAME`
pub(super) async fn receive(
    State(engine): State<Engine>,
    Extension(hooks): Extension<Arc<Hooks>>,
    NamePath(name): NamePath,
    request: Request,
) -> Response {
    let Some(hook) = hooks.get(&name) else { return nothing_here() };
    match accept(&engine, hook, request).await {
        Ok(accepted) => (StatusCode::ACCEPTED, Json(accepted)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// `OPTIONS /hooks/NAME`: a sender asks whether its requests are wanted. That the hook is configured says so; who may
/// really send is up to its scheme. A callback that the sender offers is never called.
pub(super) async fn handshake(
    Extension(hooks): Extension<Arc<Hooks>>,
    NamePath(name): NamePath,
    headers: HeaderMap,
) -> Response {
    if hooks.get(&name).is_none() {
        return nothing_here();
    }
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static("OPTIONS, POST"));
    if let Some(origin) = headers.get(REQUEST_ORIGIN) {
        let rate = headers.get(REQUEST_RATE).cloned();
        answer.insert(ALLOWED_ORIGIN, origin.clone());
        answer.insert(ALLOWED_RATE, rate.unwrap_or(HeaderValue::from_static("*")));
    }
    response
}

/// Bare, so that it becomes what every path gets that does not exist.
fn nothing_here() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

async fn accept(engine: &Engine, hook: &Hook, mut request: Request) -> Result<Accepted, Problem> {
    let headers = request.headers().clone();
    if let Some(wanted) = hook.unreadable(&headers, media_type(&headers).as_deref()) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", wanted));
    }
    request.extensions_mut().insert(BodyMax(hook.body_max() as u64));
    let body = tokio::time::timeout(BODY_WITHIN, read_body(request)).await.map_err(|_| too_slow())??;

    if let Err(refusal) = hook.verify(&headers, &body, engine.store().clock().now()) {
        tracing::debug!(source = hook.name(), ?refusal, "refused a request to a webhook");
        return Err(refused(hook, refusal));
    }
    match hook.read(&headers, &body) {
        Ok(events) => {
            let events = engine.record_promptly(events, Vec::new()).await?;
            hook.count(Some(events.len()));
            Ok(Accepted { events })
        }
        Err(malformed) => {
            let letter = hook.dead_letter(&headers, &body, malformed.message.clone());
            engine.record_promptly(Vec::new(), vec![letter]).await?;
            hook.count(None);
            Err(not_understood(hook, malformed))
        }
    }
}

fn too_slow() -> Problem {
    let detail =
        format!("the body did not arrive within {} s: the request was given up", BODY_WITHIN.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail)
}

fn refused(hook: &Hook, refusal: Refusal) -> Problem {
    let problem = match refusal {
        Refusal::NotAuthentic => Problem::new(
            StatusCode::UNAUTHORIZED,
            "not-authentic",
            format!(
                "this webhook takes requests with {}, made with its secret; this one has none that fits",
                hook.expects()
            ),
        ),
        Refusal::Stale { age, max } => Problem::new(
            StatusCode::UNAUTHORIZED,
            "stale",
            format!(
                "the request was signed {} s {} this server's clock; at most {max} s are taken: check both clocks",
                age.unsigned_abs(),
                if age < 0 { "ahead of" } else { "behind" }
            ),
        ),
    };
    problem.challenge_with(hook.challenge())
}

fn not_understood(hook: &Hook, malformed: Malformed) -> Problem {
    let Malformed { message, field, position } = malformed;
    let problem = Problem::new(StatusCode::BAD_REQUEST, "delivery-malformed", message).hint(format!(
        "nothing is lost: it is kept with this reason (`refit deadletter list --source {}`)",
        hook.name()
    ));
    let problem = match field {
        Some(field) => problem.field(field),
        None => problem,
    };
    match position {
        Some((line, column)) => problem.at(line, column),
        None => problem,
    }
}
