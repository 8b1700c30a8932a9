//! What is wrong in a file, and where: problems, their order, and "did you mean". Knows nothing of the language and
//! nothing of terminals; whoever shows a problem renders it.

use serde::{Deserialize, Serialize};

/// The most problems that are listed for one file; a file with more is broken in some way that repeats.
pub const PROBLEMS_MAX: usize = 100;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// How many characters the span covers on this line; at least 1.
    pub length: u32,
}

impl Position {
    /// The beginning of a file, for what is wrong with it as a whole.
    pub const START: Self = Self { line: 1, column: 1, length: 1 };
}

/// One thing wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word: `unknown-key`, `duplicate-key`, `cycle`, `unknown-step`, `not-supported`, …
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub position: Position,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Everything wrong in one file, in the file's order; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} problem(s)", .0.len())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never, for a value that `Workflow::parse` returned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Gathers the problems of a file while it is checked, so that one does not hide the others.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
}

impl Findings {
    /// Notes a problem.
    pub(super) fn add(&mut self, code: &str, position: Position, message: impl Into<String>) {
        self.push(code, position, message.into(), None);
    }

    /// Notes a problem with what would be right.
    pub(super) fn add_with_hint(
        &mut self,
        code: &str,
        position: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(code, position, message.into(), Some(hint.into()));
    }

    /// Notes that a name is not one of `known`, with the nearest one as a hint.
    pub(super) fn add_unknown<'a>(
        &mut self,
        code: &str,
        position: Position,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        self.push(code, position, message.into(), did_you_mean(name, known));
    }

    fn push(&mut self, code: &str, position: Position, message: String, hint: Option<String>) {
        self.problems.push(Problem { code: code.to_owned(), message, position, hint });
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the file's order, each once, at most [`PROBLEMS_MAX`].
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|problem| problem.position);
        self.problems.dedup();
        self.problems.truncate(PROBLEMS_MAX);
        Problems(self.problems)
    }
}

/// `did you mean `needs`?`, when one of the known names is near enough to be a slip of the finger.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// The known name that is nearest to a mistyped one, if any is near: a third of its letters at most may differ, or
/// two in a short name.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in proportion to both lengths, and no name is that long.
    if name.len() > 128 {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&lower, candidate), candidate))
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count();
            *distance < length && *distance <= (length / 3).max(if length > 3 { 2 } else { 1 })
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let known = ["needs", "if", "timeout", "retry", "artifacts"];
        assert_eq!(closest("need", known), Some("needs"));
        assert_eq!(closest("NEEDS", known), Some("needs"));
        assert_eq!(closest("timeuot", known), Some("timeout"));
        assert_eq!(closest("fi", known), Some("if"));
        assert_eq!(closest("artefacts", known), Some("artifacts"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("x", known), None);
        assert_eq!(closest(&"n".repeat(10_000), known), None);
    }

    #[test]
    fn problems_are_in_the_file_s_order() {
        let mut findings = Findings::default();
        let at = |line, column| Position { line, column, length: 1 };
        findings.add("b", at(3, 1), "later");
        findings.add("a", at(1, 9), "first");
        findings.add("a", at(1, 9), "first");
        let problems = findings.into_problems();
        assert_eq!(problems.0.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(), ["first", "later"]);
    }
}
