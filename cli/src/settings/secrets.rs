//! `secrets` of `refit.yaml`: where the secrets of steps are. Must never happen here: a secret itself.

use std::path::PathBuf;

use refit_orchestrator::config::{AgeFile, SecretSources};
use serde::Deserialize;

use crate::exit::Usage;

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
            let first = prefix.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(Usage(format!(
                    "secrets: `env: {}` is what variables begin with, as in `env: REFIT_SECRET_`: letters, digits and `_`",
                    prefix.escape_debug()
                ))
                .into());
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
        for prefix in ["''", "A-B", "1A", "'A B'"] {
            let wrong = read(&format!("env: {prefix}\n")).unwrap_err().to_string();
            assert!(wrong.contains("what variables begin with"), "{prefix}: {wrong}");
        }
    }
}
