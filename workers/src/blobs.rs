//! Blobs by digest: fetched from the orchestrator once, kept in a bounded cache on this host, copied to where steps
//! may spoil them; and handed over to the orchestrator. A transfer that breaks off goes on where it was. A file under its
//! digest's name always has that digest: it comes in under another name, is hashed on the way, and is renamed when right.
//! Steps never see the cache itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{
    ArtifactKind, ArtifactRef, PIECE_BYTES, TREE_BYTES_MAX, Tree, UploadView, check_relative_path,
};
use sha2::Digest as _;

use crate::client::{self, CallError, Orchestrator};
use crate::keyed::Keyed;
use crate::outputs::Content;

/// Transfers of one step at a time.
const TRANSFERS: usize = 4;
/// How often a blob that arrives damaged, or leaves the cache under our feet, is fetched again.
const TRIES: usize = 3;
/// Parsed trees kept in memory.
const TREES_MAX: usize = 64;

/// Why a blob could not be had or handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// The orchestrator does not give or take it.
    #[error("the orchestrator refused {digest}: {cause}")]
    Refused {
        /// The blob.
        digest: Digest,
        /// Its words.
        cause: CallError,
    },
    /// What arrived is not what was asked for, time and again.
    #[error("{0} arrived damaged {TRIES} times in a row")]
    Damaged(Digest),
    /// A tree that does not describe a folder.
    #[error("{digest} does not describe a folder: {why}")]
    NotATree {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// The host's disk did not do its part.
    #[error("failed to use {path}: {cause}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |cause| BlobError::Disk { path, cause }
}

/// Whether a step may write to what is laid out for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Its working directory.
    ReadWrite,
    /// Its inputs.
    ReadOnly,
}

/// The host's blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    orchestrator: Arc<Orchestrator>,
    index: Mutex<Index>,
    fetching: Keyed<Digest>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
}

impl Blobs {
    /// The cache in `folder`, holding at most `bytes_max`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn open(folder: PathBuf, orchestrator: Arc<Orchestrator>, bytes_max: u64) -> io::Result<Self> {
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
        Ok(Self {
            folder,
            orchestrator,
            index: Mutex::new(index),
            fetching: Keyed::default(),
            trees: Mutex::default(),
        })
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// The blob's file in the cache, fetched when it is not there. Read it at once: it may be evicted later.
    async fn fetch(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
        let path = self.path(digest);
        if self.index().touch(digest) {
            return Ok(path);
        }
        let _only_once = self.fetching.lock(digest.clone()).await;
        if self.index().touch(digest) {
            return Ok(path);
        }
        for _ in 0..TRIES {
            let incoming = Incoming::new(&self.folder);
            let file = Mutex::new(Partial::create(&incoming.path).map_err(disk(&incoming.path))?);
            let (found, bytes) = client::persist(|| self.download(digest, &file))
                .await
                .map_err(|cause| BlobError::Refused { digest: digest.clone(), cause })?
                .map_err(disk(&incoming.path))?;
            if found == *digest {
                std::fs::rename(&incoming.path, &path).map_err(disk(&path))?;
                self.remember(digest.clone(), bytes);
                return Ok(path);
            }
            tracing::warn!(%digest, %found, "a blob arrived damaged; fetching it again");
        }
        Err(BlobError::Damaged(digest.clone()))
    }

    /// Streams a blob into a file, from where an earlier try broke off. The outer error is the orchestrator's, the inner
    /// one the disk's.
    async fn download(
        &self,
        digest: &Digest,
        partial: &Mutex<Partial>,
    ) -> Result<io::Result<(Digest, u64)>, CallError> {
        let partial = || partial.lock().unwrap_or_else(PoisonError::into_inner);
        let from = partial().bytes;
        let mut response = self.orchestrator.blob(digest, from).await?;
        if response.status() != reqwest::StatusCode::PARTIAL_CONTENT
            && let Err(cause) = partial().start_over()
        {
            return Ok(Err(cause));
        }
        while let Some(chunk) = client::next_chunk(&mut response).await? {
            if let Err(cause) = partial().add(chunk.as_ref()) {
                return Ok(Err(cause));
            }
        }
        Ok(Ok(partial().digest()))
    }

