//! Content by digest, which any number of orchestrators share. It comes piece by piece under an upload of its own and is
//! visible once all of it is there. The bytes are in the database, in chunks of 1 MiB, or in a place of the settings
//! (`places`): a row says which. Must never happen here: a blob that lacks a byte, or one that goes (`garbage`) after
//! somebody was told that it is here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use refit_workflows::digest::Digest;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::TREE_BYTES_MAX;

use super::database::{Statement, Transaction, sql};
use super::{Store, StoreError};

/// The size of a stored chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;
/// The largest blob that is kept in the database whatever the settings say, in bytes.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
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
const FIND: &str = "SELECT bytes, upload, place FROM blobs WHERE digest = $1";
const CHUNK: &str = "SELECT data FROM blob_chunks WHERE upload = $1 AND chunk = $2";
const KEEP_CHUNK: &str = "INSERT INTO blob_chunks (upload, chunk, data) VALUES ($1, $2, $3)";
const OBJECT: &str = "SELECT begins, bytes, object FROM blob_objects WHERE upload = $1 AND begins <= $2
    ORDER BY begins DESC LIMIT 1";
const KEEP_OBJECT: &str = "INSERT INTO blob_objects (upload, begins, bytes, object) VALUES ($1, $2, $3, $4)";
const KEEP: &str =
    "INSERT INTO blobs (digest, bytes, upload, place, touched_at, tree) VALUES ($1, $2, $3, $4, $5,
        (SELECT COUNT(*) FROM blob_chunks WHERE upload = $3 AND chunk = 0 AND substr(data, 1, 10) = $6))
    ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at RETURNING upload";
const DROP_CHUNKS: &str = "DELETE FROM blob_chunks WHERE upload = $1";

const BEGIN_UPLOAD: &str = "INSERT INTO blob_uploads (upload, digest, bytes, hash, touched_at)
    VALUES ($1, $2, 0, $3, $4) ON CONFLICT (digest) DO NOTHING";
const UPLOAD: &str = "SELECT upload, place, bytes, hash FROM blob_uploads WHERE digest = $1";
const HOLD_UPLOAD: &str = "UPDATE blob_uploads SET place = COALESCE(place, $4), touched_at = $5
    WHERE upload = $1 AND bytes = $2 AND touched_at > 0 AND digest IS NOT DISTINCT FROM $3 RETURNING place";
const GROW_UPLOAD: &str = "UPDATE blob_uploads SET bytes = $5, hash = $6, touched_at = $7
    WHERE upload = $1 AND bytes = $2 AND touched_at > 0 AND digest IS NOT DISTINCT FROM $3
    AND place IS NOT DISTINCT FROM $4";
const END_UPLOAD: &str = "DELETE FROM blob_uploads WHERE upload = $1";
// Somebody's piece may still be on its way to a place: what is there goes when that is over, as does what stood still.
const GIVE_UP: &str = "UPDATE blob_uploads SET digest = NULL,
        touched_at = CASE WHEN place IS NULL OR digest IS NULL THEN 0 ELSE touched_at END
    WHERE upload = $1";

/// An upload that may be gone on with.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    /// Names it, and its bytes.
    name: String,
    /// What it is to become; none: whoever began it alone knows it.
    digest: Option<Digest>,
    /// Where its bytes are; none: in the database, or there are none yet.
    place: Option<String>,
    /// How many bytes are there.
    pub(crate) bytes: u64,
    /// The state of SHA-256 after them.
    pub(crate) hash: Vec<u8>,
}

/// What an upload grows by.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    /// Whole chunks, but for the last piece of all.
    pub(crate) data: Bytes,
    /// The state of SHA-256 after it, for whoever goes on.
    pub(crate) hash: Vec<u8>,
    /// How many bytes the blob has, where that is known.
    pub(crate) of: Option<u64>,
    /// The blob that it makes whole.
    pub(crate) whole: Option<Digest>,
}

