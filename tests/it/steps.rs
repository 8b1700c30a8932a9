//! What a step can rely on, and how it ends: the contract end to end, retries, timeouts, cancel, drain, approvals, and
//! a worker that dies in the middle. Real orchestrators, real workers, real processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use refit_orchestrator::{Config, open_engine};
use refit_tests::api::{Api, event};
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator, Worker, refit};
use refit_tests::services::{self, Database};
use refit_workflows::run::Step;
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An orchestrator on SQLite, and a folder that tests and steps share.
struct House {
    database: Database,
    orchestrator: Orchestrator,
    folder: tempfile::TempDir,
}

impl House {
    async fn start() -> Self {
        Self::with_grace(Duration::from_secs(600)).await
    }

    /// A worker asks six times within the grace whether its steps are to be ended.
    async fn with_grace(grace: Duration) -> Self {
        let database = services::sqlite();
        let database_url = Some(database.url().to_owned());
        let options = Options { database_url, grace: Some(grace), ..Options::default() };
        let orchestrator = Orchestrator::start(options).await;
        Self { database, orchestrator, folder: tempfile::tempdir().unwrap() }
    }

    fn api(&self) -> Api {
        self.orchestrator.api()
    }

    fn worker(&self, name: &str, slots: u32) -> Worker {
        Worker::start(self.orchestrator.base_url(), name, slots)
    }

    /// A file in the shared folder.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tells a step that waits with [`WAIT`] to go on.
    fn go(&self) {
        std::fs::write(self.file("go"), "").unwrap();
    }

    /// A text with `SHARED` replaced by the shared folder.
    fn text(&self, text: &str) -> String {
        text.replace("SHARED", &self.folder.path().display().to_string())
    }

    async fn apply(&self, text: &str) {
        self.api().apply(&self.text(text)).await;
    }

    /// The command line, as a person would use it.
    async fn refit(&self, arguments: &[&str]) -> Output {
        let server = ["--server", self.orchestrator.base_url()];
        let mut command = refit(self.folder.path(), &[arguments, &server].concat());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The steps as they are stored: epochs are nobody's business but the workers'.
    async fn stored_steps(&self, run: &str) -> Vec<Step> {
        let mut config = Config::local(self.folder.path());
        config.database_url = Some(self.database.url().to_owned());
        let engine = open_engine(config).await.unwrap();
        let run = engine.store().load_run(&run.parse().unwrap()).await.unwrap();
        run.steps().iter().map(|step| (**step).clone()).collect()
    }

    async fn epochs(&self, run: &str) -> Vec<i64> {
        self.stored_steps(run).await.iter().map(|step| step.epoch).collect()
    }

    /// Waits until a step's log holds this text.
    async fn wait_log(&self, run: &str, step: &str, text: &str) {
        let what = format!("{step} of {run} logs {text:?}");
        eventually(&what, PATIENCE, async || {
            self.api().log(run, Some(step)).await.contains(text).then_some(())
        })
        .await;
    }
}

#[track_caller]
fn exit(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out.into_owned()
}

/// Living processes with this text in their command line.
fn processes_with(marker: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let lines = entries.flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(marker).then(|| format!("{}: {line}", entry.file_name().to_string_lossy()))
    });
    lines.collect()
}

/// An argument for `sleep` that no other process has.
fn marker() -> String {
    format!("7{}.{}", std::process::id(), uuid::Uuid::new_v4().as_u128() % 1_000_000_007)
}

