//! What stands around all routes. Who may use which is written down by hand, and held against a real server, with the
//! tests of the whole program.

use std::net::SocketAddr;

use axum::body::Body;
use axum::routing::get;
use refit_workflows::wire::ProblemDetails;
use tower::ServiceExt;

use super::*;

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
