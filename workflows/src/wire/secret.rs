//! A secret on its way from the orchestrator to the one attempt that is to have it. Must never happen here: its text in
//! debug output.

use super::*;

/// The value of a secret. Part of a [`StepOrder`] alone: nothing that is stored, listed or journalled holds one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValue(String);

impl SecretValue {
    /// The largest value, in bytes.
    pub const BYTES_MAX: usize = 64 * 1024;

    /// Keeps this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the step's environment and for finding it in what the step writes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_no_debug_output() {
        let secrets = BTreeMap::from([("TOKEN", SecretValue::new("hunter2"))]);
        assert_eq!(format!("{secrets:?}"), "{\"TOKEN\": ***}");
    }
}
