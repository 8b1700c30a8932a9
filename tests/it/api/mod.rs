//! The HTTP API as strangers meet it: who may do what, who is kept out, what is refused and in which words. Every request
//! goes over a socket to a real `refit serve`.

mod bad_input;
mod models;
mod waiting;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use refit_orchestrator::api::routes;
use refit_tests::api::{Api, event};
use refit_tests::processes::{Options, Orchestrator, Process, free_port, refit, run_to_end};
use refit_workflows::digest::Digest;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const WAIT: Duration = Duration::from_secs(20);

/// An answer with its headers.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

/// One request, header by header. `from` is the loopback address it comes from: wrong tokens count by address.
async fn ask(
    server: &str,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
    from: u8,
) -> Answer {
    // Somebody else in this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .local_address(IpAddr::from(Ipv4Addr::new(127, 0, 0, from)))
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .build()
        .unwrap();
    let mut request =
        client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{server}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        request.body(body).send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

impl Answer {
    /// Checks that this is a refusal in the one shape all have (RFC 9457).
    #[track_caller]
    fn refused(&self, what: &str, status: u16) -> &Value {
        assert!(
            self.is_refusal(status),
            "{what}: expected a refusal with {status}, got {}: {}",
            self.status,
            self.body
        );
        &self.body
    }

    fn is_refusal(&self, status: u16) -> bool {
        let header = |name: &str, value: &str| self.headers.get(name).is_some_and(|given| given == value);
        let told = |key: &str| self.body[key].as_str().is_some_and(|text| !text.is_empty());
        self.status == status
            && self.body["status"] == status
            && header("content-type", "application/problem+json")
            && header("x-content-type-options", "nosniff")
            && ["type", "title", "detail"].into_iter().all(told)
    }
}

/// Every route with the roles that may use it: `v`iewer, `o`perator, `w`orker, `a`dmin; `*` is anybody at all.
/// Written by hand, from what each role is for; the implementation is compared with it.
const WHO: [(&str, &str); 67] = [
    ("GET /healthz", "*"),
    ("GET /readyz", "*"),
    ("POST /hooks/{name}", "*"),
    ("OPTIONS /hooks/{name}", "*"),
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
    ("POST /api/v1/blobs/missing", "owa"),
    ("PUT /api/v1/blobs/{digest}", "owa"),
    ("GET /api/v1/blobs/{digest}", "vowa"),
    ("GET /api/v1/blobs/{digest}/upload", "owa"),
    ("PUT /api/v1/blobs/{digest}/upload", "owa"),
    ("POST /api/v1/runs", "oa"),
    ("GET /api/v1/runs", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}/evidence", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}/logs", "voa"),
    ("GET /api/v1/runs/{workflow}/{number}/metrics", "voa"),
    ("POST /api/v1/runs/{workflow}/{number}/cancel", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/retry", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/approve", "oa"),
    ("POST /api/v1/runs/{workflow}/{number}/reject", "oa"),
    ("GET /api/v1/models", "voa"),
    ("GET /api/v1/models/{name}", "voa"),
    ("GET /api/v1/models/{name}/versions/{version}", "voa"),
    ("GET /api/v1/models/{name}/versions/{version}/artifact", "voa"),
    ("GET /api/v1/models/{name}/aliases/{alias}", "voa"),
    ("GET /api/v1/models/{name}/aliases/{alias}/artifact", "voa"),
    ("GET /api/v1/models/{name}/diff", "voa"),
    ("GET /api/v1/models/{name}/history", "voa"),
    ("POST /api/v1/models/{name}/promote", "oa"),
    ("POST /api/v1/models/{name}/rollback", "oa"),
    ("GET /api/v1/workers/{name}", "voa"),
    ("POST /api/v1/workers/{name}/drain", "oa"),
    ("POST /api/v1/workers/{name}/resume", "oa"),
    ("GET /api/v1/waiting", "voa"),
    ("GET /api/v1/targets", "voa"),
    ("GET /api/v1/targets/{name}", "voa"),
    ("POST /api/v1/targets/{name}/enable", "oa"),
    ("DELETE /api/v1/targets/{name}/events", "oa"),
    ("GET /api/v1/workers", "voa"),
    ("POST /api/v1/worker/register", "wa"),
    ("POST /api/v1/worker/lease", "wa"),
    ("POST /api/v1/worker/renew", "wa"),
    ("POST /api/v1/worker/report", "wa"),
    ("POST /api/v1/worker/finish", "wa"),
    ("GET /api/v1/worker/events", "wa"),
];

