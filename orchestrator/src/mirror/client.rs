//! MLflow's REST API 2.0, as much of it as a mirror needs (<https://mlflow.org/docs/latest/rest-api.html>). Follows no
//! redirect, uses no proxy, reads no answer that is too large, waits for none too long, takes nothing for an answer that is not
//! JSON, and never shows who asks.
//!
//! Must never happen here: a second try, or a decision about what MLflow is to have.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use refit_workflows::time::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::record::{EVIDENCE_TAG, MirroredRun};
use crate::answers::{causes, retry_after};
use crate::config::Mlflow;

/// The longest to wait for a connection, and for an answer as a whole.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest answer, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How much of an error's text is kept, in characters.
const MESSAGE_MAX: usize = 300;
/// How many versions are asked for at once.
const PAGE: u32 = 200;

/// Why MLflow did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failure {
    pub(super) reason: String,
    /// What MLflow calls it (`RESOURCE_DOES_NOT_EXIST`), where it refused this very request; none: it cannot be used at all.
    pub(super) code: Option<String>,
    /// How long it wants to be left alone.
    pub(super) rest: Option<Duration>,
}

impl Failure {
    pub(super) fn away(reason: String) -> Self {
        Self { reason, code: None, rest: None }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// There is no such thing.
pub(super) const MISSING: &str = "RESOURCE_DOES_NOT_EXIST";
/// There is one already.
pub(super) const EXISTS: &str = "RESOURCE_ALREADY_EXISTS";

/// A server; cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    user: Option<(String, Option<String>)>,
    token: Option<HeaderValue>,
}

/// A version as MLflow has it.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    #[serde(deserialize_with = "number")]
    pub(super) version: i64,
    #[serde(default)]
    pub(super) tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Versions {
    #[serde(default, rename = "model_versions")]
    pub(super) versions: Vec<Version>,
    #[serde(default)]
    pub(super) next_page_token: Option<String>,
}

/// MLflow writes versions as texts.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map_err(serde::de::Error::custom),
        other => other.as_i64().ok_or_else(|| serde::de::Error::custom("expected a version's number")),
    }
}

