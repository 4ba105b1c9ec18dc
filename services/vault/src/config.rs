//! The configuration: where Vault is, how to log in, and which secret is for which repository.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use colophon_domain::{Failure, RepositoryPattern, Result};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A PAT stays in memory at most this long, whatever the configuration says.
const CACHE_LIMIT: Duration = Duration::from_mins(5);

/// The section `[vault]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Scheme, host and port, for example `https://vault.corp.lan:8200`. Plain HTTP is taken on
    /// a loopback address, elsewhere only with `plain_http`.
    pub address: Url,
    /// Take plain HTTP on a network too. Whoever listens there reads the PATs.
    #[serde(default)]
    pub plain_http: bool,
    /// A PEM file with the certificate authorities to trust, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The namespace (Vault Enterprise, `OpenBao`).
    #[serde(default)]
    pub namespace: Option<String>,
    /// Where the KV version 2 engine is mounted.
    #[serde(default = "default_mount")]
    pub mount: SecretPath,
    /// How to log in.
    pub auth: AuthConfig,
    /// How long a PAT is kept in memory, at most 5 minutes.
    #[serde(default = "default_cache_ttl", with = "humantime_serde")]
    pub pat_cache_ttl: Duration,
    /// How long one request may take, connecting included.
    #[serde(default = "default_request_timeout", with = "humantime_serde")]
    pub request_timeout: Duration,
    /// A secret whose PAT was refused is read again at most this often, and a refused Vault
    /// token is replaced at most this often. Who had a PAT refused sooner waits for the next
    /// reading; it may have been replaced since the last one.
    #[serde(default = "default_reread_interval", with = "humantime_serde")]
    pub reread_interval: Duration,
}

/// The section `[vault.auth]`.
#[derive(Debug, Clone, Deserialize)]
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
        mount: SecretPath,
        /// The role's id; not a secret.
        role_id: String,
        /// A file with the secret id in one line, read again at every login.
        secret_id_file: PathBuf,
    },
}

/// One entry of `[[registry.credentials]]`: which secret is for which repositories of a registry.
/// Of several rules that cover a repository the most specific one holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialRule {
    /// The repositories, by name within the registry: `team-a/app`, `team-a/*` or `*`.
    #[serde(default = "default_repositories")]
    pub repositories: RepositoryPattern,
    /// The secret for reading; where there is only `push`, that one.
    #[serde(default)]
    pub pull: Option<SecretPath>,
    /// The secret for writing. Neither means that the repositories are anonymous.
    #[serde(default)]
    pub push: Option<SecretPath>,
    /// The field of the secret that holds the username.
    #[serde(default = "default_username_field")]
    pub username_field: String,
    /// The field of the secret that holds the PAT.
    #[serde(default = "default_token_field")]
    pub token_field: String,
}

/// A path in Vault: words of letters, digits and `. _ ~ @ + = : , -` between slashes. The path of
/// a secret is below the mount and without `data/`, as in `vault kv get`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretPath(String);

impl SecretPath {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretPath {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        // Nothing that a URL would read as something else than a part of its path.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@+=:,-".contains(&byte);
        let word =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(known);
        if text.len() <= 512 && text.split('/').all(word) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(Failure::invalid("path", format!("{shown:?} is not a path in Vault"))
            .remedy("give words between slashes, without one at either end: registries/ghcr"))
    }
}

impl TryFrom<String> for SecretPath {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SecretPath> for String {
    fn from(path: SecretPath) -> Self {
        path.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn default_mount() -> SecretPath {
    SecretPath("secret".to_owned())
}

fn default_approle_mount() -> SecretPath {
    SecretPath("approle".to_owned())
}

fn default_cache_ttl() -> Duration {
    Duration::from_mins(1)
}

fn default_request_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_reread_interval() -> Duration {
    Duration::from_secs(5)
}

#[expect(clippy::expect_used, reason = "a constant that a test parses")]
fn default_repositories() -> RepositoryPattern {
    "*".parse().expect("* is a pattern")
}

fn default_username_field() -> String {
    "username".to_owned()
}

fn default_token_field() -> String {
    "token".to_owned()
}

impl VaultConfig {
    /// Checks what the types cannot say. Nothing is read or connected to.
    pub fn validate(&self) -> Result<()> {
        self.check_address()?;
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.namespace.as_deref().is_some_and(|namespace| !word(namespace)) {
            return Err(Failure::invalid("vault.namespace", "the namespace is empty or not ASCII"));
        }
        if self.pat_cache_ttl.is_zero() || self.pat_cache_ttl > CACHE_LIMIT {
            return Err(Failure::invalid(
                "vault.pat_cache_ttl",
                "a PAT is kept in memory for more than 0 and at most 5 minutes",
            ));
        }
        if self.request_timeout.is_zero() {
            return Err(Failure::invalid("vault.request_timeout", "a request takes some time"));
        }
        match &self.auth {
            AuthConfig::Token { token_file, token_env } => {
                if token_file.is_some() == token_env.is_some() {
                    return Err(Failure::invalid(
                        "vault.auth",
                        "the method `token` needs exactly one of token_file and token_env",
                    ));
                }
            }
            AuthConfig::AppRole { role_id, .. } => {
                if !word(role_id) {
                    return Err(Failure::invalid("vault.auth.role_id", "there is no role id"));
                }
            }
        }
        Ok(())
    }

    fn check_address(&self) -> Result<()> {
        let wrong = |message: String| Err(Failure::invalid("vault.address", message));
        let address = &self.address;
        if !address.username().is_empty() || address.password().is_some() {
            return wrong("the address of Vault holds a username or a password".to_owned());
        }
        if address.path() != "/" || address.query().is_some() || address.fragment().is_some() {
            return wrong(format!("{address} is more than scheme, host and port"));
        }
        match (address.scheme(), address.host()) {
            ("https", Some(_)) => Ok(()),
            ("http", Some(_)) if self.plain_http || self.is_loopback() => Ok(()),
            ("http", Some(_)) => Err(Failure::invalid(
                "vault.address",
                format!("{address} would send the PATs unencrypted over the network"),
            )
            .remedy("use https, or state vault.plain_http = true if that is meant")),
            _ => wrong(format!("{address} is not an http or https URL with a host")),
        }
    }

    /// Whether the address cannot leave this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.address.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            None => false,
        }
    }

