//! Showing a registry who is asking: what its challenge wants, with the credential that counts
//! for this repository, and what to do when that is refused. One [`Turn`] serves one request
//! and tries each remedy once: another scheme, wider scopes, a fresh token, a newer credential.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_domain::{Access, Credential, Failure, Reason, Result};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    answer::{Asked, Refusal},
    challenge::challenges,
    exchange::Call,
    hint,
    schemes::{Realm, Scheme},
    scope::Scopes,
    sent::Sent,
    session::Session,
    token::{self, Key, NoToken},
};

/// `Basic` (RFC 7617), marked so that no log shows it.
pub(crate) fn basic(credential: &Credential) -> Result<HeaderValue> {
    let pair = format!("{}:{}", credential.username, credential.token.expose_secret());
    let text = SecretString::from(format!(
        "Basic {}",
        STANDARD.encode(SecretString::from(pair).expose_secret())
    ));
    let mut value = HeaderValue::from_str(text.expose_secret()).map_err(|_| {
        Failure::new(Reason::CredentialMissing, "the credential cannot stand in a header")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the last request of a turn carried.
enum Shown {
    Nothing,
    Basic,
    Token { key: Key, value: SecretString, fresh: bool },
}

/// The authorization of one request, over its attempts.
#[expect(clippy::struct_excessive_bools, reason = "one for each remedy that is tried once")]
pub(crate) struct Turn<'a> {
    session: &'a Session,
    scopes: Scopes,
    /// Whether a refusal may ask for a newer credential.
    renew: bool,
    credential: Option<Credential>,
    loaded: bool,
    shown: Shown,
    schemes_learnt: u8,
    /// A remembered realm failed, and the registry is asked for its challenge anew.
    forgot: bool,
    /// `/v2/` was asked for a challenge.
    asked_root: bool,
    widened: bool,
    refetched: bool,
    renewed: bool,
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl<'a> Turn<'a> {
    pub(crate) fn new(session: &'a Session, scopes: Scopes, renew: bool) -> Self {
        Self {
            session,
            scopes,
            renew,
            credential: None,
            loaded: false,
            shown: Shown::Nothing,
            schemes_learnt: 0,
            forgot: false,
            asked_root: false,
            widened: false,
            refetched: false,
            renewed: false,
        }
    }

    /// The `Authorization` for the next attempt, if there is one.
    pub(crate) async fn header(&mut self, asked: &Asked<'_>) -> Result<Option<HeaderValue>> {
        if !self.loaded {
            self.credential = self.read(None).await?;
            self.loaded = true;
        }
        self.shown = Shown::Nothing;
        match (self.scheme(), &self.credential) {
            (None, _) | (Some(Scheme::Basic), None) => Ok(None),
            (Some(Scheme::Basic), Some(credential)) => {
                self.shown = Shown::Basic;
                basic(credential).map(Some)
            }
            (Some(Scheme::Bearer(realm)), _) => self.token(realm, asked).await,
        }
    }

    fn scheme(&self) -> Option<Scheme> {
        self.session.host.schemes.get(self.session.repository.name())
    }

    /// Forgets a remembered realm that gave no token, so that the request is sent once without
    /// and the registry can name another. A realm that it named just now is its last word.
    fn forget(&mut self, realm: &Realm) -> bool {
        if self.forgot || self.schemes_learnt > 0 {
            return false;
        }
        self.forgot = true;
        // Another request may be the first to hear the challenge, and this one must still go on.
        self.refetched = false;
        let failed = Scheme::Bearer(realm.clone());
        self.session.host.schemes.forget(self.session.repository.name(), &failed);
        true
    }

    /// The header with a token; `None` to hear the registry's challenge anew.
    async fn token(&mut self, realm: Realm, asked: &Asked<'_>) -> Result<Option<HeaderValue>> {
        let host = &self.session.host;
        loop {
            let credential = self.credential.as_ref();
            let key = Key {
                identity: token::identity(credential),
                realm: realm.clone(),
                scopes: self.scopes.clone(),
            };
            match host.tokens.get(host, &key, credential, asked).await {
                Ok((value, fresh)) => {
                    let header = token::bearer(&value, asked)?;
                    self.shown = Shown::Token { key, value, fresh };
                    return Ok(Some(header));
                }
                Err(NoToken::Failed(failure)) => {
                    // A pause is not the realm's failure, and asking more would not end it.
                    let paused = failure.reason() == Reason::RateLimited;
                    return if !paused && self.forget(&realm) { Ok(None) } else { Err(failure) };
                }
                Err(NoToken::Refused(status, words)) => {
                    if !self.renew_credential().await? {
                        if self.forget(&realm) {
                            return Ok(None);
                        }
                        return Err(self.refusal(status, &words, false, asked));
                    }
                }
            }
        }
    }

    /// Some registries hide from strangers what exists, and answer them 404 or 403 without a
    /// challenge. True if a credential is at hand, nothing of it was shown, and `/v2/` names
    /// the challenge (distribution-spec, "Determining Support"): the answer is not believed.
    pub(crate) async fn was_a_stranger(&mut self, response: &Response) -> bool {
        let host = &self.session.host;
        let may_hide = matches!(response.status().as_u16(), 401 | 403 | 404)
            && Scheme::choose(&challenges(response.headers())).is_none();
        let stranger = matches!(self.shown, Shown::Nothing) && self.credential.is_some();
        if !may_hide || !stranger || self.asked_root || host.schemes.is_open() {
            return false;
        }
        self.asked_root = true;
        if self.scheme().is_some() {
            // Another request has learnt it meanwhile.
            return true;
        }
        let mut root = host.base.clone();
        root.set_path("v2/");
        let call = Call::reading(self.session, Method::GET, root, "asking for the challenge");
        let Ok(answer) = self.session.call_anonymously(&call).await else { return false };
        match Scheme::choose(&challenges(answer.headers())) {
            Some(scheme) if answer.status() == StatusCode::UNAUTHORIZED => {
                host.schemes.learn(self.session.repository.name(), scheme);
                self.schemes_learnt += 1;
                true
            }
            _ => {
                if answer.status().is_success() || answer.status().is_client_error() {
                    host.schemes.open();
                }
                false
            }
        }
    }

    /// After a 401 or 403: prepares another attempt, or says why there is none.
    pub(crate) async fn refused(&mut self, response: Response, asked: &Asked<'_>) -> Result<()> {
        let host = &self.session.host;
        let mut challenges = challenges(response.headers());
        let sent = self.sent();
        challenges.retain(|known| !known.get("realm").is_some_and(|realm| sent.is_in(realm)));
        let timeout = host.config.request_timeout;
        let refusal = Refusal::read(response, timeout, asked).await;
        let unauthorized = refusal.status == StatusCode::UNAUTHORIZED;
        // Some registries say 403 for a tag that must not move; no other credential helps.
        if asked.writes && refusal.says_immutable() {
            return Err(refusal.immutable(asked));
        }
        if unauthorized
            && self.schemes_learnt < 2
            && Scheme::choose(&challenges)
                .is_some_and(|scheme| host.schemes.learn(self.session.repository.name(), scheme))
        {
            self.schemes_learnt += 1;
            return Ok(());
        }
        // Another request may have learnt the scheme while this one was on its way.
        let nothing_shown = matches!(self.shown, Shown::Nothing);
        let could_show =
            self.credential.is_some() || matches!(self.scheme(), Some(Scheme::Bearer(_)));
        if unauthorized && nothing_shown && self.scheme().is_some() && could_show && !self.refetched
        {
            self.refetched = true;
            return Ok(());
        }
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let insufficient =
            bearer.and_then(|challenge| challenge.get("error")) == Some("insufficient_scope");
        if let Shown::Token { key, value, fresh } = &self.shown {
            let wanted = bearer.and_then(|challenge| challenge.get("scope"));
            if !self.widened && wanted.is_some_and(|wanted| self.scopes.widen(wanted)) {
                self.widened = true;
                return Ok(());
            }
            host.tokens.forget(key, value).await;
            // It may have expired, or the permission may have come after it.
            if !fresh && !self.refetched {
                self.refetched = true;
                return Ok(());
            }
        }
        if self.renew_credential().await? {
            return Ok(());
        }
        Err(self.refusal(refusal.status, &refusal.words(), insufficient, asked))
    }

    /// What the last request carried; to be kept with its answer.
    pub(crate) fn sent(&self) -> Sent {
        match &self.shown {
            Shown::Nothing => Sent::default(),
            Shown::Basic => Sent::of(self.credential.as_ref(), None),
            Shown::Token { value, .. } => Sent::of(self.credential.as_ref(), Some(value)),
        }
    }

    /// Asks once for a credential that is newer than the one that was refused.
    async fn renew_credential(&mut self) -> Result<bool> {
        let Some(version) = self.credential.as_ref().map(|known| known.version) else {
            return Ok(false);
        };
        if self.renewed || !self.renew {
            return Ok(false);
        }
        self.renewed = true;
        let newer = self.read(Some(version)).await?;
        if newer.as_ref().is_none_or(|newer| newer.version == version) {
            return Ok(false);
        }
        self.credential = newer;
        self.refetched = false;
        Ok(true)
    }

    async fn read(&self, refused: Option<u64>) -> Result<Option<Credential>> {
        let session = self.session;
        session.credentials.credential(&session.repository, session.access, refused).await
    }

    /// Not who we should be (401), or not allowed to (403, or a token that lacks the scope).
    fn refusal(
        &self,
        status: StatusCode,
        words: &str,
        insufficient: bool,
        asked: &Asked<'_>,
    ) -> Failure {
        let access = if asked.writes { Access::Push } else { Access::Pull };
        if self.credential.is_none() {
            return asked
                .failure(
                    Reason::RegistryUnauthorized,
                    &format!("{words} (asked without a credential)"),
                )
                .remedy(format!("configure a credential for {}", asked.repository));
        }
        let reason = if status == StatusCode::FORBIDDEN || insufficient {
            Reason::RegistryDenied
        } else {
            Reason::RegistryUnauthorized
        };
        asked.failure(reason, words).remedy(hint::permission(asked.repository, access, reason))
    }
}
