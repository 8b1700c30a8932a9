//! Parsing: CEL text to a tree that is within bounds and pays for its work. Owns every limit on the form of an
//! expression; must never happen here: evaluation.

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::common::ast::{ComprehensionExpr, IdedExpr, SourceInfo};
use cel::parser::Parser;

use super::spans::{self, Spans};
use super::{ExpressionError, FUNCTIONS, cost, durations};
use crate::definition::diagnostics::did_you_mean;

/// The variables that `succeeded()` and `failed()` read. No expression can spell the names.
pub(super) const SUCCEEDED: &str = "@succeeded";
pub(super) const FAILED: &str = "@failed";

const BRACKETS_MAX: usize = 32;
const NODES_MAX: usize = 500;
const DEPTH_MAX: usize = 64;
const LOOPS_MAX: usize = 2;

/// How many extra charges of the meter a call of `matches` costs: it builds its regular expression anew each time.
const MATCHES_TICKS: usize = 16;

/// An expression that may be evaluated.
#[derive(Debug)]
pub(super) struct Checked {
    /// The tree as it was written, for its types.
    pub(super) written: IdedExpr,
    /// Where its parts stand.
    pub(super) spans: Spans,
    /// The tree, with every loop and every operation on long values passing by the meter.
    pub(super) tree: IdedExpr,
    /// The levels of `tree`.
    pub(super) depth: usize,
    /// The paths it reads.
    pub(super) references: Vec<Vec<String>>,
    /// The first parts of `references`, each once.
    pub(super) roots: Vec<String>,
    /// The path, when the whole expression is one.
    pub(super) sole_path: Option<Vec<String>>,
    /// Whether it calls `succeeded()`, `failed()` or `always()`.
    pub(super) reads_needs: bool,
}

/// Parses and checks; what is wrong comes in the order of the text. Runs on a stack that suits the parser, which is
/// recursive.
pub(super) fn check(source: &str) -> Result<Checked, Vec<ExpressionError>> {
    check_brackets(source).map_err(|wrong| vec![wrong])?;
    let parsed = Parser::new().enable_optional_syntax(false).parse_with_source_info(source);
    let (mut tree, info) = parsed.map_err(|errors| {
        // What the parser says after its first stumble is mostly about that stumble.
        let Some(first) = errors.errors.first() else {
            return vec![ExpressionError::new("the expression is not CEL")];
        };
        let offset = usize::try_from(first.pos.0)
            .and_then(|line| Ok((line, usize::try_from(first.pos.1)?)))
            .ok()
            .and_then(|(line, column)| offset_of(source, line, column));
        vec![not_cel(source, offset, &first.msg)]
    })?;

    let mut survey = Survey {
        source,
        info: &info,
        nodes: 0,
        bound: Vec::new(),
        references: Vec::new(),
        reads_needs: false,
        wrong: Vec::new(),
    };
    let visited = survey.visit(&tree, 1, 0);
    let Survey { references, reads_needs, mut wrong, .. } = survey;
    wrong.extend(visited.err());
    if !wrong.is_empty() {
        wrong.sort_by_key(|wrong| wrong.offset);
        return Err(wrong);
    }
    let mut roots: Vec<String> = Vec::new();
    for reference in &references {
        if let Some(root) = reference.first()
            && !roots.contains(root)
        {
            roots.push(root.clone());
        }
    }
    let sole_path = path_of(&tree);
    let (written, spans) = (tree.clone(), Spans::of(source, &tree, &info));
    meter(&mut tree);
    let depth = depth_of(&tree);
    Ok(Checked { written, spans, tree, depth, references, roots, sole_path, reads_needs })
}

/// The path that a tree is, if it is nothing but names and constant keys.
fn path_of(node: &IdedExpr) -> Option<Vec<String>> {
    match &node.expr {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(select) if !select.test => {
            let mut path = path_of(&select.operand)?;
            path.push(select.field.clone());
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                let mut path = path_of(operand)?;
                path.push(key.inner().to_owned());
                Some(path)
            }
            _ => None,
        },
        Expr::Unspecified
        | Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_) => None,
    }
}

/// A cheap look before the recursive parser runs: brackets in strings count too, which only errs on the safe side.
fn check_brackets(source: &str) -> Result<(), ExpressionError> {
    let mut depth = 0_usize;
    for (offset, byte) in source.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            0..=31 if !matches!(byte, b'\t' | b'\n' | b'\r') => {
                return Err(ExpressionError::at("the expression holds a control character", offset));
            }
            _ => {}
        }
        if depth > BRACKETS_MAX {
            return Err(ExpressionError::at(
                format!("the expression nests more than {BRACKETS_MAX} brackets"),
                offset,
            ));
        }
    }
    Ok(())
}

