//! The names people type: workflows and steps (`churn`, `train`), runs (`churn/12`). Knows their syntax and nothing
//! of what they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest workflow, step, param or artifact name, in bytes.
pub const NAME_LENGTH_MAX: usize = 63;

/// Checks a workflow, step, param or artifact name: `[a-z0-9][a-z0-9_-]{0,62}`.
///
/// The same shape is safe as a path component, a label and a routing-key word. The error completes "`NAME` …".
pub fn check_name(name: &str) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if first && rest && name.len() <= NAME_LENGTH_MAX {
        Ok(())
    } else {
        Err("is not a name: use lower-case letters, digits, `_` and `-`, beginning with a letter or digit, at most \
             63 characters"
            .to_owned())
    }
}

/// Whether an environment variable may have this name in every shell: letters, digits and `_`, not beginning with a digit
/// (POSIX.1-2024, XBD 8.1 and 3.216).
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A run's name, `WORKFLOW/NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName {
    /// The workflow's name.
    pub workflow: String,
    /// Counts the workflow's runs from 1.
    pub number: i64,
}

impl RunName {
    /// The run of `workflow` with this number.
    pub fn new(workflow: impl Into<String>, number: i64) -> Self {
        Self { workflow: workflow.into(), number }
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workflow, self.number)
    }
}

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a run's name: expected WORKFLOW/NUMBER, as in churn/12");
        let (workflow, number) = text.split_once('/').ok_or_else(wrong)?;
        check_name(workflow).map_err(|_| wrong())?;
        match number.parse::<i64>() {
            Ok(number) if number >= 1 => Ok(Self::new(workflow, number)),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }
}

impl Serialize for RunName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_names_are_workflow_and_number() {
        assert_eq!("churn/12".parse(), Ok(RunName::new("churn", 12)));
        for wrong in ["churn", "churn/", "churn/0", "churn/-1", "/3", "a b/3", "churn/1/2", "../3"] {
            assert!(wrong.parse::<RunName>().is_err(), "{wrong} was accepted");
        }
    }
}
