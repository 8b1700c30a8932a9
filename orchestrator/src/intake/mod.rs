//! Where events come from beside the HTTP API: sources that Refit goes and fetches from. A source hands events to
//! the engine and tells its origin "done" only after they are stored; it never decides what an event starts.

mod again;
pub mod amqp;
mod delivery;

pub(crate) use again::read_again;
