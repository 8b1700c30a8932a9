//! Whose a child of this process is. The worker adopts what its steps orphan (it is their subreaper), so that its list
//! of children tells what a step left behind; several attempts, of several workers even, may run in one process.
//! Must never happen here: a child reaped that somebody waits for; a process given to an attempt it may not be of while another
//! could own it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::leftovers::Signs;
use crate::processes::{self, Stat};

/// Children and attempts of this process, those of every worker in it.
static HOUSE: Mutex<House> = Mutex::new(House::new());

/// Held while a process is started and moved into its cgroup.
static MOVING: Mutex<()> = Mutex::new(());

fn house() -> MutexGuard<'static, House> {
    HOUSE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct House {
    /// Children that somebody waits for.
    waited_for: BTreeSet<i32>,
    /// Starts under way: a child of theirs may be listed by the kernel and not be in `waited_for` yet.
    starting: usize,
    attempts: BTreeMap<String, Attempt>,
    /// Orphans that were seen alive. Nobody else reaps them, so a process id here cannot come to mean another process.
    orphans: BTreeMap<i32, Owner>,
}

#[derive(Debug)]
struct Attempt {
    signs: Signs,
    /// The leaders of its trees, which their process groups are named by.
    leaders: BTreeSet<i32>,
    /// Everything it has started is in its cgroup, and whatever that starts will be.
    confined: bool,
}

#[derive(Debug)]
enum Owner {
    Attempt(String),
    /// It threw away every sign; these attempts were under way when it was first seen.
    OneOf(BTreeSet<String>),
}

/// How often the list of children is read again because one was found dead.
const LOOKS_MAX: usize = 4;

/// What is left of an attempt among the children of this process.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Its leaders and orphans that live. Their descendants belong to it as well.
    pub(crate) roots: BTreeSet<i32>,
    /// False when one may have been missed: look again.
    pub(crate) sure: bool,
}

/// What a look at the children came upon.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// No child was left out.
    sure: bool,
    /// One was dead.
    dead: bool,
}

/// Makes orphaned descendants children of this process (Linux `PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt() {
    #[cfg(target_os = "linux")]
    if let Err(cause) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%cause, "failed to become the subreaper; what steps leave behind is found by searching all processes");
    }
}

fn adopting() -> bool {
    #[cfg(target_os = "linux")]
    return nix::sys::prctl::get_child_subreaper().unwrap_or(false);
    #[cfg(not(target_os = "linux"))]
    false
}

/// An attempt under way in this process, until dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    id: String,
}

impl UnderWay {
    /// From now on processes may be those of this attempt.
    pub(crate) fn begin(signs: &Signs) -> Self {
        let attempt =
            Attempt { signs: signs.clone(), leaders: BTreeSet::new(), confined: signs.cgroup.is_some() };
        house().attempts.insert(signs.id.clone(), attempt);
        Self { id: signs.id.clone() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut house = house();
        house.attempts.remove(&self.id);
        for owner in house.orphans.values_mut() {
            if let Owner::OneOf(ids) = owner {
                ids.remove(&self.id);
            }
        }
    }
}

/// Starts a child of an attempt, the leader of a process group of its own, and moves it into the attempt's cgroup.
///
/// # Errors
/// Whatever kept it from starting.
pub(crate) fn start(command: &mut Command, signs: &Signs) -> io::Result<(Child, i32)> {
    let Some(cgroup) = &signs.cgroup else { return spawn(command, signs) };
    // What gets away before the move, and throws away every other sign, can only be of the one that is being moved.
    let _one_at_a_time = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
    let (child, leader) = spawn(command, signs)?;
    let moved = cgroup.enter(leader).and_then(|()| {
        let left = left(&signs.id).unwrap_or_default();
        left.roots.into_iter().filter(|&pid| pid != leader).try_for_each(|pid| cgroup.enter(pid))
    });
    match moved {
        Ok(()) => house().set_confined(&signs.id, true),
        Err(cause) => {
            tracing::warn!(%cause, process = leader, "failed to move a step into its cgroup; it runs outside, without limits");
        }
    }
    Ok((child, leader))
}

fn spawn(command: &mut Command, signs: &Signs) -> io::Result<(Child, i32)> {
    {
        let mut house = house();
        house.starting += 1;
        house.set_confined(&signs.id, false);
    }
    let started = command.spawn().and_then(|child| {
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok());
        leader.map(|leader| (child, leader)).ok_or_else(|| io::Error::other("the process has no id"))
    });
    let mut house = house();
    house.starting -= 1;
    if let Ok((_, leader)) = &started {
        house.waited_for.insert(*leader);
        if let Some(attempt) = house.attempts.get_mut(&signs.id) {
            attempt.leaders.insert(*leader);
        }
    }
    started
}

/// Waits for a child. May be dropped and called again.
///
/// # Errors
/// The system's.
pub(crate) async fn wait(child: &mut Child, leader: i32) -> io::Result<ExitStatus> {
    let mut waiting = pin!(child.wait());
    // Reaped under the lock: the kernel's list of children may skip one while another is taken out of it.
    poll_fn(|context| {
        let mut house = house();
        let polled = waiting.as_mut().poll(context);
        if polled.is_ready() {
            house.waited_for.remove(&leader);
        }
        polled
    })
    .await
}

