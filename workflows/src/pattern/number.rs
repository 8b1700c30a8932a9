//! Exact comparison of JSON numbers: integers beyond 2^53 are told apart, and 5 is 5.0. Nothing is rounded on the way.

use std::cmp::Ordering;

use serde_json::Number;

/// A JSON number without loss: serde_json holds a 64-bit integer or a finite double.
#[derive(Clone, Copy)]
enum Exact {
    Integer(i128),
    Double(f64),
}

fn exact(number: &Number) -> Exact {
    if let Some(int) = number.as_i64() {
        Exact::Integer(i128::from(int))
    } else if let Some(uint) = number.as_u64() {
        Exact::Integer(i128::from(uint))
    } else {
        Exact::Double(number.as_f64().unwrap_or(f64::NAN))
    }
}

/// A number in the one form that all its spellings share, to look it up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Canonical {
    Integer(i128),
    /// The bits of a double that no 64-bit integer equals.
    Double(u64),
}

impl Canonical {
    pub(super) fn of(number: &Number) -> Self {
        // 2^64: what lies beyond is no 64-bit integer.
        const BEYOND: f64 = 18_446_744_073_709_551_616.0;
        match exact(number) {
            Exact::Integer(int) => Self::Integer(int),
            Exact::Double(double) if double.fract() == 0.0 && double.abs() < BEYOND => {
                Self::Integer(double as i128)
            }
            Exact::Double(double) => Self::Double(double.to_bits()),
        }
    }
}

/// The order of two numbers.
pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    match (exact(a), exact(b)) {
        (Exact::Integer(a), Exact::Integer(b)) => a.cmp(&b),
        // serde_json's doubles are finite; `total_cmp` alone would tell -0.0 from 0.0.
        (Exact::Double(a), Exact::Double(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.total_cmp(&b)),
        (Exact::Integer(a), Exact::Double(b)) => compare_mixed(a, b),
        (Exact::Double(a), Exact::Integer(b)) => compare_mixed(b, a).reverse(),
    }
}

/// Whether two numbers are the same number.
pub(super) fn equal(a: &Number, b: &Number) -> bool {
    compare(a, b).is_eq()
}

/// Whether a double can hold the number.
pub(super) fn survives_f64(number: &Number) -> bool {
    match exact(number) {
        Exact::Integer(int) => (int as f64) as i128 == int,
        Exact::Double(_) => true,
    }
}

/// A 64-bit integer against a double: by the whole part first, then by the fraction. The cast to i128 is exact where
/// it matters and saturates far outside of 64 bits.
fn compare_mixed(int: i128, double: f64) -> Ordering {
    let whole = double.trunc();
    int.cmp(&(whole as i128)).then_with(|| 0.0_f64.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn integers_and_doubles_compare_by_value() {
        for (a, b, order) in [
            ("5", "5.0", Ordering::Equal),
            ("5", "5e0", Ordering::Equal),
            ("-0.0", "0", Ordering::Equal),
            ("5", "5.5", Ordering::Less),
            ("-5", "-5.5", Ordering::Greater),
            ("9007199254740993", "9007199254740992", Ordering::Greater),
            ("9007199254740993", "9007199254740992.0", Ordering::Greater),
            ("18446744073709551615", "1e300", Ordering::Less),
            ("18446744073709551615", "18446744073709551616.0", Ordering::Less),
            ("-9223372036854775808", "-1e300", Ordering::Greater),
        ] {
            assert_eq!(compare(&number(a), &number(b)), order, "{a} and {b}");
            assert_eq!(compare(&number(b), &number(a)), order.reverse(), "{b} and {a}");
            let same = Canonical::of(&number(a)) == Canonical::of(&number(b));
            assert_eq!(same, order.is_eq(), "{a} and {b}");
        }
        assert!(survives_f64(&number("9007199254740992")) && !survives_f64(&number("9007199254740993")));
    }
}
