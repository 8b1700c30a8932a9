//! Tables without lines: a header and aligned columns. Knows nothing of what is in them.

use std::fmt;

use anstyle::{AnsiColor, Color as StyleColor, Style};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::{DIM, clean, state_look};

/// Builds a table row by row.
#[derive(Debug)]
pub(crate) struct Grid(Table);

impl Grid {
    /// A table with these column heads.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut table = Table::new();
        // Colour is always written; it is stripped at the end where it does not belong.
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .enforce_styling();
        // Otherwise the padding is coloured too, and a line's end cannot be trimmed.
        table.style_text_only();
        table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Dim)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.0.add_row(cells);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text as it came, made safe.
pub(crate) fn text(text: impl AsRef<str>) -> Cell {
    Cell::new_owned(clean(text.as_ref()).into_owned())
}

/// Text that may not be there.
pub(crate) fn maybe(value: Option<impl AsRef<str>>) -> Cell {
    match value {
        Some(value) => text(value),
        None => styled("–", DIM),
    }
}

/// A number, to the right.
pub(crate) fn number(number: impl ToString) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}

/// A state with its glyph and colour.
pub(crate) fn state(state: &str) -> Cell {
    let (glyph, style) = state_look(state);
    styled(&format!("{glyph} {state}"), style)
}

/// Text in a style.
pub(crate) fn styled(content: &str, style: Style) -> Cell {
    let mut cell = text(content);
    if let Some(StyleColor::Ansi(colour)) = style.get_fg_color() {
        cell = cell.fg(match colour {
            AnsiColor::Red => Color::DarkRed,
            AnsiColor::Green => Color::DarkGreen,
            AnsiColor::Yellow => Color::DarkYellow,
            AnsiColor::Cyan => Color::DarkCyan,
            _ => Color::Reset,
        });
    }
    let effects = style.get_effects();
    if effects.contains(anstyle::Effects::DIMMED) {
        cell = cell.add_attribute(Attribute::Dim);
    }
    if effects.contains(anstyle::Effects::BOLD) {
        cell = cell.add_attribute(Attribute::Bold);
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn columns_line_up_without_lines() {
        let mut grid = Grid::new(&["RUN", "STATE", "N"]);
        grid.row(vec![text("churn/1"), state("succeeded"), number(7)]);
        grid.row(vec![text("churn/12"), state("new-state"), number(12)]);
        assert_eq!(
            plain(&grid.to_string()),
            "RUN       STATE        N\nchurn/1   ✓ succeeded   7\nchurn/12  ? new-state  12\n"
        );
    }
}
