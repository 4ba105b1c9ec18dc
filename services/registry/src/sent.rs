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

    /// Whether a text repeats one of them.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.expose_secret()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_recognised_and_nothing_else() {
        let credential =
            Credential { username: "ann".into(), token: "ghp_secret".into(), version: 1 };
        let sent = Sent::of(Some(&credential), Some(&"eyJ0".into()));
        for text in ["ghp_secret", "you sent Basic YW5uOmdocF9zZWNyZXQ=.", "Bearer eyJ0!"] {
            assert!(sent.is_in(text), "{text}");
        }
        assert!(!sent.is_in("ann may not push"));
        let empty = Credential { token: SecretString::default(), ..credential };
        assert!(!Sent::of(Some(&empty), None).is_in("anything"));
        assert!(!Sent::default().is_in("anything"));
    }
}
