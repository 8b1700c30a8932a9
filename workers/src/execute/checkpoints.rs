//! A step's checkpoint folder: laid out as an earlier attempt left it, on whichever host that was, and saved while the step
//! writes to it. What is saved is a copy that nothing changed meanwhile. Must never happen here: half of what a step wrote
//! being saved as if it were all, or a save holding the step up.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use refit_workflows::wire::{ArtifactRef, Checkpoint, Report, StepOrder};
use tokio::time::Instant;

use super::Tools;
use super::contract::Place;
use super::logs::Log;
use crate::blobs::Access;
use crate::client;
use crate::leftovers::remove_folder;
use crate::{outputs, processes};

/// How often the folder is looked at, at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often it is looked at, at least.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The pause after a save, in times of what the save took: a large checkpoint costs a tenth of the time, whatever its size.
const PAUSE_SHARE: u32 = 9;
/// How long a step that is asked for a checkpoint may take to write one.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two looks at whether it has.
const ANSWER_LOOK: Duration = Duration::from_millis(100);
/// The most files that are looked at; what holds more is refused when it is gathered.
const FILES_MAX: usize = 100_001;
/// The checkpoint folder of one attempt; of a step that keeps none, nothing happens.
#[derive(Debug)]
pub(crate) struct Checkpoints<'a> {
    tools: &'a Tools,
    order: &'a StepOrder,
    log: &'a Log,
    /// The step's folder, and the one in which copies of it are made. None: it keeps none.
    places: Option<(PathBuf, PathBuf)>,
    /// The folder as it was saved last.
    saved: tokio::sync::Mutex<Files>,
    /// Why it could not be saved, as far as that is in the log.
    said: std::sync::Mutex<String>,
    /// The process to ask for a checkpoint; 0 while there is none.
    leader: AtomicI32,
    /// Copies made so far: one that was given up may still be under way.
    copies: AtomicU32,
}

/// What a folder holds, as far as that shows whether something has changed: length, time of the last change and number
/// of each file.
type Files = BTreeMap<PathBuf, (u64, i64, i64, u64)>;

/// What saving came to.
enum Save {
    /// It is saved, or there is nothing new.
    Done,
    /// The step is writing to it.
    Changing,
    /// It cannot be saved, and why.
    Refused(String),
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn new(tools: &'a Tools, order: &'a StepOrder, place: &Place, log: &'a Log) -> Self {
        let places = order
            .checkpoint
            .as_ref()
            .map(|checkpoint| (place.work().join(checkpoint.path.trim_end_matches('/')), place.control("")));
        let (saved, said, leader, copies) = Default::default();
        Self { tools, order, log, places, saved, said, leader, copies }
    }

    /// Makes the folder, with what an earlier attempt saved in it.
    ///
    /// # Errors
    /// A reason for people.
    pub(crate) async fn restore(&self) -> Result<(), String> {
        let Some((folder, _)) = &self.places else { return Ok(()) };
        let from = self.order.checkpoint.as_ref().and_then(|checkpoint| checkpoint.from.as_ref());
        let failed = |cause: &dyn std::fmt::Display| format!("failed to lay out the checkpoint: {cause}");
        if let Some(Checkpoint { artifact, attempt, at }) = from {
            // The workflow's code may hold a folder of that name.
            remove_folder(folder).map_err(|cause| failed(&cause))?;
            let laid = self.tools.blobs.lay_out(artifact, folder, Access::ReadWrite).await;
            laid.map_err(|cause| failed(&cause))?;
            let bytes = artifact.bytes;
            self.log.say(&format!(
                "going on from the checkpoint of attempt {attempt}: {bytes} bytes, saved {at}"
            ));
        }
        std::fs::create_dir_all(folder).map_err(|cause| failed(&cause))?;
        *self.saved.lock().await = look(folder).unwrap_or_default();
        Ok(())
    }

    /// Notes the process to ask for a checkpoint.
    pub(crate) fn started(&self, leader: i32) {
        self.leader.store(leader, Ordering::Relaxed);
    }

    /// Saves what the step writes, until dropped. Dropping it in the middle of a save is harmless.
    pub(crate) async fn live(&self) -> std::convert::Infallible {
        if self.places.is_none() {
            return std::future::pending().await;
        }
        let mut leaving = self.tools.leaving.subscribe();
        let mut pause = PAUSE_MIN;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = leaving.changed() => self.ask().await,
            }
            let begun = Instant::now();
            self.save().await;
            pause = (begun.elapsed() * PAUSE_SHARE).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    /// Saves what is there now, if it is new; what keeps it from being saved goes into the log.
    pub(crate) async fn save(&self) {
        match self.try_save().await {
            Save::Done => {}
            Save::Changing => {
                self.say_once("it changes while it is copied; write to another name and rename when done");
            }
            Save::Refused(reason) => self.say_once(&reason),
        }
    }

    fn say_once(&self, reason: &str) {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *said != reason {
            reason.clone_into(&mut said);
            self.log.say(&format!("the checkpoint could not be saved now: {reason}"));
        }
    }

