//! Calls of functions: how many arguments, of which types, before the dot or in the brackets; and constants that can
//! never be read, as in `duration("90x")`.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::{Context, ExecutionError};

use super::super::kinds::{Kind, Kinds, Signature, signatures};
use super::super::types::Type;
use super::super::{durations, environment};
use super::{Walk, shorten, text_of};

/// The most regular expressions of one expression that are tried: a large one takes long to build.
const PATTERNS_MAX: usize = 4;

impl Walk<'_> {
    pub(super) fn function(&mut self, part: &IdedExpr, call: &CallExpr) -> Type {
        let before = self.problems.len();
        let operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        let types: Vec<Type> = operands.iter().map(|operand| self.visit(operand)).collect();
        if self.problems.len() > before {
            // What it gives is known even so, unless that depends on what it takes.
            return signatures(&call.func_name).first().map_or(Type::Dyn, |way| Type::of(way.gives));
        }
        if call.func_name == "dyn" && call.target.is_none() && types.len() == 1 {
            return Type::Dyn;
        }
        let ways = signatures(&call.func_name);
        let is_method = call.target.is_some();
        let is_counted = |way: &&Signature| way.is_method == is_method && way.takes.len() == types.len();
        let counted: Vec<&Signature> = ways.iter().filter(is_counted).collect();
        if counted.is_empty() {
            return self.written_otherwise(part, call, ways);
        }
        let fits =
            |way: &&&Signature| way.takes.iter().zip(&types).all(|(takes, of)| takes.meets(of.kinds()));
        if let Some(way) = counted.iter().find(fits) {
            self.try_constants(call, &operands);
            return Type::of(way.gives);
        }
        // The first operand that no way takes is the one that is wrong.
        let wrong = (0..operands.len()).find(|at| {
            let takes = counted.iter().fold(Kinds::NONE, |all, way| all.and(way.takes[*at]));
            !takes.meets(types[*at].kinds())
        });
        let wrong = wrong.unwrap_or(0);
        let takes = counted.iter().fold(Kinds::NONE, |all, way| all.and(way.takes[wrong]));
        let gives = Type::of(counted[0].gives);
        let message = format!(
            "`{}` takes {}, but `{}` is {}",
            call.func_name,
            describe(takes),
            self.text(operands[wrong]),
            types[wrong].describe()
        );
        let hint = self.conversion(takes, operands[wrong], &types[wrong]);
        self.report("type", self.spans.whole(operands[wrong]), message, hint);
        gives
    }

    /// A function with too many or too few arguments, or on the wrong side of the dot.
    fn written_otherwise(&mut self, part: &IdedExpr, call: &CallExpr, ways: &[Signature]) -> Type {
        let Some(first) = ways.first() else { return Type::Dyn };
        let name = &call.func_name;
        let mut forms: Vec<String> = ways.iter().map(|way| form(name, way)).collect();
        forms.dedup();
        let message = if ways.iter().any(|way| way.is_method == call.target.is_some()) {
            let plural = if call.args.len() == 1 { "" } else { "s" };
            format!("`{name}` does not take {} argument{plural}", call.args.len())
        } else if first.is_method {
            format!("`{name}` is called on a value, with a dot")
        } else {
            format!("`{name}` takes its value in the brackets")
        };
        let hint = format!("it is written {}", forms.join(" or "));
        self.report("type", self.spans.function(self.source, part), message, Some(hint));
        Type::of(first.gives)
    }

    fn conversion(&self, takes: Kinds, operand: &IdedExpr, of: &Type) -> Option<String> {
        let text = self.text(operand);
        let is_text = of.kinds() == Kinds::one(Kind::String);
        if is_text && takes.has(Kind::Timestamp) {
            return Some(format!("write timestamp({text})"));
        }
        (takes == Kinds::one(Kind::String) && of.kinds().meets(Kinds::SCALAR))
            .then(|| format!("write string({text})"))
    }

    /// Tries what is constant: it either always works or never.
    fn try_constants(&mut self, call: &CallExpr, operands: &[&IdedExpr]) {
        let name = call.func_name.as_str();
        let converts = matches!(name, "duration" | "timestamp" | "int" | "uint" | "double" | "bool");
        let Some(constant) = operands.last().filter(|_| converts || operands.len() == 2) else { return };
        let Some(text) = text_of(constant) else { return };
        if name == "matches" {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                return;
            }
        }
        let literal = |text: String| part(Expr::Literal(LiteralValue::String(text.into())));
        let (target, argument) = match name {
            "duration" => (None, literal(durations::in_hours(text).unwrap_or_default())),
            _ if converts => (None, literal(text.to_owned())),
            "matches" => (Some(literal(String::new())), literal(text.to_owned())),
            _ if name.starts_with("get") => {
                let zero = part(Expr::Literal(LiteralValue::Int(0.into())));
                (Some(called("timestamp", None, zero)), literal(text.to_owned()))
            }
            _ => return,
        };
        let tried = called(name, target, argument);
        if let Err(error) = cel::Value::resolve(&tried, &Context::with_env(environment())) {
            let (message, hint) = unreadable(name, text, &error);
            self.report("type", self.spans.whole(constant), message, hint);
        }
    }
}

fn part(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn called(function: &str, target: Option<IdedExpr>, argument: IdedExpr) -> IdedExpr {
    let target = target.map(Box::new);
    part(Expr::Call(CallExpr { func_name: function.to_owned(), target, args: vec![argument] }))
}

/// What is wrong with a constant, and what would be right.
fn unreadable(function: &str, text: &str, error: &ExecutionError) -> (String, Option<String>) {
    let text = shorten(text);
    let (what, hint) = match function {
        "duration" => ("a duration", "write it as in 90s, 15m, 6h, 2d or 1h30m"),
        "timestamp" => ("a time", "write it as in 2026-01-31T08:00:00Z"),
        "int" => ("a whole number", "write it as in 3"),
        "uint" => ("a whole number from 0", "write it as in 3"),
        "double" => ("a number", "write it as in 0.5"),
        "bool" => ("true or false", "write true or false"),
        "matches" => {
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            return (format!("`{text}` is not a regular expression: {}", shorten(reason)), None);
        }
        _ => ("a time zone", "write a name as in Europe/Berlin, or an offset as in +02:00"),
    };
    (format!("`{text}` is not {what}"), Some(hint.to_owned()))
}

/// How a function is written.
fn form(name: &str, way: &Signature) -> String {
    let arguments = ["x", "y"][..way.arguments().min(2)].join(", ");
    if way.is_method {
        let arguments = arguments.replace('x', "y");
        format!("x.{name}({arguments})")
    } else {
        format!("{name}({arguments})")
    }
}

/// The kinds in words, for what a function takes.
fn describe(kinds: Kinds) -> String {
    let rest = |kind: Kind| !Kinds::NUMBER.has(kind);
    let numbers = if Kinds::NUMBER.within(kinds) { Some(Type::Number.describe()) } else { None };
    let others = kinds.iter().filter(|kind| rest(*kind) || numbers.is_none());
    let mut words: Vec<String> = numbers.clone().into_iter().collect();
    words.extend(others.map(|kind| Type::of(Kinds::one(kind)).describe()));
    match words.as_slice() {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => words.concat(),
    }
}
