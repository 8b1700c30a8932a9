//! The small vocabulary the checks are written in: take a mapping's known keys, report the others, read a value as
//! what it should be. Knows the shape of values; must never happen here: knowledge of what a key means.

use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::super::diagnostics::{Findings, Spot, closest, did_you_mean, shown};
use super::super::language::{KeySpec, Keys, Kind, STEP, VERBS};
use super::super::raw::{Key, Node, Raw, Scalar};
use crate::names::check_name;
use crate::time::parse_duration;
use crate::units::{parse_percent, parse_share, parse_size};

/// A mapping whose keys are checked against those it may have.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    /// Where its owner stands, for what is missing.
    pub(super) position: Spot,
    entries: &'n [(Key, Node)],
    /// The keys it may have, when they are not the author's own names.
    keys: Option<&'static Keys>,
}

impl<'n> Fields<'n> {
    /// The fields of a node that must be a mapping, unknown keys reported. `position` is the owner's, as a rule its key.
    pub(super) fn of(node: &'n Node, position: Spot, keys: &'static Keys, f: &mut Findings) -> Option<Self> {
        Self::besides(node, position, keys, &[], f)
    }

    /// Like [`Fields::of`]; `reported` are keys that have been complained about already.
    pub(super) fn besides(
        node: &'n Node,
        position: Spot,
        keys: &'static Keys,
        reported: &[&str],
        f: &mut Findings,
    ) -> Option<Self> {
        let names = || keys.names().collect::<Vec<_>>().join(", ");
        let hint = || format!("the keys of {} are {}", keys.owner, names());
        let fields = Self { keys: Some(keys), ..Self::map(node, position, keys.owner, hint, f)? };
        for (key, _) in fields.entries {
            if !reported.contains(&key.name.as_str()) {
                check_key(key, keys.owner, keys.names(), f);
            }
        }
        Some(fields)
    }

    /// The fields of a step, whose keys are the caller's to report.
    pub(super) fn of_step(node: &'n Node, position: Spot, owner: &str, f: &mut Findings) -> Option<Self> {
        let hint = || format!("say what it does with one of {}", VERBS.join(", "));
        Some(Self { keys: Some(&STEP), ..Self::map(node, position, owner, hint, f)? })
    }

    /// The entries of a node that must be a mapping, whatever its keys.
    pub(super) fn any(node: &'n Node, position: Spot, owner: &str, f: &mut Findings) -> Option<Self> {
        let hint = || match &node.value {
            Raw::List(_) => "leave the dashes and brackets out: each entry is `NAME: …`".to_owned(),
            Raw::Scalar(_) | Raw::Map(_) | Raw::Broken => "each entry is `NAME: …`".to_owned(),
        };
        Self::map(node, position, owner, hint, f)
    }

    fn map(
        node: &'n Node,
        position: Spot,
        owner: &str,
        hint: impl Fn() -> String,
        f: &mut Findings,
    ) -> Option<Self> {
        match &node.value {
            Raw::Map(entries) => Some(Self { position, entries, keys: None }),
            Raw::Broken => None,
            Raw::Scalar(scalar) if is_null(scalar) => {
                f.add_with_hint("wrong-type", position, format!("{owner} is empty"), hint());
                None
            }
            Raw::Scalar(_) | Raw::List(_) => {
                let what = describe(node);
                let message = format!("{owner} is a mapping (`key: value`), not {what}");
                f.add_with_hint("wrong-type", node.position, message, hint());
                None
            }
        }
    }

