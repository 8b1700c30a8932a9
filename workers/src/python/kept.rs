//! Which environments stay on the host: those in use, and of the others the ones used last. Must never happen here: one removed that
//! a step runs in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// How many environments are kept.
const KEPT_MAX: usize = 20;

/// The environments of a folder.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    in_use: Arc<Mutex<BTreeMap<PathBuf, usize>>>,
}

/// Says that an environment is in use, until it is dropped.
#[derive(Debug)]
pub(super) struct InUse {
    folder: PathBuf,
    all: Arc<Mutex<BTreeMap<PathBuf, usize>>>,
}

impl Kept {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, in_use: Arc::default() }
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes an environment into use, whether it is there or is about to be.
    pub(super) fn take(&self, folder: &Path) -> InUse {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        *in_use.entry(folder.to_owned()).or_default() += 1;
        InUse { folder: folder.to_owned(), all: Arc::clone(&self.in_use) }
    }

    /// Removes those beyond [`KEPT_MAX`] that were used longest ago, as the times of their marks say. One that cannot be removed
    /// stays. Answers with what it removed.
    pub(super) fn remove_least_used(&self, mark: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut kept: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let used =
                    std::fs::metadata(entry.path().join(mark)).and_then(|mark| mark.modified()).ok()?;
                Some((used, entry.path()))
            })
            .collect();
        kept.sort();
        let beyond = kept.len().saturating_sub(KEPT_MAX);
        let mut removed = Vec::new();
        for (_, folder) in kept {
            if removed.len() == beyond {
                break;
            }
            // Held to the end, so that nobody takes it meanwhile.
            let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
            // Its mark goes first: half an environment is none.
            if !in_use.contains_key(&folder)
                && std::fs::remove_file(folder.join(mark)).is_ok()
                && crate::leftovers::remove_folder(&folder).is_ok()
            {
                removed.push(folder);
            }
        }
        removed
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.folder) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.folder);
            }
        }
    }
}

/// Whether an environment's mark is there; if it is, it was used now.
pub(super) fn touch(mark: &Path) -> bool {
    let Ok(file) = std::fs::File::options().append(true).open(mark) else { return false };
    // A time that cannot be set makes it go sooner, no more.
    let _ = file.set_modified(SystemTime::now());
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_unless_it_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().to_owned());
        let name = |number: usize| kept.folder(&format!("{number:02}"));
        for number in 0..KEPT_MAX + 3 {
            std::fs::create_dir(name(number)).unwrap();
            let mark = std::fs::File::create(name(number).join("mark")).unwrap();
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + number as u64);
            mark.set_modified(used).unwrap();
        }
        std::fs::create_dir(name(99)).unwrap();
        let _one = kept.take(&name(0));
        let two = kept.take(&name(1));
        let twice = kept.take(&name(1));
        assert!(touch(&name(2).join("mark")), "it is the latest now");
        drop(two);
        assert_eq!(kept.remove_least_used("mark"), [name(3), name(4), name(5)]);
        assert!(name(1).is_dir() && name(2).is_dir() && !name(3).exists() && name(99).is_dir());
        drop(twice);
        assert_eq!(kept.remove_least_used("mark"), Vec::<PathBuf>::new());
        assert!(!touch(&name(3).join("mark")), "what is gone is not used");
    }
}
