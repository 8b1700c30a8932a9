//! Which steps a worker's host can run, in what order workflows get their turn, and why a step waits: one decision, used
//! when steps are given out and when somebody asks. Must never happen here: a look at anything but its arguments.
//!
//! What is free is counted by what steps ask for, not by what they use: a step without needs takes a slot and nothing
//! else.

mod keep;
mod waiting;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::definition::HostNeeds;
use crate::digest::Digest;
use crate::time::Timestamp;

pub use keep::{Waiter, kept_host};
pub use waiting::{Host, HostState, why_not, why_waits};

/// A claimant rises by one point of priority for each of these that it waits.
const AGEING: Duration = Duration::from_secs(60);
/// How many characters of a digest name a class.
pub const CLASS_LENGTH: usize = 16;

/// The name of all needs that are the same as these: [`CLASS_LENGTH`] characters, hexadecimal.
pub fn class_of(needs: Option<&HostNeeds>) -> String {
    let none = HostNeeds::default();
    let HostNeeds { gpus, cpus, memory, labels } = needs.unwrap_or(&none);
    let (gpus, memory) = (gpus.unwrap_or(0), memory.unwrap_or(0));
    // Exact, unlike what is written for people.
    let text = format!("{gpus} {cpus:?} {memory} {labels:?}");
    Digest::of(text.as_bytes()).hex().chars().take(CLASS_LENGTH).collect()
}

/// What can be counted of a host: all of it, or what is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// GPUs.
    pub gpus: u32,
    /// Thousandths of CPUs: sums of shares such as 0.1 are exact.
    pub millicpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Capacity {
    /// A host of this many GPUs, CPUs and bytes of memory.
    pub fn new(gpus: u32, cpus: u32, memory: u64) -> Self {
        Self { gpus, millicpus: u64::from(cpus) * 1000, memory }
    }

    /// What is asked for; a share of a CPU finer than a thousandth counts as one thousandth.
    pub fn asked(needs: &HostNeeds) -> Self {
        // The language allows no more than 4096 CPUs.
        let millicpus = needs.cpus.map_or(0, |cpus| ((cpus * 1000.0).round() as u64).max(1));
        Self { gpus: needs.gpus.unwrap_or(0), millicpus, memory: needs.memory.unwrap_or(0) }
    }

    /// Whether as much as `other` can be taken from it.
    pub fn holds(&self, other: &Self) -> bool {
        let Self { gpus, millicpus, memory } = other;
        self.gpus >= *gpus && self.millicpus >= *millicpus && self.memory >= *memory
    }

    /// What is left when this is taken; nothing where more is taken than there is, as by a worker that offers less than
    /// it did when it was given a step.
    pub fn without(&self, taken: &Self) -> Self {
        Self {
            gpus: self.gpus.saturating_sub(taken.gpus),
            millicpus: self.millicpus.saturating_sub(taken.millicpus),
            memory: self.memory.saturating_sub(taken.memory),
        }
    }

    /// Both together.
    pub fn and(&self, more: &Self) -> Self {
        Self {
            gpus: self.gpus.saturating_add(more.gpus),
            millicpus: self.millicpus.saturating_add(more.millicpus),
            memory: self.memory.saturating_add(more.memory),
        }
    }
}

/// Whether a host with these labels has every label that is asked for.
pub fn has_labels(labels: &BTreeMap<String, String>, needs: &HostNeeds) -> bool {
    needs.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A workflow whose steps wait for a worker, and which of them would be next.
///
/// The rule: the workflow of the highest level goes first. Its level is its `priority` and one for every whole minute
/// since a worker was last given a step of it, or since its longest waiting step became ready where that was later. So
/// whatever waits rises until it is its turn, once; a workflow that is served does not rise. Of equal levels the one that
/// was served longest ago goes first, then the one whose step has waited longest: equals take turns, however many steps
/// each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The workflow's `priority`.
    pub priority: u32,
    /// When the step that would be next became ready.
    pub ready_at: Timestamp,
    /// When a worker was last given a step of the workflow.
    pub served_at: Option<Timestamp>,
    /// How many of its steps were given out at this very moment.
    pub given: usize,
}

impl Claimant {
    fn level(&self, now: Timestamp) -> u64 {
        let since = self.served_at.map_or(self.ready_at, |served| served.max(self.ready_at));
        level(self.priority, since, now)
    }

    /// `Less`: it goes before the other.
    pub fn turn(&self, other: &Self, now: Timestamp) -> Ordering {
        let by_level = other.level(now).cmp(&self.level(now));
        by_level
            .then(self.given.cmp(&other.given))
            .then(self.served_at.cmp(&other.served_at))
            .then(self.ready_at.cmp(&other.ready_at))
    }
}

fn level(priority: u32, since: Timestamp, now: Timestamp) -> u64 {
    u64::from(priority).saturating_add(now.since(since).as_secs() / AGEING.as_secs())
}

fn show_cpus(millicpus: u64) -> String {
    (millicpus as f64 / 1000.0).to_string()
}

#[cfg(test)]
mod tests;
