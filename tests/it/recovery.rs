//! What a crash costs: time. Orchestrators and workers are killed, frozen and started again while runs go through;
//! every run ends, every step has exactly one accepted outcome, and what a dead worker says later changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use refit_orchestrator::engine::Engine;
use refit_orchestrator::{Config, open_engine};
use refit_tests::api::Api;
use refit_tests::processes::{Options, Orchestrator, Worker};
use refit_tests::services::{self, Database};
use refit_tests::{eventually, soak};
use refit_workflows::names::RunName;
use refit_workflows::run::{Input, Run};
use refit_workflows::wire::{Failure, Outcome, WORKER_PROTOCOL};
use serde_json::{Value, json};

/// How long a lease lives without a renewal: short, so that losing one is an everyday event here.
const GRACE: Duration = Duration::from_secs(3);

const DIAMOND: &str = "
workflow: diamond
steps:
  a: { run: 'true' }
  b: { needs: [a], run: sleep 0.3 }
  c: { needs: [a], run: sleep 0.05; echo c=1 >> $REFIT_OUTPUTS }
  d: { needs: [b, c], run: echo d }
";

/// One siege: how long, of what size.
struct Siege {
    database: Database,
    orchestrators: usize,
    workers: usize,
    runs: usize,
    lasts: Duration,
    /// How long everything may take to be over once nothing is killed any more.
    recovers_within: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_two_orchestrators_and_three_workers_are_killed_at_random() {
    let (runs, lasts, recovers_within) = if soak() { (300, 60, 120) } else { (40, 12, 60) };
    let siege = Siege {
        database: services::postgres().await,
        orchestrators: 2,
        workers: 3,
        runs,
        lasts: Duration::from_secs(lasts),
        recovers_within: Duration::from_secs(recovers_within),
    };
    siege.endure().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_only_orchestrator_on_sqlite_is_killed_at_random() {
    let (runs, lasts, recovers_within) = if soak() { (300, 60, 120) } else { (40, 12, 60) };
    let siege = Siege {
        database: services::sqlite(),
        orchestrators: 1,
        workers: 2,
        runs,
        lasts: Duration::from_secs(lasts),
        recovers_within: Duration::from_secs(recovers_within),
    };
    siege.endure().await;
}

impl Siege {
    async fn endure(self) {
        let seed = std::env::var("REFIT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(rand::random);
        println!("{}: seed {seed} (REFIT_TEST_SEED={seed} repeats the choices)", self.database.kind());
        let begun = Instant::now();

        let mut orchestrators = Vec::new();
        for _ in 0..self.orchestrators {
            orchestrators.push(start(&self.database, GRACE).await);
        }
        let apis: Vec<Api> = orchestrators.iter().map(Orchestrator::api).collect();
        apis[0].apply(DIAMOND).await;
        let workers: Vec<Worker> = (0..self.workers)
            .map(|index| {
                let server = orchestrators[index % self.orchestrators].base_url();
                Worker::start(server, &format!("worker-{index}"), 4)
            })
            .collect();

        let until = Instant::now() + self.lasts;
        let dice = |stream: usize| StdRng::seed_from_u64(seed.wrapping_add(stream as u64));
        let over = Arc::new(AtomicBool::new(false));
        let mut stream = 0;
        let mut tasks = (Vec::new(), Vec::new());
        for orchestrator in orchestrators {
            stream += 1;
            tasks.0.push(tokio::spawn(torment_orchestrator(orchestrator, dice(stream), until)));
        }
        for worker in workers {
            stream += 1;
            tasks.1.push(tokio::spawn(torment_worker(worker, dice(stream), until)));
        }
        let ghost = tokio::spawn(haunt(apis.clone(), Arc::clone(&over)));
        let mut beat = tokio::time::interval(self.lasts / u32::try_from(self.runs).unwrap());
        for number in 0..self.runs {
            beat.tick().await;
            start_run(&apis, &format!("{seed}-{number}")).await;
        }
        let (mut kills, mut freezes) = (0, 0);
        let (mut orchestrators, mut workers) = (Vec::new(), Vec::new());
        for task in tasks.0 {
            let (orchestrator, killed) = task.await.unwrap();
            kills += killed;
            orchestrators.push(orchestrator);
        }
        for task in tasks.1 {
            let (worker, killed, frozen) = task.await.unwrap();
            kills += killed;
            freezes += frozen;
            workers.push(worker);
        }
        let recovery = Instant::now();
        self.wait_until_all_succeeded(&apis[0]).await;
        let recovered = recovery.elapsed();
        over.store(true, Ordering::Relaxed);
        let refused = ghost.await.unwrap();
        let told_too_late: usize = workers.iter().map(|worker| too_late(&worker.logs())).sum();
        for worker in &mut workers {
            assert!(worker.terminate().success());
            assert!(worker.step_processes().is_empty(), "a step outlived its worker");
        }
        for orchestrator in &mut orchestrators {
            assert!(orchestrator.terminate().success());
        }
        let found = self.inspect().await;
        println!(
            "{}: {kills} kills and {freezes} freezes; {} runs and {} steps succeeded, {} leases were lost, {refused} \
             late reports of a silent worker and {told_too_late} of real ones were refused; {:.1} s in all, {:.1} s \
             after the last fault",
            self.database.kind(),
            self.runs,
            found.outcomes,
            found.lost,
            begun.elapsed().as_secs_f64(),
            recovered.as_secs_f64(),
        );
        assert!(kills >= 3, "nothing was tried: {kills} kills");
        assert!(refused > 0, "no late report was tried");
        assert!(found.lost > 0, "no lease was ever lost: the siege was too gentle");
    }

    async fn wait_until_all_succeeded(&self, api: &Api) {
        let begun = Instant::now();
        loop {
            let succeeded = self.database.number("SELECT COUNT(*) FROM runs WHERE state = 'succeeded'").await;
            if succeeded == i64::try_from(self.runs).unwrap() {
                return;
            }
            if begun.elapsed() > self.recovers_within {
                let mut stuck = Vec::new();
                for run in api.runs("diamond").await.iter().filter(|run| run["state"] != "succeeded") {
                    stuck.push(api.run(run["run"].as_str().unwrap()).await);
                }
                let workers = api.get("/api/v1/workers").await.ok();
                panic!(
                    "{succeeded} of {} runs succeeded {:?} after the last fault; the others: {stuck:#?}; the \
                     workers: {workers:#}",
                    self.runs, self.recovers_within
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads every run's journal with nobody else about.
    async fn inspect(&self) -> Found {
        let engine = engine(&self.database).await;
        let mut found = Found::default();
        let count = self.database.number("SELECT COUNT(*) FROM runs").await;
        assert_eq!(
            count,
            i64::try_from(self.runs).unwrap(),
            "one run per id, however often it was asked for"
        );
        for number in 1..=count {
            let name = RunName::new("diamond", number);
            let stored = engine.store().load_run(&name).await.unwrap();
            let journal = engine.store().journal(&name).await.unwrap();
            let mut replayed = Run::create(stored.workflow().clone(), stored.facts().clone());
            let mut outcomes = [0; 4];
            let mut answered: BTreeMap<(usize, i64), usize> = BTreeMap::new();
            for (at, input) in &journal {
                replayed.apply(input, *at).unwrap();
                match input {
                    Input::Finished { step, epoch, outcome, set_up_ms: _ } => {
                        *answered.entry((*step, *epoch)).or_default() += 1;
                        match outcome {
                            Outcome::Succeeded(_) => outcomes[*step] += 1,
                            // A worker that was cut off says so itself when it can.
                            Outcome::Failed { failure: Failure::WorkerLost, .. } => found.lost += 1,
                            other => panic!("{name}: a late report was accepted: {other:?}"),
                        }
                    }
                    Input::WorkerLost { step, epoch, .. } => {
                        *answered.entry((*step, *epoch)).or_default() += 1;
                        found.lost += 1;
                    }
                    _ => {}
                }
            }
            assert_eq!(outcomes, [1; 4], "{name}: accepted outcomes by step");
            assert!(
                answered.values().all(|&times| times == 1),
                "{name}: an attempt ended twice: {answered:?}"
            );
            assert_eq!(replayed.head(), stored.head(), "{name}: replay");
            assert_eq!(replayed.steps(), stored.steps(), "{name}: replay");
            assert_eq!(replayed.version(), stored.version(), "{name}: replay");
            found.outcomes += 4;
        }
        found
    }
}

#[derive(Default)]
struct Found {
    /// Accepted successes.
    outcomes: usize,
    /// Attempts that were given up.
    lost: usize,
}

async fn start(database: &Database, grace: Duration) -> Orchestrator {
    let database_url = Some(database.url().to_owned());
    Orchestrator::start(Options { database_url, grace: Some(grace), ..Options::default() }).await
}

/// The inside of an orchestrator that does nothing by itself, to look at the database with.
async fn engine(database: &Database) -> Engine {
    let mut config = Config::local(std::env::temp_dir());
    config.database_url = Some(database.url().to_owned());
    open_engine(config).await.unwrap()
}

/// How often a worker noted that a report of its own was refused or unwanted.
fn too_late(log: &str) -> usize {
    ["the outcome came too late", "is not ours any more", "gave up telling the outcome"]
        .iter()
        .map(|words| log.matches(words).count())
        .sum()
}

/// Kills an orchestrator and starts it again, over and over. Gives it back running.
async fn torment_orchestrator(
    mut orchestrator: Orchestrator,
    mut dice: StdRng,
    until: Instant,
) -> (Orchestrator, usize) {
    let mut kills = 0;
    while wait(&mut dice, 1500..5000, until).await {
        orchestrator.kill9();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(dice.random_range(50..1500))).await;
        orchestrator.restart().await;
    }
    (orchestrator, kills)
}

/// Kills a worker and starts it again, or freezes it for longer than its leases live, over and over.
async fn torment_worker(mut worker: Worker, mut dice: StdRng, until: Instant) -> (Worker, usize, usize) {
    let (mut kills, mut freezes) = (0, 0);
    while wait(&mut dice, 700..3000, until).await {
        if dice.random_bool(0.2) {
            signal(&worker, Signal::SIGSTOP);
            tokio::time::sleep(GRACE + Duration::from_millis(dice.random_range(500..2000))).await;
            signal(&worker, Signal::SIGCONT);
            freezes += 1;
        } else {
            worker.kill9();
            kills += 1;
            tokio::time::sleep(Duration::from_millis(dice.random_range(50..1000))).await;
            worker.restart();
        }
    }
    (worker, kills, freezes)
}

/// Waits some milliseconds; false once it is over.
async fn wait(dice: &mut StdRng, range: std::ops::Range<u64>, until: Instant) -> bool {
    tokio::time::sleep(Duration::from_millis(dice.random_range(range))).await;
    Instant::now() < until
}

fn signal(worker: &Worker, signal: Signal) {
    let pid = worker.pid().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Asks the orchestrators in turn until one answers for good.
async fn ask(apis: &[Api], path: &str, body: &Value) -> refit_tests::api::Reply {
    let begun = Instant::now();
    for api in apis.iter().cycle() {
        match api.try_post(path, body).await {
            Ok(reply) if reply.status < 500 => return reply,
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody answers POST {path}");
    }
    unreachable!("there is an orchestrator");
}

/// Starts one run, however often it has to be asked for: the id makes sure that it is one.
async fn start_run(apis: &[Api], id: &str) {
    ask(apis, "/api/v1/runs", &json!({"workflow": "diamond", "params": {}, "id": id})).await.ok();
}

/// A worker that takes steps, falls silent or is replaced, and reports each as failed after it was given to another.
/// Answers with how many of its reports were refused; one that is accepted is a failure.
async fn haunt(apis: Vec<Api>, over: Arc<AtomicBool>) -> usize {
    let mut refused = 0;
    let mut replaced = false;
    while !over.load(Ordering::Relaxed) {
        let session = uuid::Uuid::new_v4().to_string();
        register(&apis, &session).await;
        let lease = json!({"worker": "ghost", "session": session, "slots": 1, "wait_ms": 500});
        let leased = ask(&apis, "/api/v1/worker/lease", &lease).await;
        let order = leased.body["orders"][0].clone();
        if leased.status != 200 || order.is_null() {
            continue;
        }
        replaced = !replaced;
        if replaced {
            // As after a crash: the next process of the same name gives the lease up at once.
            register(&apis, &uuid::Uuid::new_v4().to_string()).await;
        }
        let key = &order["key"];
        given_to_another(
            &apis,
            key["run"].as_str().unwrap(),
            key["step"].as_str().unwrap(),
            &order["attempt"],
        )
        .await;
        let outcome =
            json!({"outcome": "failed", "failure": {"kind": "exit", "code": 1}, "reason": "a late report"});
        let finish = json!({"key": key, "outcome": outcome, "next": null});
        let answer = ask(&apis, "/api/v1/worker/finish", &finish).await;
        assert!(matches!(answer.status, 409 | 410), "{key}: a late outcome was answered {answer:?}");
        let report = json!({"key": key, "attempt": order["attempt"], "logs": [], "metrics": {"late": 1.0}});
        let answer = ask(&apis, "/api/v1/worker/report", &report).await;
        assert!(matches!(answer.status, 409 | 410), "{key}: a late report was answered {answer:?}");
        refused += 2;
    }
    refused
}

async fn register(apis: &[Api], session: &str) {
    let register = json!({
        "protocol": WORKER_PROTOCOL, "worker": "ghost", "session": session, "labels": {}, "slots": 1, "cpus": 1,
        "memory": 1, "gpus": 0, "version": "test",
    });
    ask(apis, "/api/v1/worker/register", &register).await.ok();
}

async fn given_to_another(apis: &[Api], run: &str, step: &str, attempt: &Value) {
    let path = format!("/api/v1/runs/{run}");
    let begun = Instant::now();
    for api in apis.iter().cycle() {
        let reply = api.try_get(&path).await.ok().filter(|reply| reply.status == 200);
        if reply.is_some_and(|reply| Api::step(&reply.body, step)["attempt"].as_u64() > attempt.as_u64()) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody else was given {step} of {run}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// One fault at a time

mod sqlite {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_step_that_ends_while_the_orchestrator_is_away_is_not_lost() {
        super::ends_while_the_orchestrator_is_away(super::services::sqlite()).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_step_that_ends_while_the_orchestrator_is_away_is_not_lost() {
        super::ends_while_the_orchestrator_is_away(super::services::postgres().await).await;
    }
}

async fn ends_while_the_orchestrator_is_away(database: Database) {
    let mut orchestrator = start(&database, Duration::from_secs(60)).await;
    let api = orchestrator.api();
    let worker = Worker::start(orchestrator.base_url(), "lonely", 2);
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let workflow = format!(
        "
workflow: away
steps:
  a:
    run: |
      echo before
      until [ -e \"$GO\" ]; do sleep 0.05; done
      echo after
      echo answer=42 >> $REFIT_OUTPUTS
    env: {{ GO: '{}' }}
  b: {{ needs: [a], run: echo b }}
",
        go.display()
    );
    api.apply(&workflow).await;
    let run = api.start_run("away", json!({})).await;
    eventually("the step runs", Duration::from_secs(30), async || {
        api.log(&run, Some("a")).await.contains("before").then_some(())
    })
    .await;

    orchestrator.kill9();
    assert!(!worker.step_processes().is_empty(), "the step ended with the orchestrator");
    std::fs::write(&go, "").unwrap();
    eventually("the step is over", Duration::from_secs(30), async || {
        worker.step_processes().is_empty().then_some(())
    })
    .await;
    // Long enough for the worker to have tried in vain.
    eventually("the worker misses the orchestrator", Duration::from_secs(30), async || {
        worker.logs().contains("the orchestrator is out of reach").then_some(())
    })
    .await;
    orchestrator.restart().await;

    let view = api.wait_run(&run, "succeeded", Duration::from_secs(60)).await;
    let step = Api::step(&view, "a");
    assert_eq!(step["attempt"], 1, "{step}");
    assert_eq!(step["outputs"]["answer"], "42");
    assert_eq!(api.log(&run, Some("a")).await, "before\nafter\n");
    let stored = engine(&database).await.store().load_run(&run.parse().unwrap()).await.unwrap();
    assert_eq!(stored.steps()[0].epoch, 1, "no other lease was given meanwhile");
}
