//! Blobs on the wire: a transfer that breaks off goes on where it was, in both directions, for as long as it is polled. Keeps
//! nothing; what arrives is put where the caller says.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{PIECE_BYTES, UploadView};

use super::cache::Incoming;
use super::{BlobError, TRIES, disk};
use crate::client::{self, CallError, Orchestrator};
use crate::outputs::Content;

/// Streams a blob into `incoming`; whether it is the right one, its digest tells.
pub(super) async fn download(
    orchestrator: &Orchestrator,
    digest: &Digest,
    incoming: Incoming,
) -> Result<Incoming, BlobError> {
    let failed = disk(incoming.path());
    let incoming = Mutex::new(incoming);
    client::persist(|| download_on(orchestrator, digest, &incoming))
        .await
        .map_err(|cause| BlobError::Refused { digest: digest.clone(), cause })?
        .map_err(failed)?;
    Ok(incoming.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// From where an earlier try broke off. The outer error is the orchestrator's, the inner one the disk's.
async fn download_on(
    orchestrator: &Orchestrator,
    digest: &Digest,
    incoming: &Mutex<Incoming>,
) -> Result<io::Result<()>, CallError> {
    let incoming = || incoming.lock().unwrap_or_else(PoisonError::into_inner);
    let from = incoming().bytes();
    let mut response = orchestrator.blob(digest, from).await?;
    if response.status() != reqwest::StatusCode::PARTIAL_CONTENT
        && let Err(cause) = incoming().start_over()
    {
        return Ok(Err(cause));
    }
    while let Some(chunk) = client::next_chunk(&mut response).await? {
        if let Err(cause) = incoming().add(chunk.as_ref()) {
            return Ok(Err(cause));
        }
    }
    Ok(Ok(()))
}

/// Sends a blob piece by piece; what is there of it already, from a try that broke off, is not sent again.
pub(super) async fn upload(
    orchestrator: &Orchestrator,
    digest: &Digest,
    content: &Content,
) -> Result<(), BlobError> {
    let refused = |cause| BlobError::Refused { digest: digest.clone(), cause };
    let of = content.bytes();
    let ask = || client::persist(|| orchestrator.upload_of(digest));
    let mut there = UploadView { bytes: 0, whole: false };
    if of > PIECE_BYTES {
        there = ask().await.map_err(refused)?;
    }
    let mut damaged = 0;
    while !there.whole {
        let from = there.bytes;
        let (piece, data) = piece_of(content, from, of).await?;
        let sent =
            client::persist(|| orchestrator.upload_piece(digest, (from, of), (&piece, data.clone().into())));
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

/// The piece of a blob of `of` bytes that begins at `from`, and its digest.
async fn piece_of(content: &Content, from: u64, of: u64) -> Result<(Digest, Bytes), BlobError> {
    let (owned, to) = (content.clone(), of.min(from.saturating_add(PIECE_BYTES)));
    let read = tokio::task::spawn_blocking(move || {
        let data = Bytes::from(owned.read(from, to)?);
        Ok((Digest::of(&data), data))
    });
    let path = match content {
        Content::File(path, _) => path.clone(),
        Content::Text(_) => PathBuf::new(),
    };
    read.await.unwrap_or_else(|gone| Err(gone.into())).map_err(disk(&path))
}
