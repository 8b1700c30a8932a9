//! Events that wait together: a batch or a join, one for each workflow, trigger and key. What becomes of it when an
//! event arrives or time passes depends on nothing but the trigger, the gathering and that instant. Must never happen
//! here: a look at a clock, or an end that depends on when somebody looked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::words::part_words;
use super::{Arrival, add};
use crate::definition::{BatchRule, JoinTrigger, OnExpire, Trigger};
use crate::time::{Timestamp, show_duration};

/// Events that are waiting together, as far as their trigger needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gathering {
    /// When its first event came.
    pub opened_at: Timestamp,
    /// When its latest event came.
    pub last_at: Timestamp,
    /// Events so far; at least 1.
    pub count: u64,
    /// What `batch.sum` comes to so far; always finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// The parts of a join that were seen, by place.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub filled: BTreeSet<usize>,
}

/// What a gathering comes to once it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its trigger fires; what started the run, in words.
    Fires(String),
    /// Its events start nothing, and why.
    Expires(String),
}

impl Gathering {
    /// The gathering that this event opens.
    pub fn open(arrival: &Arrival, at: Timestamp) -> Self {
        let mut gathering = Self { opened_at: at, last_at: at, count: 0, sum: None, filled: BTreeSet::new() };
        gathering.take(arrival, at);
        gathering
    }

    /// Takes an event in. Of a join's parts it fills the first of those it matches that is open, and returns its place;
    /// an event whose parts are all filled waits with the others and fills none.
    pub fn take(&mut self, arrival: &Arrival, at: Timestamp) -> Option<usize> {
        // Two orchestrators' clocks may differ by a little; time does not go back.
        self.last_at = self.last_at.max(at);
        self.count += 1;
        self.sum = add(self.sum, arrival.amount);
        let part = arrival.parts.iter().copied().find(|part| !self.filled.contains(part));
        self.filled.extend(part);
        part
    }
}

impl Trigger {
    /// When a gathering of this trigger is over if nothing more comes; none: only more events end it. An event that
    /// arrives at that instant or later opens the next one.
    ///
    /// A trigger that was changed since and gathers no more ends what it gathered at once.
    pub fn due_at(&self, gathering: &Gathering) -> Option<Timestamp> {
        match self {
            Self::Event(trigger) => match &trigger.batch {
                Some(rule) => rule.due_at(gathering),
                None => Some(gathering.last_at),
            },
            Self::Join(trigger) => Some(if trigger.is_complete(gathering) {
                gathering.last_at
            } else {
                gathering.opened_at.plus(trigger.within)
            }),
            Self::Cron(_) => Some(gathering.last_at),
        }
    }

    /// What a gathering of this trigger comes to when it is due.
    pub fn ending(&self, gathering: &Gathering) -> Ending {
        let events = match gathering.count {
            1 => "1 event".to_owned(),
            count => format!("{count} events"),
        };
        match self {
            Self::Event(_) | Self::Cron(_) => Ending::Fires(format!("a batch of {events}")),
            Self::Join(join) if join.is_complete(gathering) => Ending::Fires(format!("a join of {events}")),
            Self::Join(join) => {
                let within = show_duration(join.within);
                let wrong = format!("{} did not come within {within}", join.missing_words(gathering));
                match join.on_expire {
                    OnExpire::Fire => Ending::Fires(format!("a join of {events}: {wrong}")),
                    OnExpire::Drop => Ending::Expires(format!("the join expired: {wrong}")),
                }
            }
        }
    }

    /// What is said about an event that was taken in and filled `part`; nothing for a batch.
    pub fn taken_words(&self, gathering: &Gathering, part: Option<usize>) -> Option<String> {
        match self {
            Self::Event(_) | Self::Cron(_) => None,
            Self::Join(join) => {
                let is = match part {
                    Some(part) => format!("part {} of {}", part + 1, join.parts.len()),
                    None => "its part was seen already".to_owned(),
                };
                Some(if join.is_complete(gathering) {
                    format!("{is}: all are there")
                } else {
                    format!("{is}: {} is missing", join.missing_words(gathering))
                })
            }
        }
    }

    /// What a gathering still waits for: any one of these ends it. `1 more event or 2m 0s without another`,
    /// `event labels, until 2027-01-15T08:00:00.000Z`.
    pub fn waits_for(&self, gathering: &Gathering) -> String {
        let rule = match self {
            Self::Join(join) => {
                let until = gathering.opened_at.plus(join.within);
                return format!("{}, until {until}", join.missing_words(gathering));
            }
            Self::Event(trigger) => trigger.batch.as_ref(),
            Self::Cron(_) => None,
        };
        let mut ends = Vec::new();
        if let Some(rule) = rule {
            ends.extend(rule.count.map(|count| match count.saturating_sub(gathering.count) {
                1 => "1 more event".to_owned(),
                more => format!("{more} more events"),
            }));
            ends.extend(rule.sum.as_ref().map(|sum| {
                let so_far = gathering.sum.unwrap_or_default();
                format!("a sum of {} of {} (so far {so_far})", sum.at_least, sum.of.source())
            }));
            ends.extend(rule.quiet.map(|quiet| format!("{} without another", show_duration(quiet))));
            ends.extend(rule.max_wait.map(|wait| gathering.opened_at.plus(wait).to_string()));
        }
        ends.join(" or ")
    }

    /// The places of the parts of a join that a gathering still waits for; empty for a batch.
    pub fn missing(&self, gathering: &Gathering) -> Vec<usize> {
        match self {
            Self::Join(join) => join.missing(gathering).collect(),
            Self::Event(_) | Self::Cron(_) => Vec::new(),
        }
    }
}

impl BatchRule {
    fn due_at(&self, batch: &Gathering) -> Option<Timestamp> {
        let enough = self.count.is_some_and(|count| batch.count >= count)
            || self.sum.as_ref().is_some_and(|rule| batch.sum.is_some_and(|sum| sum >= rule.at_least));
        if enough {
            return Some(batch.last_at);
        }
        let quiet = self.quiet.map(|quiet| batch.last_at.plus(quiet));
        let max_wait = self.max_wait.map(|wait| batch.opened_at.plus(wait));
        match (quiet, max_wait) {
            (Some(quiet), Some(max_wait)) => Some(quiet.min(max_wait)),
            (quiet, max_wait) => quiet.or(max_wait),
        }
    }
}

impl JoinTrigger {
    fn missing<'a>(&'a self, gathering: &'a Gathering) -> impl Iterator<Item = usize> + 'a {
        (0..self.parts.len()).filter(|part| !gathering.filled.contains(part))
    }

    fn is_complete(&self, gathering: &Gathering) -> bool {
        self.missing(gathering).next().is_none()
    }

    fn missing_words(&self, gathering: &Gathering) -> String {
        let parts: Vec<String> = self.missing(gathering).map(|part| part_words(&self.parts[part])).collect();
        parts.join(" and ")
    }
}
