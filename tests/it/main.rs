//! The integration tests: one program, so that the workspace is linked once. Each file says what it shows.

// Clippy knows test code by this.
#![cfg(test)]

/// Each test on each database.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::services::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::services::postgres().await).await;
            })*
        }
    };
}

mod amqp;
mod api;
mod broken;
mod cli;
mod demo;
mod deploy;
mod examples;
mod gates_page;
mod hooks;
mod house;
mod language_page;
mod layers;
mod mirror;
mod operations;
mod outbox;
mod record;
mod recovery;
mod schema;
mod simulate;
mod steps;
mod store;
mod storm;
mod triggers;
