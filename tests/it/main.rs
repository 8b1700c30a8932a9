//! The integration tests: one program, so that the workspace is linked once. Each file says what it shows.

mod examples;
mod layers;
mod store;
