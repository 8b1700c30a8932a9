//! Why a step waits for a worker, and why a worker is not given it, in words. Must never happen here: an answer that the
//! placement itself would contradict.

use std::collections::BTreeMap;

use super::{Capacity, has_labels, show_cpus};
use crate::definition::HostNeeds;
use crate::units::show_size;

/// A worker's host as the orchestrator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The worker's name.
    pub worker: String,
    /// Whether it takes steps.
    pub state: HostState,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All it has.
    pub offers: Capacity,
    /// What the steps it runs ask for.
    pub used: Capacity,
    /// How many steps it runs at once.
    pub slots: u32,
    /// How many it runs now.
    pub busy: u32,
}

/// Whether a worker takes steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// It does.
    Open,
    /// It finishes what it runs.
    Draining,
    /// It was not heard of lately.
    Silent,
}

impl Host {
    pub(super) fn offers(&self, needs: &HostNeeds) -> bool {
        has_labels(&self.labels, needs) && self.offers.holds(&Capacity::asked(needs))
    }

    /// What of it keeps a step waiting that it offers enough for; none: nothing does.
    fn busy_with(&self, needs: &HostNeeds) -> Option<String> {
        let Capacity { gpus, millicpus, memory } = Capacity::asked(needs);
        let free = self.offers.without(&self.used);
        if self.busy >= self.slots {
            return Some(format!("{} of {} slots", self.busy, self.slots));
        }
        if free.gpus < gpus {
            return Some(format!("{} of {} gpus", self.used.gpus, self.offers.gpus));
        }
        if free.millicpus < millicpus {
            let (used, all) = (show_cpus(self.used.millicpus), show_cpus(self.offers.millicpus));
            return Some(format!("{used} of {all} cpus"));
        }
        (free.memory < memory).then(|| {
            format!("{} of {} of memory", show_size(self.used.memory), show_size(self.offers.memory))
        })
    }

    fn lacks(&self, needs: &HostNeeds) -> Option<String> {
        let asked = Capacity::asked(needs);
        let missing = needs.labels.iter().find(|(key, value)| self.labels.get(*key) != Some(*value));
        if let Some((key, value)) = missing {
            return Some(match self.labels.get(key) {
                Some(other) => format!("its label {key} is {other}, not {value}"),
                None => format!("it has no label {key}={value}"),
            });
        }
        if self.offers.gpus < asked.gpus {
            return Some(format!("it has {} of gpus={}", self.offers.gpus, asked.gpus));
        }
        if self.offers.millicpus < asked.millicpus {
            let (has, asked) = (show_cpus(self.offers.millicpus), show_cpus(asked.millicpus));
            return Some(format!("it has {has} of cpus={asked}"));
        }
        (self.offers.memory < asked.memory).then(|| {
            format!("it has {} of memory={}", show_size(self.offers.memory), show_size(asked.memory))
        })
    }
}

/// Why this worker is not given a step with these needs; none: it is given it when its turn comes.
pub fn why_not(needs: &HostNeeds, host: &Host) -> Option<String> {
    if let Some(lacks) = host.lacks(needs) {
        return Some(lacks);
    }
    match host.state {
        HostState::Silent => Some("it is silent".to_owned()),
        HostState::Draining => Some("it is draining".to_owned()),
        HostState::Open => host.busy_with(needs).map(|what| format!("it is busy ({what})")),
    }
}

/// Why a step with these needs waits.
pub fn why_waits(needs: &HostNeeds, hosts: &[Host]) -> String {
    let open: Vec<&Host> = hosts.iter().filter(|host| host.state == HostState::Open).collect();
    let fitting: Vec<&Host> = open.iter().copied().filter(|host| host.offers(needs)).collect();
    let Some(first) = fitting.first() else { return nobody_offers(needs, hosts, &open) };
    if let Some(free) = fitting.iter().find(|host| host.busy_with(needs).is_none()) {
        return format!(
            "waiting: {} has room; workflows take turns, and a larger step that has waited long goes first",
            free.worker
        );
    }
    let others = fitting.len() - 1;
    let what = first.busy_with(needs).unwrap_or_default();
    match others {
        0 => format!("waiting: {} offers it and is busy ({what})", first.worker),
        1 => format!("waiting: {} ({what}) and 1 other offer it and are busy", first.worker),
        _ => format!("waiting: {} ({what}) and {others} others offer it and are busy", first.worker),
    }
}

fn nobody_offers(needs: &HostNeeds, hosts: &[Host], open: &[&Host]) -> String {
    if let Some(host) = hosts.iter().find(|host| host.offers(needs)) {
        return match host.state {
            HostState::Draining => format!("waiting: {} offers it and is draining", host.worker),
            HostState::Silent | HostState::Open => {
                format!("waiting: {} offers it and is not connected", host.worker)
            }
        };
    }
    if open.is_empty() {
        return "waiting: no worker is connected".to_owned();
    }
    let asked = Capacity::asked(needs);
    for (key, value) in &needs.labels {
        if !open.iter().any(|host| host.labels.get(key) == Some(value)) {
            return format!("waiting: no worker has the label {key}={value}");
        }
    }
    let most = |measure: fn(&Capacity) -> u64, show: fn(u64) -> String, name: &str| {
        let best = open.iter().max_by_key(|host| measure(&host.offers))?;
        let (wanted, has) = (measure(&asked), measure(&best.offers));
        (has < wanted).then(|| {
            let (wanted, has) = (show(wanted), show(has));
            format!("waiting: no worker offers {name}={wanted} (the most is {has}, on {})", best.worker)
        })
    };
    most(|offer| u64::from(offer.gpus), |gpus| gpus.to_string(), "gpus")
        .or_else(|| most(|offer| offer.millicpus, show_cpus, "cpus"))
        .or_else(|| most(|offer| offer.memory, show_size, "memory"))
        .unwrap_or_else(|| format!("waiting: no one worker offers all of {needs}"))
}
