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
use crate::store::{Blob, CHUNK_BYTES, Growth, StoreError, Upload};

/// Pieces of uploads in memory at once.
const PIECES_MAX: usize = 8;

/// The size of a piece of a blob that comes in one go, in bytes.
const PIECE: usize = 4 * CHUNK_BYTES;

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

    /// Stores a blob; refused when the bytes do not have this digest. Holds one piece in memory.
    pub async fn put_blob<S, E>(&self, digest: Digest, mut body: S) -> Result<(), EngineError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let mut upload = self.store().begin_upload().await?;
        let (mut hash, mut buffer) = (Sha256::new(), BytesMut::new());
        let mut bytes = 0u64;
        let mut failure = None;
        while let Some(part) = body.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    failure = Some(format!("the upload broke off after {bytes} bytes: {error}"));
                    break;
                }
            };
            hash.update(&part);
            bytes += part.len() as u64;
            buffer.extend_from_slice(&part);
            while buffer.len() > PIECE {
                let data = buffer.split_to(PIECE).freeze();
                upload = self.grow(&upload, Growth { data, hash: Vec::new(), of: None, whole: None }).await?;
            }
        }
        let found = Digest::from_hash(&hash.finalize());
        if failure.is_none() && found != digest {
            failure = Some(differs(bytes, &found, &digest));
        }
        if let Some(detail) = failure {
            self.store().give_up_upload(&upload).await?;
            return Err(send_again(detail));
        }
        let data = buffer.freeze();
        self.grow(&upload, Growth { data, hash: Vec::new(), of: Some(bytes), whole: Some(digest) }).await?;
        Ok(())
    }

    async fn grow(&self, upload: &Upload, growth: Growth) -> Result<Upload, EngineError> {
        let grown = self.store().grow_upload(upload, growth).await?;
        grown.ok_or_else(|| send_again("the upload stood still for a day and was given up".to_owned()))
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
            self.store().give_up_upload(&upload).await?;
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
            self.store().give_up_upload(&upload).await?;
            return Err(send_again(differs(bytes, &found, &digest)));
        }
        let growth = Growth { data, hash: state, of: Some(of), whole: whole.then(|| digest.clone()) };
        if self.store().grow_upload(&upload, growth).await?.is_none() {
            let now = self.store().upload_of(&digest, None).await?;
            return Err(wrong_offset(from, now.map_or(0, |upload| upload.bytes)));
        }
        Ok(view((!whole).then_some(bytes)))
    }

    /// A blob that is there; reads nothing of it.
    pub async fn find_blob(&self, digest: &Digest) -> Result<Blob, EngineError> {
        let found = self.store().find_blob(digest).await?;
        found.ok_or_else(|| EngineError::NotFound(format!("there is no blob {digest}")))
    }

    /// Its bytes from this one on.
    pub async fn read_blob(
        &self,
        blob: Blob,
        from: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>, EngineError> {
        // What cannot be read is told in the answer, and not by breaking it off.
        let first = if from < blob.bytes { Some(self.store().read_blob(&blob, from).await?) } else { None };
        let at = from + first.as_ref().map_or(0, |first| first.len() as u64);
        let begin = (self.store().clone(), blob, at);
        let rest = stream::try_unfold(begin, |(store, blob, at)| async move {
            if at >= blob.bytes {
                return Ok(None);
            }
            let data = store.read_blob(&blob, at).await?;
            let next = at + data.len() as u64;
            Ok(Some((data, (store, blob, next))))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest))
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
