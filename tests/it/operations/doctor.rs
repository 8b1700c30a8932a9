//! `refit doctor` on what works, and on what does not: every line says so, and what to do.

use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator, refit, run_to_end};
use refit_tests::services::{Database, S3};
use serde_json::Value;

use super::{PATIENCE, services};

on_both_databases! {
    what_works_is_ok_down_to_the_queue
}

fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = run_to_end(refit(folder.path(), &[&["doctor", "-o", "json"], arguments].concat()), PATIENCE);
    let findings = serde_json::from_str(&json.out).unwrap_or_else(|wrong| panic!("{wrong}: {json:?}"));
    assert!(!folder.path().join(".refit").exists(), "looking must make nothing");
    (json.code, findings, json.err)
}

fn finding<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings
        .iter()
        .find(|found| found["check"] == check)
        .unwrap_or_else(|| panic!("{check} in {findings:#?}"))
}

async fn what_works_is_ok_down_to_the_queue(database: Database) {
    let broker = services::amqp().await;
    let queue = broker.name();
    let at: [&str; 6] =
        ["--database-url", database.url(), "--amqp-url", broker.url(), "--amqp-queue", &queue];
    // Before anything was started: nothing is there yet, and nothing is made by looking.
    let (code, findings, _) = doctor(&at);
    assert_eq!(code, Some(0), "{findings:#?}");
    let source = format!("source amqp:{queue}");
    assert!(
        finding(&findings, &source)["found"].as_str().unwrap().contains("not there yet"),
        "{findings:#?}"
    );
    assert_eq!(broker.depth(&queue).await, None);

    let orchestrator = Orchestrator::start(Options {
        database_url: Some(database.url().to_owned()),
        amqp_url: Some(broker.url().to_owned()),
        amqp_queue: Some(queue.clone()),
        ..Options::default()
    })
    .await;
    let asked = [&at[..], &["--server", orchestrator.base_url()]].concat();
    let findings = eventually("everything is ok", PATIENCE, async || {
        let (code, findings, _) = doctor(&asked);
        let consumed = finding(&findings, &source)["found"].as_str()?.contains("1 consumers");
        (code == Some(0) && consumed).then_some(findings)
    })
    .await;
    for check in [
        "database",
        "database schema",
        "database writes",
        "tokens",
        "server",
        "server version",
        "server clock",
    ] {
        assert_eq!(finding(&findings, check)["state"], "ok", "{findings:#?}");
    }
    let part = format!("server source amqp:{queue}");
    for check in [&part, &format!("{source} queue type"), &format!("{source} dead letters")] {
        assert_eq!(finding(&findings, check)["state"], "ok", "{findings:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_these_settings_is_found_without_being_named() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let listen = orchestrator.base_url().trim_start_matches("http://");
    let (_, findings, _) = doctor(&["--listen", listen]);
    let server = finding(&findings, "server");
    assert!(server["state"] == "ok" && server["found"].as_str().unwrap().contains(listen), "{server}");
}

/// What `serve` refuses is told by `doctor` beforehand, in the same words.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_nobody_can_start_with_are_usage_and_found_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.yaml");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "short").unwrap();
    let hook = format!("scheme: github, secret: {{ file: {} }}", secret.display());
    for (hook, told) in [
        (hook.as_str(), "shorter than"),
        ("scheme: github", "needs a secret"),
        ("scheme: none, body_max: 2MiB", "`body_max` must be"),
    ] {
        let text = format!("listen: 127.0.0.1:0\nsources: {{ a: {{ webhook: {{ {hook} }} }} }}\n");
        std::fs::write(&settings, text).unwrap();
        let config = ["--config", settings.to_str().unwrap()];
        let (code, findings, _) = doctor(&config);
        let found = finding(&findings, "source a");
        assert!(code == Some(1) && found["state"] == "fail", "{found}");
        let words = found["found"].as_str().unwrap();
        assert!(words.contains(told), "{words}");
        let served = run_to_end(refit(folder.path(), &[&["serve"], &config[..]].concat()), PATIENCE);
        assert_eq!(served.code, Some(2), "{served:?}");
        assert!(served.err.contains(words), "{served:?}");
    }
    let database = ["serve", "--listen", "127.0.0.1:0", "--database-url", "mysql://refit:hunter2@db/refit"];
    let served = run_to_end(refit(folder.path(), &database), PATIENCE);
    assert!(served.code == Some(2) && served.err.contains("sqlite: or postgres://"), "{served:?}");
    assert!(!served.err.contains("hunter2"), "{served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_of_blobs_are_tried_out_and_left_as_they_were() {
    let (mut bucket, folder) = (S3::start().await, tempfile::tempdir().unwrap());
    let settings = folder.path().join("settings.yaml");
    for (name, text) in [("id", S3::KEY_ID), ("secret", S3::SECRET), ("wrong", "hunter2")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let look = |secret: &str, endpoint: &str| {
        let file = |name: &str| format!("{{ file: {} }}", folder.path().join(name).display());
        let key = format!("access_key_id: {}, secret_access_key: {}", file("id"), file(secret));
        let s3 = format!("s3: {{ bucket: {}, endpoint: '{endpoint}', {key} }}", S3::BUCKET);
        let earlier = format!("earlier: [{{ folder: {} }}]", folder.path().join("nowhere").display());
        std::fs::write(&settings, format!("blobs: {{ {s3}, {earlier} }}\n")).unwrap();
        let (code, findings, err) = doctor(&["--config", settings.to_str().unwrap()]);
        assert!(!format!("{findings:?}{err}").contains("hunter2"), "{findings:#?}");
        (code, finding(&findings, "blobs").clone())
    };
    let (code, found) = look("secret", &bucket.endpoint());
    assert!(code == Some(0) && found["state"] == "ok", "{found}");
    assert!(!folder.path().join("nowhere").exists(), "looking must make nothing");
    let left: Vec<_> =
        std::fs::read_dir(bucket.bucket()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    let (code, found) = look("wrong", &bucket.endpoint());
    assert!(code == Some(1) && found["found"].as_str().unwrap().contains("check the key"), "{found}");
    bucket.pause().await;
    let (code, found) = look("secret", &bucket.endpoint());
    assert!(code == Some(1) && found["todo"].is_string(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_fails_with_what_to_do() {
    // Bound and dropped: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let database = format!("postgres://refit:hunter2@127.0.0.1:{port}/refit");
    let broker = format!("amqp://user:hunter2@127.0.0.1:{port}/%2f");
    let server = format!("http://127.0.0.1:{port}");
    let asked =
        ["--database-url", &database, "--amqp-url", &broker, "--server", &server, "--listen", "0.0.0.0:0"];
    let (code, findings, err) = doctor(&asked);
    assert_eq!(code, Some(1), "{findings:#?}");
    for check in ["database", "tokens", "source amqp:refit.events", "server"] {
        let found = finding(&findings, check);
        assert!(found["state"] == "fail" && found["todo"].is_string(), "{found}");
    }
    assert!(!format!("{findings:?}{err}").contains("hunter2"), "a password was told: {findings:#?}");

    // A classic queue is used as it is, and told.
    let broker = services::amqp().await;
    let queue = broker.name();
    broker.declare(&queue).await;
    let (code, findings, _) = doctor(&["--amqp-url", broker.url(), "--amqp-queue", &queue]);
    let kind = finding(&findings, &format!("source amqp:{queue} queue type")).clone();
    assert!(code == Some(0) && kind["state"] == "warn", "{findings:#?}");
    let letters = finding(&findings, &format!("source amqp:{queue} dead letters"));
    assert_eq!(letters["state"], "warn", "{findings:#?}");
}
