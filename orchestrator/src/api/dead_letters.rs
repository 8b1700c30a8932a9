//! Dead letters over HTTP: listing, showing, trying again, dropping.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DeadLetterView, RetriedDeadLetter, RetryDeadLetter};
use serde::Deserialize;

use super::events::{event, limit, oldest_first};
use super::extract::{Params, SeqPath, Strict};
use super::problem::Problem;
use crate::engine::{DeadLetterFilter, Engine};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    source: Option<String>,
    since: Option<Timestamp>,
    order: Option<String>,
    after: Option<i64>,
    limit: Option<i64>,
}

/// A page of them. `order=oldest&after=SEQ` goes through them from the beginning.
pub(super) async fn list(
    State(engine): State<Engine>,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<DeadLetterView>>, Problem> {
    let filter = DeadLetterFilter {
        source: params.source,
        since: params.since,
        oldest_first: oldest_first(params.order.as_deref())?,
        after: params.after,
        limit: limit(params.limit)?,
    };
    Ok(Json(engine.dead_letters(filter).await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    SeqPath(seq): SeqPath,
) -> Result<Json<DeadLetterView>, Problem> {
    Ok(Json(engine.dead_letter(seq).await?))
}

/// 202 with a receipt for each event that was recorded or is sent again; 422 where it is still no event.
pub(super) async fn retry(
    State(engine): State<Engine>,
    SeqPath(seq): SeqPath,
    Strict(retry): Strict<RetryDeadLetter>,
) -> Result<(StatusCode, Json<RetriedDeadLetter>), Problem> {
    let mended = retry.event.map(event).transpose()?;
    Ok((StatusCode::ACCEPTED, Json(engine.retry_dead_letter(seq, mended).await?)))
}

pub(super) async fn drop(
    State(engine): State<Engine>,
    SeqPath(seq): SeqPath,
) -> Result<Json<DeadLetterView>, Problem> {
    Ok(Json(engine.drop_dead_letter(seq).await?))
}
