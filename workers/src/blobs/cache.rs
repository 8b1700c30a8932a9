//! The blobs that a host keeps for steps to come: files by digest in one folder, the least recently used of which go when it
//! is full. A file under its digest's name always has that digest: it comes in under another name, is hashed on the way, and
//! is renamed when right. Asks nobody for anything.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use refit_workflows::digest::Digest;
use sha2::Digest as _;

use crate::outputs::Content;

/// Names the boot that the cache was filled in.
pub(super) const BOOT: &str = "boot";

/// The cache of one host.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    index: Mutex<Index>,
}

impl Cache {
    /// What is kept in `folder`, at most `bytes_max`.
    pub(super) fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        start_over_after_boot(&folder)?;
        let mut index = Index { bytes_max, ..Index::default() };
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok()) {
                Some(digest) => index.insert(digest, entry.metadata()?.len()),
                None if name == BOOT => {}
                // A transfer that a killed worker left unfinished.
                None => std::fs::remove_file(entry.path())?,
            }
        }
        Ok(Self { folder, index: Mutex::new(index) })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a blob is, if it is there.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Whether a blob is there; counts as a use.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.index().touch(digest)
    }

    /// Notes that a blob is not there any more.
    pub(super) fn forget(&self, digest: &Digest) {
        self.index().remove(digest);
    }

    /// An empty file for a blob that is about to come.
    pub(super) fn incoming(&self) -> io::Result<Incoming> {
        Incoming::create(self.folder.join(format!("incoming-{}", uuid::Uuid::new_v4())))
    }

    /// Takes in a blob that has come whole: it is kept under the digest it has.
    pub(super) fn admit(&self, incoming: Incoming) -> io::Result<()> {
        let (digest, bytes) = (incoming.digest(), incoming.bytes);
        std::fs::rename(&incoming.path, self.path(&digest))?;
        self.remember(digest, bytes);
        Ok(())
    }

    /// Takes in what a step has made, so that the next step on this host need not fetch it.
    pub(super) fn keep(&self, digest: &Digest, content: &Content) {
        if self.has(digest) {
            return;
        }
        let kept = match content {
            Content::File(path, bytes) => self.keep_file(digest, path, *bytes),
            Content::Text(text) => self.keep_text(text),
        };
        if let Err(cause) = kept {
            // Only the saving of a download is lost.
            tracing::debug!(%digest, %cause, "failed to keep an artifact in the cache");
        }
    }

    fn keep_text(&self, text: &str) -> io::Result<()> {
        let mut incoming = self.incoming()?;
        incoming.add(text.as_bytes())?;
        self.admit(incoming)
    }

    /// Links a finished step's file into the cache instead of copying it: the working directory is about to go. A file
    /// that has other names could still be written through them, so it is left alone.
    fn keep_file(&self, digest: &Digest, path: &Path, bytes: u64) -> io::Result<()> {
        if std::fs::metadata(path)?.nlink() != 1 {
            return Ok(());
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))?;
        match std::fs::hard_link(path, self.path(digest)) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
            Ok(()) | Err(_) => {}
        }
        self.remember(digest.clone(), bytes);
        Ok(())
    }

    /// Notes a blob that is there, and makes room.
    fn remember(&self, digest: Digest, bytes: u64) {
        let evicted = {
            let mut index = self.index();
            index.insert(digest, bytes);
            index.make_room()
        };
        for digest in evicted {
            if let Err(cause) = std::fs::remove_file(self.path(&digest)) {
                tracing::debug!(%digest, %cause, "an evicted blob was gone already");
            }
        }
    }
}

/// What has arrived of a blob so far: a file on its way into the cache, removed when it does not get there.
#[derive(Debug)]
pub(super) struct Incoming {
    path: PathBuf,
    file: File,
    hash: sha2::Sha256,
    bytes: u64,
}

impl Incoming {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o444).open(&path)?;
        Ok(Self { path, file, hash: sha2::Sha256::new(), bytes: 0 })
    }

    /// Where it is put.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How much has arrived.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of what has arrived.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_hash(&self.hash.clone().finalize())
    }

    /// Adds what comes next.
    pub(super) fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    /// Forgets what has arrived.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        (self.hash, self.bytes) = (sha2::Sha256::new(), 0);
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed away in the good case.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Empties the cache after the host was started anew: nothing is flushed to disk here, so after a power loss a file
/// may not hold what its name says.
fn start_over_after_boot(folder: &Path) -> io::Result<()> {
    let Some(boot) = crate::host::boot_id() else { return Ok(()) };
    let note = folder.join(BOOT);
    if std::fs::read_to_string(&note).is_ok_and(|noted| noted == boot) {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    std::fs::write(&note, boot)
}

/// What the cache holds, and which of it was used least recently.
#[derive(Debug, Default)]
struct Index {
    bytes_max: u64,
    bytes: u64,
    clock: u64,
    entries: HashMap<Digest, (u64, u64)>,
}

impl Index {
    /// Whether it is there; counts as a use.
    fn touch(&mut self, digest: &Digest) -> bool {
        self.clock += 1;
        match self.entries.get_mut(digest) {
            Some((_, used)) => {
                *used = self.clock;
                true
            }
            None => false,
        }
    }

    fn insert(&mut self, digest: Digest, bytes: u64) {
        self.remove(&digest);
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(digest, (bytes, self.clock));
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some((bytes, _)) = self.entries.remove(digest) {
            self.bytes -= bytes;
        }
    }

    /// Forgets the least recently used until a tenth is free; answers with their names. The newest always stays.
    fn make_room(&mut self) -> Vec<Digest> {
        let mut evicted = Vec::new();
        if self.bytes <= self.bytes_max {
            return evicted;
        }
        let mut by_use: Vec<(u64, Digest)> =
            self.entries.iter().map(|(digest, (_, used))| (*used, digest.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        by_use.pop();
        for (_, digest) in by_use {
            if self.bytes <= self.bytes_max / 10 * 9 {
                break;
            }
            self.remove(&digest);
            evicted.push(digest);
        }
        evicted
    }
}