/// What is not CEL, with the way to say it: most slips come from other languages.
fn not_cel(source: &str, offset: Option<usize>, message: &str) -> ExpressionError {
    const WORDS: [(&str, &str); 6] =
        [("and", "&&"), ("or", "||"), ("not", "!"), ("=", "=="), ("&", "&&"), ("|", "||")];
    let error = |what: String| ExpressionError {
        offset,
        ..ExpressionError::new(format!("not a CEL expression: {what}"))
    };
    let (before, rest) = source.split_at_checked(offset.unwrap_or(source.len())).unwrap_or((source, ""));
    // The parser stumbles over the word itself, or over what follows a word that it took for a name.
    let last = before.trim_end().rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    for (word, right) in WORDS {
        let at = match last == word {
            true => before.trim_end().len() - word.len(),
            false if begins_with_word(rest, word) => before.len(),
            false => continue,
        };
        let wrong = error(format!("`{word}` is no operator")).with_hint(format!("write `{right}`"));
        return ExpressionError { offset: Some(at), length: word.len(), ..wrong };
    }
    if rest.starts_with(['\'', '"']) {
        return error("the quote is never closed".to_owned()).with_hint("close it where the text ends");
    }
    let message = plain(message);
    if message == "unexpected end" {
        return error("it ends too early".to_owned()).with_hint("something is missing behind its last part");
    }
    match message.strip_prefix("missing '").and_then(|missing| missing.split_once('\'')) {
        Some((missing, _)) => error(format!("`{missing}` is missing here")),
        None => error(message),
    }
}

/// Whether a text begins with this word or operator and not with a longer one.
fn begins_with_word(text: &str, word: &str) -> bool {
    let after = text.strip_prefix(word).map(str::as_bytes);
    after
        .is_some_and(|after| !after.first().is_some_and(|b| b.is_ascii_alphanumeric() || b"_=&|".contains(b)))
}

/// The parser's message without what only helps its authors: its jargon, and the list of every token it would take.
fn plain(message: &str) -> String {
    let message = message.split(" expecting ").next().unwrap_or(message);
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.replace("'<EOF>'", "end").replace("<EOF>", "end");
    ["mismatched input ", "extraneous input ", "no viable alternative at input "]
        .into_iter()
        .find_map(|jargon| message.strip_prefix(jargon))
        .map_or_else(|| message.clone(), |rest| format!("unexpected {rest}"))
}

fn offset_of(source: &str, line: usize, column: usize) -> Option<usize> {
    let start = match line.checked_sub(1)? {
        0 => 0,
        breaks => source.match_indices('\n').nth(breaks - 1)?.0 + 1,
    };
    let rest = &source[start..];
    Some(start + rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(offset, _)| offset))
}

/// One walk over the parsed tree: bounds, known functions, references.
struct Survey<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    nodes: usize,
    /// Names of the loops' variables in force.
    bound: Vec<String>,
    references: Vec<Vec<String>>,
    reads_needs: bool,
    /// The functions that are wrong: the walk goes on behind them.
    wrong: Vec<ExpressionError>,
}

