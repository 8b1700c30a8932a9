//! What is wrong with the text of a settings file, in words for whoever wrote it: at which key, and what would be right.
//! The parser's own words are for programmers. Must never happen here: a value told that the parser read, for it may be a
//! secret.

use refit_workflows::definition::diagnostics::did_you_mean;
use serde::de::DeserializeOwned;
use serde_yaml::Error;

/// Reads settings. The error begins with `LINE:COLUMN: `, to stand behind the file's name.
///
/// # Errors
/// It is no YAML, or not of this shape.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // No snippet: the file may hold secrets.
    let options = serde_yaml::options! { with_snippet: false };
    let mut path = None;
    let read = serde_yaml::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|wrong| {
            path = Some(wrong.path().to_string());
            wrong.into_inner()
        })
    });
    read.map_err(|wrong| {
        let place = wrong.location().map(|at| format!("{}:{}: ", at.line(), at.column()));
        let wrong = wrong.without_snippet();
        let key = path.as_deref().and_then(|path| key_of(wrong, path)).map(|key| format!("`{key}`: "));
        format!("{}{}{}", place.unwrap_or_default(), key.unwrap_or_default(), words(wrong))
    })
}

/// The key that a mistake is told of: where a key itself is the mistake, the one it stands under.
fn key_of<'a>(wrong: &Error, path: &'a str) -> Option<&'a str> {
    let path = match wrong {
        Error::SerdeUnknownField { field, .. } => path.strip_suffix(field.as_str()).unwrap_or(path),
        // What could not be read as a key.
        _ => path.strip_suffix('?').unwrap_or(path),
    };
    Some(path.trim_end_matches('.')).filter(|path| !path.is_empty())
}

fn words(wrong: &Error) -> String {
    match wrong {
        Error::InvalidScalar { ty, .. } => format!("expected {}", kind(ty)),
        Error::InvalidBooleanStrict { .. } => format!("expected {}", kind("boolean")),
        Error::NullIntoString { .. } => "there is no value; write one, or leave the key out".to_owned(),
        Error::Unexpected { expected, .. } => format!("expected {}", kind(expected)),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("expected {}", kind(expected))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{key}` is given twice in the same place; keep one of them")
        }
        Error::DuplicateMappingKey { key: None, .. } => {
            "a key is given twice in the same place; keep one of them".to_owned()
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("there is no key `{field}` here; {}", choice(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("`{variant}` is not among the choices; {}", choice(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::MultipleDocuments { .. } => {
            "a second document begins; all settings belong into one, without `---`".to_owned()
        }
        // What our own readers say, and what the YAML itself is at odds with.
        other => {
            let words = other.to_string();
            // The place stands at the front already.
            words.split(" at line ").next().unwrap_or(&words).trim_end_matches([',', ':']).to_owned()
        }
    }
}

/// What would be right in the place of a name that does not exist.
fn choice(given: &str, known: &[&'static str]) -> String {
    let near = did_you_mean(given, known.iter().copied()).map(|near| format!("{near} "));
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("{}expected one of {}", near.unwrap_or_default(), known.join(", "))
}

/// What the parser expected, in words for people.
fn kind(name: &str) -> &str {
    match name {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "a nonzero u64" => "a whole number, 1 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "boolean" | "a boolean" => "true or false",
        "mapping start" | "a map" => "keys with values below it, as in `{ KEY: VALUE }`",
        "sequence start" | "a sequence" => "a list, as in `[A, B]`",
        "string scalar" | "scalar" | "a string" => "one value, not a list and not keys",
        // A type of ours, which only a programmer knows.
        name if name.starts_with("struct ") => "keys with values below it, as in `{ KEY: VALUE }`",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    #[test]
    fn a_mistake_is_told_with_its_place_its_key_and_what_would_be_right() {
        let queue = |more: &str| format!("sources:\n  a:\n    amqp:\n      queue: q\n      {more}\n");
        for (text, told) in [
            (
                queue("prefetch: many"),
                "5:17: `sources.a.amqp.prefetch`: expected a whole number from 0 to 65535",
            ),
            (
                queue("prefetch: -1"),
                "5:17: `sources.a.amqp.prefetch`: expected a whole number from 0 to 65535",
            ),
            (queue("declare: maybe"), "5:16: `sources.a.amqp.declare`: expected true or false"),
            (queue("bindings: x"), "5:17: `sources.a.amqp.bindings`: expected a list, as in `[A, B]`"),
            (
                queue("bindings: [{ exchange: e, headers: { a: [1] } }]"),
                "`sources.a.amqp.bindings[0].headers.a`: expected a text, a whole number, true or false",
            ),
            (
                queue("queue: r"),
                "5:7: `sources.a.amqp`: `queue` is given twice in the same place; keep one of them",
            ),
            (
                queue("prefetsh: 1"),
                "5:7: `sources.a.amqp`: there is no key `prefetsh` here; did you mean `prefetch`? expected one of",
            ),
            (
                "sources:\n  a: { amqp: q }\n".to_owned(),
                "2:14: `sources.a.amqp`: expected keys with values below it",
            ),
            ("sources: { a: { amqp: {} } }\n".to_owned(), "`sources.a.amqp`: `queue` is missing"),
            ("[listen]\n".to_owned(), "1:1: expected keys with values below it"),
            ("data: [x]\n".to_owned(), "1:7: `data`: expected one value, not a list and not keys"),
            (
                "amqp: { url: 5 }\n".to_owned(),
                "`amqp.url`: expected a URL, `{ env: VARIABLE }` or `{ file: PATH }`",
            ),
            ("grace: 10\n".to_owned(), "1:8: `grace`: `10` is not a duration"),
            ("grace: 0s\n".to_owned(), "1:8: `grace`: `0s` is too short"),
            ("retention: { events: { age: 0d } }\n".to_owned(), "`0d` would keep nothing"),
            ("retention: { runs: { age: 0s } }\n".to_owned(), "`0s` would keep nothing"),
            (
                "retention: { logs: { count: 0 } }\n".to_owned(),
                "`retention.logs.count`: expected a whole number, 1 or more",
            ),
            ("hosts: [a]\n---\nhosts: [b]\n".to_owned(), "a second document begins"),
        ] {
            let wrong = Settings::parse(&text).unwrap_err();
            assert!(wrong.contains(told), "{text}is told as: {wrong}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_told() {
        for text in ["amqp: { url: [hunter2] }\n", "amqp: { tls: hunter2 }\n", "hosts: hunter2\n"] {
            let wrong = Settings::parse(text).unwrap_err();
            assert!(!wrong.contains("hunter2"), "{wrong}");
        }
    }
}
