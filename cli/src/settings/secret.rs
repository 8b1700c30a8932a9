//! Secrets in `refit.yaml`: never themselves, only where they are; a URL may be itself, because most hold none. Must never
//! happen here: a secret in an error.

use std::path::{Path, PathBuf};

use refit_orchestrator::config::Secret;
use serde::Deserialize;
use serde::de::{self, value::MapAccessDeserializer};

use crate::exit::Usage;

/// The largest file that may hold a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is: `{ env: VARIABLE }` or `{ file: PATH }`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretPlace {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl SecretPlace {
    /// Fetches it; a line break at the end of a file is not part of it. `whose` begins the errors: "target `audit`".
    ///
    /// # Errors
    /// Neither or both places are named, or it is not there.
    pub(super) fn fetch(&self, whose: &str) -> anyhow::Result<Secret> {
        match (&self.env, &self.file) {
            (Some(variable), None) => match std::env::var(variable) {
                Ok(secret) if !secret.is_empty() => Ok(Secret::new(secret)),
                Ok(_) | Err(_) => {
                    Err(Usage(format!("{whose}: the variable {variable} that holds its secret is not set"))
                        .into())
                }
            },
            (None, Some(path)) => read(path)
                .map_err(|wrong| {
                    Usage(format!("{whose}: failed to read its secret from {}: {wrong}", path.display()))
                })
                .map_err(Into::into),
            (Some(_), Some(_)) | (None, None) => Err(Usage(format!(
                "{whose}: say where its secret is, either `{{ env: VARIABLE }}` or `{{ file: PATH }}`"
            ))
            .into()),
        }
    }
}

/// A URL that may hold a password: itself, or `{ env: VARIABLE }` or `{ file: PATH }`.
#[derive(Clone, Debug)]
pub(super) enum SecretUrl {
    Text(Secret),
    Place(SecretPlace),
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretUrl;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a URL, `{ env: VARIABLE }` or `{ file: PATH }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(SecretUrl::Text(Secret::new(text)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                SecretPlace::deserialize(MapAccessDeserializer::new(map)).map(SecretUrl::Place)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl SecretUrl {
    /// Fetches it. `whose` begins the errors: "source `orders`".
    ///
    /// # Errors
    /// It is not where it is said to be.
    pub(super) fn fetch(&self, whose: &str) -> anyhow::Result<Secret> {
        match self {
            Self::Text(url) => Ok(url.clone()),
            Self::Place(place) => place.fetch(whose),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Secret> {
    let wrong = |text| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(wrong("it is larger than 64 KiB"));
    }
    let text = std::fs::read_to_string(path)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong("it is empty")),
        secret => Ok(Secret::new(secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_where_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let place = |env: Option<&str>, file: Option<&Path>| SecretPlace {
            env: env.map(str::to_owned),
            file: file.map(Path::to_owned),
        };
        assert_eq!(place(None, Some(&path)).fetch("target `a`").unwrap().reveal(), "hunter2");
        let wrong = |place: SecretPlace| place.fetch("target `a`").unwrap_err().to_string();
        assert!(wrong(place(Some("REFIT_TEST_UNSET"), None)).contains("REFIT_TEST_UNSET"));
        assert!(wrong(place(Some("X"), Some(&path))).contains("either"));
        assert!(wrong(place(None, None)).starts_with("target `a`: "));
        std::fs::write(&path, "\n").unwrap();
        assert!(wrong(place(None, Some(&path))).contains("empty"));
    }
}
