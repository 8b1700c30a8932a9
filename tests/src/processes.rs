//! Real `refit` processes on loopback, each in a process group and a temporary folder of its own, killed and removed
//! when their value is dropped. Never talks to a server it did not start.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rand::Rng as _;

use crate::api::Api;

/// How long a process may take to be ready or to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// The `refit` program: what `REFIT_TEST_BINARY` names (`tests/run` sets it), else built now, once.
///
/// # Panics
/// When it is not there and cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| named_binary().unwrap_or_else(build))
}

fn named_binary() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("REFIT_TEST_BINARY")?);
    assert!(path.is_file(), "REFIT_TEST_BINARY names {}, which is not a file", path.display());
    Some(path)
}

/// Cargo at the top of the workspace, without what the cargo above it says of the package that runs now: build scripts look
/// at that, and everything that rests on them would be built once more.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command.args(arguments).current_dir(workspace());
    command
}

fn build() -> PathBuf {
    // The whole workspace, so that the libraries are built with the features the tests were built with.
    let arguments =
        ["build", "--workspace", "--all-targets", "--locked", "--message-format=json-render-diagnostics"];
    let output = cargo(&arguments).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("failed to start cargo to build refit: {error}"));
    assert!(output.status.success(), "failed to build refit: cargo ended with {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        // The program's own unit tests are an executable of the same name.
        .find(|message| message["target"]["name"] == "refit" && message["profile"]["test"] == false)
        .and_then(|message| message["executable"].as_str().map(PathBuf::from));
    executable.unwrap_or_else(|| panic!("cargo built the workspace but named no program `refit`"))
}

/// The `refit` program as users run it, for measurements: what `REFIT_TEST_BINARY` names, else built in release mode now.
///
/// # Panics
/// When it is not there and cannot be built.
pub fn release_binary() -> PathBuf {
    named_binary().unwrap_or_else(|| {
        // The whole workspace, so that the libraries are built once, with the features the benchmarks were built with.
        let built = cargo(&["build", "--release", "--workspace", "--bins", "--benches", "--locked"]).status();
        assert!(built.is_ok_and(|status| status.success()), "failed to build refit in release mode");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace().join("target"), Into::into);
        target.join("release/refit")
    })
}

/// The top of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A `refit` command line without the variables that configure Refit, to run in `folder`.
pub fn refit(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REFIT_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

// ---------------------------------------------------------------------------------------------------------------
// Orchestrators

/// How to start an orchestrator.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--database-url`; SQLite in its own data folder when none.
    pub database_url: Option<String>,
    /// `--amqp-url`.
    pub amqp_url: Option<String>,
    /// `--amqp-queue`.
    pub amqp_queue: Option<String>,
    /// `--amqp-exchange`.
    pub amqp_exchange: Option<String>,
    /// `--grace`: how long a lease lives without a renewal.
    pub grace: Option<Duration>,
    /// What its `refit.yaml` says.
    pub settings: Option<String>,
    /// Further arguments of `refit serve`.
    pub arguments: Vec<String>,
    /// Variables it gets.
    pub env: Vec<(String, String)>,
}

/// `refit serve` as a process. Its port, its folder and its database stay the same when it is started again.
#[derive(Debug)]
pub struct Orchestrator {
    process: Process,
    base_url: String,
}

impl Orchestrator {
    /// Starts one on a free loopback port and waits until it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready in time; the panic shows its log.
    pub async fn start(options: Options) -> Self {
        let mut orchestrator = Self::launch(options);
        orchestrator.wait_ready().await;
        orchestrator
    }

