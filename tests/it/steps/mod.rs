//! What a step can rely on, and how it ends. Real orchestrators, real workers, real processes.

mod approvals;
mod artifacts;
mod champions;
mod checkpoints;
mod containers;
mod contract;
mod endings;
mod evaluations;
mod gpus;
mod logs;
mod partitions;
mod s3;
mod secrets;
mod set_up;
mod validate;
mod workers;

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
        Self::with(Options { grace: Some(grace), ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let database = services::sqlite();
        let database_url = Some(database.url().to_owned());
        let orchestrator = Orchestrator::start(Options { database_url, ..options }).await;
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

/// The folders of a worker's attempts.
fn attempts(worker: &Worker) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(worker.data().join("worker/attempts")).unwrap().flatten();
    folders.map(|folder| folder.path()).collect()
}

/// How many attempts a worker has written down and not told.
fn untold(worker: &Worker) -> usize {
    attempts(worker).iter().filter(|folder| folder.join("untold.json").exists()).count()
}

/// The user that the tests run as; workers are theirs.
fn own_user() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

/// An argument for `sleep` that no other process has.
fn marker() -> String {
    format!("7{}.{}", std::process::id(), uuid::Uuid::new_v4().as_u128() % 1_000_000_007)
}
