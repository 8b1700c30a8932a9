//! The worker's loops against an orchestrator over HTTP.

use super::*;
use crate::testing::{TestOrchestrator, eventually, shell};
use refit_workflows::wire::{Failure, Finish, Instruction, Outcome};

struct Worker {
    server: TestOrchestrator,
    drain: CancellationToken,
    abort: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), WorkError>>,
    data: tempfile::TempDir,
}

async fn start(server: TestOrchestrator, slots: u32) -> Worker {
    start_in(tempfile::tempdir().unwrap(), server, slots).await
}

async fn start_in(data: tempfile::TempDir, server: TestOrchestrator, slots: u32) -> Worker {
    let config = Config {
        server: server.address.clone(),
        token: None,
        name: "gpu-1".to_owned(),
        slots,
        labels: Default::default(),
        cpus: None,
        memory: None,
        gpus: Some(crate::GpuChoice::Count(0)),
        data: data.path().to_owned(),
        cache_bytes_max: Config::CACHE_BYTES_MAX,
    };
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    let task = tokio::spawn(crate::work(config, drain.clone(), abort.clone()));
    Worker { server, drain, abort, task, data }
}

fn step(number: usize, text: &str) -> StepOrder {
    let mut order = shell(text);
    order.key.step = format!("step-{number}");
    order
}

#[tokio::test]
async fn one_report_brings_the_next_lease() {
    let server = TestOrchestrator::start().await;
    for number in 0..20 {
        server.offer(step(number, "true"));
    }
    let worker = start(server, 1).await;
    eventually("all steps are over", || worker.server.seen().finished.len() == 20).await;
    let leases = worker.server.seen().calls.iter().filter(|&&call| call == "lease").count();
    assert!(leases <= 2, "{leases} calls for 20 steps in one slot");
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
    assert!(worker.server.seen().renewed.last().unwrap().draining);
}

