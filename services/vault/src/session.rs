//! The login: made when it is first needed, renewed in the background at two thirds of its life,
//! and made anew when it cannot be renewed, ends, or Vault refuses it.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::{
    sync::{Mutex, watch},
    time::sleep_until,
};
use tracing::{debug, info, warn};

use crate::{
    login::log_in,
    place::Place,
    trouble::Trouble,
    wire::{Fields, Refusal, Wire},
};

/// The background task looks after a login at most this often.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// A token of Vault's and how long it lives.
pub(crate) struct Session {
    token: SecretString,
    obtained: Instant,
    /// `None` for a token that does not end, or of which Vault does not say when.
    life: Option<Duration>,
    renewable: bool,
}

impl Session {
    pub(crate) fn new(token: SecretString, life_s: u64, renewable: bool) -> Self {
        let life = (life_s > 0).then(|| Duration::from_secs(life_s));
        Self { token, obtained: Instant::now(), life, renewable: renewable && life.is_some() }
    }

    fn is_over(&self) -> bool {
        self.life.is_some_and(|life| self.obtained.elapsed() >= life)
    }

    /// When the background task looks after it.
    fn due(&self) -> Option<Instant> {
        self.life.map(|life| self.obtained + (life * 2 / 3).max(LEAST_PAUSE))
    }
}

/// What the last login left behind, for those who waited for it.
#[derive(Default)]
struct LastLogin {
    failed: Option<(Instant, Trouble)>,
    after_refusal: Option<Instant>,
}

/// Keeps the process logged in.
pub(crate) struct Sessions {
    me: Weak<Self>,
    wire: Wire,
    current: watch::Sender<Option<Arc<Session>>>,
    login: Mutex<LastLogin>,
    kept: AtomicBool,
}