/// A blob that is there.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its size in bytes.
    pub bytes: u64,
    upload: String,
    place: Option<String>,
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

    /// Begins an upload that nobody else goes on with.
    pub(crate) async fn begin_upload(&self) -> Result<Upload, StoreError> {
        self.durably(move |store| async move {
            let mut tx = store.database().begin().await?;
            let now = store.clock().now().as_millis();
            let name = uuid::Uuid::new_v4().to_string();
            let begin = sql(BEGIN_UPLOAD).bind(&name).bind(None::<String>).bind(Vec::new()).bind(now);
            tx.execute(begin).await?;
            tx.commit().await?;
            Ok(Upload { name, digest: None, place: None, bytes: 0, hash: Vec::new() })
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
                    let (name, place) = (row.text("upload")?, row.opt_text("place")?);
                    let (bytes, hash) = (row.int("bytes")?.unsigned_abs(), row.bytes("hash")?);
                    Ok(Upload { name, digest: Some(digest), place, bytes, hash })
                })
                .transpose()
            }
        })
        .await
    }

    /// Adds a piece to an upload, which must still be as `before` has it; answers what it is then. None: somebody else has
    /// added to it, or it was given up, as it is where the settings do not name its place any more.
    pub(crate) async fn grow_upload(
        &self,
        before: &Upload,
        growth: Growth,
    ) -> Result<Option<Upload>, StoreError> {
        let wanted = match (&before.place, before.bytes) {
            (Some(place), _) if !self.has_place(place).await? => {
                self.give_up_upload(before).await?;
                return Ok(None);
            }
            (Some(place), _) => Some(place.clone()),
            (None, 0) if belongs_elsewhere(&growth) => self.place_of_new_blobs().await?,
            (None, _) => None,
        };
        let mut grown = before.clone();
        let mut object = None;
        if let Some(wanted) = wanted {
            let Some(place) = self.hold_upload(before, wanted).await? else { return Ok(None) };
            if !growth.data.is_empty() {
                let put = self.put_object(&place, &before.name, before.bytes, growth.data.clone());
                object = Some(put.await?);
            }
            grown.place = Some(place);
        }
        grown.bytes += growth.data.len() as u64;
        grown.hash.clone_from(&growth.hash);
        let (before, done) = (before.clone(), grown.clone());
        let added = self
            .durably::<_, StoreError, _, _>(move |store| {
                let (before, grown, growth, object) =
                    (before.clone(), grown.clone(), growth.clone(), object.clone());
                async move {
                    let mut tx = store.database().begin().await?;
                    let now = store.clock().now();
                    let added = add(&mut tx, &before, &grown, (&growth, object.as_deref()), now).await?;
                    tx.commit().await?;
                    Ok(added)
                }
            })
            .await?;
        Ok(added.then_some(done))
    }

    /// Notes that bytes of an upload are about to go to this place, or to the one that it has already.
    async fn hold_upload(&self, upload: &Upload, place: String) -> Result<Option<String>, StoreError> {
        let upload = upload.clone();
        self.durably(move |store| {
            let (upload, place) = (upload.clone(), place.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let hold = unchanged(HOLD_UPLOAD, &upload).bind(place).bind(store.clock().now().as_millis());
                let held = tx.first(hold).await?.map(|row| row.text("place")).transpose()?;
                tx.commit().await?;
                Ok(held)
            }
        })
        .await
    }

    /// Has an upload begin again: what is there of it goes with time.
    pub(crate) async fn give_up_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        let upload = upload.name.clone();
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

    /// A blob, if it is there.
    pub(crate) async fn find_blob(&self, digest: &Digest) -> Result<Option<Blob>, StoreError> {
        let digest = digest.clone();
        self.durably(move |store| {
            let digest = digest.clone();
            async move {
                let row = store.database().first(sql(FIND).bind(digest.as_str())).await?;
                row.map(|row| {
                    let (upload, place) = (row.text("upload")?, row.opt_text("place")?);
                    Ok(Blob { bytes: row.int("bytes")?.unsigned_abs(), upload, place })
                })
                .transpose()
            }
        })
        .await
    }

    /// Bytes of a blob from this one on, which it must have: as many as are kept together.
    pub(crate) async fn read_blob(&self, blob: &Blob, from: u64) -> Result<Bytes, StoreError> {
        let lacks = || StoreError::Corrupt(format!("the blob of upload {} lacks byte {from}", blob.upload));
        let Some(place) = &blob.place else {
            let chunk_bytes = CHUNK_BYTES as u64;
            let chunk = self.chunk(&blob.upload, as_int(from / chunk_bytes)).await?.ok_or_else(lacks)?;
            let skip = usize::try_from(from % chunk_bytes).unwrap_or_default();
            return if skip < chunk.len() { Ok(chunk.slice(skip..)) } else { Err(lacks()) };
        };
        let (begins, bytes, object) = self.object_at(&blob.upload, from).await?.ok_or_else(lacks)?;
        match from - begins {
            skip if skip < bytes => self.get_object(place, &object, skip..bytes).await,
            _ => Err(lacks()),
        }
    }

    /// The last object of an upload that begins at or before this byte: where it begins, its size and its name.
    async fn object_at(&self, upload: &str, byte: u64) -> Result<Option<(u64, u64, String)>, StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let find = sql(OBJECT).bind(&upload).bind(as_int(byte));
            async move {
                let row = store.database().first(find).await?;
                row.map(|row| {
                    let (begins, bytes) = (row.int("begins")?, row.int("bytes")?);
                    Ok((begins.unsigned_abs(), bytes.unsigned_abs(), row.text("object")?))
                })
                .transpose()
            }
        })
        .await
    }

    async fn chunk(&self, upload: &str, chunk: i64) -> Result<Option<Bytes>, StoreError> {
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

/// Whether a blob that begins so goes to a place, where the settings name one. A small one costs more there than it
/// weighs; a list of files stays in the database, where `garbage` reads it together with what refers to it.
fn belongs_elsewhere(begins: &Growth) -> bool {
    let small = begins.of.is_some_and(|of| of <= SMALL_BYTES_MAX);
    let list = begins.data.starts_with(TREE_BEGINS) && begins.of.is_none_or(|of| of <= TREE_BYTES_MAX);
    !small && !list
}

/// A statement whose first arguments are the upload as it was.
fn unchanged(statement: &'static str, upload: &Upload) -> Statement {
    let digest = upload.digest.as_ref().map(|digest| digest.as_str().to_owned());
    sql(statement).bind(&upload.name).bind(as_int(upload.bytes)).bind(digest)
}

/// Whether the upload was still as `before` has it.
async fn add(
    tx: &mut Transaction,
    before: &Upload,
    grown: &Upload,
    (growth, object): (&Growth, Option<&str>),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let grow = unchanged(GROW_UPLOAD, before).bind(grown.place.clone()).bind(as_int(grown.bytes));
    if tx.execute(grow.bind(growth.hash.clone()).bind(now.as_millis())).await? == 0 {
        return Ok(false);
    }
    if let Some(object) = object {
        let bytes = as_int(growth.data.len() as u64);
        let keep = sql(KEEP_OBJECT).bind(&before.name).bind(as_int(before.bytes)).bind(bytes).bind(object);
        tx.execute(keep).await?;
    } else {
        let first = as_int(before.bytes / CHUNK_BYTES as u64);
        for (chunk, data) in (first..).zip(growth.data.chunks(CHUNK_BYTES)) {
            tx.execute(sql(KEEP_CHUNK).bind(&before.name).bind(chunk).bind(data.to_vec())).await?;
        }
    }
    let Some(digest) = &growth.whole else { return Ok(true) };
    if keep(tx, digest, grown, now).await? {
        tx.execute(sql(END_UPLOAD).bind(&grown.name)).await?;
    } else if before.bytes == 0 && object.is_none() {
        tx.execute(sql(DROP_CHUNKS).bind(&grown.name)).await?;
        tx.execute(sql(END_UPLOAD).bind(&grown.name)).await?;
    } else {
        tx.execute(sql(GIVE_UP).bind(&grown.name)).await?;
    }
    Ok(true)
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
    upload: &Upload,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let keep = sql(KEEP)
        .bind(digest.as_str())
        .bind(as_int(upload.bytes))
        .bind(&upload.name)
        .bind(upload.place.clone())
        .bind(now.as_millis())
        .bind(TREE_BEGINS.to_vec());
    Ok(tx.one(keep).await?.text("upload")? == upload.name)
}

fn as_int(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