impl Survey<'_> {
    fn visit(&mut self, node: &IdedExpr, depth: usize, loops: usize) -> Result<(), ExpressionError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(ExpressionError::new(format!("the expression has more than {NODES_MAX} parts")));
        }
        if depth > DEPTH_MAX {
            return Err(ExpressionError::new(format!("the expression is more than {DEPTH_MAX} levels deep")));
        }
        match &node.expr {
            Expr::Unspecified => Err(ExpressionError::new("the expression is not complete")),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(_) | Expr::Select(_) => self.visit_path(node, depth, loops),
            Expr::Call(call) if call.func_name == operators::INDEX => self.visit_path(node, depth, loops),
            Expr::Call(call) => {
                self.wrong.extend(self.wrong_function(node.id, call));
                self.reads_needs |= matches!(call.func_name.as_str(), "succeeded" | "failed" | "always");
                call.target
                    .iter()
                    .map(|target| &**target)
                    .chain(&call.args)
                    .try_for_each(|argument| self.visit(argument, depth + 1, loops))
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.visit(element, depth + 1, loops))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth + 1, loops)?;
                    self.visit(&entry.value, depth + 1, loops)
                }
                EntryExpr::StructField(field) => self.visit(&field.value, depth + 1, loops),
            }),
            Expr::Struct(record) => {
                let message = format!("`{}{{…}}`: there are no struct types", record.type_name);
                Err(ExpressionError {
                    offset: self.source.find(&record.type_name),
                    ..ExpressionError::new(message)
                })
            }
            Expr::Comprehension(comprehension) => self.visit_loop(comprehension, depth, loops),
        }
    }

    fn visit_loop(
        &mut self,
        comprehension: &ComprehensionExpr,
        depth: usize,
        loops: usize,
    ) -> Result<(), ExpressionError> {
        if loops >= LOOPS_MAX {
            return Err(ExpressionError::new(format!(
                "the expression nests more than {LOOPS_MAX} loops (all, exists, map, filter)"
            )));
        }
        self.visit(&comprehension.iter_range, depth + 1, loops)?;
        self.visit(&comprehension.accu_init, depth + 1, loops)?;
        self.bound.push(comprehension.iter_var.clone());
        for inside in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
            self.visit(inside, depth + 1, loops + 1)?;
        }
        self.bound.pop();
        Ok(())
    }

    /// A name with what is selected from it, or a selection from something that is no name.
    fn visit_path(&mut self, node: &IdedExpr, depth: usize, loops: usize) -> Result<(), ExpressionError> {
        let mut parts: Vec<Option<String>> = Vec::new();
        let mut node = node;
        let mut levels = depth;
        loop {
            self.nodes += 1;
            levels += 1;
            match &node.expr {
                Expr::Select(select) => {
                    parts.push(Some(select.field.clone()));
                    node = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                    if let Expr::Literal(LiteralValue::String(key)) = &call.args[1].expr {
                        parts.push(Some(key.inner().to_owned()));
                    } else {
                        parts.push(None);
                        self.visit(&call.args[1], levels, loops)?;
                    }
                    node = &call.args[0];
                }
                Expr::Ident(name) => {
                    if !name.starts_with('@') && !self.bound.contains(name) {
                        let path = parts.into_iter().rev().map_while(|part| part);
                        let reference: Vec<String> = std::iter::once(name.clone()).chain(path).collect();
                        if !self.references.contains(&reference) {
                            self.references.push(reference);
                        }
                    }
                    return Ok(());
                }
                Expr::Unspecified
                | Expr::Call(_)
                | Expr::Comprehension(_)
                | Expr::List(_)
                | Expr::Literal(_)
                | Expr::Map(_)
                | Expr::Struct(_) => return self.visit(node, levels, loops),
            }
            if levels > DEPTH_MAX {
                return Err(ExpressionError::new(format!(
                    "the expression is more than {DEPTH_MAX} levels deep"
                )));
            }
        }
    }

    /// What is wrong with the function that is called.
    fn wrong_function(&self, id: u64, call: &CallExpr) -> Option<ExpressionError> {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_operator {
            return None;
        }
        let is_macro =
            matches!(name, "all" | "exists" | "exists_one" | "existsOne" | "filter" | "has" | "map");
        let open = spans::token(self.info, id).map(|token| token.start);
        let offset = open.and_then(|open| spans::name_before(self.source, open)).map(|place| place.start);
        let wrong = |message| ExpressionError { offset, length: name.len(), ..ExpressionError::new(message) };
        if is_macro {
            let message = format!("`{name}` is used as in `list.{name}(x, condition)` (`has(a.b)` for has)");
            return Some(wrong(message));
        }
        if !FUNCTIONS.contains(&name) {
            let wrong = wrong(format!("there is no function `{name}`"));
            // The list is long: once is enough.
            let is_listed = |one: &ExpressionError| {
                one.hint.as_ref().is_some_and(|hint| hint.starts_with("the functions are"))
            };
            return Some(match did_you_mean(name, FUNCTIONS) {
                Some(near) => wrong.with_hint(near),
                None if self.wrong.iter().any(is_listed) => wrong,
                None => wrong.with_hint(format!("the functions are {}", FUNCTIONS.join(", "))),
            });
        }
        let stands_alone = call.target.is_none() && call.args.is_empty();
        (matches!(name, "succeeded" | "failed" | "always") && !stands_alone)
            .then(|| wrong(format!("`{name}()` stands alone and takes no argument")))
    }
}

