//! Where the parts of an expression stand in its text, in bytes. The parser tells one token of each part (the operator,
//! the opening bracket); the whole is worked out here. Owns no opinion of what the parts mean.

use std::ops::Range;

use cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};

/// The place of every part.
#[derive(Debug)]
pub(super) struct Spans {
    /// By the part's id.
    wholes: Vec<Range<usize>>,
    tokens: Vec<Range<usize>>,
}

impl Spans {
    /// Finds the places; takes time in proportion to the text and to the tree, whose depth is bounded by the caller.
    pub(super) fn of(source: &str, tree: &IdedExpr, info: &SourceInfo) -> Self {
        let tokens: Vec<Range<usize>> = std::iter::once(0..0)
            .chain((1..).map_while(|id| token(info, id)))
            .map(|token| token.start.min(source.len())..token.end.min(source.len()))
            .collect();
        let wholes = tokens.clone();
        let calls = tokens.iter().filter(|token| source[(*token).clone()].starts_with('(')).map(|t| t.start);
        let mut finder = Finder { source, closing: closings(source), calls: calls.collect(), tokens, wholes };
        finder.calls.sort_unstable();
        finder.find(tree);
        Self { wholes: finder.wholes, tokens: finder.tokens }
    }

    /// A part with all that belongs to it, without brackets around it.
    pub(super) fn whole(&self, part: &IdedExpr) -> Range<usize> {
        self.by_id(&self.wholes, part)
    }

    /// The name of the function that is called, in `call` or what a macro has made of it.
    pub(super) fn function(&self, source: &str, call: &IdedExpr) -> Range<usize> {
        let open = self.by_id(&self.tokens, call);
        name_before(source, open.start).unwrap_or(open)
    }

    /// The field that is selected.
    pub(super) fn field(&self, source: &str, select: &IdedExpr, field: &str) -> Range<usize> {
        let whole = self.whole(select);
        let text = source[whole.clone()].trim_end_matches(|c: char| c == ')' || c.is_whitespace());
        match text.strip_suffix(field) {
            Some(before) => {
                let start = whole.start + before.len();
                start..start + field.len()
            }
            None => whole,
        }
    }

    fn by_id(&self, ranges: &[Range<usize>], part: &IdedExpr) -> Range<usize> {
        usize::try_from(part.id).ok().and_then(|id| ranges.get(id)).cloned().unwrap_or(0..0)
    }
}

/// The bytes of the token that stands for a part.
pub(super) fn token(info: &SourceInfo, id: u64) -> Option<Range<usize>> {
    let (start, last) = info.offset_for(id)?;
    Some(usize::try_from(start).ok()?..usize::try_from(last).ok()?.saturating_add(1))
}

/// The name that stands before the bracket at `open`.
pub(super) fn name_before(source: &str, open: usize) -> Option<Range<usize>> {
    let before = source.get(..open)?.trim_end();
    let name = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    (name.len() < before.len()).then_some(name.len()..before.len())
}

struct Finder<'s> {
    source: &'s str,
    /// For each byte that opens a bracket, the byte that closes it.
    closing: Vec<Option<usize>>,
    /// The brackets of calls, in order: all other round ones only group.
    calls: Vec<usize>,
    tokens: Vec<Range<usize>>,
    wholes: Vec<Range<usize>>,
}

