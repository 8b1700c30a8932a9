//! Blobs: what bundles and artifacts are made of. Nothing is kept under a digest that its bytes do not have, whether it
//! came in one go or in pieces, to whichever orchestrator; and no blob is ever held whole.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use refit_workflows::digest::Digest;
use refit_workflows::wire::{PIECE_BYTES, UploadView};
use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Engine, EngineError};
use crate::store::{CHUNK_BYTES, StoreError, Upload};

/// Pieces of uploads in memory at once.
const PIECES_MAX: usize = 8;

/// The room for pieces of uploads.
pub(super) struct Pieces(Arc<Semaphore>);

impl Default for Pieces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PIECES_MAX)))
    }
}

/// One piece of a blob.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The bytes before it.
    pub from: u64,
    /// The bytes of the whole blob.
    pub of: u64,
    /// The digest it was sent with.
    pub digest: Digest,
    /// What arrived.
    pub data: Bytes,
}

impl Engine {
    /// Which of these blobs are not stored; the others stay for long enough to be referred to.
    pub async fn missing(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, EngineError> {
        Ok(self.store().missing_blobs(digests).await?)
    }

    /// Stores a blob; refused when the bytes do not have this digest. Holds one chunk in memory.
    pub async fn put_blob<S, E>(&self, digest: Digest, mut body: S) -> Result<(), EngineError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let upload = uuid::Uuid::new_v4().to_string();
        let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0u64, 0i64);
        let mut buffer = BytesMut::new();
        let mut failure = None;
        self.store().begin_upload(&upload).await?;
        while let Some(piece) = body.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    failure = Some(format!("the upload broke off after {bytes} bytes: {error}"));
                    break;
                }
            };
            hash.update(&piece);
            bytes += piece.len() as u64;
            buffer.extend_from_slice(&piece);
            while buffer.len() >= CHUNK_BYTES {
                let full = buffer.split_to(CHUNK_BYTES).freeze();
                self.store().keep_chunk(&upload, chunk, full).await?;
                chunk += 1;
            }
        }
        let found = Digest::from_hash(&hash.finalize());
        if failure.is_none() && found != digest {
            failure = Some(differs(bytes, &found, &digest));
        }
        if let Some(detail) = failure {
            self.store().drop_upload(&upload).await?;
            return Err(send_again(detail));
        }
        if !buffer.is_empty() {
            self.store().keep_chunk(&upload, chunk, buffer.freeze()).await?;
        }
        Ok(self.store().keep_blob(&digest, bytes, &upload).await?)
    }

    /// How far a blob is there, for whoever goes on with its upload.
    pub async fn upload(&self, digest: &Digest) -> Result<UploadView, EngineError> {
        let begin = Sha256::new().serialize().to_vec();
        Ok(view(self.store().upload_of(digest, Some(begin)).await?.map(|upload| upload.bytes)))
    }

    /// Waits until one more piece may be in memory.
    pub async fn room_for_piece(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.inner.pieces.0).acquire_owned().await.ok()
    }

    /// Adds a piece to a blob that comes in pieces. The last one makes it whole; a whole that does not have the digest is
    /// dropped.
    pub async fn put_piece(&self, digest: Digest, piece: Piece) -> Result<UploadView, EngineError> {
        check(&piece)?;
        let Piece { from, of, digest: claimed, data } = piece;
        let begin = Sha256::new().serialize().to_vec();
        let Some(upload) = self.store().upload_of(&digest, Some(begin)).await? else {
            return Ok(view(None));
        };
        if upload.bytes != from {
            return Err(wrong_offset(from, upload.bytes));
        }
        let Some((found, hash)) = add(&upload, &data).await? else {
            self.store().give_up_upload(&upload.name).await?;
            return Err(wrong_offset(from, 0));
        };
        if found != claimed {
            let kind = "damaged-piece";
            let detail = differs(data.len() as u64, &found, &claimed);
            return Err(EngineError::Refused { kind, detail });
        }
        let bytes = from + data.len() as u64;
        let whole = bytes == of;
        let state = hash.serialize().to_vec();
        let found = Digest::from_hash(&hash.finalize());
        if whole && found != digest {
            self.store().give_up_upload(&upload.name).await?;
            return Err(send_again(differs(bytes, &found, &digest)));
        }
        if !self.store().grow_upload(&upload, data, state, whole.then_some(&digest)).await? {
            let now = self.store().upload_of(&digest, None).await?;
            return Err(wrong_offset(from, now.map_or(0, |upload| upload.bytes)));
        }
        Ok(view((!whole).then_some(bytes)))
    }

    /// Size in bytes, and the chunks from a byte on.
    pub async fn get_blob(
        &self,
        digest: &Digest,
        from: u64,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>), EngineError> {
        let found = self.store().find_blob(digest).await?;
        let (bytes, upload) =
            found.ok_or_else(|| EngineError::NotFound(format!("there is no blob {digest}")))?;
        let chunk_bytes = CHUNK_BYTES as u64;
        let first = i64::try_from(from / chunk_bytes).unwrap_or(i64::MAX);
        let skip = usize::try_from(from % chunk_bytes).unwrap_or_default();
        let begin = (self.store().clone(), upload, first, skip);
        let chunks = stream::try_unfold(begin, |(store, upload, chunk, skip)| async move {
            let data = store.chunk(&upload, chunk).await?;
            Ok(data.map(|data| (data.slice(skip.min(data.len())..), (store, upload, chunk + 1, 0))))
        });
        Ok((bytes, chunks))
    }
}

