//! Many patterns against one event without trying them one after the other: each is filed under the values of a field
//! that it cannot do without, and only those under the event's own values are tried. Decides nothing by itself: what
//! it finds is what [`Pattern::matches`] says of each, and filing may only ever leave out what cannot match.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use serde_json::Value;

use super::matcher::Matcher;
use super::number::Canonical;
use super::{Part, Pattern};

/// A set of patterns, to be matched against one event after the other.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    /// Those without any field to file them under.
    always: Vec<usize>,
    root: Node,
}

impl PatternSet {
    /// Takes in the patterns; they are known by their place, from 0.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().collect();
        let (mut always, mut root) = (Vec::new(), Node::default());
        let crowd = Crowd::of(&patterns);
        for (index, pattern) in patterns.iter().enumerate() {
            match crowd.least_crowded(&pattern.0.parts, &mut Vec::new()) {
                None => always.push(index),
                Some((_, needs)) => {
                    // Alternatives may need the same.
                    for (path, need) in needs.into_iter().collect::<HashSet<_>>() {
                        root.at(&path).file(need, index);
                    }
                }
            }
        }
        Self { patterns, always, root }
    }

    /// The places of the patterns that match an event, ascending.
    pub fn matching(&self, event: &Value) -> Vec<usize> {
        let mut candidates = self.always.clone();
        self.root.gather(event, &mut candidates);
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|&index| self.patterns.get(index).is_some_and(|pattern| pattern.matches(event)));
        candidates
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