impl Sessions {
    pub(crate) fn new(wire: Wire) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            wire,
            current: watch::Sender::new(None),
            login: Mutex::default(),
            kept: AtomicBool::new(false),
        })
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Reads a secret. A refused token is replaced once, and the reading repeated.
    pub(crate) async fn read(&self, place: &Place) -> Result<Fields, Trouble> {
        let asked = Instant::now();
        let session = self.session().await?;
        let refusal = match self.wire.read(&session.token, place).await {
            Ok(fields) => return Ok(fields),
            Err(refusal) => refusal,
        };
        // A login that was made for this very reading would only be made again.
        let worn = refusal.is_forbidden() && session.obtained < asked;
        if worn && let Some(next) = self.replace(&session).await? {
            let read = self.wire.read(&next.token, place).await;
            return read.map_err(|refusal| self.unreadable(&refusal, place));
        }
        Err(self.unreadable(&refusal, place))
    }

    /// What a refused reading means.
    fn unreadable(&self, refusal: &Refusal, place: &Place) -> Trouble {
        if let Some(outage) = refusal.outage(self.wire.address()) {
            return outage;
        }
        match refusal {
            Refusal::Status { code: 404, .. } => Trouble::missing(
                format!("there is no secret {place}"),
                "write it there, or correct the path (below the mount, without data/), mount, \
                 kv_version or namespace in the registry's credentials",
            ),
            Refusal::Status { code, .. } => Trouble::denied(
                format!("Vault refuses ({code}) to let us read {place}"),
                format!(
                    "grant the capability \"read\" on {} in the policy of Colophon's login, if \
                     that is the path: kv_version is {}",
                    place.policy_path(),
                    u64::from(place.kv_version)
                ),
            ),
            Refusal::Unreachable(..) | Refusal::Garbled => {
                Trouble::away(self.wire.address(), "gave no answer", "look whether it runs")
            }
        }
    }

    fn usable(&self) -> Option<Arc<Session>> {
        self.current.borrow().as_ref().filter(|session| !session.is_over()).cloned()
    }

    async fn session(&self) -> Result<Arc<Session>, Trouble> {
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        let asked = Instant::now();
        let mut last = self.login.lock().await;
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        self.log_in(&mut last, asked).await
    }

    /// Replaces a session that Vault refused, unless that was done a moment ago.
    async fn replace(&self, refused: &Arc<Session>) -> Result<Option<Arc<Session>>, Trouble> {
        let asked = Instant::now();
        let mut last = self.login.lock().await;
        if let Some(session) = self.usable().filter(|session| session.obtained > refused.obtained) {
            return Ok(Some(session));
        }
        let pause = self.wire.config().reread_interval;
        if last.after_refusal.is_some_and(|then| then.elapsed() < pause) {
            return Ok(None);
        }
        last.after_refusal = Some(Instant::now());
        self.log_in(&mut last, asked).await.map(Some)
    }

    /// Logs in, unless another caller has just tried in vain while this one waited.
    async fn log_in(&self, last: &mut LastLogin, asked: Instant) -> Result<Arc<Session>, Trouble> {
        if let Some((_, trouble)) = last.failed.as_ref().filter(|(ended, _)| *ended >= asked) {
            return Err(trouble.clone());
        }
        match log_in(&self.wire).await {
            Ok(session) => {
                let ttl_s = session.life.map(|life| life.as_secs());
                info!(ttl_s, renewable = session.renewable, "logged in to Vault");
                last.failed = None;
                Ok(self.store(session))
            }
            Err(trouble) => {
                last.failed = Some((Instant::now(), trouble.clone()));
                Err(trouble)
            }
        }
    }

    fn store(&self, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        self.current.send_replace(Some(session.clone()));
        if !self.kept.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(self.me.clone(), self.current.subscribe()));
        }
        session
    }

    /// Lengthens or replaces the current session before it ends.
    async fn look_after(&self) -> Result<(), Trouble> {
        let asked = Instant::now();
        let mut last = self.login.lock().await;
        let Some(session) = self.current.borrow().clone() else { return Ok(()) };
        // Somebody logged in while this waited for the lock.
        if session.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        if session.renewable && !session.is_over() {
            match self.wire.renew(&session.token).await {
                Ok(auth) => {
                    let next =
                        Session::new(session.token.clone(), auth.lease_duration, auth.renewable);
                    let shrunk = next.life < session.life.map(|life| life / 2);
                    debug!(ttl_s = auth.lease_duration, "renewed the login to Vault");
                    // Near its greatest age a token is renewed for less and less: make a new one.
                    let renewable = next.renewable && !shrunk;
                    self.store(Session { renewable, ..next });
                    return Ok(());
                }
                Err(refusal) if refusal.is_passing() => {
                    return Err(refusal.outage(self.wire.address()).unwrap_or_else(|| {
                        Trouble::away(self.wire.address(), "renews no token", "look at its log")
                    }));
                }
                Err(_) => {}
            }
        }
        self.log_in(&mut last, asked).await.map(drop)
    }
}

/// The background task. It ends with the sessions, which it does not keep alive.
async fn keep(sessions: Weak<Sessions>, mut current: watch::Receiver<Option<Arc<Session>>>) {
    let mut not_before = None;
    let mut failing = false;
    loop {
        let due = current.borrow_and_update().as_ref().and_then(|session| session.due());
        let due = due.map(|due| not_before.map_or(due, |time: Instant| time.max(due)));
        let wait = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = current.changed() => {
                if changed.is_err() {
                    return;
                }
                not_before = None;
                continue;
            }
            () = wait => {}
        }
        let Some(sessions) = sessions.upgrade() else { return };
        match sessions.look_after().await {
            Ok(()) => failing = false,
            Err(trouble) => {
                let pause = trouble.pause();
                not_before = Some(Instant::now() + pause);
                if !failing {
                    let (reason, message) = (trouble.reason.as_str(), trouble.message.as_str());
                    warn!(reason, message, "the login to Vault could not be renewed yet");
                }
                failing = true;
            }
        }
    }
}
