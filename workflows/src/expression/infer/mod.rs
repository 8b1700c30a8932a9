//! The type of an expression, worked out from those of the names it reads, and all that cannot go well. Follows the
//! evaluator: what always fails or is always false is a problem, what may go well is none. One walk over the tree;
//! must never happen here: a second problem that only follows from a first.

mod calls;
mod hints;
mod operations;

use std::ops::Range;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr};
use cel::common::ast::{SelectExpr, operators};

use super::kinds::{Kind, Kinds, TYPE_NAMES};
use super::shorten;
use super::spans::Spans;
use super::types::{Record, Type, TypeProblem, Types, Typing};
use crate::definition::diagnostics::closest;

/// The most names that are listed in a hint.
const LISTED_MAX: usize = 12;

/// Works out the type of a tree.
pub(super) fn infer(source: &str, tree: &IdedExpr, spans: &Spans, types: &Types) -> Typing {
    let mut walk = Walk {
        source,
        spans,
        types,
        bound: Vec::new(),
        problems: Vec::new(),
        is_certain: true,
        is_dashed: false,
        patterns: 0,
    };
    let result = walk.visit(tree);
    let Walk { mut problems, is_certain, .. } = walk;
    problems.sort_by_key(|problem| problem.offset);
    Typing { result, problems, is_certain }
}

/// The problem of a result that is not of the wanted type.
pub(super) fn unwanted(source: &str, typing: &Typing, wanted: &Type) -> TypeProblem {
    let message =
        format!("`{}` must be {}, but is {}", shorten(source), wanted.describe(), typing.result.describe());
    let hint = hints::wanted(source, wanted, &typing.result);
    TypeProblem { code: "type", message, hint, offset: 0, length: source.len() }
}

struct Walk<'w> {
    source: &'w str,
    spans: &'w Spans,
    types: &'w Types,
    /// The variables of the loops in force.
    bound: Vec<(String, Type)>,
    problems: Vec<TypeProblem>,
    is_certain: bool,
    /// A name with `-` was written without quotes, so that what comes after the `-` is no operand.
    is_dashed: bool,
    /// How many constant regular expressions there were so far.
    patterns: usize,
}

