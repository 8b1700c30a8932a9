//! Numbers as people read them in a gate's reasons. Must never happen here: a digit that was not there.

/// A number as people read it: at most five digits behind the point.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn signed(value: f64) -> String {
    if value < 0.0 { format!("−{}", number(-value)) } else { format!("+{}", number(value)) }
}

/// A probability: two significant digits, and "below 0.0001" where more would say nothing.
pub(super) fn probability(p: f64) -> String {
    if p < 0.0001 {
        return "below 0.0001".to_owned();
    }
    let digits = if p >= 0.1 {
        2
    } else if p >= 0.01 {
        3
    } else {
        4
    };
    format!("{p:.digits$}")
}

/// How sure something is that errs this often: `95 %`.
pub(super) fn confidence(alpha: f64) -> String {
    format!("{} %", number((1.0 - alpha) * 100.0))
}

/// A count with its thousands apart: `12,000`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
