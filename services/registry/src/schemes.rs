//! How a registry wants to be shown who is asking, remembered by repository: one answer, maybe
//! of a proxy on the way, speaks for no other repository, and a realm that fails is forgotten
//! and asked for anew.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

use crate::challenge::Challenge;

/// Repositories whose scheme is remembered; beyond them, all are learnt anew.
const MOST_REMEMBERED: usize = 4096;
/// A realm and service longer than this are no honest registry's.
const LONGEST_REALM: usize = 2048;

/// A registry that names no challenge where it should is not asked again for this long.
const OPEN_HOLDS: Duration = Duration::from_mins(1);

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Username and PAT with each request.
    Basic,
    /// A token from a realm.
    Bearer(Realm),
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Realm {
    pub url: Url,
    pub service: Option<String>,
}

impl Scheme {
    /// The best of the challenges that we understand: a token, which the PAT is not sent for
    /// with each request, before Basic.
    pub(crate) fn choose(challenges: &[Challenge]) -> Option<Self> {
        let realm = |challenge: &Challenge| {
            let url = Url::parse(challenge.get("realm")?).ok().filter(Url::has_host)?;
            let service = challenge.get("service").map(str::to_owned);
            let length = url.as_str().len() + service.as_ref().map_or(0, String::len);
            (length <= LONGEST_REALM).then_some(Self::Bearer(Realm { url, service }))
        };
        let mut bearers = challenges.iter().filter(|challenge| challenge.scheme == "bearer");
        bearers.find_map(realm).or_else(|| {
            challenges.iter().any(|challenge| challenge.scheme == "basic").then_some(Self::Basic)
        })
    }
}

/// The schemes of one registry, by the repository's name.
#[derive(Default)]
pub(crate) struct Schemes {
    known: Mutex<HashMap<String, Scheme>>,
    open_until: Mutex<Option<Instant>>,
}

impl Schemes {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Scheme>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the registry said last; `None` until it has said so.
    pub(crate) fn get(&self, repository: &str) -> Option<Scheme> {
        self.known().get(repository).cloned()
    }

    /// Remembers it; true if it is news.
    pub(crate) fn learn(&self, repository: &str, scheme: Scheme) -> bool {
        let mut known = self.known();
        if known.get(repository) == Some(&scheme) {
            return false;
        }
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(repository.to_owned(), scheme);
        true
    }

    /// Whether `/v2/` named no challenge a moment ago.
    pub(crate) fn is_open(&self) -> bool {
        let until = *self.open_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| until > Instant::now())
    }

    /// `/v2/` names no challenge.
    pub(crate) fn open(&self) {
        let until = Some(Instant::now() + OPEN_HOLDS);
        *self.open_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Forgets one that failed, unless another was learnt meanwhile.
    pub(crate) fn forget(&self, repository: &str, failed: &Scheme) {
        let mut known = self.known();
        if known.get(repository) == Some(failed) {
            known.remove(repository);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::*;
    use crate::challenge::challenges;

    #[test]
    fn a_token_comes_before_basic_and_a_realm_must_be_a_url() {
        let choose = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
            Scheme::choose(&challenges(&headers))
        };
        let both = choose(r#"Basic realm="x", Bearer realm="https://a.x/t",service="s""#);
        assert!(
            matches!(both, Some(Scheme::Bearer(realm)) if realm.service.as_deref() == Some("s"))
        );
        assert_eq!(choose(r#"Bearer realm="no url", Basic realm="x""#), Some(Scheme::Basic));
        assert_eq!(choose("Negotiate"), None);
        let endless = format!(r#"Bearer realm="https://a.x/{}""#, "t".repeat(LONGEST_REALM));
        assert_eq!(choose(&endless), None);
    }

    #[test]
    fn each_repository_has_its_own_and_only_the_failed_one_is_forgotten() {
        let schemes = Schemes::default();
        let bearer =
            |url: &str| Scheme::Bearer(Realm { url: Url::parse(url).unwrap(), service: None });
        assert!(schemes.learn("a", Scheme::Basic) && !schemes.learn("a", Scheme::Basic));
        assert_eq!(schemes.get("b"), None);
        assert!(schemes.learn("a", bearer("https://new/")));
        schemes.forget("a", &bearer("https://old/"));
        assert_eq!(schemes.get("a"), Some(bearer("https://new/")));
        schemes.forget("a", &bearer("https://new/"));
        assert_eq!(schemes.get("a"), None);
        for number in 0..=MOST_REMEMBERED {
            schemes.learn(&number.to_string(), Scheme::Basic);
        }
        assert!(schemes.known().len() <= MOST_REMEMBERED);
    }
}
