//! What is said of text that is not YAML, in the words of the person who wrote it, and what would be right. Must never
//! happen here: a place; the reader knows it.

use serde_yaml::granit_parser::{ErrorKind, ScanError};

/// What is wrong with text that is not YAML.
pub(super) struct Wrong {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    fn not_yaml(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let message = format!("not YAML: {}", message.into());
        Self { code: "yaml-syntax", message, hint: Some(hint.into()) }
    }
}

/// Explains an error of the reader.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the reader's errors may grow; those not named here keep its own words"
)]
pub(super) fn explain(error: &ScanError, text: &str) -> Wrong {
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    let before: String = line.chars().take(error.marker().col()).collect();
    let begins_line = before.trim().is_empty();
    match error.kind() {
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => Wrong {
            code: "control-character",
            message: format!("the control character U+{:04X} is not allowed", u32::from(*character)),
            hint: Some("take it away".to_owned()),
        },
        ErrorKind::UnexpectedCharacter { character } => {
            Wrong::not_yaml(format!("text cannot begin with `{character}`"), "put it in quotes")
        }
        ErrorKind::MissingAnchorOrAliasName => Wrong::not_yaml(
            "`*` and `&` begin an alias and an anchor, and this has no name",
            "text that begins with `*` or `&` goes into quotes, as in `cron: \"* * * * *\"`",
        ),
        ErrorKind::TabInIndentation | ErrorKind::TabInBlockIndentation | ErrorKind::TabNotAllowed => {
            Wrong::not_yaml("there is a tab before this", "indent with spaces")
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation if begins_line => Wrong::not_yaml(
            "this line is indented like none of those it could belong to",
            "the keys of one mapping begin in the same column",
        ),
        ErrorKind::MappingValueNotAllowed => colon(error, text, line, &before),
        ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::InvalidColonPlacement
            if before.contains("${{") || before.ends_with('$') =>
        {
            Wrong::not_yaml(
                "`${{ }}` inside `{ }` or `[ ]` needs quotes",
                "write it as in `{ REGION: \"${{ params.region }}\" }`",
            )
        }
        ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::InvalidColonPlacement => Wrong::not_yaml(
            "a `,` or a closing bracket is missing before this",
            "look for a `[`, a `{` or a quote above that is not closed",
        ),
        ErrorKind::UnclosedFlowCollection { open } => {
            let close = if *open == '[' { ']' } else { '}' };
            Wrong::not_yaml(format!("`{open}` is never closed"), format!("close it with `{close}`"))
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            let right = if *open == '[' { ']' } else { '}' };
            Wrong::not_yaml(format!("`{open}` is closed with `{close}`"), format!("close it with `{right}`"))
        }
        ErrorKind::UnclosedQuotedScalar => {
            Wrong::not_yaml("the quote is never closed", "close it where the text ends")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            Wrong::not_yaml(
                "something follows the closing quote",
                "quotes go around the whole value; a quote inside is written '' in single and \\\" in double ones",
            )
        }
        ErrorKind::UnknownQuotedScalarEscape => Wrong::not_yaml(
            "there is no such escape in double quotes",
            "write `\\\\` for a backslash, or use single quotes",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            Wrong::not_yaml("this is no `key: value`", "a key is followed by `:` and a space")
        }
        _ => Wrong { code: "yaml-syntax", message: format!("not YAML: {}", error.info()), hint: None },
    }
}

/// A `:` where none can be: inside text, or on the line behind one that was meant to be a key and its value.
fn colon(error: &ScanError, text: &str, line: &str, before: &str) -> Wrong {
    let key = line.split(':').next().unwrap_or_default().trim().trim_start_matches("- ");
    if before.contains(": ") {
        return Wrong::not_yaml(
            "`: ` inside text that is not in quotes",
            format!("put the text in quotes: `{key}: \"…\"`"),
        );
    }
    let above = text.lines().take(error.marker().line().saturating_sub(1));
    let above = above.filter(|line| !line.trim().is_empty()).last().unwrap_or_default().trim();
    let hint = match above.split_once(':') {
        Some((key, value)) if !value.is_empty() && !value.starts_with(' ') => {
            format!("in the line above, write a space after the `:`, as in `{key}: {value}`")
        }
        Some(_) | None => "the line above is no `key: value`; is its `:` missing?".to_owned(),
    };
    Wrong::not_yaml("a `:` cannot stand here", hint)
}
