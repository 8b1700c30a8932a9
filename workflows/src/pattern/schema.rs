//! Event patterns as JSON Schema, for editors: every operator with what it takes. Refuses nothing that [`super::Pattern`]
//! accepts. Where a pattern takes a string a number is let through as well: `+49` and `012` are text for the checks and
//! numbers for an editor's YAML reader. Must never happen here: an operator that `matcher` does not know.

use serde_json::{Map, Value, json};

use super::matcher::{EXCLUDABLE, OPERATORS};

/// What the schema of a whole pattern is called.
pub(crate) const SCHEMA_NAME: &str = "event_pattern";

/// The definitions that [`SCHEMA_NAME`] needs, itself included.
pub(crate) fn schema_definitions() -> Map<String, Value> {
    let operators: Map<String, Value> = OPERATORS
        .iter()
        .map(|operator| {
            let mut operand = operand(operator);
            if let Value::Object(operand) = &mut operand {
                operand.insert("description".to_owned(), json!(about(operator)));
            }
            ((*operator).to_owned(), operand)
        })
        .collect();
    let definitions = json!({
        "event_pattern": {
            "type": "object",
            "minProperties": 1,
            "properties": { "$or": alternatives() },
            "additionalProperties": refer("event_pattern_field"),
        },
        "event_pattern_field": {
            "if": { "type": "object" },
            "then": refer("event_pattern"),
            "else": {
                "type": "array",
                "minItems": 1,
                "items": refer("event_pattern_entry"),
                "errorMessage": "The values of a field are a list: write [VALUE].",
            },
        },
        "event_pattern_entry": {
            "if": { "type": "object" },
            "then": {
                "minProperties": 1,
                "maxProperties": 1,
                "properties": operators,
                "additionalProperties": false,
            },
            "else": { "type": ["string", "number", "boolean", "null"] },
        },
        "event_pattern_text": { "type": ["string", "number"] },
    });
    match definitions {
        Value::Object(definitions) => definitions,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// `$or`: at least two objects, none with a field named like an operator. Anything else is an ordinary field.
fn alternatives() -> Value {
    let no_operator: Map<String, Value> =
        OPERATORS.iter().map(|operator| ((*operator).to_owned(), Value::Bool(false))).collect();
    json!({
        "description": "The pattern, once for each of these alternatives.",
        "if": { "type": "array", "minItems": 2, "items": { "type": "object", "properties": no_operator } },
        "then": { "items": refer("event_pattern") },
        "else": refer("event_pattern_field"),
    })
}

/// What an operator takes.
fn operand(operator: &str) -> Value {
    match operator {
        "prefix" | "suffix" => json!({
            "if": { "type": "object" },
            "then": {
                "properties": { "equals-ignore-case": refer("event_pattern_text") },
                "required": ["equals-ignore-case"],
                "additionalProperties": false,
            },
            "else": refer("event_pattern_text"),
        }),
        "wildcard" => wildcard(),
        "anything-but" => anything_but(),
        "numeric" => numeric(),
        "exists" => json!({ "type": "boolean" }),
        "cidr" => json!({
            "type": "string",
            "pattern": "^[0-9A-Fa-f:.]+/(0|[1-9][0-9]{0,2})$",
            "patternErrorMessage": "An address and its bits, as in 10.0.0.0/8 or 2001:db8::/32",
        }),
        _ => refer("event_pattern_text"),
    }
}

fn wildcard() -> Value {
    json!({
        "type": ["string", "number"],
        "pattern": r"^\*?(([^*\\]|\\[*\\])\*?)*$",
        "patternErrorMessage": "One * at a time, and a backslash only before * or another backslash",
    })
}

fn anything_but() -> Value {
    let excludable: Map<String, Value> = EXCLUDABLE
        .iter()
        .map(|operator| {
            let mut one = if *operator == "wildcard" { wildcard() } else { refer("event_pattern_text") };
            if let (Value::Object(one), "prefix" | "suffix") = (&mut one, *operator) {
                one.insert("minLength".to_owned(), json!(1));
            }
            let several = json!({ "type": "array", "minItems": 1, "items": one });
            ((*operator).to_owned(), json!({ "if": { "type": "array" }, "then": several, "else": one }))
        })
        .collect();
    json!({
        "if": { "type": "object" },
        "then": {
            "properties": excludable,
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        },
        "else": {
            "if": { "type": "array" },
            "then": { "minItems": 1, "items": refer("event_pattern_text") },
            "else": refer("event_pattern_text"),
        },
    })
}

/// A comparison and a number, or a lower and an upper bound.
fn numeric() -> Value {
    let number = json!({ "type": "number" });
    json!({
        "type": "array",
        "minItems": 2,
        "if": { "maxItems": 2 },
        "then": { "prefixItems": [{ "enum": ["=", "<", "<=", ">", ">="] }, number] },
        "else": {
            "minItems": 4,
            "maxItems": 4,
            "prefixItems": [{ "enum": [">", ">="] }, number, { "enum": ["<", "<="] }, number],
        },
    })
}

fn about(operator: &str) -> &'static str {
    match operator {
        "prefix" => "A string that begins so.",
        "suffix" => "A string that ends so.",
        "equals-ignore-case" => "This string, whatever the case of each letter.",
        "wildcard" => "A string like this, * being any run of characters.",
        "anything-but" => "Any value but these.",
        "numeric" => "A number within one or two bounds, as in [\">\", 0, \"<=\", 5].",
        "exists" => "Whether there is any value.",
        "cidr" => "An address of this network.",
        "exactly" => "This string, character by character.",
        _ => "",
    }
}
