//! What a single value looks like, as a schema. An editor's YAML reader has turned it into JSON before the schema sees
//! it: `1.10` is a number, `true` a boolean, `90s` and `50%` are text. The checks take numbers and booleans for text as
//! they were written, so text is never a string alone here. Patterns use what all regular expressions have in common.
//! Must never happen here: knowledge of a key.

use serde_json::{Map, Value, json};

use super::super::language::{Kind, LOADERS, Naming, RESERVED_PREFIXES};
use super::merge;
use crate::names::NAME_LENGTH_MAX;

/// Any text in which `${{` does not occur: what was read of it so far ends in neither `$` nor `${`, in `$`, in `${`.
const NO_TEMPLATE: &str = r"^([^$]|\$+(\{\$+)*([^${]|\{[^${]))*(\$+(\{\$+)*\{?)?$";
const NOT_BLANK: &str = r"[^ \t\r\n]";
/// A part of a path: neither empty nor `.` nor `..`.
const PART: &str = r"([^/.\\]|\.[^/.\\]|\.\.[^/\\])[^/\\]*";

pub(super) fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// What text may be once it has been read as YAML.
fn text() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

fn text_like(pattern: &str, message: &str) -> Value {
    with(text(), json!({ "pattern": pattern, "patternErrorMessage": message }))
}

/// Text that no number and no boolean looks like.
fn string_like(pattern: &str, message: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "patternErrorMessage": message, "errorMessage": message })
}

fn with(mut value: Value, more: Value) -> Value {
    merge(&mut value, more);
    value
}

