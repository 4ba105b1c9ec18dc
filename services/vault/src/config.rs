//! The configuration: where Vault is, how to log in, and which secret is for which repository.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use colophon_domain::{Failure, RepositoryPattern, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use crate::{AuthConfig, KvVersion, SecretPath, auth::is_word};

/// A PAT stays in memory at most this long, whatever the configuration says.
const CACHE_LIMIT: Duration = Duration::from_mins(5);

/// The section `[vault]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Scheme, host and port, for example `https://vault.corp.lan:8200`. Plain HTTP is taken on
    /// a loopback address, elsewhere only with `plain_http`.
    #[schemars(with = "String")]
    pub address: Url,
    /// Take plain HTTP on a network too. Whoever listens there reads the PATs.
    #[serde(default)]
    pub plain_http: bool,
    /// A PEM file with the certificate authorities to trust, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that this process shows to Vault, where Vault wants one.
    #[serde(default)]
    pub client_cert_file: Option<PathBuf>,
    /// A PEM file with that certificate's private key.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// The namespace (Vault Enterprise, `OpenBao`) to log in to, and to read from unless a rule
    /// names another one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Where the key-value engine is mounted, unless a rule names another mount.
    #[serde(default = "default_mount")]
    #[schemars(with = "String")]
    pub mount: SecretPath,
    /// The version of that engine, unless a rule names another one.
    #[serde(default)]
    #[schemars(with = "u64")]
    pub kv_version: KvVersion,
    /// How to log in.
    pub auth: AuthConfig,
    /// How long a PAT is kept in memory, at most 5 minutes.
    #[serde(default = "default_cache_ttl", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub pat_cache_ttl: Duration,
    /// How long one request may take, connecting included.
    #[serde(default = "default_request_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// A secret whose PAT was refused is read again at most this often, and a refused Vault
    /// token is replaced at most this often. Who had a PAT refused sooner waits for the next
    /// reading; it may have been replaced since the last one.
    #[serde(default = "default_reread_interval", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub reread_interval: Duration,
}

/// One entry of `[[registry.credentials]]`: which secret is for which repositories of a registry.
/// Of several rules that cover a repository the most specific one holds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialRule {
    /// The repositories, by name within the registry: `team-a/app`, `team-a/*` or `*`.
    #[serde(default = "default_repositories")]
    #[schemars(with = "String")]
    pub repositories: RepositoryPattern,
    /// The secret for reading; where there is only `push`, that one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub pull: Option<SecretPath>,
    /// The secret for writing. Neither means that the repositories are anonymous.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub push: Option<SecretPath>,
    /// The mount that these secrets are in; the one of `[vault]` if it is not given.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub mount: Option<SecretPath>,
    /// The version of the key-value engine there; the one of `[vault]` if it is not given.
    #[serde(default)]
    #[schemars(with = "Option<u64>")]
    pub kv_version: Option<KvVersion>,
    /// The namespace that these secrets are in; the one of `[vault]` if it is not given.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The field of the secret that holds the username.
    #[serde(default = "default_username_field")]
    pub username_field: String,
    /// The field of the secret that holds the PAT.
    #[serde(default = "default_token_field")]
    pub token_field: String,
}

fn default_mount() -> SecretPath {
    SecretPath::constant("secret")
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
        if self.namespace.as_deref().is_some_and(|namespace| !is_word(namespace)) {
            return Err(Failure::invalid("vault.namespace", "the namespace is empty or not ASCII"));
        }
        let (cert, key) = (&self.client_cert_file, &self.client_key_file);
        if let (Some(_), None) | (None, Some(_)) = (cert, key) {
            let missing = if cert.is_none() { "client_cert_file" } else { "client_key_file" };
            return Err(Failure::invalid(
                format!("vault.{missing}"),
                "a client's certificate and its key are given both or not at all",
            ));
        }
        if cert.is_some() && self.address.scheme() != "https" {
            return Err(Failure::invalid(
                "vault.client_cert_file",
                "a client shows its certificate over https only",
            ));
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
        self.auth.validate()
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
        assert_eq!(config.kv_version, KvVersion::Two);
        assert!(matches!(config.auth, AuthConfig::AppRole { .. }));
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
            ("address = 'https://v'\nkv_version = 3", token),
            ("address = 'https://v'\nclient_cert_file = 'c'", token),
            ("address = 'https://v'\nclient_key_file = 'k'", token),
            ("address = 'http://[::1]'\nclient_cert_file = 'c'\nclient_key_file = 'k'", token),
            (https, "[auth]\nmethod = 'token'"),
            (https, "[auth]\nmethod = 'password'"),
        ] {
            assert!(section(head, auth).is_err(), "{head} {auth}");
        }
    }
}
