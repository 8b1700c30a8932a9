//! `registry` of `refit.yaml`: what models, versions and aliases are written to beside Refit's own database. Asks no server.

use std::time::Duration;

use refit_orchestrator::config::{Mlflow, Secret};
use refit_orchestrator::mirror;
use refit_workflows::names::check_name;
use serde::Deserialize;

use super::duration;
use super::secret::{SecretPlace, SecretUrl};
use crate::exit::Usage;

/// The longest name of an experiment, in bytes.
const EXPERIMENT_BYTES_MAX: usize = 250;
const WHOSE: &str = "registry.mlflow";

/// What the registry is mirrored to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RegistrySettings {
    mlflow: Option<MlflowSettings>,
}

/// An MLflow server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MlflowSettings {
    /// May be left out where `--mlflow-url` or its variable says it.
    url: Option<SecretUrl>,
    token: Option<SecretPlace>,
    experiment: Option<String>,
    /// The models that are mirrored; all when left out.
    models: Option<Vec<String>>,
    #[serde(deserialize_with = "duration")]
    check_every: Option<Duration>,
    /// Where people reach Refit.
    refit_url: Option<String>,
}

impl RegistrySettings {
    /// The server as the orchestrator is told of it; `named` is the URL that a flag or a variable gives.
    ///
    /// # Errors
    /// It cannot work, and why.
    pub(super) fn mlflow(&self, named: Option<String>) -> anyhow::Result<Option<Mlflow>> {
        let none = MlflowSettings::default();
        let settings = match (&self.mlflow, &named) {
            (Some(settings), _) => settings,
            (None, Some(_)) => &none,
            (None, None) => return Ok(None),
        };
        let url = match (named, &settings.url) {
            (Some(url), _) => Secret::new(url),
            (None, Some(url)) => url.fetch(WHOSE)?,
            (None, None) => {
                let wrong =
                    "say where the server is, as in `url: https://mlflow.internal`, or with --mlflow-url";
                return Err(told(wrong));
            }
        };
        let mlflow = Mlflow {
            token: settings.token.as_ref().map(|place| place.fetch(WHOSE)).transpose()?,
            experiment: settings.experiment().map_err(told)?,
            models: settings.models().map_err(told)?,
            check_every: settings.check_every().map_err(told)?,
            refit_url: settings.refit_url().map_err(told)?,
            ..Mlflow::at(url)
        };
        mirror::check(&mlflow).map_err(told)?;
        Ok(Some(mlflow))
    }
}

fn told(wrong: impl std::fmt::Display) -> anyhow::Error {
    Usage(format!("{WHOSE}: {wrong}")).into()
}

impl MlflowSettings {
    fn experiment(&self) -> Result<String, String> {
        let name = self.experiment.clone().unwrap_or_else(|| Mlflow::EXPERIMENT_DEFAULT.to_owned());
        let is_one = !name.trim().is_empty() && !name.contains(char::is_control);
        if is_one && name.len() <= EXPERIMENT_BYTES_MAX {
            return Ok(name);
        }
        Err(format!(
            "`experiment` is no name of one: write 1 to {EXPERIMENT_BYTES_MAX} bytes in one line, or leave it out"
        ))
    }

    fn models(&self) -> Result<Vec<String>, String> {
        let Some(models) = &self.models else { return Ok(Vec::new()) };
        if models.is_empty() {
            return Err(
                "`models` is empty: leave it out to mirror all, or `mlflow` to mirror none".to_owned()
            );
        }
        if models.len() > Mlflow::MODELS_MAX {
            return Err(format!(
                "`models` names more than {}: leave it out to mirror all",
                Mlflow::MODELS_MAX
            ));
        }
        let mut names = models.clone();
        names.sort_unstable();
        names.dedup();
        match names.iter().find_map(|name| Some((name, check_name(name).err()?))) {
            Some((name, wrong)) => Err(format!("`models`: `{}` {wrong}", name.escape_debug())),
            None => Ok(names),
        }
    }

    fn check_every(&self) -> Result<Duration, String> {
        let every = self.check_every.unwrap_or(Mlflow::CHECK_EVERY_DEFAULT);
        match (Mlflow::CHECK_EVERY_MIN..=Mlflow::CHECK_EVERY_MAX).contains(&every) {
            true => Ok(every),
            false => Err("`check_every` must be between 1s and 24h".to_owned()),
        }
    }

    fn refit_url(&self) -> Result<Option<String>, String> {
        let Some(url) = &self.refit_url else { return Ok(None) };
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_one = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#', ' ']));
        match is_one {
            true => Ok(Some(url.clone())),
            false => Err(
                "`refit_url` is where people reach Refit, without user and path, as in https://refit.internal:7433"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, named: Option<&str>) -> anyhow::Result<Option<Mlflow>> {
        let settings: RegistrySettings = serde_yaml::from_str(text).unwrap();
        settings.mlflow(named.map(str::to_owned))
    }

    #[test]
    fn a_server_is_what_the_settings_say_and_a_flag_names_another() {
        assert!(read("{}", None).unwrap().is_none());
        let plain = read("mlflow: { url: 'http://mlflow:5000' }", None).unwrap().unwrap();
        assert_eq!((plain.experiment.as_str(), plain.models.len()), ("refit", 0));
        assert_eq!(plain.check_every, Mlflow::CHECK_EVERY_DEFAULT);
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "hunter2\n").unwrap();
        let text = format!(
            "mlflow: {{ url: 'http://mlflow', token: {{ file: {} }}, experiment: retraining, models: [b, a, b], \
             check_every: 1m, refit_url: 'https://refit.internal' }}",
            token.display()
        );
        let whole = read(&text, None).unwrap().unwrap();
        assert_eq!(whole.token.as_ref().unwrap().reveal(), "hunter2");
        assert_eq!(
            (whole.models.as_slice(), whole.check_every.as_secs()),
            (&["a".into(), "b".into()][..], 60)
        );
        assert_eq!(whole.refit_url.as_deref(), Some("https://refit.internal"));
        assert!(!format!("{whole:?}").contains("hunter2"));
        let named = read(&text, Some("http://other")).unwrap().unwrap();
        assert_eq!((named.url.reveal(), named.experiment.as_str()), ("http://other", "retraining"));
        assert_eq!(read("{}", Some("http://other")).unwrap().unwrap().url.reveal(), "http://other");
    }

    #[test]
    fn a_server_that_cannot_be_used_is_told() {
        let url = "url: 'http://h'";
        for (settings, told) in [
            ("experiment: x".to_owned(), "say where the server is"),
            ("url: mlflow.internal".to_owned(), "not a URL"),
            ("url: 'sqlite:///x'".to_owned(), "must begin with https://"),
            ("url: { env: REFIT_TEST_UNSET }".to_owned(), "REFIT_TEST_UNSET"),
            (format!("{url}, token: {{ env: REFIT_TEST_UNSET }}"), "REFIT_TEST_UNSET"),
            (format!("{url}, experiment: ' '"), "`experiment`"),
            (format!("{url}, models: []"), "`models` is empty"),
            (format!("{url}, models: [A b]"), "`models`: `A b` is not a name"),
            (format!("{url}, check_every: 100ms"), "between 1s and 24h"),
            (format!("{url}, refit_url: 'https://ada@h'"), "`refit_url`"),
        ] {
            let wrong = read(&format!("mlflow: {{ {settings} }}"), None).unwrap_err().to_string();
            assert!(wrong.starts_with("registry.mlflow: ") && wrong.contains(told), "{settings}: {wrong}");
        }
    }
}
