//! The MLflow server that `tests/run` starts, asked as its own clients ask it. Must never happen here: a model of another test
//! looked at, for all of them share it.

use reqwest::Method;
use serde_json::{Value, json};

use super::service;
use crate::api::{Api, Reply};

/// A server.
#[derive(Clone, Debug)]
pub struct Mlflow {
    url: String,
    api: Api,
}

/// The server.
///
/// # Panics
/// When nobody says where it is.
pub fn mlflow() -> Mlflow {
    let url = service("REFIT_TEST_MLFLOW_URL", "an MLflow server");
    Mlflow { api: Api::new(&url), url }
}

impl Mlflow {
    /// `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// GET of `/api/2.0/mlflow/PATH`.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn get(&self, path: &str) -> Reply {
        self.api.get(&format!("/api/2.0/mlflow/{path}")).await
    }

    /// POST.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.api.post(&format!("/api/2.0/mlflow/{path}"), body).await
    }

    /// DELETE with a body.
    ///
    /// # Panics
    /// When it cannot be reached, or refuses.
    pub async fn delete(&self, path: &str, body: &Value) {
        let body = Some(("application/json", body.to_string().into_bytes()));
        let sent = self.api.send(Method::DELETE, &format!("/api/2.0/mlflow/{path}"), body).await;
        sent.unwrap_or_else(|error| panic!("failed to reach MLflow: {error}")).ok();
    }

    /// A model's versions, the first made first.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn versions(&self, model: &str) -> Vec<Value> {
        let path = format!("model-versions/search?filter=name%20%3D%20%27{model}%27&max_results=1000");
        let found = self.get(&path).await.ok();
        let mut versions = found["model_versions"].as_array().cloned().unwrap_or_default();
        versions.sort_by_key(number);
        versions
    }

    /// The number that an alias points to.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn alias(&self, model: &str, alias: &str) -> Option<i64> {
        let found = self.get(&format!("registered-models/alias?name={model}&alias={alias}")).await;
        (found.status == 200).then(|| number(&found.body["model_version"]))
    }

    /// Every run of an experiment; none where there is no such experiment.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn runs(&self, experiment: &str) -> Vec<Value> {
        let found = self.get(&format!("experiments/get-by-name?experiment_name={experiment}")).await;
        let id = &found.body["experiment"]["experiment_id"];
        let search = json!({ "experiment_ids": [id], "max_results": 1000 });
        if found.status != 200 {
            return Vec::new();
        }
        let runs = self.post("runs/search", &search).await.ok();
        runs["runs"].as_array().cloned().unwrap_or_default()
    }
}

/// A version's number, which MLflow writes as text.
///
/// # Panics
/// When it is none.
pub fn number(version: &Value) -> i64 {
    let number = version["version"].as_str().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{version} is no version"))
}