impl Finder<'_> {
    /// Finds the whole of a part and of all in it; answers it with the brackets that group it.
    fn find(&mut self, part: &IdedExpr) -> Range<usize> {
        let Some(id) = usize::try_from(part.id).ok().filter(|id| *id < self.tokens.len()) else {
            return 0..0;
        };
        let token = self.tokens[id].clone();
        let whole = match &part.expr {
            Expr::Unspecified | Expr::Ident(_) => token,
            Expr::Literal(literal) => self.signed(token, literal),
            Expr::Select(select) => self.select(token, select),
            Expr::Call(call) => self.call(token, call),
            Expr::List(list) => {
                for element in &list.elements {
                    self.find(element);
                }
                self.bracket(token)
            }
            Expr::Map(map) => {
                map.entries.iter().for_each(|entry| self.entry(&entry.expr));
                self.bracket(token)
            }
            Expr::Struct(record) => {
                record.entries.iter().for_each(|entry| self.entry(&entry.expr));
                self.bracket(token)
            }
            Expr::Comprehension(comprehension) => {
                let over = self.find(&comprehension.iter_range);
                for inside in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.find(inside);
                }
                over.start..self.bracket(token).end
            }
        };
        self.wholes[id] = whole.clone();
        self.grouped(whole)
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.find(&entry.key);
                self.find(&entry.value);
            }
            EntryExpr::StructField(field) => {
                self.find(&field.value);
            }
        }
    }

    /// The parser takes the sign into a number, but not into its token.
    fn signed(&self, token: Range<usize>, literal: &LiteralValue) -> Range<usize> {
        let is_number = matches!(literal, LiteralValue::Int(_) | LiteralValue::Double(_));
        let is_negative = match literal {
            LiteralValue::Int(int) => *int.inner() < 0,
            LiteralValue::Double(double) => double.inner().is_sign_negative(),
            LiteralValue::Boolean(_)
            | LiteralValue::Bytes(_)
            | LiteralValue::Null
            | LiteralValue::String(_)
            | LiteralValue::UInt(_) => false,
        };
        let before = self.source[..token.start].trim_end();
        if is_number && is_negative && before.ends_with('-') { before.len() - 1..token.end } else { token }
    }

    fn select(&mut self, token: Range<usize>, select: &SelectExpr) -> Range<usize> {
        let operand = self.find(&select.operand);
        if select.test {
            return self.named(self.bracket(token));
        }
        let rest = &self.source[operand.end..];
        let name = rest.trim_start().strip_prefix('.').map(str::trim_start);
        let end = match name.filter(|name| name.starts_with(&select.field)) {
            Some(name) => self.source.len() - name.len() + select.field.len(),
            None => token.end,
        };
        operand.start..end.max(operand.end)
    }

    fn call(&mut self, token: Range<usize>, call: &CallExpr) -> Range<usize> {
        let target = call.target.as_deref().map(|target| self.find(target));
        let arguments: Vec<_> = call.args.iter().map(|argument| self.find(argument)).collect();
        if let Some(target) = target {
            return target.start..self.bracket(token).end;
        }
        let is_operator = !call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_operator {
            return self.named(self.bracket(token));
        }
        let start = arguments.iter().map(|argument| argument.start).min();
        let end = arguments.iter().map(|argument| argument.end).max();
        let end =
            if call.func_name == operators::INDEX { Some(self.bracket(token.clone()).end) } else { end };
        start.unwrap_or(token.start).min(token.start)..end.unwrap_or(token.end).max(token.end)
    }

    /// From an opening bracket to the closing one.
    fn bracket(&self, open: Range<usize>) -> Range<usize> {
        match self.closing.get(open.start).copied().flatten() {
            Some(close) => open.start..close + 1,
            None => open,
        }
    }

    /// With the name before the bracket.
    fn named(&self, bracket: Range<usize>) -> Range<usize> {
        name_before(self.source, bracket.start).map_or(bracket.start, |name| name.start)..bracket.end
    }

    /// With the round brackets that only group it.
    fn grouped(&self, mut whole: Range<usize>) -> Range<usize> {
        loop {
            let before = self.source[..whole.start].trim_end();
            let Some(open) = before.len().checked_sub(1).filter(|_| before.ends_with('(')) else {
                return whole;
            };
            let rest = &self.source[whole.end..];
            let next = whole.end + (rest.len() - rest.trim_start().len());
            if self.calls.binary_search(&open).is_ok() || self.closing[open] != Some(next) {
                return whole;
            }
            whole = open..next + 1;
        }
    }
}

/// For each byte that opens a bracket, the byte that closes it; brackets in strings and comments do not count.
fn closings(source: &str) -> Vec<Option<usize>> {
    let bytes = source.as_bytes();
    let mut closing = vec![None; bytes.len()];
    let mut open = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => {
                at = string_end(source, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += source[at..].find('\n').unwrap_or(bytes.len() - at);
                continue;
            }
            b'(' | b'[' | b'{' => open.push(at),
            b')' | b']' | b'}' => {
                if let Some(opened) = open.pop() {
                    closing[opened] = Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    closing
}

/// Where the string ends that begins with the quote at `start`: the byte after it.
fn string_end(source: &str, start: usize) -> usize {
    let bytes = source.as_bytes();
    let quote = bytes[start];
    let is_raw = source[..start].trim_end_matches(['b', 'B']).ends_with(['r', 'R']);
    let is_triple = bytes[start..].starts_with(&[quote; 3]);
    let closing = if is_triple { &[quote; 3][..] } else { &[quote][..] };
    let mut at = start + closing.len();
    while at < bytes.len() {
        if bytes[at..].starts_with(closing) {
            return at + closing.len();
        }
        at += if bytes[at] == b'\\' && !is_raw { 2 } else { 1 };
    }
    bytes.len()
}
