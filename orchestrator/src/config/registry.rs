//! What the registry is written to beside Refit's own database.

use std::time::Duration;

use super::Secret;

/// An MLflow server that has every version and alias as well.
#[derive(Clone, Debug)]
pub struct Mlflow {
    /// Where it is; with a user and a password in it, these are sent (HTTP Basic).
    pub url: Secret,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// The experiment that the runs of versions are in; made where it is not there.
    pub experiment: String,
    /// The models that are mirrored; none: all.
    pub models: Vec<String>,
    /// How often what is there is looked at again, although nothing has changed here.
    pub check_every: Duration,
    /// Where people reach Refit: then each version there says where its artifact is.
    pub refit_url: Option<String>,
}

impl Mlflow {
    /// The experiment where nobody names another.
    pub const EXPERIMENT_DEFAULT: &str = "refit";
    /// How often a server is looked at where nobody says otherwise.
    pub const CHECK_EVERY_DEFAULT: Duration = Duration::from_secs(300);
    /// The shortest and the longest that may be asked for.
    pub const CHECK_EVERY_MIN: Duration = Duration::from_secs(1);
    /// See [`Mlflow::CHECK_EVERY_MIN`].
    pub const CHECK_EVERY_MAX: Duration = Duration::from_secs(24 * 3600);
    /// The most models that can be named.
    pub const MODELS_MAX: usize = 1000;

    /// The server at this URL, with every default.
    pub fn at(url: Secret) -> Self {
        Self {
            url,
            token: None,
            experiment: Self::EXPERIMENT_DEFAULT.to_owned(),
            models: Vec::new(),
            check_every: Self::CHECK_EVERY_DEFAULT,
            refit_url: None,
        }
    }
}
