//! A control group (version 2, cgroups(7)) per attempt, where this worker may make one: nothing can leave it, so it tells
//! exactly what is left and ends it at a blow; it keeps memory to its limit and says when that ran out.
//! Must never happen here: a group written to that this worker did not make, but to hand controllers down from its own and to move
//! itself aside for that.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use refit_workflows::digest::Digest;
use refit_workflows::units::show_size;
use refit_workflows::wire::Limits;

use crate::processes;

/// Where the worker's own process goes when its group has to be empty of processes.
const ASIDE: &str = "refit-worker";
/// The least and the most of `cpu.weight`; a group that says nothing has 100.
const WEIGHTS: (f64, f64) = (1.0, 10_000.0);
/// The deepest that groups which a step made itself are looked at.
const DEPTH_MAX: usize = 16;

/// The group of this process, looked up once: whoever moves aside changes what the kernel would answer.
static BASE: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Makes groups below one of this worker's own.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Below the group that this process was started in; by the data folder, so that a successor finds it.
    folder: Option<PathBuf>,
    memory: bool,
    cpu: bool,
}

impl Cgroups {
    /// Sees what this process may do, and says it in the log.
    pub(crate) fn open(data: &Path) -> Self {
        match Self::try_open(data) {
            Ok(cgroups) => {
                let limits = match (cgroups.memory, cgroups.cpu) {
                    (true, true) => "memory is limited and processors are shared as steps ask",
                    (true, false) => {
                        "memory is limited as steps ask; processors are not shared out (no `cpu` controller)"
                    }
                    (false, true) => {
                        "processors are shared as steps ask; memory is not limited (no `memory` controller)"
                    }
                    (false, false) => "memory is not limited (no `memory` and `cpu` controllers)",
                };
                tracing::info!(cgroup = ?cgroups.folder, "each step runs in a cgroup of its own; {limits}");
                cgroups
            }
            Err(why) => {
                tracing::info!(
                    "steps run without cgroups ({why}); their processes are followed all the same, memory is not limited"
                );
                Self::none()
            }
        }
    }

    /// Makes no groups.
    pub(crate) fn none() -> Self {
        Self { folder: None, memory: false, cpu: false }
    }

