//! Instants and durations as Refit writes them: milliseconds inside, RFC 3339 and `90s 15m 6h 2d` outside.
//! Never reads a clock: `now` is always an argument.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: milliseconds since the Unix epoch. Written as RFC 3339 in UTC wherever it leaves the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant moved later; saturates at the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant moved earlier; saturates at the beginning of time.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339 with any offset.
    ///
    /// # Errors
    /// It is none, or after the year 9999 (in UTC), which RFC 3339 cannot write.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<jiff::Timestamp>() {
            Ok(instant) => Ok(Self(instant.as_millisecond())),
            Err(_) => match in_the_last_year(text) {
                Some(millis) if millis <= MILLIS_MAX => Ok(Self(millis)),
                Some(_) => Err(format!("`{text}` is after 9999-12-31T23:59:59.999Z, the last time there is")),
                None => Err(format!("`{text}` is not an RFC 3339 time, for example 2026-01-31T08:00:00Z")),
            },
        }
    }
}

/// 9999-12-31T23:59:59.999Z in milliseconds since the Unix epoch.
const MILLIS_MAX: i64 = 253_402_300_799_999;
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Milliseconds since the Unix epoch of a time in the year 9999. `jiff` keeps the last day of its instants free, so that
/// they have a local time everywhere; but `9999-12-31T23:59:59Z` is how many programs write "never".
fn in_the_last_year(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
    let local = pieces.date().to_datetime(time).duration_since(EPOCH);
    let millis = i64::try_from(local.as_millis()).ok()? - i64::from(offset.seconds()) * 1000;
    (pieces.date().year() == 9999).then_some(millis)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => match EPOCH.checked_add(SignedDuration::from_millis(self.0)) {
                Ok(instant) => write!(f, "{instant:.3}Z"),
                Err(_) => write!(f, "{} ms", self.0),
            },
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The longest duration the language accepts: 30 days.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a duration with its unit: `500ms`, `90s`, `15m`, `6h`, `2d`. One number, one unit, at most 30 days.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration: write a whole number and a unit, as in 90s, 15m, 6h or 2d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let millis_per_unit: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or_else(wrong)?;
    if duration > DURATION_MAX {
        return Err(format!("`{text}` is longer than 30d, the longest duration allowed"));
    }
    Ok(duration)
}

/// A duration for people, at most two units: `420ms`, `4.2s`, `3m 20s`, `2h 5m`, `3d 4h`.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_bound() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["", "5", "-5m", "1h30", "PT1H", "1.5h", "99999999999h", "31d", "s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn timestamps_survive_their_text() {
        let at = Timestamp::from_millis(1_800_000_000_123);
        assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
        assert_eq!(at.to_string(), "2027-01-15T08:00:00.123Z");
        // "Never", as many programs write it.
        for (last, written) in [
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T18:59:59-05:00", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31T23:59:59+02:00", "9999-12-31T21:59:59.000Z"),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00.000Z"),
        ] {
            let at = Timestamp::parse(last).unwrap();
            assert_eq!(at.to_string(), written, "{last}");
            assert_eq!(Timestamp::parse(written), Ok(at));
        }
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59.999Z"), Ok(Timestamp(MILLIS_MAX)));
    }

    #[test]
    fn what_is_no_time_is_refused_and_what_is_too_late_is_told_so() {
        let late = Timestamp::parse("9999-12-31T23:59:59-00:01").unwrap_err();
        assert!(late.contains("is after 9999-12-31T23:59:59.999Z"), "{late}");
        for wrong in
            ["noon", "9999-12-31", "9999-12-31T23:59:59", "10000-01-01T00:00:00Z", "9999-13-01T00:00:00Z"]
        {
            let told = Timestamp::parse(wrong).unwrap_err();
            assert!(told.contains("not an RFC 3339 time"), "{told}");
        }
    }
}
