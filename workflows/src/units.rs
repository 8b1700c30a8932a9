//! Numbers with a unit, as the language writes them: sizes (`512MiB`) and shares (`50%`). Durations are in `time`.
//! Must never happen here: a number without its unit being guessed at.

/// Reads a size in bytes: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `kB`, `MB`, `GB`,
/// `TB` (powers of 1000).
///
/// # Errors
/// What is wrong and what would be right, as a sentence.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write a whole number and a unit, as in 512MiB or 16GiB");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let (base, power) = match &text[digits..] {
        "B" => (1_u64, 1),
        "KiB" => (1024, 1),
        "MiB" => (1024, 2),
        "GiB" => (1024, 3),
        "TiB" => (1024, 4),
        "kB" => (1000, 1),
        "MB" => (1000, 2),
        "GB" => (1000, 3),
        "TB" => (1000, 4),
        _ => return Err(wrong()),
    };
    number.checked_mul(base.pow(power)).ok_or_else(wrong)
}

/// A size in a sentence, in the largest unit of 1024s that it has one of: `64 MiB`, `1.5 GiB`.
pub fn show_size(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|&(_, unit)| bytes >= unit) {
        Some((name, unit)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Reads a share of a whole, from 0 to 1: a number and `%`, as in `50%` or `0.5%`, at most `100%`.
///
/// # Errors
/// What is wrong and what would be right, as a sentence.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let percent = parse_percent(text)?;
    if percent > 1.0 {
        return Err(format!("`{text}` is more than all of it: a share is at most 100%"));
    }
    Ok(percent)
}

/// Reads a ratio written as [`parse_share`] reads shares, but which may be more than the whole: `150%` is 1.5.
///
/// # Errors
/// What is wrong and what would be right, as a sentence.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a share: write a number and `%`, as in 50% or 0.5%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.len() <= 20;
    let begins = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
    let value: f64 = number.parse().ok().filter(|_| plain && begins).ok_or_else(wrong)?;
    Ok(value / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_that_exists() {
        assert_eq!(parse_size("16GiB"), Ok(16 * 1024 * 1024 * 1024));
        assert_eq!(parse_size("512MB"), Ok(512_000_000));
        assert_eq!(parse_size("0B"), Ok(0));
        for wrong in ["", "16", "GiB", "16 GiB", "1.5GiB", "-1B", "16gib", "16G", "99999999999999TiB", "16KB"]
        {
            assert!(parse_size(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        for text in ["1023 B", "1 KiB", "64 MiB", "16 GiB", "3 TiB", "5000 TiB"] {
            assert_eq!(show_size(parse_size(&text.replace(' ', "")).unwrap()), text);
        }
        assert_eq!(show_size(1536 * 1024 * 1024), "1.5 GiB");
    }

    #[test]
    fn shares_need_a_percent_sign_and_a_bound() {
        assert_eq!(parse_share("50%"), Ok(0.5));
        assert_eq!(parse_share("0.5%"), Ok(0.005));
        assert_eq!(parse_share("100%"), Ok(1.0));
        assert_eq!(parse_percent("150%"), Ok(1.5));
        for wrong in ["", "0.5", "%", "50 %", "-1%", "1e2%", "101%", ".5%", "5.%", "1.2.3%", "nan%"] {
            assert!(parse_share(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
