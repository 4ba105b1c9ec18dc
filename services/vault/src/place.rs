//! Where a secret is: its path, the mount of the key-value engine and that engine's version, and
//! the namespace around both.

use std::{fmt, str::FromStr};

use colophon_domain::{Failure, Result};
use serde::{Deserialize, Serialize};

use crate::{CredentialRule, VaultConfig};

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

    /// A default of ours, which is a path.
    pub(crate) fn constant(text: &'static str) -> Self {
        Self(text.to_owned())
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

/// The version of a key-value engine. Both are in use, and their paths differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub enum KvVersion {
    /// One value for each path.
    One,
    /// Values with a history, behind `data/`.
    #[default]
    Two,
}

impl TryFrom<u64> for KvVersion {
    type Error = Failure;

    fn try_from(number: u64) -> Result<Self> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(Failure::invalid("kv_version", format!("kv_version is 1 or 2, not {number}"))),
        }
    }
}

impl From<KvVersion> for u64 {
    fn from(version: KvVersion) -> Self {
        match version {
            KvVersion::One => 1,
            KvVersion::Two => 2,
        }
    }
}

/// Where one secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: SecretPath,
    pub(crate) mount: SecretPath,
    pub(crate) kv_version: KvVersion,
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// The place that a rule names; what it leaves open is as in `[vault]`.
    pub(crate) fn new(path: &SecretPath, rule: &CredentialRule, config: &VaultConfig) -> Self {
        Self {
            path: path.clone(),
            mount: rule.mount.as_ref().unwrap_or(&config.mount).clone(),
            kv_version: rule.kv_version.unwrap_or(config.kv_version),
            namespace: rule.namespace.as_ref().or(config.namespace.as_ref()).cloned(),
        }
    }

    /// Whether both are in one mount.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        (&self.mount, &self.namespace) == (&other.mount, &other.namespace)
    }

    /// The path that a policy has to name.
    pub(crate) fn policy_path(&self) -> String {
        let between = match self.kv_version {
            KvVersion::One => "",
            KvVersion::Two => "data/",
        };
        format!("{}/{between}{}", self.mount, self.path)
    }
}

impl fmt::Display for Place {
    /// Reads on after "the secret".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at the mount {} of Vault", self.path, self.mount)?;
        match &self.namespace {
            Some(namespace) => write!(f, ", namespace {namespace}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_rule_says_where_its_secrets_are_and_the_section_says_the_rest() {
        let config: VaultConfig = toml::from_str(
            "address = 'https://v'\nnamespace = 'platform'\nmount = 'kv'\n\
             auth = { method = 'token', token_env = 'T' }",
        )
        .unwrap();
        let place = |rule: &str| {
            let rule: CredentialRule = toml::from_str(rule).unwrap();
            Place::new(rule.push.as_ref().unwrap(), &rule, &config)
        };
        let plain = place("push = 'a/b'");
        assert_eq!(plain.policy_path(), "kv/data/a/b");
        assert_eq!(plain.to_string(), "a/b at the mount kv of Vault, namespace platform");
        let old = place("push = 'a/b'\nmount = 'old'\nkv_version = 1\nnamespace = 'team-a'");
        assert_eq!(old.policy_path(), "old/a/b");
        assert_eq!(old.to_string(), "a/b at the mount old of Vault, namespace team-a");
        assert!(plain.is_beside(&place("push = 'c'")) && !plain.is_beside(&old));
    }

    #[test]
    fn there_is_no_third_version() {
        for text in ["push = 'a'\nkv_version = 3", "push = 'a'\nkv_version = 0"] {
            let error = toml::from_str::<CredentialRule>(text).unwrap_err().to_string();
            assert!(error.contains("kv_version is 1 or 2"), "{error}");
        }
    }
}
