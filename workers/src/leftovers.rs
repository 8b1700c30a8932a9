//! Ends the processes of steps, wherever they hid: in the attempt's cgroup, among the orphans this worker adopted, or found by
//! the marker in their environment, the folder they work in, their parents. Never touches a process without such a sign.
//!
//! Knows Linux's `/proc`; elsewhere only process groups are ended.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, Cgroups};
use crate::execute::container;
use crate::{orphans, processes};

/// How long what a killed predecessor left may take to leave after TERM.
const CLEAR_GRACE: Duration = Duration::from_secs(2);
/// How long after KILL it is said that processes do not die.
const COMPLAIN_AFTER: Duration = Duration::from_secs(30);

/// The variable every process of a step carries.
pub(crate) const MARKER: &str = "REFIT_ATTEMPT_ID";

/// The signs by which the processes of one attempt are known.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    /// The value of [`MARKER`].
    pub(crate) id: String,
    /// The attempt's folder: a process that works in it belongs to it.
    pub(crate) folder: PathBuf,
    /// The attempt's cgroup, where it has one.
    pub(crate) cgroup: Option<Arc<Cgroup>>,
}

/// Whether nothing is left of an attempt that is under way. Cheap: this is the ordinary end of a step.
pub(crate) fn nothing_is_left(signs: &Signs) -> bool {
    let populated = signs.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_populated());
    !populated && orphans::left(&signs.id).is_some_and(|left| left.sure && left.roots.is_empty())
}

/// What of the attempts with these signs lives.
#[derive(Debug, Default)]
struct Found {
    processes: BTreeSet<i32>,
    /// False when one may have been missed.
    sure: bool,
}

/// `visit` sees each process before its children are listed.
fn find(signs: &[Signs], group: Option<i32>, visit: impl Fn(i32)) -> Found {
    let mut found = Found { processes: BTreeSet::new(), sure: true };
    for one in signs {
        let Some(left) = orphans::left(&one.id) else {
            found.processes = processes::search(signs, group);
            found.processes.iter().copied().for_each(&visit);
            found.sure = true;
            break;
        };
        let roots = left.roots.len();
        let living = processes::living(left.roots, &visit);
        // Whoever died since has left its children to us.
        found.sure &= left.sure && (roots == 0 || !living.is_empty());
        found.processes.extend(living);
    }
    let in_cgroups =
        signs.iter().filter_map(|signs| signs.cgroup.as_ref()).flat_map(|cgroup| cgroup.processes());
    found.processes.extend(in_cgroups.filter(|&pid| processes::is_alive(pid)));
    found
}

