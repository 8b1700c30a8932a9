//! Where the secrets of steps are.

use std::path::PathBuf;

/// Where secrets are looked for, in the order of the fields; the first place that has one of a name is asked alone.
#[derive(Clone, Debug, Default)]
pub struct SecretSources {
    /// A folder with one file a secret, named after it: credentials of systemd, a mount of Kubernetes. Read anew for
    /// each attempt, so that a secret may be replaced without a restart.
    pub folder: Option<PathBuf>,
    /// A file encrypted with age. Read anew for each attempt.
    pub age: Option<AgeFile>,
    /// The orchestrator's own variables that begin with this: `PREFIX` and the secret's name.
    pub env: Option<String>,
}

/// A file encrypted with age that holds secrets as `NAME: value` in YAML or as a JSON object.
#[derive(Clone, Debug)]
pub struct AgeFile {
    /// The encrypted file, binary or armoured.
    pub file: PathBuf,
    /// The file with the identities that may open it, as `age-keygen` writes it.
    pub identity: PathBuf,
}

impl SecretSources {
    /// Whether there is any place to look.
    pub fn is_empty(&self) -> bool {
        self.folder.is_none() && self.age.is_none() && self.env.is_none()
    }
}