    /// Notes a blob in the cache and makes room.
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

    fn forget(&self, digest: &Digest) {
        self.index().remove(digest);
    }

    /// The folder that a digest stands for.
    async fn tree(&self, digest: &Digest) -> Result<Arc<Tree>, BlobError> {
        let known = self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(tree) = known {
            return Ok(tree);
        }
        let wrong = |why: String| BlobError::NotATree { digest: digest.clone(), why };
        let path = self.fetch(digest).await?;
        let bytes = std::fs::metadata(&path).map_err(disk(&path))?.len();
        if bytes > TREE_BYTES_MAX {
            return Err(wrong(format!("{bytes} bytes are more than a list of files may have")));
        }
        let text = std::fs::read(&path).map_err(disk(&path))?;
        let tree: Tree = serde_json::from_slice(&text).map_err(|cause| wrong(cause.to_string()))?;
        for file in &tree.files {
            check_relative_path(&file.path).map_err(|why| wrong(format!("`{}` {why}", file.path)))?;
        }
        let tree = Arc::new(tree);
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if trees.len() >= TREES_MAX {
            trees.clear();
        }
        trees.insert(digest.clone(), tree.clone());
        Ok(tree)
    }

    /// Copies an artifact to `to`: a file artifact becomes the file, a folder artifact the folder.
    pub(crate) async fn lay_out(
        &self,
        artifact: &ArtifactRef,
        to: &Path,
        access: Access,
    ) -> Result<(), BlobError> {
        match artifact.kind {
            ArtifactKind::File => {
                self.copy_out(vec![(artifact.digest.clone(), to.to_owned(), false)], access).await
            }
            ArtifactKind::Folder => self.lay_out_tree(&artifact.digest, to, access).await,
        }
    }

    /// Copies a tree into the folder `to`, which is made when it is not there.
    pub(crate) async fn lay_out_tree(
        &self,
        digest: &Digest,
        to: &Path,
        access: Access,
    ) -> Result<(), BlobError> {
        let tree = self.tree(digest).await?;
        std::fs::create_dir_all(to).map_err(disk(to))?;
        let files = tree
            .files
            .iter()
            .map(|file| (file.digest.clone(), to.join(&file.path), file.executable))
            .collect();
        self.copy_out(files, access).await?;
        if access == Access::ReadOnly {
            close_folders(to).map_err(disk(to))?;
        }
        Ok(())
    }

    /// Copies cached blobs to files. A blob evicted between fetching and copying is fetched again.
    async fn copy_out(&self, files: Vec<(Digest, PathBuf, bool)>, access: Access) -> Result<(), BlobError> {
        let mut open = files;
        let mut in_vain = 0;
        while in_vain < TRIES {
            let before = open.len();
            let absent: BTreeSet<Digest> = {
                let mut index = self.index();
                open.iter()
                    .map(|(digest, ..)| digest)
                    .filter(|digest| !index.touch(digest))
                    .cloned()
                    .collect()
            };
            let mut fetches: Vec<BoxFuture<'_, Result<PathBuf, BlobError>>> = Vec::new();
            for digest in &absent {
                fetches.push(Box::pin(self.fetch(digest)));
            }
            some_at_a_time(fetches).await?;
            let copies: Vec<(PathBuf, (Digest, PathBuf, bool))> =
                open.into_iter().map(|file| (self.path(&file.0), file)).collect();
            let copied = tokio::task::spawn_blocking(move || copy_all(copies, access)).await;
            open = copied
                .map_err(|cause| BlobError::Disk { path: self.folder.clone(), cause: cause.into() })??;
            if open.is_empty() {
                return Ok(());
            }
            for (digest, ..) in &open {
                self.forget(digest);
            }
            // What a step needs may be more than the cache holds: it is laid out bit by bit then.
            in_vain = if open.len() < before { 0 } else { in_vain + 1 };
        }
        let path = self.folder.clone();
        Err(BlobError::Disk {
            path,
            cause: io::Error::other(
                "what it held was gone time and again before it was copied; is its limit (--cache-max) very small?",
            ),
        })
    }

