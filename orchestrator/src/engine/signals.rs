//! Wake-ups, in this process and between orchestrators of one database. Only hints: whoever waits polls as well, so
//! losing all of them costs at most one poll.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Notify, watch};

use crate::store::Hints;

/// One counter per kind of waiter, bumped when there may be something for it.
pub(super) struct Signals {
    dispatch: watch::Sender<u64>,
    ready: watch::Sender<u64>,
    runs: watch::Sender<u64>,
    outbox: watch::Sender<u64>,
    timers: watch::Sender<u64>,
    children: watch::Sender<u64>,
    /// Hints to pass on to other orchestrators, as a bit set.
    unsent: AtomicU8,
    send: Notify,
}

impl Default for Signals {
    fn default() -> Self {
        let counter = || watch::Sender::new(0);
        Self {
            dispatch: counter(),
            ready: counter(),
            runs: counter(),
            outbox: counter(),
            timers: counter(),
            children: counter(),
            unsent: AtomicU8::new(0),
            send: Notify::new(),
        }
    }
}

const EVENTS: u8 = 1;
const READY: u8 = 2;
const LANES: u8 = 4;
const RUNS: u8 = 8;
const OUTBOX: u8 = 16;
const CHILDREN: u8 = 32;

impl Signals {
    /// Wakes whoever waits here, and remembers to tell the others.
    pub(super) fn wake(&self, hints: Hints) {
        self.wake_here(hints);
        let bits = bits(hints);
        if bits != 0 {
            self.unsent.fetch_or(bits, Ordering::Relaxed);
            self.send.notify_one();
        }
    }

    fn wake_here(&self, hints: Hints) {
        let bump = |sender: &watch::Sender<u64>| sender.send_modify(|count| *count = count.wrapping_add(1));
        if hints.events || hints.lanes {
            bump(&self.dispatch);
        }
        if hints.ready {
            bump(&self.ready);
        }
        if hints.runs {
            bump(&self.runs);
            bump(&self.timers);
        }
        if hints.outbox {
            bump(&self.outbox);
        }
        if hints.children {
            bump(&self.children);
        }
    }

    /// Wakes whoever waits here for a hint of another orchestrator.
    pub(super) fn receive(&self, payload: &str) {
        let bits: u8 = payload.parse().unwrap_or(u8::MAX);
        self.wake_here(Hints {
            events: bits & EVENTS != 0,
            ready: bits & READY != 0,
            lanes: bits & LANES != 0,
            runs: bits & RUNS != 0,
            outbox: bits & OUTBOX != 0,
            children: bits & CHILDREN != 0,
        });
    }

    /// Waits until there is something to tell the other orchestrators, and takes it.
    pub(super) async fn to_send(&self) -> String {
        loop {
            let bits = self.unsent.swap(0, Ordering::Relaxed);
            if bits != 0 {
                return bits.to_string();
            }
            self.send.notified().await;
        }
    }

    pub(super) fn dispatch(&self) -> watch::Receiver<u64> {
        self.dispatch.subscribe()
    }

    pub(super) fn ready(&self) -> watch::Receiver<u64> {
        self.ready.subscribe()
    }

    pub(super) fn runs(&self) -> watch::Receiver<u64> {
        self.runs.subscribe()
    }

    pub(super) fn timers(&self) -> watch::Receiver<u64> {
        self.timers.subscribe()
    }

    pub(super) fn children(&self) -> watch::Receiver<u64> {
        self.children.subscribe()
    }

    pub(super) fn outbox(&self) -> watch::Receiver<u64> {
        self.outbox.subscribe()
    }
}

fn bits(hints: Hints) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bit(hints.events, EVENTS)
        | bit(hints.ready, READY)
        | bit(hints.lanes, LANES)
        | bit(hints.runs, RUNS)
        | bit(hints.outbox, OUTBOX)
        | bit(hints.children, CHILDREN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hints_reach_the_other_side_as_they_were() {
        let (here, there) = (Signals::default(), Signals::default());
        let (mut ready, mut outbox) = (there.ready(), there.outbox());
        here.wake(Hints { ready: true, ..Hints::default() });
        there.receive(&here.to_send().await);
        assert!(ready.has_changed().unwrap());
        assert!(!outbox.has_changed().unwrap());
        ready.mark_unchanged();
        outbox.mark_unchanged();
    }
}
