//! The worker protocol over HTTP, and the list of workers for people. A worker learns nothing here that its own
//! attempts do not need.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use refit_workflows::names::RunName;
use refit_workflows::wire::{
    AttemptKey, Finish, Finished, LeaseRequest, Leased, Register, Registered, Renew, Renewed, Report,
    WaitingView, WorkerView,
};
use serde::Deserialize;

use super::extract::{Lenient, NamePath, Params};
use super::problem::Problem;
use crate::engine::Engine;

pub(super) async fn list(State(engine): State<Engine>) -> Result<Json<Vec<WorkerView>>, Problem> {
    Ok(Json(engine.workers().await?))
}

pub(super) async fn waiting(State(engine): State<Engine>) -> Result<Json<Vec<WaitingView>>, Problem> {
    Ok(Json(engine.waiting().await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<WorkerView>, Problem> {
    Ok(Json(engine.worker(&name).await?))
}

pub(super) async fn drain(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<WorkerView>, Problem> {
    Ok(Json(engine.drain_worker(&name, true).await?))
}

pub(super) async fn resume(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<WorkerView>, Problem> {
    Ok(Json(engine.drain_worker(&name, false).await?))
}

pub(super) async fn register(
    State(engine): State<Engine>,
    Lenient(register): Lenient<Register>,
) -> Result<Json<Registered>, Problem> {
    Ok(Json(engine.register(register).await?))
}

pub(super) async fn lease(
    State(engine): State<Engine>,
    Lenient(request): Lenient<LeaseRequest>,
) -> Result<Json<Leased>, Problem> {
    Ok(Json(engine.lease(request).await?))
}

pub(super) async fn renew(
    State(engine): State<Engine>,
    Lenient(renew): Lenient<Renew>,
) -> Result<Json<Renewed>, Problem> {
    Ok(Json(engine.renew(renew).await?))
}

pub(super) async fn report(
    State(engine): State<Engine>,
    Lenient(report): Lenient<Report>,
) -> Result<StatusCode, Problem> {
    engine.report(report).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn finish(
    State(engine): State<Engine>,
    Lenient(finish): Lenient<Finish>,
) -> Result<Json<Finished>, Problem> {
    Ok(Json(engine.finish(finish).await?))
}

#[derive(Debug, Deserialize)]
pub(super) struct AttemptParams {
    run: RunName,
    step: String,
    epoch: i64,
}

pub(super) async fn events(
    State(engine): State<Engine>,
    Params(params): Params<AttemptParams>,
) -> Result<impl IntoResponse, Problem> {
    let key = AttemptKey { run: params.run, step: params.step, epoch: params.epoch };
    let lines = engine.attempt_events(&key).await?;
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)))
}