/// The kinds that have a name of their own in the schema.
pub(super) fn definitions() -> Map<String, Value> {
    let units = "(ms|s|m|h|d)";
    let duration = "A whole number and ms, s, m, h or d, as in 90s, 15m, 6h or 2d";
    let definitions = [
        ("text", text()),
        ("template", with(text(), json!({ "description": "Text that may hold ${{ expression }}." }))),
        ("plain", text_like(NO_TEMPLATE, "Taken as it stands: no ${{ }}")),
        (
            "script",
            with(
                text_like(
                    NO_TEMPLATE,
                    "No ${{ }} in a script: hand the value over in `env`, and write \"$NAME\" here; or use a list of \
                     arguments",
                ),
                json!({ "allOf": [{ "pattern": NOT_BLANK, "patternErrorMessage": "There is nothing to run" }] }),
            ),
        ),
        ("own", text_like(NOT_BLANK, "This must not be blank")),
        (
            "name",
            with(
                text_like(
                    &format!("^[a-z0-9][a-z0-9_-]{{0,{}}}$", NAME_LENGTH_MAX - 1),
                    "A name: lower-case letters, digits, `_` and `-`, beginning with a letter or digit, at most 63",
                ),
                json!({ "minimum": 0 }),
            ),
        ),
        ("duration", string_like(&format!("^0*[1-9][0-9]*{units}$"), duration)),
        ("pause", string_like(&format!("^[0-9]+{units}$"), duration)),
        (
            "size",
            string_like(
                "^[0-9]+(B|[KMGT]iB|kB|MB|GB|TB)$",
                "A whole number and a unit, as in 512MiB or 16GiB",
            ),
        ),
        (
            // Beyond these zeros a number is 100 again, as a double.
            "share",
            string_like(
                r"^0*([0-9]{1,2}(\.[0-9]+)?|100(\.0+|\.0{10}[0-9]*)?)%$",
                "A share of at most 100%, as in 50% or 0.5%",
            ),
        ),
        ("percent", string_like(r"^[0-9]+(\.[0-9]+)?%$", "A number and %, as in 50% or 0.5%")),
        (
            // A time without quotes is text for the readers that editors use.
            "time",
            string_like(
                r"^[+-]?[0-9]{4,6}-?[0-9]{2}-?[0-9]{2}[Tt _][0-9]",
                "A time as in 2026-01-31T08:00:00Z",
            ),
        ),
        ("run", string_like(r"^[a-z0-9][a-z0-9_-]*/\+?[0-9]+$", "The name of a run, as in churn/12")),
        (
            "version",
            json!({
                "type": ["integer", "string"],
                "pattern": "^(none|[+-]?[0-9]+)$",
                "patternErrorMessage": "A version's number, or none",
            }),
        ),
        (
            "cron",
            string_like(
                r"^\s*\S+(\s+\S+){4}\s*$",
                "Five fields: minute, hour, day of month, month, day of week, as in \"0 3 * * MON\"",
            ),
        ),
        (
            "expression",
            with(
                text_like(NO_TEMPLATE, "This is an expression already: write it without ${{ }}"),
                json!({ "minLength": 1 }),
            ),
        ),
        ("sole", string_like(r"^\s*\$\{\{(.|\s)*\}\}\s*$", "One ${{ expression }} and nothing else")),
        (
            "url",
            string_like(
                r"^(https?://.|\$\{\{)",
                "A URL begins with http:// or https://, or is one ${{ expression }}",
            ),
        ),
        (
            "path",
            with(
                text_like(
                    &format!("^{PART}(/{PART})*/?$"),
                    "A relative path, with `/` between its parts, none of them empty, `.` or `..`",
                ),
                json!({
                    "maxLength": 1024,
                    "allOf": [{ "pattern": NO_TEMPLATE, "patternErrorMessage": "A path is written out: no ${{ }}" }],
                }),
            ),
        ),
        ("variable", variable()),
        (
            // RFC 9110, section 5.6.2: a token.
            "header",
            json!({ "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "patternErrorMessage": "The name of an HTTP header" }),
        ),
    ];
    definitions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The name of an environment variable. What is reserved is refused in a `then` that nothing passes, for its message.
fn variable() -> Value {
    let reserved = format!("^({}|({})$)", RESERVED_PREFIXES.join("|"), LOADERS.join("|"));
    json!({
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        "patternErrorMessage": "The name of a variable: letters, digits and `_`",
        "if": { "pattern": reserved },
        "then": { "pattern": "^$", "patternErrorMessage": "This variable is reserved" },
    })
}

/// A kind that is neither a list nor a mapping.
pub(super) fn scalar(kind: &Kind) -> Value {
    match kind {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Count(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Value => json!({}),
        Kind::Text | Kind::Scalar => refer("text"),
        Kind::Plain => refer("plain"),
        Kind::Script => refer("script"),
        Kind::Own => refer("own"),
        Kind::Cron => refer("cron"),
        Kind::Name => refer("name"),
        Kind::Variable => json!({ "type": "string", "allOf": [refer("variable")] }),
        Kind::Duration => refer("duration"),
        Kind::Pause => refer("pause"),
        Kind::Size => refer("size"),
        Kind::Share => refer("share"),
        Kind::Percent => refer("percent"),
        Kind::Time => refer("time"),
        Kind::Run => refer("run"),
        Kind::Version => refer("version"),
        Kind::Expression => refer("expression"),
        Kind::Template => refer("template"),
        Kind::Sole => refer("sole"),
        Kind::Url => refer("url"),
        Kind::Path => refer("path"),
        Kind::Pattern => refer(crate::pattern::SCHEMA_NAME),
        Kind::List(_) | Kind::Sized(..) | Kind::Map(..) | Kind::Mapping(_) | Kind::Either(_) => json!({}),
    }
}

/// What the keys of a mapping look like that are the author's own; none when they may be anything.
pub(super) fn naming(naming: Naming) -> Option<Value> {
    match naming {
        Naming::Name => Some(refer("name")),
        Naming::Variable => Some(refer("variable")),
        Naming::Header => Some(refer("header")),
        Naming::Any => None,
    }
}

/// How many items or entries there are.
pub(super) fn sizes(least: usize, most: usize, of: &Kind) -> Value {
    let (min, max) = if matches!(of, Kind::List(_)) {
        ("minItems", "maxItems")
    } else {
        ("minProperties", "maxProperties")
    };
    let mut sizes = json!({ min: least });
    if most < usize::MAX {
        merge(&mut sizes, json!({ max: most }));
    }
    sizes
}

/// The JSON types that a value of this kind may have.
pub(super) fn types(kind: &Kind) -> Vec<&'static str> {
    match kind {
        Kind::List(_) => vec!["array"],
        Kind::Map(..) | Kind::Mapping(_) | Kind::Pattern => vec!["object"],
        Kind::Sized(_, _, inner) => types(inner),
        Kind::Boolean => vec!["boolean"],
        Kind::Count(..) | Kind::Number => vec!["number"],
        Kind::Version => vec!["number", "string"],
        Kind::Duration
        | Kind::Pause
        | Kind::Size
        | Kind::Share
        | Kind::Percent
        | Kind::Time
        | Kind::Run
        | Kind::Cron
        | Kind::Variable
        | Kind::Sole
        | Kind::Url
        | Kind::Word(_) => vec!["string"],
        Kind::Text
        | Kind::Plain
        | Kind::Script
        | Kind::Own
        | Kind::Name
        | Kind::Expression
        | Kind::Template
        | Kind::Scalar
        | Kind::Path => vec!["string", "number", "boolean"],
        Kind::Value => vec!["string", "number", "boolean", "null", "array", "object"],
        Kind::Either(kinds) => kinds.iter().flat_map(types).collect(),
    }
}

/// Whether no two of these kinds share a JSON type.
pub(super) fn told_by_type(kinds: &[Kind]) -> bool {
    let mut all: Vec<&str> = kinds.iter().flat_map(types).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    all.len() == count
}