// ---------------------------------------------------------------------------------------------------------------
// Retry, cancel

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_carries_on_from_the_failed_step_and_all_starts_over() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    house
        .apply(
            "
workflow: churn
steps:
  a: { run: echo value=$REFIT_ATTEMPT >> $REFIT_OUTPUTS; echo ran a }
  b: { needs: [a], run: 'echo ran b; test -e SHARED/go' }
  c: { needs: [b], run: echo ran c }
  aside: { run: echo ran aside }
",
        )
        .await;
    let api = house.api();
    let out = house.refit(&["run", "start", "churn", "--wait", "-o", "json"]).await;
    let failed: Value = serde_json::from_str(&exit(&out, 1)).unwrap();
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().unwrap().contains("exit code 1"), "{failed}");
    assert_eq!(Api::step(&failed, "c")["state"], "skipped");

    house.go();
    let out = house.refit(&["run", "retry", "churn/1", "--wait", "-o", "json"]).await;
    let retried: Value = serde_json::from_str(&exit(&out, 0)).unwrap();
    assert_eq!(retried["state"], "succeeded");
    for step in ["a", "aside"] {
        assert_eq!(Api::step(&retried, step), Api::step(&failed, step), "an earlier step was touched");
    }
    assert_eq!(house.epochs("churn/1").await, [1, 2, 1, 1]);
    assert_eq!(api.log("churn/1", Some("b")).await, "ran b\nran b\n");

    // There is nothing to carry on from now.
    exit(&house.refit(&["run", "retry", "churn/1"]).await, 5);
    let out = house.refit(&["run", "retry", "churn/1", "--all", "--wait", "-o", "json"]).await;
    let over: Value = serde_json::from_str(&exit(&out, 0)).unwrap();
    assert_eq!(over["state"], "succeeded");
    assert_eq!(house.epochs("churn/1").await, [2, 3, 2, 2], "every step ran again, no epoch was set back");
    assert_eq!(api.log("churn/1", Some("a")).await, "ran a\nran a\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_ignores_term_and_its_grandchildren() {
    let house = House::with_grace(Duration::from_secs(12)).await;
    let worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: stubborn
steps:
  a:
    run: |
      trap '' TERM HUP
      setsid sh -c 'trap \"\" TERM HUP; echo far; sleep MARK; sleep MARK' &
      sh -c 'trap \"\" TERM; (sleep MARK &) ; cd /; echo near; sleep MARK; sleep MARK' &
      env -i sh -c 'cd /; sleep MARK' &
      wait; wait; wait; sleep MARK
  b: { needs: [a], run: echo never }
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("stubborn", json!({})).await;
    eventually("all of the tree is there", PATIENCE, async || {
        (processes_with(&format!("sleep {marker}")).len() >= 6).then_some(())
    })
    .await;

    let begun = Instant::now();
    exit(&house.refit(&["run", "cancel", &run]).await, 0);
    let states: Vec<String> = loop {
        let seen = api.run(&run).await;
        // Looked at after the run was read: whatever was left then would still show.
        let left = processes_with(&marker);
        if seen["state"] == "cancelled" {
            assert!(left.is_empty(), "the run is cancelled and yet there is {left:?}");
            break seen["steps"].as_array().unwrap().iter().map(|step| step["state"].to_string()).collect();
        }
        assert_eq!(seen["state"], "running", "{seen}");
        assert!(begun.elapsed() < Duration::from_secs(40), "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(states, ["\"cancelled\"", "\"cancelled\""]);
    assert!(worker.step_processes().is_empty());
    exit(&house.refit(&["run", "cancel", &run]).await, 5);
    assert_eq!(api.log(&run, Some("b")).await, "");
}

// ---------------------------------------------------------------------------------------------------------------
// The contract

/// Writes down everything it finds around itself.
const LOOK: &str = r#"
import json, os, sys
env = dict(os.environ)
def tree(folder):
    return {os.path.relpath(os.path.join(at, name), folder): open(os.path.join(at, name)).read()
            for at, _, names in os.walk(folder) for name in names}
seen = {
    "arguments": sys.argv[1:],
    "env": env,
    "params": json.load(open(env["REFIT_PARAMS"])),
    "events": [json.loads(line) for line in open(env["REFIT_EVENTS"])],
    "inputs": tree(env["REFIT_INPUTS"]),
    "champion": tree(env["REFIT_CHAMPION"]) if "REFIT_CHAMPION" in env else None,
    "here": sorted(os.listdir(".")),
}
try:
    open(os.path.join(env["REFIT_INPUTS"], "intruder"), "w")
    seen["inputs_writable"] = os.geteuid() != 0
except OSError:
    seen["inputs_writable"] = False
json.dump(seen, open("seen.json", "w"))
"#;

const CONTRACT: &str = "
workflow: full
model: m
on:
  - event: { type: [data.changed] }
    batch: { quiet: 700ms, max_wait: 20s }
    params: { rows: '${{ batch.count }}' }
params:
  rows: { type: integer }
  learning-rate: { type: number, default: 0.5 }
  name: { type: string, default: 'a \"b\" $(c)' }
  deep: { type: boolean, default: true }
