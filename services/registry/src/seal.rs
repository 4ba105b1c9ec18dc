//! Seals the URL of an upload that is written down: it may be a signed one, and whoever reads the
//! table must learn nothing from it. The key comes from the credential that the upload is made
//! with, so nothing else has to be kept secret or changed, and an upload of another credential is
//! begun anew. Where there is no credential anybody may begin an upload, and the key says nothing.

use std::num::NonZeroU32;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    pbkdf2,
};
use colophon_domain::{Credential, Digest, Repository};
use secrecy::{ExposeSecret as _, SecretBox};
use url::Url;

/// Keeps these keys apart from whatever else may ever be derived from a credential.
const DOMAIN: &[u8] = b"colophon/registry/v1/flight";
/// Whoever reads the table can try whether a password that he guesses opens a row. A PAT cannot be
/// guessed; for what people choose themselves each guess is made as dear as where passwords are kept
/// (OWASP, "Password Storage Cheat Sheet", PBKDF2-HMAC-SHA256). Once for each large layer.
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");

/// What seals the URLs of one blob's uploads.
pub(crate) struct Seal(RandomizedNonceKey);

impl Seal {
    /// The seal of a blob for whoever has this credential.
    pub(crate) fn new(
        credential: Option<&Credential>,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<Self> {
        let secret = credential.map_or("", |credential| credential.token.expose_secret());
        let user = credential.map_or("", |credential| &credential.username);
        let place = repository.to_string();
        let mut key = SecretBox::new(Box::new([0; 32]));
        // A zero byte stands in none of these, so no two blobs and users have one salt.
        let salt = [DOMAIN, place.as_bytes(), digest.as_str().as_bytes(), user.as_bytes()];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            &salt.join(&0),
            secret.as_bytes(),
            secrecy::ExposeSecretMut::expose_secret_mut(&mut key),
        );
        RandomizedNonceKey::new(&AES_256_GCM, key.expose_secret()).ok().map(Self)
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

    #[test]
    fn only_the_same_credential_opens_what_was_sealed_for_the_same_blob() {
        let url = Url::parse("https://r.corp.lan/v2/a/b/blobs/uploads/1?_state=s3cret").unwrap();
        let credential = |user: &str, token: &str| Credential {
            username: user.into(),
            token: token.into(),
            version: 1,
        };
        let (ann, rotated) = (credential("ann", "pat1"), credential("ann", "pat2"));
        let place = |text| Repository::parse(text).unwrap();
        let (here, there) = (place("r.corp.lan/a/b"), place("r.corp.lan/a/c"));
        let (blob, other) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let of = |credential, place, blob| Seal::new(credential, place, blob).unwrap();
        let seal = of(Some(&ann), &here, &blob);
        let sealed = seal.seal(&url, b"7").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
        assert_ne!(seal.seal(&url, b"7").unwrap(), sealed, "each has a nonce of its own");
        assert_eq!(of(Some(&ann), &here, &blob).open(&sealed, b"7"), Some(url));
        assert_eq!(seal.open(&sealed, b"8"), None);
        for stranger in [
            of(Some(&rotated), &here, &blob),
            of(Some(&credential("bob", "pat1")), &here, &blob),
            of(None, &here, &blob),
            of(Some(&ann), &there, &blob),
            of(Some(&ann), &here, &other),
        ] {
            assert_eq!(stranger.open(&sealed, b"7"), None);
        }
        let mut garbled = sealed.clone();
        garbled[20] ^= 1;
        assert_eq!(seal.open(&garbled, b"7"), None);
        assert_eq!(seal.open(&sealed[..5], b"7"), None);
    }
}
