//! The store against a real PostgreSQL, each test in a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod base;
mod releases;
mod walk;
mod world;
