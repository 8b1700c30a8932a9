//! `webhook` of a source in `refit.yaml`: the scheme by which its sender is known, and its secrets. Checks which settings
//! belong to which scheme; what a secret must look like is checked where it is used.

use std::time::Duration;

use refit_orchestrator::config::{Hook, Scheme, Secret};
use serde::Deserialize;

use super::secret::SecretPlace;
use crate::exit::Usage;

/// A webhook that events come in by.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookSettings {
    scheme: SchemeName,
    secret: Option<SecretPlace>,
    /// Instead of `secret`, while one is replaced by another.
    #[serde(default)]
    secrets: Vec<SecretPlace>,
    /// Of the scheme `basic`.
    user: Option<String>,
    /// Of the scheme `api_key`.
    header: Option<String>,
    /// Of the schemes that sign a time.
    #[serde(default, deserialize_with = "super::duration")]
    tolerance: Option<Duration>,
    #[serde(default, deserialize_with = "super::size")]
    body_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SchemeName {
    Standard,
    Github,
    Mlflow,
    Dbt,
    HuggingFace,
    Bearer,
    Basic,
    ApiKey,
    None,
}

impl SchemeName {
    /// The format of what such senders send, where the source names none.
    fn format(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Mlflow => "mlflow",
            Self::Dbt => "dbt",
            Self::HuggingFace => "hugging_face",
            Self::Standard | Self::Bearer | Self::Basic | Self::ApiKey | Self::None => "cloudevents",
        }
    }

    fn signs_a_time(self) -> bool {
        matches!(self, Self::Standard | Self::Mlflow)
    }
}

impl HookSettings {
    /// The name of the format that this webhook has unless its source names another.
    pub(super) fn default_format(&self) -> &'static str {
        self.scheme.format()
    }

    /// The webhook as the orchestrator is told of it. `whose` begins the errors: "source `github`".
    ///
    /// # Errors
    /// A secret is not there, or a setting belongs to another scheme.
    pub(super) fn configured(&self, whose: &str) -> anyhow::Result<Hook> {
        self.check_extras(whose)?;
        let secrets = self.fetch(whose)?;
        let tolerance = self.tolerance.unwrap_or(Hook::TOLERANCE);
        let scheme = match self.scheme {
            SchemeName::Standard => Scheme::Standard { secrets, tolerance },
            SchemeName::Github => Scheme::GitHub { secrets },
            SchemeName::Mlflow => Scheme::Mlflow { secrets, tolerance },
            SchemeName::Dbt => Scheme::Dbt { secrets },
            SchemeName::HuggingFace => Scheme::HuggingFace { secrets },
            SchemeName::Bearer => Scheme::Bearer { secrets },
            SchemeName::Basic => {
                let user = self.user.clone().ok_or_else(|| {
                    Usage(format!("{whose}: the scheme `basic` needs a name: say which with `user`"))
                })?;
                Scheme::Basic { user, secrets }
            }
            SchemeName::ApiKey => {
                let header = self.header.clone().unwrap_or_else(|| Hook::API_KEY_HEADER.to_owned());
                Scheme::ApiKey { header, secrets }
            }
            SchemeName::None => Scheme::None,
        };
        let body_max = self.body_max.map_or(Hook::BODY_MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        Ok(Hook { scheme, body_max })
    }

    /// Refuses what its scheme does not look at: it would be believed to be in force.
    fn check_extras(&self, whose: &str) -> anyhow::Result<()> {
        let scheme = self.scheme;
        let has_secret = self.secret.is_some() || !self.secrets.is_empty();
        for (given, belongs, key, to) in [
            (self.tolerance.is_some(), scheme.signs_a_time(), "tolerance", "the schemes that sign a time"),
            (self.user.is_some(), scheme == SchemeName::Basic, "user", "the scheme `basic`"),
            (self.header.is_some(), scheme == SchemeName::ApiKey, "header", "the scheme `api_key`"),
            (has_secret, scheme != SchemeName::None, "secret", "every scheme but `none`"),
        ] {
            if given && !belongs {
                return Err(Usage(format!("{whose}: `{key}` belongs to {to}; leave it out")).into());
            }
        }
        Ok(())
    }

    fn fetch(&self, whose: &str) -> anyhow::Result<Vec<Secret>> {
        if self.secret.is_some() && !self.secrets.is_empty() {
            return Err(Usage(format!("{whose}: give it either `secret` or `secrets`")).into());
        }
        self.secret.iter().chain(&self.secrets).map(|place| place.fetch(whose)).collect()
    }
}