    /// Hands blobs over to the orchestrator, those it lacks; keeps the files for steps to come on this host. Tries
    /// for as long as it is polled.
    pub(crate) async fn hand_over(&self, blobs: &BTreeMap<Digest, Content>) -> Result<(), BlobError> {
        let Some(first) = blobs.keys().next() else { return Ok(()) };
        let digests: Vec<Digest> = blobs.keys().cloned().collect();
        let missing = client::persist(|| self.orchestrator.missing(&digests))
            .await
            .map_err(|cause| BlobError::Refused { digest: first.clone(), cause })?;
        let mut uploads: Vec<BoxFuture<'_, Result<(), BlobError>>> = Vec::new();
        for digest in &missing {
            if let Some(content) = blobs.get(digest) {
                uploads.push(Box::pin(self.upload(digest, content)));
            }
        }
        some_at_a_time(uploads).await?;
        for (digest, content) in blobs {
            self.keep(digest, content);
        }
        Ok(())
    }

    /// Sends a blob piece by piece; what is there of it already, from a try that broke off, is not sent again.
    async fn upload(&self, digest: &Digest, content: &Content) -> Result<(), BlobError> {
        let refused = |cause| BlobError::Refused { digest: digest.clone(), cause };
        let of = content.bytes();
        let ask = || client::persist(|| self.orchestrator.upload_of(digest));
        let mut there = UploadView { bytes: 0, whole: false };
        if of > PIECE_BYTES {
            there = ask().await.map_err(refused)?;
        }
        let mut damaged = 0;
        while !there.whole {
            let from = there.bytes;
            let (piece, data) = piece_of(content, from, of).await?;
            let sent = client::persist(|| {
                self.orchestrator.upload_piece(digest, (from, of), (&piece, data.clone().into()))
            });
            match sent.await {
                Ok(now) => (there, damaged) = (now, 0),
                // Another attempt sends the same, or what was there is gone.
                Err(cause) if cause.is_wrong_offset() => there = ask().await.map_err(refused)?,
                Err(cause) if cause.is_damaged_piece() && damaged < TRIES => {
                    damaged += 1;
                    tracing::warn!(%digest, from, "a piece arrived damaged; sending it again");
                }
                Err(cause) => return Err(refused(cause)),
            }
        }
        Ok(())
    }

    /// Takes what a step made into the cache, so that the next step on this host need not fetch it.
    fn keep(&self, digest: &Digest, content: &Content) {
        if self.index().touch(digest) {
            return;
        }
        let to = self.path(digest);
        let kept = match content {
            Content::File(path, bytes) => keep_file(path, &to).map(|kept| kept.then_some(*bytes)),
            Content::Text(text) => {
                let incoming = Incoming::new(&self.folder);
                std::fs::write(&incoming.path, text.as_bytes())
                    .and_then(|()| std::fs::rename(&incoming.path, &to))
                    .map(|()| Some(text.len() as u64))
            }
        };
        match kept {
            Ok(Some(bytes)) => self.remember(digest.clone(), bytes),
            Ok(None) => {}
            // Only the saving of a download is lost.
            Err(cause) => tracing::debug!(%digest, %cause, "failed to keep an artifact in the cache"),
        }
    }
}

/// The piece of a blob of `of` bytes that begins at `from`, and its digest.
async fn piece_of(content: &Content, from: u64, of: u64) -> Result<(Digest, Bytes), BlobError> {
    let (owned, to) = (content.clone(), of.min(from.saturating_add(PIECE_BYTES)));
    let read = tokio::task::spawn_blocking(move || {
        let data = Bytes::from(owned.read(from, to)?);
        Ok((Digest::of(&data), data))
    });
    read.await.unwrap_or_else(|gone| Err(gone.into())).map_err(|cause| BlobError::Disk {
        path: match content {
            Content::File(path, _) => path.clone(),
            Content::Text(_) => PathBuf::new(),
        },
        cause,
    })
}

