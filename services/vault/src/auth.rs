//! The section `[vault.auth]`: the ways to log in, and what each of them needs.

use std::path::PathBuf;

use colophon_domain::{Failure, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::SecretPath;

/// The section `[vault.auth]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum AuthConfig {
    /// A token that something else provides. Exactly one of the two is given.
    Token {
        /// A file with the token in one line, read again at every login.
        #[serde(default)]
        token_file: Option<PathBuf>,
        /// The name of an environment variable with the token.
        #[serde(default)]
        token_env: Option<String>,
    },
    /// The `AppRole` method.
    AppRole {
        /// Where the method is mounted.
        #[serde(default = "default_approle_mount")]
        #[schemars(with = "String")]
        mount: SecretPath,
        /// The role's id; not a secret.
        role_id: String,
        /// A file with the secret id in one line, read again at every login.
        secret_id_file: PathBuf,
    },
    /// The Kubernetes method: the token of a service account, which Vault has reviewed by the API
    /// of the cluster.
    Kubernetes {
        /// Where the method is mounted.
        #[serde(default = "default_kubernetes_mount")]
        #[schemars(with = "String")]
        mount: SecretPath,
        /// The role's name.
        role: String,
        /// A file with the token in one line, read again at every login: the kubelet replaces it.
        #[serde(default = "default_kubernetes_token")]
        token_file: PathBuf,
        /// Send only tokens that are for this audience.
        #[serde(default)]
        audience: Option<String>,
    },
    /// The JWT/OIDC method: a token that an issuer has signed whose keys Vault knows.
    Jwt {
        /// Where the method is mounted.
        #[serde(default = "default_jwt_mount")]
        #[schemars(with = "String")]
        mount: SecretPath,
        /// The role's name.
        role: String,
        /// A file with the token in one line, read again at every login.
        token_file: PathBuf,
        /// Send only tokens that are for this audience.
        #[serde(default)]
        audience: Option<String>,
    },
}

impl AuthConfig {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |field: &'static str, message: &'static str| {
            Err(Failure::invalid(field, message.to_owned()))
        };
        match self {
            Self::Token { token_file, token_env } => {
                let named = token_env.as_deref().is_none_or(|name| !name.is_empty());
                if token_file.is_some() == token_env.is_some() || !named {
                    return wrong(
                        "vault.auth",
                        "the method `token` needs exactly one of token_file and token_env",
                    );
                }
            }
            Self::AppRole { role_id, .. } => {
                if !is_word(role_id) {
                    return wrong("vault.auth.role_id", "there is no role id");
                }
            }
            Self::Kubernetes { role, audience, .. } | Self::Jwt { role, audience, .. } => {
                if !is_word(role) {
                    return wrong("vault.auth.role", "there is no name of a role");
                }
                if audience.as_deref().is_some_and(|audience| !is_word(audience)) {
                    return wrong("vault.auth.audience", "the audience is empty or not ASCII");
                }
            }
        }
        Ok(())
    }
}

/// Whether a text is one word that can stand anywhere: visible ASCII only.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn default_approle_mount() -> SecretPath {
    SecretPath::constant("approle")
}

fn default_kubernetes_mount() -> SecretPath {
    SecretPath::constant("kubernetes")
}

fn default_jwt_mount() -> SecretPath {
    SecretPath::constant("jwt")
}

fn default_kubernetes_token() -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AuthConfig, String> {
        let auth: AuthConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        auth.validate().map_err(|failure| failure.field_name().unwrap_or_default().to_owned())?;
        Ok(auth)
    }

    #[test]
    fn a_short_section_gets_the_defaults() {
        let auth = parse("method = 'kubernetes'\nrole = 'colophon'").unwrap();
        assert!(matches!(
            auth,
            AuthConfig::Kubernetes { mount, token_file, audience: None, .. }
                if mount.as_str() == "kubernetes"
                    && token_file.starts_with("/var/run/secrets/kubernetes.io/serviceaccount")
        ));
        let auth = parse("method = 'jwt'\nrole = 'colophon'\ntoken_file = '/run/jwt'").unwrap();
        assert!(matches!(auth, AuthConfig::Jwt { mount, .. } if mount.as_str() == "jwt"));
        let auth = parse("method = 'approle'\nrole_id = 'r'\nsecret_id_file = '/run/s'").unwrap();
        assert!(matches!(auth, AuthConfig::AppRole { mount, .. } if mount.as_str() == "approle"));
    }

    #[test]
    fn what_is_missing_or_unclear_is_refused_by_its_key() {
        for (text, key) in [
            ("method = 'token'", "vault.auth"),
            ("method = 'token'\ntoken_env = 'A'\ntoken_file = 'b'", "vault.auth"),
            ("method = 'token'\ntoken_env = ''", "vault.auth"),
            ("method = 'token'\ntoken = 'a'", "token"),
            ("method = 'approle'\nrole_id = ''\nsecret_id_file = 'b'", "vault.auth.role_id"),
            ("method = 'approle'\nrole_id = 'r'", "secret_id_file"),
            ("method = 'kubernetes'", "role"),
            ("method = 'kubernetes'\nrole = ''", "vault.auth.role"),
            ("method = 'kubernetes'\nrole = 'a b'", "vault.auth.role"),
            ("method = 'kubernetes'\nrole = 'r'\naudience = ''", "vault.auth.audience"),
            ("method = 'kubernetes'\nrole = 'r'\nmount = '/k8s'", "/k8s"),
            ("method = 'jwt'\nrole = 'r'", "token_file"),
            ("method = 'jwt'\ntoken_file = 'r'", "role"),
            ("method = 'jwt'\nrole = 'r'\ntoken_file = 't'\njwt = 'j'", "jwt"),
            ("method = 'oidc'\nrole = 'r'", "oidc"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(key), "{text}: {said}");
        }
    }
}
