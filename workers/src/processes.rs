//! What Linux's `/proc` tells of processes: state, parent, children, and the signs by which those of a step are known.
//! Reads only: must never send a signal, nor wait for a process.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::leftovers::{MARKER, Signs};

/// Fields 3 to 5 of proc_pid_stat(5).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Dead, and not waited for yet.
    pub(crate) zombie: bool,
    /// The parent's id.
    pub(crate) parent: i32,
    /// The process group.
    pub(crate) group: i32,
}

/// This process.
pub(crate) fn own_id() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// None when there is no such process any more.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold anything: count from its end.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let mut number = || fields.next()?.parse().ok();
    Some(Stat { zombie, parent: number()?, group: number()? })
}

/// Whether there is such a process and it is not dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !stat.zombie)
}

/// The children this process has adopted, and those its first thread started; zombies too. None where the kernel does not list
/// them (`CONFIG_PROC_CHILDREN`).
///
/// The kernel gives an orphan to the first thread of its new parent that lives (`find_new_reaper`), which in a Rust
/// program is the one `main` runs on.
pub(crate) fn adopted() -> Option<BTreeSet<i32>> {
    let own = own_id();
    let list = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).ok()?;
    Some(numbers(&list).collect())
}

/// Of all its threads.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| numbers(&list).collect::<Vec<_>>()).collect()
}

fn numbers(list: &str) -> impl Iterator<Item = i32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
}

/// The living among `roots` and their descendants. `visit` sees each before its children are listed.
pub(crate) fn living(roots: impl IntoIterator<Item = i32>, mut visit: impl FnMut(i32)) -> BTreeSet<i32> {
    let mut waiting: Vec<i32> = roots.into_iter().collect();
    let mut found = BTreeSet::new();
    while let Some(pid) = waiting.pop() {
        if found.contains(&pid) || !is_alive(pid) {
            continue;
        }
        visit(pid);
        found.insert(pid);
        waiting.extend(children(pid));
    }
    found
}

/// Whether a process has a handler for a signal (`SigCgt` of proc_pid_status(5)): of one that has none it may die.
pub(crate) fn handles(pid: i32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (signal as i32 - 1)) != 0
}

/// The value of [`MARKER`] in the environment that a process was started with.
pub(crate) fn marker(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|&byte| byte == 0).find_map(|variable| {
        let id = variable.strip_prefix(MARKER.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(id).into_owned())
    })
}

/// Whether a process works in this folder or below.
pub(crate) fn works_in(pid: i32, folder: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at.starts_with(folder))
}

/// The path of a process's cgroup (version 2), of a zombie's too.
pub(crate) fn cgroup(pid: i32) -> Option<String> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    list.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Whether this is the cgroup of an attempt, or one below it. Attempts' ids are drawn at random.
pub(crate) fn is_cgroup_of(cgroup: &str, id: &str) -> bool {
    cgroup.split('/').any(|name| name == id)
}

/// Looks at every process of the host: those that carry one of these signs or are of the process group `group`, and
/// their descendants.
pub(crate) fn search(signs: &[Signs], group: Option<i32>) -> BTreeSet<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    let own = own_id();
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut others = Vec::new();
    let mut found = BTreeSet::new();
    for pid in pids.filter(|&pid| pid != own) {
        let Some(stat) = stat(pid).filter(|stat| !stat.zombie) else { continue };
        if group == Some(stat.group) || carries(pid, signs) {
            found.insert(pid);
        } else {
            others.push((pid, stat.parent));
        }
    }
    // A child of a process that belongs belongs too, even if it threw the signs away.
    loop {
        let known = found.len();
        found.extend(
            others
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|&(pid, _)| pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == known {
            return found;
        }
    }
}

fn carries(pid: i32, signs: &[Signs]) -> bool {
    let marker = marker(pid);
    let cgroup = cgroup(pid).unwrap_or_default();
    signs.iter().any(|signs| {
        marker.as_deref() == Some(signs.id.as_str())
            || is_cgroup_of(&cgroup, &signs.id)
            || works_in(pid, &signs.folder)
    })
}
