//! YAML text to a tree of nodes that know where they stand. The only place that names the YAML reader.
//!
//! Works on the reader's events, not on its deserializer: every key and value keeps its exact place and its text as
//! written (`1.10` stays `1.10`), and all problems of a file can be listed. Must never happen here: following an alias,
//! honouring a tag, or letting one of two equal keys win.

mod syntax;

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use serde_yaml::granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, Span};

use super::FILE_BYTES_MAX;
use super::diagnostics::{FileNumber, Findings, Position, Spot, shown};

/// The deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 32;

/// The most workflows in one file.
const DOCUMENTS_MAX: usize = 100;

/// The most keys and values of a file.
pub(super) const NODES_MAX: usize = 100_000;

/// A file's text.
#[derive(Clone, Debug)]
struct Source {
    file: FileNumber,
    text: Rc<str>,
    /// Where each line begins, in bytes.
    line_starts: Rc<[usize]>,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Spot,
    pub(super) value: Raw,
}

/// A value as YAML writes it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something that has been reported already.
    Broken,
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) position: Spot,
}

/// A scalar: its text, and whether it was written without quotes.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) plain: bool,
    source: Source,
    /// The bytes of the file it was written in, quotes included.
    written: Range<usize>,
}

impl Source {
    fn position(&self, start: usize, length: usize) -> Spot {
        let line = self.line_starts.partition_point(|line_start| *line_start <= start).max(1);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let rest_of_line = self.text[start..].lines().next().unwrap_or("");
        let on_this_line = rest_of_line.len().min(length);
        let covered =
            self.text.get(start..start + on_this_line).map_or(1, |text| text.trim_end().chars().count());
        let position = Position {
            line: number(line),
            column: number(self.text[line_start..start].chars().count() + 1),
            length: number(covered.max(1)),
        };
        Spot { file: self.file, position }
    }

    /// The position of a marker; the reader has counted lines and columns already.
    fn at(&self, start: Marker, end: Option<usize>) -> Spot {
        let length = match (start.byte_offset(), end) {
            (Some(from), Some(to)) => self
                .text
                .get(from..to)
                .map_or(1, |text| text.lines().next().unwrap_or("").trim_end().chars().count()),
            (None, _) | (_, None) => 1,
        };
        let position = Position {
            line: number(start.line()),
            column: number(start.col() + 1),
            length: number(length.max(1)),
        };
        Spot { file: self.file, position }
    }
}

impl Scalar {
    /// Where `length` bytes of the text from `offset` on stand in the file. Exact where the text was written as it is
    /// (plain, quoted without escapes, blocks); else the nearest thing known, the whole scalar.
    pub(super) fn position_of(&self, offset: usize, length: usize) -> Option<Spot> {
        let written = self.source.text.get(self.written.clone())?;
        let offset = offset.min(self.text.len());
        let line_start = self.text.get(..offset)?.rfind('\n').map_or(0, |found| found + 1);
        let line = self.text.get(line_start..)?.lines().next().unwrap_or("").trim_end();
        // A text of several lines is found again line by line.
        let mut from = 0;
        for earlier in
            self.text.get(..line_start)?.lines().map(str::trim).filter(|earlier| !earlier.is_empty())
        {
            from += written.get(from..)?.find(earlier)? + earlier.len();
        }
        let in_written = from + written.get(from..)?.find(line)? + (offset - line_start).min(line.len());
        let start = self.written.start + in_written;
        self.source.text.is_char_boundary(start).then(|| self.source.position(start, length.max(1)))
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    /// Its own text, which stands alone: that of the whole file when it is the only one.
    pub(super) text: String,
}

/// Reads every document of a file. None when there is nothing to check further; the findings say why.
pub(super) fn read(text: &str, file: FileNumber, findings: &mut Findings) -> Option<Vec<Document>> {
    let start = Spot { file, position: Position::START };
    if text.len() > FILE_BYTES_MAX {
        findings.add(
            "too-large",
            start,
            format!("the file has {} bytes; a workflow has at most {FILE_BYTES_MAX}", text.len()),
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect();
    let source = Source { file, text: text.into(), line_starts };
    let mut reader = Reader {
        source,
        findings,
        open: Vec::new(),
        roots: Vec::new(),
        nodes: 0,
        documents: 0,
        begin: 0,
        anchor_line: 0,
    };
    let mut options = Options::default();
    options.emit_anchor_events = true;
    options.emit_unresolved_aliases = true;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                reader.syntax_error(&error);
                return None;
            }
        };
        match reader.take(event, span) {
            Flow::On => {}
            Flow::Stop => return None,
        }
    }
    let roots = reader.roots;
    if roots.is_empty() {
        findings.add_with_hint(
            "empty",
            start,
            if text.trim().is_empty() {
                "the file is empty"
            } else {
                "the file holds no workflow, only comments"
            },
            "a workflow has a name and steps: `workflow: churn`, `steps: …`",
        );
        return None;
    }
    let is_alone = roots.len() == 1;
    let document = |(root, written): (Node, Range<usize>)| {
        let own = if is_alone { text } else { text.get(written).unwrap_or(text) };
        Document { root, text: own.to_owned() }
    };
    Some(roots.into_iter().map(document).collect())
}

