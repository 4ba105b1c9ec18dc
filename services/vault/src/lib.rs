//! Usernames and PATs for registries from Vault or `OpenBao`: login and renewal, key-value
//! engines of both versions, and a short cache with single flight.
//!
//! A PAT is read when a job needs it, kept in memory for at most
//! [`pat_cache_ttl`](VaultConfig::pat_cache_ttl), and read again at once when a registry refuses
//! it. A Vault that is sealed, away or forbids the reading makes jobs wait, never fail.

mod auth;
mod config;
mod http;
mod login;
mod metrics;
mod place;
mod secret;
mod session;
mod slot;
mod source;
mod trouble;
mod wire;

pub use auth::AuthConfig;
pub use config::{CredentialRule, VaultConfig};
pub use place::{KvVersion, SecretPath};
pub use source::Vault;
pub use wire::VaultHealth;