#[tokio::test]
async fn a_draining_worker_finishes_what_runs() {
    let worker = start(TestOrchestrator::start().await, 2).await;
    worker.server.offer(step(0, "sleep 0.5"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
    let seen = worker.server.seen();
    assert!(matches!(seen.finished[..], [Finish { outcome: Outcome::Succeeded(_), next: None, .. }]));
}

#[tokio::test]
async fn an_aborted_worker_ends_what_runs() {
    let worker = start(TestOrchestrator::start().await, 2).await;
    worker.server.offer(step(0, "sleep 300"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.drain.cancel();
    worker.abort.cancel();
    worker.task.await.unwrap().unwrap();
    let seen = worker.server.seen();
    let Outcome::Failed { failure, reason } = &seen.finished[0].outcome else {
        panic!("{:?}", seen.finished)
    };
    assert_eq!((failure, reason.as_str()), (&Failure::WorkerLost, "the worker was shut down"));
}

#[tokio::test]
async fn a_renewal_brings_the_cancel() {
    let worker = start(TestOrchestrator::start().await, 1).await;
    worker.server.offer(step(0, "sleep 300"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.server.seen().instruction = Some(Instruction::Cancel);
    eventually("the step is over", || worker.server.seen().finished.len() == 1).await;
    assert_eq!(worker.server.seen().finished[0].outcome, Outcome::Cancelled);
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_outage_shorter_than_the_lease_costs_nothing() {
    let worker = start(TestOrchestrator::start().await, 1).await;
    worker.server.offer(step(0, "echo one; sleep 0.4; echo two; echo done=yes >> $REFIT_OUTPUTS"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.server.seen().refuse = Some((503, "unavailable"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    worker.server.seen().refuse = None;
    eventually("the step is over", || worker.server.seen().finished.len() == 1).await;
    assert!(matches!(worker.server.seen().finished[0].outcome, Outcome::Succeeded(_)));
    assert_eq!(worker.server.log(), "one\ntwo\n");
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_ends_the_step() {
    let server = TestOrchestrator::start().await;
    server.seen().grace_ms = 1_000;
    let worker = start(server, 1).await;
    worker.server.offer(step(0, "trap 'echo stopped > ../../../stopped; exit' TERM; sleep 300 & wait"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.server.seen().refuse = Some((503, "unavailable"));
    let stopped = worker.data.path().join("stopped");
    eventually("the step was ended", || stopped.exists()).await;
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_step_that_comes_late_in_a_long_wait_has_a_whole_lease() {
    let server = TestOrchestrator::start().await;
    server.seen().grace_ms = 1_000;
    let worker = start(server, 1).await;
    eventually("it asks for work", || worker.server.seen().calls.contains(&"lease")).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    worker.server.offer(step(0, "sleep 0.3"));
    eventually("the step is over", || worker.server.seen().finished.len() == 1).await;
    let outcome = worker.server.seen().finished[0].outcome.clone();
    assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_was_cut_off_makes_itself_heard_before_it_asks_for_work() {
    let server = TestOrchestrator::start().await;
    server.seen().grace_ms = 4_000;
    // So seldom that nothing else makes it heard.
    server.seen().renew_every_ms = 60_000;
    let worker = start(server, 1).await;
    eventually("it asks for work", || worker.server.seen().calls.contains(&"lease")).await;
    worker.server.offer(step(0, "sleep 300"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.server.seen().refuse = Some((503, "unavailable"));
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    worker.server.offer(step(1, "sleep 0.3"));
    {
        let mut seen = worker.server.seen();
        seen.calls.clear();
        seen.refuse = None;
    }
    let is_over = |seen: &Finish| seen.key.step == "step-1";
    eventually("the step is over", || worker.server.seen().finished.iter().any(is_over)).await;
    {
        let seen = worker.server.seen();
        let outcome = &seen.finished.iter().find(|seen| is_over(seen)).unwrap().outcome;
        assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
        let first = |name: &str| seen.calls.iter().position(|&call| call == name).unwrap();
        assert!(first("renew") < first("lease"), "{:?}", seen.calls);
    }
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_forgotten_worker_introduces_itself_again_and_works_on() {
    let worker = start(TestOrchestrator::start().await, 1).await;
    eventually("registered", || worker.server.seen().registered.len() == 1).await;
    worker.server.seen().forgotten = true;
    eventually("registered again", || worker.server.seen().registered.len() == 2).await;
    {
        let seen = worker.server.seen();
        assert_eq!(seen.registered[0].session, seen.registered[1].session);
    }
    worker.server.offer(step(0, "true"));
    eventually("the step is over", || worker.server.seen().finished.len() == 1).await;
    worker.drain.cancel();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_workers_of_one_name_do_not_take_turns_for_ever() {
    let server = TestOrchestrator::start().await;
    server.seen().forgetful = true;
    let refused = start(server, 1).await.task.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("--name"), "{refused}");
}

#[tokio::test]
async fn a_refused_token_ends_the_worker() {
    let server = TestOrchestrator::start().await;
    server.seen().refuse = Some((401, "unauthorized"));
    let refused = start(server, 1).await.task.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("REFIT_TOKEN"), "{refused}");
}

#[test]
fn jitter_stays_within_a_fifth() {
    for _ in 0..1000 {
        let time = jitter(Duration::from_secs(10));
        assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&time), "{time:?}");
    }
}

/// How many attempts are to be told.
fn untold(attempts: &std::path::Path) -> usize {
    let folders = std::fs::read_dir(attempts).unwrap().flatten();
    folders.filter(|folder| folder.path().join("untold.json").exists()).count()
}

/// A worker is killed after its step had ended, while the orchestrator answers nothing.
async fn killed_before_it_told(order: StepOrder) -> (TestOrchestrator, tempfile::TempDir) {
    let worker = start(TestOrchestrator::start().await, 1).await;
    worker.server.offer(order);
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.server.seen().refuse = Some((503, "unavailable"));
    let attempts = worker.data.path().join("attempts");
    eventually("the outcome is on disk", || untold(&attempts) == 1).await;
    let Worker { server, task, data, .. } = worker;
    task.abort();
    let _ = task.await;
    assert_eq!(untold(&attempts), 1);
    {
        let mut seen = server.seen();
        seen.refuse = None;
        seen.calls.clear();
    }
    (server, data)
}

#[tokio::test]
async fn what_a_killed_worker_could_not_tell_its_successor_tells_in_its_name() {
    let text = "echo words; echo kept > model; echo '{\"name\": \"auc\", \"value\": 1}' >> $REFIT_METRICS\nsleep 0.3";
    let mut order = step(0, text);
    order.artifacts.insert("model".to_owned(), "model".to_owned());
    let (server, data) = killed_before_it_told(order).await;
    let successor = start_in(data, server, 1).await;
    eventually("it registered", || successor.server.seen().registered.len() == 2).await;
    {
        let seen = successor.server.seen();
        let first = |name: &str| seen.calls.iter().position(|&call| call == name).unwrap();
        assert_eq!(first("renew"), 0, "{:?}", seen.calls);
        assert!(first("finish") < first("register"), "{:?}", seen.calls);
        let [Finish { outcome: Outcome::Succeeded(handed), session, .. }] = &seen.finished[..] else {
            panic!("{:?}", seen.finished)
        };
        assert_eq!(session.as_ref(), Some(&seen.registered[0].session));
        assert_ne!(session.as_ref(), Some(&seen.registered[1].session));
        assert_eq!(seen.blobs[&handed.artifacts["model"].digest], b"kept\n");
        assert_eq!(seen.reports.iter().flat_map(|report| &report.points).count(), 1);
    }
    assert_eq!(successor.server.log(), "words\n");
    let attempts = successor.data.path().join("attempts");
    eventually("nothing is left", || untold(&attempts) == 0).await;
    successor.drain.cancel();
    successor.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_failed_step_measured_last_is_told_by_the_successor_too() {
    let text =
        "echo '{\"name\": \"loss\", \"value\": 0.25}' >> $REFIT_METRICS; sleep 0.3; echo why >&2; exit 3";
    let (server, data) = killed_before_it_told(step(0, text)).await;
    let successor = start_in(data, server, 1).await;
    eventually("it is told", || successor.server.seen().finished.len() == 1).await;
    let seen = successor.server.seen();
    let Outcome::Failed { failure: Failure::Exit { code: 3 }, reason } = &seen.finished[0].outcome else {
        panic!("{:?}", seen.finished)
    };
    assert_eq!(reason, "exit code 3: why");
    let last = seen.reports.iter().rfind(|report| !report.metrics.is_empty()).unwrap();
    assert_eq!(last.metrics["loss"], 0.25);
}

#[tokio::test]
async fn what_is_left_of_a_session_that_was_replaced_is_dropped() {
    let (server, data) = killed_before_it_told(step(0, "sleep 0.3")).await;
    server.seen().forgotten = true;
    let successor = start_in(data, server, 1).await;
    eventually("it registered", || successor.server.seen().registered.len() == 2).await;
    assert!(successor.server.seen().finished.is_empty());
    let attempts = successor.data.path().join("attempts");
    eventually("nothing is left", || untold(&attempts) == 0).await;
    successor.drain.cancel();
    successor.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_record_that_is_torn_is_dropped_with_its_folder_and_stops_nobody() {
    let (server, data) = killed_before_it_told(step(0, "sleep 0.3")).await;
    let attempts = data.path().join("attempts");
    for folder in std::fs::read_dir(&attempts).unwrap().flatten() {
        let record = folder.path().join("untold.json");
        if let Ok(text) = std::fs::read(&record) {
            std::fs::write(&record, &text[..text.len() / 2]).unwrap();
        }
    }
    let successor = start_in(data, server, 1).await;
    eventually("it registered", || successor.server.seen().registered.len() == 2).await;
    assert_eq!(untold(&attempts), 0);
    assert!(successor.server.seen().finished.is_empty());
    successor.server.offer(step(1, "true"));
    eventually("it works", || successor.server.seen().finished.len() == 1).await;
    successor.drain.cancel();
    successor.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_is_told_to_leave_at_once_leaves_what_it_cannot_tell() {
    let server = TestOrchestrator::start().await;
    let worker = start(server, 1).await;
    worker.server.offer(step(0, "sleep 0.3"));
    eventually("the step is leased", || worker.server.seen().leased == 1).await;
    worker.server.seen().refuse = Some((503, "unavailable"));
    let attempts = worker.data.path().join("attempts");
    eventually("the outcome is on disk", || untold(&attempts) == 1).await;
    worker.drain.cancel();
    worker.abort.cancel();
    worker.task.await.unwrap().unwrap();
    assert_eq!(untold(&attempts), 1);
    worker.server.seen().refuse = None;
    let successor = start_in(worker.data, worker.server, 1).await;
    eventually("the successor tells it", || successor.server.seen().finished.len() == 1).await;
    successor.drain.cancel();
    successor.task.await.unwrap().unwrap();
}
