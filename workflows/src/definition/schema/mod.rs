//! The language as JSON Schema 2020-12, for editors: what `language` lists, walked once. Says of a file no more than the
//! checks do, so that an editor never marks what they accept; what needs expressions, other steps or other files is
//! theirs alone. Must never happen here: a key, a word or a bound that is not in the table.
//!
//! Conditions are written as `if` and `then` with a message (`errorMessage`, `patternErrorMessage`, which
//! yaml-language-server shows and others ignore), not as `oneOf`: an editor then names the one thing that is wrong.

mod rules;
mod values;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::language::{KeySpec, Keys, Kind, Rule, STEP, TEST_FILE, USED_FILE, WORKFLOW};
use crate::pattern;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of one document of a workflow file.
pub fn workflow() -> Value {
    let mut writer = Writer::default();
    let root = writer.mapping(&WORKFLOW);
    let about = "What starts a run, its steps, and the gate before a promotion. `refit check` finds what a schema \
                 cannot: names that do not exist, expressions that do not fit, cycles, a promotion without a gate.";
    writer.document("workflow", "Refit workflow", about, root)
}

/// The schema of a file that steps use.
pub fn step() -> Value {
    let mut writer = Writer::default();
    let root = writer.used_file();
    let about =
        "A step in a file of its own: a verb, the keys that go with it, and in `with` the values it takes.";
    writer.document("step", "Refit step", about, root)
}

/// The schema of a file of tests.
pub fn test() -> Value {
    let mut writer = Writer::default();
    let root = writer.mapping(&TEST_FILE);
    let about = "What a workflow is expected to do. `refit test` plays the cases, and finds what a schema cannot: steps that \
                 the workflow does not have, and whatever comes otherwise.";
    writer.document("test", "Refit test file", about, root)
}

/// The definitions that have been written.
#[derive(Default)]
struct Writer {
    definitions: Map<String, Value>,
}

impl Writer {
    fn document(mut self, name: &str, title: &str, about: &str, root: Value) -> Value {
        self.definitions.extend(values::definitions());
        self.definitions.extend(pattern::schema_definitions());
        self.keep_needed(&root);
        let mut schema = json!({
            "$schema": DRAFT,
            "$id": format!("urn:refit:schema:{name}"),
            "title": title,
            "description": about,
            "$defs": self.definitions,
        });
        merge(&mut schema, root);
        schema
    }

    /// Leaves the definitions that the root refers to, or one of them does.
    fn keep_needed(&mut self, root: &Value) {
        let mut needed = BTreeSet::new();
        let mut open = vec![root];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(object) => {
                    let reference = object.get("$ref").and_then(Value::as_str);
                    let name = reference.and_then(|reference| reference.strip_prefix("#/$defs/"));
                    if let Some((name, definition)) =
                        name.and_then(|name| self.definitions.get_key_value(name))
                        && needed.insert(name.clone())
                    {
                        open.push(definition);
                    }
                    open.extend(object.values());
                }
                Value::Array(items) => open.extend(items),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        self.definitions.retain(|name, _| needed.contains(name));
    }

    /// A reference to a mapping, which is written when it is first met.
    fn reference(&mut self, keys: &'static Keys) -> Value {
        if !self.definitions.contains_key(keys.name) {
            // Its place is taken first: what it holds may refer to it.
            self.definitions.insert(keys.name.to_owned(), Value::Null);
            let mapping = self.mapping(keys);
            self.definitions.insert(keys.name.to_owned(), mapping);
        }
        values::refer(keys.name)
    }

    fn mapping(&mut self, keys: &'static Keys) -> Value {
        let rules: Vec<Value> =
            keys.rules.iter().flat_map(|rule| rules::rule(rule, keys)).chain(rules::beside(keys)).collect();
        self.closed(keys.keys.iter().collect(), rules::verbs(keys), rules)
    }

    /// A step without what only the workflow or the step that uses it can know; it may have no verb of its own.
    fn used_file(&mut self) -> Value {
        let own = |key: &&KeySpec| key.name != "needs" && USED_FILE.get(key.name).is_none();
        let keys: Vec<&KeySpec> = STEP.keys.iter().filter(own).chain(USED_FILE.keys).collect();
        let one_verb = |rule: &&Rule| matches!(rule, Rule::OneAtMost(_));
        let rules = STEP.rules.iter().filter(one_verb).flat_map(|rule| rules::rule(rule, &STEP)).collect();
        self.closed(keys, rules::verbs(&STEP), rules)
    }

    /// A mapping with these keys and no others.
    fn closed(&mut self, keys: Vec<&'static KeySpec>, verbs: Vec<Value>, mut rules: Vec<Value>) -> Value {
        rules.extend(verbs);
        let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
        let properties: Map<String, Value> =
            keys.into_iter().map(|key| (key.name.to_owned(), self.property(key))).collect();
        let mut mapping =
            json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !required.is_empty() {
            merge(&mut mapping, json!({ "required": required }));
        }
        if !rules.is_empty() {
            merge(&mut mapping, json!({ "allOf": rules }));
        }
        mapping
    }