async fn some_at_a_time<T>(transfers: Vec<BoxFuture<'_, Result<T, BlobError>>>) -> Result<(), BlobError> {
    let mut done = futures_util::stream::iter(transfers).buffer_unordered(TRANSFERS);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// Links a finished step's file into the cache instead of copying it: the working directory is about to go. A file
/// that has other names could still be written through them, so it is left alone.
fn keep_file(path: &Path, to: &Path) -> io::Result<bool> {
    if std::fs::metadata(path)?.nlink() != 1 {
        return Ok(false);
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))?;
    match std::fs::hard_link(path, to) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        Ok(()) | Err(_) => Ok(true),
    }
}

/// Copies, and answers with what was not in the cache any more.
fn copy_all(
    copies: Vec<(PathBuf, (Digest, PathBuf, bool))>,
    access: Access,
) -> Result<Vec<(Digest, PathBuf, bool)>, BlobError> {
    let mut gone = Vec::new();
    let mut parent_made = PathBuf::new();
    for (from, file) in copies {
        let to = &file.1;
        if let Some(parent) = to.parent().filter(|parent| *parent != parent_made) {
            std::fs::create_dir_all(parent).map_err(disk(parent))?;
            parent_made = parent.to_owned();
        }
        let mut source = match File::open(&from) {
            Ok(source) => source,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                gone.push(file);
                continue;
            }
            Err(cause) => return Err(disk(&from)(cause)),
        };
        let mode = match (access, file.2) {
            (Access::ReadWrite, false) => 0o644,
            (Access::ReadWrite, true) => 0o755,
            (Access::ReadOnly, false) => 0o444,
            (Access::ReadOnly, true) => 0o555,
        };
        let mut target =
            File::options().write(true).create_new(true).mode(mode).open(to).map_err(disk(to))?;
        io::copy(&mut source, &mut target).map_err(disk(to))?;
    }
    Ok(gone)
}

/// Makes the folders of a tree read-only, innermost first.
pub(crate) fn close_folders(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            close_folders(&entry.path())?;
        }
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o555))
}

/// What has arrived of a blob so far.
#[derive(Debug)]
struct Partial {
    file: File,
    hash: sha2::Sha256,
    bytes: u64,
}

impl Partial {
    fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o444).open(path)?;
        Ok(Self { file, hash: sha2::Sha256::new(), bytes: 0 })
    }

    fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    fn start_over(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        (self.hash, self.bytes) = (sha2::Sha256::new(), 0);
        Ok(())
    }

    /// That of what has arrived, and how much it is.
    fn digest(&self) -> (Digest, u64) {
        (Digest::from_hash(&self.hash.clone().finalize()), self.bytes)
    }
}

/// A file on its way into the cache; removed when it does not get there.
struct Incoming {
    path: PathBuf,
}

impl Incoming {
    fn new(folder: &Path) -> Self {
        Self { path: folder.join(format!("incoming-{}", uuid::Uuid::new_v4())) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed away in the good case.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Names the boot that the cache was filled in.
const BOOT: &str = "boot";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestOrchestrator;

    fn file(digest: &Digest) -> ArtifactRef {
        ArtifactRef { digest: digest.clone(), bytes: 0, kind: ArtifactKind::File }
    }

    #[tokio::test]
    async fn a_blob_is_fetched_once_and_steps_cannot_spoil_it() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let blob = file(&server.store(b"model"));
        for name in ["a", "b"] {
            let to = data.path().join(name);
            tools.blobs.lay_out(&blob, &to, Access::ReadWrite).await.unwrap();
            assert_eq!(std::fs::read(&to).unwrap(), b"model");
            std::fs::write(&to, "spoiled").unwrap();
        }
        assert_eq!(server.seen().downloads, 1);

        // A worker that starts anew finds it on disk.
        let again = server.tools(data.path());
        again.blobs.lay_out(&blob, &data.path().join("c"), Access::ReadOnly).await.unwrap();
        assert_eq!(server.seen().downloads, 1);
    }

    #[tokio::test]
    async fn a_damaged_blob_is_never_used() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let digest = server.store(b"model");
        server.seen().blobs.insert(digest.clone(), b"other".to_vec());
        let to = data.path().join("a");
        let refused = tools.blobs.lay_out(&file(&digest), &to, Access::ReadWrite).await.unwrap_err();
        assert!(matches!(refused, BlobError::Damaged(_)), "{refused}");
        assert!(!to.exists());
        let left: Vec<_> = std::fs::read_dir(data.path().join("blobs")).unwrap().flatten().collect();
        assert!(left.iter().all(|entry| entry.file_name() == BOOT), "{left:?}");
    }

