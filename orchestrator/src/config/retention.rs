//! How long what has happened is kept. Bounds only: what must stay beyond them is `store/retention`'s business.

use std::time::Duration;

/// Bounds for one kind of thing: it goes when it is beyond either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how long; for ever when none.
    pub age: Option<Duration>,
    /// How many, the newest; all when none.
    pub count: Option<u64>,
}

impl Keep {
    /// Everything, for ever.
    pub const ALL: Self = Self { age: None, count: None };

    /// For so many days.
    pub const fn days(days: u64) -> Self {
        Self { age: Some(Duration::from_secs(days * 24 * 3600)), count: None }
    }
}

/// How long what has happened is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events and the decisions about them, from when they were received: 90 days. An event that is delivered again after
    /// it has gone counts as a new one.
    pub events: Keep,
    /// Runs that are over, with their steps, journals and logs, from their last change: 365 days.
    pub runs: Keep,
    /// The logs of runs that are over, by the age of their lines, and by the number of pieces: 30 days.
    pub logs: Keep,
    /// Dead letters: 30 days.
    pub dead_letters: Keep,
}

impl Retention {
    /// Everything, for ever.
    pub const ALL: Self =
        Self { events: Keep::ALL, runs: Keep::ALL, logs: Keep::ALL, dead_letters: Keep::ALL };
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: Keep::days(90),
            runs: Keep::days(365),
            logs: Keep::days(30),
            dead_letters: Keep::days(30),
        }
    }
}
