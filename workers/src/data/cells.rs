//! One column of some rows: typed values, and what stands where a value of that type should be. Must never happen here: a
//! text that is not of the type becoming a missing value.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{Array as _, ArrayRef};
use arrow_cast::parse::string_to_timestamp_nanos;
use serde_json::{Number, Value};

/// How much of an unreadable value is kept for a message, in characters.
const SHOWN_MAX: usize = 100;

/// What the values of a column are read as. Each has one Arrow type, whatever the file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Text: `Utf8`. Anything can be read as text.
    Text,
    /// Whole numbers: `Int64`.
    Integer,
    /// Numbers: `Float64`, never NaN (that is a missing value).
    Number,
    /// True and false: `Boolean`.
    Boolean,
    /// Instants: `Timestamp(Millisecond)`, UTC.
    Timestamp,
}

impl Kind {
    /// For messages: a value of this kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Timestamp => "a time",
        }
    }

    /// What a text in a CSV file, or in quotes in JSON, is most narrowly. Text where it is nothing else.
    pub(crate) fn of_text(text: &str) -> Self {
        if text.parse::<i64>().is_ok() {
            Self::Integer
        } else if number(text).is_some() {
            Self::Number
        } else if boolean(text).is_some() {
            Self::Boolean
        } else if instant(text).is_some() {
            Self::Timestamp
        } else {
            Self::Text
        }
    }

    /// The narrowest kind that holds values of both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Integer, Self::Number) | (Self::Number, Self::Integer) => Self::Number,
            (
                Self::Text | Self::Integer | Self::Number | Self::Boolean | Self::Timestamp,
                Self::Text | Self::Integer | Self::Number | Self::Boolean | Self::Timestamp,
            ) => Self::Text,
        }
    }
}

/// One column of a batch of rows.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    /// The values, of the kind's Arrow type; null where one is missing or unreadable.
    pub(crate) values: ArrayRef,
    /// Where something stands that is not of the kind, in ascending order, and what it is.
    pub(crate) unreadable: Vec<(usize, String)>,
}

impl Cells {
    /// How many values are missing: empty in CSV, absent or null in JSON, null or NaN in Parquet.
    pub(crate) fn missing(&self) -> usize {
        self.values.null_count() - self.unreadable.len()
    }
}

enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMillisecondBuilder),
}

/// Gathers the values of one column.
pub(super) struct CellsBuilder {
    values: Values,
    unreadable: Vec<(usize, String)>,
    rows: usize,
}

impl CellsBuilder {
    pub(super) fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Text => Values::Text(StringBuilder::new()),
            Kind::Integer => Values::Integer(Int64Builder::new()),
            Kind::Number => Values::Number(Float64Builder::new()),
            Kind::Boolean => Values::Boolean(BooleanBuilder::new()),
            Kind::Timestamp => Values::Timestamp(TimestampMillisecondBuilder::new()),
        };
        Self { values, unreadable: Vec::new(), rows: 0 }
    }

    /// How many values it has.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push_missing(&mut self) {
        self.rows += 1;
        match &mut self.values {
            Values::Text(values) => values.append_null(),
            Values::Integer(values) => values.append_null(),
            Values::Number(values) => values.append_null(),
            Values::Boolean(values) => values.append_null(),
            Values::Timestamp(values) => values.append_null(),
        }
    }

    /// What cannot be read as the column's kind, whatever that is.
    pub(super) fn push_unreadable(&mut self, text: &str) {
        self.unreadable.push((self.rows, text.chars().take(SHOWN_MAX).collect()));
        self.push_missing();
    }

    /// A text that may stand for a value of another kind, as in CSV.
    pub(super) fn push_written(&mut self, text: &str) {
        let read = match &mut self.values {
            Values::Text(values) => {
                values.append_value(text);
                true
            }
            Values::Integer(values) => integer(text).map(|value| values.append_value(value)).is_some(),
            Values::Number(values) => match number(text) {
                Some(value) if value.is_nan() => return self.push_missing(),
                value => value.map(|value| values.append_value(value)).is_some(),
            },
            Values::Boolean(values) => boolean(text).map(|value| values.append_value(value)).is_some(),
            Values::Timestamp(values) => instant(text).map(|value| values.append_value(value)).is_some(),
        };
        if read { self.rows += 1 } else { self.push_unreadable(text) }
    }

    /// A JSON value: text in quotes is no number there.
    pub(super) fn push_json(&mut self, value: &Value) {
        let read = match (&mut self.values, value) {
            (_, Value::Null) => return self.push_missing(),
            (Values::Text(values), Value::String(text)) => {
                values.append_value(text);
                true
            }
            (Values::Text(values), value) => {
                values.append_value(value.to_string());
                true
            }
            (Values::Integer(values), Value::Number(number)) => {
                whole(number).map(|value| values.append_value(value)).is_some()
            }
            (Values::Number(values), Value::Number(number)) => {
                number.as_f64().map(|value| values.append_value(value)).is_some()
            }
            (Values::Boolean(values), Value::Bool(value)) => {
                values.append_value(*value);
                true
            }
            (Values::Timestamp(values), Value::String(text)) => {
                instant(text).map(|value| values.append_value(value)).is_some()
            }
            (Values::Integer(_) | Values::Number(_) | Values::Boolean(_) | Values::Timestamp(_), _) => false,
        };
        match value {
            _ if read => self.rows += 1,
            Value::String(text) => self.push_unreadable(text),
            other => self.push_unreadable(&other.to_string()),
        }
    }

    pub(super) fn finish(self) -> Cells {
        let values: ArrayRef = match self.values {
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::Integer(mut values) => Arc::new(values.finish()),
            Values::Number(mut values) => Arc::new(values.finish()),
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Timestamp(mut values) => Arc::new(values.finish()),
        };
        Cells { values, unreadable: self.unreadable }
    }
}

/// What a JSON value is most narrowly; none of null.
pub(super) fn kind_of_json(value: &Value) -> Option<Kind> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(Kind::Boolean),
        Value::Number(number) if number.is_i64() => Some(Kind::Integer),
        Value::Number(_) => Some(Kind::Number),
        Value::String(text) => Some(if instant(text).is_some() { Kind::Timestamp } else { Kind::Text }),
        Value::Array(_) | Value::Object(_) => Some(Kind::Text),
    }
}

/// Beyond this, not every whole number has a `f64`.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A number that is whole, as one.
pub(super) fn whole_of(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "whole and within what f64 holds exactly")]
    (number.fract() == 0.0 && number.abs() <= WHOLE_MAX).then_some(number as i64)
}

fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| number.as_f64().and_then(whole_of))
}

fn integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| number(text).and_then(whole_of))
}

fn number(text: &str) -> Option<f64> {
    // What Rust reads as infinite because it is too large for a `f64` is no number of the data's.
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() || !text.contains(|c: char| c.is_ascii_digit()))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Milliseconds since the Unix epoch of an RFC 3339 time; a date alone is its midnight, and what has no offset is UTC.
fn instant(text: &str) -> Option<i64> {
    // Numbers alone are no times, whatever else might be read into them.
    text.contains('-').then(|| string_to_timestamp_nanos(text).ok())?.map(|nanos| nanos.div_euclid(1_000_000))
}
