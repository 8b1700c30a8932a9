//! Workflows over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::wire::{Apply, DeletedWorkflow, PauseWorkflow, WorkflowView};
use serde::Deserialize;

use super::events::flag;
use super::extract::{Caller, NamePath, Params, Strict};
use super::problem::Problem;
use crate::engine::Engine;

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
