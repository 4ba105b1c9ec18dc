//! The server over real sockets, around a scripted engine: what callers see on both faces.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects should stop"
)]

mod auth;
mod connections;
mod contract;
mod errors;
mod fake;
mod fake_uploads;
mod freezes;
mod fuzz;
mod grpc;
mod guards;
mod health;
mod http;
mod logs;
mod openapi;
mod plans;
mod rest;
mod retries;
mod rollbacks;
mod rules;
mod settle;
mod slow_readers;
mod uploads;
mod views;
mod watching;
