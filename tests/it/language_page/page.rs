//! A page of Markdown cut into sections, with their code blocks and tables. Knows the little of Markdown that the page uses;
//! must never happen here: knowledge of the language the page is about.

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// Its sections, in order; what stands before the first heading is none.
    pub(super) sections: Vec<Section>,
}

/// A heading and what follows it up to the next one, whatever its level.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// The heading, as written.
    pub(super) heading: String,
    pub(super) blocks: Vec<Block>,
    pub(super) tables: Vec<Table>,
    /// All lines outside of code.
    pub(super) text: String,
}

/// A fenced block of code.
#[derive(Debug)]
pub(super) struct Block {
    /// The line of its first line of code, from 1.
    pub(super) line: usize,
    /// What it is written in.
    pub(super) language: String,
    /// What else its fence says; no reader sees it.
    pub(super) marks: Vec<String>,
    pub(super) code: String,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// The line of its header, from 1.
    pub(super) line: usize,
    /// The comment on the line before it, `<!-- … -->`; no reader sees it.
    pub(super) mark: Option<String>,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Page {
    /// Cuts a text.
    pub(super) fn cut(text: &str) -> Self {
        let mut sections: Vec<Section> = vec![Section::default()];
        let mut block: Option<Block> = None;
        let mut mark: Option<String> = None;
        let mut in_table = false;
        for (line, number) in text.lines().zip(1..) {
            if let Some(open) = block.as_mut() {
                if line.starts_with("```") {
                    sections.last_mut().unwrap().blocks.extend(block.take());
                } else {
                    open.code.push_str(line);
                    open.code.push('\n');
                }
                continue;
            }
            let is_row = line.starts_with('|');
            if let Some(fence) = line.strip_prefix("```") {
                let mut words = fence.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                block =
                    Some(Block { line: number + 1, language, marks: words.collect(), code: String::new() });
            } else if line.starts_with('#') {
                let heading = line.trim_start_matches('#').trim().to_owned();
                sections.push(Section { heading, ..Section::default() });
            } else {
                let section = sections.last_mut().unwrap();
                section.text.push_str(line);
                section.text.push('\n');
                if is_row && in_table {
                    let table = section.tables.last_mut().unwrap();
                    if !line.starts_with("|---") {
                        table.rows.push(cells(line));
                    }
                } else if is_row {
                    let (mark, rows) = (mark.take(), Vec::new());
                    section.tables.push(Table { line: number, mark, header: cells(line), rows });
                }
            }
            in_table = is_row;
            mark = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
        }
        assert!(block.is_none(), "a block of code is never closed");
        sections.remove(0);
        Self { sections }
    }

    /// Every block, with its section.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&Section, &Block)> {
        self.sections.iter().flat_map(|section| section.blocks.iter().map(move |block| (section, block)))
    }

    /// Every block in a language.
    pub(super) fn blocks_in(&self, language: &str) -> impl Iterator<Item = &Block> {
        self.blocks().map(|(_, block)| block).filter(move |block| block.language == language)
    }

    /// Every table.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.sections.iter().flat_map(|section| &section.tables)
    }
}

impl Block {
    /// The value of a mark `NAME=VALUE`.
    pub(super) fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find_map(|mark| mark.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Section {
    /// What a link to it is written like.
    pub(super) fn anchor(&self) -> String {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        self.heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    }
}

/// The cells of a row; `\|` is a bar within one.
fn cells(line: &str) -> Vec<String> {
    let bar = '\u{0}';
    let line = line.replace("\\|", &bar.to_string());
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace(bar, "|")).collect()
}

/// The pieces of a cell in backticks.
pub(super) fn code_in(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
