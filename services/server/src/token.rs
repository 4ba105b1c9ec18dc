//! Callers' tokens: 32 random bytes each. With that much randomness there is nothing to guess,
//! so a single SHA-256 keeps them; the slow hashes are for passwords.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use colophon_domain::Entropy;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// What our tokens begin with, so that secret scanners and people recognise them.
pub const TOKEN_PREFIX: &str = "clp_";

/// A new token, and the hexadecimal SHA-256 of it for `token_sha256` of the configuration.
/// Tokens made elsewhere work as well, provided that they hold at least 32 random bytes.
pub fn new_token(entropy: &dyn Entropy) -> (SecretString, String) {
    let token =
        SecretString::from(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(entropy.salt())));
    let hash = hex::encode(token_hash(token.expose_secret()));
    (token, hash)
}

/// The SHA-256 of a token.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use colophon_domain::SystemEntropy;

    use super::*;

    #[test]
    fn a_new_token_is_recognisable_long_and_never_the_same() {
        let (token, hash) = new_token(&SystemEntropy);
        let (other, _) = new_token(&SystemEntropy);
        let text = token.expose_secret();
        assert!(text.starts_with(TOKEN_PREFIX) && text.len() == 4 + 43);
        assert_ne!(text, other.expose_secret());
        assert_eq!(hash, hex::encode(Sha256::digest(text.as_bytes())));
        assert!(!format!("{token:?}").contains(text));
    }
}
