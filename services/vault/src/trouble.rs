//! What went wrong with Vault, in a form that all who waited for the same answer can be given.

use std::{borrow::Cow, time::Duration};

use colophon_domain::{Failure, Reason, Retry};

/// A failure that can be copied: one reading may answer many callers.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) reason: Reason,
    pub(crate) retry: Retry,
    pub(crate) message: String,
    pub(crate) remedy: Cow<'static, str>,
}

impl Trouble {
    /// Vault is sealed or not initialised: somebody has to come, which takes a while.
    pub(crate) fn sealed(address: &str) -> Self {
        Self {
            reason: Reason::VaultSealed,
            retry: Retry::Wait(Duration::from_secs(10)),
            message: format!("Vault at {address} is sealed"),
            remedy: "unseal Vault; what waits for it then goes on by itself".into(),
        }
    }

    /// Vault cannot be reached, or gives no answer that is of use.
    pub(crate) fn away(address: &str, what: &str, remedy: &'static str) -> Self {
        Self {
            reason: Reason::VaultUnavailable,
            retry: Retry::Wait(Duration::from_secs(5)),
            message: format!("Vault at {address} {what}"),
            remedy: remedy.into(),
        }
    }

    /// Vault says no, also after a new login, or there is nothing to log in with.
    pub(crate) fn denied(message: String, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Reason::VaultDenied,
            retry: Retry::Wait(Duration::from_secs(30)),
            message,
            remedy: remedy.into(),
        }
    }

    /// The secret or a field of it is not there, or is of no use.
    pub(crate) fn missing(message: String, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Reason::CredentialMissing,
            retry: Retry::Backoff,
            message,
            remedy: remedy.into(),
        }
    }

    /// How long to wait before trying again.
    pub(crate) fn pause(&self) -> Duration {
        match self.retry {
            Retry::Wait(pause) => pause,
            Retry::Backoff | Retry::Never => Duration::from_secs(30),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble.reason, trouble.message).retry(trouble.retry).remedy(trouble.remedy)
    }
}
