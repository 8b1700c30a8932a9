//! Outbound targets over HTTP: listing, showing, enabling, dropping what waits for one that is no more.

use axum::Json;
use axum::extract::State;
use refit_workflows::wire::{TargetDropped, TargetView};

use super::extract::NamePath;
use super::problem::Problem;
use crate::engine::Engine;

pub(super) async fn list(State(engine): State<Engine>) -> Result<Json<Vec<TargetView>>, Problem> {
    Ok(Json(engine.targets().await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<TargetView>, Problem> {
    Ok(Json(engine.target(&name).await?))
}

pub(super) async fn enable(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<TargetView>, Problem> {
    Ok(Json(engine.enable_target(&name).await?))
}

pub(super) async fn drop_events(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<TargetDropped>, Problem> {
    Ok(Json(engine.drop_outbox(&name).await?))
}