    pub(super) fn entries(&self) -> &'n [(Key, Node)] {
        self.entries
    }

    /// The value of a key; the first, should it be written twice.
    pub(super) fn get(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, node)| (key, node))
    }

    /// Whether a key is there, or one that is nearly it and was reported as unknown.
    pub(super) fn is_meant(&self, name: &str) -> bool {
        self.get(name).is_some() || self.entries.iter().any(|(key, _)| closest(&key.name, [name]).is_some())
    }

    /// The value of a key that must be there.
    pub(super) fn need(
        &self,
        name: &str,
        owner: &str,
        example: &str,
        f: &mut Findings,
    ) -> Option<(&'n Key, &'n Node)> {
        let found = self.get(name);
        if !self.is_meant(name) {
            f.add_with_hint(
                "missing-key",
                self.position,
                format!("{owner} needs `{name}`"),
                format!("for example `{example}`"),
            );
        }
        found
    }

    pub(super) fn text(&self, name: &str, f: &mut Findings) -> Option<String> {
        self.get(name).and_then(|(_, node)| text(node, name, f)).map(|scalar| scalar.text.clone())
    }

    pub(super) fn name(&self, name: &str, f: &mut Findings) -> Option<String> {
        self.get(name).and_then(|(_, node)| self::name(node, name, f))
    }

    /// A duration; whether it may be nothing at all is what the language says.
    pub(super) fn duration(&self, name: &str, f: &mut Findings) -> Option<Duration> {
        let (_, node) = self.get(name)?;
        let scalar = text(node, name, f)?;
        match parse_duration(&scalar.text) {
            Ok(Duration::ZERO) if !self.spec(name).is_some_and(|spec| matches!(spec.kind, Kind::Pause)) => {
                f.add("duration", node.position, format!("`{name}` must be longer than nothing"));
                None
            }
            Ok(duration) => Some(duration),
            Err(message) => {
                f.add("duration", node.position, message);
                None
            }
        }
    }

    /// What the language says of a key of this mapping.
    fn spec(&self, name: &str) -> Option<&'static KeySpec> {
        self.keys?.get(name)
    }

    /// The fewest and the most items of a list of this mapping.
    pub(super) fn sizes(&self, name: &str) -> (usize, usize) {
        self.spec(name).map_or((0, usize::MAX), |spec| spec.kind.sizes())
    }

    /// A whole number within the bounds that the language gives it.
    pub(super) fn count(&self, name: &str, f: &mut Findings) -> Option<u64> {
        let (_, node) = self.get(name)?;
        let bounds = self.spec(name).and_then(|spec| spec.kind.bounds());
        let (least, most) = bounds.unwrap_or((0, u64::MAX));
        let count = match json(node, f)? {
            Value::Number(number) => number.as_u64().filter(|count| (least..=most).contains(count)),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        if count.is_none() {
            let range = if most == u64::MAX {
                format!("of at least {least}")
            } else {
                format!("from {least} to {most}")
            };
            f.add("number", node.position, format!("`{name}` is a whole number {range}"));
        }
        count
    }

    /// [`Fields::count`] for what is bounded to 32 bits.
    pub(super) fn small_count(&self, name: &str, f: &mut Findings) -> Option<u32> {
        self.count(name, f).and_then(|count| u32::try_from(count).ok())
    }

    /// A size, in bytes.
    pub(super) fn size(&self, name: &str, f: &mut Findings) -> Option<u64> {
        self.measured(name, "size", parse_size, f)
    }

    /// A share of a whole, from 0 to 1.
    pub(super) fn share(&self, name: &str, f: &mut Findings) -> Option<f64> {
        self.measured(name, "share", parse_share, f)
    }

    /// A share that may be more than the whole.
    pub(super) fn percent(&self, name: &str, f: &mut Findings) -> Option<f64> {
        self.measured(name, "share", parse_percent, f)
    }

    fn measured<T>(
        &self,
        name: &str,
        code: &str,
        read: impl Fn(&str) -> Result<T, String>,
        f: &mut Findings,
    ) -> Option<T> {
        let (_, node) = self.get(name)?;
        let scalar = text(node, name, f)?;
        let percent =
            scalar.text.parse::<f64>().ok().filter(|share| code == "share" && (0.0..=1.0).contains(share));
        match (read(&scalar.text), percent) {
            (Ok(value), _) => return Some(value),
            (Err(message), None) => f.add(code, node.position, message),
            (Err(message), Some(share)) => {
                let hint = format!("write `{}%`", (share * 1e8).round() / 1e6);
                f.add_with_hint(code, node.position, message, hint);
            }
        }
        None
    }

    /// True or false.
    pub(super) fn boolean(&self, name: &str, f: &mut Findings) -> Option<bool> {
        let (_, node) = self.get(name)?;
        let value = json(node, f)?;
        if value.as_bool().is_none() {
            f.add("wrong-type", node.position, format!("`{name}` is true or false, not {}", describe(node)));
        }
        value.as_bool()
    }

    /// A list of texts, none of them empty and each there once.
    pub(super) fn texts(&self, name: &str, f: &mut Findings) -> Option<Vec<String>> {
        let (_, node) = self.get(name)?;
        let items = list(node, name, f)?;
        let mut texts: Vec<String> = Vec::new();
        for item in items {
            let scalar = text(item, name, f)?;
            if scalar.text.trim().is_empty() || texts.contains(&scalar.text) {
                f.add("value", item.position, format!("`{name}` names each of its items once"));
            }
            texts.push(scalar.text.clone());
        }
        Some(texts)
    }

    /// Text that is not empty, such as the name of a column.
    pub(super) fn word_of_ones_own(&self, name: &str, f: &mut Findings) -> Option<String> {
        let (_, node) = self.get(name)?;
        let scalar = text(node, name, f)?;
        if scalar.text.trim().is_empty() || scalar.text.len() > 200 {
            f.add("value", node.position, format!("`{name}` is a text of 1 to 200 bytes"));
        }
        Some(scalar.text.clone())
    }

    /// A finite number.
    pub(super) fn number(&self, name: &str, f: &mut Findings) -> Option<f64> {
        let (_, node) = self.get(name)?;
        let number = match json(node, f)? {
            Value::Number(number) => number.as_f64().filter(|number| number.is_finite()),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        };
        if number.is_none() {
            let share = match &node.value {
                Raw::Scalar(scalar) => parse_percent(&scalar.text).ok(),
                Raw::List(_) | Raw::Map(_) | Raw::Broken => None,
            };
            let (what, hint) = match share {
                Some(share) => ("a share", format!("write `{share}`")),
                None => (describe(node), "write it plain, as in 0.8".to_owned()),
            };
            f.add_with_hint("number", node.position, format!("`{name}` is a number, not {what}"), hint);
        }
        number
    }

    /// One of the words that the language lists for the key.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], f: &mut Findings) -> Option<T> {
        debug_assert!(self.lists(name, words.iter().map(|(word, _)| *word)), "the words of `{name}` differ");
        let (_, node) = self.get(name)?;
        let scalar = text(node, name, f)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == scalar.text) {
            return Some(*value);
        }
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{name}` is one of {}", list.join(", "));
        f.add_unknown("value", node.position, message, &scalar.text, list);
        None
    }

    fn lists<'w>(&self, name: &str, words: impl Iterator<Item = &'w str> + Clone) -> bool {
        self.spec(name)
            .and_then(|spec| spec.kind.words())
            .is_some_and(|listed| listed.iter().copied().eq(words))
    }
}

/// Reports a key that is none of `known`.
pub(super) fn check_key<'k>(
    key: &Key,
    owner: &str,
    known: impl Iterator<Item = &'k str> + Clone,
    f: &mut Findings,
) {
    let name = key.name.as_str();
    // A merge key and an empty one were reported when they were read.
    if name == "<<" || name.is_empty() || known.clone().any(|known| known == name) {
        return;
    }
    let hint = did_you_mean(name, known.clone())
        .unwrap_or_else(|| format!("the keys of {owner} are {}", known.collect::<Vec<_>>().join(", ")));
    let message = format!("`{}` is not a key of {owner}", shown(name));
    f.add_with_hint("unknown-key", key.position, message, hint);
}

/// A scalar that is there; numbers and booleans are taken as they were written.
pub(super) fn text<'n>(node: &'n Node, what: &str, f: &mut Findings) -> Option<&'n Scalar> {
    match &node.value {
        Raw::Scalar(scalar) if is_null(scalar) => {
            f.add_with_hint(
                "wrong-type",
                node.position,
                format!("`{what}` has no value"),
                "give it one, or leave the key out",
            );
            None
        }
        Raw::Scalar(scalar) => Some(scalar),
        Raw::Broken => None,
        Raw::List(_) | Raw::Map(_) => {
            f.add("wrong-type", node.position, format!("`{what}` is text, not {}", describe(node)));
            None
        }
    }
}

/// A text that is a name.
pub(super) fn name(node: &Node, what: &str, f: &mut Findings) -> Option<String> {
    let scalar = text(node, what, f)?;
    match check_name(&scalar.text) {
        Ok(()) => Some(scalar.text.clone()),
        Err(wrong) => {
            report_name(&scalar.text, wrong, node.position, f);
            None
        }
    }
}

fn report_name(name: &str, wrong: String, position: Spot, f: &mut Findings) {
    let message = format!("`{}` {wrong}", shown(name));
    match similar_name(name) {
        Some(similar) => f.add_with_hint("name", position, message, format!("for example `{similar}`")),
        None => f.add("name", position, message),
    }
}

/// A name made of the letters and digits of a text that is none.
fn similar_name(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let name = words.join("_");
    (text.is_ascii() && check_name(&name).is_ok()).then_some(name)
}

/// Whether a key is a name.
pub(super) fn key_is_name(key: &Key, f: &mut Findings) -> bool {
    match check_name(&key.name) {
        Ok(()) => true,
        // A key that is missing was reported when it was read.
        Err(wrong) if !key.name.is_empty() => {
            report_name(&key.name, wrong, key.position, f);
            false
        }
        Err(_) => false,
    }
}

/// The items of a list; a single value is no list.
pub(super) fn list<'n>(node: &'n Node, what: &str, f: &mut Findings) -> Option<&'n [Node]> {
    match &node.value {
        Raw::List(items) => Some(items),
        Raw::Broken => None,
        Raw::Scalar(scalar) => {
            let hint = format!("write `{what}: [{}]`", shown(&scalar.text));
            f.add_with_hint(
                "wrong-type",
                node.position,
                format!("`{what}` is a list, not {}", describe(node)),
                hint,
            );
            None
        }
        Raw::Map(_) => {
            f.add("wrong-type", node.position, format!("`{what}` is a list, not {}", describe(node)));
            None
        }
    }
}

/// A value as JSON. Plain scalars are what YAML 1.2 says and no more: `no`, `012` and `0x10` are text.
pub(super) fn json(node: &Node, f: &mut Findings) -> Option<Value> {
    match &node.value {
        Raw::Broken => None,
        Raw::List(items) => {
            items.iter().map(|item| json(item, f)).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        Raw::Map(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                object.insert(key.name.clone(), json(value, f)?);
            }
            Some(Value::Object(object))
        }
        Raw::Scalar(scalar) => scalar_json(scalar, node.position, f),
    }
}

fn scalar_json(scalar: &Scalar, position: Spot, f: &mut Findings) -> Option<Value> {
    let text = scalar.text.as_str();
    if !scalar.plain {
        return Some(Value::String(text.to_owned()));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if matches!(unsigned.as_str(), ".nan" | ".inf") {
        let hint = "write a number, as in 0.8; a bound that is none is left out";
        f.add_with_hint("number", position, format!("`{text}` is not a finite number"), hint);
        return None;
    }
    if !looks_like_number(text) {
        return Some(Value::String(text.to_owned()));
    }
    // JSON's own grammar and limits from here on.
    match serde_json::from_str::<Number>(text) {
        Ok(number) => Some(Value::Number(number)),
        Err(_) => {
            let hint = "the largest is about 1.8e308; put text in quotes";
            f.add_with_hint("number", position, format!("`{}` is too large a number", shown(text)), hint);
            None
        }
    }
}

/// A number as JSON writes it: no leading zeros, no `0x`, no `_`.
fn looks_like_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

fn is_null(scalar: &Scalar) -> bool {
    scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
}

/// What a node is, for messages.
pub(super) fn describe(node: &Node) -> &'static str {
    match &node.value {
        Raw::Scalar(scalar) if is_null(scalar) => "nothing",
        Raw::Scalar(_) => "text",
        Raw::List(_) => "a list",
        Raw::Map(_) => "a mapping",
        Raw::Broken => "that",
    }
}

/// The node a path of keys and places in lists leads to, as far as it leads.
pub(super) fn follow(node: &Node, path: &[String]) -> Spot {
    let mut node = node;
    let mut position = node.position;
    for part in path {
        let next = match &node.value {
            Raw::Map(entries) => {
                entries.iter().find(|(key, _)| key.name == *part).map(|(key, node)| (key.position, node))
            }
            Raw::List(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .map(|node| (node.position, node)),
            Raw::Scalar(_) | Raw::Broken => None,
        };
        let Some((found, child)) = next else { break };
        position = found;
        node = child;
    }
    position
}
