//! The text of `duration("2d")`: CEL's durations end at hours, the language's own do not; and the evaluator would take
//! the beginning of a text and forget the rest. Must never happen here: text taken for a duration that is none.

use cel::ExecutionError;
use cel::common::types::CelString;
use cel::common::value::CowVal;

/// The function that `duration` hands its argument to first. No expression can spell the name.
pub(super) const READ: &str = "@read_duration";

/// `@read_duration(x)`: text as the evaluator understands it; everything that is no text is passed through.
pub(super) fn read<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    match value.downcast_ref::<CelString<'v>>().map(|text| in_hours(text.inner())) {
        None => Ok(value),
        Some(Some(hours)) => Ok(CowVal::Owned(Box::new(CelString::from(hours)))),
        Some(None) => Err(ExecutionError::function_error(
            "duration",
            "that is not a duration: write it as in 90s, 15m, 6h, 2d or 1h30m",
        )),
    }
}

/// The text with days as hours: `2d` is `48h`, `-1d12h` is `-24h12h`. None for what is not a sign, days in whole
/// numbers, and numbers with the units `h`, `m`, `s`, `ms`, `us` and `ns`, each as often as one likes.
pub(super) fn in_hours(text: &str) -> Option<String> {
    let (sign, parts) = text.strip_prefix('-').map_or(("", text), |parts| ("-", parts));
    if parts == "0" {
        return Some(text.to_owned());
    }
    let whole = parts.len() - parts.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (hours, rest) = match parts[whole..].strip_prefix('d') {
        Some(rest) => (format!("{}h", parts[..whole].parse::<u64>().ok()?.checked_mul(24)?), rest),
        None => (String::new(), parts),
    };
    let is_sound = are_parts(rest) && !(hours.is_empty() && rest.is_empty());
    is_sound.then(|| format!("{sign}{hours}{rest}"))
}

fn are_parts(mut rest: &str) -> bool {
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let unit =
            rest[number..].len() - rest[number..].trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (number, unit) = (&rest[..number], &rest[number..number + unit]);
        let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok();
        if !is_number || !matches!(unit, "h" | "m" | "s" | "ms" | "us" | "ns") {
            return false;
        }
        rest = &rest[number.len() + unit.len()..];
    }
    true
}
