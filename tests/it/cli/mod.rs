//! The command line as people and scripts use it, against real servers and workers: what each command prints, in which
//! form, and the exit code it ends with.

mod cases;
mod init;
mod scripts;
mod up;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use refit_tests::api::Api;
use refit_tests::processes::{Options, Orchestrator, Said, Worker, refit, run_to_end};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);

/// Trains for a moment, is judged, asks when it is about `us`, promotes.
const CHURN: &str = r#"workflow: churn
description: Retrain the churn model.
model: churn
on:
  - event: { type: [dataset.updated] }
params:
  region: { type: string, default: eu }
  score: { type: number, default: 0.9 }
  gate_file: { type: string, default: . }
steps:
  load:
    run: [sh, -c, 'echo loading "$PARAM_REGION"']
  train:
    needs: [load]
    run: [sh, -c, 'echo training; test -e "$PARAM_GATE_FILE" || exit 3; echo "{\"name\":\"auc\",\"value\":$PARAM_SCORE}" >> "$REFIT_METRICS"; echo weights > model.txt']
    artifacts: { model: model.txt }
  gate:
    needs: [train]
    gate: { checks: [{ metric: auc, min: 0.8 }], no_champion: absolute }
  approve:
    needs: [gate]
    if: params.region == "us"
    approval: { from: [ml-leads], timeout: 24h }
  promote:
    needs: [gate, approve]
    promote: { artifact: "${{ steps.train.artifacts.model }}", alias: champion }
"#;

/// Where somebody sits and types commands.
struct Desk {
    folder: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    fn at(server: &str) -> Self {
        Self { env: vec![("REFIT_SERVER", server.to_owned())], ..Self::new() }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = refit(self.folder.path(), arguments);
        command.env_remove("NO_COLOR").envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command. Nothing it prints into a pipe may hold an escape code.
    #[track_caller]
    fn refit(&self, arguments: &[&str]) -> Said {
        let said = run_to_end(self.command(arguments), WAIT);
        assert!(
            !format!("{}{}", said.out, said.err).contains('\u{1b}'),
            "{arguments:?} wrote escape codes: {said:?}"
        );
        assert!(!said.err.contains("panicked"), "{arguments:?}: {}", said.err);
        said
    }

    /// What a command prints that ends with this exit code.
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> Said {
        let said = self.refit(arguments);
        assert_eq!(said.code, Some(code), "refit {}:\n{}{}", arguments.join(" "), said.out, said.err);
        said
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.ends(0, arguments).out
    }

    /// The answer as JSON; as YAML it must be the same.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let json = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {json}"))
    }
}

/// A server with the workflow above, and perhaps a worker.
struct House {
    orchestrator: Orchestrator,
    worker: Option<Worker>,
    desk: Desk,
}

impl House {
    async fn open(with_worker: bool) -> Self {
        let orchestrator = Orchestrator::start(Options::default()).await;
        let desk = Desk::at(orchestrator.base_url());
        desk.write("churn/workflow.yaml", CHURN);
        desk.ok(&["apply", "churn"]);
        let worker = with_worker.then(|| Worker::start(orchestrator.base_url(), "host-1", 2));
        Self { orchestrator, worker, desk }
    }
}

/// Checks that this text holds each of these pieces.
#[track_caller]
fn holds(text: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(text.contains(piece), "`{piece}` is missing in:\n{text}");
    }
}

