//! What the keys of a mapping say of each other, as conditions with a message each. Must never happen here: a condition
//! that is not in the table.

use serde_json::{Map, Value, json};

use super::super::language::{Keys, Kind, Rule, VERBS};

/// The conditions that one rule comes to.
pub(super) fn rule(rule: &Rule, keys: &Keys) -> Vec<Value> {
    match rule {
        Rule::AnyOf(names) => vec![ask(names, &format!("{} needs {}", keys.owner, or(names)))],
        Rule::OneAtMost(names) => (0..names.len().saturating_sub(1)).map(|at| one(names, at, keys)).collect(),
        Rule::Where { key, is, asks, bars } => {
            let condition = has(key, is);
            let what = match is {
                [] => format!("`{key}`"),
                [word] => format!("`{key}: {word}`"),
                words => format!("`{key}` {}", or(words)),
            };
            let asked = (!asks.is_empty()).then(|| ask(asks, &format!("{what} needs {}", or(asks))));
            let barred = (!bars.is_empty()).then(|| none_of(bars, &format!("this does not go with {what}")));
            let follows = asked.into_iter().chain(barred);
            follows.map(|then| json!({ "if": condition, "then": then })).collect()
        }
        Rule::Only { key, with: (other, word) } => {
            let message = format!("this goes with `{other}: {word}`");
            vec![json!({ "if": has(other, &[*word]), "else": none_of(&[*key], &message) })]
        }
        Rule::TypedDefault => typed_default(keys),
    }
}

/// Keys that stand only beside certain others, those with the same ones together.
pub(super) fn beside(keys: &Keys) -> Vec<Value> {
    let condition = |beside: &[&str], names: &[&str]| json!({ "if": none_of(beside, ""), "then": none_of(names, &format!("this goes with {}", or(beside))) });
    grouped(keys.keys.iter().map(|key| (key.beside, key.name)), condition)
}

/// Keys of a step that go with certain verbs, those with the same verbs together.
pub(super) fn verbs(keys: &Keys) -> Vec<Value> {
    let condition = |verbs: &[&str], names: &[&str]| {
        let others = VERBS.iter().filter(|verb| !verbs.contains(verb));
        let others: Vec<Value> = others.map(|verb| json!({ "required": [verb] })).collect();
        json!({ "if": { "anyOf": others }, "then": none_of(names, &format!("this goes with {}", or(verbs))) })
    };
    grouped(keys.keys.iter().map(|key| (key.verbs, key.name)), condition)
}

type Names = &'static [&'static str];

fn grouped(
    keys: impl Iterator<Item = (Names, &'static str)>,
    condition: impl Fn(&[&str], &[&str]) -> Value,
) -> Vec<Value> {
    let mut groups: Vec<(Names, Vec<&str>)> = Vec::new();
    for (with, name) in keys.filter(|(with, _)| !with.is_empty()) {
        match groups.iter_mut().find(|(other, _)| *other == with) {
            Some((_, names)) => names.push(name),
            None => groups.push((with, vec![name])),
        }
    }
    groups.into_iter().map(|(with, names)| condition(with, &names)).collect()
}

/// No key after the one at this place may be there when that one is.
fn one(names: &[&str], at: usize, keys: &Keys) -> Value {
    let name = names[at];
    let message = format!("{} has one of {}, and this one has `{name}` already", keys.owner, or(names));
    json!({ "if": has(name, &[]), "then": none_of(&names[at + 1..], &message) })
}

/// At least one of these is there.
fn ask(names: &[&str], message: &str) -> Value {
    let first: Vec<&&str> = names.iter().take(1).collect();
    json!({ "if": none_of(names, ""), "then": { "required": first, "errorMessage": capital(message) } })
}

/// None of these is there.
fn none_of(names: &[&str], message: &str) -> Value {
    let properties: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), Value::Bool(false))).collect();
    if message.is_empty() {
        json!({ "properties": properties })
    } else {
        json!({ "properties": properties, "errorMessage": capital(message) })
    }
}

/// The key is there, with one of these words if there are any.
fn has(key: &str, words: &[&str]) -> Value {
    if words.is_empty() {
        json!({ "required": [key] })
    } else {
        json!({ "required": [key], "properties": { key: { "enum": words } } })
    }
}

/// `default` is of the type that `type` names. Text that an editor reads as a number (`012`) is text for the checks.
fn typed_default(keys: &Keys) -> Vec<Value> {
    let words = keys.get("type").and_then(|key| key.kind.words()).unwrap_or_default();
    let condition = |word: &&&str| {
        let default = match **word {
            "string" => json!({ "type": ["string", "number"] }),
            "any" => return None,
            "integer" | "number" | "boolean" => json!({ "type": word }),
            _ => json!(false),
        };
        Some(json!({ "if": has("type", &[**word]), "then": { "properties": { "default": default } } }))
    };
    words.iter().filter_map(|word| condition(&word)).collect()
}

/// Mappings that are told from each other by the first key each of them must have, with that key.
pub(super) fn told_by_key(kinds: &'static [Kind]) -> Option<Vec<(&'static str, &'static Keys)>> {
    let by = |kind: &'static Kind| {
        let Kind::Mapping(keys) = kind else { return None };
        keys.keys.iter().find(|key| key.required).map(|key| (key.name, *keys))
    };
    kinds.iter().map(by).collect()
}

/// "`a`, `b` or `c`".
pub(super) fn or(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn capital(message: &str) -> String {
    let mut letters = message.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