    /// Starts one without waiting: for tests of what happens before it is ready.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn launch(options: Options) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut arguments: Vec<String> =
            ["serve", "--listen", &address, "--data", "data"].map(str::to_owned).into();
        let grace = options.grace.map(|grace| format!("{}ms", grace.as_millis()));
        for (flag, value) in [
            ("--database-url", options.database_url),
            ("--amqp-url", options.amqp_url),
            ("--amqp-queue", options.amqp_queue),
            ("--amqp-exchange", options.amqp_exchange),
            ("--grace", grace),
        ] {
            arguments.extend(value.map(|value| [flag.to_owned(), value]).into_iter().flatten());
        }
        arguments.extend(options.arguments);
        let files = options.settings.map(|settings| ("refit.yaml", settings));
        let process = Process::start_with_files(arguments, options.env, files);
        Self { process, base_url: format!("http://{address}") }
    }

    /// Waits until `GET /readyz` answers 200.
    ///
    /// # Panics
    /// When it ends or is not ready in time; the panic shows its log.
    pub async fn wait_ready(&mut self) {
        let begun = Instant::now();
        loop {
            if self.api().try_get("/readyz").await.is_ok_and(|reply| reply.status == 200) {
                return;
            }
            if let Some(status) = self.process.ended() {
                panic!("`refit serve` ended ({status}) before it was ready:\n{}", self.logs());
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "`refit serve` is not ready after {PATIENCE:?}:\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A client of it, without a token.
    pub fn api(&self) -> Api {
        Api::new(&self.base_url)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.process.folder.path().join("data")
    }

    /// Everything it has written so far, over all its starts.
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to end (TERM) and waits until it has.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Starts it again after [`Orchestrator::kill9`] or [`Orchestrator::terminate`], and waits until it is ready.
    ///
    /// # Panics
    /// As [`Orchestrator::start`].
    pub async fn restart(&mut self) {
        self.process.restart();
        self.wait_ready().await;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Workers

/// `refit work` as a process.
#[derive(Debug)]
pub struct Worker {
    process: Process,
}

impl Worker {
    /// Starts one for the server at `http://HOST:PORT`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(server: &str, name: &str, slots: u32) -> Self {
        Self::start_with(server, name, slots, &[])
    }

    /// Starts one with variables of its own, `REFIT_TOKEN` for example.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start_with(server: &str, name: &str, slots: u32, env: &[(&str, &str)]) -> Self {
        let slots = slots.to_string();
        let arguments = ["work", "--server", server, "--name", name, "--slots", &slots, "--data", "data"];
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { process: Process::start(arguments.map(str::to_owned).into(), env) }
    }

    /// Its data folder: caches, environments, working directories.
    pub fn data(&self) -> PathBuf {
        self.process.folder.path().join("data")
    }

    /// Everything it has written so far, over all its starts.
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// The processes of steps on this worker: those whose working directory is in its data folder.
    pub fn step_processes(&self) -> Vec<u32> {
        processes_in(&self.data())
    }

    /// Ends the worker at once. The steps it was running stay behind, as after a crash.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to drain (TERM) and waits until it has gone.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Starts it again under the same name and with the same folder.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn restart(&mut self) {
        self.process.restart();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill9();
        for pid in self.step_processes() {
            if let Ok(pid) = i32::try_from(pid) {
                // Gone between the look and the kill is as good.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// The processes whose working directory is in this folder, by `/proc`.
pub fn processes_in(folder: &Path) -> Vec<u32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
    })
    .collect()
}

// ---------------------------------------------------------------------------------------------------------------
// Processes

/// A `refit` command that runs until it is told to end. It can be started again with the same arguments.
#[derive(Debug)]
pub struct Process {
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Process {
    /// Starts `refit` with these arguments and variables in a folder of its own.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(arguments: Vec<String>, env: Vec<(String, String)>) -> Self {
        Self::start_with_files(arguments, env, [])
    }

    /// The same, with these files in the folder.
    ///
    /// # Panics
    /// When the program cannot be started, or a file not be written.
    pub fn start_with_files(
        arguments: Vec<String>,
        env: Vec<(String, String)>,
        files: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("refit-test-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("failed to make a temporary folder: {error}"));
        for (name, text) in files {
            if let Err(error) = std::fs::write(folder.path().join(name), text) {
                panic!("failed to write {name}: {error}");
            }
        }
        let mut process = Self { arguments, env, folder, child: None };
        process.restart();
        process
    }

    /// Starts it again after it has ended, with the same arguments and in the same folder.
    ///
    /// # Panics
    /// When it is still running or cannot be started.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "`refit {}` is still running", self.arguments.join(" "));
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let log = || {
            let log = File::options().create(true).append(true).open(self.log_path());
            log.map(Stdio::from).unwrap_or_else(|error| panic!("failed to open a log file: {error}"))
        };
        let mut command = refit(self.folder.path(), &arguments);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdout(log()).stderr(log()).process_group(0);
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("failed to start {}: {error}", binary().display()),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("output.log")
    }

    /// Everything it has written so far, over all its starts.
    pub fn logs(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // No such group: it has ended by itself, and the wait that follows tells how.
            let _ = killpg(Pid::from_raw(pid), signal);
        }
    }

    fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    fn terminate(&mut self) -> ExitStatus {
        self.end_with(Signal::SIGTERM)
    }

    /// Sends it a signal and waits until it has ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn end_with(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            let running = begun.elapsed() < PATIENCE;
            assert!(running, "`refit` is still there {PATIENCE:?} after {signal}:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test is understood from what its processes wrote")]
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let logs = self.logs();
            let tail: Vec<&str> = logs.lines().rev().take(40).collect();
            eprintln!("--- last lines of `refit {}`", self.arguments.join(" "));
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// What a command that ends by itself came to.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or is still there after `timeout`; it is killed then.
pub fn run_to_end(mut command: Command, timeout: Duration) -> Said {
    let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    // Both pipes are emptied while it runs: a full one would stop it.
    let out = child.stdout.take().map(read_aside);
    let err = child.stderr.take().map(read_aside);
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < timeout => std::thread::sleep(Duration::from_millis(5)),
            other => {
                if let Ok(group) = i32::try_from(child.id()) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                let _ = child.wait();
                panic!(
                    "{command:?} has not ended after {timeout:?} ({other:?}):\n{}{}",
                    text(out),
                    text(err)
                );
            }
        }
    };
    Said { code: status.code(), out: text(out), err: text(err) }
}

fn read_aside(mut pipe: impl std::io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn text(read: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = read.and_then(|thread| thread.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A free loopback port, below the range that outgoing connections take theirs from.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
