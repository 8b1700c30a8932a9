//! What the orchestrator is still to be told of an attempt that is over. It is written into the attempt's folder before it is told
//! and goes with the folder afterwards, so that the next worker on the data folder tells it if this one cannot. Must never
//! happen here: a process started, a secret kept, a record taken for whole that is not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use refit_workflows::digest::Digest;
use refit_workflows::wire::{AttemptKey, Failure, Finish, Outcome, Report};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::contract::Place;
use super::{Ended, HAND_OVER_TIME_MIN, Tools, report};
use crate::held::{Ending, EndingSignal};
use crate::outputs::Content;

/// Beside the step's working directory. It comes into being whole, by a rename.
const RECORD: &str = "untold.json";
/// What a record is written as.
const RECORD_BEGUN: &str = "untold.json.begun";
/// Far beyond what a log that waits, metrics and the names of an artifact's files come to, in bytes.
const RECORD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Whose lease an attempt has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The worker's name.
    pub(crate) worker: String,
    /// The session that the lease was given to; nobody else knows it.
    pub(crate) session: String,
}

/// As it is kept on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    holder: Holder,
    finish: Finish,
    /// The end of the log and of the metrics.
    rest: Vec<Report>,
    /// The files of its artifacts.
    blobs: BTreeMap<Digest, Content>,
}

/// An attempt that is over and not told yet, and its folder.
#[derive(Debug)]
pub(crate) struct Untold {
    record: Arc<Record>,
    place: Option<Place>,
    /// Until when files are handed over.
    until: Instant,
    /// Whether an earlier worker ran it.
    inherited: bool,
}

impl Untold {
    /// Writes it down in the name of the lease's holder. Where that fails it is told all the same.
    pub(crate) async fn keep(key: AttemptKey, ended: Ended, holder: Holder) -> Self {
        let Ended { outcome, set_up_ms, rest, blobs, place, until } = ended;
        let finish = Finish { set_up_ms, session: Some(holder.session.clone()), ..Finish::of(key, outcome) };
        let record = Arc::new(Record { holder, finish, rest, blobs });
        let mut untold = Self { record: record.clone(), place, until, inherited: false };
        let Some(place) = &mut untold.place else { return untold };
        let folder = place.folder().to_owned();
        // From before it is written: this may be dropped while it is.
        place.stays(true);
        let write = move || write(&folder, &record);
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|panic| Err(panic.into()));
        if let Err(cause) = written {
            place.stays(false);
            tracing::warn!(%cause, run = %untold.key().run, step = untold.key().step,
                "failed to keep on disk what the step came to; if this worker ends before it is told, the step runs again");
        }
        untold
    }

    /// What earlier workers left in their attempts' folders. An attempt whose record is not whole counts as lost, as one that has
    /// none does.
    pub(crate) fn left_in(attempts: &Path) -> io::Result<Vec<Self>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(attempts)? {
            let folder = entry?.path();
            match read(&folder.join(RECORD)) {
                Ok(record) => left.push(Self {
                    record: Arc::new(record),
                    place: Some(Place::inherit(folder)),
                    until: Instant::now() + HAND_OVER_TIME_MIN,
                    inherited: true,
                }),
                Err(cause)
                    if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(cause) => tracing::warn!(%cause, folder = %folder.display(),
                    "what an earlier worker's step came to cannot be read; it counts as lost"),
            }
        }
        Ok(left)
    }

    /// The attempt.
    pub(crate) fn key(&self) -> &AttemptKey {
        &self.record.finish.key
    }

    /// Whose lease it has.
    pub(crate) fn holder(&self) -> &Holder {
        &self.record.holder
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.place.as_ref().map(Place::folder)
    }

    /// Whether the next worker on this data folder could tell it.
    pub(crate) fn is_kept(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_to_stay)
    }

    /// Sends all but the outcome, for as long as it is polled; answers with what is then to be told. Sending it twice is
    /// harmless. None: nobody wants to hear of the attempt.
    pub(crate) async fn deliver(&self, tools: &Tools, ending: &mut EndingSignal) -> Option<Finish> {
        let Record { finish, rest, blobs, .. } = &*self.record;
        for report in rest {
            // A database that was put back may have given the epoch out anew: its log is another's.
            if ending.is_lost() {
                return None;
            }
            if !report::send(&tools.orchestrator, report).await {
                return None;
            }
        }
        let failed = |failure, reason| Some(Outcome::Failed { failure, reason });
        let instead = tokio::select! {
            biased;
            handed = Box::pin(tools.blobs.hand_over(blobs)) => match handed {
                Ok(()) => None,
                // Files may have gone with the worker that was killed; the step has done nothing wrong.
                Err(cause) if self.inherited => failed(
                    Failure::WorkerLost,
                    format!("its worker went away before it had handed over the artifacts: {cause}"),
                ),
                Err(cause) => failed(Failure::InvalidOutput, format!("failed to hand over the artifacts: {cause}")),
            },
            ending = ending.unwanted() => match ending {
                Ending::Cancel => Some(Outcome::Cancelled),
                Ending::ShutDown | Ending::Fenced | Ending::Stop => return None,
            },
            () = tokio::time::sleep_until(self.until) => failed(
                Failure::TimedOut,
                "its artifacts could not be handed over within its timeout".to_owned(),
            ),
        };
        let outcome = instead.unwrap_or_else(|| finish.outcome.clone());
        Some(Finish { outcome, ..finish.clone() })
    }

    /// Nothing more is to be told of it: its folder goes.
    pub(crate) fn settled(self) {
        if let Some(mut place) = self.place {
            place.stays(false);
        }
    }
}

