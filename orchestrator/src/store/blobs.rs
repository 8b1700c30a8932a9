//! Content by digest, in the database, so that any number of orchestrators share it with no extra set-up. Written in
//! chunks of 1 MiB under an upload of its own; visible once all of it is there and has the digest it claims.

use bytes::Bytes;
use refit_workflows::digest::Digest;

use super::database::sql;
use super::{Store, StoreError};

/// The size of a stored chunk, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

const HAS: &str = "SELECT digest FROM blobs WHERE digest = $1";
const FIND: &str = "SELECT bytes, upload FROM blobs WHERE digest = $1";
const CHUNK: &str = "SELECT data FROM blob_chunks WHERE upload = $1 AND chunk = $2";
const KEEP_CHUNK: &str = "INSERT INTO blob_chunks (upload, chunk, data) VALUES ($1, $2, $3)";
const KEEP: &str = "INSERT INTO blobs (digest, bytes, upload, created_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (digest) DO NOTHING";
const DROP_ABANDONED: &str = "DELETE FROM blob_chunks WHERE upload < $1
    AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.upload = blob_chunks.upload)";
const DROP_CHUNKS: &str = "DELETE FROM blob_chunks WHERE upload = $1";

impl Store {
    /// Which of these are not stored, in the order asked.
    pub async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        let digests = std::sync::Arc::new(digests);
        self.durably(move |store| {
            let digests = std::sync::Arc::clone(&digests);
            async move {
                let mut tx = store.database().read().await?;
                let mut missing = Vec::new();
                for digest in digests.iter() {
                    if tx.first(sql(HAS).bind(digest.as_str())).await?.is_none() {
                        missing.push(digest.clone());
                    }
                }
                Ok(missing)
            }
        })
        .await
    }

    /// Keeps one chunk of an upload.
    pub async fn keep_chunk(&self, upload: &str, chunk: i64, data: Bytes) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let (upload, data) = (upload.clone(), data.clone());
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(KEEP_CHUNK).bind(&upload).bind(chunk).bind(data.to_vec())).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Makes a finished upload visible under its digest; a second upload of the same content is dropped.
    pub async fn keep_blob(&self, digest: &Digest, bytes: u64, upload: &str) -> Result<(), StoreError> {
        let (digest, upload) = (digest.clone(), upload.to_owned());
        self.durably(move |store| {
            let (digest, upload) = (digest.clone(), upload.clone());
            async move {
                let mut tx = store.database().begin().await?;
                let keep = sql(KEEP)
                    .bind(digest.as_str())
                    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
                    .bind(&upload)
                    .bind(store.clock().now().as_millis());
                if tx.execute(keep).await? == 0 {
                    tx.execute(sql(DROP_CHUNKS).bind(&upload)).await?;
                }
                tx.commit().await
            }
        })
        .await
    }

    /// Drops an upload that came to nothing.
    pub async fn drop_upload(&self, upload: &str) -> Result<(), StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(DROP_CHUNKS).bind(&upload)).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Drops the chunks of uploads that began before `before` and never became a blob. An upload's name begins with
    /// the time it began (UUID version 7), so names sort by age.
    pub async fn drop_abandoned_uploads(&self, before: &str) -> Result<(), StoreError> {
        let before = before.to_owned();
        self.durably(move |store| {
            let before = before.clone();
            async move {
                let mut tx = store.database().begin().await?;
                tx.execute(sql(DROP_ABANDONED).bind(&before)).await?;
                tx.commit().await
            }
        })
        .await
    }

    /// Size in bytes and upload of a blob.
    pub async fn find_blob(&self, digest: &Digest) -> Result<Option<(u64, String)>, StoreError> {
        let digest = digest.clone();
        self.durably(move |store| {
            let digest = digest.clone();
            async move {
                let mut tx = store.database().read().await?;
                let row = tx.first(sql(FIND).bind(digest.as_str())).await?;
                row.map(|row| Ok((row.int("bytes")?.unsigned_abs(), row.text("upload")?))).transpose()
            }
        })
        .await
    }

    /// One chunk of an upload.
    pub async fn chunk(&self, upload: &str, chunk: i64) -> Result<Option<Bytes>, StoreError> {
        let upload = upload.to_owned();
        self.durably(move |store| {
            let upload = upload.clone();
            async move {
                let mut tx = store.database().read().await?;
                let row = tx.first(sql(CHUNK).bind(&upload).bind(chunk)).await?;
                row.map(|row| Ok(Bytes::from(row.bytes("data")?))).transpose()
            }
        })
        .await
    }
}