/// Nobody waits for this child any more.
pub(crate) fn forsake(leader: i32) {
    house().waited_for.remove(&leader);
}

/// What is left of an attempt. None when only a search of all processes can tell: for one that is not under way here, or where
/// orphans cannot be adopted.
pub(crate) fn left(id: &str) -> Option<Left> {
    if !adopting() {
        return None;
    }
    let mut house = house();
    let sure = house.look()?;
    let leaders = &house.attempts.get(id)?.leaders;
    let mut roots: BTreeSet<i32> = leaders.intersection(&house.waited_for).copied().collect();
    roots.extend(house.orphans.iter().filter(|(_, owner)| owner.is(id)).map(|(&pid, _)| pid));
    Some(Left { roots, sure })
}

/// Reaps what died unnoticed and kills what belongs to no attempt any more: those of an attempt whose task was dropped.
pub(crate) fn reap() {
    let mut house = house();
    if house.look().is_none() {
        return;
    }
    for (&pid, owner) in &house.orphans {
        if owner.is_gone(&house.attempts) {
            // Dead already is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Owner {
    fn is(&self, id: &str) -> bool {
        match self {
            Self::Attempt(owner) => owner == id,
            // It is ended with the last attempt that it can be of.
            Self::OneOf(ids) => ids.len() == 1 && ids.contains(id),
        }
    }

    fn is_gone(&self, attempts: &BTreeMap<String, Attempt>) -> bool {
        match self {
            Self::Attempt(owner) => !attempts.contains_key(owner),
            Self::OneOf(ids) => ids.is_empty(),
        }
    }
}

impl House {
    const fn new() -> Self {
        Self { waited_for: BTreeSet::new(), starting: 0, attempts: BTreeMap::new(), orphans: BTreeMap::new() }
    }

    /// Finds an owner for each child that nobody waits for, and reaps those that are dead. True when no child can have been
    /// left out; none where the kernel does not list them.
    fn look(&mut self) -> Option<bool> {
        for _ in 0..LOOKS_MAX {
            let seen = self.look_once()?;
            // What is dead may have left children of its own after the list was read.
            if !seen.dead {
                return Some(seen.sure);
            }
        }
        Some(false)
    }

    fn look_once(&mut self) -> Option<Seen> {
        let children = processes::adopted()?;
        self.orphans.retain(|pid, _| children.contains(pid));
        let own_group = nix::unistd::getpgrp().as_raw();
        let mut seen = Seen { sure: true, dead: false };
        for pid in children.into_iter().filter(|pid| !self.waited_for.contains(pid)) {
            let known = self.orphans.contains_key(&pid);
            if !known && self.starting > 0 {
                seen.sure = false;
                continue;
            }
            let Some(stat) = processes::stat(pid) else {
                seen.dead = true;
                continue;
            };
            // Whoever starts children here the plain way leaves them in this process's own group; steps never do.
            let stranger = stat.group == own_group;
            if stat.zombie {
                if known || !stranger {
                    seen.dead = true;
                    // Gone already is as good as reaped.
                    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                    self.orphans.remove(&pid);
                }
            } else if !known {
                let owner = self.owner(pid, stat);
                if let Some(owner) = owner.or_else(|| (!stranger).then(|| self.one_of_all()).flatten()) {
                    self.orphans.insert(pid, owner);
                }
            }
        }
        Some(seen)
    }

    /// The owner of an orphan without any sign.
    fn one_of_all(&self) -> Option<Owner> {
        let mut ids: BTreeSet<String> =
            self.attempts.iter().filter(|(_, attempt)| !attempt.confined).map(|(id, _)| id.clone()).collect();
        if ids.is_empty() {
            ids.extend(self.attempts.keys().cloned());
        }
        (!ids.is_empty()).then_some(Owner::OneOf(ids))
    }

    fn set_confined(&mut self, id: &str, confined: bool) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.confined = confined;
        }
    }

    /// By what the kernel vouches for first, then by what a process can change.
    fn owner(&self, pid: i32, stat: Stat) -> Option<Owner> {
        let attempt = |id: &String| Some(Owner::Attempt(id.clone()));
        let cgroup = processes::cgroup(pid).unwrap_or_default();
        let by = |holds: &dyn Fn(&Attempt) -> bool| {
            self.attempts.iter().find(|(_, attempt)| holds(attempt)).map(|(id, _)| id)
        };
        let found = by(&|attempt| processes::is_cgroup_of(&cgroup, &attempt.signs.id))
            .or_else(|| by(&|attempt| attempt.leaders.contains(&stat.group)));
        if let Some(id) = found {
            return attempt(id);
        }
        let marker = processes::marker(pid);
        by(&|attempt| marker.as_deref() == Some(attempt.signs.id.as_str()))
            .or_else(|| by(&|attempt| processes::works_in(pid, &attempt.signs.folder)))
            .and_then(attempt)
    }
}
