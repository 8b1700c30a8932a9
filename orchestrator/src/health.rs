//! How the parts of an orchestrator are doing that come and go by themselves: its sources, its outbound targets and
//! its mirror. Each
//! registers, tells what it has come to, and is off the list when its [`Part`] is dropped. Must never happen here: a
//! decision that follows from a part's state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refit_workflows::time::Timestamp;
use refit_workflows::wire::{DeliveriesView, PartView};

use crate::clock::Clock;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// Events come from it.
    Source,
    /// Events go to it.
    Target,
    /// The registry is written to it as well.
    Mirror,
}

impl PartKind {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Mirror => "mirror",
        }
    }
}

/// How a part is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartState {
    /// It has neither worked nor failed yet.
    #[default]
    Starting,
    /// It does its work.
    Working,
    /// It does not, and tries again by itself; why.
    Degraded(String),
}

impl PartState {
    /// `starting | ok | degraded`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Working => "ok",
            Self::Degraded(_) => "degraded",
        }
    }
}

/// What a source has settled since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries, whatever they came to.
    pub deliveries: u64,
    /// Events in them, those that were known already included.
    pub events: u64,
    /// Deliveries that could not be read.
    pub dead_letters: u64,
    /// Deliveries that held nothing to keep, such as tombstones.
    pub empty: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.deliveries += more.deliveries;
        self.events += more.events;
        self.dead_letters += more.dead_letters;
        self.empty += more.empty;
    }
}

/// The list of parts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    clock: Arc<Clock>,
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    next: u64,
    listed: BTreeMap<u64, Listed>,
}

#[derive(Debug)]
struct Listed {
    kind: PartKind,
    name: String,
    state: PartState,
    /// When it came to do, or not to do, its work.
    since: Timestamp,
    counts: Counts,
}

/// A part's place on the list, held by whoever does its work.
#[derive(Debug)]
pub struct Part {
    health: Health,
    place: u64,
}

impl Health {
    /// An empty list, whose times are this clock's.
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, parts: Arc::default() }
    }

    /// Puts a part on the list, for as long as what is returned lives. A source is named as the `source` of its dead
    /// letters is (`orders`, `amqp:refit.events`), a target as in the outbox.
    #[must_use = "the part is off the list when this is dropped"]
    pub fn register(&self, kind: PartKind, name: impl Into<String>) -> Part {
        let mut parts = self.lock();
        let place = parts.next;
        parts.next += 1;
        let (state, since) = (PartState::Starting, self.clock.now());
        let listed = Listed { kind, name: name.into(), state, since, counts: Counts::default() };
        parts.listed.insert(place, listed);
        Part { health: self.clone(), place }
    }

    /// Every part as it is now, sources first, by name.
    pub fn parts(&self) -> Vec<PartView> {
        let parts = self.lock();
        let mut listed: Vec<&Listed> = parts.listed.values().collect();
        listed.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
        listed.into_iter().map(Listed::view).collect()
    }

    // Nothing under the lock can be half done: what a thread that panicked left is as good as before.
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn view(&self) -> PartView {
        let reason = match &self.state {
            PartState::Starting | PartState::Working => None,
            PartState::Degraded(reason) => Some(reason.clone()),
        };
        PartView {
            part: self.kind.as_str().to_owned(),
            name: self.name.clone(),
            state: self.state.as_str().to_owned(),
            since: Some(self.since),
            reason,
            deliveries: match self.kind {
                PartKind::Source => Some(self.counts.view()),
                PartKind::Target | PartKind::Mirror => None,
            },
        }
    }
}

impl Counts {
    fn view(self) -> DeliveriesView {
        DeliveriesView {
            settled: self.deliveries,
            events: self.events,
            dead_letters: self.dead_letters,
            empty: self.empty,
        }
    }
}

impl Part {
    /// A source has settled deliveries.
    pub fn count(&self, counts: Counts) {
        if let Some(listed) = self.health.lock().listed.get_mut(&self.place) {
            listed.counts += counts;
        }
    }

    /// It does its work. A change is logged, and only a change.
    pub fn working(&self) {
        self.enter(PartState::Working);
    }

