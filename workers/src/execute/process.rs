//! One process tree: started in a group of its own, and in its attempt's cgroup where there is one, with a bare environment, its
//! two streams on a pipe each, ended to the last descendant. Knows nothing of what a step is for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::leftovers::{self, Signs};
use crate::orphans;

/// How long a tree may take to leave after TERM before it is killed.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// The program's file, absolute.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// All of its environment, but for the marker.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// Its working directory.
    pub(crate) folder: PathBuf,
}

/// What a tree writes, for reading.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

/// A running tree. Dropping it kills the group; whoever cares for escaped descendants calls [`Tree::end`].
#[derive(Debug)]
pub(crate) struct Tree {
    child: Child,
    leader: i32,
    status: Option<ExitStatus>,
    signs: Signs,
}

impl Tree {
    /// Starts the program; standard input is empty.
    ///
    /// # Errors
    /// Whatever kept the program from starting.
    pub(crate) fn start(program: &Program, signs: &Signs) -> io::Result<(Self, Streams)> {
        let (stdout, writes_stdout) = io::pipe()?;
        let (stderr, writes_stderr) = io::pipe()?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .envs(&program.env)
            .env(leftovers::MARKER, &signs.id)
            .current_dir(&program.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writes_stdout)
            .stderr(writes_stderr);
        let (child, leader) = orphans::start(&mut command, signs)?;
        Ok((Self { child, leader, status: None, signs: signs.clone() }, Streams { stdout, stderr }))
    }

    /// The process that was started, and the number of its group.
    pub(crate) fn leader(&self) -> i32 {
        self.leader
    }

    /// Waits for the leader to exit. May be dropped and called again.
    ///
    /// # Errors
    /// The system's, when the process cannot be waited for.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = orphans::wait(&mut self.child, self.leader).await?;
        self.status = Some(status);
        Ok(status)
    }

    /// Ends the whole tree, the leader included if it still runs: TERM, then KILL once `grace` is over. Returns when
    /// none of it is left.
    pub(crate) async fn end(&mut self, grace: Duration) {
        let signs = self.signs.clone();
        let leader = self.leader;
        let (waited, ()) =
            tokio::join!(self.wait(), leftovers::end(std::slice::from_ref(&signs), Some(leader), grace));
        if let Err(cause) = waited {
            tracing::warn!(%cause, process = leader, "failed to wait for a process");
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = killpg(Pid::from_raw(self.leader), Signal::SIGKILL);
            orphans::forsake(self.leader);
        }
    }
}
