//! Steps that wait for people, and for silence.

use super::*;

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
