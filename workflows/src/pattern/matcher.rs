//! What one entry of a field's list accepts: a literal or an operator. Looks at one scalar; knows nothing of where in
//! the event it stands.

use std::net::Ipv6Addr;

use serde_json::{Number, Value};

use super::network::Network;
use super::number::{compare, equal, survives_f64};
use super::text::{Caseless, Wildcard};
use crate::definition::diagnostics::closest;

/// The operators of the language.
pub(super) const OPERATORS: [&str; 9] = [
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "anything-but",
    "numeric",
    "exists",
    "cidr",
    "exactly",
];

/// The operators that may stand inside `anything-but`.
pub(super) const EXCLUDABLE: [&str; 4] = ["prefix", "suffix", "equals-ignore-case", "wildcard"];

/// A literal or an operator.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Matcher {
    /// `null`, `true`, `false`.
    Constant(Value),
    /// A number, by its value: 5 is 5.0.
    Number(Number),
    /// A string, and `{exactly: s}`.
    Text(String),
    /// An IPv6 address, however it is spelled.
    Address(Ipv6Addr),
    /// `{equals-ignore-case: s}`.
    IgnoreCase(Caseless),
    /// `{prefix: s}`.
    Prefix(String),
    /// `{prefix: {equals-ignore-case: s}}`.
    PrefixIgnoreCase(Caseless),
    /// `{suffix: s}`.
    Suffix(String),
    /// `{suffix: {equals-ignore-case: s}}`.
    SuffixIgnoreCase(Caseless),
    /// `{wildcard: s}`.
    Wildcard(Wildcard),
    /// `{cidr: s}`.
    Network(Network),
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

    /// How many values this compares with, for the bound on a pattern's size.
    pub(super) fn size(&self) -> usize {
        if let Self::AnythingBut(these) = self { these.len() } else { 1 }
    }

    fn text(text: &str) -> Self {
        // Only IPv6 has several spellings of one address.
        text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Address)
    }

    fn operator(operator: &str, operand: &Value) -> Result<Self, String> {
        match operator {
            "prefix" => affix(operator, operand, Self::Prefix, Self::PrefixIgnoreCase),
            "suffix" => affix(operator, operand, Self::Suffix, Self::SuffixIgnoreCase),
            "equals-ignore-case" => Ok(Self::IgnoreCase(Caseless::new(string(operator, operand)?))),
            "wildcard" => wildcard(string(operator, operand)?),
            "anything-but" => anything_but(operand).map(Self::AnythingBut),
            "numeric" => numeric(operand),
            "exists" => match operand {
                Value::Bool(exists) => Ok(Self::Exists(*exists)),
                Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    Err(format!("`exists` takes true or false, not {operand}"))
                }
            },
            "cidr" => {
                let text = string(operator, operand)?;
                Network::parse(text).map(Self::Network).ok_or_else(|| {
                    format!("`{text}` is no network: write an address and its bits, as in 10.0.0.0/8 or 2001:db8::/32")
                })
            }
            "exactly" => Ok(Self::Text(string(operator, operand)?.to_owned())),
            other => Err(match closest(other, OPERATORS) {
                Some(near) => format!("there is no operator `{other}`; did you mean `{near}`?"),
                None => format!("there is no operator `{other}`; the operators are {}", OPERATORS.join(", ")),
            }),
        }
    }

    /// Whether a scalar of an event is as this says. [`Matcher::Exists`] of false accepts nothing that is there.
    pub(super) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Constant(constant) => constant == value,
            Self::Number(number) => matches!(value, Value::Number(other) if equal(number, other)),
            Self::Text(text) => value.as_str() == Some(text),
            Self::Address(address) => value.as_str().and_then(|text| text.parse().ok()) == Some(*address),
            Self::IgnoreCase(caseless) => value.as_str().is_some_and(|text| caseless.equals(text)),
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::PrefixIgnoreCase(prefix) => value.as_str().is_some_and(|text| prefix.starts(text)),
            Self::Suffix(suffix) => value.as_str().is_some_and(|text| text.ends_with(suffix)),
            Self::SuffixIgnoreCase(suffix) => value.as_str().is_some_and(|text| suffix.ends(text)),
            Self::Wildcard(wildcard) => value.as_str().is_some_and(|text| wildcard.matches(text)),
            Self::Network(network) => value.as_str().is_some_and(|text| network.contains(text)),
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

fn string<'v>(operator: &str, operand: &'v Value) -> Result<&'v str, String> {
    operand.as_str().ok_or_else(|| match operand {
        Value::Array(_) => {
            format!("`{operator}` takes one string: write [{{{operator}: …}}, {{{operator}: …}}] for either")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            format!("`{operator}` takes one string, not {operand}")
        }
    })
}

/// `prefix` or `suffix`, of a string or of one whose case does not count.
fn affix(
    operator: &str,
    operand: &Value,
    plain: fn(String) -> Matcher,
    ignore_case: fn(Caseless) -> Matcher,
) -> Result<Matcher, String> {
    let Value::Object(inner) = operand else {
        return Ok(plain(string(operator, operand)?.to_owned()));
    };
    match (inner.len(), inner.get("equals-ignore-case")) {
        (1, Some(text)) => Ok(ignore_case(Caseless::new(string("equals-ignore-case", text)?))),
        (_, _) => Err(format!("`{operator}` takes one string or {{equals-ignore-case: …}}, not {operand}")),
    }
}

fn wildcard(text: &str) -> Result<Matcher, String> {
    Wildcard::parse(text).map(Matcher::Wildcard).map_err(|wrong| format!("wildcard `{text}`: {wrong}"))
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
        let operators = EXCLUDABLE.join(", ");
        format!(
            "`anything-but` takes strings or numbers (not mixed, at least one), or one of {operators}, not {operand}"
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
            match (entries.next(), entries.next()) {
                (Some((operator, operand)), None) => anything_but_operator(operator, operand),
                (_, _) => Err(wrong()),
            }
        }
        Value::Null | Value::Bool(_) => Err(wrong()),
    }
}

/// An operator inside `anything-but`, of one string or of several.
fn anything_but_operator(operator: &str, operand: &Value) -> Result<Vec<Matcher>, String> {
    if !EXCLUDABLE.contains(&operator) {
        let hint = match closest(operator, EXCLUDABLE) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("inside `anything-but` stands one of {}", EXCLUDABLE.join(", ")),
        };
        return Err(format!("`{operator}` does not go inside `anything-but`; {hint}"));
    }
    let operands = match operand {
        Value::Array(items) => items.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(operand)
        }
    };
    if operands.is_empty() {
        return Err(format!("the list of `{operator}` inside `anything-but` is empty: name what to exclude"));
    }
    let matcher = |operand: &Value| {
        let Value::String(text) = operand else {
            return Err(format!("`{operator}` inside `anything-but` takes strings, not {operand}"));
        };
        if text.is_empty() && matches!(operator, "prefix" | "suffix") {
            return Err(format!(
                "an empty `{operator}` inside `anything-but` would exclude every string: name what to exclude"
            ));
        }
        Matcher::operator(operator, operand)
    };
    operands.iter().map(matcher).collect()
}