impl Node {
    /// How many keys and values it holds, itself included.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Raw::Map(entries) => entries.iter().map(|(_, node)| 1 + node.size()).sum(),
            Raw::List(items) => items.iter().map(Self::size).sum(),
            Raw::Scalar(_) | Raw::Broken => 0,
        }
    }
}

enum Flow {
    On,
    Stop,
}

/// A list or mapping that has not ended yet.
struct Open {
    position: Spot,
    container: Container,
}

enum Container {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// Where each key was first seen; none for a mapping that is a key itself.
        seen: HashMap<String, Spot>,
        key: Option<Key>,
    },
}

struct Reader<'f> {
    source: Source,
    findings: &'f mut Findings,
    open: Vec<Open>,
    /// The documents that have a value, with the bytes they were written in.
    roots: Vec<(Node, Range<usize>)>,
    nodes: usize,
    documents: usize,
    /// Where the document began that is being read.
    begin: usize,
    /// The last line on which an anchor or an alias was reported.
    anchor_line: u32,
}

impl Reader<'_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the reader's events may grow; all that are data have an arm"
    )]
    fn take(&mut self, event: Event<'_>, span: Span) -> Flow {
        let end = span.end.byte_offset();
        let position = self.source.at(span.start, end);
        if matches!(event, Event::Anchor(..) | Event::Alias(_) | Event::UnresolvedAlias(_)) {
            self.anchor(position);
        }
        if let Some(tag) = event.tag() {
            let written = tag.original();
            let end = |start: Marker| start.byte_offset().map(|offset| offset + written.len());
            self.findings.add_with_hint(
                "tag",
                span.tag_start.map_or(position, |start| self.source.at(start, end(start))),
                format!("the tag `{}` is not allowed in a workflow", shown(&written)),
                "leave it out; put text in quotes",
            );
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > DOCUMENTS_MAX {
                    let message = format!("the file holds more than {DOCUMENTS_MAX} workflows");
                    self.findings.add("too-many", position, message);
                    return Flow::Stop;
                }
                // What stands before the first belongs to it: comments, such as the editor's header.
                self.begin = if self.documents == 1 { 0 } else { span.start.byte_offset().unwrap_or(0) };
                Flow::On
            }
            Event::DocumentEnd => {
                let end = span.start.byte_offset().unwrap_or(self.source.text.len());
                if let Some((_, written)) =
                    self.roots.last_mut().filter(|(_, written)| written.start == self.begin)
                {
                    written.end = end.max(written.start);
                }
                Flow::On
            }
            Event::Scalar(text, style, ..) => {
                let start = span.start.byte_offset().unwrap_or(0);
                let written = start..end.unwrap_or(start).max(start);
                let plain = style == ScalarStyle::Plain;
                let source = self.source.clone();
                let scalar = Scalar { text: text.into_owned(), plain, source, written };
                self.check_characters(&scalar, position);
                self.put(Node { position, value: Raw::Scalar(scalar) })
            }
            Event::SequenceStart(..) => self.start(position, Container::List(Vec::new())),
            Event::MappingStart(..) => {
                self.start(position, Container::Map { entries: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.finish(),
            Event::Alias(_) | Event::UnresolvedAlias(_) => self.put(Node { position, value: Raw::Broken }),
            // The ends of documents and of the stream, anchors reported above, comments: nothing that is data.
            _ => Flow::On,
        }
    }

    /// Told once a line: a list of aliases is one mistake.
    fn anchor(&mut self, position: Spot) {
        if self.anchor_line != position.position.line {
            self.anchor_line = position.position.line;
            self.findings.add_with_hint(
                "anchor",
                position,
                "anchors and aliases are not allowed in a workflow",
                "write the value out where it is needed; text that begins with `*` or `&` goes into quotes",
            );
        }
    }

    fn start(&mut self, position: Spot, container: Container) -> Flow {
        if self.open.len() >= DEPTH_MAX {
            self.too_deep(position);
            return Flow::Stop;
        }
        self.open.push(Open { position, container });
        self.count(position)
    }

    fn finish(&mut self) -> Flow {
        let Some(Open { position, container }) = self.open.pop() else { return Flow::On };
        let value = match container {
            Container::List(items) => Raw::List(items),
            Container::Map { entries, .. } => Raw::Map(entries),
        };
        // Counted when it began.
        self.nodes = self.nodes.saturating_sub(1);
        self.put(Node { position, value })
    }

    fn put(&mut self, node: Node) -> Flow {
        let position = node.position;
        match self.open.last_mut().map(|open| &mut open.container) {
            None if is_nothing(&node) => {}
            None => self.roots.push((node, self.begin..self.source.text.len())),
            Some(Container::List(items)) => items.push(node),
            Some(Container::Map { entries, seen, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(make_key(node, seen, self.findings)),
            },
        }
        self.count(position)
    }

    fn count(&mut self, position: Spot) -> Flow {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.findings.add(
                "too-many",
                position,
                format!("the file has more than {NODES_MAX} keys and values"),
            );
            return Flow::Stop;
        }
        Flow::On
    }

    fn check_characters(&mut self, scalar: &Scalar, position: Spot) {
        let control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        if let Some((offset, found)) = scalar.text.char_indices().find(|(_, c)| control(*c)) {
            self.findings.add(
                "control-character",
                scalar.position_of(offset, 1).unwrap_or(position),
                format!("the control character U+{:04X} is not allowed", u32::from(found)),
            );
        }
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let position = self.source.at(*error.marker(), None);
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return self.too_deep(position);
        }
        let is_told = matches!(error.kind(), ErrorKind::MissingAnchorOrAliasName)
            && self.anchor_line == position.position.line;
        if is_told {
            return;
        }
        let wrong = syntax::explain(error, &self.source.text);
        match wrong.hint {
            Some(hint) => self.findings.add_with_hint(wrong.code, position, wrong.message, hint),
            None => self.findings.add(wrong.code, position, wrong.message),
        }
    }

    fn too_deep(&mut self, position: Spot) {
        self.findings.add_with_hint(
            "too-deep",
            position,
            format!("the file nests deeper than {DEPTH_MAX} levels"),
            "put what lies deeper into a file of its own, or write it as text",
        );
    }
}

