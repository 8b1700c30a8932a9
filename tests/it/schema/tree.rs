//! A YAML document as an editor's reader sees it, by the core schema of YAML 1.2.2 (section 10.3.2), and as something that
//! can be changed and written again. Knows nothing of workflows.

use serde_json::{Map, Number, Value};
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// Without quotes.
    Plain(String),
    /// In quotes, or as a block.
    Quoted(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// Every document of a file.
pub(super) fn read(text: &str) -> Vec<Tree> {
    let mut roots = Vec::new();
    let mut open: Vec<(bool, Vec<Tree>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap_or_else(|error| panic!("{error}:\n{text}"));
        let done = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Tree::Plain(text.into_owned()),
            Event::Scalar(text, ..) => Tree::Quoted(text.into_owned()),
            Event::SequenceStart(..) => {
                open.push((false, Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((true, Vec::new()));
                continue;
            }
            Event::SequenceEnd => Tree::List(open.pop().unwrap().1),
            Event::MappingEnd => {
                let pairs = open.pop().unwrap().1;
                let entry = |pair: &[Tree]| {
                    let (Tree::Plain(key) | Tree::Quoted(key)) = &pair[0] else { panic!("a key is text") };
                    (key.clone(), pair[1].clone())
                };
                Tree::Map(pairs.chunks(2).map(entry).collect())
            }
            _ => continue,
        };
        match open.last_mut() {
            Some((_, items)) => items.push(done),
            None => roots.push(done),
        }
    }
    roots
}

impl Tree {
    /// What the schema is asked about.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Quoted(text) => Value::String(text.clone()),
            Self::Plain(text) => plain(text),
            Self::List(items) => items.iter().map(Self::json).collect(),
            Self::Map(entries) => Value::Object(
                entries.iter().map(|(key, value)| (key.clone(), value.json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// What the checks are asked about, on one line.
    pub(super) fn yaml(&self) -> String {
        match self {
            // In a list on one line these would end it; no number and no boolean has them.
            Self::Plain(text) if !text.contains([',', '[', ']', '{', '}', ':', '#']) => text.clone(),
            Self::Plain(text) | Self::Quoted(text) => Value::String(text.clone()).to_string(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::yaml).collect::<Vec<_>>().join(", ")),
            Self::Map(entries) => {
                let entry = |(key, value): &(String, Self)| {
                    format!("{}: {}", Value::String(key.clone()), value.yaml())
                };
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// How many values it holds, itself included.
    pub(super) fn size(&self) -> usize {
        1 + match self {
            Self::Plain(_) | Self::Quoted(_) => 0,
            Self::List(items) => items.iter().map(Self::size).sum::<usize>(),
            Self::Map(entries) => entries.iter().map(|(_, value)| value.size()).sum(),
        }
    }

    /// The value at this place, counted from the top down.
    pub(super) fn at(&mut self, place: usize) -> &mut Self {
        if place == 0 {
            return self;
        }
        let mut place = place - 1;
        let inner: Vec<&mut Self> = match self {
            Self::Plain(_) | Self::Quoted(_) => Vec::new(),
            Self::List(items) => items.iter_mut().collect(),
            Self::Map(entries) => entries.iter_mut().map(|(_, value)| value).collect(),
        };
        for value in inner {
            let size = value.size();
            if place < size {
                return value.at(place);
            }
            place -= size;
        }
        panic!("there is no such place");
    }

    /// Every key of every mapping in it.
    pub(super) fn keys<'t>(&'t self, found: &mut Vec<&'t str>) {
        match self {
            Self::Plain(_) | Self::Quoted(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.keys(found)),
            Self::Map(entries) => {
                for (key, value) in entries {
                    found.push(key);
                    value.keys(found);
                }
            }
        }
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok()).map(Value::from)
    };
    let looks_like_number = unsigned.len() + 1 >= text.len()
        && unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    if !looks_like_number {
        return radix("0x", 16).or(radix("0o", 8)).unwrap_or_else(|| Value::String(text.to_owned()));
    }
    let whole = text.trim_start_matches('+').parse::<i64>().ok().map(Value::from);
    let float = || text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number);
    whole.or_else(float).unwrap_or_else(|| Value::String(text.to_owned()))
}
