//! Each scheme takes what is made with one of its two secrets, once, and nothing else; and what proves who sends is kept
//! nowhere.

use std::path::Path;

use refit_tests::processes::Options;
use serde_json::json;

use super::senders::{self, Sender};
use super::{Answer, House};

const OLD: &str = "canary-old-0f6e2a";
const NEW: &str = "canary-new-93b1cc";
const WRONG: &str = "canary-bad-71d0e4";

/// An orchestrator with a hook of every scheme, each with both secrets.
async fn house(options: Options) -> House {
    let senders = senders::all();
    let settings: String = senders.iter().map(Sender::settings).collect();
    let mut env = Vec::new();
    for sender in &senders {
        let [old, new] = sender.variables();
        env.extend([(old, sender.held(OLD)), (new, sender.held(NEW))]);
    }
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    House::start(&format!("sources:\n{settings}"), &env, options).await
}

fn body(id: &str) -> String {
    json!({"id": id, "rows": 1200}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scheme_takes_what_one_of_its_secrets_made_and_nothing_else() {
    let house = house(Options::default()).await;
    for sender in senders::all() {
        let (hook, first, second) = (sender.hook, body("first"), body("second"));
        for (secret, body) in [(OLD, &first), (NEW, &second)] {
            let answer = house.post(hook, &sender.headers(secret, body), body).await;
            assert_eq!(answer.taken(hook)["duplicate"], false, "{hook}");
        }
        let again = house.post(hook, &sender.headers(NEW, &first), &first).await;
        assert_eq!(again.taken(hook)["duplicate"], true, "{hook}: sent again");

        let third = body("third");
        let wrong = house.post(hook, &sender.headers(WRONG, &third), &third).await;
        let told = wrong.refused(hook, 401, "not-authentic").clone();
        let mut lacking = sender.headers(NEW, &third);
        while let Some((name, _)) = lacking.pop() {
            let answer = house.post(hook, &lacking, &third).await;
            assert_eq!(*answer.refused(hook, 401, "not-authentic"), told, "{hook} without {name}");
        }
        if sender.signs_body {
            let altered = third.replace("1200", "1201");
            let answer = house.post(hook, &sender.headers(NEW, &third), &altered).await;
            assert_eq!(*answer.refused(hook, 401, "not-authentic"), told, "{hook}: an altered body");
        }
        if sender.signs_time {
            for seconds in [-330, 330] {
                let answer = house.post(hook, &sender.headers_at(NEW, &third, seconds), &third).await;
                answer.refused(&format!("{hook}, {seconds} s"), 401, "stale");
            }
            let near = house.post(hook, &sender.headers_at(NEW, &second, -60), &second).await;
            near.taken(&format!("{hook}, a minute ago"));
        }
        let events = house.events(&format!("/sources/{hook}")).await;
        let ids: Vec<&str> = events.iter().filter_map(|event| event["id"].as_str()).collect();
        assert_eq!(ids, ["first", "second"], "{hook}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_needs_no_token_and_a_token_is_no_proof() {
    let house = house(Options::default()).await;
    let made =
        house.orchestrator.api().post("/api/v1/tokens", &json!({"name": "me", "role": "admin"})).await.ok();
    let token = made["token"].as_str().unwrap();
    house.orchestrator.api().get("/api/v1/events").await.refused(401);
    for sender in senders::all() {
        let body = body("first");
        house.post(sender.hook, &sender.headers(NEW, &body), &body).await.taken(sender.hook);
        let bearer = vec![("authorization".to_owned(), format!("Bearer {token}"))];
        let answer = house.post(sender.hook, &bearer, &body).await;
        answer.refused(sender.hook, 401, "not-authentic");
    }
}

/// Every byte of the files in a folder and of those below.
fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(contents(&entry.path())),
            false => all.extend(std::fs::read(entry.path()).unwrap()),
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_an_answer_the_log_or_the_database() {
    let env = vec![("REFIT_LOG".to_owned(), "trace,sqlx=debug,hyper=debug".to_owned())];
    let mut house = house(Options { env, ..Options::default() }).await;
    let mut answers: Vec<Answer> = Vec::new();
    for sender in senders::all() {
        for (secret, body) in [
            (NEW, body("taken")),
            (OLD, "{\"id\": 3}".to_owned()),
            (NEW, "no JSON".to_owned()),
            (WRONG, body("refused")),
        ] {
            answers.push(house.post(sender.hook, &sender.headers(secret, &body), &body).await);
        }
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [202, 400, 400, 401].repeat(senders::all().len()));
    assert!(!format!("{answers:?}").contains("canary"));
    let logs = house.orchestrator.logs();
    assert!(logs.contains("refused a request to a webhook"), "the log says too little to tell: {logs}");
    assert!(!logs.contains("canary"), "a secret is in the log");
    house.orchestrator.terminate();
    let kept = contents(&house.orchestrator.data());
    let holds = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("no JSON") && holds("content-type"), "the dead letters are not where they were looked for");
    assert!(!holds("canary"), "a secret is in the database");
}
