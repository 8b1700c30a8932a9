//! What one entry of a field's list accepts: a literal or an operator. Looks at one scalar; knows nothing of where in
//! the event it stands.

use std::net::Ipv6Addr;

use serde_json::{Number, Value};

use super::number::{compare, equal, survives_f64};

/// The operators of EventBridge that are known and refused for now.
const LATER: [&str; 4] = ["wildcard", "equals-ignore-case", "cidr", "exactly"];

/// A literal or an operator.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Matcher {
    /// `null`, `true`, `false`.
    Constant(Value),
    /// A number, by its value: 5 is 5.0.
    Number(Number),
    /// A string.
    Text(String),
    /// An IPv6 address, however it is spelled.
    Address(Ipv6Addr),
    /// `{prefix: s}`.
    Prefix(String),
    /// `{suffix: s}`.
    Suffix(String),
    /// `{numeric: [op, n, …]}`: all bounds hold.
    Numeric(Vec<(Comparison, Number)>),
    /// `{anything-but: …}`: there, and none of these.
    AnythingBut(Vec<Matcher>),
    /// `{exists: …}`.
    Exists(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Matcher {
    /// Parses one entry of a field's list. The error is what is wrong and what would be right.
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null | Value::Bool(_) => Ok(Self::Constant(value.clone())),
            Value::Number(number) => Ok(Self::Number(number.clone())),
            Value::String(text) => Ok(Self::text(text)),
            Value::Array(_) => Err("a list in a list: name the values side by side".to_owned()),
            Value::Object(object) => {
                let mut entries = object.iter();
                match (entries.next(), entries.next()) {
                    (Some((operator, operand)), None) => Self::operator(operator, operand),
                    (None, _) => Err("an operator is missing, as in {prefix: \"eu-\"}".to_owned()),
                    (Some(_), Some(_)) => {
                        Err("one operator in one object: write [{…}, {…}] for either".to_owned())
                    }
                }
            }
        }
    }

    fn text(text: &str) -> Self {
        // Only IPv6 has several spellings of one address.
        text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Address)
    }

    fn operator(operator: &str, operand: &Value) -> Result<Self, String> {
        match operator {
            "prefix" => Ok(Self::Prefix(string(operator, operand)?)),
            "suffix" => Ok(Self::Suffix(string(operator, operand)?)),
            "exists" => match operand {
                Value::Bool(exists) => Ok(Self::Exists(*exists)),
                Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    Err(format!("`exists` takes true or false, not {operand}"))
                }
            },
            "numeric" => numeric(operand),
            "anything-but" => anything_but(operand).map(Self::AnythingBut),
            later if LATER.contains(&later) => Err(format!("`{later}` is not supported yet")),
            other => Err(format!(
                "there is no operator `{other}`; the operators are prefix, suffix, anything-but, numeric and exists"
            )),
        }
    }

    /// Whether a scalar of an event is as this says. [`Matcher::Exists`] of false accepts nothing that is there.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Constant(constant) => constant == value,
            Self::Number(number) => matches!(value, Value::Number(other) if equal(number, other)),
            Self::Text(text) => value.as_str() == Some(text),
            Self::Address(address) => value.as_str().and_then(|text| text.parse().ok()) == Some(*address),
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::Suffix(suffix) => value.as_str().is_some_and(|text| text.ends_with(suffix)),
            Self::Numeric(bounds) => match value {
                Value::Number(number) => {
                    bounds.iter().all(|(comparison, bound)| comparison.holds(number, bound))
                }
                Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => false,
            },
            Self::AnythingBut(these) => !these.iter().any(|matcher| matcher.accepts(value)),
            Self::Exists(exists) => *exists,
        }
    }
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, value: &Number, bound: &Number) -> bool {
        let order = compare(value, bound);
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    fn is_lower(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterOrEqual)
    }

    fn is_upper(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual)
    }
}

fn string(operator: &str, operand: &Value) -> Result<String, String> {
    match operand {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => Err(format!("`{operator}` with an operator inside is not supported yet")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err(format!("`{operator}` takes one string, not {operand}"))
        }
    }
}

fn numeric(operand: &Value) -> Result<Matcher, String> {
    let wrong = || {
        format!(
            "`numeric` takes a comparison and a number, or a lower and an upper bound, as in [\">\", 0, \"<=\", 5], not {operand}"
        )
    };
    let items = operand.as_array().ok_or_else(wrong)?;
    let bounds = items
        .chunks(2)
        .map(|pair| match pair {
            [Value::String(comparison), Value::Number(number)] => {
                let comparison = Comparison::parse(comparison)
                    .ok_or_else(|| format!("`{comparison}` is not a comparison: use =, <, <=, > or >="))?;
                bounded(number)?;
                Ok((comparison, number.clone()))
            }
            _ => Err(wrong()),
        })
        .collect::<Result<Vec<_>, String>>()?;
    match bounds.as_slice() {
        [_] => Ok(Matcher::Numeric(bounds)),
        [(lower, bottom), (upper, top)] if lower.is_lower() && upper.is_upper() => {
            if compare(bottom, top).is_lt() {
                Ok(Matcher::Numeric(bounds))
            } else {
                Err(format!("nothing lies between {bottom} and {top}"))
            }
        }
        [_, _] => {
            Err("two bounds are a lower one, then an upper one, as in [\">\", 0, \"<=\", 5]".to_owned())
        }
        _ => Err(wrong()),
    }
}

/// Numbers that a double cannot hold would be compared with something else by every other reader of the pattern.
fn bounded(number: &Number) -> Result<(), String> {
    if survives_f64(number) { Ok(()) } else { Err(format!("{number} is too large to be compared exactly")) }
}

fn anything_but(operand: &Value) -> Result<Vec<Matcher>, String> {
    let wrong = || {
        format!(
            "`anything-but` takes strings or numbers (not mixed), or {{prefix: …}} or {{suffix: …}}, not {operand}"
        )
    };
    match operand {
        Value::String(text) => Ok(vec![Matcher::text(text)]),
        Value::Number(number) => bounded(number).map(|()| vec![Matcher::Number(number.clone())]),
        Value::Array(items) => {
            let all_text = items.iter().all(Value::is_string);
            let all_numbers = items.iter().all(Value::is_number);
            if items.is_empty() || !(all_text || all_numbers) {
                return Err(wrong());
            }
            items.iter().filter_map(Value::as_number).try_for_each(bounded)?;
            items.iter().map(Matcher::parse).collect()
        }
        Value::Object(object) => {
            let mut entries = object.iter();
            let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
                return Err(wrong());
            };
            if LATER.contains(&operator.as_str()) {
                return Err(format!("`{operator}` is not supported yet"));
            }
            let build = match operator.as_str() {
                "prefix" => Matcher::Prefix,
                "suffix" => Matcher::Suffix,
                _ => return Err(wrong()),
            };
            let texts = match operand {
                Value::Array(items) => {
                    items.iter().map(|item| string(operator, item)).collect::<Result<Vec<_>, _>>()?
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                    vec![string(operator, operand)?]
                }
            };
            if texts.is_empty() || texts.iter().any(String::is_empty) {
                return Err(format!(
                    "`{operator}` inside `anything-but` must not be empty: nothing could match"
                ));
            }
            Ok(texts.into_iter().map(build).collect())
        }
        Value::Null | Value::Bool(_) => Err(wrong()),
    }
}