    /// Whether steps get groups.
    #[cfg(test)]
    pub(crate) fn are_made(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether their memory can be limited.
    #[cfg(test)]
    pub(crate) fn limit_memory(&self) -> bool {
        self.memory
    }

    fn try_open(data: &Path) -> Result<Self, String> {
        let base = BASE.get_or_init(own).as_ref().map_err(Clone::clone)?;
        let name = format!("refit-{}", &Digest::of(data.as_os_str().as_encoded_bytes()).hex()[..16]);
        let folder = base.join(name);
        match std::fs::create_dir(&folder) {
            Ok(()) => {}
            // A predecessor's.
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(format!("failed to make {}: {cause}", folder.display())),
        }
        let usable = usable(base, &folder);
        if let Err(why) = usable {
            let _ = std::fs::remove_dir(&folder);
            return Err(why);
        }
        let hand_down =
            |controller: &str| hand_down(base, controller).is_ok() && enable(&folder, controller).is_ok();
        let (memory, cpu) = (hand_down("memory"), hand_down("cpu"));
        Ok(Self { folder: Some(folder), memory, cpu })
    }

    /// A group for the attempt with this id. None where there are none: the limits then hold nobody.
    pub(crate) fn make(&self, id: &str, limits: &Limits) -> Option<Arc<Cgroup>> {
        let folder = self.folder.as_ref()?.join(id);
        let memory = limits.memory.filter(|_| self.memory);
        let cgroup = Cgroup { folder, memory };
        let made = std::fs::create_dir(&cgroup.folder).and_then(|()| {
            if let Some(bytes) = memory {
                cgroup.limit_memory(bytes)?;
            }
            match limits.cpus.filter(|_| self.cpu) {
                Some(cpus) => cgroup.write("cpu.weight", &weight(cpus).to_string()),
                None => Ok(()),
            }
        });
        if let Err(cause) = made {
            tracing::warn!(%cause, cgroup = %cgroup.folder.display(), "failed to make a step's cgroup; it runs without");
            return None;
        }
        Some(Arc::new(cgroup))
    }

    /// The group that a killed predecessor made for the attempt with this id.
    pub(crate) fn inherit(&self, id: &str) -> Option<Arc<Cgroup>> {
        let folder = self.folder.as_ref()?.join(id);
        folder.is_dir().then(|| Arc::new(Cgroup { folder, memory: None }))
    }

    /// Removes groups of a predecessor that nothing runs in.
    pub(crate) fn sweep(&self) {
        let Some(folder) = &self.folder else { return };
        for folder in with_those_below(folder).iter().skip(1).rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // An attempt whose task was dropped may still be at its end: the next worker here takes it over.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// As many shares as a processor's 100 for each that is asked for.
fn weight(cpus: f64) -> u64 {
    (cpus * 100.0).round().clamp(WEIGHTS.0, WEIGHTS.1) as u64
}

/// The group this process was started in, as a folder.
fn own() -> Result<PathBuf, String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (root, mount) = mounts.lines().find_map(cgroup2_mount).ok_or("no cgroup2 file system is mounted")?;
    let path = processes::cgroup(processes::own_id()).ok_or("this process is in no cgroup of version 2")?;
    let below = Path::new(&path)
        .strip_prefix(&root)
        .ok()
        .filter(|below| !below.components().any(|part| part.as_os_str() == ".."));
    let below =
        below.ok_or_else(|| format!("the cgroup {path} of this process is not among the mounted ones"))?;
    let folder = Path::new(&mount).join(below);
    // Who may not move processes out of it cannot use groups below it either.
    std::fs::File::options().write(true).open(folder.join("cgroup.procs")).map_err(|cause| {
        format!("failed to open {} for writing: {cause}", folder.join("cgroup.procs").display())
    })?;
    Ok(folder)
}

/// Root and mount point of a line of proc_pid_mountinfo(5) that is about cgroup2.
fn cgroup2_mount(line: &str) -> Option<(String, String)> {
    let (mount, source) = line.split_once(" - ")?;
    if !source.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

/// A group below a threaded one takes no processes; one that does not belong to this user cannot be entered.
fn usable(base: &Path, folder: &Path) -> Result<(), String> {
    let kind = std::fs::read_to_string(folder.join("cgroup.type")).unwrap_or_default();
    if kind.trim() != "domain" {
        return Err(format!("cgroups below {} are of the type `{}`", base.display(), kind.trim()));
    }
    Ok(())
}

/// Lets groups below `base` use a controller. A group other than the topmost one may not hold processes then, so this
/// process moves aside if it is the only one.
fn hand_down(base: &Path, controller: &str) -> io::Result<()> {
    match enable(base, controller) {
        Err(cause) if cause.kind() == ErrorKind::ResourceBusy => {}
        done => return done,
    }
    let own = processes::own_id();
    if processes_in(base)? != BTreeSet::from([own]) {
        return Err(ErrorKind::ResourceBusy.into());
    }
    let aside = base.join(ASIDE);
    match std::fs::create_dir(&aside) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(cause),
        Ok(()) | Err(_) => {}
    }
    std::fs::write(aside.join("cgroup.procs"), own.to_string())?;
    enable(base, controller)
}

fn enable(folder: &Path, controller: &str) -> io::Result<()> {
    let file = folder.join("cgroup.subtree_control");
    if std::fs::read_to_string(&file)?.split_ascii_whitespace().any(|enabled| enabled == controller) {
        return Ok(());
    }
    std::fs::write(file, format!("+{controller}"))
}

fn processes_in(folder: &Path) -> io::Result<BTreeSet<i32>> {
    let list = std::fs::read_to_string(folder.join("cgroup.procs"))?;
    Ok(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// `folder` and the groups below it, the deepest last.
fn with_those_below(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut level = all.clone();
    for _ in 0..DEPTH_MAX {
        let below = level
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten());
        level = below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        if level.is_empty() {
            break;
        }
        all.extend(level.iter().cloned());
    }
    all
}

/// The group of one attempt; removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// The limit, in bytes.
    memory: Option<u64>,
}

impl Cgroup {
    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(name), value)
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        self.write("memory.max", &bytes.to_string())?;
        // All of the step or nothing: half of a process tree computes nonsense.
        self.write("memory.oom.group", "1")?;
        match self.write("memory.swap.max", "0") {
            // Kernels that do not account for swap lack the file.
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes in a process that has just been started, with what it has started in that moment.
    ///
    /// # Errors
    /// The system's; a process that is gone already is none.
    pub(crate) fn enter(&self, leader: i32) -> io::Result<()> {
        let mut entered = BTreeSet::new();
        let mut waiting = vec![leader];
        while let Some(pid) = waiting.pop() {
            match self.write("cgroup.procs", &pid.to_string()) {
                Err(cause) if cause.raw_os_error() == Some(nix::libc::ESRCH) => continue,
                moved => moved?,
            }
            entered.insert(pid);
            // Those that come after the move are born inside.
            waiting.extend(processes::children(pid).into_iter().filter(|pid| !entered.contains(pid)));
        }
        Ok(())
    }

    /// Whether a process in it lives.
    pub(crate) fn is_populated(&self) -> bool {
        let events = std::fs::read_to_string(self.folder.join("cgroup.events")).unwrap_or_default();
        number(&events, "populated").is_some_and(|populated| populated > 0)
    }

    /// The processes in it and in groups that the step made below.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        with_those_below(&self.folder)
            .iter()
            .filter_map(|folder| processes_in(folder).ok())
            .flatten()
            .collect()
    }

    /// Kills them all at once; none can fork its way out. On kernels before 5.14, which cannot, does nothing.
    pub(crate) fn kill(&self) {
        let _ = self.write("cgroup.kill", "1");
    }

    /// That the step ran out of memory, in words; none when it did not.
    pub(crate) fn ran_out_of_memory(&self) -> Option<String> {
        let events = std::fs::read_to_string(self.folder.join("memory.events")).ok()?;
        number(&events, "oom_kill").filter(|&kills| kills > 0)?;
        let peak = std::fs::read_to_string(self.folder.join("memory.peak")).ok();
        let peak = peak.and_then(|peak| peak.trim().parse().ok());
        let used =
            peak.map(|peak: u64| format!("; at its peak it used {}", show_size(peak))).unwrap_or_default();
        Some(match self.memory {
            Some(limit) => format!(
                "ran out of memory: `needs_host.memory` allows it {}{used}; ask for more, or let it use less",
                show_size(limit)
            ),
            None => format!(
                "ended because the host ran out of memory{used}; say in `needs_host.memory` how much it needs"
            ),
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if std::fs::remove_dir(&self.folder).is_ok() {
            return;
        }
        // The attempt's task was dropped before its end, or the step made groups of its own.
        self.kill();
        for folder in with_those_below(&self.folder).iter().rev() {
            if let Err(cause) = std::fs::remove_dir(folder) {
                tracing::debug!(%cause, cgroup = %folder.display(), "failed to remove a step's cgroup; the next worker on this folder will");
            }
        }
    }
}

/// The value of a key in a flat keyed file.
fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_and_flat_files_are_read() {
        let line = "35 24 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2_mount(line), Some(("/".to_owned(), "/sys/fs/cgroup/unified".to_owned())));
        assert_eq!(cgroup2_mount("36 24 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(
            (number(events, "oom"), number(events, "oom_kill"), number(events, "o")),
            (Some(3), Some(2), None)
        );
    }

    #[test]
    fn a_share_of_processors_is_a_weight() {
        assert_eq!(
            [weight(0.001), weight(0.5), weight(1.0), weight(4.0), weight(4096.0)],
            [1, 50, 100, 400, 10_000]
        );
    }
}