/// The digest of a piece, and SHA-256 of the whole after it. None: the state that was kept cannot be gone on with.
async fn add(upload: &Upload, data: &Bytes) -> Result<Option<(Digest, Sha256)>, EngineError> {
    let Ok(Ok(mut hash)) = upload.hash.as_slice().try_into().map(Sha256::deserialize) else {
        return Ok(None);
    };
    let data = data.clone();
    // Milliseconds of work: the others' requests need not wait for it.
    let added = tokio::task::spawn_blocking(move || {
        hash.update(&data);
        (Digest::of(&data), hash)
    });
    let added = added.await.map_err(|gone| StoreError::Broken(format!("hashing ended early: {gone}")))?;
    Ok(Some(added))
}

fn check(piece: &Piece) -> Result<(), EngineError> {
    let Piece { from, of, digest: _, data } = piece;
    let (bytes, chunk) = (data.len() as u64, CHUNK_BYTES as u64);
    let end = from.saturating_add(bytes);
    let last = end == *of;
    let fits = from.is_multiple_of(chunk) && end <= *of && bytes <= PIECE_BYTES;
    if fits && (last || (bytes > 0 && bytes.is_multiple_of(chunk))) {
        return Ok(());
    }
    let detail = format!("{bytes} bytes from {from} on are no piece of a blob of {of} bytes");
    let hint =
        Some(format!("a piece has whole MiB, {} at most; only the last may have less", PIECE_BYTES / chunk));
    Err(EngineError::Invalid { field: None, detail, hint })
}

/// None: it is whole.
fn view(bytes: Option<u64>) -> UploadView {
    UploadView { bytes: bytes.unwrap_or(0), whole: bytes.is_none() }
}

fn wrong_offset(from: u64, there: u64) -> EngineError {
    let detail = format!("the piece begins at byte {from}, but {there} bytes are there; go on from those");
    EngineError::Refused { kind: "wrong-offset", detail }
}

fn differs(bytes: u64, found: &Digest, digest: &Digest) -> String {
    format!("the {bytes} bytes sent have the digest {found}, not {digest}")
}

fn send_again(detail: String) -> EngineError {
    EngineError::Invalid { field: None, detail, hint: Some("send it again".to_owned()) }
}
