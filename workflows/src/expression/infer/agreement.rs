//! The check of types against the evaluator: its tables entry by entry, and random expressions over random values.

use std::cell::Cell;

use cel::ExecutionError;
use cel::common::ast::operators;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use super::super::cost::Meter;
use super::super::kinds::{self, Kind, Kinds};
use super::super::{Expression, FUNCTIONS, Scope, Type, Types};

/// An expression that gives a value of each kind.
fn sample(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Bool => "true",
        Kind::Int => "1",
        Kind::Uint => "1u",
        Kind::Double => "1.5",
        Kind::String => "'1'",
        Kind::Bytes => "b'1'",
        Kind::Timestamp => "timestamp(0)",
        Kind::Duration => "duration('1s')",
        Kind::List => "[1]",
        Kind::Map => "{'a': 1}",
        Kind::Type => "type(1)",
    }
}

fn run(source: &str, roots: Map<String, Value>) -> Result<cel::Value, ExecutionError> {
    let expression = Expression::parse(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    expression.run(&Scope { roots, ..Scope::default() }, &Meter::default())
}

/// Whether an evaluation failed for the types of the values, not for the values.
fn is_type_error(error: &ExecutionError) -> bool {
    !matches!(
        error,
        ExecutionError::NoSuchKey(_)
            | ExecutionError::DuplicateKey(_)
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::FunctionError { .. }
    )
}

fn kind_of(value: &cel::Value) -> Kind {
    match value {
        cel::Value::Null => Kind::Null,
        cel::Value::Bool(_) => Kind::Bool,
        cel::Value::Int(_) => Kind::Int,
        cel::Value::UInt(_) => Kind::Uint,
        cel::Value::Float(_) => Kind::Double,
        cel::Value::String(_) => Kind::String,
        cel::Value::Bytes(_) => Kind::Bytes,
        cel::Value::Timestamp(_) => Kind::Timestamp,
        cel::Value::Duration(_) => Kind::Duration,
        cel::Value::List(_) => Kind::List,
        cel::Value::Map(_) => Kind::Map,
        cel::Value::Function(..) | cel::Value::Opaque(_) | cel::Value::Struct(_) => panic!("{value:?}"),
    }
}

/// What an expression over constants gives; none when the evaluator refuses the types.
fn evaluated(source: &str) -> Option<Option<Kind>> {
    match run(source, Map::new()) {
        Ok(value) => Some(Some(kind_of(&value))),
        Err(error) if is_type_error(&error) => None,
        Err(_) => Some(None),
    }
}

#[test]
fn operators_do_what_the_tables_say() {
    let pairs = || Kind::ALL.into_iter().flat_map(|left| Kind::ALL.map(|right| (left, right)));
    for (left, right) in pairs() {
        let source = |operator: &str| format!("{} {operator} {}", sample(left), sample(right));
        for (operator, name) in [
            ("+", operators::ADD),
            ("-", operators::SUBSTRACT),
            ("*", operators::MULTIPLY),
            ("/", operators::DIVIDE),
            ("%", operators::MODULO),
        ] {
            let source = source(operator);
            assert_eq!(evaluated(&source).flatten(), kinds::arithmetic(name, left, right), "{source}");
        }
        for operator in ["<", "<=", ">", ">="] {
            let source = source(operator);
            assert_eq!(evaluated(&source).is_some(), kinds::has_order(left, right), "{source}");
        }
        assert_eq!(evaluated(&source("==")), Some(Some(Kind::Bool)), "{left:?} {right:?}");
        if !kinds::may_equal(left, right) {
            assert_eq!(run(&source("=="), Map::new()), Ok(false.into()), "{left:?} {right:?}");
        }
    }
    for kind in Kind::ALL {
        let value = sample(kind);
        let is = |source: String| evaluated(&source).is_some();
        assert_eq!(is(format!("!{value}")), kind == Kind::Bool, "{kind:?}");
        assert_eq!(is(format!("-{value}")), matches!(kind, Kind::Int | Kind::Double), "{kind:?}");
        assert_eq!(is(format!("{value} ? 1 : 2")), kind == Kind::Bool, "{kind:?}");
        assert_eq!(is(format!("{value}.all(x, true)")), Kinds::CONTAINER.has(kind), "{kind:?}");
        assert_eq!(is(format!("1 in {value}")), Kinds::CONTAINER.has(kind), "{kind:?}");
        assert_eq!(is(format!("dyn({value}).a")), kind == Kind::Map, "{kind:?}");
        assert_eq!(is(format!("{{{value}: 1}}")), Kinds::KEY.has(kind), "{kind:?}");
        assert_eq!(
            is(format!("[1, 2][{value}]")) && kind != Kind::Double,
            Kinds::WHOLE.has(kind),
            "{kind:?}"
        );
    }
}

#[test]
fn functions_take_what_the_tables_say() {
    let macros = ["all", "exists", "existsOne", "exists_one", "filter", "has", "map"];
    let mut known = 0;
    for name in FUNCTIONS.into_iter().filter(|name| !macros.contains(name)) {
        let ways = kinds::signatures(name);
        assert!(!ways.is_empty(), "{name}");
        if matches!(name, "always" | "failed" | "succeeded") {
            continue;
        }
        known += 1;
        let singles = Kind::ALL.iter().map(|kind| vec![*kind]);
        let pairs = Kind::ALL.iter().flat_map(|a| Kind::ALL.iter().map(|b| vec![*a, *b]));
        let triples = Kind::ALL.iter().map(|kind| vec![*kind, Kind::String, Kind::String]);
        for operands in std::iter::once(vec![]).chain(singles).chain(pairs).chain(triples) {
            for is_method in [false, true] {
                if is_method && operands.is_empty() {
                    continue;
                }
                let texts: Vec<&str> = operands.iter().map(|kind| sample(*kind)).collect();
                let source = if is_method {
                    format!("({}).{name}({})", texts[0], texts[1..].join(", "))
                } else {
                    format!("{name}({})", texts.join(", "))
                };
                let way = ways.iter().find(|way| {
                    way.is_method == is_method
                        && way.takes.len() == operands.len()
                        && way.takes.iter().zip(&operands).all(|(takes, kind)| takes.has(*kind))
                });
                let gives = evaluated(&source);
                assert_eq!(gives.is_some(), way.is_some(), "{source}");
                if let (Some(Some(kind)), Some(way)) = (gives, way)
                    && name != "type"
                {
                    assert!(way.gives.has(kind), "{source} gives {kind:?}");
                }
            }
        }
    }
    assert_eq!(known, 25);
}

#[test]
fn what_is_refused_fails_or_is_false() {
    let roots = json!({"n": 3, "x": 0.5, "s": "3", "b": true, "l": ["a"], "m": {"k": 1}, "r": {"a": 1}, "t": "2026-01-31T08:00:00Z"});
    let Value::Object(roots) = roots else { unreachable!() };
    let types = Types::new()
        .with("n", Type::Int)
        .with("x", Type::Double)
        .with("s", Type::String)
        .with("b", Type::Bool)
        .with("l", Type::list(Type::String))
        .with("m", Type::map(Type::Int))
        .with("r", Type::record("r", [("a", Type::Int)]))
        .with("t", Type::String);
    for source in [
        "n == s",
        "n > s",
        "x == 'high'",
        "b == 'true'",
        "b == 1",
        "l == 'a'",
        "m == l",
        "s == null + 1",
        "n + x",
        "n * 2.0",
        "s + n",
        "x % 2.0",
        "b + b",
        "m + m",
        "-s",
        "!n",
        "!s",
        "n ? 1 : 2",
        "n && b",
        "b && s",
        "n || false",
        "'a' in s",
        "3 in l",
        "3 in m",
        "b in r",
        "l['a']",
        "m[0]",
        "r[n]",
        "n[0]",
        "s.a",
        "n.a",
        "l.a",
        "r.b",
        "r['b']",
        "has(s.a)",
        "has(n.a)",
        "s.all(c, true)",
        "n.map(c, c)",
        "l.all(c, c > 1)",
        "l.map(c, c + 1)",
        "l.filter(c, c)",
        "l.exists(c, c + 'a')",
        "{x: 1}",
        "{null: 1}",
        "size(n)",
        "n.size()",
        "s.startsWith(n)",
        "n.contains('a')",
        "contains(s, 'a')",
        "s.int()",
        "int()",
        "int(l)",
        "string(l)",
        "timestamp(x)",
        "duration(n)",
        "t.getHours()",
        "t > timestamp(t)",
        "t == timestamp(t)",
        "timestamp(t) + timestamp(t)",
        "timestamp(t) - n",
        "duration('1h') > 1",
        "duration('1h') * 2",
        "duration('1h').getHours('UTC')",
        "timestamp(t).getHours(1)",
        "timestamp(t).getHours('Mars')",
        "duration('x')",
        "s.matches('(')",
        "uint('-1')",
        "double('a')",
        "timestamp('2026-01-31')",
        "nothing",
        "l[x]",
        "matches(s)",
        "size(l, l)",
        "[1] == ['a']",
        "[n] + 1",
    ] {
        let expression = Expression::parse(source).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_ne!(expression.check(&types).problems, [], "{source}");
        let value = run(source, roots.clone());
        assert!(value.is_err() || value == Ok(false.into()), "{source} gives {value:?}");
    }
}

/// Choices that a test case makes, in order; the first choice once they are used up.
struct Choices<'c> {
    left: std::slice::Iter<'c, u8>,
}

