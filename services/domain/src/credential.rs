//! Credentials for registries, and who hands them out.

use std::fmt;

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use crate::{Repository, Result};

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Reading manifests and blobs.
    Pull,
    /// Writing them, and reading what one is about to write.
    Push,
}

impl Access {
    /// The word that stands in logs and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// A username and a PAT. `version` changes when the secret did, so that a refused credential
/// can be told from the one that replaced it.
#[derive(Clone)]
pub struct Credential {
    /// The username; not a secret.
    pub username: String,
    /// The personal access token.
    pub token: SecretString,
    /// Grows with every reading that brought another username or token.
    pub version: u64,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Hands out credentials; Vault does in production.
pub trait CredentialSource: Send + Sync + 'static {
    /// The credential for this repository and access, or `None` where the configuration says
    /// that the registry is anonymous.
    ///
    /// `refused` is the version of a credential that the registry has just refused: it is read
    /// again, once for all who ask at the same time and at most once in a while. If the answer
    /// has the same version there is nothing newer.
    fn credential<'a>(
        &'a self,
        repository: &'a Repository,
        access: Access,
        refused: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Credential>>>;

    /// Whether the credential for writing to `target` is one that the configuration names for the
    /// other repository of its registry, too, or both are anonymous. What the secrets are is not
    /// looked at: two that happen to be equal are two.
    fn shared(&self, target: &Repository, other: &Repository) -> bool;
}
