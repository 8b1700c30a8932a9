//! Content by digest, in the database, so that any number of orchestrators share it with no extra set-up. It comes in
//! chunks of 1 MiB under an upload of its own and is visible once all of it is there. Must never happen here: a blob that
//! lacks a chunk, or one that goes (`garbage`) after somebody was told that it is here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;

use super::database::{Transaction, sql};
use super::{Store, StoreError};

/// The size of a stored chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;
/// How long a blob stays that nothing refers to, after it came or somebody was told that it is here; and how long an upload
/// may stand still.
pub const BLOB_AGE: Duration = Duration::from_secs(24 * 3600);
/// One that was touched less long ago than this need not be touched again: it has three quarters of its age left.
const TOUCH_AFTER: Duration = Duration::from_secs(6 * 3600);
/// How a folder's list of files begins: see `refit_workflows::wire::Tree`. What is taken for one and is none keeps more
/// than it must.
const TREE_BEGINS: &[u8] = br#"{"files":["#;

const TOUCHED: &str = "SELECT touched_at FROM blobs WHERE digest = $1";
const TOUCH: &str = "UPDATE blobs SET touched_at = $2 WHERE digest = $1";
const FIND: &str = "SELECT bytes, upload FROM blobs WHERE digest = $1";
const CHUNK: &str = "SELECT data FROM blob_chunks WHERE upload = $1 AND chunk = $2";
const KEEP_CHUNK: &str = "INSERT INTO blob_chunks (upload, chunk, data) VALUES ($1, $2, $3)";
const KEEP: &str = "INSERT INTO blobs (digest, bytes, upload, touched_at, tree) VALUES ($1, $2, $3, $4,
        (SELECT COUNT(*) FROM blob_chunks WHERE upload = $3 AND chunk = 0 AND substr(data, 1, 10) = $5))
    ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at RETURNING upload";
const DROP_CHUNKS: &str = "DELETE FROM blob_chunks WHERE upload = $1";

const BEGIN_UPLOAD: &str = "INSERT INTO blob_uploads (upload, digest, bytes, hash, touched_at)
    VALUES ($1, $2, 0, $3, $4) ON CONFLICT (digest) DO NOTHING";
const UPLOAD: &str = "SELECT upload, bytes, hash FROM blob_uploads WHERE digest = $1";
const HOLD_UPLOAD: &str =
    "UPDATE blob_uploads SET touched_at = $2 WHERE upload = $1 AND touched_at > 0 AND digest IS NULL";
const GROW_UPLOAD: &str = "UPDATE blob_uploads SET bytes = $3, hash = $4, touched_at = $5
    WHERE upload = $1 AND bytes = $2 AND digest IS NOT NULL";
const END_UPLOAD: &str = "DELETE FROM blob_uploads WHERE upload = $1 AND touched_at > 0";
const GIVE_UP: &str = "UPDATE blob_uploads SET digest = NULL, touched_at = 0 WHERE upload = $1";

/// An upload that may be gone on with.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// Names it, and its chunks.
    pub(crate) name: String,
    /// How many bytes are there.
    pub(crate) bytes: u64,
    /// The state of SHA-256 after them.
    pub(crate) hash: Vec<u8>,
}