impl Choices<'_> {
    fn of(&mut self, count: usize) -> usize {
        usize::from(self.left.next().copied().unwrap_or(0)) % count
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.of(from.len())].clone()
    }

    /// A type whose values JSON can hold.
    fn held(&mut self, depth: usize) -> Type {
        match self.of(if depth == 0 { 6 } else { 9 }) {
            0 => Type::Int,
            1 => Type::String,
            2 => Type::Double,
            3 => Type::Bool,
            4 => Type::Uint,
            5 => Type::Null,
            6 => Type::list(self.held(depth - 1)),
            7 => Type::map(self.held(depth - 1)),
            _ => Type::record("it", [("a", self.held(depth - 1)), ("b", self.held(depth - 1))]),
        }
    }

    fn any(&mut self, depth: usize) -> Type {
        match self.of(8) {
            0 => Type::Timestamp,
            1 => Type::Duration,
            2 => Type::Bytes,
            _ => self.held(depth),
        }
    }

    /// A value of a type that [`Choices::held`] gives.
    fn value(&mut self, of: &Type) -> Value {
        match of {
            Type::Null => Value::Null,
            Type::Bool => json!(self.of(2) == 0),
            Type::Int => json!(self.pick(&[0, 1, -2, 7, i64::MAX, i64::MIN])),
            Type::Uint => json!(self.pick(&[u64::MAX, 1 << 63])),
            Type::Double => json!(self.pick(&[0.0, 1.5, -2.0, 1e300])),
            Type::String => json!(self.pick(&["", "a", "3", "2026-01-31T08:00:00Z", "90s"])),
            Type::List(of) => (0..self.of(3)).map(|_| self.value(of)).collect(),
            Type::Map(of) => Value::Object(
                ["a", "k"][..self.of(3)].iter().map(|k| ((*k).to_owned(), self.value(of))).collect(),
            ),
            Type::Record(record) => {
                Value::Object(record.fields.iter().map(|(name, of)| (name.clone(), self.value(of))).collect())
            }
            Type::Dyn
            | Type::Scalar
            | Type::Number
            | Type::Word(_)
            | Type::Bytes
            | Type::Timestamp
            | Type::Duration
            | Type::Kind => panic!("{of:?} is not held by JSON"),
        }
    }

    /// An expression that mostly, but not always, is of the type.
    fn expression(&mut self, of: &Type, depth: usize, names: &mut Vec<(String, Type)>) -> String {
        if self.of(12) == 11 {
            let other = self.any(1);
            return self.of_type(&other, depth, names);
        }
        self.of_type(of, depth, names)
    }

    fn of_type(&mut self, of: &Type, depth: usize, names: &mut Vec<(String, Type)>) -> String {
        let fitting: Vec<String> =
            names.iter().filter(|(_, t)| t == of).map(|(name, _)| name.clone()).collect();
        if !fitting.is_empty() && self.of(3) == 0 {
            return self.pick(&fitting);
        }
        if depth == 0 {
            return self.constant(of);
        }
        let next = depth - 1;
        match self.of(6) {
            0 => {
                let condition = self.expression(&Type::Bool, next, names);
                let (yes, no) = (self.of_type(of, next, names), self.of_type(of, next, names));
                return format!("({condition} ? {yes} : {no})");
            }
            1 => {
                let list = self.expression(&Type::list(of.clone()), next, names);
                return format!("{list}[{}]", self.of(2));
            }
            _ => {}
        }
        let mut sub = |of: &Type, choices: &mut Self| choices.expression(of, next, names);
        match of {
            Type::Bool => match self.of(7) {
                0 => format!("!({})", sub(&Type::Bool, self)),
                1 => format!("({} && {})", sub(&Type::Bool, self), sub(&Type::Bool, self)),
                2 => format!("({} || {})", sub(&Type::Bool, self), sub(&Type::Bool, self)),
                3 => {
                    let both = self.any(1);
                    let operator = self.pick(&["==", "!=", "<", ">="]);
                    format!("({} {operator} {})", sub(&both, self), sub(&both, self))
                }
                4 => {
                    let item = self.held(0);
                    format!("({} in {})", sub(&item, self), sub(&Type::list(item.clone()), self))
                }
                5 => format!("({}).contains({})", sub(&Type::String, self), sub(&Type::String, self)),
                _ => {
                    let item = self.held(0);
                    let list = self.expression(&Type::list(item.clone()), next, names);
                    self.in_loop("exists", &list, item, &Type::Bool, next, names)
                }
            },
            Type::Int | Type::Double | Type::Uint => match self.of(6) {
                0 if *of == Type::Int => format!("size({})", sub(&Type::list(Type::Int), self)),
                1 if *of == Type::Int => format!("({}).getHours()", sub(&Type::Timestamp, self)),
                2 => {
                    let from = self.pick(&[Type::Int, Type::Double, Type::String]);
                    let to = [("int", Type::Int), ("double", Type::Double), ("uint", Type::Uint)];
                    let name = to.iter().find(|(_, to)| to == of).map_or("int", |(name, _)| name);
                    format!("{name}({})", sub(&from, self))
                }
                3 => format!("-({})", sub(of, self)),
                _ => {
                    let operator = self.pick(&["+", "-", "*", "/", "%"]);
                    format!("({} {operator} {})", sub(of, self), sub(of, self))
                }
            },
            Type::String => match self.of(2) {
                0 => {
                    let from = self.any(0);
                    format!("string({})", sub(&from, self))
                }
                _ => format!("({} + {})", sub(of, self), sub(of, self)),
            },
            Type::Timestamp => {
                let operator = self.pick(&["+", "-"]);
                format!("({} {operator} {})", sub(of, self), sub(&Type::Duration, self))
            }
            Type::Duration => format!("({} - {})", sub(&Type::Timestamp, self), sub(&Type::Timestamp, self)),
            Type::List(item) => {
                let from = self.held(0);
                let list = self.expression(&Type::list(from.clone()), next, names);
                match self.of(3) {
                    0 => format!("({} + {})", list, self.expression(&Type::list(from), next, names)),
                    1 => self.in_loop("filter", &list, from, &Type::Bool, next, names),
                    _ => self.in_loop("map", &list, from, item.as_ref(), next, names),
                }
            }
            Type::Dyn
            | Type::Scalar
            | Type::Null
            | Type::Number
            | Type::Word(_)
            | Type::Bytes
            | Type::Kind
            | Type::Map(_)
            | Type::Record(_) => self.constant(of),
        }
    }

    fn in_loop(
        &mut self,
        name: &str,
        list: &str,
        item: Type,
        body: &Type,
        depth: usize,
        names: &mut Vec<(String, Type)>,
    ) -> String {
        let variable = format!("v{}", names.len());
        names.push((variable.clone(), item));
        let body = self.expression(body, depth, names);
        names.pop();
        format!("{list}.{name}({variable}, {body})")
    }

    fn constant(&mut self, of: &Type) -> String {
        match of {
            Type::Timestamp => "timestamp('2026-01-31T08:00:00Z')".to_owned(),
            Type::Duration => "duration('2d')".to_owned(),
            Type::Bytes => "b'a'".to_owned(),
            Type::Uint => "7u".to_owned(),
            Type::Int => self.pick(&["0", "2", "-3"]).to_owned(),
            Type::Double => self.pick(&["0.0", "2.5", "-1.5"]).to_owned(),
            Type::List(of) => format!("[{}]", self.constant(of)),
            Type::Map(of) => format!("{{'k': {}}}", self.constant(of)),
            Type::Record(_) => "r".to_owned(),
            Type::Null | Type::Bool | Type::String => self.value(of).to_string(),
            Type::Dyn | Type::Scalar | Type::Number | Type::Word(_) | Type::Kind => {
                panic!("{of:?} is not asked for")
            }
        }
    }
}

