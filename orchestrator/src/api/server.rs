//! The server itself over HTTP: whether it lives, whether it is ready, who it is, and its tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::wire::{CreateToken, ServerView, TokenView};
use serde_json::{Value, json};

use super::extract::{NamePath, Strict};
use super::problem::Problem;
use crate::engine::Engine;

/// The process answers; says nothing of the database, so that a restart is not asked of what a restart cannot mend.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The database answers as well. Open to all, and so tells nothing else.
pub(super) async fn ready(State(engine): State<Engine>) -> Result<Json<Value>, Problem> {
    match engine.ready().await {
        Ok(_) => Ok(Json(json!({"status": "ready"}))),
        Err(error) => {
            tracing::debug!("not ready: {error}");
            let detail = "the database does not answer; Refit waits for it and goes on by itself";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", detail).retry_after(2))
        }
    }
}

pub(super) async fn show(State(engine): State<Engine>) -> Result<Json<ServerView>, Problem> {
    Ok(Json(engine.ready().await?))
}

pub(super) async fn tokens(State(engine): State<Engine>) -> Result<Json<Vec<TokenView>>, Problem> {
    Ok(Json(engine.tokens().await?))
}

pub(super) async fn create_token(
    State(engine): State<Engine>,
    Strict(create): Strict<CreateToken>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    Ok((StatusCode::CREATED, Json(engine.create_token(create).await?)))
}

pub(super) async fn revoke_token(
    State(engine): State<Engine>,
    NamePath(id): NamePath,
) -> Result<Json<TokenView>, Problem> {
    Ok(Json(engine.revoke_token(&id).await?))
}
