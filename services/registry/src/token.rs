//! Bearer tokens (Docker's token authentication): fetched for exactly one scope set, kept until
//! shortly before they expire, and never parsed, because not every registry's are JWTs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use colophon_domain::{Credential, Failure, Reason, Result, Retry, Urgency};
use http::{HeaderValue, StatusCode, header};
use reqwest::{RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use crate::{
    answer::{Asked, ERROR_LIMIT, Refusal, read_limited},
    auth::basic,
    budget::LEAST_WAIT,
    exchange::{MOST_THROTTLES, delays},
    host::Host,
    request::Line,
    schemes::Realm,
    scope::Scopes,
    sent::Sent,
    transport,
};

/// A token without `expires_in` is good for this long (the specification says so).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// A token is replaced this long before it expires, or in its last quarter if it is short-lived.
const MARGIN: Duration = Duration::from_secs(30);
/// Those who wait for the same refused token are not all refused by the registry one by one.
const REFUSAL_HOLDS: Duration = Duration::from_secs(2);
/// More slots than this are tidied up.
const TIDY_ABOVE: usize = 256;
/// Tokens that are kept at most; the one that expires first makes room.
const MOST_TOKENS: usize = 1024;
/// Bytes of a token; registries do not take longer headers.
const LONGEST_TOKEN: usize = 16 << 10;
/// No token is kept longer, whatever the realm says.
const LONGEST_LIFE: Duration = Duration::from_hours(1);

/// The username that marks the secret as an `OAuth2` identity token, as Docker does.
const IDENTITY_TOKEN: &str = "<token>";

/// Who asks: a hash of username and secret, because two credentials may share a username, or
/// nobody. It is a key in memory only.
pub(crate) type Identity = Option<[u8; 32]>;

pub(crate) fn identity(credential: Option<&Credential>) -> Identity {
    credential.map(|credential| {
        let mut hash = Sha256::new();
        hash.update(credential.username.len().to_be_bytes());
        hash.update(&credential.username);
        hash.update(credential.token.expose_secret());
        hash.finalize().into()
    })
}

/// A token is good for whoever asks the same realm as the same one for the same scopes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub identity: Identity,
    pub realm: Realm,
    pub scopes: Scopes,
}

#[derive(Clone)]
struct Token {
    value: SecretString,
    until: Instant,
}

enum Slot {
    Empty,
    Held(Token),
    /// When the realm refused, and its words.
    Refused(Instant, StatusCode, String),
    /// When the realm gave no answer that could be used, for those who waited for it.
    Failed(Instant, Failure),
}

/// Why there is no token.
pub(crate) enum NoToken {
    /// The realm refuses who asks.
    Refused(StatusCode, String),
    /// Something else.
    Failed(Failure),
}

impl From<Failure> for NoToken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The tokens of one registry.
#[derive(Default)]
pub(crate) struct TokenCache(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>);

impl TokenCache {
    fn slot(&self, key: &Key) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() > TIDY_ABOVE {
            let now = Instant::now();
            slots.retain(|_, slot| match slot.try_lock().as_deref() {
                Ok(Slot::Held(token)) => token.until > now,
                Ok(_) => false,
                Err(_) => true,
            });
        }
        if slots.len() >= MOST_TOKENS {
            let held = slots.iter().filter_map(|(key, slot)| match &*slot.try_lock().ok()? {
                Slot::Held(token) => Some((token.until, key)),
                _ => None,
            });
            if let Some((_, key)) = held.min_by_key(|(until, _)| *until) {
                let key = key.clone();
                slots.remove(&key);
            }
        }
        let slot = Arc::new(tokio::sync::Mutex::new(Slot::Empty));
        slots.insert(key.clone(), Arc::clone(&slot));
        slot
    }

    /// The token for a key, and whether it was fetched just now. Those who ask at the same time
    /// share one request.
    pub(crate) async fn get(
        &self,
        host: &Host,
        key: &Key,
        credential: Option<&Credential>,
        asked: &Asked<'_>,
    ) -> Result<(SecretString, bool), NoToken> {
        let begin = Instant::now();
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        match &*slot {
            // A realm that hangs is not asked by one after the other of those who waited.
            Slot::Failed(ended, failure) if *ended >= begin => return Err(same(failure).into()),
            Slot::Held(token) if token.until > Instant::now() => {
                return Ok((token.value.clone(), false));
            }
            Slot::Refused(when, status, words) if when.elapsed() < REFUSAL_HOLDS => {
                return Err(NoToken::Refused(*status, words.clone()));
            }
            _ => {}
        }
        match fetch(host, key, credential, asked).await {
            Ok(token) => {
                let value = token.value.clone();
                *slot = Slot::Held(token);
                Ok((value, true))
            }
            Err(NoToken::Refused(status, words)) => {
                *slot = Slot::Refused(Instant::now(), status, words.clone());
                Err(NoToken::Refused(status, words))
            }
            Err(NoToken::Failed(failure)) => {
                *slot = Slot::Failed(Instant::now(), same(&failure));
                Err(failure.into())
            }
        }
    }

    /// Drops a token that the registry did not accept, unless it was replaced meanwhile.
    pub(crate) async fn forget(&self, key: &Key, refused: &SecretString) {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if matches!(&*slot, Slot::Held(token)
            if token.value.expose_secret() == refused.expose_secret())
        {
            *slot = Slot::Empty;
        }
    }
}

/// A failure for another who asked for the same; the cause stays with the first.
fn same(failure: &Failure) -> Failure {
    let same = Failure::new(failure.reason(), failure.message().to_owned());
    let same = same.retry(failure.retry_class());
    match failure.remedy_text() {
        Some(remedy) => same.remedy(remedy.to_owned()),
        None => same,
    }
}

