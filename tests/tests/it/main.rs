//! Colophon as a whole, on real parts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test that fails fails the test"
)]

mod auth;
mod kill;
mod release_scene;
