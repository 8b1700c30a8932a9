//! The integration tests: one program, so that the workspace is linked once. Each file says what it shows.

// Clippy knows test code by this.
#![cfg(test)]

mod amqp;
mod api;
mod cli;
mod demo;
mod examples;
mod layers;
mod outbox;
mod recovery;
mod simulate;
mod steps;
mod store;
mod triggers;
