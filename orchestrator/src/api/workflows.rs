//! Workflows over HTTP, and the blobs their bundles and artifacts are made of. Blobs stream in both directions and
//! are never held whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use refit_workflows::wire::{
    Apply, DeletedWorkflow, MissingReply, MissingRequest, PauseWorkflow, WorkflowView,
};
use serde::Deserialize;

use super::events::flag;
use super::extract::{BodyMax, Caller, DigestPath, NamePath, Params, Strict};
use super::problem::Problem;
use crate::engine::Engine;

/// The most digests one request may ask about.
const DIGESTS_MAX: usize = 10_000;

pub(super) async fn apply(
    State(engine): State<Engine>,
    Caller(by): Caller,
    Strict(apply): Strict<Apply>,
) -> Result<(StatusCode, Json<WorkflowView>), Problem> {
    let view = engine.apply_workflow(apply, &by).await?;
    Ok((if view.unchanged { StatusCode::OK } else { StatusCode::CREATED }, Json(view)))
}

pub(super) async fn list(State(engine): State<Engine>) -> Result<Json<Vec<WorkflowView>>, Problem> {
    Ok(Json(engine.workflows().await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<WorkflowView>, Problem> {
    Ok(Json(engine.workflow(&name).await?))
}

pub(super) async fn pause(
    State(engine): State<Engine>,
    Caller(by): Caller,
    NamePath(name): NamePath,
    Strict(pause): Strict<PauseWorkflow>,
) -> Result<Json<WorkflowView>, Problem> {
    Ok(Json(engine.pause_workflow(&name, pause, &by).await?))
}

pub(super) async fn resume(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<WorkflowView>, Problem> {
    Ok(Json(engine.resume_workflow(&name).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveParams {
    force: Option<String>,
    reason: Option<String>,
}

pub(super) async fn remove(
    State(engine): State<Engine>,
    Caller(by): Caller,
    NamePath(name): NamePath,
    Params(params): Params<RemoveParams>,
) -> Result<Json<DeletedWorkflow>, Problem> {
    let force = flag("force", params.force.as_deref())?;
    Ok(Json(engine.delete_workflow(&name, force, params.reason, &by).await?))
}

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

pub(super) async fn put_blob(
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

pub(super) async fn get_blob(
    State(engine): State<Engine>,
    DigestPath(digest): DigestPath,
) -> Result<Response, Problem> {
    let (bytes, chunks) = engine.get_blob(&digest).await?;
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    // An artifact is somebody else's data: a browser may save it, never show it.
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}
