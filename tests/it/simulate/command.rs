//! `refit simulate` as people and scripts use it: what it prints, in which form, from a file and from a server's log.

use std::path::Path;
use std::time::Duration;

use refit_tests::processes::{Options, Orchestrator, Said, refit, run_to_end};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(60);

const CHURN: &str = "
workflow: churn
model: churn
on:
  - event: { type: [dataset.updated] }
    where: region == 'eu'
    batch: { count: 3 }
concurrency: { limit: 1, on_conflict: queue }
steps:
  train: { run: [x], artifacts: { model: m } }
  gate: { needs: [train], gate: { checks: [{ metric: auc, min: 0.8 }] } }
  approve: { needs: [gate], approval: { from: [ada], timeout: 24h } }
  promote: { needs: [gate, approve], promote: { artifact: '${{ steps.train.artifacts.model }}' } }
";
const REPORT: &str = "
workflow: report
on: [{ event: { type: [refit.run.succeeded], data: { workflow: [churn] } } }]
steps: { a: { run: [x] } }
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("churn.yaml"), CHURN).unwrap();
    std::fs::write(folder.path().join("report.yaml"), REPORT).unwrap();
    folder
}

fn event(id: &str, minute: Option<u32>, region: &str) -> Value {
    let mut event = json!({ "id": id, "source": "/crm", "type": "dataset.updated", "region": region });
    if let Some(minute) = minute {
        event["time"] = json!(format!("2026-01-05T08:{minute:02}:00Z"));
    }
    event
}

fn ends(code: i32, folder: &Path, arguments: &[&str]) -> Said {
    let said = run_to_end(refit(folder, arguments), WAIT);
    assert_eq!(said.code, Some(code), "refit {}:\n{}{}", arguments.join(" "), said.out, said.err);
    assert!(!format!("{}{}", said.out, said.err).contains('\u{1b}'), "escape codes in a pipe: {said:?}");
    said
}

fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&ends(0, folder, &[arguments, &["-o", "json"]].concat()).out).unwrap()
}

