//! Where events come from beside the HTTP API: sources that Refit fetches from, and webhooks that send to it. A source
//! hands events to the engine and tells its origin "done" only after they are stored; it never decides what an event
//! starts.

mod again;
pub mod amqp;
mod delivery;
pub mod hooks;

pub(crate) use again::read_again;

/// The `source` of events from the source of this name, where what it brings says none.
fn source_uri(name: &str) -> String {
    format!("/sources/{name}")
}
