//! The language as one table: every key there is, where it goes, what its value looks like and what it means. The checks
//! take the keys from here, so that nothing is accepted that is not described; a schema and an editor's help can be made
//! of the same table. Must never happen here: reading a file, or a rule between two keys.

mod data;
mod steps;
mod top;

pub use data::{
    AGGREGATE, ALL_COLUMN_KEYS, CHANGE, COLUMN_RULES, DATA_CHECK, DRIFT, EVALUATE, FRESH, LABEL_SHARE,
    LENGTH, MISSING, OVERLAP, OWN_METRIC, QUANTILE, ROWS, VALIDATE,
};
pub use steps::{
    APPROVAL, CACHE, CALL, CHECK, CHILD_RUN, EMIT, GATE, NEEDS_HOST, PROMOTE, PYTHON, RETRY, SELECT, STEP,
    USED_FILE, USES, VERBS, WITH_VALUE,
};
pub use top::{
    BATCH, CONCURRENCY, CRON_TRIGGER, DEFAULTS, EVENT_TRIGGER, JOIN_TRIGGER, PARAM, SUM, TRIGGER_KINDS,
    WORKFLOW,
};

/// What a mapping may hold.
#[derive(Debug)]
pub struct Keys {
    /// What the mapping is, as it stands in a sentence: "a gate".
    pub owner: &'static str,
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
}

/// What a value looks like. Rules between keys are no part of it.
#[derive(Debug)]
pub enum Kind {
    /// Text as it is.
    Text,
    /// A name: see [`crate::names::check_name`].
    Name,
    /// `true` or `false`.
    Boolean,
    /// A whole number within these bounds, both inclusive.
    Count(u64, u64),
    /// A finite number.
    Number,
    /// `90s`, `15m`, `6h`, `2d`.
    Duration,
    /// `512MiB`, `16GiB`.
    Size,
    /// `50%`.
    Share,
    /// A CEL expression, bare.
    Expression,
    /// Text that may hold `${{ expression }}`.
    Template,
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
    /// A mapping from names of the author's choice.
    Map(&'static Kind),
    /// A mapping with these keys.
    Mapping(&'static Keys),
    /// One of these.
    Either(&'static [Kind]),
}

impl Keys {
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

    /// The words it may be.
    pub fn words(&self) -> Option<&'static [&'static str]> {
        if let Self::Word(words) = self { Some(words) } else { None }
    }
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> KeySpec {
    KeySpec { name, kind, about, required: false, verbs: &[] }
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
            Kind::List(kind) | Kind::Map(kind) => walk_kind(kind, seen),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| walk_kind(kind, seen)),
            Kind::Text
            | Kind::Name
            | Kind::Boolean
            | Kind::Count(..)
            | Kind::Number
            | Kind::Duration
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
        for part in [&GATE, &CHECK, &STEP, &EVALUATE, &DATA_CHECK, &SUM, &JOIN_TRIGGER, &QUANTILE, &RETRY] {
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
