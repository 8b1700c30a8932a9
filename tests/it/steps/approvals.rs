//! Steps that wait for people, and for silence.

use super::*;

/// By the command line, with the tokens of three people.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_approves_what_it_was_shown_and_nobody_their_own_run() {
    let house = House::start().await;
    let ok = "approval: { from: [ml-leads], two_person: true }";
    house.apply(&format!("workflow: asks\nsteps:\n  ok: {{ {ok} }}\n")).await;
    let nobody_yet = house.api();
    let token = async |api: &Api, body: Value| {
        api.post("/api/v1/tokens", &body).await.ok()["token"].as_str().unwrap().to_owned()
    };
    let boss = token(&nobody_yet, json!({ "name": "boss", "role": "admin" })).await;
    let api = nobody_yet.with_token(&boss);
    let member = |name: &str| json!({ "name": name, "role": "operator", "groups": ["ml-leads"] });
    let (ada, bob) = (token(&api, member("ada")).await, token(&api, member("bob")).await);
    let cleo = token(&api, json!({ "name": "cleo", "role": "operator" })).await;
    api.with_token(&ada).start_run("asks", json!({})).await;
    let run = api.wait_run_until("asks/1", PATIENCE, |run| Api::step(run, "ok")["state"] == "waiting").await;
    let covers = Api::step(&run, "ok")["covers"].as_str().unwrap().to_owned();
    let other = format!("sha256:{}", "0".repeat(64));
    for (token, covers, code, says) in [
        (&cleo, &covers, 5, "it is for ml-leads"),
        (&ada, &covers, 5, "ada started this run"),
        (&bob, &other, 5, "is not what was shown"),
        (&bob, &covers, 0, ""),
    ] {
        let said = house.refit(&["run", "approve", "asks/1", "--covers", covers, "--token", token]).await;
        exit(&said, code);
        let err = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(err.contains(says), "{err}");
    }
    api.wait_run("asks/1", "succeeded", PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_refused_by_a_person_or_answered_by_silence() {
    let house = House::start().await;
    for (workflow, approval) in [
        ("asks", "{}"),
        ("silence-rejects", "{ timeout: 1s, on_timeout: reject }"),
        ("silence-approves", "{ timeout: 1s, on_timeout: approve }"),
    ] {
        let after = "after: { needs: [ok], emit: { type: said.yes } }";
        house
            .apply(&format!("workflow: {workflow}\nsteps:\n  ok: {{ approval: {approval} }}\n  {after}\n"))
            .await;
    }
    let api = house.api();
    for workflow in ["asks", "silence-rejects", "silence-approves"] {
        api.start_run(workflow, json!({})).await;
    }
    api.wait_run_until("asks/1", PATIENCE, |run| Api::step(run, "ok")["state"] == "waiting").await;
    exit(&house.refit(&["run", "reject", "asks/1", "--reason", "not on a Friday"]).await, 0);
    let said_no = api.wait_run("asks/1", "rejected", PATIENCE).await;
    assert!(said_no["reason"].as_str().unwrap().contains("not on a Friday"), "{said_no}");
    assert_eq!(Api::step(&said_no, "after")["state"], "skipped");
    exit(&house.refit(&["run", "watch", "asks/1"]).await, 1);

    let silent = api.wait_run("silence-rejects/1", "rejected", PATIENCE).await;
    assert_eq!(Api::step(&silent, "ok")["reason"], "nobody answered in time");
    let silent = api.wait_run("silence-approves/1", "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&silent, "after")["state"], "succeeded");
}
