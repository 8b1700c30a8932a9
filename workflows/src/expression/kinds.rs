//! What the evaluator can do with values of which kinds: its operators and functions as tables. Tests hold every entry
//! against the evaluator; must never happen here: a rule it does not follow.

use cel::common::ast::operators;

/// What a value is when it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List,
    Map,
    Type,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::Null,
        Self::Bool,
        Self::Int,
        Self::Uint,
        Self::Double,
        Self::String,
        Self::Bytes,
        Self::Timestamp,
        Self::Duration,
        Self::List,
        Self::Map,
        Self::Type,
    ];
}

/// A set of kinds: what a value may turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ANY: Self = Self::of(&Kind::ALL);
    pub(super) const NUMBER: Self = Self::of(&[Kind::Int, Kind::Uint, Kind::Double]);
    pub(super) const WHOLE: Self = Self::of(&[Kind::Int, Kind::Uint]);
    pub(super) const SCALAR: Self =
        Self::of(&[Kind::Bool, Kind::Int, Kind::Uint, Kind::Double, Kind::String]);
    /// What a loop goes over, and `in` looks into.
    pub(super) const CONTAINER: Self = Self::of(&[Kind::List, Kind::Map]);
    /// What a map may have as a key.
    pub(super) const KEY: Self = Self::of(&[Kind::Bool, Kind::Int, Kind::Uint, Kind::String]);

    /// What has a value outside of expressions as it is.
    pub(super) const VALUE: Self = Self::SCALAR.and(Self::CONTAINER).and(Self::one(Kind::Null));
    /// What has one as text.
    pub(super) const BECOMES_TEXT: Self = Self::of(&[Kind::Timestamp, Kind::Duration, Kind::Type]);

    pub(super) const fn of(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    pub(super) const fn one(kind: Kind) -> Self {
        Self::of(&[kind])
    }

    pub(super) fn has(self, kind: Kind) -> bool {
        self.meets(Self::one(kind))
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn is_one(self) -> bool {
        self.0.count_ones() == 1
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// What `left OPERATOR right` gives for an arithmetic operator; none when the evaluator refuses the kinds.
pub(super) fn arithmetic(operator: &str, left: Kind, right: Kind) -> Option<Kind> {
    use Kind::{Bytes, Double, Duration, Int, List, Map, String, Timestamp, Uint};
    let same = (left == right).then_some(left);
    let adds = operator == operators::ADD;
    if let Some(kind) = same.filter(|kind| matches!(kind, Int | Uint)) {
        return Some(kind);
    }
    if operator == operators::MODULO {
        return None;
    }
    if let Some(kind) = same.filter(|kind| *kind == Double) {
        return Some(kind);
    }
    if !adds && operator != operators::SUBSTRACT {
        return None;
    }
    if let Some(kind) = same.filter(|kind| *kind == Duration || adds && matches!(kind, String | Bytes | List))
    {
        return Some(kind);
    }
    match (left, right) {
        (Timestamp, Duration) => Some(Timestamp),
        (Duration, Timestamp) if adds => Some(Timestamp),
        (Timestamp, Timestamp) if !adds => Some(Duration),
        // The evaluator appends the keys.
        (List, Map) if adds => Some(List),
        _ => None,
    }
}

/// Whether `<`, `<=`, `>` and `>=` can put the two in order: numbers of all kinds with each other, else only likes.
pub(super) fn has_order(left: Kind, right: Kind) -> bool {
    use Kind::{Bool, Bytes, Duration, String, Timestamp};
    let likes = Kinds::of(&[Bool, String, Bytes, Timestamp, Duration]);
    Kinds::NUMBER.has(left) && Kinds::NUMBER.has(right) || left == right && likes.has(left)
}

/// Whether values of the two can be equal. The evaluator takes any two, and says false for the others.
pub(super) fn may_equal(left: Kind, right: Kind) -> bool {
    left == right || Kinds::NUMBER.has(left) && Kinds::NUMBER.has(right)
}

/// One way to call a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    /// Whether the first of `takes` stands before the dot.
    pub(super) is_method: bool,
    pub(super) takes: &'static [Kinds],
    pub(super) gives: Kinds,
}

impl Signature {
    const fn function(takes: &'static [Kinds], gives: Kinds) -> Self {
        Self { is_method: false, takes, gives }
    }

    const fn method(takes: &'static [Kinds], gives: Kinds) -> Self {
        Self { is_method: true, takes, gives }
    }

    /// How many arguments stand in the brackets.
    pub(super) fn arguments(&self) -> usize {
        self.takes.len() - usize::from(self.is_method)
    }
}

const BOOL: Kinds = Kinds::one(Kind::Bool);
const INT: Kinds = Kinds::one(Kind::Int);
const UINT: Kinds = Kinds::one(Kind::Uint);
const DOUBLE: Kinds = Kinds::one(Kind::Double);
const BYTES: Kinds = Kinds::one(Kind::Bytes);
const TYPE: Kinds = Kinds::one(Kind::Type);
const TEXT: Kinds = Kinds::one(Kind::String);
const TIME: Kinds = Kinds::one(Kind::Timestamp);
const SPAN: Kinds = Kinds::one(Kind::Duration);
const SIZED: Kinds = Kinds::of(&[Kind::String, Kind::Bytes, Kind::List, Kind::Map]);

// What the conversions take.
const TO_BOOL: Kinds = BOOL.and(TEXT);
const TO_BYTES: Kinds = BYTES.and(TEXT);
const TO_NUMBER: Kinds = Kinds::NUMBER.and(TEXT);
const TO_INT: Kinds = TO_NUMBER.and(TIME);
const TO_TEXT: Kinds = Kinds::SCALAR.and(BYTES).and(TIME).and(SPAN);
const TO_TIME: Kinds = INT.and(TEXT).and(TIME);
const TO_SPAN: Kinds = TEXT.and(SPAN);

const NEEDS: &[Signature] = &[Signature::function(&[], BOOL)];
const CLOCK: &[Signature] = &[Signature::method(&[TIME], INT), Signature::method(&[TIME, TEXT], INT)];
const CLOCK_OR_SPAN: &[Signature] = &[
    Signature::method(&[TIME], INT),
    Signature::method(&[TIME, TEXT], INT),
    Signature::method(&[SPAN], INT),
];
const TEXT_IN_TEXT: &[Signature] = &[Signature::method(&[TEXT, TEXT], BOOL)];
const MATCHES: &[Signature] =
    &[Signature::method(&[TEXT, TEXT], BOOL), Signature::function(&[TEXT, TEXT], BOOL)];
const SIZE: &[Signature] = &[Signature::method(&[SIZED], INT), Signature::function(&[SIZED], INT)];

/// The ways to call a function; none for a name that is no function.
pub(super) fn signatures(function: &str) -> &'static [Signature] {
    match function {
        "always" | "failed" | "succeeded" => NEEDS,
        "bool" => const { &[Signature::function(&[TO_BOOL], BOOL)] },
        "bytes" => const { &[Signature::function(&[TO_BYTES], BYTES)] },
        "contains" | "endsWith" | "startsWith" => TEXT_IN_TEXT,
        "double" => const { &[Signature::function(&[TO_NUMBER], DOUBLE)] },
        "duration" => const { &[Signature::function(&[TO_SPAN], SPAN)] },
        "dyn" => const { &[Signature::function(&[Kinds::ANY], Kinds::ANY)] },
        "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" | "getFullYear" | "getMonth" => CLOCK,
        "getHours" | "getMilliseconds" | "getMinutes" | "getSeconds" => CLOCK_OR_SPAN,
        "int" => const { &[Signature::function(&[TO_INT], INT)] },
        "matches" => MATCHES,
        "size" => SIZE,
        "string" => const { &[Signature::function(&[TO_TEXT], TEXT)] },
        "timestamp" => const { &[Signature::function(&[TO_TIME], TIME)] },
        "type" => const { &[Signature::function(&[Kinds::ANY], TYPE)] },
        "uint" => const { &[Signature::function(&[TO_NUMBER], UINT)] },
        _ => &[],
    }
}

/// The names that stand for a type, as in `type(x) == int`.
pub(super) const TYPE_NAMES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
