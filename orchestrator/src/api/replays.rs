//! Replays over HTTP: asking for one, what one would do, looking, stopping.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::wire::{ReplayFilter, ReplayPlan, ReplayView};
use serde::Deserialize;

use super::events::limit;
use super::extract::{Caller, Params, SeqPath, Strict};
use super::problem::Problem;
use crate::engine::Engine;

pub(super) async fn ask(
    State(engine): State<Engine>,
    Caller(by): Caller,
    Strict(filter): Strict<ReplayFilter>,
) -> Result<(StatusCode, Json<ReplayView>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(engine.ask_replay(filter, &by).await?)))
}

pub(super) async fn plan(
    State(engine): State<Engine>,
    Strict(filter): Strict<ReplayFilter>,
) -> Result<Json<ReplayPlan>, Problem> {
    Ok(Json(engine.plan_replay(filter).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    limit: Option<i64>,
}

pub(super) async fn list(
    State(engine): State<Engine>,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<ReplayView>>, Problem> {
    Ok(Json(engine.replays(limit(params.limit)?).await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    SeqPath(seq): SeqPath,
) -> Result<Json<ReplayView>, Problem> {
    Ok(Json(engine.replay(seq).await?))
}

pub(super) async fn stop(
    State(engine): State<Engine>,
    SeqPath(seq): SeqPath,
) -> Result<Json<ReplayView>, Problem> {
    Ok(Json(engine.stop_replay(seq).await?))
}
