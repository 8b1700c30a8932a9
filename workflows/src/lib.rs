//! The pure centre of Refit: what a workflow is, which events start it, how one run of it advances.
//!
//! Nothing here reads a clock, a file, a socket or a source of randomness: time and ids come in as arguments, so
//! that the same inputs always give the same result and every state can be searched, replayed and explained.
//!
//! Reading order: [`definition`] (a sound workflow) → [`trigger`] (events to batches) → [`run`] (the state
//! machine) → [`gate`] (candidate against champion, by an [`evaluation`]) → [`statistics`] (how sure a difference is) → [`wire`] (what
//! crosses a process or disk boundary).

#![deny(clippy::wildcard_enum_match_arm)]
#![warn(missing_docs)]

pub mod definition;
pub mod digest;
pub mod evaluation;
pub mod event;
pub mod expression;
pub mod format;
pub mod gate;
pub mod names;
pub mod pattern;
pub mod placement;
pub mod run;
pub mod schedule;
pub mod series;
pub mod statistics;
pub mod template;
pub mod time;
pub mod trigger;
pub mod units;
pub mod watch;
pub mod wire;
