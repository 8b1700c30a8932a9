//! Real services for tests: fresh databases on SQLite and PostgreSQL, queues on RabbitMQ, buckets.
//!
//! Only the variables that `tests/run` names say where the servers are. Where one is missing the test fails with a text
//! that names `tests/run`; it never falls back to something else.

mod broker;
mod database;
mod mlflow;
mod s3;

use std::time::Duration;

pub use broker::*;
pub use database::*;
pub use mlflow::*;
pub use s3::S3;

/// The value of a variable that `tests/run` sets.
fn service(variable: &str, what: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: this test needs {what}. Run it with `tests/run NAME`, which starts one, or set \
             the variable to the URL of one that may be written to"
        )
    })
}

/// Finishes work from `drop`, which cannot wait on the runtime it may be running in.
fn off_runtime(work: impl Future + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            // A server that is gone must not hold up the end of the tests.
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), work).await.is_ok() });
        }
    });
    let _ = thread.join();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "tests/run")]
    fn a_missing_service_fails_and_names_the_command() {
        service("REFIT_TEST_NO_SUCH_SERVICE_URL", "nothing");
    }
}