/// Checks that an object has these keys.
#[track_caller]
fn has_keys(object: &Value, keys: &[&str]) {
    for key in keys {
        assert!(object.get(key).is_some(), "no `{key}` in {object:#}");
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Defining

/// A broken file: its text, and of each problem the line, the column, what the carets stand under, and the hint.
type Broken = (&'static str, &'static [(usize, usize, &'static str, &'static str)]);

const BROKEN: [Broken; 9] = [
    ("workflow: w\nsteps:\n  a:\n    run: [a]\n    nedes: []\n", &[(5, 5, "nedes", "did you mean `needs`?")]),
    (
        "workflow: w\nsteps:\n  train: { run: [a] }\n  b: { run: [b], needs: [trian] }\n",
        &[(4, 26, "trian", "did you mean `train`?")],
    ),
    ("workflow: w\nsteps:\n  a: { run: [a] }\n  a: { run: [b] }\n", &[(4, 3, "a", "")]),
    (
        "workflow: w\nsteps:\n  a: { run: [a], needs: [b] }\n  b: { run: [b], needs: [a] }\n",
        &[(3, 26, "b", "needs")],
    ),
    (
        "workflow: w\nsteps:\n  a:\n    validate: { data: x.csv }\n",
        &[(4, 5, "validate", "rows: { min: 1000 }")],
    ),
    (
        "workflow: w\nparams: { p: { type: string, default: x } }\nsteps:\n  a: { run: 'echo ${{ params.p }}' }\n",
        &[(4, 19, "${{ params.p }}", "env")],
    ),
    ("workflow: w\nsteps:\n  a: { run: [a], timeout: 90 }\n", &[(3, 27, "90", "")]),
    ("workflow: w\nsteps:\n  a: { run: [a], if: params.p == }\n", &[(3, 0, "", "")]),
    (
        "workflow: w\ncolour: red\nsteps:\n  a: { run: [a], needs: [x] }\n  b: { run: [b], nedes: [] }\n",
        &[(2, 1, "colour", ""), (4, 26, "x", ""), (5, 18, "nedes", "did you mean `needs`?")],
    ),
];

#[test]
fn check_points_at_every_problem() {
    let desk = Desk::new();
    for (number, (text, problems)) in BROKEN.iter().enumerate() {
        let name = format!("broken-{number}.yaml");
        desk.write(&name, text);
        let said = desk.ends(3, &["check", &name]);
        let shown: Vec<&str> = said.out.lines().collect();
        for (line, column, at, hint) in *problems {
            let place =
                if *column == 0 { format!("{name}:{line}:") } else { format!("{name}:{line}:{column}") };
            let found = shown.iter().position(|shown| shown.contains(&place));
            let found = found.unwrap_or_else(|| panic!("{place} is missing in:\n{}", said.out));
            let source = text.lines().nth(line - 1).unwrap();
            let row = found + shown[found..].iter().position(|shown| shown.ends_with(source)).unwrap();
            let carets = shown[row + 1];
            let begin =
                carets.find('^').unwrap_or_else(|| panic!("no caret under `{source}`:\n{}", said.out));
            assert!(shown[row][begin..].starts_with(at), "the carets are not under `{at}`:\n{}", said.out);
            if !at.is_empty() {
                assert_eq!(carets.matches('^').count(), at.len(), "{}", said.out);
            }
            holds(&said.out, &[hint]);
        }
        let answer: Vec<Value> =
            serde_json::from_str(&desk.ends(3, &["check", &name, "-o", "json"]).out).unwrap();
        let found = answer[0]["problems"].as_array().unwrap();
        assert_eq!((found.len(), &answer[0]["sound"]), (problems.len(), &json!(false)), "{answer:#?}");
        for (found, (line, ..)) in found.iter().zip(*problems) {
            assert_eq!(found["line"], *line);
            has_keys(found, &["column", "length", "message", "code", "hint"]);
        }
    }
}

#[test]
fn check_takes_files_and_folders_and_says_what_is_sound() {
    let desk = Desk::new();
    desk.write("good/churn.yaml", CHURN);
    desk.write("good/other.yaml", "not: a workflow\n");
    desk.write("bad/bad.yml", BROKEN[0].0);
    holds(&desk.ok(&["check", "good"]), &["workflow churn", "5 steps", "1 event trigger"]);
    let both = desk.ends(3, &["check", "good", "bad/bad.yml"]);
    holds(&both.out, &["✓ good/churn.yaml", "✗ bad/bad.yml: 1 problem"]);
    assert_eq!(desk.json(&["check", "good"])[0]["workflow"], "churn");
    desk.ends(2, &["check"]);
    desk.write("empty/readme.txt", "");
    for nothing in ["empty", "gone.yaml"] {
        let said = desk.refit(&["check", nothing]);
        assert!(said.code != Some(0) && said.err.contains(nothing), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_packs_the_folder_once_and_leaves_out_what_is_ignored() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let desk = Desk::at(orchestrator.base_url());
    desk.write(
        "w/workflow.yaml",
        "workflow: list\nsteps:\n  ls: { run: 'find . -type f | sort; sh tool/greet.sh' }\n",
    );
    desk.write("w/tool/greet.sh", "echo hello\n");
    desk.write("w/data/big.csv", "1\n");
    desk.write("w/notes.tmp", "x\n");
    desk.write("w/.gitignore", "*.tmp\n");
    desk.write("w/.refitignore", "data/\n");
    holds(&desk.ok(&["apply", "w"]), &["✓ list  version 1  applied", "2 files"]);
    holds(&desk.ok(&["apply", "w"]), &["✓ list  version 1  unchanged", "0 uploaded"]);
    desk.write("w/notes.tmp", "changed, and ignored\n");
    holds(&desk.ok(&["apply", "w"]), &["version 1  unchanged"]);
    desk.write("w/tool/greet.sh", "echo hello again\n");
    holds(&desk.ok(&["apply", "w"]), &["version 2  applied", "1 uploaded"]);

    let _worker = Worker::start(orchestrator.base_url(), "host-1", 1);
    desk.ok(&["run", "start", "list", "--wait"]);
    assert_eq!(desk.ok(&["run", "logs", "list/1"]), "./tool/greet.sh\n./workflow.yaml\nhello again\n");
    holds(&desk.ok(&["workflow", "list"]), &["WORKFLOW", "list"]);
    holds(&desk.ok(&["workflow", "show", "list"]), &["list  version 2", "ls", "run"]);
    assert_eq!(
        desk.ok(&["workflow", "show", "list", "--text"]),
        std::fs::read_to_string(desk.folder.path().join("w/workflow.yaml")).unwrap()
    );
    desk.write("w/broken.yaml", BROKEN[0].0);
    holds(&desk.ends(3, &["apply", "w"]).err, &["broken.yaml:5:5", "did you mean `needs`?"]);
    assert_eq!(desk.json(&["workflow", "list"]).as_array().unwrap().len(), 1, "half a folder was applied");
}

// ---------------------------------------------------------------------------------------------------------------
// Following

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_listed_and_explained() {
    let house = House::open(true).await;
    let desk = &house.desk;
    let send = [
        "event",
        "send",
        "--type",
        "dataset.updated",
        "--source",
        "/crm",
        "--id",
        "e1",
        "--data",
        r#"{"rows":5}"#,
    ];
    holds(&desk.ok(&send), &["e1", "stored"]);
    holds(&desk.ok(&send), &["e1", "already"]);
    let file = "{\"id\":\"f1\",\"source\":\"/crm\",\"type\":\"other\"}\n\n{\"id\":\"f2\",\"source\":\"/crm\",\"type\":\"other\"}\n";
    desk.write("events.jsonl", file);
    holds(&desk.ok(&["event", "send", "--file", "events.jsonl"]), &["2 events"]);
    desk.write("bad.jsonl", "{\"id\":\"g1\",\"source\":\"/crm\",\"type\":\"other\"}\n{\"id\":\"g2\"}\n");
    let said = desk.refit(&["event", "send", "--file", "bad.jsonl"]);
    assert!(said.code != Some(0), "{said:?}");
    holds(&said.err, &["bad.jsonl", "line 2", "source"]);

    house.orchestrator.api().wait_over("churn/1", WAIT).await;
    holds(
        &desk.ok(&["event", "list", "--source", "/crm"]),
        &["ID", "WHAT BECAME OF IT", "e1", "started churn/1", "unmatched"],
    );
    holds(&desk.ok(&["event", "show", "e1"]), &["dataset.updated", "/crm", "started", "churn/1", "rows"]);
    let ids = |arguments: &[&str]| -> Vec<String> {
        let list = desk.json(&[&["event", "list"], arguments].concat());
        list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["--type", "other"]), ["f2", "f1"]);
    assert_eq!(ids(&["--type", "other", "--limit", "1"]), ["f2"]);
    assert_eq!(ids(&["--source", "/crm", "--unmatched"]), ["f2", "f1"]);
    assert_eq!(ids(&["--source", "/crm", "--since", "1h"]), ["f2", "f1", "e1"]);
    assert_eq!(ids(&["--source", "/crm", "--since", "2099-01-01T00:00:00Z"]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_started_watched_explained_and_retried() {
    let house = House::open(true).await;
    let desk = &house.desk;
    let waited = desk.ok(&["run", "start", "churn", "--wait"]);
    holds(&waited, &["churn/1", "train  succeeded", "auc 0.9", "churn 1 is champion"]);
    let shown = desk.ok(&["run", "show", "churn/1"]);
    holds(&shown, &["✓ succeeded", "host-1", "auc ≥ 0.8", "promoted", "region=eu", "not needed"]);

    let rejected = desk.ends(1, &["run", "start", "churn", "--param", "score=0.5", "--wait"]);
    holds(&rejected.out, &["churn/2", "rejected", "0.5"]);
    holds(&desk.ok(&["run", "show", "churn/2"]), &["✗ rejected", "0.5", "0.8"]);

    let door = desk.folder.path().join("door");
    let param = format!("gate_file={}", door.display());
    let failed = desk.ends(1, &["run", "start", "churn", "--param", &param, "--wait"]);
    holds(&failed.out, &["churn/3", "train  failed", "exit code 3"]);
    holds(&desk.ends(1, &["run", "watch", "churn/3"]).out, &["failed"]);
    assert_eq!(desk.ok(&["run", "logs", "churn/3", "--step", "train"]), "training\n");
    holds(&desk.ok(&["run", "logs", "churn/3"]), &["load  | loading eu", "train | training"]);
    holds(&desk.ends(5, &["run", "logs", "churn/3", "--step", "trian"]).err, &["load", "train"]);

    std::fs::write(&door, "").unwrap();
    desk.ok(&["run", "retry", "churn/3", "--wait"]);
    let retried = desk.json(&["run", "show", "churn/3"]);
    assert_eq!(Api::step(&retried, "load")["attempt"], 1, "what had succeeded ran again");
    assert_eq!(Api::step(&retried, "train")["state"], "succeeded");
    assert_eq!(desk.ok(&["run", "logs", "churn/3", "--step", "load"]), "loading eu\n");
    holds(&desk.ok(&["run", "retry", "churn/2", "--all", "--wait"].as_slice()[..4]), &["churn/2"]);
    assert_eq!(house.orchestrator.api().wait_over("churn/2", WAIT).await["state"], "rejected");
    assert_eq!(desk.ok(&["run", "logs", "churn/2", "--step", "load"]), "loading eu\nloading eu\n");

    let list = desk.ok(&["run", "list"]);
    holds(&list, &["RUN", "STARTED BY", "churn/1", "churn/2", "churn/3"]);
    assert_eq!(desk.json(&["run", "list", "--state", "rejected"])[0]["run"], "churn/2");
    assert_eq!(desk.json(&["run", "list", "--workflow", "other"]), json!([]));
    holds(&desk.ends(2, &["run", "start", "churn", "--param", "score=high"]).err, &["score", "number"]);
    holds(&desk.ends(5, &["run", "start", "churn", "--param", "colour=red"]).err, &["colour", "region"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_with_all_it_started() {
    let house = House::open(true).await;
    let desk = &house.desk;
    desk.write("long/w.yaml", "workflow: long\nsteps:\n  wait: { run: 'echo up; sleep 600 & wait' }\n");
    desk.ok(&["apply", "long"]);
    desk.ok(&["run", "start", "long"]);
    let api = house.orchestrator.api();
    refit_tests::eventually("the step says so", WAIT, async || {
        (api.log("long/1", None).await == "up\n").then_some(())
    })
    .await;
    // Whoever follows a run sees its end, whoever caused it.
    let mut following = desk.command(&["run", "watch", "long/1"]).stdout(Stdio::piped()).spawn().unwrap();
    holds(&desk.ok(&["run", "cancel", "long/1"]), &["long/1"]);
    assert_eq!(api.wait_over("long/1", WAIT).await["state"], "cancelled");
    assert_eq!(following.wait().unwrap().code(), Some(1));
    let mut seen = String::new();
    following.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    holds(&seen, &["wait  running", "cancelled"]);
    assert_eq!(
        house.worker.as_ref().unwrap().step_processes(),
        Vec::<u32>::new(),
        "something was left running"
    );
    holds(&desk.ends(5, &["run", "cancel", "long/1"]).err, &["over"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_are_given_and_refused_with_their_reason() {
    let house = House::open(true).await;
    let desk = &house.desk;
    for (run, verb, reason, end) in [
        ("churn/1", "approve", "looks right", "succeeded"),
        ("churn/2", "reject", "holiday freeze", "rejected"),
    ] {
        desk.ok(&["run", "start", "churn", "--param", "region=us"]);
        let waits = |run: &Value| Api::step(run, "approve")["state"] == "waiting";
        house.orchestrator.api().wait_run_until(run, WAIT, waits).await;
        holds(&desk.ok(&["run", "show", run]), &["waiting", "ml-leads"]);
        holds(&desk.ok(&["run", verb, run, "--reason", reason]), &[run]);
        house.orchestrator.api().wait_run(run, end, WAIT).await;
        holds(&desk.ok(&["run", "show", run]), &[reason]);
        holds(&desk.ends(5, &["run", verb, run]).err, &["failed to", run]);
    }
    assert_eq!(desk.json(&["model", "show", "churn"])["aliases"]["champion"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_rolled_back_and_its_history_says_who_and_why() {
    let house = House::open(true).await;
    let desk = &house.desk;
    desk.ok(&["run", "start", "churn", "--wait"]);
    let nothing_before = desk.ends(5, &["model", "rollback", "churn"]).err;
    holds(&nothing_before, &["failed to", "churn"]);
    desk.ok(&["run", "start", "churn", "--param", "score=0.95", "--wait"]);
    holds(&desk.ok(&["model", "list"]), &["MODEL", "churn", "champion v2"]);
    holds(
        &desk.ok(&["model", "rollback", "churn", "--reason", "complaints from Spain"]),
        &["churn", "v2 → v1"],
    );
    holds(&desk.ok(&["model", "show", "churn"]), &["2 versions", "churn/1", "churn/2", "auc 0.95"]);
    holds(
        &desk.ok(&["model", "history", "churn"]),
        &["v2 → v1", "complaints from Spain", "v1 → v2", "run churn/2"],
    );
    let history = desk.json(&["model", "history", "churn"]);
    let moves: Vec<(&Value, &Value)> =
        history.as_array().unwrap().iter().map(|one| (&one["from"], &one["to"])).collect();
    assert_eq!(moves, [(&json!(2), &json!(1)), (&json!(1), &json!(2)), (&Value::Null, &json!(1))]);
    assert_eq!(desk.json(&["model", "show", "churn"])["aliases"]["champion"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_listed_and_revoked() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let mut desk = Desk::at(orchestrator.base_url());
    let admin = desk.json(&["token", "create", "--name", "ops", "--role", "admin"]);
    let secret = admin["token"].as_str().unwrap().to_owned();
    holds(&desk.ends(5, &["run", "list"]).err, &["token", "REFIT_TOKEN"]);
    desk.env.push(("REFIT_TOKEN", secret.clone()));
    let made = desk.ok(&["token", "create", "--name", "ci", "--role", "viewer", "--days", "7"]);
    holds(&made, &["ci", "viewer"]);
    let list = desk.json(&["token", "list"]);
    assert!(
        list.as_array().unwrap().iter().all(|token| token.get("token").is_none()),
        "a listing shows a secret"
    );
    let table = desk.ok(&["token", "list"]);
    holds(&table, &["ID", "ROLE", "ops", "ci"]);
    assert!(!table.contains(&secret));

    let viewer = list.as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap();
    let word = made.split_whitespace().find(|word| word.len() > 30).unwrap().to_owned();
    desk.env.push(("REFIT_TOKEN", word));
    desk.ok(&["run", "list"]);
    holds(&desk.ends(5, &["token", "list"]).err, &["viewer", "admin"]);
    desk.env.push(("REFIT_TOKEN", secret));
    holds(&desk.ok(&["token", "revoke", viewer["id"].as_str().unwrap()]), &["ci", "revoked"]);
    holds(&desk.ends(5, &["token", "revoke", "nothing"]).err, &["nothing"]);
    // An author's name goes with what he does.
    desk.write("w/w.yaml", "workflow: w\nsteps:\n  a: { emit: { type: done } }\n");
    desk.ok(&["apply", "w"]);
    desk.ok(&["run", "start", "w", "--wait"]);
    assert_eq!(desk.json(&["run", "show", "w/1"])["trigger"], "manual, by ops");
}
