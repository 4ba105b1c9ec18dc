//! The store against a real PostgreSQL, each test in a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod base;
mod budgets;
mod callers;
mod cancels;
mod companions;
mod flights;
mod freezes;
mod hand;
mod places;
mod put_back;
mod releases;
mod replay;
mod restored;
mod retries;
mod rollbacks;
mod settling;
mod uploads;
mod walk;
mod workers;
mod world;
