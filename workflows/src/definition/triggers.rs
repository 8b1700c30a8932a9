//! What starts a workflow, as data: patterns, batches, joins, schedules. Deciding whether an event counts is the business of
//! `crate::trigger`; must never happen here: anything that looks at an event.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::expression::Expression;
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use crate::template::Template;

/// What starts a workflow.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// Events that match a pattern, one by one or in batches.
    Event(EventTrigger),
    /// One event for each of several patterns, within a window.
    Join(JoinTrigger),
    /// A schedule.
    Cron(CronTrigger),
}

/// `on: event`.
#[derive(Clone, Debug)]
pub struct EventTrigger {
    /// What the whole CloudEvent must look like.
    pub pattern: Pattern,
    /// `where`: a CEL condition over the event's attributes, for what a pattern cannot say.
    pub filter: Option<Expression>,
    /// `by`: one batch, and one run, per value of this expression over the event's attributes.
    pub key: Option<Expression>,
    /// `batch`; without it every event fires at once.
    pub batch: Option<BatchRule>,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// `on: all`: fires once every pattern was seen, in any order.
#[derive(Clone, Debug)]
pub struct JoinTrigger {
    /// The patterns, at least two. An event that several of them match counts for the first that is still open.
    pub parts: Vec<Pattern>,
    /// `where`: as in [`EventTrigger::filter`], for every part.
    pub filter: Option<Expression>,
    /// `by`: one join, and one run, per value.
    pub key: Option<Expression>,
    /// How long after the first event the others may come.
    pub within: Duration,
    /// What becomes of the events of a join that did not complete in time.
    pub on_expire: OnExpire,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// What becomes of a join that did not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpire {
    /// Its events start nothing; that is written down with each of them (the default).
    Drop,
    /// It fires with what has come.
    Fire,
}

/// `batch`: when gathered events become a run. At least one bound is set.
#[derive(Clone, Debug)]
pub struct BatchRule {
    /// Fire when nothing new came for this long.
    pub quiet: Option<Duration>,
    /// Fire at the latest this long after the first event.
    pub max_wait: Option<Duration>,
    /// Fire at this many events.
    pub count: Option<u64>,
    /// Fire at this much of something the events carry.
    pub sum: Option<SumRule>,
}

/// `batch.sum`.
#[derive(Clone, Debug)]
pub struct SumRule {
    /// `of`: a number in each event, over the event's attributes.
    pub of: Expression,
    /// `at_least`: fire once the sum has reached this.
    pub at_least: f64,
}

/// `on: cron`.
#[derive(Clone, Debug)]
pub struct CronTrigger {
    /// When.
    pub schedule: Schedule,
    /// What to do about slots missed while nobody was looking.
    pub catch_up: CatchUp,
    /// Params of the run, rendered over `batch` when it fires.
    pub params: BTreeMap<String, Template>,
}

/// `catch_up`: what happens to schedule slots missed while the orchestrator was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// Missed slots are skipped.
    None,
    /// The latest missed slot fires once (the default).
    Last,
    /// Every missed slot fires, oldest first, at most [`CatchUp::ALL_MAX`].
    All,
}

impl CatchUp {
    /// The most missed slots that `all` fires.
    pub const ALL_MAX: usize = 100;
}

impl Trigger {
    /// Params of the run, rendered over `batch` when it fires.
    pub fn params(&self) -> &BTreeMap<String, Template> {
        match self {
            Self::Event(trigger) => &trigger.params,
            Self::Join(trigger) => &trigger.params,
            Self::Cron(trigger) => &trigger.params,
        }
    }
}