#[derive(Deserialize)]
struct Body {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<u64>,
}

#[tracing::instrument(level = "debug", name = "registry.token.fetch", skip_all, fields(registry = %host.name, repository = asked.repository.name()))]
async fn fetch(
    host: &Host,
    key: &Key,
    credential: Option<&Credential>,
    asked: &Asked<'_>,
) -> Result<Token, NoToken> {
    let asked = &Asked { what: "getting a token".into(), writes: false, ..asked.clone() };
    let (begin, own) = (Instant::now(), host.is_own(&key.realm.url));
    let mut response = None;
    if let Some(credential) = credential.filter(|known| known.username == IDENTITY_TOKEN) {
        let answer = send((host, own), asked, || post(host, key, credential, asked)).await?;
        let unknown = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        response = Some(answer).filter(|answer| !unknown.contains(&answer.status()));
    }
    let mut response = match response {
        Some(response) => response,
        None => send((host, own), asked, || get(host, key, credential, asked)).await?,
    };
    let timeout = host.config.request_timeout;
    if !response.status().is_success() {
        response.extensions_mut().insert(Sent::of(credential, None));
        let refusal = Refusal::read(response, timeout, asked).await;
        return Err(match refusal.status.as_u16() {
            400 | 401 | 403 => NoToken::Refused(refusal.status, refusal.words()),
            _ => NoToken::Failed(refusal.into_failure(asked)),
        });
    }
    let body = read_limited(response, ERROR_LIMIT, timeout, asked).await?;
    let unusable = || asked.protocol("the realm's answer holds no token");
    // A parser's error could show the body, so it is not kept.
    let body: Body = serde_json::from_slice(&body).map_err(|_| unusable())?;
    let value = [body.token, body.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.expose_secret().is_empty())
        .ok_or_else(unusable)?;
    if value.expose_secret().len() > LONGEST_TOKEN {
        let text = format!("the realm's token has more than {LONGEST_TOKEN} bytes");
        return Err(asked.protocol(&text).into());
    }
    // Counted from the request, by our own clock: `issued_at` depends on the realm's.
    let life = body.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
    let life = life.min(LONGEST_LIFE);
    Ok(Token { value, until: begin + life - MARGIN.min(life / 4) })
}

fn get(
    host: &Host,
    key: &Key,
    credential: Option<&Credential>,
    asked: &Asked<'_>,
) -> Result<RequestBuilder> {
    let realm = &key.realm.url;
    let mut url: Url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &key.realm.service {
            query.append_pair("service", service);
        }
        for scope in key.scopes.texts() {
            query.append_pair("scope", &scope);
        }
    }
    let request = host.client_for_realm(realm, asked)?.get(url);
    Ok(match credential {
        Some(credential) => request.header(header::AUTHORIZATION, basic(credential)?),
        None => request,
    })
}

/// The `OAuth2` form (RFC 6749, section 6), which takes an identity token.
fn post(
    host: &Host,
    key: &Key,
    credential: &Credential,
    asked: &Asked<'_>,
) -> Result<RequestBuilder> {
    let scopes: Vec<String> = key.scopes.texts().collect();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "colophon"),
        ("service", key.realm.service.as_deref().unwrap_or_default()),
        ("scope", &scopes.join(" ")),
        ("refresh_token", credential.token.expose_secret()),
    ];
    Ok(host.client_for_realm(&key.realm.url, asked)?.post(key.realm.url.clone()).form(&form))
}

/// Sends what `request` makes to the registry's `own` host or another one, again after a short while if the realm is away or asks for one.
async fn send(
    (host, own): (&Host, bool),
    asked: &Asked<'_>,
    request: impl Fn() -> Result<RequestBuilder>,
) -> Result<Response> {
    let (mut delays, mut throttles) = (delays(), 0);
    let mut attempt = 0;
    loop {
        let budget = &host.limits.budget;
        // Many wait for one token, and hold a place meanwhile.
        let pass = if own {
            Some(budget.ready(Urgency::Urgent, None).await?)
        } else {
            budget.unpaused(None).await?;
            None
        };
        let (client, request) = request()?.timeout(host.config.request_timeout).build_split();
        let request = request.map_err(|error| transport::explain(error, asked))?;
        attempt += 1;
        let (method, url) = (request.method().clone(), request.url().clone());
        let repository = asked.repository.name();
        let line = Line { host, method: &method, url: &url, repository, attempt };
        let sent = line.send(client.execute(request)).await;
        if let (Some(pass), Ok(response)) = (pass, &sent) {
            budget.answered(pass, response.status(), response.headers(), host.clock.as_ref());
        }
        let failure = match sent {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                if pass.is_none() {
                    budget.refused_elsewhere(response.headers(), host.clock.as_ref());
                }
                throttles += 1;
                if throttles < MOST_THROTTLES {
                    continue;
                }
                let wait = budget.pause_left().max(LEAST_WAIT);
                return Err(asked
                    .failure(Reason::RateLimited, "HTTP 429 from the token realm")
                    .retry(Retry::Wait(wait)));
            }
            Ok(response) if response.status().is_server_error() => asked
                .unavailable(&format!("HTTP {} from the token realm", response.status().as_u16())),
            Ok(response) => return Ok(response),
            Err(error) => transport::explain(error, asked),
        };
        let again = failure.retry_class() == Retry::Backoff;
        match delays.next().filter(|_| again) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(failure),
        }
    }
}

/// A token as the header's value, marked so that no log shows it.
pub(crate) fn bearer(token: &SecretString, asked: &Asked<'_>) -> Result<HeaderValue> {
    let text = SecretString::from(format!("Bearer {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(text.expose_secret())
        .map_err(|_| asked.protocol("the realm's token cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
