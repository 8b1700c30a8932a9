//! `refit init`: what it writes runs as it stands, from the first check to a candidate that is compared with the champion; and
//! nothing that was there is touched.

use refit_tests::api::Api;
use serde_json::json;

use super::up::up;
use super::{Desk, holds};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_workflow_is_sound_tested_and_trains_at_once() {
    let mut desk = Desk::new();
    let said = desk.ok(&["init", "churn"]);
    holds(
        &said,
        &[
            "✓ workflow churn",
            "churn/workflow.yaml",
            "cd churn && refit test",
            "refit up",
            "refit run start churn --wait",
        ],
    );
    holds(
        &desk.ok(&["check", "churn"]),
        &["✓ churn/workflow.yaml", "workflow churn, 4 steps, 1 event trigger"],
    );
    let tested = desk.json(&["test", "churn"]);
    assert!(tested.as_array().unwrap().len() >= 3, "{tested}");
    assert!(tested.as_array().unwrap().iter().all(|case| case["passed"] == true), "{tested:#}");

    let folder = desk.folder.path().join("churn");
    let (up, server) = up(&folder, &folder.join(".refit")).await;
    desk.env.push(("REFIT_SERVER", server));
    let first = desk.json(&["run", "start", "churn", "--wait"]);
    assert_eq!(
        (&first["state"], &first["promoted"]["version"]),
        (&json!("succeeded"), &json!(1)),
        "{}",
        up.logs()
    );
    let metrics = &Api::step(&first, "evaluate")["metrics"];
    assert!(metrics["accuracy"].as_f64().unwrap() > 0.85, "{metrics}");
    assert!(Api::step(&first, "train")["metrics"]["loss"].is_number());

    // As good as the champion, with which it was compared; then one that saw too little.
    let second = desk.json(&["run", "start", "churn", "--wait"]);
    assert_eq!((&second["state"], &second["promoted"]["version"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(Api::step(&second, "gate")["decision"]["champion"], 1);
    let third = desk.ends(1, &["run", "start", "churn", "--param", "rows=8", "--wait"]);
    holds(&third.out, &["churn/3", "rejected", "never replace the champion with something worse"]);
    holds(
        &desk.ok(&["run", "logs", "churn/3", "--step", "evaluate"]),
        &["candidate: accuracy 0.", "champion:  accuracy 0."],
    );
    assert_eq!(desk.json(&["model", "show", "churn"])["aliases"]["champion"], 2);
}

#[test]
fn nothing_that_is_there_is_touched() {
    let desk = Desk::new();
    desk.write("churn/train.py", "mine\n");
    desk.write("churn/README.md", "mine too\n");
    let said = desk.ends(2, &["init", "churn"]);
    holds(&said.err, &["nothing was written", "churn/train.py, churn/README.md"]);
    let folder = desk.folder.path().join("churn");
    assert_eq!(std::fs::read_to_string(folder.join("train.py")).unwrap(), "mine\n");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "some files were written");
    desk.ends(2, &["init", "Churn"]);
    desk.ends(2, &["init", "../churn"]);
}

#[test]
fn without_a_name_it_is_for_this_folder() {
    let desk = Desk::new();
    let written = desk.json(&["init"]);
    assert_eq!((&written["folder"], written["files"].as_array().unwrap().len()), (&json!("."), 8));
    // The temporary folder's name is no workflow's.
    assert_eq!(written["workflow"], "my-model");
    holds(&desk.ok(&["check", "."]), &["✓ ./workflow.yaml", "workflow my-model"]);
    holds(&desk.ends(2, &["init"]).err, &["this folder has a workflow already: workflow.yaml"]);
    holds(&desk.ok(&["init", "second"]), &["second/workflow.yaml"]);
}
