//! What the integration tests stand on: real databases, a real broker, real `refit` processes, and a client.
//!
//! Nothing here imitates anything, and nothing is skipped: a missing service is a failure that says how to get it. Everything
//! made here is gone when its value is dropped. Helpers panic with what happened; a test has nobody else to tell.

pub mod api;
pub mod private;
pub mod processes;
pub mod services;

use std::time::{Duration, Instant};

/// Whether the long proofs were asked for (`tests/run --soak`).
pub fn soak() -> bool {
    std::env::var("REFIT_TEST_SOAK").is_ok_and(|value| value == "1")
}

/// Asks `probe` every 20 ms until it gives a value.
///
/// # Panics
/// After `timeout`, naming what was waited for.
pub async fn eventually<T>(what: &str, timeout: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(begun.elapsed() < timeout, "waited {timeout:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
