//! Between JSON and CEL: values in, values out, and evaluation errors in words. Must never happen here: a number that
//! is not finite, or a value without a JSON form, leaving as something else.

use std::collections::HashMap;

use cel::ExecutionError;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde_json::{Map, Number, Value};

use super::{ExpressionError, Scope, Type, shorten};

/// A JSON value as CEL sees it: whole numbers as int (uint beyond 2^63), others as double. Text is borrowed.
pub(super) fn from_json(value: &Value) -> Box<dyn Val + '_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(bool) => Box::new(CelBool::from(*bool)),
        Value::Number(number) => {
            if let Some(int) = number.as_i64() {
                Box::new(CelInt::from(int))
            } else if let Some(uint) = number.as_u64() {
                Box::new(CelUInt::from(uint))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(from_json).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let fields: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = fields
                .iter()
                .map(|(name, value)| (CelMapKey::from(name.as_str()), from_json(value)))
                .collect();
            Box::new(CelMap::from(fields))
        }
    }
}

/// A CEL value as JSON; else what it is that has no JSON form.
pub(super) fn to_json(value: &cel::Value) -> Result<Value, &'static str> {
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(bool) => Value::Bool(*bool),
        cel::Value::Int(int) => Value::from(*int),
        cel::Value::UInt(uint) => Value::from(*uint),
        cel::Value::Float(double) => {
            Value::Number(Number::from_f64(*double).ok_or("a number that is not finite")?)
        }
        cel::Value::String(text) => Value::String(text.to_string()),
        cel::Value::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        cel::Value::Map(map) => {
            let mut fields = Map::new();
            for (key, value) in map.map.iter() {
                fields.insert(key.to_string(), to_json(value)?);
            }
            // A CEL map has no order of its own; sorted, the same expression always gives the same text.
            fields.sort_keys();
            Value::Object(fields)
        }
        cel::Value::Timestamp(time) => Value::String(time.to_rfc3339()),
        cel::Value::Duration(duration) => Value::String(seconds(duration.num_milliseconds())),
        cel::Value::Bytes(_) => return Err("bytes"),
        cel::Value::Function(..) => return Err("a function"),
        cel::Value::Opaque(_) => return Err("an opaque value"),
        cel::Value::Struct(_) => return Err("a struct"),
    })
}

/// `90s`, `1.5s`: how CEL writes a duration, to the millisecond.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let (whole, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    let fraction = match rest {
        0 => String::new(),
        rest => format!(".{rest:03}").trim_end_matches('0').to_owned(),
    };
    format!("{sign}{whole}{fraction}s")
}

/// An evaluation error in the words of the person who wrote the expression.
pub(super) fn explain(source: &str, error: &ExecutionError, scope: &Scope) -> ExpressionError {
    let at =
        |name: &str, message| ExpressionError { offset: source.find(name), ..ExpressionError::new(message) };
    if let ExecutionError::NoSuchKey(key) = error {
        if let Some(why) = scope.failed_with.get(&**key).filter(|_| source.contains("with")) {
            return at(key, format!("`with.{key}` has no value: {why}"));
        }
        let message =
            format!("`{}`: there is no `{key}`; guard it with has() if it may be missing", shorten(source));
        return at(key, message);
    }
    if let ExecutionError::UndeclaredReference(name) = error {
        return at(name, format!("`{}`: `{name}` is not known here", shorten(source)));
    }
    if let ExecutionError::UnexpectedType { got, want } = error {
        let (got, want) = (words(got), words(want));
        return ExpressionError::new(format!("`{}`: found {got} where {want} is needed", shorten(source)));
    }
    if let ExecutionError::NoSuchOverload(overload) = error {
        let types: Vec<&str> = overload.argument_types().iter().map(String::as_str).collect();
        let name = overload.function().trim_matches('_').trim_start_matches('@');
        return ExpressionError::new(format!("`{}`: {}", shorten(source), not_applied(name, &types)));
    }
    if let ExecutionError::UnsupportedBinaryOperator(operator, left, right) = error {
        let types = [type_name(left), type_name(right)];
        let symbol = match *operator {
            "add" => "+",
            "sub" => "-",
            "mul" => "*",
            "div" => "/",
            "rem" => "%",
            other => other,
        };
        return ExpressionError::new(format!("`{}`: {}", shorten(source), not_applied(symbol, &types)));
    }
    // Other errors quote the values, which may be long and are other people's.
    ExpressionError::new(format!("`{}`: {}", shorten(source), shorten(&error.to_string())))
}

/// An operator or a function that does not take values of these types.
fn not_applied(name: &str, types: &[&str]) -> String {
    let given: Vec<String> = types.iter().map(|name| words(name)).collect();
    let told = format!("`{name}` cannot be applied to {}", given.join(" and "));
    let are_numbers = types.len() == 2 && types.iter().all(|name| matches!(*name, "int" | "uint" | "double"));
    match name {
        "%" if are_numbers => format!("{told}: it is for whole numbers of one kind, as in int(x) % 2"),
        _ if are_numbers => {
            format!(
                "{told}: numbers of different kinds are not mixed; make them one kind, as in double(x) * 2.0"
            )
        }
        _ => told,
    }
}

/// What the library calls the type of a value.
fn type_name(value: &cel::Value) -> &'static str {
    match value {
        cel::Value::Null => "null_type",
        cel::Value::Bool(_) => "bool",
        cel::Value::Int(_) => "int",
        cel::Value::UInt(_) => "uint",
        cel::Value::Float(_) => "double",
        cel::Value::String(_) => "string",
        cel::Value::Bytes(_) => "bytes",
        cel::Value::Timestamp(_) => "google.protobuf.Timestamp",
        cel::Value::Duration(_) => "google.protobuf.Duration",
        cel::Value::List(_) => "list",
        cel::Value::Map(_) => "map",
        cel::Value::Function(..) => "a function",
        cel::Value::Opaque(_) => "an opaque value",
        cel::Value::Struct(_) => "a struct",
    }
}

/// A type of the library in the words of the checks.
fn words(name: &str) -> String {
    let known = match name {
        "null_type" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn),
        "type" => Type::Kind,
        other => return other.to_owned(),
    };
    known.describe()
}
