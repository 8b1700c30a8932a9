//! Blobs over HTTP: what bundles and artifacts are made of. They stream in both directions and are never held whole. One
//! may come in pieces, each with its digest, and go from any byte on, so that a transfer that breaks off need not begin
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::GetAll;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use refit_workflows::digest::Digest;
use refit_workflows::wire::{MissingReply, MissingRequest, UploadView};
use serde::Deserialize;

use super::BLOB_MAX;
use super::extract::{BodyMax, DigestPath, Params, Strict, read_body};
use super::problem::Problem;
use crate::engine::{Engine, Piece};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// The most digests one request may ask about.
const DIGESTS_MAX: usize = 10_000;

pub(super) async fn missing(
    State(engine): State<Engine>,
    Strict(request): Strict<MissingRequest>,
) -> Result<Json<MissingReply>, Problem> {
    if request.digests.len() > DIGESTS_MAX {
        let detail = format!("at most {DIGESTS_MAX} digests can be asked about at once");
        return Err(Problem::invalid(detail).field("digests"));
    }
    Ok(Json(MissingReply { missing: engine.missing(request.digests).await? }))
}

pub(super) async fn put(
    State(engine): State<Engine>,
    DigestPath(digest): DigestPath,
    request: Request,
) -> Result<StatusCode, Problem> {
    let max = request.extensions().get().copied().unwrap_or(BodyMax::DEFAULT);
    max.check_declared(request.headers())?;
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let stream = request.into_body().into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(|error| error.to_string())?;
        let before = counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if before + chunk.len() as u64 > max.0 { Err("the blob is too large".to_owned()) } else { Ok(chunk) }
    });
    match engine.put_blob(digest, stream).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(_) if received.load(Ordering::Relaxed) > max.0 => Err(max.exceeded()),
        Err(error) => Err(error.into()),
    }
}

/// `GET /api/v1/blobs/{digest}/upload`
pub(super) async fn upload(
    State(engine): State<Engine>,
    DigestPath(digest): DigestPath,
) -> Result<Json<UploadView>, Problem> {
    Ok(Json(engine.upload(&digest).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PieceParams {
    from: u64,
    of: u64,
    digest: Digest,
}

/// `PUT /api/v1/blobs/{digest}/upload`
pub(super) async fn put_piece(
    State(engine): State<Engine>,
    DigestPath(digest): DigestPath,
    Params(params): Params<PieceParams>,
    request: Request,
) -> Result<Json<UploadView>, Problem> {
    let PieceParams { from, of, digest: piece } = params;
    if of > BLOB_MAX {
        return Err(BodyMax(BLOB_MAX).exceeded());
    }
    // Before the body is read: so many pieces are in memory at once, and no more.
    let _room = engine.room_for_piece().await;
    let data = read_body(request).await?;
    Ok(Json(engine.put_piece(digest, Piece { from, of, digest: piece, data }).await?))
}

/// `GET /api/v1/blobs/{digest}`.
pub(super) async fn get(
    State(engine): State<Engine>,
    DigestPath(digest): DigestPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    content(&engine, &digest, &headers).await
}

/// A blob as the answer to a request for what it is now (RFC 9110): its digest is its tag. Whoever has it already gets 304.
/// Of `Range`, one range from a byte to the end is understood, unless `If-Range` names other content; any other is passed
/// over.
pub(super) async fn content(
    engine: &Engine,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let tag = format!("\"{digest}\"");
    let blob = engine.find_blob(digest).await?;
    if is_among(headers.get_all(header::IF_NONE_MATCH), &tag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        name_content(response.headers_mut(), digest, &tag)?;
        return Ok(response);
    }
    let same = headers.get(header::IF_RANGE).is_none_or(|named| named.as_bytes() == tag.as_bytes());
    let (from, bytes) = (asked_from(headers).filter(|_| same), blob.bytes);
    if let Some(from) = from.filter(|from| *from >= bytes) {
        let detail = format!("the blob has {bytes} bytes, and none from byte {from} on");
        return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", detail));
    }
    let chunks = engine.read_blob(blob, from.unwrap_or(0)).await?;
    let mut response = Body::from_stream(chunks).into_response();
    if let Some(from) = from {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{bytes}", bytes - 1);
        let range = HeaderValue::try_from(range).map_err(|cause| Problem::internal(&cause))?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    let headers = response.headers_mut();
    name_content(headers, digest, &tag)?;
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes - from.unwrap_or(0)));
    // An artifact is somebody else's data: a browser may save it, never show it.
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// `ETag`, and `Repr-Digest` (RFC 9530): of the whole blob, whatever part of it is sent. What is asked for again must be asked
/// here again: an alias moves.
fn name_content(headers: &mut HeaderMap, digest: &Digest, tag: &str) -> Result<(), Problem> {
    let hash = STANDARD.encode(digest.hash());
    for (name, value) in [
        (header::ETAG, tag.to_owned()),
        (REPR_DIGEST, format!("sha-256=:{hash}:")),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
    ] {
        let value = HeaderValue::try_from(value).map_err(|cause| Problem::internal(&cause))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// Whether a list of tags (RFC 9110, section 13.1.2) holds this one; weak ones compare as well.
fn is_among(lists: GetAll<'_, HeaderValue>, tag: &str) -> bool {
    let texts = lists.iter().filter_map(|list| list.to_str().ok());
    let mut tags = texts.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

/// The first byte asked for.
fn asked_from(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}
