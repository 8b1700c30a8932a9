//! When a step that has waited long keeps what becomes free of a host from smaller ones, and of which host. Without this, one that
//! asks for all GPUs of a host would wait as long as others take one of them each time one is free. Must never happen here:
//! a host that stands idle for a step that has not waited long.

use std::cmp::Ordering;
use std::time::Duration;

use super::{Capacity, Claimant, Host, HostState, level};
use crate::definition::HostNeeds;
use crate::time::Timestamp;

/// Steps that were not served for as long as this keep what they wait for.
const KEEPS_AFTER: Duration = Duration::from_secs(600);

/// Steps of one workflow that ask the same of a host, and wait for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Their workflow.
    pub claimant: Claimant,
    /// What each of them asks for.
    pub asks: Capacity,
    /// When a worker was last given a step of this workflow that asked for the same.
    pub served_at: Option<Timestamp>,
}

impl Waiter {
    fn since(&self) -> Timestamp {
        let ready = self.claimant.ready_at;
        self.served_at.map_or(ready, |served| served.max(ready))
    }

    /// Its own level: what its workflow was given of other steps does not count.
    fn level(&self, now: Timestamp) -> u64 {
        level(self.claimant.priority, self.since(), now)
    }

    /// Whether the other must leave alone what is free of a host: it would take what this one waits for, which has waited
    /// long, asks for more, and is of no lower level by its own waiting.
    pub fn keeps_from(&self, other: &Self, free: &Capacity, now: Timestamp) -> bool {
        now.since(self.since()) >= KEEPS_AFTER
            && !other.asks.holds(&self.asks)
            && !free.without(&self.asks).holds(&other.asks)
            && self.level(now) >= other.claimant.level(now)
    }

    /// `Less`: where both keep something, this one does.
    pub fn before(&self, other: &Self, now: Timestamp) -> Ordering {
        other.level(now).cmp(&self.level(now)).then(self.since().cmp(&other.since()))
    }
}

/// The one host that is kept for a step with these needs: of those that offer it, the one that lacks the least of it.
///
/// What lacks there never grows while it is kept, so that the step is given a host in the end; and where another host
/// comes to lack less, that one is kept instead.
pub fn kept_host<'a>(needs: &HostNeeds, hosts: &'a [Host]) -> Option<&'a Host> {
    let fitting = hosts.iter().filter(|host| host.state == HostState::Open && host.offers(needs));
    fitting.min_by(|one, other| {
        lack(needs, one).cmp(&lack(needs, other)).then_with(|| one.worker.cmp(&other.worker))
    })
}

/// What a host lacks, in millionths of what it offers, over all that is counted.
fn lack(needs: &HostNeeds, host: &Host) -> u128 {
    let Capacity { gpus, millicpus, memory } =
        Capacity::asked(needs).without(&host.offers.without(&host.used));
    let share = |lacks: u64, of: u64| u128::from(lacks) * 1_000_000 / u128::from(of.max(1));
    share(gpus.into(), host.offers.gpus.into())
        + share(millicpus, host.offers.millicpus)
        + share(memory, host.offers.memory)
}