steps:
  make:
    run: |
      mkdir -p model/layers
      echo weights of $REFIT_RUN > model/layers/one.txt
      echo note > note.txt
      echo shard=7 >> $REFIT_OUTPUTS
      echo '{\"list\": [1, {\"two\": null}], \"shard\": 8}' >> $REFIT_OUTPUTS
      echo '{\"name\": \"accuracy\", \"value\": 0.25, \"step\": 1}' >> $REFIT_METRICS
      echo '{\"name\": \"accuracy\", \"value\": 0.75, \"step\": 2}' >> $REFIT_METRICS
    artifacts: { model: model/, note: note.txt }
  look:
    needs: [make]
    run: [python3, look.py, '${{ steps.make.outputs.shard }}', '${{ params.name }}']
    env: { SHARD: '${{ steps.make.outputs.shard }}', TWO: '${{ steps.make.outputs.list }}' }
    inputs: { candidate: '${{ steps.make.artifacts.model }}', note: '${{ steps.make.artifacts.note }}' }
    artifacts: { seen: seen.json }
  gate: { needs: [look], gate: { checks: [{ metric: accuracy, min: 0.5 }] } }
  promote: { needs: [gate], promote: { artifact: '${{ steps.make.artifacts.model }}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_sees_what_the_contract_promises_and_nothing_of_its_host() {
    let house = House::start().await;
    let host = [("SECRET_OF_THE_HOST", "x"), ("REFIT_TOKEN", "refit_worker_x_y")];
    let _worker = Worker::start_with(house.orchestrator.base_url(), "w", 2, &host);
    let api = house.api();
    api.apply_with_files(CONTRACT, &[("look.py", LOOK), ("data/beside.txt", "x")]).await;

    let events: Vec<Value> =
        (0..5).map(|n| event(&format!("e{n}"), "data.changed", json!({ "part": n }))).collect();
    api.send_events(&events).await;
    let run = api.wait_run("full/1", "succeeded", PATIENCE).await;
    let make = Api::step(&run, "make");
    assert_eq!(make["outputs"], json!({"shard": 8, "list": [1, {"two": null}]}), "the last value stands");
    assert_eq!(make["metrics"], json!({"accuracy": 0.75}));
    let seen = look(&api, &run).await;
    assert_eq!(seen["arguments"], json!(["8", "a \"b\" $(c)"]), "values stay one argument");
    let params = json!({"rows": 5, "learning-rate": 0.5, "name": "a \"b\" $(c)", "deep": true});
    assert_eq!(seen["params"], params);
    let got: Vec<&str> =
        seen["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(got, ["e0", "e1", "e2", "e3", "e4"]);
    assert_eq!(seen["events"][3]["data"], json!({"part": 3}));
    assert_eq!(seen["events"][3]["source"], "/tests");
    let inputs = json!({"candidate/layers/one.txt": "weights of full/1\n", "note": "note\n"});
    assert_eq!(seen["inputs"], inputs);
    assert_eq!(seen["inputs_writable"], false);
    assert_eq!(seen["champion"], Value::Null, "there is no champion yet");
    assert_eq!(seen["here"], json!(["data", "look.py"]), "the bundle and nothing else");

    let env: BTreeMap<String, String> = serde_json::from_value(seen["env"].clone()).unwrap();
    for (name, value) in [
        ("REFIT_RUN", "full/1"),
        ("REFIT_STEP", "look"),
        ("REFIT_ATTEMPT", "1"),
        ("PARAM_ROWS", "5"),
        ("PARAM_LEARNING_RATE", "0.5"),
        ("PARAM_NAME", "a \"b\" $(c)"),
        ("PARAM_DEEP", "true"),
        ("SHARD", "8"),
        ("TWO", r#"[1,{"two":null}]"#),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    let foreign: Vec<&String> =
        env.keys().filter(|name| name.contains("SECRET") || name.contains("TOKEN")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    // The second run finds the version that the first one promoted.
    api.start_run("full", json!({"rows": 0})).await;
    let run = api.wait_run("full/2", "succeeded", PATIENCE).await;
    let seen = look(&api, &run).await;
    assert_eq!(seen["champion"], json!({"model/layers/one.txt": "weights of full/1\n"}));
    assert_eq!(seen["inputs"]["candidate/layers/one.txt"], "weights of full/2\n");
    assert_eq!(seen["env"]["REFIT_RUN"], "full/2");
}

/// What [`LOOK`] wrote down.
async fn look(api: &Api, run: &Value) -> Value {
    let digest = Api::step(run, "look")["artifacts"]["seen"]["digest"].as_str().unwrap().to_owned();
    api.get(&format!("/api/v1/blobs/{digest}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_logs_show_while_a_step_runs_and_logs_keep_their_order() {
    let house = House::start().await;
    let _worker = house.worker("w", 2);
    house
        .apply(
            "
workflow: live
steps:
  train:
    run: |
      echo '{\"name\": \"loss\", \"value\": 3}' >> $REFIT_METRICS
      echo epoch 1
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo '{\"name\": \"loss\", \"value\": 2}' >> $REFIT_METRICS
      i=0; while [ $i -lt 30000 ]; do echo line $i; echo line $((i+1)) >&2; i=$((i+2)); done
      printf 'no end'
  other: { run: 'i=0; while [ $i -lt 500 ]; do echo other $i; i=$((i+1)); done' }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("live", json!({})).await;
    let running = api
        .wait_run_until(&run, PATIENCE, |run| {
            run["steps"].as_array().unwrap().iter().any(|step| step["metrics"]["loss"] == 3.0)
        })
        .await;
    assert_eq!(Api::step(&running, "train")["state"], "running", "metrics are shown live");
    house.wait_log(&run, "train", "epoch 1\n").await;
    house.go();
    let done = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(Api::step(&done, "train")["metrics"], json!({"loss": 2.0}));

    let numbered: String = (0..30_000).map(|number| format!("line {number}\n")).collect();
    let expected = format!("epoch 1\n{numbered}no end\n");
    let log = exit(&house.refit(&["run", "logs", &run, "--step", "train"]).await, 0);
    assert!(
        log == expected,
        "the log of `train` is not in order or not whole: {}",
        difference(&log, &expected)
    );
    let whole = exit(&house.refit(&["run", "logs", &run]).await, 0);
    let of = |step: &str| -> Vec<&str> {
        let lines = whole.lines().filter_map(|line| line.split_once(" | "));
        lines.filter(|(name, _)| name.trim() == step).map(|(_, line)| line).collect()
    };
    let train = of("train").join("\n") + "\n";
    assert!(train == expected, "among others it is not: {}", difference(&train, &expected));
    assert_eq!(of("other").len(), 500);
    assert_eq!(of("other")[499], "other 499");
}

/// The first line in which two texts differ.
fn difference(found: &str, expected: &str) -> String {
    let (mut found, mut expected) = (found.lines(), expected.lines());
    loop {
        match (found.next(), expected.next()) {
            (None, None) => return "the same lines".to_owned(),
            (found, expected) if found == expected => {}
            (found, expected) => return format!("{found:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_hands_back_is_checked() {
    let house = House::start().await;
    let _worker = house.worker("w", 4);
    house
        .apply(
            "
workflow: sloppy
defaults: { retry: { attempts: 1 } }
steps:
  large: { run: head -c 1100000 /dev/zero | tr '\\0' x >> $REFIT_OUTPUTS }
  nameless: { run: 'echo \"no equals sign\" >> $REFIT_OUTPUTS' }
  strange: { run: 'echo \"a b=1\" >> $REFIT_OUTPUTS' }
  nan: { run: 'echo \"{\\\"name\\\": \\\"auc\\\", \\\"value\\\": NaN}\" >> $REFIT_METRICS' }
  missing: { run: 'true', artifacts: { model: model.bin } }
  outside: { run: ln -s /etc/hostname model.bin, artifacts: { model: model.bin } }
  fine: { run: echo a=1 >> $REFIT_OUTPUTS }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("sloppy", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    for (step, words) in [
        ("large", "more than the 1048576 allowed"),
        ("nameless", "line 1 of REFIT_OUTPUTS"),
        ("strange", "`a b` is not a name"),
        ("nan", "NaN"),
        ("missing", "did not write `model.bin`"),
        ("outside", "leaves the working directory"),
    ] {
        let found = Api::step(&over, step);
        assert_eq!(found["state"], "failed", "{found}");
        assert!(found["reason"].as_str().unwrap().contains(words), "{found}");
        assert_eq!(found["artifacts"], json!({}), "{found}");
    }
    assert_eq!(Api::step(&over, "fine")["state"], "succeeded");
}

// ---------------------------------------------------------------------------------------------------------------
// Attempts

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_ended_and_says_so() {
    let house = House::start().await;
    let worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: slow
steps:
  a: { run: 'setsid sleep MARK & echo begun; sleep MARK', timeout: 2s, retry: { attempts: 1 } }
  b: { needs: [a], run: 'true' }
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("slow", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let reason = Api::step(&over, "a")["reason"].as_str().unwrap();
    assert!(reason.contains("took longer than its timeout of 2"), "{reason}");
    assert_eq!(Api::step(&over, "b")["state"], "skipped");
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert!(worker.step_processes().is_empty());
    assert_eq!(api.log(&run, Some("a")).await, "begun\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_repeated_with_growing_pauses_and_75_does_not_count() {
    let house = House::start().await;
    let _worker = house.worker("w", 3);
    house
        .apply(
            "
workflow: again
defaults: { retry: { attempts: 3, backoff: 500ms, max_backoff: 10s } }
steps:
  flaky: { run: 'echo attempt $REFIT_ATTEMPT; test $REFIT_ATTEMPT -ge 3' }
  busy:
    run: 'if [ $REFIT_ATTEMPT -lt 3 ]; then echo the GPU is taken; exit 75; fi'
    retry: { attempts: 1, backoff: 100ms }
  hopeless: { run: 'echo no luck; exit 3', retry: { attempts: 2, backoff: 10ms } }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("again", json!({})).await;
    let over = api.wait_run(&run, "failed", PATIENCE).await;
    let flaky = Api::step(&over, "flaky");
    assert_eq!((&flaky["state"], &flaky["attempt"]), (&json!("succeeded"), &json!(3)));
    let busy = Api::step(&over, "busy");
    assert_eq!(
        (&busy["state"], &busy["attempt"]),
        (&json!("succeeded"), &json!(3)),
        "75 asks for a retry: {busy}"
    );
    let hopeless = Api::step(&over, "hopeless");
    assert_eq!((&hopeless["state"], &hopeless["attempt"]), (&json!("failed"), &json!(2)));
    assert_eq!(hopeless["reason"], "exit code 3: no luck (after 2 attempts)");

    // The pauses are at least four fifths of 500 ms and of a second; how much longer depends on the machine.
    let page = api.get(&format!("/api/v1/runs/{run}/logs?step=flaky")).await.ok();
    let times: Vec<refit_workflows::time::Timestamp> = page["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| serde_json::from_value(piece["at"].clone()).unwrap())
        .collect();
    assert_eq!(times.len(), 3, "{page}");
    assert!(times[1].since(times[0]) >= Duration::from_millis(400), "{page}");
    assert!(times[2].since(times[1]) >= Duration::from_millis(800), "{page}");
}

// ---------------------------------------------------------------------------------------------------------------
// Workers come and go

const WAITS: &str = "
workflow: waits
steps:
  a:
    run: |
      echo begun
      until [ -e SHARED/go ]; do sleep 0.05; done
      echo value=yes >> $REFIT_OUTPUTS
  b: { needs: [a], run: echo done }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_finishes_its_step_and_takes_no_other() {
    let house = House::start().await;
    let worker = house.worker("first", 2);
    house.apply(WAITS).await;
    let api = house.api();
    let run = api.start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;

    let leaving = tokio::task::spawn_blocking(move || {
        let mut worker = worker;
        let status = worker.terminate();
        (worker, status)
    });
    eventually("the worker says that it leaves", PATIENCE, async || {
        let workers = api.get("/api/v1/workers").await.ok();
        (workers[0]["state"] == "draining").then_some(())
    })
    .await;
    // It has a slot free, and yet this run is not for it.
    let later = api.start_run("waits", json!({})).await;
    house.go();
    let (worker, status) = leaving.await.unwrap();
    assert!(status.success(), "{status}");
    let seen = api.run(&run).await;
    assert_eq!(Api::step(&seen, "a")["state"], "succeeded");
    assert_eq!(Api::step(&seen, "b")["state"], "ready", "it took no more");
    assert_eq!(Api::step(&api.run(&later).await, "a")["state"], "ready", "it took no more");
    drop(worker);

    let _second = house.worker("second", 2);
    for run in [&run, &later] {
        let over = api.wait_run(run, "succeeded", PATIENCE).await;
        assert_eq!(Api::step(&over, "b")["worker"], "second");
    }
    assert_eq!(house.epochs(&run).await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_nothing_behind_once_it_is_back_and_its_step_runs_again() {
    let house = House::start().await;
    let mut worker = house.worker("w", 2);
    let marker = marker();
    let workflow = "
workflow: crash
steps:
  a:
    run: |
      echo attempt $REFIT_ATTEMPT
      if [ $REFIT_ATTEMPT = 1 ]; then
        setsid sh -c 'trap \"\" TERM; cd /; sleep MARK; sleep MARK' &
        sleep MARK
      fi
";
    house.apply(&workflow.replace("MARK", &marker)).await;
    let api = house.api();
    let run = api.start_run("crash", json!({})).await;
    eventually("the step runs", PATIENCE, async || {
        (processes_with(&format!("sleep {marker}")).len() >= 3).then_some(())
    })
    .await;
    house.wait_log(&run, "a", "attempt 1\n").await;
    worker.kill9();
    assert!(!processes_with(&marker).is_empty(), "the step died with its worker: nothing is shown here");

    // The grace is ten minutes: only the new process's registration can give the step up this soon.
    worker.restart();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert_eq!(Api::step(&over, "a")["attempt"], 2);
    assert_eq!(house.epochs(&run).await, [2]);
    assert_eq!(api.log(&run, None).await, "attempt 1\nattempt 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_workers_step_goes_to_another_and_its_own_try_is_ended() {
    let house = House::with_grace(Duration::from_secs(3)).await;
    let frozen = house.worker("frozen", 1);
    let workflow = WAITS.replace("yes", "$REFIT_ATTEMPT").replace("SHARED/go", "SHARED/go-$REFIT_ATTEMPT");
    house.apply(&workflow).await;
    let api = house.api();
    let run = api.start_run("waits", json!({})).await;
    house.wait_log(&run, "a", "begun").await;
    let pid = Pid::from_raw(i32::try_from(frozen.pid().unwrap()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let _second = house.worker("second", 1);
    let taken = api.wait_run_until(&run, PATIENCE, |run| Api::step(run, "a")["attempt"] == 2).await;
    assert_eq!(Api::step(&taken, "a")["worker"], "second");
    // The second attempt ends now; the first would wait for ever.
    std::fs::write(house.file("go-2"), "").unwrap();
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    kill(pid, Signal::SIGCONT).unwrap();
    eventually("the frozen worker is told", PATIENCE, async || {
        let log = frozen.logs();
        let words = ["the outcome came too late", "is not ours any more", "gave up reporting the outcome"];
        words.iter().any(|words| log.contains(words)).then_some(())
    })
    .await;
    let later = api.run(&run).await;
    assert_eq!(later, over, "a late worker changed the run");
    assert!(frozen.step_processes().is_empty());
    assert_eq!(Api::step(&later, "a")["outputs"], json!({"value": "2"}));
    assert_eq!(house.epochs(&run).await[0], 2);
}

// ---------------------------------------------------------------------------------------------------------------
// People, models

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_cross_from_one_worker_to_another_after_an_approval() {
    let house = House::start().await;
    let mut first = house.worker("first", 1);
    house
        .apply(
            "
workflow: relay
steps:
  make:
    run: |
      mkdir -p out/deep/empty
      head -c 3000000 /dev/urandom > out/deep/weights.bin
      printf '#!/bin/sh\\necho I run\\n' > out/tool; chmod +x out/tool
      cp out/deep/weights.bin single.bin
      echo \"sum=$(sha256sum < single.bin)\" >> $REFIT_OUTPUTS
    artifacts: { folder: out, file: single.bin }
  ok: { needs: [make], approval: { timeout: 1h } }
  use:
    needs: [make, ok]
    run: |
      [ \"$(sha256sum < $REFIT_INPUTS/file)\" = \"$SUM\" ]
      [ \"$(sha256sum < $REFIT_INPUTS/folder/deep/weights.bin)\" = \"$SUM\" ]
      $REFIT_INPUTS/folder/tool
    env: { SUM: '${{ steps.make.outputs.sum }}' }
    inputs: { folder: '${{ steps.make.artifacts.folder }}', file: '${{ steps.make.artifacts.file }}' }
",
        )
        .await;
    let api = house.api();
    let run = api.start_run("relay", json!({})).await;
    let waiting = api.wait_run_until(&run, PATIENCE, |run| Api::step(run, "ok")["state"] == "waiting").await;
    assert_eq!(waiting["state"], "running");
    let artifacts = &Api::step(&waiting, "make")["artifacts"];
    assert_eq!(artifacts["file"]["bytes"], 3_000_000);
    assert_eq!(artifacts["folder"]["bytes"], 3_000_000 + 21);
    assert!(first.terminate().success());
    drop(first);

    let _second = house.worker("second", 1);
    exit(&house.refit(&["run", "approve", &run, "--reason", "looks right"]).await, 0);
    let over = api.wait_run(&run, "succeeded", PATIENCE).await;
    assert_eq!(
        (&Api::step(&over, "make")["worker"], &Api::step(&over, "use")["worker"]),
        (&json!("first"), &json!("second"))
    );
    assert_eq!(api.log(&run, Some("use")).await, "I run\n");
    let reason = Api::step(&over, "ok")["reason"].as_str().unwrap();
    assert!(reason.starts_with("approved by ") && reason.ends_with(": looks right"), "{reason}");
    exit(&house.refit(&["run", "approve", &run]).await, 5);
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

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_that_finish_at_once_on_two_workers_cannot_both_replace_one_champion() {
    let database = services::postgres().await;
    let options = || Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let (one, two) = (Orchestrator::start(options()).await, Orchestrator::start(options()).await);
    let _workers = [Worker::start(one.base_url(), "one", 1), Worker::start(two.base_url(), "two", 1)];
    let folder = tempfile::tempdir().unwrap();
    let api = one.api();
    let workflow = "
workflow: race
model: m
params: { accuracy: { type: number }, round: { type: integer } }
steps:
  train:
    run: |
      echo waiting
      until [ -e SHARED/go-$PARAM_ROUND ]; do sleep 0.01; done
      echo '{\"name\": \"accuracy\", \"value\": '$PARAM_ACCURACY'}' >> $REFIT_METRICS
      echo $REFIT_RUN > model.txt
    artifacts: { model: model.txt }
  gate:
    needs: [train]
    gate: { checks: [{ metric: accuracy, min: 0.5 }, { metric: accuracy, min_change: 0.01 }] }
  promote: { needs: [gate], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";
    api.apply(&workflow.replace("SHARED", &folder.path().display().to_string())).await;
    std::fs::write(folder.path().join("go-0"), "").unwrap();
    let first = api.start_run("race", json!({"accuracy": 0.6, "round": 0})).await;
    api.wait_run(&first, "succeeded", PATIENCE).await;
    for round in 1..=3 {
        let params = json!({"accuracy": 0.6 + 0.05 * f64::from(round), "round": round});
        let runs = [api.start_run("race", params.clone()).await, two.api().start_run("race", params).await];
        let mut workers = Vec::new();
        for run in &runs {
            eventually("both train", PATIENCE, async || {
                api.log(run, Some("train")).await.contains("waiting").then_some(())
            })
            .await;
            workers.push(Api::step(&api.run(run).await, "train")["worker"].clone());
        }
        assert_ne!(workers[0], workers[1], "each has a worker of its own");
        std::fs::write(folder.path().join(format!("go-{round}")), "").unwrap();
        let mut over = Vec::new();
        for run in &runs {
            over.push(api.wait_over(run, PATIENCE).await);
        }
        over.sort_by_key(|run| run["state"] != "succeeded");
        assert_eq!(over[0]["promoted"], json!({"model": "m", "version": round + 1, "alias": "champion"}));
        assert_eq!(over[1]["state"], "rejected", "the second is judged against the first: {:#}", over[1]);
        let decision = &Api::step(&over[1], "gate")["decision"];
        assert_eq!(decision["champion"], json!(round + 1), "{decision}");
    }
    let model = api.get("/api/v1/models/m").await.ok();
    assert_eq!(model["aliases"], json!({"champion": 4}));
    let history = api.get("/api/v1/models/m/history").await.ok();
    let moves: Vec<(Value, Value)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["from"].clone(), entry["to"].clone()))
        .collect();
    let expected: Vec<(Value, Value)> =
        [(json!(3), json!(4)), (json!(2), json!(3)), (json!(1), json!(2)), (Value::Null, json!(1))].into();
    assert_eq!(moves, expected);
}
