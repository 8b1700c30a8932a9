//! The server itself over HTTP: whether it lives, whether it is ready, who it is, and its tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::wire::{CreateToken, PartView, ReadyView, ServerView, TokenView};
use serde_json::{Value, json};

use super::extract::{NamePath, Strict};
use super::problem::Problem;
use crate::engine::Engine;

/// The process answers; says nothing of the database, so that a restart is not asked of what a restart cannot mend.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The database answers as well. A part that is degraded does not make the server unready: it would be taken out of
/// service for what its clients may not even need. Open to all, and so tells no reasons: they name hosts.
pub(super) async fn ready(State(engine): State<Engine>) -> Result<Json<ReadyView>, Problem> {
    match engine.ready().await {
        Ok(server) => {
            let ok = "ok".to_owned();
            let database = PartView {
                part: "database".to_owned(),
                name: server.database,
                state: ok,
                since: None,
                reason: None,
                deliveries: None,
            };
            let bare = |part| PartView { reason: None, deliveries: None, ..part };
            let parts = server.parts.into_iter().map(bare);
            let parts: Vec<PartView> = std::iter::once(database).chain(parts).collect();
            let degraded = parts.iter().any(|part| part.state == "degraded");
            let status = if degraded { "degraded" } else { "ready" };
            Ok(Json(ReadyView { status: status.to_owned(), parts }))
        }
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
