//! What would be right: the second half of a problem, in few words.

use super::super::types::Type;
use super::{LISTED_MAX, closest};

/// The nearest known name, if one is near, and the names there are; none if there are none.
pub(super) fn names<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> Option<String> {
    let count = known.clone().count();
    if count == 0 {
        return None;
    }
    let listed = known.clone().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let near = closest(name, known).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    Some(format!("{near}there is {listed}{more}"))
}

/// How `text` becomes what is wanted of a whole expression or a condition.
pub(super) fn wanted(text: &str, wanted: &Type, found: &Type) -> Option<String> {
    let text = super::shorten(text.trim());
    let is_simple = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._[]\"'".contains(&b));
    if *wanted != Type::Bool || !is_simple {
        return None;
    }
    match found {
        Type::Int | Type::Uint | Type::Double | Type::Number => {
            Some(format!("compare it with a number, as in {text} > 0"))
        }
        Type::Word(words) => words.first().map(|word| format!("compare it, as in {text} == \"{word}\"")),
        Type::String | Type::Scalar => Some(format!("compare it, as in {text} == \"yes\"")),
        Type::List(_) | Type::Map(_) | Type::Record(_) => {
            Some(format!("ask for its size, as in size({text}) > 0"))
        }
        Type::Dyn | Type::Null | Type::Bool | Type::Bytes | Type::Timestamp | Type::Duration | Type::Kind => {
            None
        }
    }
}
