//! The only place of the orchestrator that reads the wall clock. On PostgreSQL the clock is the database's: the
//! offset to it is measured, so that several orchestrators agree on what is due.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use refit_workflows::time::Timestamp;

/// A clock that can be set right by the database's.
#[derive(Debug, Default)]
pub struct Clock {
    offset_ms: AtomicI64,
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(local_millis() + self.offset_ms.load(Ordering::Relaxed))
    }

    /// Follows the database: `database_ms` is what it read, in milliseconds since the Unix epoch, just now.
    pub fn follow(&self, database_ms: i64) {
        self.offset_ms.store(database_ms - local_millis(), Ordering::Relaxed);
    }
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
