//! The contract in `proto/colophon/v1` as Rust: its messages, their JSON form, the gRPC client
//! and the traits of a gRPC server. Everything but [`Timestamp`] and
//! [`Duration`] is generated; there is no logic.
//!
//! JSON follows the protobuf mapping: names are written in lowerCamelCase and read in either
//! spelling, 64-bit integers are strings, bytes are base64, enums are their full names. Fields
//! with default values are written too, so that a script may rely on every key; a message that
//! is not set is left out. A field that the contract does not have is refused.

mod duration;
#[cfg(test)]
mod json_tests;
mod names;
#[cfg(feature = "openapi")]
pub mod openapi;
mod timestamp;

pub use duration::{Duration, DurationError};
pub use timestamp::{Timestamp, TimestampError};

/// Package `colophon.v1`.
#[expect(clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/colophon.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/colophon.v1.serde.rs"));
}

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, imports and the
/// `google.api.http` options included: what gRPC reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/colophon.v1.bin"));

/// [`FILE_DESCRIPTOR_SET`] with the comments of the contract: what the REST documentation is
/// made from.
pub const DESCRIBED_FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/colophon.v1.described.bin"));