fn decisions(simulated: &Value, id: &str) -> Vec<String> {
    let events = simulated["events"].as_array().unwrap();
    let event = events.iter().find(|event| event["id"] == id).unwrap_or_else(|| panic!("no event {id}"));
    event["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["decision"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_file_of_events_becomes_runs_on_a_virtual_clock() {
    let folder = folder();
    let events = [
        event("late", Some(30), "eu"),
        event("first", Some(0), "eu"),
        event("first", Some(0), "eu"),
        event("with-it", None, "us"),
        event("second", Some(1), "eu"),
        event("third", Some(2), "eu"),
    ];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(folder.path().join("lines.jsonl"), lines).unwrap();
    std::fs::write(folder.path().join("array.json"), json!(events).to_string()).unwrap();
    let simulate = ["simulate", ".", "--events", "lines.jsonl", "--step-takes", "10m"];

    let simulated = json_of(folder.path(), &simulate);
    let array = json_of(folder.path(), &["simulate", ".", "--events", "array.json", "--step-takes", "10m"]);
    assert_eq!(simulated, array);
    let yaml = ends(0, folder.path(), &[&simulate[..], &["-o", "yaml"]].concat()).out;
    assert_eq!(serde_yaml::from_str::<Value>(&yaml).unwrap(), simulated);

    let runs = simulated["runs"].as_array().unwrap();
    let told: Vec<Value> = runs
        .iter()
        .map(|run| json!([run["run"], run["state"], run["started_at"], run["finished_at"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["churn/1", "succeeded", "2026-01-05T08:02:00.000Z", "2026-01-05T08:12:00.000Z"]),
            json!(["report/1", "succeeded", "2026-01-05T08:12:00.000Z", "2026-01-05T08:22:00.000Z"]),
        ]
    );
    assert_eq!(runs[0]["events"], json!(["first", "second", "third"]));
    assert_eq!(runs[0]["promoted"]["version"], 1);
    assert_eq!(decisions(&simulated, "first"), ["batched", "started", "duplicate"]);
    assert_eq!(decisions(&simulated, "with-it"), ["unmatched"]);
    assert_eq!(decisions(&simulated, "late"), ["batched"]);

    let table = ends(0, folder.path(), &simulate).out;
    for part in [
        "6 events → 2 runs of 2 workflows",
        "Steps were not run: each took 10m 0s and succeeded, gates passed, approvals were given at once.",
        "churn/1   2026-01-05 08:02:00  ✓ succeeded       3  a batch of 3 events",
        "batched, not fired       1",
        "`where` does not hold",
        "first          dataset.updated      2026-01-05 08:00:00  batched churn/1, started churn/1, duplicate",
    ] {
        assert!(table.contains(part), "`{part}` is missing in:\n{table}");
    }
    let short = ends(0, folder.path(), &[&simulate[..], &["--limit", "1"]].concat()).out;
    assert!(short.contains("the first 1 of 2 runs; --limit N shows more, -o json all"), "{short}");
    assert!(!short.contains("report/1  2026"), "{short}");
    let ended = ends(0, folder.path(), &[&simulate[..], &["--for", "5m"]].concat()).out;
    assert!(
        ended.contains("1 run not over at the end") && ended.contains("1 event after the end"),
        "{ended}"
    );
}

#[test]
fn schedules_go_on_for_a_day_after_the_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let nightly = "workflow: nightly\non: [{ cron: '0 3 * * *' }]\nsteps: { a: { run: [x] } }\n";
    std::fs::write(folder.path().join("w.yaml"), nightly).unwrap();
    std::fs::write(folder.path().join("e.jsonl"), event("e", Some(0), "eu").to_string()).unwrap();
    let runs = |more: &[&str]| -> Vec<Value> {
        let simulated = json_of(folder.path(), &[&["simulate", ".", "--events", "e.jsonl"], more].concat());
        simulated["runs"].as_array().unwrap().iter().map(|run| run["created_at"].clone()).collect()
    };
    assert_eq!(runs(&[]), ["2026-01-06T03:00:00.000Z"]);
    assert_eq!(runs(&["--for", "2d"]), ["2026-01-06T03:00:00.000Z", "2026-01-07T03:00:00.000Z"]);
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_exit_code() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("bad.jsonl", &format!("{}\n\n{{\"id\": \"x\"}}\n", event("a", None, "eu")));
    write(
        "own.json",
        &format!(
            "[{},\n {{\"id\": \"x\", \"source\": \"/refit/x\", \"type\": \"t\"}}]",
            event("a", None, "eu")
        ),
    );
    write("good.jsonl", "");
    for (file, says) in
        [("bad.jsonl", "line 3: `source` is missing"), ("own.json", "line 2: sources under `/refit/`")]
    {
        let said = ends(2, folder.path(), &["simulate", ".", "--events", file]);
        assert!(said.err.contains(file) && said.err.contains(says), "{}", said.err);
    }
    let nothing = json_of(folder.path(), &["simulate", ".", "--events", "good.jsonl"]);
    assert_eq!(nothing, json!({ "runs": [], "events": [] }));
    write("broken.yaml", "workflow: w\nsteps:\n  a:\n    run: [a]\n    nedes: []\n");
    let said = ends(3, folder.path(), &["simulate", ".", "--events", "good.jsonl"]);
    assert!(said.err.contains("broken.yaml:5:5"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_history_is_simulated_with_its_own_workflows_or_with_others() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    for text in [CHURN, REPORT] {
        api.apply(text).await;
    }
    // More than a page; sent one by one where the order counts.
    for number in 0..7 {
        api.send_events(&[event(&format!("e{number}"), Some(59), if number == 3 { "us" } else { "eu" })])
            .await;
    }
    let many: Vec<Value> = (0..700).map(|number| event(&format!("m{number:03}"), None, "us")).collect();
    api.send_events(&many).await;
    api.start_run("report", json!({})).await;
    refit_tests::eventually("all is decided", WAIT, async || {
        let last = api.get("/api/v1/events?limit=1&outside=true").await.ok();
        (!last[0]["decisions"].as_array()?.is_empty()).then_some(())
    })
    .await;

    let folder = folder();
    let history = ["simulate", "--history", "--since", "1h", "--server", orchestrator.base_url()];
    let simulated = json_of(folder.path(), &history);
    assert_eq!(simulated["runs"][0]["events"], json!(["e0", "e1", "e2"]));
    for id in ["e0", "e2", "e3", "e6", "m699"] {
        let live = api.get(&format!("/api/v1/events/by-id?id={id}")).await.ok();
        let live: Vec<&str> = live[0]["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["decision"].as_str().unwrap())
            .collect();
        assert_eq!(decisions(&simulated, id), live, "{id}");
    }
    let sources =
        simulated["events"].as_array().unwrap().iter().map(|event| event["source"].as_str().unwrap());
    assert!(
        !sources.clone().any(|source| source.starts_with("/refit/people")),
        "a start by hand was taken along"
    );
    assert_eq!(sources.filter(|source| *source == "/crm").count(), 707);
    let reports = |simulated: &Value| {
        simulated["runs"].as_array().unwrap().iter().filter(|run| run["workflow"] == "report").count()
    };
    // Two batches of three, of which the second waits for the first.
    assert_eq!(reports(&simulated), 2);

    std::fs::write(folder.path().join("churn.yaml"), CHURN.replace("count: 3", "count: 2")).unwrap();
    let others = json_of(folder.path(), &[&history[..1], &["."], &history[1..]].concat());
    assert_eq!(reports(&others), 3);
    let table = ends(0, folder.path(), &history).out;
    assert!(table.contains("what the server received from outside since"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_workflows_come_with_the_files_they_use() {
    const USING: &str = "
workflow: using
on: [{ event: { type: [dataset.updated] }, where: data == null }]
steps: { a: { uses: { file: steps/outer.yaml, with: { x: eu } } } }
";
    let used = json!({
        "steps/outer.yaml": "with: { x: {} }\nuses: { file: steps/inner.yaml, with: { x: '${{ with.x }}' } }\n",
        "steps/inner.yaml": "with: { x: {} }\nrun: [echo, '${{ with.x }}']\n",
    });
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    api.post("/api/v1/workflows", &json!({ "text": USING, "bundle": null, "used": used })).await.ok();
    assert_eq!(api.get("/api/v1/workflows/using").await.ok()["used"], used);
    assert_eq!(api.get("/api/v1/workflows").await.ok()[0].get("used"), None, "a listing names no files");

    let mut null = event("null", None, "eu");
    null["data"] = Value::Null;
    let mut none = event("none", None, "eu");
    none["data"] = json!({ "rows": 1 });
    api.send_events(&[null, none, event("absent", None, "eu")]).await;
    let log = api.get("/api/v1/events?order=oldest&data=true&outside=true").await.ok();
    let data = |id: &str| {
        let event = log.as_array().unwrap().iter().find(|event| event["id"] == id).unwrap();
        event.get("data").cloned()
    };
    assert_eq!(data("null"), Some(Value::Null));
    assert_eq!(data("none"), Some(json!({ "rows": 1 })));
    assert_eq!(data("absent"), None);

    let empty = tempfile::tempdir().unwrap();
    let history = ["simulate", "--history", "--since", "1h", "--server", orchestrator.base_url()];
    let simulated = json_of(empty.path(), &history);
    assert_eq!(decisions(&simulated, "null"), ["started"]);
    assert_eq!(decisions(&simulated, "none"), ["unmatched"]);
    let found = |id: &str| {
        let events = simulated["events"].as_array().unwrap();
        events.iter().find(|event| event["id"] == id).unwrap().get("data").cloned()
    };
    assert_eq!((found("null"), found("absent")), (Some(Value::Null), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_oldest_first_in_pages() {
    let orchestrator = Orchestrator::start(Options::default()).await;
    let api = orchestrator.api();
    let heavy = |number: u32| {
        let mut event = event(&format!("e{number}"), None, "eu");
        event["data"] = json!("x".repeat(200_000));
        event
    };
    for number in 0..60 {
        api.send_events(&[heavy(number)]).await;
    }
    let (mut ids, mut pages, mut after) = (Vec::new(), 0, 0);
    loop {
        let query = format!("/api/v1/events?order=oldest&data=true&outside=true&limit=1000&after={after}");
        let page = api.get(&query).await.ok();
        let page = page.as_array().unwrap();
        let Some(last) = page.last() else { break };
        assert_eq!(last["attributes"]["region"], "eu");
        assert_eq!(last["data"].as_str().map(str::len), Some(200_000));
        after = last["seq"].as_i64().unwrap();
        ids.extend(page.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
        pages += 1;
    }
    assert_eq!(ids, (0..60).map(|number| format!("e{number}")).collect::<Vec<_>>());
    assert_eq!(pages, 2, "12 MB of events are not one page");
    let newest = api.get(&format!("/api/v1/events?limit=2&after={after}")).await.ok();
    assert_eq!(
        (&newest[0]["id"], &newest[1]["id"], newest[0].get("data")),
        (&json!("e58"), &json!("e57"), None)
    );
    for (query, field) in [("order=sideways", "order"), ("data=perhaps", "data"), ("after=x", "after")] {
        let problem = api.get(&format!("/api/v1/events?{query}")).await.refused(400);
        assert!(problem.to_string().contains(field), "{problem}");
    }
}
