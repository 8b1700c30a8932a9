//! Problems of a workflow file in the look of a compiler: file, line, column, the offending text underlined, what is
//! wrong and what would be right. Finds nothing itself.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use refit_workflows::definition::{Position, Problem};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but probably is not what was meant.
    Warning,
}

/// One problem over its source line.
pub(crate) fn problem(path: &str, source: &str, problem: &Problem, severity: Severity) -> String {
    // Positions do not count a byte order mark.
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let level = match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let span = AnnotationKind::Primary.span(span(source, problem.position));
    let snippet = Snippet::source(source).path(path).annotation(span);
    let group = level.primary_title(problem.message.as_str()).id(problem.code.as_str()).element(snippet);
    let group = match &problem.hint {
        Some(hint) => group.element(Level::HELP.message(hint.as_str())),
        None => group,
    };
    let mut text = Renderer::styled().decor_style(DecorStyle::Ascii).render(&[group]);
    text.push('\n');
    text
}

/// The bytes a position covers: at least one character, never beyond its line or the text.
fn span(source: &str, position: Position) -> Range<usize> {
    let mut start_of_line = 0;
    for _ in 1..position.line {
        match source[start_of_line..].find('\n') {
            Some(end) => start_of_line += end + 1,
            None => return source.len()..source.len(),
        }
    }
    let line = source[start_of_line..].lines().next().unwrap_or_default();
    let offset = |characters: u32| {
        line.char_indices().nth(characters as usize).map_or(line.len(), |(offset, _)| offset) + start_of_line
    };
    let first = position.column.saturating_sub(1);
    offset(first)..offset(first.saturating_add(position.length.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn at(line: u32, column: u32, length: u32) -> Position {
        Position { line, column, length }
    }

    #[test]
    fn a_problem_shows_place_text_and_hint() {
        let source = "workflow: churn\nsteps:\n  train:\n    need: [x]\n";
        let wrong = Problem {
            code: "unknown-key".to_owned(),
            message: "unknown key `need`".to_owned(),
            position: at(4, 5, 4),
            hint: Some("did you mean `needs`?".to_owned()),
            file: None,
        };
        let text = plain(&problem("churn.yaml", source, &wrong, Severity::Error));
        assert!(text.starts_with("error[unknown-key]: unknown key `need`\n"), "{text}");
        assert!(text.contains("churn.yaml:4:5"), "{text}");
        assert!(text.contains("    need: [x]"), "{text}");
        assert!(text.contains("^^^^"), "{text}");
        assert!(text.contains("did you mean `needs`?"), "{text}");
    }

    #[test]
    fn spans_count_characters_and_stay_inside() {
        let source = "a: ü\nb: 'ä'\n";
        assert_eq!(&source[span(source, at(2, 4, 3))], "'ä'");
        assert_eq!(&source[span(source, at(1, 4, 99))], "ü");
        assert_eq!(span(source, at(9, 1, 1)), source.len()..source.len());
        assert_eq!(span("", at(1, 1, 1)), 0..0);
    }
}