impl Store {
    /// Which of these are not stored, in order of their digests. The others stay for as long as [`BLOB_AGE`] says, counted
    /// from now but for a quarter.
    pub async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        // In one order, so that two who touch the same do not wait for each other.
        let digests: Arc<BTreeSet<Digest>> = Arc::new(digests.into_iter().collect());
        self.durably(move |store| {
            let digests = Arc::clone(&digests);
            async move { store.missing_of(&digests).await }
        })
        .await
    }

    async fn missing_of(&self, digests: &BTreeSet<Digest>) -> Result<Vec<Digest>, StoreError> {
        let now = self.clock().now();
        let fresh = now.minus(TOUCH_AFTER).as_millis();
        let (mut missing, mut stale) = (Vec::new(), Vec::new());
        let mut tx = self.database().read().await?;
        for digest in digests {
            match tx.first(sql(TOUCHED).bind(digest.as_str())).await? {
                None => missing.push(digest.clone()),
                Some(row) if row.int("touched_at")? < fresh => stale.push(digest),
                Some(_) => {}
            }
        }
        drop(tx);
        if stale.is_empty() {
            return Ok(missing);
        }
        let mut tx = self.database().begin().await?;
        for digest in stale {
            if !touch(&mut tx, digest, now).await? {
                missing.push(digest.clone());
            }
        }
        tx.commit().await?;
        missing.sort_unstable();
        Ok(missing)
    }

    /// Begins to keep a blob under this upload, chunk by chunk and in one go.
    pub(crate) async fn begin_upload(&self, upload: &str) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now().as_millis();
                let begin = sql(BEGIN_UPLOAD).bind(&upload).bind(None::<String>).bind(Vec::new()).bind(now);
                tx.execute(begin).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Keeps one chunk of an upload.
    pub(crate) async fn keep_chunk(&self, upload: &str, chunk: i64, data: Bytes) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let (upload, data) = (upload.clone(), data.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now().as_millis();
                if tx.execute(sql(HOLD_UPLOAD).bind(&upload).bind(now)).await? == 0 {
                    return Err(given_up());
                }
                tx.execute(sql(KEEP_CHUNK).bind(&upload).bind(chunk).bind(data.to_vec())).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Makes a finished upload visible under its digest; a second upload of the same content is dropped.
    pub(crate) async fn keep_blob(
        &self,
        digest: &Digest,
        bytes: u64,
        upload: &str,
    ) -> Result<(), StoreError> {
        let (digest, upload) = (digest.clone(), upload.to_owned());
        self.durably(move |store| {
            let (digest, upload) = (digest.clone(), upload.clone());
            async move {
                let mut tx = store.database().begin().await?;
                if tx.execute(sql(END_UPLOAD).bind(&upload)).await? == 0 {
                    return Err(given_up());
                }
                if !keep(&mut tx, &digest, (bytes, &upload), store.clock().now()).await? {
                    tx.execute(sql(DROP_CHUNKS).bind(&upload)).await?;
                }
                tx.commit().await
            }
        })
        .await
    }

    /// Drops an upload that came to nothing.
    pub(crate) async fn drop_upload(&self, upload: &str) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(END_UPLOAD).bind(&upload)).await?;
                tx.execute(sql(DROP_CHUNKS).bind(&upload)).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// The upload of this content that may be gone on with; `begin` is the state of SHA-256 that a new one starts with,
    /// and none is made without. None as well: the blob is there, and stays for now.
    pub(crate) async fn upload_of(
        &self,
        digest: &Digest,
        begin: Option<Vec<u8>>,
    ) -> Result<Option<Upload>, StoreError> {
        let digest = digest.clone();
        self.durably(move |store| {
            let (digest, begin) = (digest.clone(), begin.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let whole = touch(&mut tx, &digest, now).await?;
                if let Some(hash) = begin.filter(|_| !whole) {
                    let name = uuid::Uuid::new_v4().to_string();
                    let begin = sql(BEGIN_UPLOAD).bind(name).bind(digest.as_str()).bind(hash);
                    tx.execute(begin.bind(now.as_millis())).await?;
                }
                let row = match whole {
                    true => None,
                    false => tx.first(sql(UPLOAD).bind(digest.as_str())).await?,
                };
                tx.commit().await?;
                row.map(|row| {
                    let (name, bytes) = (row.text("upload")?, row.int("bytes")?.unsigned_abs());
                    Ok(Upload { name, bytes, hash: row.bytes("hash")? })
                })
                .transpose()
            }
        })
        .await
    }

    /// Adds a piece to an upload, which must still be as `before` has it; with it, the upload has the state `hash`, or is
    /// the blob `whole`. False: somebody else has added to it, or it was given up.
    pub(crate) async fn grow_upload(
        &self,
        before: &Upload,
        piece: Bytes,
        hash: Vec<u8>,
        whole: Option<&Digest>,
    ) -> Result<bool, StoreError> {
        let (before, whole) = (before.clone(), whole.cloned());
        self.durably(move |store| {
            let (before, piece, hash, whole) = (before.clone(), piece.clone(), hash.clone(), whole.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let now = store.clock().now();
                let bytes = before.bytes + piece.len() as u64;
                let grow = sql(GROW_UPLOAD).bind(&before.name).bind(as_int(before.bytes)).bind(as_int(bytes));
                if tx.execute(grow.bind(hash).bind(now.as_millis())).await? == 0 {
                    return Ok(false);
                }
                let first = as_int(before.bytes / CHUNK_BYTES as u64);
                for (chunk, data) in (first..).zip(piece.chunks(CHUNK_BYTES)) {
                    tx.execute(sql(KEEP_CHUNK).bind(&before.name).bind(chunk).bind(data.to_vec())).await?;
                }
                if let Some(digest) = &whole {
                    match keep(&mut tx, digest, (bytes, &before.name), now).await? {
                        true => tx.execute(sql(END_UPLOAD).bind(&before.name)).await?,
                        false => tx.execute(sql(GIVE_UP).bind(&before.name)).await?,
                    };
                }
                tx.commit().await?;
                Ok(true)
            }
        })
        .await
    }

    /// Has an upload begin again: what is there of it goes with time.
    pub(crate) async fn give_up_upload(&self, upload: &str) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(GIVE_UP).bind(&upload)).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Size in bytes and upload of a blob.
    pub(crate) async fn find_blob(&self, digest: &Digest) -> Result<Option<(u64, String)>, StoreError> {
        let digest = digest.clone();
        self.durably(move |store| {
            let digest = digest.clone();
            async move {
                let row = store.database().first(sql(FIND).bind(digest.as_str())).await?;
                row.map(|row| Ok((row.int("bytes")?.unsigned_abs(), row.text("upload")?))).transpose()
            }
        })
        .await
    }

    /// One chunk of an upload.
    pub(crate) async fn chunk(&self, upload: &str, chunk: i64) -> Result<Option<Bytes>, StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().read().await?;
                chunk_in(&mut tx, &upload, chunk).await
            }
        })
        .await
    }
}

/// One chunk of an upload.
pub(super) async fn chunk_in(
    tx: &mut Transaction,
    upload: &str,
    chunk: i64,
) -> Result<Option<Bytes>, StoreError> {
    let row = tx.first(sql(CHUNK).bind(upload).bind(chunk)).await?;
    row.map(|row| Ok(Bytes::from(row.bytes("data")?))).transpose()
}

/// Whether a blob is there; it stays for now.
pub(super) async fn touch(tx: &mut Transaction, digest: &Digest, now: Timestamp) -> Result<bool, StoreError> {
    Ok(tx.execute(sql(TOUCH).bind(digest.as_str()).bind(now.as_millis())).await? > 0)
}

/// Makes an upload visible under its digest. False: another upload is that already, and stays for now.
async fn keep(
    tx: &mut Transaction,
    digest: &Digest,
    (bytes, upload): (u64, &str),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let keep = sql(KEEP)
        .bind(digest.as_str())
        .bind(as_int(bytes))
        .bind(upload)
        .bind(now.as_millis())
        .bind(TREE_BEGINS.to_vec());
    Ok(tx.one(keep).await?.text("upload")? == upload)
}

fn as_int(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn given_up() -> StoreError {
    StoreError::Broken("the upload stood still for a day and was given up; send it again".to_owned())
}