/// Where a server is, without who asks: what a mirror is known by.
pub(super) fn place(settings: &Mlflow) -> Result<String, String> {
    let mut url = url_of(settings)?;
    // It has a host: both can be taken off.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn url_of(settings: &Mlflow) -> Result<Url, String> {
    let url: Url = settings.url.reveal().parse().map_err(|error| format!("`url` is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("`url` must begin with https:// or http://".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("`url` is the server's address alone: take off what stands behind `?` or `#`".to_owned());
    }
    if settings.token.is_some() && !url.username().is_empty() {
        return Err("say who asks either in `url` or by `token`".to_owned());
    }
    Ok(url)
}

/// `Authorization`, where it is a token.
fn token_of(settings: &Mlflow) -> Result<Option<HeaderValue>, String> {
    let Some(token) = &settings.token else { return Ok(None) };
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| "`token` cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Whether a server can be asked with these settings, as far as they tell.
pub(super) fn check(settings: &Mlflow) -> Result<(), String> {
    url_of(settings)?;
    token_of(settings).map(drop)
}

impl Client {
    pub(super) fn new(settings: &Mlflow) -> Result<Self, String> {
        let mut base = url_of(settings)?;
        let part = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = (!base.username().is_empty()).then(|| (part(base.username()), base.password().map(part)));
        let _ = base.set_username("");
        let _ = base.set_password(None);
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .user_agent(concat!("refit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("failed to set up the HTTP client: {error}"))?;
        Ok(Self { http, base, user, token: token_of(settings)? })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let mut request = self.http.request(method, url);
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, password.as_ref());
        }
        if let Some(token) = &self.token {
            request = request.header(reqwest::header::AUTHORIZATION, token.clone());
        }
        request
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        let what = format!("GET {path}");
        let request = self.request(Method::GET, &format!("api/2.0/mlflow/{path}")).query(query);
        json_of(&what, answer(&what, request).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        let what = format!("POST {path}");
        let request = self.request(Method::POST, &format!("api/2.0/mlflow/{path}")).json(body);
        json_of(&what, answer(&what, request).await?).await
    }

    /// MLflow's own version.
    pub(super) async fn server_version(&self) -> Result<String, Failure> {
        let what = "GET version";
        let response = answer(what, self.request(Method::GET, "version")).await?;
        let text = String::from_utf8_lossy(&body_of(what, response).await?).trim().to_owned();
        let is_one = text.len() <= 40 && text.starts_with(|first: char| first.is_ascii_digit());
        if is_one { Ok(text) } else { Err(Failure::away(format!("{what}: {NOT_MLFLOW}"))) }
    }

    /// The id of an experiment.
    pub(super) async fn experiment(&self, name: &str) -> Result<Option<String>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            experiment: Experiment,
        }
        #[derive(Deserialize)]
        struct Experiment {
            experiment_id: String,
        }
        let found = self.get::<Answer>("experiments/get-by-name", &[("experiment_name", name)]).await;
        or_missing(found.map(|answer| answer.experiment.experiment_id))
    }

    pub(super) async fn make_experiment(&self, name: &str) -> Result<(), Failure> {
        or_exists(self.post::<Value>("experiments/create", &json!({ "name": name })).await)
    }

    /// A model's aliases, each with the number of its version; none: there is no such model.
    pub(super) async fn model(&self, name: &str) -> Result<Option<BTreeMap<String, i64>>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            registered_model: Model,
        }
        #[derive(Deserialize)]
        struct Model {
            #[serde(default)]
            aliases: Vec<Alias>,
        }
        #[derive(Deserialize)]
        struct Alias {
            alias: String,
            #[serde(deserialize_with = "number")]
            version: i64,
        }
        let found = self.get::<Answer>("registered-models/get", &[("name", name)]).await;
        let aliases = |model: Model| model.aliases.into_iter().map(|at| (at.alias, at.version)).collect();
        or_missing(found.map(|answer| aliases(answer.registered_model)))
    }

    pub(super) async fn make_model(&self, name: &str) -> Result<(), Failure> {
        let model = json!({ "name": name, "description": "Mirrored by Refit, which says what is in use." });
        or_exists(self.post::<Value>("registered-models/create", &model).await)
    }

    /// A page of a model's versions, newest first.
    pub(super) async fn versions(&self, model: &str, page: Option<&str>) -> Result<Versions, Failure> {
        let (filter, size) = (format!("name = '{model}'"), PAGE.to_string());
        let order = "version_number DESC";
        let mut query = vec![("filter", filter.as_str()), ("max_results", &size), ("order_by", order)];
        query.extend(page.map(|page| ("page_token", page)));
        self.get("model-versions/search", &query).await
    }

    /// The number of the version that has this evidence; the first made, should there be several.
    pub(super) async fn version_of(&self, model: &str, evidence: &str) -> Result<Option<i64>, Failure> {
        let filter = format!("name = '{model}' AND tags.`{EVIDENCE_TAG}` = '{evidence}'");
        let query = [("filter", filter.as_str()), ("max_results", "100")];
        let found: Versions = self.get("model-versions/search", &query).await?;
        Ok(found.versions.iter().map(|version| version.version).min())
    }

    pub(super) async fn make_version(
        &self,
        model: &str,
        run: &str,
        mirrored: &MirroredRun,
    ) -> Result<i64, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            model_version: Version,
        }
        let version = json!({
            "name": model, "source": mirrored.source, "run_id": run, "description": mirrored.description,
            "tags": pairs(&mirrored.tags),
        });
        let made: Answer = self.post("model-versions/create", &version).await?;
        Ok(made.model_version.version)
    }

    /// The run of an experiment that has this evidence; the first begun, should there be several.
    pub(super) async fn run_of(&self, experiment: &str, evidence: &str) -> Result<Option<String>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            runs: Vec<Run>,
        }
        let search = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{EVIDENCE_TAG}` = '{evidence}'"),
            "order_by": ["attributes.start_time ASC"], "max_results": 1,
        });
        let found: Answer = self.post("runs/search", &search).await?;
        Ok(found.runs.into_iter().next().map(|run| run.info.run_id))
    }

    pub(super) async fn make_run(&self, experiment: &str, mirrored: &MirroredRun) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            run: Run,
        }
        let run = json!({
            "experiment_id": experiment, "run_name": mirrored.name, "start_time": mirrored.at.as_millis(),
            "tags": pairs(&mirrored.run_tags),
        });
        let made: Answer = self.post("runs/create", &run).await?;
        Ok(made.run.info.run_id)
    }

    /// Tells what a run came to. Said twice, it is as said once.
    pub(super) async fn log(
        &self,
        run: &str,
        at: Timestamp,
        metrics: &[(String, f64)],
        params: &[(String, String)],
    ) -> Result<(), Failure> {
        let at = at.as_millis();
        let metric =
            |(key, value): &(String, f64)| json!({ "key": key, "value": value, "timestamp": at, "step": 0 });
        let metrics: Vec<Value> = metrics.iter().map(metric).collect();
        let batch = json!({ "run_id": run, "metrics": metrics, "params": pairs(params) });
        self.post::<Value>("runs/log-batch", &batch).await.map(drop)
    }

    pub(super) async fn end_run(&self, run: &str, at: Timestamp) -> Result<(), Failure> {
        let end = json!({ "run_id": run, "status": "FINISHED", "end_time": at.as_millis() });
        self.post::<Value>("runs/update", &end).await.map(drop)
    }

    pub(super) async fn set_alias(&self, model: &str, alias: &str, number: i64) -> Result<(), Failure> {
        let set = json!({ "name": model, "alias": alias, "version": number.to_string() });
        self.post::<Value>("registered-models/alias", &set).await.map(drop)
    }
}

#[derive(Deserialize)]
struct Run {
    info: RunInfo,
}

#[derive(Deserialize)]
struct RunInfo {
    run_id: String,
}

const NOT_MLFLOW: &str = "what answered is not MLflow: check `url`";

fn pairs(pairs: &[(String, String)]) -> Vec<Value> {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

fn or_missing<T>(found: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.is(MISSING) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn or_exists<T>(made: Result<T, Failure>) -> Result<(), Failure> {
    match made {
        Err(failure) if !failure.is(EXISTS) => Err(failure),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// A success, or why it is none.
async fn answer(what: &str, request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await;
    // Without the URL, which people know, and with what lies under the error, which they do not.
    let response =
        response.map_err(|error| Failure::away(format!("{what}: {}", causes(&error.without_url()))))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let rest = response.headers().get(RETRY_AFTER).and_then(retry_after);
    let away = |reason: String| Failure { rest, ..Failure::away(format!("{what}: {reason}")) };
    if status.is_redirection() {
        return Err(away(format!("it answered {status}, and redirects are not followed: check `url`")));
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(away(format!("it answered {status}: check who asks, by `token` or in `url`")));
    }
    let body = body_of(what, response).await?;
    #[derive(Deserialize)]
    struct Refusal {
        error_code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Refusal { error_code, message }) = serde_json::from_slice(&body) else {
        let not_mlflow = if status.is_client_error() { format!("; {NOT_MLFLOW}") } else { String::new() };
        return Err(away(format!("it answered {status}{not_mlflow}")));
    };
    // A statement of its database is of no use to anybody here.
    let message = message.split(['\n', '\r']).next().unwrap_or_default();
    let message: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    let reason = format!("it answered {status}: {error_code}: {message}");
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        return Err(Failure { reason: format!("{what}: {reason}"), code: Some(error_code), rest: None });
    }
    Err(away(reason))
}

async fn json_of<T: DeserializeOwned>(what: &str, response: Response) -> Result<T, Failure> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().starts_with("application/json") {
        let kind: String = kind.chars().take(60).collect();
        let kind = if kind.is_empty() { "no content type".to_owned() } else { kind };
        return Err(Failure::away(format!("{what}: it answered with {kind} instead of JSON; {NOT_MLFLOW}")));
    }
    let body = body_of(what, response).await?;
    serde_json::from_slice(&body).map_err(|wrong| {
        Failure::away(format!("{what}: its answer is not what MLflow answers ({wrong}): check `url`"))
    })
}

async fn body_of(what: &str, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|error| {
            Failure::away(format!("{what}: its answer broke off: {}", causes(&error.without_url())))
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(Failure::away(format!("{what}: its answer is larger than {} MiB", ANSWER_MAX >> 20)));
        }
        body.extend_from_slice(&chunk);
    }
}
