//! Somebody who signs JSON web tokens with a key of its own, made when it is asked for.

use std::time::Duration;

use colophon_domain::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::error::{Result, While as _};

/// An issuer of tokens.
pub struct Issuer {
    name: String,
    key: KeyPair,
}

impl Issuer {
    /// An issuer with a new key; `name` is the claim `iss`.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), key: KeyPair::generate().doing("making a key")? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that its tokens are checked with, in PEM.
    pub fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// A token that is good for `lifetime` from now on, with these claims beside `iss`, `iat`,
    /// `exp` and `jti`.
    pub fn token(&self, lifetime: Duration, claims: Value) -> Result<SecretString> {
        let now = SystemClock.now().unix_timestamp();
        self.token_at(now, now.saturating_add_unsigned(lifetime.as_secs()), claims)
    }

    /// A token that ended this long ago.
    pub fn ended_token(&self, ago: Duration, claims: Value) -> Result<SecretString> {
        let end = SystemClock.now().unix_timestamp().saturating_sub_unsigned(ago.as_secs());
        self.token_at(end.saturating_sub(3600), end, claims)
    }

    fn token_at(&self, from: i64, to: i64, claims: Value) -> Result<SecretString> {
        let mut all = json!({
            "iss": self.name, "iat": from, "exp": to, "jti": SystemEntropy.uuid().to_string(),
        });
        if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
            all.extend(claims);
        }
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &all, &key);
        token.map(SecretString::from).doing("signing a token")
    }

    /// The claims of a token of this issuer that has not ended; `None` for any other text.
    pub fn read(&self, token: &SecretString) -> Option<Value> {
        let key = DecodingKey::from_ec_der(self.key.public_key_raw());
        let mut checks = Validation::new(Algorithm::ES256);
        checks.set_issuer(&[&self.name]);
        checks.validate_aud = false;
        checks.leeway = 0;
        let read = jsonwebtoken::decode::<Value>(token.expose_secret(), &key, &checks);
        read.ok().map(|data| data.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_its_own_tokens_until_they_end() {
        let (one, two) = (Issuer::new("one").unwrap(), Issuer::new("one").unwrap());
        let token = one.token(Duration::from_mins(1), json!({ "sub": "me" })).unwrap();
        assert_eq!(one.read(&token).unwrap()["sub"], "me");
        assert_eq!(two.read(&token), None);
        assert_eq!(one.read(&"x.y.z".to_owned().into()), None);
        let ended = one.ended_token(Duration::from_mins(1), json!({ "sub": "me" })).unwrap();
        assert_eq!(one.read(&ended), None);
    }
}
