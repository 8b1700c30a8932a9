//! Blobs by digest: fetched from the orchestrator once, kept on this host, copied to where steps may spoil them; and handed
//! over to the orchestrator. Steps never see what is kept.

mod cache;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{ArtifactKind, ArtifactRef, TREE_BYTES_MAX, Tree, check_relative_path};

use crate::client::{self, CallError, Orchestrator};
use crate::keyed::Keyed;
use crate::outputs::Content;
use cache::Cache;

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

fn disk(path: &Path) -> impl FnOnce(io::Error) -> BlobError + use<> {
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
    cache: Cache,
    orchestrator: Arc<Orchestrator>,
    fetching: Keyed<Digest>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
}

/// A file to be laid out.
#[derive(Debug)]
struct Wanted {
    digest: Digest,
    to: PathBuf,
    executable: bool,
}

impl Blobs {
    /// Those kept in `folder`, at most `bytes_max`, and the others from the orchestrator.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn open(folder: PathBuf, orchestrator: Arc<Orchestrator>, bytes_max: u64) -> io::Result<Self> {
        let cache = Cache::open(folder, bytes_max)?;
        Ok(Self { cache, orchestrator, fetching: Keyed::default(), trees: Mutex::default() })
    }

    /// The blob's file in the cache, fetched when it is not there. Read it at once: it may be evicted later.
    async fn fetch(&self, digest: &Digest) -> Result<PathBuf, BlobError> {
        let path = self.cache.path(digest);
        if self.cache.has(digest) {
            return Ok(path);
        }
        let _only_once = self.fetching.lock(digest.clone()).await;
        if self.cache.has(digest) {
            return Ok(path);
        }
        for _ in 0..TRIES {
            let incoming = self.cache.incoming().map_err(disk(self.cache.folder()))?;
            let arrived = transfer::download(&self.orchestrator, digest, incoming).await?;
            let found = arrived.digest();
            if found == *digest {
                self.cache.admit(arrived).map_err(disk(&path))?;
                return Ok(path);
            }
            tracing::warn!(%digest, %found, "a blob arrived damaged; fetching it again");
        }
        Err(BlobError::Damaged(digest.clone()))
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
                let file = Wanted { digest: artifact.digest.clone(), to: to.to_owned(), executable: false };
                self.copy_out(vec![file], access).await
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
            .map(|file| Wanted {
                digest: file.digest.clone(),
                to: to.join(&file.path),
                executable: file.executable,
            })
            .collect();
        self.copy_out(files, access).await?;
        if access == Access::ReadOnly {
            close_folders(to).map_err(disk(to))?;
        }
        Ok(())
    }

    /// Copies cached blobs to files. A blob evicted between fetching and copying is fetched again.
    async fn copy_out(&self, mut open: Vec<Wanted>, access: Access) -> Result<(), BlobError> {
        let mut in_vain = 0;
        while in_vain < TRIES {
            let before = open.len();
            let digests: BTreeSet<&Digest> = open.iter().map(|file| &file.digest).collect();
            let absent = digests.into_iter().filter(|digest| !self.cache.has(digest));
            let mut fetches: Vec<BoxFuture<'_, Result<PathBuf, BlobError>>> = Vec::new();
            for digest in absent {
                fetches.push(Box::pin(self.fetch(digest)));
            }
            some_at_a_time(fetches).await?;
            let copies = open.into_iter().map(|file| (self.cache.path(&file.digest), file)).collect();
            let copied = tokio::task::spawn_blocking(move || copy_all(copies, access)).await;
            open = copied.map_err(|cause| disk(self.cache.folder())(cause.into()))??;
            if open.is_empty() {
                return Ok(());
            }
            for file in &open {
                self.cache.forget(&file.digest);
            }
            // What a step needs may be more than the cache holds: it is laid out bit by bit then.
            in_vain = if open.len() < before { 0 } else { in_vain + 1 };
        }
        let why = "what it held was gone time and again before it was copied; is its limit (--cache-max) very small?";
        Err(disk(self.cache.folder())(io::Error::other(why)))
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
                uploads.push(Box::pin(transfer::upload(&self.orchestrator, digest, content)));
            }
        }
        some_at_a_time(uploads).await?;
        for (digest, content) in blobs {
            self.cache.keep(digest, content);
        }
        Ok(())
    }
}

async fn some_at_a_time<T>(transfers: Vec<BoxFuture<'_, Result<T, BlobError>>>) -> Result<(), BlobError> {
    let mut done = futures_util::stream::iter(transfers).buffer_unordered(TRANSFERS);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// Copies, and answers with what was not in the cache any more.
fn copy_all(copies: Vec<(PathBuf, Wanted)>, access: Access) -> Result<Vec<Wanted>, BlobError> {
    let mut gone = Vec::new();
    let mut parent_made = PathBuf::new();
    for (from, file) in copies {
        let to = &file.to;
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
        let mode = match (access, file.executable) {
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

#[cfg(test)]
mod tests;
