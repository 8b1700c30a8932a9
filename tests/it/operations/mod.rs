//! What the people who run an orchestrator rely on: that it says how it is, and that nothing it set aside, kept or threw
//! away goes unnoticed.

mod dead_letters;
mod doctor;
mod parts;

use std::time::Duration;

use refit_tests::services;

/// How long anything may take that ought to take a moment.
const PATIENCE: Duration = Duration::from_secs(30);
