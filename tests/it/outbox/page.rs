//! What the page of events says about outbound events, done: its program checks a real request.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::receiver::Receiver;
use super::*;

const SECRET: &str = "between these two and nobody else";

/// The program of the page: the only Python in it that reads `webhook-signature`.
fn program() -> String {
    let page = std::fs::read_to_string(refit_tests::processes::workspace().join("docs/events.md")).unwrap();
    let mut programs = page.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    programs.find(|program| program.contains("webhook-signature")).unwrap().to_owned()
}

/// Whether the program takes a request for genuine.
fn verifies(program: &str, headers: &Value, body: &str, secret: &str) -> bool {
    let call = "import json, sys\ntold = json.load(sys.stdin)\n\
        event = verify(told['headers'], told['body'].encode(), told['secret'])\n\
        assert event == json.loads(told['body'])\n";
    let mut python = Command::new("python3")
        .args(["-c", &format!("{program}\n{call}")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = json!({ "headers": headers, "body": body, "secret": secret });
    python.stdin.take().unwrap().write_all(told.to_string().as_bytes()).unwrap();
    let ended = python.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() || said.contains("ValueError"), "{said}");
    ended.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_of_the_page_tells_a_genuine_request_from_others() {
    let receiver = Receiver::willing().await;
    let folder = tempfile::tempdir().unwrap();
    let webhook = json!({ "url": receiver.url, "allow": ["127.0.0.1"],
        "secrets": [{ "env": "NEW" }, { "env": "OLD" }] });
    let orchestrator = Orchestrator::start(Options {
        arguments: settings(folder.path(), &json!({ "ops": { "webhook": webhook } })),
        env: vec![("NEW".to_owned(), "whsec_bmV3ZXI=".to_owned()), ("OLD".to_owned(), SECRET.to_owned())],
        ..Options::default()
    })
    .await;
    orchestrator.api().apply(CHAIN).await;
    go(&orchestrator, 0..1).await;
    receiver.wait_for(TYPES.len()).await;
    let (request, program) = (receiver.requests().remove(0), program());
    let headers = json!(request.headers);
    // Both secrets are good while receivers change over.
    assert!(verifies(&program, &headers, &request.body, SECRET));
    assert!(verifies(&program, &headers, &request.body, "whsec_bmV3ZXI="));
    assert!(!verifies(&program, &headers, &request.body, "another"));
    assert!(!verifies(&program, &headers, &request.body.replace("chain", "chaim"), SECRET));
    let mut old = headers.clone();
    old["webhook-timestamp"] = json!("1700000000");
    assert!(!verifies(&program, &old, &request.body, SECRET));
}
