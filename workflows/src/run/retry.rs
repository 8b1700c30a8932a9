//! Pauses between attempts: exponential with a cap, and a jitter derived from what is being retried rather than
//! from a generator, so that replaying a journal gives the same pauses.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::definition::Retry;
use crate::names::RunName;

impl Retry {
    /// The pause after failed attempt number `attempt` (from 1): `backoff · 2^(attempt−1)`, at most `max_backoff`,
    /// then up to 20 % less, by a hash of the run, the step and the attempt.
    pub(super) fn pause(&self, run: &RunName, step: &str, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1).min(30)));
        let full = doubled.min(self.max_backoff);
        let hash = Sha256::digest(format!("{run} {step} {attempt}"));
        let fifth = u32::from(hash[0]);
        full - full * fifth / (5 * 256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_stay_within_the_jitter() {
        let retry =
            Retry { attempts: 9, backoff: Duration::from_secs(10), max_backoff: Duration::from_secs(60) };
        let run = RunName::new("churn", 12);
        for (attempt, full) in [(1, 10), (2, 20), (3, 40), (4, 60), (30, 60), (u32::MAX, 60)] {
            let pause = retry.pause(&run, "train", attempt);
            assert!(pause <= Duration::from_secs(full), "attempt {attempt}: {pause:?}");
            assert!(pause >= Duration::from_secs(full) * 4 / 5, "attempt {attempt}: {pause:?}");
            assert_eq!(pause, retry.pause(&run, "train", attempt));
        }
    }
}
