//! Models over HTTP: versions, where they come from, what is in them, aliases, their history, and moving one by hand.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use refit_workflows::wire::{
    ArtifactKind, HistoryView, ModelView, PromoteVersion, Rollback, VersionDetail, VersionDiff, VersionRef,
};
use serde::Deserialize;

use super::blobs;
use super::extract::{AliasPath, Caller, NamePath, Params, Strict, VersionPath};
use super::problem::Problem;
use crate::engine::Engine;

/// Which version an artifact is of.
const VERSION: HeaderName = HeaderName::from_static("refit-version");
/// What a folder's artifact is: the list of its files, each of which is a blob.
const TREE_JSON: HeaderValue = HeaderValue::from_static("application/vnd.refit.tree+json");

pub(super) async fn list(State(engine): State<Engine>) -> Result<Json<Vec<ModelView>>, Problem> {
    Ok(Json(engine.models().await?))
}

pub(super) async fn show(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<ModelView>, Problem> {
    Ok(Json(engine.model(&name).await?))
}

pub(super) async fn version(
    State(engine): State<Engine>,
    VersionPath(model, number): VersionPath,
) -> Result<Json<VersionDetail>, Problem> {
    Ok(Json(engine.version(&model, &VersionRef::Number(number)).await?))
}

pub(super) async fn alias(
    State(engine): State<Engine>,
    AliasPath(model, alias): AliasPath,
) -> Result<Json<VersionDetail>, Problem> {
    Ok(Json(engine.version(&model, &VersionRef::Alias(alias)).await?))
}

pub(super) async fn version_artifact(
    State(engine): State<Engine>,
    VersionPath(model, number): VersionPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    artifact(&engine, &model, &VersionRef::Number(number), &headers).await
}

pub(super) async fn alias_artifact(
    State(engine): State<Engine>,
    AliasPath(model, alias): AliasPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    artifact(&engine, &model, &VersionRef::Alias(alias), &headers).await
}

/// What is in a version: a file as it is, a folder as the list of its files.
async fn artifact(
    engine: &Engine,
    model: &str,
    version: &VersionRef,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let detail = engine.version(model, version).await?;
    let mut response = blobs::content(engine, &detail.version.digest, headers).await?;
    let headers = response.headers_mut();
    headers.insert(VERSION, HeaderValue::from(detail.version.version));
    if detail.version.kind == ArtifactKind::Folder && headers.contains_key(axum::http::header::CONTENT_TYPE) {
        headers.insert(axum::http::header::CONTENT_TYPE, TREE_JSON);
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffParams {
    from: String,
    to: String,
}

pub(super) async fn diff(
    State(engine): State<Engine>,
    NamePath(model): NamePath,
    Params(DiffParams { from, to }): Params<DiffParams>,
) -> Result<Json<VersionDiff>, Problem> {
    let read = |field: &str, text: &str| {
        text.parse::<VersionRef>().map_err(|wrong| Problem::invalid(wrong).field(field))
    };
    let (from, to) = (read("from", &from)?, read("to", &to)?);
    Ok(Json(engine.diff(&model, &from, &to).await?))
}

pub(super) async fn history(
    State(engine): State<Engine>,
    NamePath(name): NamePath,
) -> Result<Json<Vec<HistoryView>>, Problem> {
    Ok(Json(engine.history(&name).await?))
}

pub(super) async fn promote(
    State(engine): State<Engine>,
    Caller(by): Caller,
    NamePath(name): NamePath,
    Strict(ask): Strict<PromoteVersion>,
) -> Result<Json<HistoryView>, Problem> {
    Ok(Json(engine.promote_version(&name, ask, &by).await?))
}

pub(super) async fn rollback(
    State(engine): State<Engine>,
    Caller(by): Caller,
    NamePath(name): NamePath,
    Strict(rollback): Strict<Rollback>,
) -> Result<Json<HistoryView>, Problem> {
    Ok(Json(engine.rollback(&name, rollback, &by).await?))
}
