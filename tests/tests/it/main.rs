//! Colophon as a whole, on real parts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test that fails fails the test"
)]

mod along;
mod along_killed;
mod auth;
mod badinput;
mod badinput_content;
mod badinput_keys;
mod budget;
mod chaos;
mod chart;
mod cli;
mod config;
mod contract;
mod dev;
mod docs;
mod expected;
mod forgetting;
mod freeze;
mod grpc;
mod kill;
mod kill_database;
mod kill_fence;
mod kill_points;
mod kill_random;
mod kill_stalled;
mod known_blobs;
mod ledger_check;
mod limits;
mod memory;
mod order;
mod overlap;
mod plan;
mod probes;
mod push;
mod push_docker;
mod put_answers;
mod put_back;
mod put_back_killed;
mod release_cancel;
mod release_drift;
mod release_history;
mod release_retry;
mod release_scene;
mod release_tags;
mod reload;
mod rest;
mod restore;
mod resume;
mod retention;
mod retry;
mod rights;
mod rollback;
mod safe_scene;
mod secrets;
mod secrets_echo;
mod semver;
mod settle;
mod soak;
mod stopping;
mod telemetry;
mod telemetry_metrics;
mod upload;
mod upload_scene;
mod vault;
mod vault_login;
mod vault_scene;
mod watch;
