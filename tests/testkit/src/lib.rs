//! What tests need around the real parts that `colophon-launcher` starts: certificates, a token
//! service, a signer of tokens, a cluster that reviews them, images, a proxy that makes faults, a
//! registry in memory that behaves as it is told, one without end, a walker that checks registries by itself, and
//! a search for secrets where none may be.
//!
//! The checks in here use nothing of the code under test.

pub mod cluster;
pub mod collector;
pub mod docs;
pub mod endless;
mod error;
pub mod image;
pub mod issuer;
mod layout;
pub mod link;
pub mod peer;
pub mod pki;
pub mod proxy;
mod save25;
pub mod scripted;
pub mod secrets;
mod serve;
mod skopeo;
pub mod token_service;
pub mod wait;

pub use colophon_launcher as launcher;
pub use error::{Error, Result};
pub use save25::save25;
pub use skopeo::skopeo_inspect_digest;
