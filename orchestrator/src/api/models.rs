//! Models over HTTP: versions, aliases, history, and rolling an alias back.

use axum::Json;
use axum::extract::State;
use refit_workflows::wire::{HistoryView, ModelView, Rollback};

use super::extract::{Caller, NamePath, Strict};
use super::problem::Problem;
use crate::engine::Engine;

pub(super) async fn list(State(engine): State<Engine>) -> Result<Json<Vec<ModelView>>, Problem> {
    Ok(Json(engine.models().await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<ModelView>, Problem> {
    Ok(Json(engine.model(&name).await?))
}

pub(super) async fn history(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<Vec<HistoryView>>, Problem> {
    Ok(Json(engine.history(&name).await?))
}

pub(super) async fn rollback(
    State(engine): State<Engine>,
    Caller(by): Caller,
    NamePath(name): NamePath,
    Strict(rollback): Strict<Rollback>,
) -> Result<Json<HistoryView>, Problem> {
    Ok(Json(engine.rollback(&name, rollback, &by).await?))
}
