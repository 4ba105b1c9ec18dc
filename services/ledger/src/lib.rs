//! The ledger's entries: which digest each tag pointed to, and why, as bytes that anybody can
//! check. Used by the service, which writes them, and by the offline verifier, which trusts
//! nobody; so nothing in here does input or output, reads the time or draws a random number.
//!
//! The format is described field by field in `docs/ledger-format.md`.

mod bytes;
mod chain;
mod commitment;
mod entry;
mod hash;
mod rules;
#[cfg(test)]
mod sample;
mod text;
mod words;

pub use chain::{ChainError, ChainFault, verify_chain};
pub use commitment::{Actor, Commitment, Opening, Proof};
pub use entry::{After, ENTRY_LIMIT_BYTES, Entry, EntryError, Source};
pub use hash::{InvalidHash, LeafHash};
pub use words::{Kind, Purpose};
