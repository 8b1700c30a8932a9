//! The language as one table: every key there is, where it goes, what its value looks like, what it means, and which keys
//! go together. The checks take the keys from here, so that nothing is accepted that is not described; the schema for
//! editors is made of the same table. Must never happen here: reading a file.

mod cases;
mod data;
mod steps;
mod top;

pub use cases::{
    CASE, CHAMPION_GIVEN, COMES_TO, EVENT_GIVEN, EXPECT, EXPECT_RUN, GIVEN, RUN_GIVEN, TEST_FILE,
};
pub use data::{
    AGGREGATE, ALL_COLUMN_KEYS, CHANGE, COLUMN_RULES, DATA_CHECK, DRIFT, EVALUATE, FRESH, LABEL_SHARE,
    LENGTH, MISSING, OVERLAP, OWN_METRIC, QUANTILE, ROWS, SUBJECTS, USUAL, VALIDATE,
};
pub use steps::{
    APPROVAL, CACHE, CALL, CHECK, CHILD_RUN, EMIT, GATE, LOADERS, METRIC_KEYS, NEEDS_HOST, PROMOTE, PYTHON,
    RESERVED_PREFIXES, RETRY, SELECT, STEP, USED_FILE, USES, VERBS, WATCH, WATCH_CHECK, WITH_VALUE,
};
pub use top::{
    BATCH, CONCURRENCY, CRON_TRIGGER, DEFAULTS, EVENT_TRIGGER, JOIN_TRIGGER, PARAM, SUM, TRIGGER_KINDS,
    WORKFLOW,
};

/// What a mapping may hold.
#[derive(Debug)]
pub struct Keys {
    /// What the schema calls the mapping: `gate`. Never changed, so that others can refer to it.
    pub name: &'static str,
    /// What the mapping is, as it stands in a sentence: "a gate".
    pub owner: &'static str,
    /// What its keys say of each other.
    pub rules: &'static [Rule],
    /// Its keys, in the order in which they are best written.
    pub keys: &'static [KeySpec],
}

/// One key of a mapping.
#[derive(Debug)]
pub struct KeySpec {
    /// As written.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What it means, for people.
    pub about: &'static str,
    /// Whether the mapping is not complete without it.
    pub required: bool,
    /// For a key of a step: the verbs it goes with; empty when it goes with all of them.
    pub verbs: &'static [&'static str],
    /// The keys one of which must stand beside it; empty when it stands for itself.
    pub beside: &'static [&'static str],
}

/// What the keys of one mapping say of each other, so far as their presence and their words tell.
#[derive(Debug)]
pub enum Rule {
    /// At least one of these is there.
    AnyOf(&'static [&'static str]),
    /// No two of these are there.
    OneAtMost(&'static [&'static str]),
    /// What follows from a key that is there and has one of these words; from any value when there are none.
    Where {
        /// The key.
        key: &'static str,
        /// Its words.
        is: &'static [&'static str],
        /// At least one of these is there, if there are any here.
        asks: &'static [&'static str],
        /// None of these is there.
        bars: &'static [&'static str],
    },
    /// A key that goes with one word of another alone.
    Only {
        /// The key.
        key: &'static str,
        /// The other, and its word.
        with: (&'static str, &'static str),
    },
    /// The key `default` has a value of the type that the key `type` names.
    TypedDefault,
}

