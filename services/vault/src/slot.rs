//! One secret with a username and a PAT: read by one caller for all who ask at the same time,
//! kept for a short time, and read again when a registry refused what was read.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use colophon_domain::Credential;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    CredentialRule, VaultConfig, metrics, place::Place, secret, session::Sessions,
    trouble::Trouble, wire::Fields,
};

/// Versions count across all secrets of the process, so that one of another secret is never
/// taken for this one's.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// Where one credential comes from, and what was read there last.
pub(crate) struct Slot {
    place: Place,
    username_field: String,
    token_field: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Dropped when it is as old as it may become, whether anybody asks or not.
    credential: Option<Credential>,
    /// When the last reading that brought a credential began.
    read_at: Option<Instant>,
    /// The version of what was read last, and a keyed hash of it: enough to tell a change after
    /// the PAT itself was dropped.
    version: Option<(u64, u64)>,
    keys: RandomState,
    /// When a reading ended in vain, for those who waited for it.
    failed: Option<(Instant, Trouble)>,
    /// When it was last read because of a refusal.
    reread_at: Option<Instant>,
}

/// What a caller does next.
enum Next {
    Have(Credential),
    Fail(Trouble),
    /// It was read because of a refusal a short time ago; look again then.
    Wait(Instant),
    Read,
}

impl Slot {
    pub(crate) fn new(place: Place, rule: &CredentialRule) -> Self {
        Self {
            place,
            username_field: rule.username_field.clone(),
            token_field: rule.token_field.clone(),
            known: Mutex::default(),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the other one reads the same fields of the same secret.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.place, &self.username_field, &self.token_field)
            == (&other.place, &other.username_field, &other.token_field)
    }

    /// The credential: from memory while that is fresh and not the version that was refused.
    ///
    /// Whoever had it refused is told the same version only by a reading that began afterwards,
    /// and waits for one if the last was too short a time ago: the secret may have changed in
    /// between, and a caller that hears of nothing newer gives up for good.
    ///
    /// The lock is held while Vault is asked, so that one reading serves all who ask meanwhile,
    /// its failure included. When the caller that reads is cancelled another one reads.
    pub(crate) async fn get(
        self: &Arc<Self>,
        sessions: &Sessions,
        refused: Option<u64>,
    ) -> Result<Credential, Trouble> {
        let asked = Instant::now();
        let config = sessions.wire().config();
        loop {
            let mut known = self.known.lock().await;
            let now = Instant::now();
            let wait_until = match known.next(refused, asked, now, config) {
                Next::Have(credential) => return Ok(credential),
                Next::Fail(trouble) => return Err(trouble),
                Next::Wait(until) => until,
                Next::Read => return self.read(&mut known, sessions, refused, now).await,
            };
            // Those who have no complaint are served meanwhile.
            drop(known);
            tokio::time::sleep_until(wait_until.into()).await;
        }
    }

