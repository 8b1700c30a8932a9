//! The HTTP API: one table of routes, from which the router is built, so that no route can exist without saying
//! who may use it and how large its body may be. Handlers are thin: read, call the [`Engine`], write. Nothing is
//! decided here, and no error is written but by `problem`.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use refit_workflows::wire::PIECE_BYTES;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::Config;
use crate::engine::Engine;
use crate::intake::hooks::Hooks;

pub mod access;
mod blobs;
mod dead_letters;
mod events;
mod extract;
mod guard;
mod hooks;
mod models;
mod problem;
mod replays;
mod runs;
mod server;
mod targets;
mod workers;
mod workflows;

use access::RouteAccess::{
    self, Admin, Hook, Open, Operator, OperatorOrWorker, Viewer, ViewerOrWorker, Worker,
};
use extract::BodyMax;
use guard::{Guard, RouteGuard};
use problem::{PROBLEM_JSON, Problem};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The most a workflow file may weigh as a request, in bytes.
const WORKFLOW_MAX: u64 = 512 * KIB;
/// The most one artifact may weigh, in bytes.
const BLOB_MAX: u64 = 16 * GIB;
/// The most a worker may report at once, in bytes.
const REPORT_MAX: u64 = 4 * MIB;

/// One route, as the table has it.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    /// The method; GET includes HEAD.
    pub method: Method,
    /// The path, variable parts in braces.
    pub path: &'static str,
    /// Who may use it.
    pub access: RouteAccess,
}

struct Route {
    info: RouteInfo,
    body_max: BodyMax,
    handler: MethodRouter<Engine>,
}