/// What a value looks like. Rules between keys are no part of it.
#[derive(Debug)]
pub enum Kind {
    /// Text as it is.
    Text,
    /// Text as it is, in which `${{` may not stand.
    Plain,
    /// What is not empty, and [`Kind::Plain`].
    Script,
    /// What the author calls something, such as a column: text that is not blank.
    Own,
    /// Five fields of a schedule.
    Cron,
    /// A name: see [`crate::names::check_name`].
    Name,
    /// The name of an environment variable that Refit leaves to others.
    Variable,
    /// `true` or `false`.
    Boolean,
    /// A whole number within these bounds, both inclusive.
    Count(u64, u64),
    /// A finite number.
    Number,
    /// `90s`, `15m`, `6h`, `2d`: longer than nothing.
    Duration,
    /// A duration that may be `0s`.
    Pause,
    /// `512MiB`, `16GiB`.
    Size,
    /// `50%`, at most `100%`.
    Share,
    /// `50%`, also `150%`.
    Percent,
    /// A time by RFC 3339.
    Time,
    /// The name of a run: `churn/12`.
    Run,
    /// The version of a model, or `none`.
    Version,
    /// A CEL expression, bare.
    Expression,
    /// Text that may hold `${{ expression }}`.
    Template,
    /// One `${{ expression }}` and nothing else.
    Sole,
    /// A template that begins with `http://` or `https://`, or with a value.
    Url,
    /// Any value, whose texts may hold `${{ expression }}`.
    Value,
    /// Text, a number or a boolean.
    Scalar,
    /// A path inside the workflow's folder or the working directory.
    Path,
    /// An event pattern.
    Pattern,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of such.
    List(&'static Kind),
    /// A list or mapping with at least, and at most, so many items or entries.
    Sized(usize, usize, &'static Kind),
    /// A mapping from what the author calls things.
    Map(Naming, &'static Kind),
    /// A mapping with these keys.
    Mapping(&'static Keys),
    /// One of these.
    Either(&'static [Kind]),
}

/// What the keys of a mapping may be that are the author's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Names: see [`crate::names::check_name`].
    Name,
    /// Names of environment variables.
    Variable,
    /// Names of HTTP headers.
    Header,
    /// Any text.
    Any,
}

impl Keys {
    /// The keys that may not stand beside this one when it has this word.
    pub fn barred(&self, key: &str, word: &str) -> &'static [&'static str] {
        let barred = self.rules.iter().find_map(|rule| match rule {
            Rule::Where { key: other, is, bars, .. } if *other == key && is.contains(&word) => Some(*bars),
            Rule::Where { .. }
            | Rule::AnyOf(_)
            | Rule::OneAtMost(_)
            | Rule::Only { .. }
            | Rule::TypedDefault => None,
        });
        barred.unwrap_or_default()
    }

    /// The key of this name.
    pub fn get(&self, name: &str) -> Option<&'static KeySpec> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.keys.iter().map(|key| key.name)
    }
}

impl Kind {
    /// The bounds of a whole number.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        if let Self::Count(least, most) = self { Some((*least, *most)) } else { None }
    }

    /// The fewest and the most items or entries.
    pub fn sizes(&self) -> (usize, usize) {
        if let Self::Sized(least, most, _) = self { (*least, *most) } else { (0, usize::MAX) }
    }

    /// The words it may be.
    pub fn words(&self) -> Option<&'static [&'static str]> {
        if let Self::Word(words) = self { Some(words) } else { None }
    }
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> KeySpec {
    KeySpec { name, kind, about, required: false, verbs: &[], beside: &[] }
}

impl KeySpec {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn with(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    const fn beside(mut self, keys: &'static [&'static str]) -> Self {
        self.beside = keys;
        self
    }
}

/// At least one item or entry.
const fn some(kind: &'static Kind) -> Kind {
    Kind::Sized(1, usize::MAX, kind)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn walk(keys: &'static Keys, seen: &mut HashSet<*const Keys>) {
        if !seen.insert(std::ptr::from_ref(keys)) {
            return;
        }
        let mut names = HashSet::new();
        for key in keys.keys {
            assert!(names.insert(key.name), "{} has `{}` twice", keys.owner, key.name);
            let about = key.about;
            assert!(about.ends_with('.') && about.len() > 10, "{}.{}: {about:?}", keys.owner, key.name);
            assert!(key.verbs.iter().all(|verb| VERBS.contains(verb)), "{}: {:?}", key.name, key.verbs);
            walk_kind(&key.kind, seen);
        }
    }

    fn walk_kind(kind: &'static Kind, seen: &mut HashSet<*const Keys>) {
        match kind {
            Kind::Mapping(keys) => walk(keys, seen),
            Kind::List(kind) | Kind::Map(_, kind) | Kind::Sized(_, _, kind) => walk_kind(kind, seen),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| walk_kind(kind, seen)),
            Kind::Text
            | Kind::Plain
            | Kind::Script
            | Kind::Own
            | Kind::Cron
            | Kind::Sole
            | Kind::Url
            | Kind::Percent
            | Kind::Time
            | Kind::Run
            | Kind::Version
            | Kind::Name
            | Kind::Variable
            | Kind::Boolean
            | Kind::Count(..)
            | Kind::Number
            | Kind::Duration
            | Kind::Pause
            | Kind::Size
            | Kind::Share
            | Kind::Expression
            | Kind::Template
            | Kind::Value
            | Kind::Scalar
            | Kind::Path
            | Kind::Pattern
            | Kind::Word(_) => {}
        }
    }

    #[test]
    fn every_key_is_described_once_and_reached_from_the_top() {
        let mut seen = HashSet::new();
        walk(&WORKFLOW, &mut seen);
        walk(&TEST_FILE, &mut seen);
        for part in [
            &COMES_TO,
            &EXPECT_RUN,
            &GATE,
            &CHECK,
            &STEP,
            &EVALUATE,
            &DATA_CHECK,
            &SUM,
            &JOIN_TRIGGER,
            &QUANTILE,
            &RETRY,
        ] {
            assert!(seen.contains(&std::ptr::from_ref(part)), "{} is not reached", part.owner);
        }
    }

    #[test]
    fn every_verb_is_a_key_of_a_step() {
        for verb in VERBS {
            assert!(STEP.get(verb).is_some(), "{verb}");
        }
    }
}
