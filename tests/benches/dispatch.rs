//! How soon a step that is ready starts while many workers wait, beside a bare spawn in the same run; and how many steps a
//! second are given out. Prints; judges nothing. `tests/run --bench` runs it.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has nobody to tell but its terminal")]
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use refit_tests::api::Api;
use refit_tests::eventually;
use refit_tests::processes::{Options, Orchestrator, Worker};
use refit_tests::services::{self, Database};
use refit_workflows::time::Timestamp;
use serde_json::{Value, json};

/// Workers that wait, each with one slot.
const WORKERS: usize = 50;
/// Steps whose start is timed, one after the other.
const STEPS: usize = 200;
/// Steps that are given out as fast as that goes.
const READY: usize = 1000;
/// How many ask for them at once.
const ASKING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(120);
/// What a step and a bare spawn run: it says when it was started.
const STAMP: &str = "date +%s%N";

fn main() {
    // Two things would be measured at once if this ran in a debug build of refit.
    if std::env::var_os("REFIT_TEST_BINARY").is_none() {
        let release = refit_tests::processes::release_binary();
        let this = std::env::current_exe().expect("this program has a path");
        let status = Command::new(this).env("REFIT_TEST_BINARY", release).status();
        std::process::exit(status.expect("this program starts again").code().unwrap_or(1));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        println!("| database | what | Refit | bare |\n| --- | --- | ---: | ---: |");
        measure(services::sqlite()).await;
        measure(services::postgres().await).await;
    });
}

async fn measure(database: Database) {
    let kind = database.kind();
    let options = Options { database_url: Some(database.url().to_owned()), ..Options::default() };
    let server = Orchestrator::start(options).await;
    let api = server.api();
    let rate = throughput(&api).await;
    println!("| {kind} | steps given out, {ASKING} asking at once | {rate:.0}/s | – |");

    let workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::start(server.base_url(), &format!("bench-{number}"), 1)).collect();
    eventually("the workers are there", PATIENCE, async || {
        let there = api.get("/api/v1/workers").await.ok();
        let there = there.as_array().map_or(0, Vec::len);
        (there > WORKERS).then_some(())
    })
    .await;
    let (refit, bare) = latencies(&api).await;
    for (name, share) in [("p50", 50), ("p99", 99)] {
        let at = |times: &[Duration]| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        let (refit, bare) = (at(&refit), at(&bare));
        println!(
            "| {kind} | ready to started, {WORKERS} workers waiting, {name} | {refit:.1} ms | {bare:.1} ms |"
        );
    }
    drop(workers);
}

/// Of steps from ready to their process's first words, and of bare spawns to theirs, both sorted.
async fn latencies(api: &Api) -> (Vec<Duration>, Vec<Duration>) {
    let text =
        format!("workflow: once\nsteps:\n  a: {{ run: 'echo \"at=$({STAMP})\" >> $REFIT_OUTPUTS' }}\n");
    api.apply(&text).await;
    let (mut refit, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let run = api.start_run("once", json!({})).await;
        let over = api.wait_run(&run, "succeeded", PATIENCE).await;
        let step = Api::step(&over, "a");
        let ready = step["ready_at"].as_str().expect("it was ready");
        let ready = Timestamp::parse(ready).expect("a time").as_millis();
        let nanos = stamp(&text_of(&step["outputs"]["at"]));
        let ready = Duration::from_millis(u64::try_from(ready).expect("after 1970"));
        refit.push(nanos.saturating_sub(ready));

        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let output = Command::new("sh").args(["-c", STAMP]).output().expect("sh starts");
        bare.push(stamp(&String::from_utf8_lossy(&output.stdout)).saturating_sub(begun));
    }
    refit.sort_unstable();
    bare.sort_unstable();
    (refit, bare)
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn stamp(text: &str) -> Duration {
    Duration::from_nanos(text.trim().parse().expect("nanoseconds"))
}

/// How many steps a second are leased, one a call.
async fn throughput(api: &Api) -> f64 {
    let numbers: Vec<String> = (0..READY).map(|number| number.to_string()).collect();
    let steps = format!("a: {{ matrix: {{ n: [{}] }}, run: [x] }}", numbers.join(", "));
    api.apply(&format!("workflow: many\nsteps:\n  {steps}\n")).await;
    let register = json!({
        "protocol": 1, "worker": "asking", "session": "asking", "labels": {}, "slots": 10_000, "cpus": 1, "memory": 0,
        "gpus": 0, "version": "bench",
    });
    api.post("/api/v1/worker/register", &register).await.ok();
    let run = api.start_run("many", json!({})).await;
    let begun = Instant::now();
    let asking = (0..ASKING).map(|_| async {
        let lease = json!({ "worker": "asking", "session": "asking", "slots": 1, "wait_ms": 0 });
        let mut given = 0;
        loop {
            let answer = api.post("/api/v1/worker/lease", &lease).await.ok();
            match answer["orders"].as_array().map_or(0, Vec::len) {
                0 => return given,
                more => given += more,
            }
        }
    });
    let given: usize = futures_util::future::join_all(asking).await.into_iter().sum();
    let taken = begun.elapsed();
    api.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await.ok();
    given as f64 / taken.as_secs_f64()
}
