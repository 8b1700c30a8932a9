//! The shell that keeps runs moving. One way through, and nothing calls upward:
//! intake → store → trigger → run → step → lease → worker → outcome → run → gate → promotion → outbox.
//!
//! [`serve`] starts everything; [`Config`] says how. [`engine::Engine`] is the only caller of the store's write
//! functions; the HTTP API, the RabbitMQ intake and the outbox talk to the engine alone.

mod address;
mod answers;
pub mod api;
mod broker;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod health;
pub mod http;
pub mod intake;
pub mod mirror;
pub mod outbox;
pub mod secrets;
pub mod server;
pub mod simulation;
pub mod store;

pub use config::Config;
pub use server::{Running, StartError, open_engine, serve};