    /// The address as it stands in messages.
    pub(crate) fn shown_address(&self) -> String {
        self.address.as_str().trim_end_matches('/').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VaultConfig, String> {
        let config: VaultConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.validate().map_err(|failure| failure.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_short_section_gets_the_defaults() {
        let config = parse(
            "address = 'https://vault.corp.lan:8200'\n\
             [auth]\nmethod = 'approle'\nrole_id = 'r'\nsecret_id_file = '/run/secret-id'",
        )
        .unwrap();
        assert_eq!(config.mount.as_str(), "secret");
        assert_eq!(config.pat_cache_ttl, Duration::from_mins(1));
        assert_eq!(config.request_timeout, Duration::from_secs(5));
        assert!(
            matches!(config.auth, AuthConfig::AppRole { mount, .. } if mount.as_str() == "approle")
        );
    }

    #[test]
    fn a_rule_covers_everything_unless_it_says_otherwise() {
        let rule: CredentialRule = toml::from_str("push = 'registries/ghcr'").unwrap();
        assert!(rule.repositories.covers_name("acme/app") && rule.pull.is_none());
        assert_eq!(
            (rule.username_field.as_str(), rule.token_field.as_str()),
            ("username", "token")
        );
        assert!(toml::from_str::<CredentialRule>("psuh = 'x'").is_err());
    }

    #[test]
    fn a_dangerous_or_unclear_section_is_refused() {
        let token = "[auth]\nmethod = 'token'\ntoken_file = '/run/token'";
        let section = |head: &str, auth: &str| parse(&format!("{head}\n{auth}"));
        let https = "address = 'https://v:8200'";
        assert!(section(https, token).is_ok());
        for address in ["http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200"] {
            assert!(section(&format!("address = '{address}'"), token).is_ok(), "{address}");
        }
        assert!(section("address = 'http://v:8200'\nplain_http = true", token).is_ok());
        for (head, auth) in [
            ("address = 'http://v:8200'", token),
            ("address = 'ftp://v:8200'", token),
            ("address = 'v:8200'", token),
            ("address = 'https://u:p@v:8200'", token),
            ("address = 'https://v:8200/vault'", token),
            ("address = 'https://v:8200?x=1'", token),
            ("address = 'https://v'\npat_cache_ttl = '6m'", token),
            ("address = 'https://v'\npat_cache_ttl = '0s'", token),
            ("address = 'https://v'\nrequest_timeout = '0s'", token),
            ("address = 'https://v'\nnamespace = \"a\\nb\"", token),
            ("address = 'https://v'\nmount = '/secret/'", token),
            ("address = 'https://v'\ntypo = 1", token),
            (https, "[auth]\nmethod = 'token'"),
            (https, "[auth]\nmethod = 'token'\ntoken_env = 'A'\ntoken_file = 'b'"),
            (https, "[auth]\nmethod = 'token'\ntoken = 'a'"),
            (https, "[auth]\nmethod = 'approle'\nrole_id = ''\nsecret_id_file = 'b'"),
            (https, "[auth]\nmethod = 'password'"),
        ] {
            assert!(section(head, auth).is_err(), "{head} {auth}");
        }
    }

    #[test]
    fn a_path_is_words_between_slashes() {
        for text in ["a", "registries/ghcr.io/team-a", "a_b/c@d"] {
            assert!(text.parse::<SecretPath>().is_ok(), "{text}");
        }
        for text in
            ["", "/a", "a/", "a//b", "a/../b", "a?b", "a#b", "a%2fb", "a b", "a\nb", "\u{e9}"]
        {
            assert!(text.parse::<SecretPath>().is_err(), "{text}");
        }
    }
}
