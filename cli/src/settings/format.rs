//! `format` and `mapping` of a source: how what it brings is read as events. Says where in the file an expression is wrong.

use std::collections::BTreeMap;

use refit_workflows::format::{Format, Mapping, MappingProblem};
use serde_yaml::Spanned;

/// What is wrong in the settings, and where in the file.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Line and column, from 1.
    pub(super) at: Option<(usize, usize)>,
    pub(super) message: String,
}

/// The attributes that a mapping gives, each with its expression.
pub(super) type MappingSettings = BTreeMap<String, Spanned<String>>;

/// The format that is configured so; `default` where none is named. `text` is the file, for the places of mistakes.
pub(super) fn read(
    format: Option<&Spanned<String>>,
    mapping: Option<&MappingSettings>,
    default: &str,
    text: &str,
) -> Result<Format, Wrong> {
    let mapping = mapping.map(|given| parse(given, text)).transpose()?;
    let name = format.map_or(default, |name| name.value.as_str());
    Format::new(name, mapping).map_err(|message| Wrong { at: format.map(place), message })
}

fn parse(given: &MappingSettings, text: &str) -> Result<Mapping, Wrong> {
    let attributes = given.iter().map(|(name, expression)| (name.as_str(), expression.value.as_str()));
    Mapping::parse(attributes).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(words).collect();
        let first = problems.first();
        let at = first.and_then(|problem| {
            let expression = given.get(&problem.attribute)?;
            Some(
                problem
                    .error
                    .offset
                    .map_or_else(|| place(expression), |offset| place_in(text, expression, offset)),
            )
        });
        Wrong { at, message: format!("mapping of {}", all.join("; ")) }
    })
}

fn words(problem: &MappingProblem) -> String {
    let hint = problem.error.hint.as_ref().map(|hint| format!(" ({hint})"));
    format!("{problem}{}", hint.unwrap_or_default())
}

fn place(name: &Spanned<String>) -> (usize, usize) {
    (number(name.referenced.line()), number(name.referenced.column()))
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Where the byte at `offset` of a text stands in the file: exact where its line is written as it is; else where the text
/// begins.
fn place_in(file: &str, written: &Spanned<String>, offset: usize) -> (usize, usize) {
    let (line, column) = place(written);
    let value = written.value.as_str();
    let Some(before) = value.get(..offset) else { return (line, column) };
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let wanted = value[start..].lines().next().unwrap_or_default().trim();
    let indent = value[start..].len() - value[start..].trim_start().len();
    let into = before[start..].chars().count().saturating_sub(indent);
    for (at, candidate) in file.lines().enumerate().skip(line.saturating_sub(1)) {
        // The key may hold the same words.
        let from =
            if at + 1 == line { candidate.char_indices().nth(column - 1).map_or(0, |(at, _)| at) } else { 0 };
        if let Some(found) = candidate[from..].find(wanted) {
            return (at + 1, candidate[..from + found].chars().count() + into + 1);
        }
    }
    (line, column)
}
