//! The contract between Refit and a step: what it finds around itself, what shows while it runs, what it may hand back.

use super::*;

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

    // Two pipes have no order between them; each has its own.
    let numbered = |from: usize| -> String {
        (from..30_000).step_by(2).map(|number| format!("line {number}\n")).collect()
    };
    for (stream, expected) in
        [("--stdout", format!("epoch 1\n{}no end\n", numbered(0))), ("--stderr", numbered(1))]
    {
        let log = exit(&house.refit(&["run", "logs", &run, "--step", "train", stream]).await, 0);
        assert!(
            log == expected,
            "{stream} of `train` is not in order or not whole: {}",
            difference(&log, &expected)
        );
    }
    let whole = exit(&house.refit(&["run", "logs", &run]).await, 0);
    let of = |step: &str| -> Vec<&str> {
        let lines = whole.lines().filter_map(|line| line.split_once(" | "));
        lines.filter(|(name, _)| name.trim() == step).map(|(_, line)| line).collect()
    };
    let even = of("train").into_iter().filter(|line| line.ends_with(['0', '2', '4', '6', '8']));
    let expected: Vec<String> = (0..30_000).step_by(2).map(|number| format!("line {number}")).collect();
    assert!(even.eq(expected.iter().map(String::as_str)), "among others it is not in order, or not whole");
    assert_eq!(of("train").len(), 30_002);
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