    /// It does not do its work, and tries again by itself. A change is logged, and only a change; `reason` must hold no
    /// secret.
    pub fn degraded(&self, reason: impl Into<String>) {
        self.enter(PartState::Degraded(reason.into()));
    }

    fn enter(&self, state: PartState) {
        let mut parts = self.health.lock();
        let Some(listed) = parts.listed.get_mut(&self.place).filter(|listed| listed.state != state) else {
            return;
        };
        let (kind, name) = (listed.kind, listed.name.as_str());
        match (kind, &state) {
            (_, PartState::Starting) => {}
            (PartKind::Source, PartState::Working) => tracing::info!(source = name, "taking events"),
            (PartKind::Target, PartState::Working) => {
                tracing::info!(target_name = name, "sending outbound events")
            }
            (PartKind::Mirror, PartState::Working) => tracing::info!(mirror = name, "mirroring the registry"),
            (PartKind::Mirror, PartState::Degraded(reason)) => {
                tracing::warn!(mirror = name, "not mirroring the registry, trying again: {reason}");
            }
            (PartKind::Source, PartState::Degraded(reason)) => {
                tracing::warn!(source = name, "not taking events, trying again: {reason}");
            }
            (PartKind::Target, PartState::Degraded(reason)) => {
                tracing::warn!(target_name = name, "not sending outbound events, trying again: {reason}");
            }
        }
        // Another reason for the same state is no change of state.
        if listed.state.as_str() != state.as_str() {
            listed.since = self.health.clock.now();
        }
        listed.state = state;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.health.lock().listed.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(health: &Health) -> Vec<(String, String, Option<String>)> {
        health.parts().into_iter().map(|part| (part.name, part.state, part.reason)).collect()
    }

    #[test]
    fn a_part_is_listed_with_its_latest_state_for_as_long_as_it_lives() {
        let health = Health::new(Arc::default());
        let target = health.register(PartKind::Target, "audit");
        let source = health.register(PartKind::Source, "amqp:q");
        assert_eq!(
            told(&health),
            [("amqp:q".into(), "starting".into(), None), ("audit".into(), "starting".into(), None)]
        );
        source.degraded("refused");
        target.working();
        let degraded = ("amqp:q".to_owned(), "degraded".to_owned(), Some("refused".to_owned()));
        assert_eq!(told(&health)[0], degraded);
        source.working();
        assert_eq!(told(&health)[0], ("amqp:q".into(), "ok".into(), None));
        // A successor registers before its predecessor is gone.
        let successor = health.register(PartKind::Source, "amqp:q");
        successor.degraded("later");
        drop(source);
        assert_eq!(told(&health)[0], ("amqp:q".into(), "degraded".into(), Some("later".into())));
        drop((successor, target));
        assert!(told(&health).is_empty());
    }

    #[test]
    fn a_part_says_since_when_it_is_as_it_is() {
        let clock = Arc::new(Clock::standing_at(Timestamp::from_millis(1000)));
        let health = Health::new(Arc::clone(&clock));
        let source = health.register(PartKind::Source, "orders");
        let since = || health.parts()[0].since.map(Timestamp::as_millis);
        for (at, reason, expected) in [
            (2000, Some("refused"), 2000),
            (3000, Some("no queue"), 2000),
            (4000, None, 4000),
            (5000, None, 4000),
        ] {
            clock.set(Timestamp::from_millis(at));
            match reason {
                Some(reason) => source.degraded(reason),
                None => source.working(),
            }
            assert_eq!(since(), Some(expected));
        }
    }

    #[test]
    fn a_source_counts_what_it_settled() {
        let health = Health::new(Arc::default());
        let source = health.register(PartKind::Source, "orders");
        let _target = health.register(PartKind::Target, "audit");
        source.count(Counts { deliveries: 3, events: 5, dead_letters: 1, empty: 1 });
        source.count(Counts { deliveries: 1, events: 1, ..Counts::default() });
        let parts = health.parts();
        let counted = DeliveriesView { settled: 4, events: 6, dead_letters: 1, empty: 1 };
        assert_eq!((&parts[0].deliveries, &parts[1].deliveries), (&Some(counted), &None));
    }
}
