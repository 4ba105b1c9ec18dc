//! The engine as a whole, on a real PostgreSQL, with registries and workers that a simulation
//! drives one request at a time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accepting;
mod base;
mod ended;
mod ends;
mod foreign;
mod found;
mod holders;
mod incidents;
mod keeping;
mod model;
mod plans;
mod pruning;
mod registry;
mod releases;
mod requests;
mod retries;
mod rules;
mod sights;
mod simulation;
mod uploads;
mod verdicts;
mod walk;
mod watching;
mod world;