/// Asks those in `found` to leave that were not asked before. A stopped one must go on to hear of it.
fn ask(found: &Found, asked: &mut BTreeSet<i32>) {
    for &pid in &found.processes {
        if asked.insert(pid) {
            // An error means gone already, or not allowed: that shows at the next look.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

/// Kills everything that can be found. Each process is stopped before its children are listed, so that none forks its
/// way out meanwhile.
fn strike(signs: &[Signs], group: Option<i32>) {
    for cgroup in signs.iter().filter_map(|signs| signs.cgroup.as_ref()) {
        cgroup.kill();
    }
    let stop = |pid| {
        let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
    };
    for pid in find(signs, group, stop).processes {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Ends every process with one of these signs or in the process group `group`, which the caller has not waited for yet:
/// TERM, then KILL once `grace` is over. Returns when none is left.
pub(crate) async fn end(signs: &[Signs], group: Option<i32>, grace: Duration) {
    if cfg!(not(target_os = "linux")) {
        return end_group(group, grace).await;
    }
    let begun = tokio::time::Instant::now();
    let signs: Arc<[Signs]> = signs.into();
    let mut asked = BTreeSet::new();
    let mut pause = Duration::from_millis(2);
    let mut complained = false;
    loop {
        let over = begun.elapsed() >= grace;
        let looked_for = signs.clone();
        let look = move || {
            if over {
                strike(&looked_for, group);
            }
            find(&looked_for, group, |_| {})
        };
        let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        if found.sure && found.processes.is_empty() {
            return;
        }
        if !over {
            ask(&found, &mut asked);
        }
        if !complained && begun.elapsed() > grace + COMPLAIN_AFTER {
            complained = true;
            tracing::error!(processes = ?found.processes, "processes of a step do not die; its slot stays taken until they do");
        }
        let until_kill = grace.saturating_sub(begun.elapsed());
        tokio::time::sleep(if over { pause } else { pause.min(until_kill) }).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The same for a group alone.
async fn end_group(group: Option<i32>, grace: Duration) {
    let Some(group) = group.map(Pid::from_raw) else { return };
    let begun = tokio::time::Instant::now();
    let _ = killpg(group, Signal::SIGTERM);
    let _ = killpg(group, Signal::SIGCONT);
    while killpg(group, None).is_ok() {
        if begun.elapsed() >= grace {
            let _ = killpg(group, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends what a killed predecessor on the same data folder left running, and removes the folders of its attempts but for those
/// to `keep`.
pub(crate) async fn clear(attempts: &Path, cgroups: &Cgroups, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut signs = Vec::new();
    for entry in std::fs::read_dir(attempts)? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        signs.push(Signs { cgroup: cgroups.inherit(&id), id, folder: entry.path() });
    }
    if !signs.is_empty() {
        tracing::info!(attempts = signs.len(), "clearing what an earlier worker on this folder left behind");
        end(&signs, None, CLEAR_GRACE).await;
    }
    for signs in &signs {
        container::remove_left(&signs.folder).await?;
    }
    for signs in signs {
        if !keep.contains(&signs.folder) {
            remove_folder(&signs.folder)?;
        }
    }
    cgroups.sweep();
    Ok(())
}

/// Removes a folder with everything in it, also what a step made read-only. Gone already is fine.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(folder)?;
            std::fs::remove_dir_all(folder)
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        // An entry that is no folder at all: a stray file.
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(folder),
        other => other,
    }
}

fn open_folders(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn signs(id: &str) -> Signs {
        Signs { id: id.to_owned(), folder: PathBuf::from("/nonexistent/attempt"), cgroup: None }
    }

    fn sleeper(id: &str) -> Child {
        Command::new("sleep").arg("300").env(MARKER, id).stdout(Stdio::null()).spawn().unwrap()
    }

    #[tokio::test]
    async fn only_processes_with_the_marker_are_ended() {
        let mut marked = sleeper("leftovers-test-a");
        let mut other = sleeper("leftovers-test-ab");
        let reaped = tokio::task::spawn_blocking(move || marked.wait().unwrap());
        end(&[signs("leftovers-test-a")], None, Duration::from_secs(5)).await;
        assert!(!reaped.await.unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a process of another attempt was ended");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_without_the_marker_is_known_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            Command::new("sleep").arg("300").env_clear().current_dir(folder.path()).spawn().unwrap();
        let reaped = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let signs =
            Signs { id: "none".to_owned(), folder: folder.path().canonicalize().unwrap(), cgroup: None };
        end(&[signs], None, Duration::ZERO).await;
        assert!(!reaped.await.unwrap().success());
    }

    #[tokio::test]
    async fn a_successor_clears_folders_and_processes() {
        use std::os::unix::fs::PermissionsExt as _;
        let attempts = tempfile::tempdir().unwrap();
        let id = uuid::Uuid::new_v4().to_string();
        let locked = attempts.path().join(&id).join("work/locked");
        std::fs::create_dir_all(&locked).unwrap();
        std::fs::write(locked.join("file"), "x").unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
        let mut child = sleeper(&id);
        let reaped = tokio::task::spawn_blocking(move || child.wait().unwrap());
        clear(attempts.path(), &Cgroups::none(), &BTreeSet::new()).await.unwrap();
        assert!(!reaped.await.unwrap().success());
        assert_eq!(std::fs::read_dir(attempts.path()).unwrap().count(), 0);
    }
}
