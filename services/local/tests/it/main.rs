//! The crate against archives and layouts: generated ones, odd and hostile ones, those of the real
//! `skopeo` and `umoci`, and those of an engine that is scripted on a Unix socket.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the helpers of a test may panic like the test itself"
)]

mod child;
mod choosing;
mod docker;
mod engine;
mod fixture;
mod hostile;
mod mutated;
mod packing;
mod real;
mod saved;
mod sources;
mod support;
mod tars;
mod wrong;