/// On disk, power loss included, when it returns. Blocks.
fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let (begun, whole): (PathBuf, PathBuf) = (folder.join(RECORD_BEGUN), folder.join(RECORD));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&begun)?;
    io::Write::write_all(&mut file, &serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(&begun, &whole)?;
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> io::Result<Record> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.len() > RECORD_BYTES_MAX {
        return Err(io::Error::other(format!("not a file of at most {RECORD_BYTES_MAX} bytes")));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> (tempfile::TempDir, PathBuf) {
        let attempts = tempfile::tempdir().unwrap();
        let folder = attempts.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        let key = AttemptKey { run: "churn/12".parse().unwrap(), step: "train".to_owned(), epoch: 3 };
        let holder = Holder { worker: "gpu-1".to_owned(), session: "s".to_owned() };
        let finish = Finish::of(key, Outcome::Cancelled);
        write(&folder, &Record { holder, finish, rest: Vec::new(), blobs: BTreeMap::new() }).unwrap();
        let record = folder.join(RECORD);
        (attempts, record)
    }

    #[test]
    fn a_record_that_is_not_whole_or_not_ours_is_no_record() {
        let (attempts, record) = kept();
        let whole = std::fs::read(&record).unwrap();
        let left = || Untold::left_in(attempts.path()).unwrap();
        assert_eq!(left()[0].key().epoch, 3);
        for torn in 0..whole.len() {
            std::fs::write(&record, &whole[..torn]).unwrap();
            assert!(left().is_empty(), "{torn} of {} bytes were taken for a record", whole.len());
        }
        for foreign in ["[]", "{\"holder\": 1}", "\u{0}\u{0}\u{0}", &"[".repeat(100_000)] {
            std::fs::write(&record, foreign).unwrap();
            assert!(left().is_empty());
        }
        std::fs::write(&record, [0xff, 0xfe]).unwrap();
        assert!(left().is_empty());
        std::fs::remove_file(&record).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &record).unwrap();
        assert!(left().is_empty());
        std::fs::remove_file(&record).unwrap();
        std::fs::create_dir(&record).unwrap();
        std::fs::write(attempts.path().join("stray"), "").unwrap();
        assert!(left().is_empty());
        std::fs::remove_dir(&record).unwrap();
        File::create(&record).unwrap().set_len(RECORD_BYTES_MAX + 1).unwrap();
        assert!(left().is_empty());
    }

    #[test]
    fn a_record_that_was_begun_is_no_record() {
        let (attempts, record) = kept();
        std::fs::rename(&record, record.with_file_name(RECORD_BEGUN)).unwrap();
        assert!(Untold::left_in(attempts.path()).unwrap().is_empty());
    }
}