    fn property(&mut self, key: &'static KeySpec) -> Value {
        let mut property = self.value(&key.kind);
        merge(&mut property, json!({ "description": key.about }));
        property
    }

    fn value(&mut self, kind: &'static Kind) -> Value {
        match kind {
            Kind::Mapping(keys) => self.reference(keys),
            Kind::List(items) => json!({ "type": "array", "items": self.value(items) }),
            Kind::Map(naming, entries) => {
                let mut map = json!({ "type": "object", "additionalProperties": self.value(entries) });
                if let Some(names) = values::naming(*naming) {
                    merge(&mut map, json!({ "propertyNames": names }));
                }
                map
            }
            Kind::Sized(least, most, inner) => {
                let mut value = self.value(inner);
                merge(&mut value, values::sizes(*least, *most, inner));
                value
            }
            Kind::Either(kinds) => self.either(kinds),
            Kind::Text
            | Kind::Plain
            | Kind::Script
            | Kind::Own
            | Kind::Cron
            | Kind::Name
            | Kind::Variable
            | Kind::Boolean
            | Kind::Count(..)
            | Kind::Number
            | Kind::Duration
            | Kind::Pause
            | Kind::Size
            | Kind::Share
            | Kind::Percent
            | Kind::Time
            | Kind::Run
            | Kind::Version
            | Kind::Expression
            | Kind::Template
            | Kind::Sole
            | Kind::Url
            | Kind::Value
            | Kind::Scalar
            | Kind::Path
            | Kind::Pattern
            | Kind::Word(_) => values::scalar(kind),
        }
    }

    /// One of several kinds. Where a mapping's key or the value's type tells which is meant, only that one is asked for.
    fn either(&mut self, kinds: &'static [Kind]) -> Value {
        if let Some(kinds) = rules::told_by_key(kinds) {
            return self.by_key(&kinds);
        }
        let Some((last, others)) = kinds.split_last().filter(|_| values::told_by_type(kinds)) else {
            let kinds: Vec<Value> = kinds.iter().map(|kind| self.value(kind)).collect();
            return json!({ "anyOf": kinds });
        };
        let mut value = self.value(last);
        for kind in others.iter().rev() {
            value = json!({ "if": { "type": values::types(kind) }, "then": self.value(kind), "else": value });
        }
        value
    }

    /// Mappings that are told from each other by a key.
    fn by_key(&mut self, kinds: &[(&'static str, &'static Keys)]) -> Value {
        let names: Vec<&str> = kinds.iter().map(|(key, _)| *key).collect();
        let properties: Map<String, Value> = kinds
            .iter()
            .filter_map(|(key, keys)| Some(((*key).to_owned(), self.property(keys.get(key)?))))
            .collect();
        // What an editor offers where nothing is written yet.
        let mut value = json!({
            "type": "object",
            "properties": properties,
            "required": names.get(..1),
            "errorMessage": format!("This needs {}", rules::or(&names)),
        });
        for (key, keys) in kinds.iter().rev() {
            value = json!({ "if": { "required": [key] }, "then": self.reference(keys), "else": value });
        }
        merge(&mut value, json!({ "type": "object" }));
        value
    }
}

/// Adds the keys of one object to another's.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a schema.
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_definition_is_whole_and_every_reference_leads_to_one() {
        for schema in [workflow(), step(), test()] {
            let definitions = schema["$defs"].as_object().unwrap();
            assert!(definitions.values().all(Value::is_object), "{definitions:#?}");
            let mut found = Vec::new();
            references(&schema, &mut found);
            assert!(found.len() > 20);
            for reference in &found {
                let name = reference.strip_prefix("#/$defs/").unwrap();
                assert!(definitions.contains_key(name), "{reference}");
            }
            for name in definitions.keys() {
                assert!(found.contains(&format!("#/$defs/{name}").as_str()), "nothing refers to {name}");
            }
        }
    }

    #[test]
    fn every_key_of_every_mapping_is_described() {
        let (workflow, test) = (workflow(), test());
        let mut described = 0;
        let definitions =
            [&workflow, &test].into_iter().flat_map(|schema| schema["$defs"].as_object().unwrap());
        // Patterns name the fields of events, which may be called anything.
        for (name, definition) in definitions.filter(|(name, _)| !name.starts_with("event_pattern")) {
            let Some(properties) = definition["properties"].as_object() else { continue };
            assert_eq!(definition["additionalProperties"], false, "{name}");
            for (key, property) in properties {
                assert!(property["description"].is_string(), "{name}.{key}");
                described += 1;
            }
        }
        assert!(described > 150, "{described}");
    }
}
