//! One secret with a username and a PAT: read by one caller for all who ask at the same time,
//! kept for a short time, and read again when a registry refused what was read.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use colophon_domain::Credential;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    CredentialRule, SecretPath, secret, session::Sessions, trouble::Trouble, wire::Fields,
};

/// Versions count across all secrets of the process, so that one of another secret is never
/// taken for this one's.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// Where one credential comes from, and what was read there last.
pub(crate) struct Slot {
    path: SecretPath,
    username_field: String,
    token_field: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Dropped when it is as old as it may become, whether anybody asks or not.
    credential: Option<Credential>,
    /// When the last reading that brought a credential began and ended.
    read_at: Option<Instant>,
    read_until: Option<Instant>,
    /// The version of what was read last, and a keyed hash of it: enough to tell a change after
    /// the PAT itself was dropped.
    version: Option<(u64, u64)>,
    keys: RandomState,
    /// When a reading ended in vain, for those who waited for it.
    failed: Option<(Instant, Trouble)>,
    /// When it was last read because of a refusal.
    reread_at: Option<Instant>,
}

impl Slot {
    pub(crate) fn new(path: &SecretPath, rule: &CredentialRule) -> Self {
        Self {
            path: path.clone(),
            username_field: rule.username_field.clone(),
            token_field: rule.token_field.clone(),
            known: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Whether the other one reads the same fields of the same secret.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.path, &self.username_field, &self.token_field)
            == (&other.path, &other.username_field, &other.token_field)
    }

    /// The credential: from memory while that is fresh and not the version that was refused.
    ///
    /// The lock is held while Vault is asked, so that one reading serves all who ask meanwhile,
    /// its failure included. When the caller that reads is cancelled the next one reads.
    pub(crate) async fn get(
        self: &Arc<Self>,
        sessions: &Sessions,
        refused: Option<u64>,
    ) -> Result<Credential, Trouble> {
        let asked = Instant::now();
        let config = sessions.wire().config();
        let mut known = self.known.lock().await;
        let fresh = known.read_at.is_some_and(|at| at.elapsed() < config.pat_cache_ttl);
        if let Some(held) = known.credential.as_ref().filter(|_| fresh) {
            let newer = refused != Some(held.version);
            // It was read while this caller waited for the lock.
            let read_since = known.read_until.is_some_and(|end| end >= asked);
            let too_soon = known.reread_at.is_some_and(|at| at.elapsed() < config.reread_interval);
            if newer || read_since || too_soon {
                return Ok(held.clone());
            }
        }
        if let Some((_, trouble)) = known.failed.as_ref().filter(|(ended, _)| *ended >= asked) {
            return Err(trouble.clone());
        }
        let began = Instant::now();
        if refused.is_some() && refused == known.version.map(|(version, _)| version) {
            known.reread_at = Some(began);
        }
        match sessions.read(&self.path).await.and_then(|fields| self.extract(fields, sessions)) {
            Ok((username, token)) => {
                let credential = known.take(username, token, began);
                self.forget_later(sessions, began);
                Ok(credential)
            }
            Err(trouble) => {
                known.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }

    /// Drops the PAT when its time is over, unless it was read again by then.
    fn forget_later(self: &Arc<Self>, sessions: &Sessions, read_at: Instant) {
        let slot = Arc::downgrade(self);
        let end = read_at + sessions.wire().config().pat_cache_ttl;
        tokio::spawn(async move {
            tokio::time::sleep_until(end.into()).await;
            if let Some(slot) = slot.upgrade() {
                let mut known = slot.known.lock().await;
                if known.read_at == Some(read_at) {
                    known.credential = None;
                }
            }
        });
    }

    fn extract(
        &self,
        mut fields: Fields,
        sessions: &Sessions,
    ) -> Result<(String, SecretString), Trouble> {
        let mount = &sessions.wire().config().mount;
        let unusable = |field: &str, fault: &str| {
            Trouble::missing(
                format!(
                    "the field {field} of the secret {} at the mount {mount} of Vault {fault}",
                    self.path
                ),
                format!("write the field {field} to that secret, as text in one line"),
            )
        };
        let mut text = |field: &str| match fields.remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(unusable(field, "is not a text")),
            None => Err(unusable(field, "is missing")),
        };
        let (username, token) = (text(&self.username_field)?, text(&self.token_field)?);
        let username = secret::line(username)
            .map_err(|fault| unusable(&self.username_field, &fault.to_string()))?;
        // HTTP's basic authentication ends the username at the first colon (RFC 7617).
        if username.contains(':') {
            return Err(unusable(&self.username_field, "holds a colon"));
        }
        let token = secret::secret(token)
            .map_err(|fault| unusable(&self.token_field, &fault.to_string()))?;
        Ok((username, token))
    }
}

impl Known {
    fn take(&mut self, username: String, token: SecretString, read_at: Instant) -> Credential {
        let hash = self.keys.hash_one((&username, token.expose_secret()));
        let version = match self.version {
            Some((version, known)) if known == hash => version,
            _ => VERSIONS.fetch_add(1, Ordering::Relaxed),
        };
        self.version = Some((version, hash));
        self.read_at = Some(read_at);
        self.read_until = Some(Instant::now());
        self.failed = None;
        let credential = Credential { username, token, version };
        self.credential = Some(credential.clone());
        credential
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::Wire;

    #[test]
    fn the_version_grows_with_the_content_only() {
        let mut known = Known::default();
        let mut version =
            |user: &str, token: &str| known.take(user.into(), token.into(), Instant::now()).version;
        let first = version("u", "t");
        assert_eq!(version("u", "t"), first);
        let second = version("u", "t2");
        let third = version("u2", "t2");
        assert!(first < second && second < third);
        // Back to what it was is a change as well.
        assert!(third < version("u", "t"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_is_dropped_when_its_time_is_over_though_nobody_asks() {
        let config = "address = 'http://127.0.0.1:1'\n[auth]\nmethod = 'token'\ntoken_env = 'X'";
        let sessions = Sessions::new(Wire::new(toml::from_str(config).unwrap()).unwrap());
        let rule: CredentialRule = toml::from_str("push = 'a'").unwrap();
        let slot = Arc::new(Slot::new(rule.push.as_ref().unwrap(), &rule));
        let ttl = sessions.wire().config().pat_cache_ttl;
        let held = async || slot.known.lock().await.credential.is_some();
        let second = Duration::from_secs(1);

        let began = Instant::now();
        slot.known.lock().await.take("u".into(), "t".into(), began);
        slot.forget_later(&sessions, began);
        tokio::time::sleep(ttl.saturating_sub(second)).await;
        assert!(held().await);
        // A later reading has its own time.
        slot.known.lock().await.take("u".into(), "t".into(), began + ttl / 2);
        slot.forget_later(&sessions, began + ttl / 2);
        tokio::time::sleep(second * 2).await;
        assert!(held().await);
        tokio::time::sleep(ttl / 2).await;
        assert!(!held().await);
    }

    #[test]
    fn the_version_outlives_the_token() {
        let mut known = Known::default();
        let first = known.take("u".into(), "t".into(), Instant::now()).version;
        known.credential = None;
        assert_eq!(known.take("u".into(), "t".into(), Instant::now()).version, first);
    }
}
