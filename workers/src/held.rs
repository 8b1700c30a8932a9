//! The attempts this worker holds, until when it may believe so, and what was decided about each from outside.
//! A lease is counted on the worker's own steady clock from before the request that renewed it, so that the worker
//! gives up before the orchestrator does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use refit_workflows::wire::{AttemptKey, Instruction};
use tokio::sync::watch;

/// Why an attempt must end before its process does; a later one overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// The run was cancelled: end the tree, report `cancelled`.
    Cancel,
    /// The worker is told to leave at once.
    ShutDown,
    /// The orchestrator was out of reach for as long as the lease lasts.
    Fenced,
    /// The attempt belongs to somebody else or is settled: end the tree, report nothing.
    Stop,
}

/// Tells an attempt of its [`Ending`]; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EndingSignal(watch::Receiver<Option<Ending>>);

impl EndingSignal {
    /// Resolves when the attempt must end; at once when that is known already.
    pub(crate) async fn ended(&mut self) -> Ending {
        self.at_least(Ending::Cancel).await
    }

    /// Resolves when nobody wants what the attempt came to: its run was cancelled, or it belongs to somebody else.
    pub(crate) async fn unwanted(&mut self) -> Ending {
        let unwanted = |ending: &Option<Ending>| matches!(ending, Some(Ending::Cancel | Ending::Stop));
        match self.0.wait_for(unwanted).await.map(|ending| *ending) {
            Ok(Some(ending)) => ending,
            Ok(None) | Err(_) => Ending::Stop,
        }
    }

    /// Whether it is known already that the attempt belongs to somebody else.
    pub(crate) fn is_lost(&self) -> bool {
        *self.0.borrow() == Some(Ending::Stop)
    }

    /// Resolves when there is no time left to talk with the orchestrator about the attempt.
    pub(crate) async fn hurried(&mut self) -> Ending {
        self.at_least(Ending::ShutDown).await
    }

    async fn at_least(&mut self, least: Ending) -> Ending {
        match self
            .0
            .wait_for(|ending| ending.is_some_and(|ending| ending >= least))
            .await
            .map(|ending| *ending)
        {
            Ok(Some(ending)) => ending,
            // The table dropped the attempt: nobody waits for what it comes to.
            Ok(None) | Err(_) => Ending::Stop,
        }
    }
}

#[derive(Debug)]
struct Lease {
    /// On [`crate::host::steady_clock`]: just before the last request that renewed it was sent.
    renewed: Duration,
    ending: watch::Sender<Option<Ending>>,
}

/// The table of held attempts.
#[derive(Debug, Default)]
pub(crate) struct Held {
    leases: Mutex<BTreeMap<AttemptKey, Lease>>,
}

/// Keeps an attempt in the table, and so among the renewed ones, until dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    held: Arc<Held>,
    key: AttemptKey,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.lock().remove(&self.key);
    }
}

impl Held {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptKey, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an attempt whose session was last heard of by a request sent at `asked`. None when it is held already: the
    /// reply to the lease was a repetition.
    pub(crate) fn take(
        self: &Arc<Self>,
        key: &AttemptKey,
        asked: Duration,
    ) -> Option<(Holding, EndingSignal)> {
        let mut leases = self.lock();
        if leases.contains_key(key) {
            return None;
        }
        let (ending, signal) = watch::channel(None);
        leases.insert(key.clone(), Lease { renewed: asked, ending });
        Some((Holding { held: self.clone(), key: key.clone() }, EndingSignal(signal)))
    }

    /// What is held, in order.
    pub(crate) fn keys(&self) -> Vec<AttemptKey> {
        self.lock().keys().cloned().collect()
    }

    /// Takes in the reply to a renewal of `keys` sent at `asked`.
    pub(crate) fn renewed(&self, keys: &[AttemptKey], instructions: &[Instruction], asked: Duration) {
        let mut leases = self.lock();
        for (key, instruction) in keys.iter().zip(instructions) {
            let Some(lease) = leases.get_mut(key) else { continue };
            match instruction {
                Instruction::Continue => lease.renewed = asked,
                Instruction::Cancel => {
                    lease.renewed = asked;
                    tell(&lease.ending, Ending::Cancel);
                }
                Instruction::Stop => {
                    tell(&lease.ending, Ending::Stop);
                }
            }
        }
    }

    /// Ends one attempt.
    pub(crate) fn end(&self, key: &AttemptKey, ending: Ending) {
        if let Some(lease) = self.lock().get(key) {
            tell(&lease.ending, ending);
        }
    }

    /// Ends every attempt.
    pub(crate) fn end_all(&self, ending: Ending) {
        for lease in self.lock().values() {
            tell(&lease.ending, ending);
        }
    }

    /// Ends what was last renewed longer than `life` ago, as of `now` on the steady clock.
    pub(crate) fn fence(&self, life: Duration, now: Duration) {
        for (key, lease) in self.lock().iter() {
            if now.saturating_sub(lease.renewed) >= life && tell(&lease.ending, Ending::Fenced) {
                tracing::warn!(run = %key.run, step = key.step, "the lease ran out without a renewal; ending the step");
            }
        }
    }
}

fn tell(sender: &watch::Sender<Option<Ending>>, ending: Ending) -> bool {
    sender.send_if_modified(|current| {
        let changes = current.is_none_or(|current| current < ending);
        if changes {
            *current = Some(ending);
        }
        changes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use refit_workflows::names::RunName;

    fn now(signal: &EndingSignal) -> Option<Ending> {
        *signal.0.borrow()
    }

    fn key(epoch: i64) -> AttemptKey {
        AttemptKey { run: RunName::new("churn", 1), step: "train".to_owned(), epoch }
    }

    #[test]
    fn a_lease_that_is_not_renewed_is_fenced_and_a_renewed_one_is_not() {
        let held = Arc::new(Held::default());
        let at = Duration::from_secs;
        let (_one, first) = held.take(&key(1), at(100)).unwrap();
        let (_two, second) = held.take(&key(2), at(100)).unwrap();
        held.renewed(&[key(2)], &[Instruction::Continue], at(108));
        held.fence(at(10), at(109));
        assert_eq!((now(&first), now(&second)), (None, None));
        held.fence(at(10), at(110));
        assert_eq!((now(&first), now(&second)), (Some(Ending::Fenced), None));
    }

    #[test]
    fn a_graver_ending_overrides_and_a_lighter_one_does_not() {
        let held = Arc::new(Held::default());
        let (_holding, signal) = held.take(&key(1), Duration::ZERO).unwrap();
        held.renewed(&[key(1)], &[Instruction::Cancel], Duration::ZERO);
        assert_eq!(now(&signal), Some(Ending::Cancel));
        held.end(&key(1), Ending::Stop);
        held.end_all(Ending::ShutDown);
        assert_eq!(now(&signal), Some(Ending::Stop));
    }

    #[test]
    fn a_repeated_order_is_taken_once_and_a_finished_one_is_forgotten() {
        let held = Arc::new(Held::default());
        let holding = held.take(&key(1), Duration::ZERO).unwrap();
        assert!(held.take(&key(1), Duration::ZERO).is_none());
        drop(holding);
        assert!(held.keys().is_empty());
    }
}
