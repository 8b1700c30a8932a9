//! Runs over HTTP: starting, watching, logs, and what a person may do to one.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use refit_workflows::time::Timestamp;
use refit_workflows::wire::{Decide, EvidenceView, LogPage, RetryRun, RunView, SeriesView, StartRun};
use serde::Deserialize;

use super::events::limit;
use super::extract::{Caller, Params, RunPath, Strict};
use super::problem::Problem;
use crate::engine::{Engine, RunFilter};

/// The longest a request may wait for news, in milliseconds.
const WAIT_MAX_MS: u64 = 30_000;

const STATES: [&str; 7] = ["waiting", "running", "succeeded", "rejected", "failed", "cancelled", "coalesced"];

pub(super) async fn start(
    State(engine): State<Engine>,
    Caller(by): Caller,
    Strict(start): Strict<StartRun>,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    Ok((StatusCode::CREATED, Json(engine.start_run(start, &by).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    workflow: Option<String>,
    state: Option<String>,
    since: Option<Timestamp>,
    limit: Option<i64>,
}

pub(super) async fn list(
    State(engine): State<Engine>,
    Params(params): Params<ListParams>,
) -> Result<Json<Vec<RunView>>, Problem> {
    if let Some(state) = &params.state
        && !STATES.contains(&state.as_str())
    {
        return Err(Problem::invalid("`state` is not a state of a run")
            .field("state")
            .hint(format!("the states are: {}", STATES.join(", "))));
    }
    let filter = RunFilter {
        workflow: params.workflow,
        state: params.state,
        since: params.since,
        limit: limit(params.limit)?,
    };
    Ok(Json(engine.runs(filter).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowParams {
    after: Option<i64>,
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn show(
    State(engine): State<Engine>,
    RunPath(run): RunPath,
    Params(params): Params<ShowParams>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.run(&run, params.after, wait(params.wait_ms)).await?))
}

pub(super) async fn evidence(
    State(engine): State<Engine>,
    RunPath(run): RunPath,
) -> Result<Json<EvidenceView>, Problem> {
    Ok(Json(engine.evidence(&run).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogParams {
    step: Option<String>,
    #[serde(default)]
    after: i64,
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn logs(
    State(engine): State<Engine>,
    RunPath(run): RunPath,
    Params(params): Params<LogParams>,
) -> Result<Json<LogPage>, Problem> {
    Ok(Json(engine.logs(&run, params.step.as_deref(), params.after, wait(params.wait_ms)).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricParams {
    step: Option<String>,
    #[serde(default)]
    after: i64,
}

pub(super) async fn metrics(
    State(engine): State<Engine>,
    RunPath(run): RunPath,
    Params(params): Params<MetricParams>,
) -> Result<Json<Vec<SeriesView>>, Problem> {
    Ok(Json(engine.series(&run, params.step.as_deref(), params.after).await?))
}

pub(super) async fn cancel(
    State(engine): State<Engine>,
    Caller(by): Caller,
    RunPath(run): RunPath,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.cancel_run(&run, &by).await?))
}

pub(super) async fn retry(
    State(engine): State<Engine>,
    Caller(by): Caller,
    RunPath(run): RunPath,
    Strict(retry): Strict<RetryRun>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.retry_run(&run, retry, &by).await?))
}

pub(super) async fn approve(
    State(engine): State<Engine>,
    Caller(by): Caller,
    RunPath(run): RunPath,
    Strict(decide): Strict<Decide>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.decide(&run, decide, true, &by).await?))
}

pub(super) async fn reject(
    State(engine): State<Engine>,
    Caller(by): Caller,
    RunPath(run): RunPath,
    Strict(decide): Strict<Decide>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(engine.decide(&run, decide, false, &by).await?))
}

fn wait(asked_ms: u64) -> Duration {
    Duration::from_millis(asked_ms.min(WAIT_MAX_MS))
}
