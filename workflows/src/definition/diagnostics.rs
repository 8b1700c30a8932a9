//! What is wrong in a file, and where: problems, their order, and "did you mean". Knows nothing of the language and
//! nothing of terminals; whoever shows a problem renders it.

use serde::{Deserialize, Serialize};

/// The most problems that are listed for one file; a file with more is broken in some way that repeats.
pub const PROBLEMS_MAX: usize = 100;

/// The most known names that one mistyped name is compared with.
const NAMES_COMPARED_MAX: usize = 1000;

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
    /// A stable word: `unknown-key`, `duplicate-key`, `cycle`, `unknown-step`, …
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub position: Position,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file it is in, when that is one the workflow's own file uses: its path from the workflow's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A place in one of the files that make up a workflow: the workflow's own, or one that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) file: FileNumber,
    pub(super) position: Position,
}

/// Which of the files: 0 is the workflow's own, the others count in the order they were first used.
pub(super) type FileNumber = u16;

impl Spot {
    /// The beginning of a workflow's own file.
    pub(super) const START: Self = Self { file: 0, position: Position::START };
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
    problems: Vec<(FileNumber, Problem)>,
    /// The paths of the files that are used, from number 1.
    files: Vec<String>,
}

impl Findings {
    /// Notes a problem.
    pub(super) fn add(&mut self, code: &str, spot: Spot, message: impl Into<String>) {
        self.push(code, spot, message.into(), None);
    }

    /// Notes a problem with what would be right.
    pub(super) fn add_with_hint(
        &mut self,
        code: &str,
        spot: Spot,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(code, spot, message.into(), Some(hint.into()));
    }

    /// Notes that a name is not one of `known`, with the nearest one as a hint.
    pub(super) fn add_unknown<'a>(
        &mut self,
        code: &str,
        spot: Spot,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let hint = if self.has_hints_enough() { None } else { did_you_mean(name, known) };
        self.push(code, spot, message.into(), hint);
    }

    /// The number of a file that is used; `None` when there are too many of them.
    pub(super) fn number_of(&mut self, path: &str) -> Option<FileNumber> {
        let index = self.files.iter().position(|known| known == path).unwrap_or_else(|| {
            self.files.push(path.to_owned());
            self.files.len() - 1
        });
        FileNumber::try_from(index + 1).ok()
    }

    /// The path of a file that is used.
    pub(super) fn path_of(&self, file: FileNumber) -> Option<&str> {
        self.files.get(usize::from(file).checked_sub(1)?).map(String::as_str)
    }

    fn push(&mut self, code: &str, spot: Spot, message: String, hint: Option<String>) {
        let file = self.path_of(spot.file).map(str::to_owned);
        let problem = Problem { code: code.to_owned(), message, position: spot.position, hint, file };
        self.problems.push((spot.file, problem));
    }

    /// Whether there are so many problems that looking for what was meant is no longer worth its time.
    pub(super) fn has_hints_enough(&self) -> bool {
        self.problems.len() > 5 * PROBLEMS_MAX
    }

    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in order, each once, at most [`PROBLEMS_MAX`]: those of the workflow's own file, then those of the
    /// files it uses.
    pub(super) fn into_problems(self) -> Problems {
        let mut problems = self.problems;
        problems.sort_by_key(|(file, problem)| (*file, problem.position));
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        Problems(problems.into_iter().map(|(_, problem)| problem).collect())
    }
}

/// Other people's text in a message: short, and what cannot be seen escaped.
pub(super) fn shown(text: &str) -> String {
    let visible = |c: char| {
        if matches!(c, '\\' | '\'' | '"') { c.to_string() } else { c.escape_debug().to_string() }
    };
    crate::expression::shorten(&text.chars().map(visible).collect::<String>())
}

/// `did you mean `needs`?`, when one of the known names is near enough to be a slip of the finger. A letter that only looks
/// like one of the alphabet's is named.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = closest(name, known)?;
    let stranger = name.chars().find(|letter| !letter.is_ascii()).filter(|_| near.is_ascii());
    let stranger = stranger.map(|letter| {
        format!(" `{}` is U+{:04X}, no letter from a to z", letter.escape_debug(), u32::from(letter))
    });
    Some(format!("did you mean `{near}`?{}", stranger.unwrap_or_default()))
}

/// The known name that is nearest to a mistyped one, if any is near: a third of its letters at most may differ, or
/// two in a short name; or it begins with what was typed, or has the same parts in another order (`auc_roc`).
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in proportion to both lengths, and no name is that long.
    if name.len() > 128 {
        return None;
    }
    let typed = name.to_lowercase();
    known
        .into_iter()
        .take(NAMES_COMPARED_MAX)
        .filter_map(|candidate| Some((distance(&typed, &candidate.to_lowercase())?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How far a typed name is from a known one, both in lower case; none when they are too far apart to be meant.
fn distance(typed: &str, known: &str) -> Option<usize> {
    let length = known.chars().count();
    let letters = strsim::osa_distance(typed, known);
    if letters < length && letters <= (length / 3).max(if length > 3 { 2 } else { 1 }) {
        return Some(letters);
    }
    let parts = |name: &str| {
        let mut parts: Vec<String> = name.split('_').map(str::to_owned).collect();
        parts.sort_unstable();
        parts
    };
    let begins = typed.len() > 3 && known.starts_with(typed);
    (begins || (typed.contains('_') && parts(typed) == parts(known))).then_some(length)
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
        assert_eq!(closest("auc_roc", ["roc", "roc_auc"]), Some("roc_auc"));
        assert_eq!(closest("cancel", ["coalesce", "cancel_running"]), Some("cancel_running"));
        assert_eq!(closest("get", ["PUT", "GET"]), Some("GET"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("x", known), None);
        assert_eq!(closest(&"n".repeat(10_000), known), None);
    }

    #[test]
    fn a_letter_that_looks_like_another_is_named() {
        let hint = did_you_mean("tr\u{430}in", ["train"]).unwrap();
        assert!(hint.starts_with("did you mean `train`?") && hint.contains("is U+0430"), "{hint}");
        assert_eq!(did_you_mean("trian", ["train"]).unwrap(), "did you mean `train`?");
    }

    #[test]
    fn problems_are_in_the_file_s_order() {
        let mut findings = Findings::default();
        let at = |line, column| Spot { file: 0, position: Position { line, column, length: 1 } };
        findings.add("b", at(3, 1), "later");
        findings.add("a", at(1, 9), "first");
        findings.add("a", at(1, 9), "first");
        let problems = findings.into_problems();
        assert_eq!(problems.0.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(), ["first", "later"]);
    }
}