/// Nothing at all between two `---`, or after the last.
fn is_nothing(node: &Node) -> bool {
    matches!(&node.value, Raw::Scalar(scalar) if scalar.plain && scalar.written.is_empty())
}

fn make_key(node: Node, seen: &mut HashMap<String, Spot>, findings: &mut Findings) -> Key {
    let position = node.position;
    let name = match node.value {
        Raw::Scalar(scalar) if scalar.plain && scalar.text == "<<" => {
            findings.add_with_hint(
                "merge-key",
                position,
                "merge keys are not allowed in a workflow",
                "write the values out where they are needed",
            );
            scalar.text
        }
        Raw::Scalar(scalar) if scalar.plain && scalar.written.is_empty() => {
            findings.add_with_hint(
                "wrong-type",
                position,
                "a key is missing before `:`",
                "write `NAME: VALUE`",
            );
            String::new()
        }
        Raw::Scalar(scalar) => {
            if let Some(first) = seen.get(&scalar.text) {
                findings.add_with_hint(
                    "duplicate-key",
                    position,
                    format!("`{}` is written twice", shown(&scalar.text)),
                    format!("it is on line {} already; remove one of them", first.position.line),
                );
            } else {
                seen.insert(scalar.text.clone(), position);
            }
            scalar.text
        }
        Raw::List(_) | Raw::Map(_) => {
            let hint = "write one key for each, as in `train: …`";
            findings.add_with_hint("wrong-type", position, "a key is text, not a list or a mapping", hint);
            String::new()
        }
        Raw::Broken => String::new(),
    };
    Key { name, position }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, u32, u32)> {
        let mut findings = Findings::default();
        read(text, 0, &mut findings);
        findings.into_problems().0.into_iter().map(|p| (p.code, p.position.line, p.position.column)).collect()
    }

    fn one(code: &str, line: u32, column: u32) -> Vec<(String, u32, u32)> {
        vec![(code.to_owned(), line, column)]
    }

    #[test]
    fn yaml_beyond_plain_data_is_refused_at_its_place() {
        for (text, expected) in [
            ("", one("empty", 1, 1)),
            ("# nothing\n", one("empty", 1, 1)),
            ("a: 1\nb: 2\na: 3\n", one("duplicate-key", 3, 1)),
            ("a:\n  x: 1\n  \"x\": 2\n", one("duplicate-key", 3, 3)),
            ("a: 1\n<<: {b: 1}\n", one("merge-key", 2, 1)),
            ("a: !!python/object:os.system x\n", one("tag", 1, 4)),
            ("---\n---\n", one("empty", 1, 1)),
            ("a: \"x\\0y\"\n", one("control-character", 1, 4)),
            ("a: [1, 2\nb: 3\n", problems("a: [1, 2\nb: 3\n")),
            ("? [a]\n: b\n", one("wrong-type", 1, 3)),
        ] {
            assert_eq!(problems(text), expected, "{text:?}");
            assert!(!problems(text).is_empty(), "{text:?}");
        }
        assert_eq!(problems("a: &x 1\nb: *x\nc: *y\n")[0].0, "anchor");
        assert_eq!(problems("a:\n\t- b\n")[0].0, "yaml-syntax");
        assert_eq!(problems("a: \"open\n")[0].0, "yaml-syntax");
        assert_eq!(problems("\u{feff}a: 1\n"), []);
    }

    #[test]
    fn texts_are_found_again_where_they_were_written() {
        let mut findings = Findings::default();
        let text = "é: \"abc def\"\nb: |\n  first\n  second def\nc: >-\n  one\n  two def\n";
        let root = read(text, 0, &mut findings).unwrap().remove(0).root;
        let Raw::Map(entries) = root.value else { panic!("no mapping") };
        let found: Vec<_> = entries
            .iter()
            .map(|(_, node)| {
                let Raw::Scalar(scalar) = &node.value else { panic!("no scalar") };
                let spot = scalar.position_of(scalar.text.find("def").unwrap(), 3);
                spot.map(|spot| spot.position).map(|p| (p.line, p.column, p.length))
            })
            .collect();
        // A folded text has lost its line breaks: no exact place.
        assert_eq!(found, [Some((1, 9, 3)), Some((4, 10, 3)), None]);
    }

    #[test]
    fn documents_of_one_file_stand_alone() {
        let text = "# head\na: 1\n---\nb: |\n  x\n  y\n...\n---\n# c\nc: 3\n---\n";
        let mut findings = Findings::default();
        let documents = read(text, 0, &mut findings).unwrap();
        assert!(findings.is_empty(), "{findings:?}");
        let places: Vec<_> = documents.iter().map(|document| document.root.position.position.line).collect();
        assert_eq!(places, [2, 4, 10]);
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(texts, ["# head\na: 1\n", "---\nb: |\n  x\n  y\n", "---\n# c\nc: 3\n"]);
        for document in &documents {
            assert_eq!(read(&document.text, 0, &mut findings).map(|again| again.len()), Some(1));
        }
    }
}