    async fn try_save(&self) -> Save {
        let Some((folder, copies)) = &self.places else { return Save::Done };
        let mut saved = self.saved.lock().await;
        let files = match look(folder) {
            Ok(files) => files,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Save::Changing,
            Err(cause) => return Save::Refused(format!("failed to read it: {cause}")),
        };
        if files.is_empty() || files == *saved {
            return Save::Done;
        }
        let name = format!("checkpoint-{}", self.copies.fetch_add(1, Ordering::Relaxed));
        let copy = copies.join(&name);
        let copied = {
            let (folder, copy, before) = (folder.clone(), copy.clone(), files.clone());
            tokio::task::spawn_blocking(move || snapshot(&folder, &copy, &before)).await
        };
        match copied.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(true) => {}
            Ok(false) => return Save::Changing,
            Err(cause) => return Save::Refused(format!("failed to copy it: {cause}")),
        }
        let handed = self.hand_over(copies, &name).await;
        if let Err(cause) = remove_folder(&copy) {
            tracing::warn!(%cause, folder = %copy.display(), "failed to remove the copy of a checkpoint");
        }
        match handed {
            Ok(()) => {
                *saved = files;
                Save::Done
            }
            Err(reason) => Save::Refused(reason),
        }
    }

    async fn hand_over(&self, copies: &Path, name: &str) -> Result<(), String> {
        let root = copies.to_owned();
        let declared = BTreeMap::from([("checkpoint".to_owned(), name.to_owned())]);
        let gathered = tokio::task::spawn_blocking(move || outputs::gather(&root, &declared))
            .await
            .map_err(|cause| cause.to_string())??;
        let handed = self.tools.blobs.hand_over(&gathered.blobs).await;
        handed.map_err(|cause| format!("failed to hand it over: {cause}"))?;
        let Some(artifact) = gathered.artifacts.into_values().next() else { return Ok(()) };
        self.report(artifact).await
    }

    async fn report(&self, artifact: ArtifactRef) -> Result<(), String> {
        let report = Report {
            key: self.order.key.clone(),
            attempt: self.order.attempt,
            logs: Vec::new(),
            metrics: BTreeMap::new(),
            points: Vec::new(),
            checkpoint: Some(artifact),
            set_up_ms: None,
        };
        // A lease that is lost shows at the next renewal.
        client::persist(|| self.tools.orchestrator.report(&report))
            .await
            .map_err(|refusal| refusal.to_string())
    }

    /// Asks the processes of the step that handle SIGUSR1 for a checkpoint, and gives them time to write one. Who does not
    /// handle it is not asked: it would die of it.
    pub(crate) async fn ask(&self) {
        let Some((folder, _)) = &self.places else { return };
        let leader = self.leader.load(Ordering::Relaxed);
        if leader == 0 {
            return;
        }
        let before = look(folder).ok();
        let asked = tokio::task::spawn_blocking(move || ask_tree(leader)).await.unwrap_or(0);
        if asked == 0 {
            return;
        }
        let begun = Instant::now();
        let mut latest = before.clone();
        while begun.elapsed() < ANSWER_WITHIN {
            tokio::time::sleep(ANSWER_LOOK).await;
            let now = look(folder).ok();
            if now != before && now == latest {
                return;
            }
            latest = now;
        }
    }
}

/// The files of a folder, links and empty folders left out.
fn look(folder: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.is_file() && files.len() < FILES_MAX {
                files.insert(entry.path(), (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()));
            }
        }
    }
    Ok(files)
}

/// Copies a folder; false when it has changed meanwhile.
fn snapshot(folder: &Path, copy: &Path, before: &Files) -> io::Result<bool> {
    remove_folder(copy)?;
    match copy_folder(folder, copy) {
        // Something that was listed was gone when it was to be copied.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        done => done?,
    }
    Ok(look(folder).is_ok_and(|after| after == *before))
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Sends SIGUSR1 to a process and its descendants, as far as they handle it; answers with how many do.
fn ask_tree(leader: i32) -> usize {
    let handle = |&pid: &i32| processes::handles(pid, Signal::SIGUSR1);
    let asked = processes::living([leader], |_| {}).into_iter().filter(handle);
    asked.filter(|&pid| kill(Pid::from_raw(pid), Signal::SIGUSR1).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_or_none() {
        let place = tempfile::tempdir().unwrap();
        let (folder, copy) = (place.path().join("state"), place.path().join("copy"));
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        std::fs::write(folder.join("deep/model"), "one").unwrap();
        std::os::unix::fs::symlink("deep/model", folder.join("latest")).unwrap();
        let before = look(&folder).unwrap();
        assert!(snapshot(&folder, &copy, &before).unwrap());
        assert_eq!(std::fs::read_to_string(copy.join("latest")).unwrap(), "one");

        std::fs::write(folder.join("more"), "two").unwrap();
        assert!(!snapshot(&folder, &copy, &before).unwrap(), "something came while it was copied");
        let before = look(&folder).unwrap();
        std::fs::remove_dir_all(folder.join("deep")).unwrap();
        assert!(!snapshot(&folder, &copy, &before).unwrap(), "something went while it was copied");
    }

    #[test]
    fn only_who_handles_the_signal_is_asked() {
        let mut deaf = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(deaf.id()).unwrap();
        assert!(!processes::handles(pid, Signal::SIGUSR1));
        assert_eq!(ask_tree(pid), 0);
        assert!(deaf.try_wait().unwrap().is_none());
        deaf.kill().unwrap();
        deaf.wait().unwrap();
    }
}