/// What a value must be at least, to be accepted by a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Need<'p> {
    Null,
    Bool(bool),
    Number(Canonical),
    Address(Ipv6Addr),
    Text(&'p str),
    /// Already folded.
    Caseless(&'p str),
    Prefix(&'p str),
    Suffix(&'p str),
    AnyNumber,
    AnyText,
    Any,
}

impl<'p> Need<'p> {
    /// `None` when the matcher accepts that there is no value.
    fn of(matcher: &'p Matcher) -> Option<Self> {
        Some(match matcher {
            Matcher::Constant(Value::Bool(value)) => Self::Bool(*value),
            Matcher::Constant(_) => Self::Null,
            Matcher::Number(number) => Self::Number(Canonical::of(number)),
            Matcher::Text(text) => Self::Text(text),
            Matcher::Address(address) => Self::Address(*address),
            Matcher::IgnoreCase(caseless) => Self::Caseless(caseless.folded()),
            Matcher::Prefix(prefix) => Self::Prefix(prefix),
            Matcher::Suffix(suffix) => Self::Suffix(suffix),
            Matcher::Wildcard(wildcard) => match wildcard.tail() {
                None => Self::Text(wildcard.head()),
                Some(tail) if wildcard.head().is_empty() => Self::Suffix(tail),
                Some(_) => Self::Prefix(wildcard.head()),
            },
            Matcher::PrefixIgnoreCase(_) | Matcher::SuffixIgnoreCase(_) | Matcher::Network(_) => {
                Self::AnyText
            }
            Matcher::Numeric(_) => Self::AnyNumber,
            Matcher::AnythingBut(_) | Matcher::Exists(true) => Self::Any,
            Matcher::Exists(false) => return None,
        })
    }

    /// How many events meet this, compared with one exact value: a guess, on which only speed depends.
    fn width(self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 8,
            Self::Number(_) | Self::Address(_) | Self::Text(_) | Self::Caseless(_) => 1,
            Self::Prefix("") | Self::Suffix("") | Self::AnyNumber | Self::AnyText | Self::Any => 64,
            Self::Prefix(_) | Self::Suffix(_) => 4,
        }
    }
}

type Path<'p> = Vec<&'p str>;

/// How many patterns of a set have the same need at the same path.
struct Crowd<'p>(HashMap<(Path<'p>, Need<'p>), usize>);

impl<'p> Crowd<'p> {
    fn of(patterns: &'p [Pattern]) -> Self {
        let mut crowd = Self(HashMap::new());
        for pattern in patterns {
            crowd.count(&pattern.0.parts, &mut Vec::new());
        }
        crowd
    }

    fn count(&mut self, parts: &'p [Part], path: &mut Path<'p>) {
        for part in parts {
            match part {
                Part::Leaf { name, matchers, .. } => {
                    path.push(name);
                    for need in matchers.iter().filter_map(Need::of) {
                        *self.0.entry((path.clone(), need)).or_default() += 1;
                    }
                    path.pop();
                }
                Part::Object { name, parts } => {
                    path.push(name);
                    self.count(parts, path);
                    path.pop();
                }
                Part::Either(branches) => branches.iter().for_each(|branch| self.count(branch, path)),
            }
        }
    }

    /// Of what all the parts need, the needs of the one that leaves the fewest candidates, any of which must be met;
    /// and how crowded they are.
    fn least_crowded(
        &self,
        parts: &'p [Part],
        path: &mut Path<'p>,
    ) -> Option<(usize, Vec<(Path<'p>, Need<'p>)>)> {
        let of_part = |part: &'p Part| match part {
            Part::Leaf { name, matchers, .. } => {
                path.push(name);
                let needs = matchers.iter().map(|matcher| Need::of(matcher).map(|need| (path.clone(), need)));
                let needs = needs.collect::<Option<Vec<_>>>();
                path.pop();
                let crowded = |need: &(Path<'p>, Need<'p>)| {
                    self.0.get(need).copied().unwrap_or_default().saturating_mul(need.1.width())
                };
                needs.map(|needs| (needs.iter().map(crowded).sum(), needs))
            }
            Part::Object { name, parts } => {
                path.push(name);
                let best = self.least_crowded(parts, path);
                path.pop();
                best
            }
            Part::Either(branches) => {
                let best = branches.iter().map(|branch| self.least_crowded(branch, path));
                let (crowds, needs): (Vec<_>, Vec<_>) = best.collect::<Option<Vec<_>>>()?.into_iter().unzip();
                Some((crowds.iter().sum(), needs.concat()))
            }
        };
        parts.iter().filter_map(of_part).min_by_key(|(crowded, _)| *crowded)
    }
}

/// A field, or the event itself: what is filed under its values, and its fields.
#[derive(Clone, Debug, Default)]
struct Node {
    fields: HashMap<String, Node>,
    values: Values,
}

#[derive(Clone, Debug, Default)]
struct Values {
    nulls: Vec<usize>,
    bools: [Vec<usize>; 2],
    numbers: HashMap<Canonical, Vec<usize>>,
    addresses: HashMap<Ipv6Addr, Vec<usize>>,
    texts: HashMap<String, Vec<usize>>,
    caseless: HashMap<String, Vec<usize>>,
    prefixes: Affixes,
    suffixes: Affixes,
    any_number: Vec<usize>,
    any_text: Vec<usize>,
    any: Vec<usize>,
}

/// Beginnings or ends of strings; a string is looked up by each length there is.
#[derive(Clone, Debug, Default)]
struct Affixes {
    /// In bytes, ascending.
    lengths: Vec<usize>,
    texts: HashMap<String, Vec<usize>>,
}

impl Node {
    fn at(&mut self, path: &[&str]) -> &mut Values {
        let node = path.iter().fold(self, |node, name| node.fields.entry((*name).to_owned()).or_default());
        &mut node.values
    }

    /// Adds what is filed under the values of an event; lists are transparent.
    fn gather(&self, value: &Value, found: &mut Vec<usize>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.gather(item, found)),
            Value::Object(object) if self.fields.len() <= object.len() => {
                for (name, field) in &self.fields {
                    if let Some(value) = object.get(name) {
                        field.gather(value, found);
                    }
                }
            }
            Value::Object(object) => {
                for (name, value) in object {
                    if let Some(field) = self.fields.get(name) {
                        field.gather(value, found);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.values.gather(value, found);
            }
        }
    }
}

impl Values {
    fn file(&mut self, need: Need<'_>, index: usize) {
        let place = match need {
            Need::Null => &mut self.nulls,
            Need::Bool(value) => &mut self.bools[usize::from(value)],
            Need::Number(number) => self.numbers.entry(number).or_default(),
            Need::Address(address) => self.addresses.entry(address).or_default(),
            Need::Text(text) => self.texts.entry(text.to_owned()).or_default(),
            Need::Caseless(text) => self.caseless.entry(text.to_owned()).or_default(),
            Need::Prefix(prefix) => self.prefixes.at(prefix),
            Need::Suffix(suffix) => self.suffixes.at(suffix),
            Need::AnyNumber => &mut self.any_number,
            Need::AnyText => &mut self.any_text,
            Need::Any => &mut self.any,
        };
        place.push(index);
    }

    fn gather(&self, scalar: &Value, found: &mut Vec<usize>) {
        found.extend(&self.any);
        match scalar {
            Value::Null => found.extend(&self.nulls),
            Value::Bool(value) => found.extend(&self.bools[usize::from(*value)]),
            Value::Number(number) => {
                found.extend(&self.any_number);
                found.extend(self.numbers.get(&Canonical::of(number)).into_iter().flatten());
            }
            Value::String(text) => self.gather_text(text, found),
            Value::Array(_) | Value::Object(_) => {}
        }
    }

    fn gather_text(&self, text: &str, found: &mut Vec<usize>) {
        found.extend(&self.any_text);
        found.extend(self.texts.get(text).into_iter().flatten());
        if !self.caseless.is_empty() {
            let folded = super::text::Caseless::new(text);
            found.extend(self.caseless.get(folded.folded()).into_iter().flatten());
        }
        if !self.addresses.is_empty()
            && let Ok(address) = text.parse::<Ipv6Addr>()
        {
            found.extend(self.addresses.get(&address).into_iter().flatten());
        }
        self.prefixes.gather(text.len(), |length| text.get(..length), found);
        self.suffixes.gather(text.len(), |length| text.get(text.len() - length..), found);
    }
}

impl Affixes {
    fn at(&mut self, affix: &str) -> &mut Vec<usize> {
        if let Err(place) = self.lengths.binary_search(&affix.len()) {
            self.lengths.insert(place, affix.len());
        }
        self.texts.entry(affix.to_owned()).or_default()
    }

    fn gather<'t>(&self, length: usize, cut: impl Fn(usize) -> Option<&'t str>, found: &mut Vec<usize>) {
        for affix in self.lengths.iter().take_while(|affix| **affix <= length).filter_map(|affix| cut(*affix))
        {
            found.extend(self.texts.get(affix).into_iter().flatten());
        }
    }
}
