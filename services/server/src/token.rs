//! Callers' tokens: 32 random bytes each. With that much randomness there is nothing to guess,
//! so a single SHA-256 keeps them; the slow hashes are for passwords.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use colophon_domain::{Failure, Reason, Result};
use secrecy::{SecretString, zeroize::Zeroizing};
use sha2::{Digest as _, Sha256};

/// What our tokens begin with, so that secret scanners and people recognise them.
pub const TOKEN_PREFIX: &str = "clp_";

/// A new token, and the hexadecimal SHA-256 of it for `token_sha256` of the configuration.
/// Tokens made elsewhere work as well, provided that they hold at least 32 random bytes.
///
/// # Errors
/// `INTERNAL` if the operating system gives no randomness.
pub fn new_token() -> Result<(SecretString, String)> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| {
        Failure::new(Reason::Internal, "the operating system gives no randomness")
            .caused_by(error.to_string())
    })?;
    let text = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes));
    let hash = hex::encode(token_hash(&text));
    Ok((SecretString::from(text), hash))
}

/// The SHA-256 of a token.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_new_token_is_recognisable_long_and_never_the_same() {
        let (token, hash) = new_token().unwrap();
        let (other, _) = new_token().unwrap();
        let text = token.expose_secret();
        assert!(text.starts_with(TOKEN_PREFIX) && text.len() == 4 + 43);
        assert_ne!(text, other.expose_secret());
        assert_eq!(hash, hex::encode(Sha256::digest(text.as_bytes())));
        assert!(!format!("{token:?}").contains(text));
    }
}