/// Makes a tree pay for its work, children first.
fn meter(node: &mut IdedExpr) {
    match &mut node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select(select) => meter(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Struct(record) => record.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Comprehension(comprehension) => meter_loop(comprehension),
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| meter(target));
            call.args.iter_mut().for_each(meter);
            match call.func_name.as_str() {
                "succeeded" => node.expr = Expr::Ident(SUCCEEDED.to_owned()),
                "failed" => node.expr = Expr::Ident(FAILED.to_owned()),
                "always" => node.expr = Expr::Literal(LiteralValue::Boolean(true.into())),
                _ => {
                    read_duration(call);
                    pay_for_operands(call);
                }
            }
        }
    }
}

/// `duration(x)` becomes `duration(@read_duration(x))`.
fn read_duration(call: &mut CallExpr) {
    if call.func_name == "duration"
        && call.target.is_none()
        && let [text] = call.args.as_mut_slice()
    {
        let id = text.id;
        let args = vec![std::mem::take(text)];
        *text = IdedExpr {
            id,
            expr: Expr::Call(CallExpr { func_name: durations::READ.to_owned(), target: None, args }),
        };
    }
}

fn meter_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::MapEntry(entry) => {
            meter(&mut entry.key);
            meter(&mut entry.value);
        }
        EntryExpr::StructField(field) => meter(&mut field.value),
    }
}

/// Operations that walk their operands pay for their length; those that only pick one do not.
fn pay_for_operands(call: &mut CallExpr) {
    let picks = matches!(
        call.func_name.as_str(),
        operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | operators::INDEX
            | operators::NEGATE
            | "size"
            | "type"
    );
    let accumulates = matches!(call.args.first().map(|first| &first.expr), Some(Expr::Ident(name)) if name.starts_with('@'));
    if picks || accumulates {
        return;
    }
    call.target.iter_mut().for_each(|target| pay(target));
    call.args.iter_mut().for_each(pay);
    if call.func_name == "matches"
        && let Some(text) = call.target.as_deref_mut().or_else(|| call.args.first_mut())
    {
        (0..MATCHES_TICKS).for_each(|_| wrap(text));
    }
}

/// A loop pays for what it goes over, for each turn, and for what it gathers.
///
/// A loop's condition that is a constant is left alone: the evaluator knows `map` and `filter` by it, and would copy
/// the whole list on each turn otherwise. These loops pay in their step.
fn meter_loop(comprehension: &mut ComprehensionExpr) {
    let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = comprehension;
    for part in [&mut *iter_range, accu_init, loop_cond, loop_step, result] {
        meter(part);
    }
    pay(iter_range);
    if !matches!(loop_cond.expr, Expr::Literal(_)) {
        wrap(loop_cond);
    } else if let Expr::Call(step) = &mut loop_step.expr {
        if step.func_name == operators::CONDITIONAL
            && let [guard, kept, _] = step.args.as_mut_slice()
        {
            wrap(guard);
            if let Expr::Call(append) = &mut kept.expr {
                pay_for_appended(append);
            }
        } else {
            pay_for_appended(step);
        }
    }
}

fn pay_for_appended(append: &mut CallExpr) {
    if let Some(Expr::List(list)) = append.args.get_mut(1).map(|items| &mut items.expr) {
        list.elements.iter_mut().for_each(wrap);
    }
}

fn pay(node: &mut IdedExpr) {
    if !matches!(node.expr, Expr::Literal(_)) {
        wrap(node);
    }
}

/// `x` becomes `@tick(@meter, x)`.
fn wrap(node: &mut IdedExpr) {
    let id = node.id;
    let value = std::mem::take(node);
    let meter = IdedExpr { id, expr: Expr::Ident(cost::METER.to_owned()) };
    let call = CallExpr { func_name: cost::TICK.to_owned(), target: None, args: vec![meter, value] };
    *node = IdedExpr { id, expr: Expr::Call(call) };
}

fn depth_of(node: &IdedExpr) -> usize {
    let deepest = |nodes: &mut dyn Iterator<Item = &IdedExpr>| nodes.map(depth_of).max().unwrap_or(0);
    1 + match &node.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
        Expr::Select(select) => depth_of(&select.operand),
        Expr::List(list) => deepest(&mut list.elements.iter()),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(record) => {
            record.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0)
        }
        Expr::Call(call) => deepest(&mut call.target.iter().map(|target| &**target).chain(&call.args)),
        Expr::Comprehension(comprehension) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
                &**comprehension;
            deepest(&mut [iter_range, accu_init, loop_cond, loop_step, result].into_iter())
        }
    }
}

fn entry_depth(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::MapEntry(entry) => depth_of(&entry.key).max(depth_of(&entry.value)),
        EntryExpr::StructField(field) => depth_of(&field.value),
    }
}