impl Route {
    fn new<H, T>(method: (Method, MethodFilter), path: &'static str, access: RouteAccess, handler: H) -> Self
    where
        H: Handler<T, Engine>,
        T: 'static,
    {
        let info = RouteInfo { method: method.0, path, access };
        Self { info, body_max: BodyMax::DEFAULT, handler: on(method.1, handler) }
    }

    fn body_max(mut self, bytes: u64) -> Self {
        self.body_max = BodyMax(bytes);
        self
    }
}

fn table() -> Vec<Route> {
    let get = || (Method::GET, MethodFilter::GET);
    let post = || (Method::POST, MethodFilter::POST);
    let put = || (Method::PUT, MethodFilter::PUT);
    let delete = || (Method::DELETE, MethodFilter::DELETE);
    let options = || (Method::OPTIONS, MethodFilter::OPTIONS);
    vec![
        Route::new(get(), "/healthz", Open, server::health),
        Route::new(get(), "/readyz", Open, server::ready),
        Route::new(post(), "/hooks/{name}", Hook, hooks::receive).body_max(MIB),
        Route::new(options(), "/hooks/{name}", Hook, hooks::handshake),
        Route::new(get(), "/api/v1/server", Viewer, server::show),
        Route::new(get(), "/api/v1/tokens", Admin, server::tokens),
        Route::new(post(), "/api/v1/tokens", Admin, server::create_token),
        Route::new(delete(), "/api/v1/tokens/{id}", Admin, server::revoke_token),
        Route::new(post(), "/api/v1/events", Operator, events::send).body_max(MIB),
        Route::new(get(), "/api/v1/events", Viewer, events::list),
        Route::new(get(), "/api/v1/events/by-id", Viewer, events::by_id),
        Route::new(post(), "/api/v1/replays", Operator, replays::ask).body_max(2 * MIB),
        Route::new(post(), "/api/v1/replays/plan", Viewer, replays::plan).body_max(2 * MIB),
        Route::new(get(), "/api/v1/replays", Viewer, replays::list),
        Route::new(get(), "/api/v1/replays/{seq}", Viewer, replays::show),
        Route::new(delete(), "/api/v1/replays/{seq}", Operator, replays::stop),
        Route::new(get(), "/api/v1/deadletters", Viewer, dead_letters::list),
        Route::new(get(), "/api/v1/deadletters/{seq}", Viewer, dead_letters::show),
        Route::new(delete(), "/api/v1/deadletters/{seq}", Operator, dead_letters::drop),
        // A whole event, as text in JSON.
        Route::new(post(), "/api/v1/deadletters/{seq}/retry", Operator, dead_letters::retry)
            .body_max(2 * MIB),
        Route::new(get(), "/api/v1/events/explain", Viewer, events::explain),
        Route::new(post(), "/api/v1/workflows", Operator, workflows::apply).body_max(WORKFLOW_MAX),
        Route::new(get(), "/api/v1/workflows", Viewer, workflows::list),
        Route::new(get(), "/api/v1/workflows/{name}", Viewer, workflows::show),
        Route::new(delete(), "/api/v1/workflows/{name}", Operator, workflows::remove),
        Route::new(post(), "/api/v1/workflows/{name}/pause", Operator, workflows::pause),
        Route::new(post(), "/api/v1/workflows/{name}/resume", Operator, workflows::resume),
        Route::new(post(), "/api/v1/blobs/missing", OperatorOrWorker, blobs::missing).body_max(MIB),
        Route::new(put(), "/api/v1/blobs/{digest}", OperatorOrWorker, blobs::put).body_max(BLOB_MAX),
        Route::new(get(), "/api/v1/blobs/{digest}", ViewerOrWorker, blobs::get),
        Route::new(get(), "/api/v1/blobs/{digest}/upload", OperatorOrWorker, blobs::upload),
        Route::new(put(), "/api/v1/blobs/{digest}/upload", OperatorOrWorker, blobs::put_piece)
            .body_max(PIECE_BYTES),
        Route::new(post(), "/api/v1/runs", Operator, runs::start).body_max(MIB),
        Route::new(get(), "/api/v1/runs", Viewer, runs::list),
        Route::new(get(), "/api/v1/runs/{workflow}/{number}", Viewer, runs::show),
        Route::new(get(), "/api/v1/runs/{workflow}/{number}/evidence", Viewer, runs::evidence),
        Route::new(get(), "/api/v1/runs/{workflow}/{number}/logs", Viewer, runs::logs),
        Route::new(get(), "/api/v1/runs/{workflow}/{number}/metrics", Viewer, runs::metrics),
        Route::new(post(), "/api/v1/runs/{workflow}/{number}/cancel", Operator, runs::cancel),
        Route::new(post(), "/api/v1/runs/{workflow}/{number}/retry", Operator, runs::retry),
        Route::new(post(), "/api/v1/runs/{workflow}/{number}/approve", Operator, runs::approve),
        Route::new(post(), "/api/v1/runs/{workflow}/{number}/reject", Operator, runs::reject),
        Route::new(get(), "/api/v1/models", Viewer, models::list),
        Route::new(get(), "/api/v1/models/{name}", Viewer, models::show),
        Route::new(get(), "/api/v1/models/{name}/versions/{version}", Viewer, models::version),
        Route::new(
            get(),
            "/api/v1/models/{name}/versions/{version}/artifact",
            Viewer,
            models::version_artifact,
        ),
        Route::new(get(), "/api/v1/models/{name}/aliases/{alias}", Viewer, models::alias),
        Route::new(get(), "/api/v1/models/{name}/aliases/{alias}/artifact", Viewer, models::alias_artifact),
        Route::new(get(), "/api/v1/models/{name}/diff", Viewer, models::diff),
        Route::new(get(), "/api/v1/models/{name}/history", Viewer, models::history),
        Route::new(post(), "/api/v1/models/{name}/promote", Operator, models::promote),
        Route::new(post(), "/api/v1/models/{name}/rollback", Operator, models::rollback),
        Route::new(get(), "/api/v1/targets", Viewer, targets::list),
        Route::new(get(), "/api/v1/targets/{name}", Viewer, targets::show),
        Route::new(post(), "/api/v1/targets/{name}/enable", Operator, targets::enable),
        Route::new(delete(), "/api/v1/targets/{name}/events", Operator, targets::drop_events),
        Route::new(get(), "/api/v1/workers", Viewer, workers::list),
        Route::new(get(), "/api/v1/workers/{name}", Viewer, workers::show),
        Route::new(post(), "/api/v1/workers/{name}/drain", Operator, workers::drain),
        Route::new(post(), "/api/v1/workers/{name}/resume", Operator, workers::resume),
        Route::new(get(), "/api/v1/waiting", Viewer, workers::waiting),
        Route::new(post(), "/api/v1/worker/register", Worker, workers::register),
        Route::new(post(), "/api/v1/worker/lease", Worker, workers::lease),
        Route::new(post(), "/api/v1/worker/renew", Worker, workers::renew).body_max(MIB),
        Route::new(post(), "/api/v1/worker/report", Worker, workers::report).body_max(REPORT_MAX),
        Route::new(post(), "/api/v1/worker/finish", Worker, workers::finish).body_max(REPORT_MAX),
        Route::new(get(), "/api/v1/worker/events", Worker, workers::events),
    ]
}

/// Every route there is, with who may use it.
pub fn routes() -> Vec<RouteInfo> {
    table().into_iter().map(|route| route.info).collect()
}

/// The router of a server with these settings and webhooks; [`Config::listen`] and [`Config::hosts`] are what it answers to.
pub fn router(engine: Engine, config: &Config, hooks: Hooks) -> Router {
    let guard = Arc::new(Guard::new(config.listen, &config.hosts));
    let mut router = Router::new();
    for Route { info, body_max, handler } in table() {
        let route =
            RouteGuard { engine: engine.clone(), guard: Arc::clone(&guard), access: info.access, body_max };
        router = router.route(info.path, handler.route_layer(from_fn_with_state(route, guard::identified)));
    }
    around(router.with_state(engine).layer(Extension(Arc::new(hooks))), guard)
}

/// What stands around all routes and around paths that have none.
fn around(router: Router, guard: Arc<Guard>) -> Router {
    router
        .layer(from_fn_with_state(guard, guard::same_site))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(one_error_shape))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Problem::internal(&format!("a handler panicked: {text}")).into_response()
}

/// Gives the errors that the router itself answers (no such path, wrong method) the shape of all others.
async fn one_error_shape(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    let shaped = |headers: &HeaderMap| headers.get(header::CONTENT_TYPE).is_some_and(|t| t == PROBLEM_JSON);
    if !(status.is_client_error() || status.is_server_error()) || shaped(response.headers()) {
        return harmless(response);
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let shown: String = path.chars().take(200).collect();
    let problem = match status {
        StatusCode::NOT_FOUND => Problem::new(status, "no-such-path", format!("there is nothing at {shown}")),
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(status, "method-not-allowed", format!("{shown} does not answer to {method}"))
        }
        other => Problem::new(other, "refused", format!("{method} {shown} was refused: {other}")),
    };
    let mut response = problem.into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    harmless(response)
}

/// Keeps a browser from taking an answer for something it can run.
fn harmless(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