/// Every path that can be read, with its type.
fn paths(name: &str, of: &Type, into: &mut Vec<(String, Type)>) {
    into.push((name.to_owned(), of.clone()));
    if let Type::Map(value) = of {
        paths(&format!("{name}.a"), value, into);
    }
    for (field, of) in of.as_record().into_iter().flat_map(|record| &record.fields) {
        paths(&format!("{name}.{field}"), of, into);
    }
}

#[test]
fn what_is_sound_never_ends_in_a_type_error() {
    let (sound, unsound, evaluated) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let cases = prop::collection::vec(any::<u8>(), 20..200);
    let result = runner.run(&cases, |bytes| {
        let mut choices = Choices { left: bytes.iter() };
        let (mut types, mut roots, mut names) = (Types::new(), Map::new(), Vec::new());
        for root in ["p", "q", "r"] {
            let of = choices.held(2);
            roots.insert(root.to_owned(), choices.value(&of));
            paths(root, &of, &mut names);
            types = types.with(root, of);
        }
        let wanted = choices.any(1);
        let source = choices.expression(&wanted, 4, &mut names);
        let Ok(expression) = Expression::parse(&source) else { return Ok(()) };
        let typing = expression.check(&types);
        for problem in &typing.problems {
            let place = source.get(problem.offset..problem.offset + problem.length);
            prop_assert!(place.is_some_and(|place| !place.is_empty()), "{}: {:?}", source, problem);
        }
        if !typing.problems.is_empty() {
            unsound.set(unsound.get() + 1);
            return Ok(());
        }
        if !typing.is_certain {
            return Ok(());
        }
        sound.set(sound.get() + 1);
        match expression.run(&Scope { roots: roots.clone(), ..Scope::default() }, &Meter::default()) {
            Err(error) => prop_assert!(!is_type_error(&error), "{}: {:?} over {:?}", source, error, roots),
            Ok(value) => {
                evaluated.set(evaluated.get() + 1);
                let fits = typing.result.kinds().has(kind_of(&value));
                prop_assert!(fits, "{}: {:?} is no {:?}", source, value, typing.result);
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (sound, unsound, evaluated) = (sound.get(), unsound.get(), evaluated.get());
    assert!(
        sound > 400 && unsound > 200 && evaluated > 300,
        "{sound} sound, {unsound} not, {evaluated} evaluated"
    );
}
