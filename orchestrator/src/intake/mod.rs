//! Where events come from beside the HTTP API: sources that Refit fetches from, and webhooks that send to it. A source
//! hands events to the engine and tells its origin "done" only after they are stored; it never decides what an event
//! starts.

pub mod amqp;
mod delivery;
pub mod hooks;
