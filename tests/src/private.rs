//! A PostgreSQL and a RabbitMQ that one test has to itself, so that it may crash them and see what is left. Both run the
//! installed programs on loopback (`tests/services/private.sh`) and are gone, data and all, with their value.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::processes::workspace;

/// A server of one test's own.
#[derive(Debug)]
struct Server {
    kind: &'static str,
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    /// Blocks until it answers.
    fn start(kind: &'static str) -> Self {
        // Short and outside TMPDIR: socket paths are limited, and PostgreSQL's user must be able to reach it.
        let folder = tempfile::Builder::new().prefix("refit-private-").tempdir_in("/tmp");
        let folder = folder.unwrap_or_else(|error| panic!("failed to make a folder for {kind}: {error}"));
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        if let Err(error) = std::fs::set_permissions(folder.path(), open) {
            panic!("failed to open the folder of {kind}: {error}");
        }
        let url = act(kind, "start", &folder.path().join("server"));
        Self { kind, folder, url: url.trim().to_owned() }
    }

    fn act(&self, action: &str) {
        act(self.kind, action, &self.folder.path().join("server"));
    }
}

fn act(kind: &str, action: &str, folder: &Path) -> String {
    let script = workspace().join("tests/services/private.sh");
    let mut command = Command::new("bash");
    command.arg(script).args([kind, action]).arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => panic!("failed to {action} a private {kind}: {}", output.status),
        Err(error) => panic!("failed to {action} a private {kind}: {error}"),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let folder = self.folder.path().join("server");
        let script = workspace().join("tests/services/private.sh");
        // A panic in drop would hide what the test found.
        let _ = Command::new("bash").arg(script).args([self.kind, "stop"]).arg(folder).status();
    }
}

/// A PostgreSQL server; what it has committed survives [`Postgres::crash`].
#[derive(Debug)]
pub struct Postgres(Server);

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// When the programs are not there or do not start.
    pub async fn start() -> Self {
        Self(blocking(|| Server::start("postgres")).await)
    }

    /// The URL of its one database, which is empty at first.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Ends it without a goodbye and starts it again.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn crash(&self) {
        tokio::task::block_in_place(|| self.0.act("crash"));
    }
}

/// A RabbitMQ node.
#[derive(Debug)]
pub struct RabbitMq(Server);

impl RabbitMq {
    /// Starts one.
    ///
    /// # Panics
    /// When the programs are not there or do not start.
    pub async fn start() -> Self {
        Self(blocking(|| Server::start("rabbitmq")).await)
    }

    /// What `--amqp-url` takes.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Kills the node and starts it again; durable queues and persistent messages are there again.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn crash(&self) {
        tokio::task::block_in_place(|| self.0.act("crash"));
    }

    /// Lets it close every connection.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn cut(&self) {
        tokio::task::block_in_place(|| self.0.act("cut"));
    }
}

async fn blocking(start: impl FnOnce() -> Server + Send + 'static) -> Server {
    match tokio::task::spawn_blocking(start).await {
        Ok(server) => server,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
