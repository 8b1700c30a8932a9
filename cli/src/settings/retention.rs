//! `retention` of `refit.yaml`: what is left out keeps its default.

use std::num::NonZeroU64;
use std::time::Duration;

use refit_orchestrator::config::{Keep, Retention};
use refit_workflows::time::parse_duration;
use serde::Deserialize;

/// The longest age that can be asked for, in days; beyond it `forever` is meant.
const DAYS_MAX: u64 = 36_500;

/// How long what has happened is kept.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetentionSettings {
    events: KeepSettings,
    runs: KeepSettings,
    logs: KeepSettings,
    dead_letters: KeepSettings,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeepSettings {
    age: Option<Age>,
    count: Option<NonZeroU64>,
}

/// `90d`, `12h` or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Age(Option<Duration>);

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let nothing =
            || format!("`{text}` would keep nothing; write how long, such as 90d or 12h, or forever");
        // Longer than any duration of the language.
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
        match days {
            Some(0) => Err(nothing()),
            Some(days) if days <= DAYS_MAX => Ok(Self(Some(Duration::from_secs(days * 24 * 3600)))),
            Some(_) => Err(format!("`{text}` is longer than {DAYS_MAX}d: write forever")),
            None => match parse_duration(&text) {
                Ok(Duration::ZERO) => Err(nothing()),
                Ok(age) => Ok(Self(Some(age))),
                Err(_) => Err(format!("`{text}` is not an age: write 90d, 12h or forever")),
            },
        }
    }
}

impl RetentionSettings {
    /// With the defaults of what is left out.
    pub(super) fn retention(self) -> Retention {
        let default = Retention::default();
        Retention {
            events: self.events.keep(default.events),
            runs: self.runs.keep(default.runs),
            logs: self.logs.keep(default.logs),
            dead_letters: self.dead_letters.keep(default.dead_letters),
        }
    }
}

impl KeepSettings {
    fn keep(self, default: Keep) -> Keep {
        Keep {
            age: self.age.map_or(default.age, |Age(age)| age),
            count: self.count.map(NonZeroU64::get).or(default.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Retention, String> {
        let settings: Result<RetentionSettings, _> = serde_yaml::from_str(text);
        settings.map(RetentionSettings::retention).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let asked =
            read("events: { age: 120d, count: 1000000 }\nruns: { age: forever }\nlogs: { age: 12h }\n")
                .unwrap();
        let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
        assert_eq!(asked.events, Keep { age: days(120), count: Some(1_000_000) });
        assert_eq!(asked.runs, Keep { age: None, count: None });
        assert_eq!(asked.logs.age, Some(Duration::from_secs(12 * 3600)));
        assert_eq!(asked.dead_letters, Retention::default().dead_letters);
        assert_eq!(read("events: { count: 5 }").unwrap().events, Keep { age: days(90), count: Some(5) });
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, expected) in [
            ("events: { age: 90 }", "age"),
            ("events: { age: long }", "write 90d, 12h or forever"),
            ("events: { age: 99999d }", "forever"),
            ("events: { size: 1 }", "size"),
            ("events: { count: -1 }", "count"),
            ("blobs: { age: 1d }", "blobs"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(expected), "{text}: {wrong}");
        }
    }
}
