//! Types of values before there are any: what an expression may read, and what it gives. Owns the words in which types
//! are told to people; the rules of the language are in `infer` and `kinds`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kinds::{Kind, Kinds};

/// What is known of a value before it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing is known: data of an event, outputs of a step.
    Dyn,
    /// Text, a number, or true or false: an extension attribute of an event.
    Scalar,
    /// Only ever null.
    Null,
    /// True or false.
    Bool,
    /// A number; whether with or without a fraction depends on how it was written: a metric, a param of type `number`.
    Number,
    /// A whole number with a sign.
    Int,
    /// A whole number from 0, as `1u`.
    Uint,
    /// A number with a fraction, as `1.0`.
    Double,
    /// Text.
    String,
    /// Text that is one of a few words: the state of a run, the verdict of a gate.
    Word(&'static [&'static str]),
    /// Bytes, as `b"a"`.
    Bytes,
    /// A point in time, as from `timestamp(time)`.
    Timestamp,
    /// A length of time, as from `duration("90m")`.
    Duration,
    /// A type, as from `type(x)`.
    Kind,
    /// A list of such values.
    List(Arc<Type>),
    /// An object whose names are not known, of such values.
    Map(Arc<Type>),
    /// An object whose names are known.
    Record(Arc<Record>),
}

/// An object whose names are known, all of which it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name in messages: `a step`, `the run`.
    pub what: String,
    /// What it holds.
    pub fields: BTreeMap<String, Type>,
    /// What to do when a name is missing and none is near: `declare it under params`.
    pub hint: Option<String>,
}

impl Type {
    /// A list of such values.
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// An object of such values, whose names are not known.
    pub fn map(of: Self) -> Self {
        Self::Map(Arc::new(of))
    }

    /// An object with these names, called `what` in messages.
    pub fn record<N: Into<String>>(
        what: impl Into<String>,
        fields: impl IntoIterator<Item = (N, Self)>,
    ) -> Self {
        let fields = fields.into_iter().map(|(name, of)| (name.into(), of)).collect();
        Self::Record(Arc::new(Record { what: what.into(), fields, hint: None }))
    }