/// Sends to a route what is well addressed and otherwise asks for nothing that exists.
async fn knock(server: &str, route: &str, token: Option<&str>, from: u8) -> Answer {
    let (method, pattern) = route.split_once(' ').unwrap();
    let path = pattern
        .replace("{digest}", Digest::of(b"nothing of this content").as_str())
        .replace("{number}", "1")
        .replace("{seq}", "1")
        .replace("{workflow}", "nothing")
        .replace("{name}", "nothing")
        .replace("{version}", "1")
        .replace("{alias}", "nothing")
        .replace("{id}", "nothing");
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    let body = if method == "GET" { "" } else { "{}" };
    ask(server, (method, &path), &headers, body, from).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_just_whom_it_is_for() {
    let mut written: Vec<&str> = WHO.iter().map(|(route, _)| *route).collect();
    let mut built: Vec<String> = routes().iter().map(|one| format!("{} {}", one.method, one.path)).collect();
    written.sort_unstable();
    built.sort_unstable();
    assert_eq!(built, written, "a route came or went: write down here who may use it");

    let orchestrator = Orchestrator::start(Options::default()).await;
    let server = orchestrator.base_url();
    for (route, _) in WHO {
        let answer = knock(server, route, None, 1).await;
        assert!(
            ![401, 403].contains(&answer.status),
            "before the first token {route} says {}",
            answer.status
        );
    }
    let nobody_yet = orchestrator.api();
    let make = async |api: &Api, role: &str| {
        let made = api.post("/api/v1/tokens", &json!({"name": role, "role": role})).await.ok();
        (made["token"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    };
    let (admin, _) = make(&nobody_yet, "admin").await;
    let boss = nobody_yet.with_token(&admin);
    let (viewer, _) = make(&boss, "viewer").await;
    let (operator, _) = make(&boss, "operator").await;
    let (worker, _) = make(&boss, "worker").await;
    let (revoked, id) = make(&boss, "admin").await;
    assert_eq!(boss.with_token(&revoked).get("/api/v1/tokens").await.status, 200);
    boss.send(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await.unwrap().ok();

    for (letter, token) in [('v', &viewer), ('o', &operator), ('w', &worker), ('a', &admin)] {
        for (route, who) in WHO {
            let answer = knock(server, route, Some(token), 1).await;
            if who == "*" || who.contains(letter) {
                let through = ![401, 403].contains(&answer.status) && answer.status < 500;
                assert!(through, "{route} as {letter} says {}: {}", answer.status, answer.body);
            } else {
                let problem = answer.refused(&format!("{route} as {letter}"), 403);
                assert!(problem["detail"].as_str().unwrap().contains("role"), "{problem}");
            }
        }
    }
    // Each wrong token counts against the address it comes from, so each request comes from another one.
    for (place, (route, who)) in (10..).zip(WHO) {
        for token in [None, Some(revoked.as_str()), Some("rft_garbage"), Some("Bearer")] {
            let answer = knock(server, route, token, place).await;
            if who == "*" {
                // There is no webhook `nothing`.
                let expected = if route.contains("/hooks/") { 404 } else { 200 };
                assert_eq!(answer.status, expected, "{route} with {token:?}");
            } else {
                answer.refused(&format!("{route} with {token:?}"), 401);
                assert!(answer.headers.contains_key("www-authenticate"), "{route}");
            }
        }
        let head = route.starts_with("GET ") && who != "*";
        if head {
            let looked = knock(server, &route.replace("GET", "HEAD"), None, place).await;
            assert_eq!(looked.status, 401, "HEAD of {route}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_is_slowed_down_without_locking_out_the_right_one() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let made = orchestrator.api().post("/api/v1/tokens", &json!({"name": "ops", "role": "admin"})).await.ok();
    let right = made["token"].as_str().unwrap();
    let server = orchestrator.base_url();
    assert_eq!(knock(server, "GET /api/v1/runs", Some(right), 1).await.status, 200);
    let mut statuses = Vec::new();
    for guess in 0..15 {
        statuses.push(knock(server, "GET /api/v1/runs", Some(&format!("rft_{guess}")), 1).await.status);
    }
    assert!(statuses[..5].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses[12..].iter().all(|status| *status == 429), "{statuses:?}");
    let slowed = knock(server, "GET /api/v1/runs", Some("rft_x"), 1).await;
    slowed.refused("one guess too many", 429);
    let seconds: u64 = slowed.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds));
    assert_eq!(
        knock(server, "GET /api/v1/runs", Some(right), 1).await.status,
        200,
        "the right token was locked out"
    );
    assert_eq!(
        knock(server, "GET /api/v1/runs", Some("rft_x"), 2).await.status,
        401,
        "another address was slowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_there_is_no_start_without_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("0.0.0.0:{}", free_port());
    let data = folder.path().join("data").display().to_string();
    for command in [
        vec!["serve", "--listen", &listen, "--data", &data],
        vec!["up", "--listen", &listen, "--data", &data],
    ] {
        let said = run_to_end(refit(folder.path(), &command), WAIT);
        assert!(said.code.is_some_and(|code| code != 0), "{command:?} started: {said:?}");
        assert!(said.err.contains("refit token create"), "it does not say what to do: {}", said.err);
        assert!(TcpStream::connect(listen.replace("0.0.0.0", "127.0.0.1")).await.is_err());
    }

    let create = ["token", "create", "--name", "ops", "--role", "admin", "--data", &data, "-o", "json"];
    let made = run_to_end(refit(folder.path(), &create), WAIT);
    assert_eq!(made.code, Some(0), "{made:?}");
    let token: Value = serde_json::from_str(&made.out).unwrap();
    let arguments = ["serve", "--listen", &listen, "--data", &data];
    let serving = Process::start(arguments.map(str::to_owned).into(), Vec::new());
    let server = format!("http://{}", listen.replace("0.0.0.0", "127.0.0.1"));
    let api = Api::new(&server);
    refit_tests::eventually("it answers", WAIT, async || {
        api.try_get("/readyz").await.ok().filter(|r| r.status == 200)
    })
    .await;
    api.get("/api/v1/runs").await.refused(401);
    assert_eq!(api.with_token(token["token"].as_str().unwrap()).get("/api/v1/runs").await.ok(), json!([]));
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_or_from_another_page_is_refused() {
    let options =
        Options { arguments: vec!["--host".to_owned(), "refit.internal".to_owned()], ..Options::default() };
    let orchestrator = Orchestrator::start(options).await;
    let server = orchestrator.base_url();
    let own = server.strip_prefix("http://").unwrap();
    let (name, named) = (own.replace("127.0.0.1", "localhost"), server.replace("127.0.0.1", "localhost"));
    let cases: [(&[(&str, &str)], u16); 14] = [
        (&[], 202),
        (&[("host", &name)], 202),
        (&[("host", "refit.internal")], 202),
        (&[("host", "REFIT.internal:443")], 202),
        (&[("host", "evil.example")], 421),
        (&[("host", "127.0.0.1.evil.example")], 421),
        (&[("host", "refit.internal.evil.example")], 421),
        (&[("host", "169.254.169.254")], 421),
        (&[("origin", server)], 202),
        (&[("host", &name), ("origin", &named)], 202),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("origin", "http://localhost:3000")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
    ];
    let mut stored = 0;
    for (number, (headers, status)) in cases.into_iter().enumerate() {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json"));
        let body = event(&number.to_string(), "knock", json!({})).to_string();
        let answer = ask(server, ("POST", "/api/v1/events"), &headers, body, 1).await;
        match status {
            202 => assert_eq!(answer.status, 202, "{headers:?}: {}", answer.body),
            _ => _ = answer.refused(&format!("{headers:?}"), status),
        }
        stored += usize::from(status == 202);
        if status == 421 {
            ask(server, ("GET", "/healthz"), &headers, "", 1).await.refused("an open path", 421);
        }
    }
    // A page that may read nothing must not be told otherwise, nor be able to ask what it may.
    let preflight = [("origin", "http://evil.example"), ("access-control-request-method", "POST")];
    let answer = ask(server, ("OPTIONS", "/api/v1/events"), &preflight, "", 1).await;
    answer.refused("a preflight", 403);
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    let events = orchestrator.api().get("/api/v1/events").await.ok();
    assert_eq!(events.as_array().unwrap().len(), stored, "a refused request left something behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_may_have_its_attributes_in_headers() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let (server, api) = (orchestrator.base_url(), orchestrator.api());
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "load-1"),
        ("ce-source", "/warehouse"),
        ("ce-type", "dataset.updated"),
        ("ce-subject", "Z%C3%BCrich"),
        ("content-type", "text/csv"),
    ];
    for is_known in [false, true] {
        let answer = ask(server, ("POST", "/api/v1/events"), &attributes, "id,plan\n1,pro\n", 1).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        assert_eq!(answer.body["events"][0]["duplicate"], is_known, "{}", answer.body);
    }
    let stored = api.get("/api/v1/events?data=true").await.ok();
    assert_eq!(stored.as_array().unwrap().len(), 1);
    let [id, subject, data] = ["id", "subject", "data"].map(|name| stored[0][name].as_str());
    assert_eq!((id, subject, data), (Some("load-1"), Some("Zürich"), Some("id,plan\n1,pro\n")), "{stored}");

    let answer = ask(server, ("POST", "/api/v1/events"), &attributes[2..], "", 1).await;
    assert_eq!(answer.refused("without an id", 400)["field"], "id");
}
