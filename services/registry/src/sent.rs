//! What a request showed of who asks. It is kept beside the answer, because careless registries
//! repeat it in their refusals, which must then not be shown.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colophon_domain::Credential;
use secrecy::{ExposeSecret as _, SecretString};

/// The secrets that a request carried, in every form in which it did.
#[derive(Clone, Default)]
pub(crate) struct Sent(Vec<SecretString>);

impl Sent {
    /// Those of a credential (the PAT, and the pair of Basic) and of a bearer token.
    pub(crate) fn of(credential: Option<&Credential>, token: Option<&SecretString>) -> Self {
        let mut secrets: Vec<SecretString> = token.into_iter().cloned().collect();
        if let Some(Credential { username, token, .. }) = credential {
            let pair = SecretString::from(format!("{username}:{}", token.expose_secret()));
            secrets.push(STANDARD.encode(pair.expose_secret()).into());
            secrets.push(token.clone());
        }
        secrets.retain(|secret| !secret.expose_secret().is_empty());
        Self(secrets)
    }

    /// Whether a text repeats one of them, also escaped as in URLs or JSON, or in another case,
    /// as in the names of hosts.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let (plain, unescaped) = (text.to_lowercase(), unescaped(text).to_lowercase());
        self.0.iter().any(|secret| {
            let secret = SecretString::from(secret.expose_secret().to_lowercase());
            let secret = secret.expose_secret();
            plain.contains(secret) || unescaped.contains(secret)
        })
    }
}

/// Resolves `%2F`, `\u002f` and `\/`; whatever is none of them stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (length, skip) = match (first, after) {
            (b'%', _) => (2, 0),
            (b'\\', [b'u', ..]) => (4, 1),
            _ => (0, 0),
        };
        let digits = after.get(skip..skip + length).filter(|digits| !digits.is_empty());
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        rest = match code.map(|code| (code, u8::try_from(code), char::from_u32(code))) {
            // A percent sign stands for a byte, which may be a part of a character.
            Some((_, Ok(byte), _)) => {
                bytes.push(byte);
                after.get(skip + length..).unwrap_or_default()
            }
            Some((_, _, Some(letter))) => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                after.get(skip + length..).unwrap_or_default()
            }
            _ => {
                if *first != b'\\' {
                    bytes.push(*first);
                }
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_recognised_and_nothing_else() {
        let credential =
            Credential { username: "ann".into(), token: "ghp_secret".into(), version: 1 };
        let sent = Sent::of(Some(&credential), Some(&"eyJ0".into()));
        for text in [
            "ghp_secret",
            "you sent Basic YW5uOmdocF9zZWNyZXQ=.",
            "Bearer eyJ0!",
            "Basic+YW5uOmdocF9zZWNyZXQ%3d",
            "gh%70_secret",
            r"YW5uOmdocF9zZWNyZXQ\u003d",
            r"gh\p_secret",
            "https://GHP_SECRET.invalid/",
        ] {
            assert!(sent.is_in(text), "{text}");
        }
        for text in ["ann may not push", "100%", "%zz%", r"\", r"\u12", ""] {
            assert!(!sent.is_in(text), "{text}");
        }
        let empty = Credential { token: SecretString::default(), ..credential };
        assert!(!Sent::of(Some(&empty), None).is_in("anything"));
        assert!(!Sent::default().is_in("anything"));
    }
}
