//! The only place of the orchestrator that reads the wall clock. On PostgreSQL the clock is the database's: the
//! offset to it is measured, so that several orchestrators agree on what is due. A simulation's clock stands still until
//! it is set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use refit_workflows::time::Timestamp;

/// What time it is.
#[derive(Debug)]
pub enum Clock {
    /// This host's clock, set right by the database's: by this many milliseconds.
    Wall(AtomicI64),
    /// A virtual one: it stands at this many milliseconds since the Unix epoch.
    Standing(AtomicI64),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Wall(AtomicI64::new(0))
    }
}

impl Clock {
    /// A virtual clock.
    pub fn standing_at(at: Timestamp) -> Self {
        Self::Standing(AtomicI64::new(at.as_millis()))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(match self {
            Self::Wall(offset_ms) => local_millis() + offset_ms.load(Ordering::Relaxed),
            Self::Standing(at) => at.load(Ordering::Relaxed),
        })
    }

    /// Sets a virtual clock; a wall clock is not to be set.
    pub fn set(&self, now: Timestamp) {
        match self {
            Self::Wall(_) => {}
            Self::Standing(at) => at.store(now.as_millis(), Ordering::Relaxed),
        }
    }

    /// Follows the database: `database_ms` is what it read, in milliseconds since the Unix epoch, just now.
    pub fn follow(&self, database_ms: i64) {
        match self {
            Self::Wall(offset_ms) => offset_ms.store(database_ms - local_millis(), Ordering::Relaxed),
            Self::Standing(_) => {}
        }
    }
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
