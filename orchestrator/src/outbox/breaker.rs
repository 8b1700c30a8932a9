//! Whether a target is tried now, with all that is due or with one event, and how long a refused event waits. Pure: time
//! comes in as an argument. Must never happen here: an opinion about how an event gets there.
//!
//! A target that refuses several events in a row, or cannot be reached, is open: one event is tried, and another only
//! after a pause that grows, until one is taken. An event that is refused alone, while others are taken, waits alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::Backoff;

/// How many failures without a success between them open a target, once they are of more than one event.
const FAILURES_MAX: u32 = 5;
/// How many failures in a row there must be before anything is given up: time alone may have passed while nobody tried.
pub(crate) const TRIES_MIN: u32 = 10;
/// The first and the longest pause between two tries of one event.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(300);
/// The longest that a target may say (`Retry-After`) it is not to be asked again.
const REST_LONGEST: Duration = Duration::from_secs(3600);

/// What may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// Everything that is due.
    All,
    /// One event.
    Probe,
    /// Nothing, until then.
    Rest(Instant),
}

/// What is remembered of the failures of a target.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// Ten tries fit into the time after which an event is given up.
    pause_longest: Duration,
    /// Since the latest success.
    failures: u32,
    /// The event that failed first since then, and whether another did as well.
    first: Option<i64>,
    several: bool,
    open: bool,
    rest_until: Option<Instant>,
    backoff: Backoff,
}

impl Breaker {
    pub(crate) fn new(give_up_after: Duration) -> Self {
        Self {
            pause_longest: (give_up_after / TRIES_MIN).min(PAUSE_LONGEST),
            failures: 0,
            first: None,
            several: false,
            open: false,
            rest_until: None,
            backoff: Backoff::default(),
        }
    }

    pub(crate) fn may(&self, now: Instant) -> May {
        match self.rest_until {
            Some(until) if now < until => May::Rest(until),
            Some(_) | None if self.open => May::Probe,
            Some(_) | None => May::All,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Failures since the latest success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// An event was taken. Answers whether the target was open: then what waits need not wait any longer.
    pub(crate) fn taken(&mut self) -> bool {
        let was_open = self.open;
        self.close();
        was_open
    }

    /// As after a success.
    pub(crate) fn close(&mut self) {
        (self.failures, self.first, self.several) = (0, None, false);
        (self.open, self.rest_until) = (false, None);
        self.backoff.reset();
    }

    /// An event was not taken; `away` when it did not even get there.
    pub(crate) fn refused(&mut self, event: i64, away: bool, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.several |= away || *self.first.get_or_insert(event) != event;
        if self.failures >= FAILURES_MAX && self.several {
            self.open(now);
        }
    }

    /// It cannot be reached: nothing was tried.
    pub(crate) fn unreachable(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.open(now);
    }

    /// Whoever sent to it before found it open.
    pub(crate) fn found_open(&mut self) {
        self.open = true;
    }

    /// It said how long it is not to be asked again.
    pub(crate) fn rest(&mut self, pause: Duration, now: Instant) {
        self.open = true;
        let until = now + pause.min(REST_LONGEST);
        self.rest_until = Some(self.rest_until.map_or(until, |set| set.max(until)));
    }

    fn open(&mut self, now: Instant) {
        // Several that were under way together fail together: that is one reason to wait longer, not several.
        if !self.open || self.rest_until.is_none_or(|until| now >= until) {
            self.rest_until = Some(now + self.backoff.next().min(self.pause_longest));
        }
        self.open = true;
    }

    /// How long an event waits that has now failed for the `attempts`th time.
    pub(crate) fn pause(&self, attempts: i64) -> Duration {
        let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or_default();
        let longest = PAUSE_FIRST.saturating_mul(1 << doublings).min(self.pause_longest);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn several_events_in_a_row_open_a_target_and_a_success_closes_it() {
        let (mut breaker, now) = (Breaker::new(DAY), Instant::now());
        for event in 1..i64::from(FAILURES_MAX) {
            breaker.refused(event, false, now);
            assert_eq!(breaker.may(now), May::All);
        }
        assert!(!breaker.taken(), "it was not open");
        for event in 0..i64::from(FAILURES_MAX) {
            breaker.refused(event, false, now);
        }
        let May::Rest(until) = breaker.may(now) else { panic!("it does not rest") };
        assert_eq!(breaker.may(until), May::Probe);
        // What was under way when it opened makes no pause longer; a probe that fails does.
        breaker.refused(9, false, now);
        assert_eq!(breaker.may(now), May::Rest(until));
        let mut pauses = Vec::new();
        let mut at = until;
        for _ in 0..10 {
            breaker.refused(9, false, at);
            let May::Rest(until) = breaker.may(at) else { panic!("it does not rest") };
            pauses.push(until - at);
            at = until;
        }
        assert!(pauses[9] > pauses[0] * 5 && pauses[9] <= Duration::from_secs(30), "{pauses:?}");
        assert!(breaker.taken());
        assert_eq!(breaker.may(at), May::All);
    }

    #[test]
    fn one_event_alone_opens_nothing_unless_the_target_is_away() {
        let (mut breaker, now) = (Breaker::new(DAY), Instant::now());
        for _ in 0..100 {
            breaker.refused(7, false, now);
        }
        assert_eq!(breaker.may(now), May::All);
        breaker.refused(7, true, now);
        assert!(breaker.is_open());
        breaker.close();
        breaker.unreachable(now);
        assert!(matches!(breaker.may(now), May::Rest(_)));
    }

    #[test]
    fn a_target_that_asks_for_rest_gets_it_within_bounds() {
        let (mut breaker, now) = (Breaker::new(DAY), Instant::now());
        breaker.rest(Duration::from_secs(7), now);
        assert_eq!(breaker.may(now), May::Rest(now + Duration::from_secs(7)));
        assert_eq!(breaker.may(now + Duration::from_secs(7)), May::Probe);
        breaker.rest(Duration::MAX, now);
        assert_eq!(breaker.may(now), May::Rest(now + REST_LONGEST));
    }

    #[test]
    fn pauses_double_to_a_bound_that_leaves_room_for_ten_tries() {
        let breaker = Breaker::new(DAY);
        for (attempts, seconds) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (1000, 300)] {
            let (pause, longest) = (breaker.pause(attempts), Duration::from_secs(seconds));
            assert!(pause >= longest / 2 && pause <= longest, "{attempts}: {pause:?}");
        }
        assert!(Breaker::new(Duration::from_secs(20)).pause(1000) <= Duration::from_secs(2));
    }
}
