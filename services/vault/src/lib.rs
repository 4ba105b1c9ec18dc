//! Usernames and PATs for registries from Vault or `OpenBao`: login and renewal, KV version 2,
//! and a short cache with single flight.
//!
//! A PAT is read when a job needs it, kept in memory for at most
//! [`pat_cache_ttl`](VaultConfig::pat_cache_ttl), and read again at once when a registry refuses
//! it. A Vault that is sealed, away or forbids the reading makes jobs wait, never fail.

mod config;
mod secret;
mod session;
mod slot;
mod source;
mod trouble;
mod wire;

pub use config::{AuthConfig, CredentialRule, SecretPath, VaultConfig};
pub use source::Vault;
pub use wire::VaultHealth;
