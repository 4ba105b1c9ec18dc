//! The crate against a real `OpenBao`: every login, outage and change of a secret that a
//! deployment meets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of a test may panic like the test itself"
)]

mod bench;
mod cache;
mod docs;
mod login;
mod outage;
mod places;
mod proxy;
mod secrets;
mod signed;
mod tls;
