//! Who may use which route, written out a second time by hand; and what stands around all routes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::body::Body;
use axum::routing::get;
use refit_workflows::wire::{ProblemDetails, Role};
use tower::ServiceExt;

use super::access::{Denied, admit};
use super::*;
use crate::engine::Identity;

/// Every route with the roles that may use it: `v`iewer, `o`perator, `w`orker, `a`dmin, `-` nobody in particular.
const EXPECTED: &[(&str, &str)] = &[
    ("GET /healthz", "-voaw"),
    ("GET /readyz", "-voaw"),
    ("POST /hooks/{name}", "-voaw"),
    ("OPTIONS /hooks/{name}", "-voaw"),
    ("GET /api/v1/server", "voa"),
    ("GET /api/v1/tokens", "a"),
    ("POST /api/v1/tokens", "a"),
    ("DELETE /api/v1/tokens/{id}", "a"),
    ("POST /api/v1/events", "oa"),
    ("GET /api/v1/events", "voa"),
    ("GET /api/v1/events/by-id", "voa"),
    ("POST /api/v1/replays", "oa"),
    ("POST /api/v1/replays/plan", "voa"),
    ("GET /api/v1/replays", "voa"),
    ("GET /api/v1/replays/{seq}", "voa"),
    ("DELETE /api/v1/replays/{seq}", "oa"),
    ("GET /api/v1/deadletters", "voa"),
    ("GET /api/v1/deadletters/{seq}", "voa"),
    ("DELETE /api/v1/deadletters/{seq}", "oa"),
    ("POST /api/v1/deadletters/{seq}/retry", "oa"),
    ("GET /api/v1/events/explain", "voa"),
    ("POST /api/v1/workflows", "oa"),
    ("GET /api/v1/workflows", "voa"),
    ("GET /api/v1/workflows/{name}", "voa"),
    ("DELETE /api/v1/workflows/{name}", "oa"),
    ("POST /api/v1/workflows/{name}/pause", "oa"),
    ("POST /api/v1/workflows/{name}/resume", "oa"),
    ("POST /api/v1/blobs/missing", "oaw"),
    ("PUT /api/v1/blobs/{digest}", "oaw"),
    ("GET /api/v1/blobs/{digest}", "voaw"),
    ("POST /api/v1/runs", "oa"),
    ("GET /api/v1/runs", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}/logs", "voa"),
    ("POST /api/v1/runs/{workflow}/{number}/cancel", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/retry", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/approve", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/reject", "oa"),
    ("GET /api/v1/models", "voa"),
    ("GET /api/v1/models/{name}", "voa"),
    ("GET /api/v1/models/{name}/history", "voa"),
    ("POST /api/v1/models/{name}/rollback", "oa"),
    ("GET /api/v1/targets", "voa"),
    ("GET /api/v1/targets/{name}", "voa"),
    ("POST /api/v1/targets/{name}/enable", "oa"),
    ("DELETE /api/v1/targets/{name}/events", "oa"),
    ("GET /api/v1/workers", "voa"),
    ("POST /api/v1/worker/register", "aw"),
    ("POST /api/v1/worker/lease", "aw"),
    ("POST /api/v1/worker/renew", "aw"),
    ("POST /api/v1/worker/report", "aw"),
    ("POST /api/v1/worker/finish", "aw"),
    ("GET /api/v1/worker/events", "aw"),
];

#[test]
fn every_role_may_do_just_what_is_written_down() {
    let written: BTreeSet<_> = EXPECTED.iter().map(|(route, _)| (*route).to_owned()).collect();
    let built: BTreeSet<_> =
        routes().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(built, written, "a route was added or removed: say here who may use it");

    for route in routes() {
        let name = format!("{} {}", route.method, route.path);
        let (_, allowed) = EXPECTED.iter().find(|(written, _)| *written == name).unwrap();
        let nobody = admit(route.access, None, true);
        assert_eq!(nobody.is_ok(), allowed.contains('-'), "{name} without a token");
        for (letter, role) in
            [('v', Role::Viewer), ('o', Role::Operator), ('w', Role::Worker), ('a', Role::Admin)]
        {
            let identity = Identity { name: "somebody".to_owned(), role };
            let decision = admit(route.access, Some(&identity), true);
            let expected = if allowed.contains(letter) {
                Ok(())
            } else {
                Err(Denied::TooWeak { role, wanted: route.access })
            };
            assert_eq!(decision, expected, "{name} as {role:?}");
        }
    }
}

#[test]
fn the_paths_fit_together() {
    // The router panics on paths that exclude each other; building one is the test.
    let mut router: Router<Engine> = Router::new();
    for route in table() {
        router = router.route(route.info.path, route.handler);
    }
}

fn surroundings() -> Router {
    let guard = Arc::new(Guard::new(SocketAddr::from(([127, 0, 0, 1], 7433)), &[]));
    let router = Router::new()
        .route("/here", get(|| async { "here" }))
        .route(
            "/bug",
            get(|| async {
                if true {
                    panic!("secret state")
                }
            }),
        )
        .route("/bare", get(|| async { (StatusCode::IM_A_TEAPOT, "plain text") }));
    around(router, guard)
}

async fn answer(request: Request) -> (StatusCode, HeaderMap, ProblemDetails) {
    let response = surroundings().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 65_536).await.unwrap();
    let details = serde_json::from_slice(&body).unwrap_or_default();
    (parts.status, parts.headers, details)
}

fn request(method: &str, path: &str, host: &str) -> Request {
    Request::builder().method(method).uri(path).header("host", host).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_error_is_a_problem() {
    for (method, path, host, status, kind) in [
        ("GET", "/nowhere", "localhost", 404, "no-such-path"),
        ("GET", "//here", "localhost", 404, "no-such-path"),
        ("GET", "/here/..%2f", "localhost", 404, "no-such-path"),
        ("GET", "/here%00", "localhost", 404, "no-such-path"),
        ("GET", "/%00/here", "localhost", 404, "no-such-path"),
        ("GET", "/here?name=a%00b", "localhost", 400, "invalid"),
        ("GET", "/here?%00", "localhost", 400, "invalid"),
        ("DELETE", "/here", "localhost:7433", 405, "method-not-allowed"),
        ("GET", "/bug", "localhost", 500, "internal"),
        ("GET", "/bare", "localhost", 418, "refused"),
        ("GET", "/here", "evil.example", 421, "host-not-allowed"),
        ("GET", "/nowhere", "evil.example", 421, "host-not-allowed"),
    ] {
        let (code, headers, details) = answer(request(method, path, host)).await;
        assert_eq!(
            (code.as_u16(), details.status, details.kind.as_str()),
            (status, status, kind),
            "{method} {path}"
        );
        assert_eq!(headers[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(!details.detail.contains("secret state") && !details.title.is_empty(), "{details:?}");
        assert_eq!(headers.contains_key(header::ALLOW), status == 405);
    }
    assert_eq!(answer(request("GET", "/here", "127.0.0.1:1")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing() {
    let mut foreign = request("GET", "/here", "localhost:7433");
    foreign.headers_mut().insert(header::ORIGIN, "http://localhost:3000".parse().unwrap());
    let (code, _, details) = answer(foreign).await;
    assert_eq!((code, details.kind.as_str()), (StatusCode::FORBIDDEN, "cross-origin"));
}
