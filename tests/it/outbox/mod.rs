//! Events that go out: to RabbitMQ exchanges and to webhooks that are slow, away, broken or hostile, from orchestrators that
//! are killed meanwhile. Nothing missing, every run's events in order, the same event under the same id.

mod everything;
mod page;
mod promotion;
mod receiver;
mod targets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use refit_tests::api::{Api, event};
use refit_tests::processes::{Options, Orchestrator};
use refit_tests::services::{self, Database};
use refit_tests::{eventually, soak};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A chain whose every step says something; the end of the run says more.
const CHAIN: &str = "
workflow: chain
on: [{ event: { type: [data.go] } }]
concurrency: { on_conflict: parallel }
steps:
  first: { emit: { type: chain.first, data: { run: '${{ run.name }}' } } }
  second: { needs: [first], emit: { type: chain.second } }
  third: { needs: [second], emit: { type: chain.third } }
";
const TYPES: [&str; 4] = ["chain.first", "chain.second", "chain.third", "refit.run.succeeded"];

/// The run an outbound event is of: its id begins with the run's name (`chain/7/…`).
fn run_of(event: &Value) -> String {
    let id = event["id"].as_str().unwrap();
    id.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")
}

/// Checks that these deliveries, in the order they were accepted, tell everything that these runs said: each event at
/// least once, always the same under one id, and first deliveries in the order of the run.
fn check_deliveries(accepted: &[Value], runs: usize) {
    let mut known: HashMap<&str, &Value> = HashMap::new();
    let mut firsts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for event in accepted {
        match known.insert(event["id"].as_str().unwrap(), event) {
            Some(before) => assert_eq!(before, event, "one id, two events"),
            None => firsts.entry(run_of(event)).or_default().push(event["type"].as_str().unwrap()),
        }
    }
    assert_eq!(firsts.len(), runs, "runs that were heard of");
    for (run, types) in firsts {
        assert_eq!(types, TYPES, "events of {run}");
    }
}

async fn go(orchestrator: &Orchestrator, numbers: std::ops::Range<usize>) {
    let events: Vec<Value> =
        numbers.map(|number| event(&format!("go-{number}"), "data.go", json!(number))).collect();
    orchestrator.api().send_events(&events).await;
}

/// Writes `refit.yaml` with these targets; the arguments that name it.
fn settings(folder: &Path, targets: &Value) -> Vec<String> {
    let path = folder.join("refit.yaml");
    // JSON is YAML.
    std::fs::write(&path, json!({ "targets": targets }).to_string()).unwrap();
    vec!["--config".to_owned(), path.display().to_string()]
}

async fn target(api: &Api, name: &str) -> Value {
    api.get(&format!("/api/v1/targets/{name}")).await.ok()
}

/// Waits until a target is in this state.
async fn wait_for_state(api: &Api, name: &str, state: &str) -> Value {
    eventually(&format!("target {name} is {state}"), PATIENCE, async || {
        Some(target(api, name).await).filter(|found| found["state"] == state)
    })
    .await
}