    #[tokio::test]
    async fn the_least_recently_used_leave_a_full_cache() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let blobs: Vec<ArtifactRef> = (0..6_u8).map(|n| file(&server.store(&vec![n; 300_000]))).collect();
        for (index, blob) in blobs.iter().enumerate() {
            let to = data.path().join(index.to_string());
            tools.blobs.lay_out(blob, &to, Access::ReadWrite).await.unwrap();
            tools
                .blobs
                .lay_out(&blobs[0], &data.path().join(format!("{index}-again")), Access::ReadWrite)
                .await
                .unwrap();
        }
        let kept: u64 = std::fs::read_dir(data.path().join("blobs"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(kept <= 1024 * 1024 + 100, "{kept} bytes in a cache of 1 MiB");
        assert!(tools.blobs.path(&blobs[0].digest).exists(), "the one in use was evicted");
    }

    #[tokio::test]
    async fn a_tree_that_leaves_its_folder_is_refused() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let digest = server.store_tree(&[("../outside", "x", false)]);
        let refused =
            tools.blobs.lay_out_tree(&digest, &data.path().join("in"), Access::ReadWrite).await.unwrap_err();
        assert!(matches!(refused, BlobError::NotATree { .. }), "{refused}");
        assert!(!data.path().join("outside").exists());
    }

    /// A file of so many bytes, and what it is known by.
    fn made(data: &Path, bytes: usize) -> BTreeMap<Digest, Content> {
        let content: Vec<u8> = (0..bytes).map(|place| (place / 4096 % 251) as u8).collect();
        let path = data.join(format!("made-{bytes}"));
        std::fs::write(&path, &content).unwrap();
        BTreeMap::from([(Digest::of(&content), Content::File(path, bytes as u64))])
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_it_was_and_a_damaged_piece_is_sent_again() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        let blobs = made(data.path(), 3 * piece + 10);
        let (digest, content) = blobs.first_key_value().unwrap();
        server.seen().uploads.insert(digest.clone(), content.read(0, 2 * PIECE_BYTES).unwrap());
        server.seen().damage = 2;
        tools.blobs.hand_over(&blobs).await.unwrap();
        assert!(server.seen().blobs.contains_key(digest));
        let pieces = server.seen().calls.iter().filter(|call| **call == "put_piece").count();
        assert_eq!(pieces, 4, "the third one three times, and the last");

        server.seen().damage = 100;
        let other = made(data.path(), 5);
        let refused = tools.blobs.hand_over(&other).await.unwrap_err();
        assert!(matches!(refused, BlobError::Refused { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_folder_larger_than_the_cache_is_laid_out_all_the_same() {
        let server = TestOrchestrator::start().await;
        let data = tempfile::tempdir().unwrap();
        let tools = server.tools(data.path());
        let texts: Vec<String> = (0..12).map(|number| number.to_string().repeat(300_000)).collect();
        let paths: Vec<String> = (0..12).map(|number| format!("part-{number}")).collect();
        let files: Vec<(&str, &str, bool)> =
            paths.iter().zip(&texts).map(|(path, text)| (path.as_str(), text.as_str(), false)).collect();
        let digest = server.store_tree(&files);
        let to = data.path().join("in");
        tools.blobs.lay_out_tree(&digest, &to, Access::ReadWrite).await.unwrap();
        for (path, text) in paths.iter().zip(&texts) {
            assert!(std::fs::read_to_string(to.join(path)).unwrap() == *text, "{path}");
        }
    }
}