    /// The same, and what to do when a name is missing and none is near. Only records have names.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        match self.as_record() {
            Some(record) => {
                Self::Record(Arc::new(Record { hint: Some(hint.into()), ..record.as_ref().clone() }))
            }
            None => self,
        }
    }

    /// Whether what an expression of type `given` leaves behind may be used where this is wanted: it may be one, as
    /// far as is known. Times and durations leave an expression as text.
    pub fn accepts(&self, given: &Self) -> bool {
        let kinds = given.kinds();
        let becomes_text = kinds.meets(Kinds::BECOMES_TEXT);
        let text = if becomes_text { Kinds::one(Kind::String) } else { Kinds::NONE };
        self.kinds().meets(kinds.only(Kinds::VALUE).and(text))
    }

    /// The type in words, as it follows "is" or "must be": `a number`, `text`, `true or false`.
    pub fn describe(&self) -> String {
        let words = match self {
            Self::Dyn => "any value",
            Self::Scalar => "text, a number, or true or false",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Int => "a whole number",
            Self::Uint => "a whole number without a sign",
            Self::Double => "a number with a fraction",
            Self::String | Self::Word(_) => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "a time",
            Self::Duration => "a duration",
            Self::Kind => "a type",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
            Self::Record(record) => return record.what.clone(),
        };
        words.to_owned()
    }

    /// What a value of it may turn out to be.
    pub(super) fn kinds(&self) -> Kinds {
        Kinds::one(match self {
            Self::Dyn => return Kinds::ANY,
            Self::Scalar => return Kinds::SCALAR,
            Self::Number => return Kinds::NUMBER,
            Self::Null => Kind::Null,
            Self::Bool => Kind::Bool,
            Self::Int => Kind::Int,
            Self::Uint => Kind::Uint,
            Self::Double => Kind::Double,
            Self::String | Self::Word(_) => Kind::String,
            Self::Bytes => Kind::Bytes,
            Self::Timestamp => Kind::Timestamp,
            Self::Duration => Kind::Duration,
            Self::Kind => Kind::Type,
            Self::List(_) => Kind::List,
            Self::Map(_) | Self::Record(_) => Kind::Map,
        })
    }

    /// The most that is known of a value which may turn out to be one of `kinds`.
    pub(super) fn of(kinds: Kinds) -> Self {
        let mut each = kinds.iter();
        match (each.next(), each.next()) {
            (Some(one), None) => Self::of_kind(one),
            _ if kinds.within(Kinds::NUMBER) => Self::Number,
            _ if kinds.within(Kinds::SCALAR) => Self::Scalar,
            _ => Self::Dyn,
        }
    }

    fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::Null => Self::Null,
            Kind::Bool => Self::Bool,
            Kind::Int => Self::Int,
            Kind::Uint => Self::Uint,
            Kind::Double => Self::Double,
            Kind::String => Self::String,
            Kind::Bytes => Self::Bytes,
            Kind::Timestamp => Self::Timestamp,
            Kind::Duration => Self::Duration,
            Kind::List => Self::list(Self::Dyn),
            Kind::Map => Self::map(Self::Dyn),
            Kind::Type => Self::Kind,
        }
    }

    /// What is known of a value that is one of the two.
    pub(super) fn or(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        match (&self, &other) {
            (Self::List(one), Self::List(another)) => {
                Self::list(one.as_ref().clone().or(another.as_ref().clone()))
            }
            (Self::Map(one), Self::Map(another)) => {
                Self::map(one.as_ref().clone().or(another.as_ref().clone()))
            }
            _ => Self::of(self.kinds().and(other.kinds())),
        }
    }

    /// Whether values of the two can be equal. Null is compared with everything: much may be missing.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        if let (Self::List(one), Self::List(another)) | (Self::Map(one), Self::Map(another)) = (self, other) {
            return one.may_equal(another);
        }
        let (one, another) = (self.kinds(), other.kinds());
        one.has(Kind::Null)
            || another.has(Kind::Null)
            || one.iter().any(|left| another.iter().any(|right| super::kinds::may_equal(left, right)))
    }

    /// What a loop over it gives its variable, if it can be gone over.
    pub(super) fn element(&self) -> Option<Self> {
        if let Self::List(element) = self {
            return Some(element.as_ref().clone());
        }
        if matches!(self, Self::Map(_) | Self::Record(_)) {
            return Some(Self::String);
        }
        self.kinds().meets(Kinds::CONTAINER).then_some(Self::Dyn)
    }

    pub(super) fn as_record(&self) -> Option<&Arc<Record>> {
        if let Self::Record(record) = self { Some(record) } else { None }
    }

    /// Whether a value of it is of one kind, with all that it holds: nothing is left to be found out.
    pub(super) fn is_certain(&self) -> bool {
        if let Self::List(of) | Self::Map(of) = self { of.is_certain() } else { self.kinds().is_one() }
    }
}

/// The names an expression may read.
#[derive(Clone, Debug, Default)]
pub struct Types {
    roots: BTreeMap<String, Type>,
    others: Option<Type>,
}

impl Types {
    /// No names at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more name: `params`, `steps`, or an attribute of an event.
    #[must_use]
    pub fn with(mut self, root: impl Into<String>, of: Type) -> Self {
        self.roots.insert(root.into(), of);
        self
    }

    /// The same, and every other name may be read as well and is of this type. Without it, another name is a problem.
    #[must_use]
    pub fn with_others(mut self, of: Type) -> Self {
        self.others = Some(of);
        self
    }

    /// What is known of a name.
    pub fn root(&self, name: &str) -> Option<&Type> {
        self.roots.get(name).or(self.others.as_ref())
    }

    /// The names, without those that may be read besides.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.roots.keys().map(String::as_str)
    }
}

/// What is wrong with an expression's types, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeProblem {
    /// `unknown-name` for a name that does not exist, `unknown-word` for a text that a name with few values never has,
    /// `type` for everything else.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What would be right, when that is known.
    pub hint: Option<String>,
    /// Where it begins, in bytes of [`Expression::source`](super::Expression::source).
    pub offset: usize,
    /// How long it is, in bytes.
    pub length: usize,
}

/// What was found of an expression's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typing {
    /// The type of its value; [`Type::Dyn`] when that is unknown, also because of a problem.
    pub result: Type,
    /// All that is wrong, in the order of the text; one mistake is told once.
    pub problems: Vec<TypeProblem>,
    /// Whether all types were fully known. Then, without problems, evaluation can fail only for values: a name that
    /// is missing from an object, a division by zero, an overflow, text that is no number, too much work.
    pub is_certain: bool,
}