    #[tracing::instrument(
        level = "debug", name = "vault.secret.read", skip_all,
        fields(otel.kind = "client", path = self.place.path.as_str(), outcome = tracing::field::Empty)
    )]
    async fn read(
        self: &Arc<Self>,
        known: &mut Known,
        sessions: &Sessions,
        refused: Option<u64>,
        began: Instant,
    ) -> Result<Credential, Trouble> {
        if refused.is_some() && refused == known.version.map(|(version, _)| version) {
            known.reread_at = Some(began);
        }
        match sessions.read(&self.place).await.and_then(|fields| self.extract(fields)) {
            Ok((username, token)) => {
                said("OK", began);
                let credential = known.take(username, token, began);
                self.forget_later(sessions, began);
                Ok(credential)
            }
            Err(trouble) => {
                said(trouble.reason.as_str(), began);
                colophon_telemetry::failed(trouble.reason.as_str());
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

    fn extract(&self, mut fields: Fields) -> Result<(String, SecretString), Trouble> {
        let unusable = |field: &str, fault: &str| {
            Trouble::missing(
                format!("the field {field} of the secret {} {fault}", self.place),
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

/// Says on the current span what came of a reading, and counts it.
fn said(outcome: &'static str, began: Instant) {
    tracing::Span::current().record("outcome", outcome);
    metrics::read(outcome, began.elapsed());
}

impl Known {
    /// What a caller does that asked at `asked`, perhaps because this version was refused.
    fn next(
        &self,
        refused: Option<u64>,
        asked: Instant,
        now: Instant,
        config: &VaultConfig,
    ) -> Next {
        let fresh_until = self.read_at.map(|at| at + config.pat_cache_ttl);
        let fresh_until = fresh_until.filter(|until| now < *until);
        let held = self.credential.as_ref().zip(fresh_until);
        if let Some((credential, _)) = held {
            let read_since = self.read_at.is_some_and(|at| at >= asked);
            if refused != Some(credential.version) || read_since {
                return Next::Have(credential.clone());
            }
        }
        if let Some((_, trouble)) = self.failed.as_ref().filter(|(ended, _)| *ended >= asked) {
            return Next::Fail(trouble.clone());
        }
        let pause = self.reread_at.map_or(Duration::ZERO, |at| {
            config.reread_interval.saturating_sub(now.duration_since(at))
        });
        match held {
            // Once it is not fresh any more it is read anyway.
            Some((_, fresh_until)) if !pause.is_zero() => {
                let soonest = now.checked_add(pause);
                Next::Wait(soonest.map_or(fresh_until, |soonest| soonest.min(fresh_until)))
            }
            _ => Next::Read,
        }
    }

    fn take(&mut self, username: String, token: SecretString, read_at: Instant) -> Credential {
        let hash = self.keys.hash_one((&username, token.expose_secret()));
        let version = match self.version {
            Some((version, known)) if known == hash => version,
            _ => VERSIONS.fetch_add(1, Ordering::Relaxed),
        };
        self.version = Some((version, hash));
        self.read_at = Some(read_at);
        self.failed = None;
        let credential = Credential { username, token, version };
        self.credential = Some(credential.clone());
        credential
    }
}

#[cfg(test)]
mod tests {
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
        let sessions = Sessions::new(wire());
        let rule: CredentialRule = toml::from_str("push = 'a'").unwrap();
        let config = sessions.wire().config();
        let place = Place::new(rule.push.as_ref().unwrap(), &rule, config);
        let slot = Arc::new(Slot::new(place, &rule));
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

    fn wire() -> Wire {
        let config = "address = 'http://127.0.0.1:1'\n[auth]\nmethod = 'token'\ntoken_env = 'X'";
        Wire::new(toml::from_str(config).unwrap()).unwrap()
    }

    #[test]
    fn a_refused_version_is_given_again_only_by_a_reading_that_began_afterwards() {
        let wire = wire();
        let config = wire.config();
        let (second, began) = (Duration::from_secs(1), Instant::now());
        let (interval, ttl) = (config.reread_interval, config.pat_cache_ttl);
        let mut known = Known::default();
        let version = known.take("u".into(), "t".into(), began).version;
        let next = |known: &Known, refused: u64, asked: Instant, now: Instant| {
            known.next(Some(refused), asked, now, config)
        };
        let later = began + second;
        // Refused before it was read, and after.
        assert!(matches!(next(&known, version, began, later), Next::Have(_)));
        assert!(matches!(next(&known, version, later, later), Next::Read));
        // Another version was refused.
        assert!(matches!(next(&known, version + 1, later, later), Next::Have(_)));
        // Read again a short time ago, in vain.
        known.reread_at = Some(began);
        assert!(
            matches!(next(&known, version, later, later), Next::Wait(end) if end == began + interval)
        );
        let over = began + interval;
        assert!(matches!(next(&known, version, later, over), Next::Read));
        // Not longer than the credential may be kept, however long the interval.
        let asked = began + ttl.saturating_sub(second);
        known.reread_at = Some(asked);
        assert!(
            matches!(next(&known, version, asked, asked), Next::Wait(end) if end == began + ttl)
        );
        let endless = VaultConfig { reread_interval: Duration::MAX, ..config.clone() };
        assert!(
            matches!(known.next(Some(version), asked, asked, &endless), Next::Wait(end) if end == began + ttl)
        );
        assert!(matches!(next(&known, version, asked, began + ttl), Next::Read));
        // One failure is everybody's who waited for it.
        known.failed = Some((later, Trouble::sealed("v")));
        assert!(matches!(next(&known, version, later, later), Next::Fail(_)));
    }

    #[test]
    fn the_version_outlives_the_token() {
        let mut known = Known::default();
        let first = known.take("u".into(), "t".into(), Instant::now()).version;
        known.credential = None;
        assert_eq!(known.take("u".into(), "t".into(), Instant::now()).version, first);
    }
}