impl Walk<'_> {
    fn visit(&mut self, part: &IdedExpr) -> Type {
        let found = match &part.expr {
            Expr::Unspecified | Expr::Struct(_) => Type::Dyn,
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => self.name(part, name),
            Expr::Select(select) => self.select(part, select),
            Expr::Call(call) if call.func_name == operators::INDEX => self.index(part, call),
            Expr::Call(call) => self.call(part, call),
            Expr::List(list) => {
                let elements = list.elements.iter().map(|element| self.visit(element));
                Type::list(elements.reduce(Type::or).unwrap_or(Type::Dyn))
            }
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(comprehension) => self.comprehension(part, comprehension),
        };
        self.is_certain &= found.is_certain();
        found
    }

    fn name(&mut self, part: &IdedExpr, name: &str) -> Type {
        if let Some((_, bound)) = self.bound.iter().rev().find(|(variable, _)| variable == name) {
            return bound.clone();
        }
        if let Some(known) = self.types.root(name) {
            return known.clone();
        }
        if TYPE_NAMES.contains(&name) {
            return Type::Kind;
        }
        let hint = hints::names(name, self.types.names())
            .map(|names| format!("{names}; text goes into quotes"))
            .unwrap_or_else(|| "nothing can be read here; text goes into quotes".to_owned());
        self.report("unknown-name", self.spans.whole(part), format!("`{name}` is not known here"), Some(hint))
    }

    fn select(&mut self, part: &IdedExpr, select: &SelectExpr) -> Type {
        let operand = self.visit(&select.operand);
        let place = self.spans.field(self.source, part, &select.field);
        let field = self.field(&select.operand, &operand, &select.field, place);
        if select.test { Type::Bool } else { field }
    }

    /// What `operand` holds under a name that is written at `place`.
    fn field(&mut self, operand: &IdedExpr, of: &Type, name: &str, place: Range<usize>) -> Type {
        if let Type::Map(value) = of {
            return value.as_ref().clone();
        }
        if let Some(record) = of.as_record() {
            let found = record.fields.get(name);
            if let Some(known) = self.dashed(record, name, found.is_some(), place.start) {
                return self.minus(operand, known.to_owned(), place.start);
            }
            return found.cloned().unwrap_or_else(|| self.missing(record, name, place));
        }
        if of.kinds().has(Kind::Map) {
            return Type::Dyn;
        }
        let message = format!("`{}` is {}: it has no `{name}`", self.text(operand), of.describe());
        self.report("type", place, message, None)
    }

    /// The name with `-` that is written at `start`, of which the parser took the beginning for a name.
    fn dashed<'r>(&self, record: &'r Record, name: &str, is_name: bool, start: usize) -> Option<&'r str> {
        let continues = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let written = |known: &&str| {
            let after = self.source[start..].strip_prefix(*known);
            after.is_some_and(|after| !after.starts_with(continues))
        };
        let known = record.fields.keys().map(String::as_str).filter(|known| known.len() > name.len());
        let known = known.filter(written).max_by_key(|known| known.len())?;
        let subtrahend = known[name.len()..].trim_start_matches('-').split(|c| !continues(c)).next()?;
        let subtracts = self.types.root(subtrahend).is_some()
            || self.bound.iter().any(|(variable, _)| variable == subtrahend)
            || subtrahend.starts_with(|c: char| c.is_ascii_digit());
        (!is_name || !subtracts).then_some(known)
    }

    fn minus(&mut self, operand: &IdedExpr, known: String, start: usize) -> Type {
        self.is_dashed = true;
        let message = format!("`{known}` cannot be written with a dot: `-` means minus");
        let hint = format!("write {}[\"{known}\"]", self.text(operand));
        self.report("unknown-name", start..start + known.len(), message, Some(hint))
    }

    fn missing(&mut self, record: &Record, name: &str, place: Range<usize>) -> Type {
        let known = || record.fields.keys().map(String::as_str);
        let hint = match (&record.hint, closest(name, known())) {
            (Some(hint), None) => Some(hint.clone()),
            (_, _) => hints::names(name, known()),
        };
        self.report("unknown-name", place, format!("{} has no `{name}`", record.what), hint)
    }

    fn index(&mut self, part: &IdedExpr, call: &CallExpr) -> Type {
        let [operand, key] = call.args.as_slice() else { return Type::Dyn };
        let (of, by) = (self.visit(operand), self.visit(key));
        if let Some(name) = text_of(key)
            && of.kinds().has(Kind::Map)
        {
            return self.field(operand, &of, name, self.spans.whole(key));
        }
        let names = Kinds::one(Kind::String);
        let (takes, gives) = if let Type::List(element) = &of {
            (Kinds::WHOLE, element.as_ref().clone())
        } else if let Type::Map(value) = &of {
            (names, value.as_ref().clone())
        } else if of.as_record().is_some() {
            (names, Type::Dyn)
        } else if of.kinds().meets(Kinds::CONTAINER) {
            (Kinds::KEY.and(Kinds::NUMBER), Type::Dyn)
        } else {
            let message = format!("`{}` is {}: it holds nothing", self.text(operand), of.describe());
            return self.report("type", self.spans.whole(part), message, None);
        };
        if by.kinds().meets(takes) {
            return gives;
        }
        let message = format!(
            "`{}` is {}, but {} is read by {}",
            self.text(key),
            by.describe(),
            of.describe(),
            if matches!(of, Type::List(_)) { "a whole number, from 0" } else { "names, which are text" }
        );
        let hint = (by == Type::Double).then(|| format!("write int({})", self.text(key)));
        self.report("type", self.spans.whole(key), message, hint)
    }

    fn map(&mut self, map: &MapExpr) -> Type {
        let mut values: Option<Type> = None;
        let mut has_text_keys = true;
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { return Type::Dyn };
            let key = self.visit(&entry.key);
            if !key.kinds().meets(Kinds::KEY) {
                let message = format!(
                    "a name in an object is text, but `{}` is {}",
                    self.text(&entry.key),
                    key.describe()
                );
                self.report("type", self.spans.whole(&entry.key), message, None);
            }
            has_text_keys &= key.kinds() == Kinds::one(Kind::String);
            let value = self.visit(&entry.value);
            values = Some(values.map_or(value.clone(), |before| before.or(value)));
        }
        if has_text_keys { Type::map(values.unwrap_or(Type::Dyn)) } else { Type::Dyn }
    }

    /// `all`, `exists`, `exists_one`, `map` and `filter`, recognised by what the parser makes of them.
    fn comprehension(&mut self, part: &IdedExpr, comprehension: &ComprehensionExpr) -> Type {
        let over = self.visit(&comprehension.iter_range);
        let element = over.element().unwrap_or_else(|| {
            let name = &self.source[self.spans.function(self.source, part)];
            let message = format!(
                "`{name}` goes over a list or an object, but `{}` is {}",
                self.text(&comprehension.iter_range),
                over.describe()
            );
            self.report("type", self.spans.whole(&comprehension.iter_range), message, None)
        });
        self.bound.push((comprehension.iter_var.clone(), element));
        let found = self.turn(part, comprehension);
        self.bound.pop();
        found
    }

    fn turn(&mut self, part: &IdedExpr, comprehension: &ComprehensionExpr) -> Type {
        let Expr::Call(step) = &comprehension.loop_step.expr else { return Type::Dyn };
        let gathers = matches!(comprehension.accu_init.expr, Expr::List(_));
        match step.args.as_slice() {
            [condition, kept, _] if step.func_name == operators::CONDITIONAL => {
                self.loop_condition(part, condition);
                if gathers { self.gathered(kept) } else { Type::Bool }
            }
            [_, _] if gathers => self.gathered(&comprehension.loop_step),
            [_, condition] => {
                self.loop_condition(part, condition);
                Type::Bool
            }
            _ => Type::Dyn,
        }
    }

    /// The list of `@result + [element]`.
    fn gathered(&mut self, append: &IdedExpr) -> Type {
        let Expr::Call(append) = &append.expr else { return Type::Dyn };
        match append.args.get(1).map(|items| &items.expr) {
            Some(Expr::List(items)) => {
                Type::list(items.elements.first().map_or(Type::Dyn, |element| self.visit(element)))
            }
            _ => Type::Dyn,
        }
    }

    fn loop_condition(&mut self, part: &IdedExpr, condition: &IdedExpr) {
        let found = self.visit(condition);
        if !found.kinds().has(Kind::Bool) {
            let name = &self.source[self.spans.function(self.source, part)];
            let message = format!(
                "`{name}` asks a question of each element, but `{}` is {}",
                self.text(condition),
                found.describe()
            );
            let hint = hints::wanted(&self.text(condition), &Type::Bool, &found);
            self.report("type", self.spans.whole(condition), message, hint);
        }
    }

    /// The text of a part, for a message.
    fn text(&self, part: &IdedExpr) -> String {
        shorten(&self.source[self.spans.whole(part)])
    }

    /// Notes a problem; of what is wrong, nothing more is known.
    fn report(
        &mut self,
        code: &'static str,
        place: Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Type {
        let length = place.len().max(1);
        self.problems.push(TypeProblem { code, message: message.into(), hint, offset: place.start, length });
        Type::Dyn
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// The text, when a part is a string.
fn text_of(part: &IdedExpr) -> Option<&str> {
    if let Expr::Literal(LiteralValue::String(text)) = &part.expr { Some(text.inner()) } else { None }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
