//! `concurrency` and `cooldown`: what becomes of a run that wants to start, given what goes on in its lane (the runs
//! with the same `concurrency.key`). One decision, the same whoever asks and whenever it is asked again.
//!
//! What hinders a run is the first of: the cooldown of its lane, a limit that is reached, runs in line before it.
//!
//! | `on_conflict` | nothing hinders | limit reached, or others in line | cooldown |
//! |---|---|---|---|
//! | `coalesce` | starts | goes into the waiting run; waits if there is none | the same |
//! | `queue` | starts | waits | waits until it is over |
//! | `skip` | starts | is skipped (`skipped`) | is skipped (`cooldown`) |
//! | `cancel_running` | starts | goes into the waiting run; else cancels as many as stand in its way, oldest first, and waits | goes into the waiting run, else waits; cancels when it is over |
//! | `parallel` | starts | starts, or waits behind those in line | waits until it is over |
//!
//! A cooldown cancels nobody: the new run could not start any earlier. A run that was retried is somebody's wish: it
//! waits for room in its lane and for nothing else, takes no events in, and cancels nobody.

use std::fmt;
use std::time::Duration;

use crate::definition::{OnConflict, Workflow};
use crate::run::{Run, Settled, Step, StepState};
use crate::time::Timestamp;

/// A workflow's rule for the runs of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRule {
    /// How many go on at once.
    pub limit: u32,
    /// What happens to one more.
    pub on_conflict: OnConflict,
    /// At least this long between the starts of two.
    pub cooldown: Option<Duration>,
}

/// What goes on in a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Runs that go on.
    pub running: u64,
    /// Of these, those that are being cancelled already.
    pub ending: u64,
    /// Of these, those that may be cancelled: not ending, and their `before` has not begun. Only `cancel_running` asks.
    pub cancellable: u64,
    /// Runs that wait before the one that asks.
    pub waiting: u64,
    /// Whether one of these can take more events in.
    pub absorbs: bool,
    /// When a run last started for the first time.
    pub last_start: Option<Timestamp>,
}

/// Who asks to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A trigger that fires now, or a person: there is no run yet.
    Firing,
    /// A run that waits and has never started.
    Waiting,
    /// A run that was retried and waits.
    Retried,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It starts.
    Start,
    /// It waits.
    Wait(Hindrance),
    /// Its events go into the run that waits.
    Absorb(Hindrance),
    /// It does not start at all.
    Skip(Hindrance),
    /// This many of the runs that may be cancelled are, the oldest first, and it waits for their end.
    Cancel(u64, Hindrance),
}

/// What keeps a run from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The last start of its lane is too fresh.
    Cooldown {
        /// Until then.
        until: Timestamp,
    },
    /// As many go on as may.
    Full {
        /// How many go on.
        running: u64,
        /// How many may.
        limit: u32,
    },
    /// Others were there first.
    Line {
        /// How many.
        before: u64,
    },
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cooldown { until } => write!(f, "cooldown until {until}"),
            Self::Full { running, limit } => write!(f, "{running} of {limit} running"),
            Self::Line { before: 1 } => write!(f, "1 run is before it"),
            Self::Line { before } => write!(f, "{before} runs are before it"),
        }
    }
}

impl Workflow {
    /// Its rule for the runs of one lane.
    pub fn lane_rule(&self) -> LaneRule {
        LaneRule {
            limit: self.concurrency.limit,
            on_conflict: self.concurrency.on_conflict,
            cooldown: self.cooldown,
        }
    }
}

impl LaneRule {
    /// Whether a run of this rule never has to look at its lane.
    pub fn is_free(&self) -> bool {
        self.on_conflict == OnConflict::Parallel && self.cooldown.is_none()
    }

    /// What becomes of a run that wants to start now: the table above.
    pub fn decide(&self, lane: &Lane, asks: Asks, now: Timestamp) -> Admission {
        let Some(hindrance) = self.hindrance(lane, asks, now) else { return Admission::Start };
        match (asks, self.on_conflict) {
            (Asks::Firing, OnConflict::Skip) => Admission::Skip(hindrance),
            (Asks::Firing, OnConflict::Coalesce | OnConflict::CancelRunning { .. }) if lane.absorbs => {
                Admission::Absorb(hindrance)
            }
            (Asks::Firing | Asks::Waiting, OnConflict::CancelRunning { .. }) => {
                match self.in_the_way(lane, hindrance) {
                    0 => Admission::Wait(hindrance),
                    count => Admission::Cancel(count, hindrance),
                }
            }
            (Asks::Firing, OnConflict::Coalesce | OnConflict::Queue | OnConflict::Parallel)
            | (
                Asks::Waiting,
                OnConflict::Coalesce | OnConflict::Queue | OnConflict::Skip | OnConflict::Parallel,
            )
            | (Asks::Retried, _) => Admission::Wait(hindrance),
        }
    }

    fn hindrance(&self, lane: &Lane, asks: Asks, now: Timestamp) -> Option<Hindrance> {
        let until = match asks {
            Asks::Firing | Asks::Waiting => self.cooldown_until(lane),
            Asks::Retried => None,
        };
        if let Some(until) = until.filter(|&until| until > now) {
            return Some(Hindrance::Cooldown { until });
        }
        if self.on_conflict != OnConflict::Parallel && lane.running >= u64::from(self.limit) {
            return Some(Hindrance::Full { running: lane.running, limit: self.limit });
        }
        (lane.waiting > 0).then_some(Hindrance::Line { before: lane.waiting })
    }

    /// When the lane's cooldown is over, if a run of it has started.
    fn cooldown_until(&self, lane: &Lane) -> Option<Timestamp> {
        Some(lane.last_start?.plus(self.cooldown?))
    }

    /// How many runs must be cancelled for this one to have room, of those that may be.
    fn in_the_way(&self, lane: &Lane, hindrance: Hindrance) -> u64 {
        match hindrance {
            Hindrance::Cooldown { .. } => 0,
            Hindrance::Full { .. } | Hindrance::Line { .. } => {
                let staying = lane.running.saturating_sub(lane.ending);
                let wanted = staying + lane.waiting + 1;
                wanted.saturating_sub(u64::from(self.limit)).min(lane.cancellable)
            }
        }
    }
}

/// Whether a step of a run has begun, by name: a worker has had it or an instance of it, a person was asked, or it was
/// decided. None: the run has no such step. A step that was skipped has not begun.
pub fn step_begun(run: &Run, step: &str) -> Option<bool> {
    let place = run.workflow().step_index(step)?;
    let instance_of = |step: &Step| step.instance.as_ref().is_some_and(|instance| instance.of == place);
    let mut all = run.steps().iter().enumerate().filter(|(at, step)| *at == place || instance_of(step));
    Some(all.any(|(_, step)| begun(step)))
}

fn begun(step: &Step) -> bool {
    match &step.state {
        // A group has begun once one of its instances has.
        StepState::Blocked | StepState::Ready | StepState::Instances => step.attempt > 0,
        StepState::Leased { .. }
        | StepState::Cancelling { .. }
        | StepState::Pausing { .. }
        | StepState::Awaiting { .. }
        | StepState::Promoting
        | StepState::Child { .. } => true,
        StepState::Settled { how, .. } => match how {
            Settled::Skipped { .. } | Settled::Cancelled { .. } => step.attempt > 0,
            Settled::Succeeded { .. } | Settled::Rejected { .. } | Settled::Failed { .. } => true,
        },
    }
}
