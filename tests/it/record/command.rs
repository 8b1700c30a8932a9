//! The same over HTTP and on the command line: what is printed, what is refused, and how that ends.

use std::time::Duration;

use refit_tests::processes::{Options, Orchestrator, Said, refit, run_to_end};

use super::*;

const WAIT: Duration = Duration::from_secs(30);

const CHURN: &str = "
workflow: churn
on:
  - event: { type: [dataset.updated] }
  - event: { type: [rows.added] }
    batch: { count: 100 }
concurrency: { limit: 1, on_conflict: coalesce }
steps: { train: { run: [sleep, '60'] } }
";

/// Where somebody sits and types commands.
struct Desk {
    folder: tempfile::TempDir,
    server: String,
}

impl Desk {
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> Said {
        let mut command = refit(self.folder.path(), arguments);
        command.env("REFIT_SERVER", &self.server);
        let said = run_to_end(command, WAIT);
        assert_eq!(said.code, Some(code), "refit {}:\n{}{}", arguments.join(" "), said.out, said.err);
        said
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.ends(0, arguments).out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn send(&self, kind: &str, id: &str) {
        self.ok(&["event", "send", "--type", kind, "--id", id]);
    }
}

#[track_caller]
fn holds(text: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(text.contains(piece), "`{piece}` is missing in:\n{text}");
    }
}

/// A slip in a filter looks like an empty answer, so that it is told; what is printed and how it ends stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_filter_that_nothing_has_is_told_beside_the_empty_list() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let desk = Desk { folder: tempfile::tempdir().unwrap(), server: orchestrator.base_url().to_owned() };
    std::fs::write(desk.folder.path().join("workflow.yaml"), CHURN).unwrap();
    desk.ok(&["apply", "workflow.yaml"]);
    desk.ok(&["event", "send", "--type", "t", "--source", "/known"]);
    for (line, told) in [
        ("run list --workflow chrun", "there is no workflow chrun"),
        ("event list --workflow chrun", "there is no workflow chrun"),
        ("event list --source /knwon", "no event has the source /knwon"),
        ("deadletter list --source orders", "no dead letter has the source orders"),
    ] {
        let words: Vec<&str> = line.split(' ').chain(["-o", "json"]).collect();
        let said = desk.ends(0, &words);
        assert_eq!(said.out.trim(), "[]", "{line}");
        holds(&said.err, &[told]);
    }
    // Nothing found for names that are right is no slip.
    for line in ["run list --workflow churn", "event list --source /known --since 0s --type other"] {
        let words: Vec<&str> = line.split(' ').chain(["-o", "json"]).collect();
        let said = desk.ends(0, &words);
        assert_eq!((said.out.trim(), said.err.as_str()), ("[]", ""), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_ask_pause_resume_and_delete() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let desk = Desk { folder: tempfile::tempdir().unwrap(), server: orchestrator.base_url().to_owned() };
    std::fs::write(desk.folder.path().join("workflow.yaml"), CHURN).unwrap();
    desk.ok(&["apply", "workflow.yaml"]);
    let decided = async |id: &str| {
        refit_tests::eventually(&format!("{id} is decided about"), WAIT, async || {
            let told = desk.json(&["event", "explain", id]);
            (!told["decisions"].as_array().unwrap().is_empty()).then_some(told)
        })
        .await
    };

    desk.send("dataset.updated", "e1");
    decided("e1").await;
    desk.send("dataset.updated", "e2");
    desk.send("rows.added", "r1");
    desk.send("dataset.update", "typo");
    for id in ["e2", "r1", "typo"] {
        decided(id).await;
    }
    let told = desk.ok(&["event", "explain", "e1"]);
    holds(
        &told,
        &["  1. started", "trigger 1 of `churn` (event dataset.updated); run churn/1 started", "at once."],
    );
    holds(
        &desk.ok(&["event", "explain", "typo"]),
        &["no trigger matches", "churn\n", "did you mean", "`dataset.updated`?"],
    );
    holds(&desk.ok(&["event", "explain", "typo", "-o", "yaml"]), &["not_matched:", "path: type"]);
    assert_eq!(desk.json(&["event", "explain", "e1", "--workflow", "churn"])["not_matched"], json!([]));
    desk.ends(5, &["event", "explain", "nothing"]);
    desk.ends(5, &["event", "explain", "e1", "--workflow", "nothing"]);

    holds(
        &desk.ok(&["workflow", "pause", "churn", "--reason", "moving the warehouse"]),
        &["churn is paused since", "moving the warehouse; 1 batch or join is held"],
    );
    desk.send("dataset.updated", "e3");
    let paused = decided("e3").await;
    assert_eq!(paused["decisions"][0]["decision"], "paused");
    holds(paused["decisions"][0]["reason"].as_str().unwrap(), &["by local: moving the warehouse"]);
    holds(
        &desk.ok(&["workflow", "show", "churn"]),
        &["paused", "moving the warehouse", "waits for 99 more events, held while the workflow is paused"],
    );
    holds(&desk.ok(&["workflow", "list"]), &["paused"]);
    holds(&desk.ok(&["run", "start", "churn"]), &["churn/2", "waiting"]);
    holds(
        &desk.ok(&["run", "show", "churn/2"]),
        &["EVENTS", "CAME", "by itself, queued", "by itself, coalesced"],
    );
    holds(&desk.ok(&["workflow", "resume", "churn"]), &["is not paused"]);

    let ids = |arguments: &[&str]| -> Vec<String> {
        let list = desk.json(&[&["event", "list"], arguments].concat());
        list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["--decision", "paused"]), ["e3"]);
    assert_eq!(ids(&["--workflow", "churn", "--decision", "batched"]), ["r1"]);
    assert_eq!(ids(&["--run", "churn/1"]), ["e1"]);
    assert_eq!(ids(&["--run", "churn/2", "--oldest", "--limit", "1"]), ["e2"]);
    desk.ends(2, &["event", "list", "--decision", "started", "--unmatched"]);
    desk.ends(2, &["event", "list", "--decision", "vanished"]);
    desk.ends(5, &["event", "list", "--run", "churn/9"]);
    let page = desk.ends(0, &["event", "list", "--oldest", "--limit", "2"]);
    holds(&page.err, &["there may be more: --after"]);

    let refused = desk.ends(5, &["workflow", "delete", "churn"]);
    holds(&refused.err, &["2 runs are waiting or running, churn/1 the first", "--force"]);
    let deleted = desk.json(&["workflow", "delete", "churn", "--force", "--reason", "over"]);
    assert_eq!(deleted, json!({ "workflow": "churn", "cancelled": ["churn/1", "churn/2"], "gathered": 1 }));
    for verb in ["show", "pause", "resume", "delete"] {
        desk.ends(5, &["workflow", verb, "churn"]);
    }
    holds(&desk.ok(&["run", "show", "churn/1"]), &["cancelled"]);
    holds(&desk.ok(&["apply", "workflow.yaml"]), &["churn"]);
    assert_eq!(desk.json(&["run", "start", "churn"])["run"], "churn/3");
}
