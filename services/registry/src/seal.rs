//! Seals the URL of an upload that is written down: it may be a signed one, and whoever reads the
//! table must learn nothing from it. The key comes from the credential that the upload is made
//! with, so nothing else has to be kept secret or changed, and an upload of another credential is
//! begun anew. Where there is no credential anybody may begin an upload, and the key says nothing.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    hmac, pbkdf2,
};
use colophon_domain::{Credential, Digest, Repository};
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretBox};
use url::Url;

/// Keeps these keys apart from whatever else may ever be derived from a credential.
const DOMAIN: &[u8] = b"colophon/registry/v2/flight";
/// Whoever reads the table can try whether a password that he guesses opens a row. A PAT cannot be
/// guessed; for what people choose themselves each guess is made as dear as where passwords are kept
/// (OWASP, "Password Storage Cheat Sheet", PBKDF2-HMAC-SHA256).
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");
/// Credentials whose keys are kept in memory, as they are themselves, and for how long unused.
const KEPT: u64 = 256;
const UNUSED: Duration = Duration::from_hours(1);

/// The dear part of the keys: once for each credential at a registry.
pub(crate) struct Seals(Cache<Vec<u8>, Arc<SecretBox<[u8; 32]>>>);

impl Default for Seals {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KEPT).time_to_idle(UNUSED).build())
    }
}

impl Seals {
    /// The seal of a blob for whoever has this credential; `None` if none can be made now.
    pub(crate) async fn of(
        &self,
        credential: Option<&Credential>,
        repository: &Repository,
        blob: &Digest,
    ) -> Option<Seal> {
        let user = credential.map_or("", |credential| &credential.username);
        // A zero byte stands in none of these, so no two users have one salt.
        let host = repository.registry().as_str().as_bytes();
        let salt = [DOMAIN, host, user.as_bytes()].join(&0);
        let secret = credential.map(|credential| credential.token.clone()).unwrap_or_default();
        let named =
            SecretBox::new(Box::new([salt.as_slice(), secret.expose_secret().as_bytes()].join(&0)));
        let name = digest(&SHA256, named.expose_secret()).as_ref().to_vec();
        let derive = move || {
            let mut key = SecretBox::new(Box::new([0; 32]));
            pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA256,
                ROUNDS,
                &salt,
                secret.expose_secret().as_bytes(),
                secrecy::ExposeSecretMut::expose_secret_mut(&mut key),
            );
            Arc::new(key)
        };
        let derived = async { tokio::task::spawn_blocking(derive).await.ok() };
        let key = self.0.optionally_get_with(name, derived).await?;
        Seal::new(&key, repository, blob)
    }
}

/// What seals the URLs of one blob's uploads.
pub(crate) struct Seal(RandomizedNonceKey);

impl Seal {
    fn new(key: &SecretBox<[u8; 32]>, repository: &Repository, blob: &Digest) -> Option<Self> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret());
        let about = [repository.to_string().as_bytes(), blob.as_str().as_bytes()].join(&0);
        RandomizedNonceKey::new(&AES_256_GCM, hmac::sign(&key, &about).as_ref()).ok().map(Self)
    }

    /// The sealed URL: a nonce, and what it encrypts. It can be opened with the same `about` only.
    pub(crate) fn seal(&self, url: &Url, about: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = url.as_str().as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(about), &mut sealed).ok()?;
        Some([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// The URL that was sealed; `None` for anything else.
    pub(crate) fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Url> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.0.open_in_place(nonce, Aad::from(about), &mut opened).ok()?;
        Url::parse(std::str::from_utf8(text).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_credential_opens_what_was_sealed_for_the_same_blob() {
        let url = Url::parse("https://r.corp.lan/v2/a/b/blobs/uploads/1?_state=s3cret").unwrap();
        let credential = |user: &str, token: &str| Credential {
            username: user.into(),
            token: token.into(),
            version: 1,
        };
        let (ann, rotated) = (credential("ann", "pat1"), credential("ann", "pat2"));
        let bert = credential("bert", "pat1");
        let place = |text| Repository::parse(text).unwrap();
        let (here, there) = (place("r.corp.lan/a/b"), place("r.corp.lan/a/c"));
        let elsewhere = place("s.corp.lan/a/b");
        let (blob, other) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let (seals, others) = (Seals::default(), Seals::default());
        let seal = seals.of(Some(&ann), &here, &blob).await.unwrap();
        let sealed = seal.seal(&url, b"7").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
        assert_ne!(seal.seal(&url, b"7").unwrap(), sealed, "each has a nonce of its own");
        let again = others.of(Some(&ann), &here, &blob).await.unwrap();
        assert_eq!(again.open(&sealed, b"7"), Some(url));
        assert_eq!(seal.open(&sealed, b"8"), None);
        for (credential, place, blob) in [
            (Some(&rotated), &here, &blob),
            (Some(&bert), &here, &blob),
            (None, &here, &blob),
            (Some(&ann), &there, &blob),
            (Some(&ann), &elsewhere, &blob),
            (Some(&ann), &here, &other),
        ] {
            let stranger = seals.of(credential, place, blob).await.unwrap();
            assert_eq!(stranger.open(&sealed, b"7"), None);
        }
        seals.0.run_pending_tasks().await;
        assert_eq!(seals.0.entry_count(), 5, "each credential at each registry was derived once");
        let mut garbled = sealed.clone();
        garbled[20] ^= 1;
        assert_eq!(seal.open(&garbled, b"7"), None);
        assert_eq!(seal.open(&sealed[..5], b"7"), None);
    }
}
