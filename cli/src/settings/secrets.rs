//! `secrets` of `refit.yaml`: where the secrets of steps are. Must never happen here: a secret itself.

use std::path::PathBuf;

use refit_orchestrator::config::{AgeFile, SecretSources};
use serde::Deserialize;

use crate::exit::Usage;
use refit_workflows::names::is_variable;

/// Where the secrets of steps are looked for: the folder, then the file encrypted with age, then variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretsSettings {
    /// One file a secret, named after it.
    folder: Option<PathBuf>,
    age: Option<AgeSettings>,
    /// What the names of the orchestrator's variables begin with that hold secrets.
    env: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgeSettings {
    file: PathBuf,
    identity: PathBuf,
}

impl SecretsSettings {
    /// # Errors
    /// A prefix that no variable can begin with, or that would hand over any variable of the orchestrator.
    pub(super) fn sources(&self) -> anyhow::Result<SecretSources> {
        if let Some(prefix) = &self.env {
            let wrong = if !is_variable(prefix) {
                "is not what variables begin with: letters, digits and `_`"
            } else if !prefix.ends_with('_') {
                "must end with `_`: without it other variables begin so too"
            } else if "REFIT_".starts_with(prefix) {
                "would hand steps what Refit itself is told by variables, its database's URL for example"
            } else {
                ""
            };
            if !wrong.is_empty() {
                let prefix = prefix.escape_debug();
                return Err(
                    Usage(format!("secrets: `env: {prefix}` {wrong}; as in `env: REFIT_SECRET_`")).into()
                );
            }
        }
        let age = self.age.clone().map(|age| AgeFile { file: age.file, identity: age.identity });
        Ok(SecretSources { folder: self.folder.clone(), age, env: self.env.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<SecretSources> {
        serde_yaml::from_str::<SecretsSettings>(text).unwrap().sources()
    }

    #[test]
    fn every_place_may_be_left_out() {
        let all = read("folder: /run/secrets\nenv: APP_\nage: { file: s.age, identity: key.txt }\n").unwrap();
        assert_eq!(all.folder, Some(PathBuf::from("/run/secrets")));
        assert_eq!((all.env.as_deref(), all.age.unwrap().identity), (Some("APP_"), PathBuf::from("key.txt")));
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn a_prefix_is_one_that_variables_can_have() {
        let syntax = "is not what variables begin with";
        for (prefix, why) in [
            ("''", syntax),
            ("A-B", syntax),
            ("1A", syntax),
            ("'A B'", syntax),
            ("A", "must end with `_`"),
            ("REFIT_", "what Refit itself is told"),
        ] {
            let wrong = read(&format!("env: {prefix}\n")).unwrap_err().to_string();
            assert!(wrong.contains(why), "{prefix}: {wrong}");
        }
        assert!(read("env: REFIT_SECRET_\n").is_ok());
    }
}
