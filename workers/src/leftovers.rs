//! Finds and ends the processes of steps, wherever they hid: by the marker in their environment, by the folder they
//! work in, by their group, by their parents. Never touches a process that carries none of these signs.
//!
//! Knows Linux's `/proc`; elsewhere only process groups are ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The variable every process of a step carries.
pub(crate) const MARKER: &str = "REFIT_ATTEMPT_ID";

/// The signs by which the processes of one attempt are known.
#[derive(Clone, Debug)]
pub(crate) struct Signs {
    /// The value of [`MARKER`].
    pub(crate) id: String,
    /// The attempt's folder: a process that works in it belongs to it.
    pub(crate) folder: PathBuf,
}

/// Children this crate started and waits for: not orphans, never to be reaped here.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a child that somebody waits for.
pub(crate) fn started(pid: i32) {
    own().insert(pid);
}

/// The child has been waited for.
pub(crate) fn reaped(pid: i32) {
    own().remove(&pid);
}

/// Makes orphaned descendants children of this process (Linux `PR_SET_CHILD_SUBREAPER`), so that "no children"
/// proves that a step left nothing behind.
pub(crate) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(cause) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%cause, "failed to become the subreaper; what steps leave behind is found by scanning only");
    }
}

fn adopting() -> bool {
    #[cfg(target_os = "linux")]
    return nix::sys::prctl::get_child_subreaper().unwrap_or(false);
    #[cfg(not(target_os = "linux"))]
    false
}

/// Whether a step that has exited may have left processes: cheap, and never wrong when it says no.
pub(crate) fn may_be_left() -> bool {
    if !adopting() {
        return true;
    }
    let Some(children) = children_of_this_process() else { return true };
    let orphans: Vec<i32> = {
        let own = own();
        children.into_iter().filter(|pid| !own.contains(pid)).collect()
    };
    orphans.into_iter().any(|pid| stat(pid).is_some_and(|stat| !stat.zombie))
}

/// None where the kernel does not list them.
fn children_of_this_process() -> Option<Vec<i32>> {
    let mut children = Vec::new();
    let pid = std::process::id();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()))
            }
            // The thread may have ended; a kernel without the file lacks it for the first thread too.
            Err(_) if thread.file_name().to_string_lossy() == pid.to_string() => return None,
            Err(_) => {}
        }
    }
    Some(children)
}

/// Reaps orphans that died unnoticed. A stranger's child (of a program that embeds a worker) is given the time
/// between two calls to be waited for by its owner.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    dead: BTreeSet<i32>,
}

impl Reaper {
    /// Call now and then, some seconds apart.
    pub(crate) fn pass(&mut self) {
        let children = children_of_this_process().unwrap_or_default();
        let orphans: Vec<i32> = {
            let own = own();
            children.into_iter().filter(|pid| !own.contains(pid)).collect()
        };
        let dead: BTreeSet<i32> =
            orphans.into_iter().filter(|&pid| stat(pid).is_some_and(|stat| stat.zombie)).collect();
        for &pid in dead.intersection(&self.dead) {
            // Gone already is as good as reaped.
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
        self.dead = dead;
    }
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    zombie: bool,
    parent: i32,
    group: i32,
}

/// Fields 3 to 5 of proc_pid_stat(5); the second, the program's name, may hold anything, so count from its end.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = String::from_utf8_lossy(&text[end + 1..]).into_owned();
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Stat { zombie: matches!(state, "Z" | "X"), parent, group })
}

/// Living processes that belong to one of `signs`, or whose process group is `group`, and their descendants; each
/// with its own group.
fn find(signs: &[Signs], group: Option<i32>) -> BTreeMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let this = i32::try_from(std::process::id()).unwrap_or(0);
    let mut others = BTreeMap::new();
    let mut found = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(stat) = stat(pid).filter(|stat| pid != this && !stat.zombie) else { continue };
        if group == Some(stat.group) || carries(&entry.path(), signs) {
            found.insert(pid, stat.group);
        } else {
            others.insert(pid, stat);
        }
    }
    // A child of a process that belongs belongs too, even if it threw the signs away.
    loop {
        let more: Vec<i32> =
            others.iter().filter(|(_, stat)| found.contains_key(&stat.parent)).map(|(&pid, _)| pid).collect();
        if more.is_empty() {
            return found;
        }
        for pid in more {
            if let Some(stat) = others.remove(&pid) {
                found.insert(pid, stat.group);
            }
        }
    }
}

fn carries(process: &Path, signs: &[Signs]) -> bool {
    if let Ok(folder) = std::fs::read_link(process.join("cwd"))
        && signs.iter().any(|signs| folder.starts_with(&signs.folder))
    {
        return true;
    }
    let Ok(environment) = std::fs::read(process.join("environ")) else { return false };
    environment.split(|&byte| byte == 0).any(|variable| {
        variable
            .strip_prefix(MARKER.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .is_some_and(|id| signs.iter().any(|signs| signs.id.as_bytes() == id))
    })
}

/// Ends every process with one of these signs or in `group`: TERM, then KILL once `grace` is over. Returns when none
/// is left but those that wait to be reaped.
pub(crate) async fn end(signs: &[Signs], group: Option<i32>, grace: Duration) {
    let begun = tokio::time::Instant::now();
    let mut told: BTreeSet<i32> = BTreeSet::new();
    let mut pause = Duration::from_millis(2);
    let mut complained = false;
    loop {
        let signs = signs.to_vec();
        let alive = tokio::task::spawn_blocking(move || find(&signs, group)).await.unwrap_or_default();
        if alive.is_empty() {
            return;
        }
        let over = begun.elapsed() >= grace;
        if over && let Some(group) = group.filter(|group| alive.values().any(|of| of == group)) {
            // The whole group in one go: it cannot fork its way out.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        for &pid in alive.keys() {
            // An error means gone already, or not allowed: that shows at the next look.
            if over {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            } else if told.insert(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        if !complained && begun.elapsed() > grace + Duration::from_secs(30) {
            complained = true;
            tracing::error!(processes = ?alive.keys(), "processes of a step do not die; its slot stays taken until they do");
        }
        let until_kill = grace.saturating_sub(begun.elapsed());
        tokio::time::sleep(if over { pause } else { pause.min(until_kill) }).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Ends what a killed predecessor on the same data folder left running, and removes the folders of its attempts.
pub(crate) async fn clear(attempts: &Path) -> io::Result<()> {
    let mut signs = Vec::new();
    for entry in std::fs::read_dir(attempts)? {
        let entry = entry?;
        signs.push(Signs { id: entry.file_name().to_string_lossy().into_owned(), folder: entry.path() });
    }
    if signs.is_empty() {
        return Ok(());
    }
    tracing::info!(attempts = signs.len(), "clearing what an earlier worker on this folder left behind");
    end(&signs, None, Duration::from_secs(2)).await;
    for signs in signs {
        remove_folder(&signs.folder)?;
    }
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
        Signs { id: id.to_owned(), folder: PathBuf::from("/nonexistent/attempt") }
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
        let signs = Signs { id: "none".to_owned(), folder: folder.path().canonicalize().unwrap() };
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
        clear(attempts.path()).await.unwrap();
        assert!(!reaped.await.unwrap().success());
        assert_eq!(std::fs::read_dir(attempts.path()).unwrap().count(), 0);
    }
}
