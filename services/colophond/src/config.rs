//! The configuration file (TOML). Each section is the settings type of the floor that it is for;
//! what nobody knows is refused by name, so that a typing error never goes unnoticed.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use colophon_domain::{Failure, RegistryHost, RuleConfig};
use colophon_engine::{QueueLimits, RetentionSettings, UploadLimits, WorkSettings};
use colophon_registry::RegistryConfig;
use colophon_server::{CallerConfig, ConnectionLimits, ServerSettings};
use colophon_store::Store;
use colophon_vault::{CredentialRule, VaultConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::telemetry::TelemetrySection;

/// The whole configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where and how the API is served.
    #[serde(default)]
    pub(crate) server: ServerSection,
    /// The database.
    #[serde(default)]
    pub(crate) database: DatabaseSection,
    /// Where PATs come from; without it every registry is anonymous.
    pub(crate) vault: Option<VaultConfig>,
    /// The registries that releases may name. There is no other.
    #[serde(default, rename = "registry")]
    pub(crate) registries: Vec<RegistrySection>,
    /// Which tags of which repositories are unique, follow versions, and are kept.
    #[serde(default, rename = "repository")]
    pub(crate) repositories: Vec<RuleConfig>,
    /// Who may call, and what they may do.
    #[serde(default, rename = "caller")]
    pub(crate) callers: Vec<CallerConfig>,
    /// How the worker works.
    #[serde(default)]
    pub(crate) worker: WorkSettings,
    /// How long what has ended is kept.
    #[serde(default)]
    pub(crate) retention: RetentionSettings,
    /// What clients may send.
    #[serde(default)]
    pub(crate) upload: UploadLimits,
    /// How this file is read again.
    #[serde(default)]
    pub(crate) reload: ReloadSection,
    /// What is logged, and how.
    #[serde(default)]
    pub(crate) log: LogSection,
    /// Where traces and metrics go.
    #[serde(default)]
    pub(crate) telemetry: TelemetrySection,
    /// The whole text.
    #[serde(skip)]
    pub(crate) source: String,
}

/// Sections that hold from the start of the process to its end.
pub(crate) const FIXED_SECTIONS: &[&str] =
    &["server", "database", "worker", "retention", "upload", "reload", "log", "telemetry"];

/// `[reload]`
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReloadSection {
    /// How often the file is looked at; it is read again when it has changed and stayed so for once
    /// as long. Only SIGHUP reads it again unless given.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub(crate) watch_interval: Option<Duration>,
}

impl ReloadSection {
    /// Refuses a pause in which nothing else would be done.
    pub(crate) fn check(&self) -> colophon_domain::Result<()> {
        if self.watch_interval.is_some_and(|interval| interval < Duration::from_millis(100)) {
            let text = "reload.watch_interval must be at least 100ms";
            return Err(Failure::invalid("reload.watch_interval", text));
        }
        Ok(())
    }
}

/// `[server]`
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSection {
    /// The address to listen on; gRPC and REST share it.
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
    /// A file to which the address is written once it is known (for port 0).
    pub(crate) address_file: Option<PathBuf>,
    /// Limits of calls.
    pub(crate) limits: ServerSettings,
    /// Limits of connections.
    pub(crate) connections: ConnectionLimits,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            address_file: None,
            limits: ServerSettings::default(),
            connections: ConnectionLimits::default(),
        }
    }
}

/// `[database]`
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseSection {
    /// `postgres://user@host:port/database`. An address with a password belongs into
    /// `url_file` or the environment variable `COLOPHON_DATABASE_URL`.
    #[schemars(with = "Option<String>")]
    url: Option<SecretString>,
    /// A file that holds the address.
    url_file: Option<PathBuf>,
    /// Connections at most, of each process.
    pub(crate) max_connections: u32,
    /// See [`Self::ignore_environment`].
    #[serde(skip)]
    without_environment: bool,
}

impl Default for DatabaseSection {
    fn default() -> Self {
        Self { url: None, url_file: None, max_connections: 16, without_environment: false }
    }
}

impl DatabaseSection {
    /// Refuses what is given, if it is wrong. Nothing need be given, and no file is read: where the
    /// file is checked, its secrets may not be.
    pub(crate) fn check(&self) -> colophon_domain::Result<()> {
        if self.max_connections == 0 {
            let text = "database.max_connections must be at least 1";
            return Err(Failure::invalid("database.max_connections", text));
        }
        match (&self.url, &self.url_file) {
            (Some(_), Some(_)) => {
                Err(Failure::invalid("database.url", "url and url_file exclude each other"))
            }
            (Some(url), None) => Store::check_address(url.expose_secret()),
            _ => Ok(()),
        }
    }

    /// From now on the address is the one of the file.
    pub(crate) fn ignore_environment(&mut self) {
        self.without_environment = true;
    }

    /// The address, from wherever it is given.
    pub(crate) fn address(&self) -> Result<SecretString> {
        let named = std::env::var("COLOPHON_DATABASE_URL").ok().filter(|url| !url.is_empty());
        if let Some(url) = named.filter(|_| !self.without_environment) {
            return Ok(url.into());
        }
        match (&self.url, &self.url_file) {
            (Some(_), Some(_)) => bail!("database.url and database.url_file exclude each other"),
            (Some(url), None) => Ok(url.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| {
                    format!("database.url_file {} cannot be read", file.display())
                })?;
                Ok(text.trim_end().to_owned().into())
            }
            (None, None) => {
                bail!("no database: set database.url, database.url_file or COLOPHON_DATABASE_URL")
            }
        }
    }
}

/// `[[registry]]`, with the credentials for it.
pub(crate) struct RegistrySection {
    pub(crate) config: RegistryConfig,
    pub(crate) credentials: Vec<CredentialRule>,
}

impl<'de> Deserialize<'de> for RegistrySection {
    /// By hand, because serde cannot both flatten a part and refuse unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let credentials = match table.remove("credentials") {
            Some(rules) => rules.try_into().map_err(D::Error::custom)?,
            None => Vec::new(),
        };
        let config = table.try_into().map_err(D::Error::custom)?;
        Ok(Self { config, credentials })
    }
}

impl JsonSchema for RegistrySection {
    fn schema_name() -> Cow<'static, str> {
        "RegistrySection".into()
    }

    /// By hand for the same reason.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = RegistryConfig::json_schema(generator);
        let rules = generator.subschema_for::<Vec<CredentialRule>>();
        if let Some(properties) = schema.get_mut("properties").and_then(|it| it.as_object_mut()) {
            properties.insert("credentials".to_owned(), rules.to_value());
        }
        schema
    }
}

/// Which credential serves which repositories, for each registry.
pub(crate) type RulesByHost = HashMap<RegistryHost, Vec<CredentialRule>>;

/// `[log]`
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSection {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
    /// What is logged, in the form of `RUST_LOG`, which goes before it.
    pub(crate) filter: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = Self::text(path)?;
        Self::parse(&text).with_context(|| format!("the configuration {}", path.display()))
    }

    /// The text of a file.
    pub(crate) fn text(path: &Path) -> Result<String> {
        std::fs::read_to_string(path)
            .with_context(|| format!("the configuration {} cannot be read", path.display()))
    }

    /// Those of some sections that are not the same in two texts.
    pub(crate) fn changed<'a>(before: &str, after: &str, sections: &[&'a str]) -> Vec<&'a str> {
        let tables = (before.parse::<toml::Table>(), after.parse::<toml::Table>());
        let (Ok(before), Ok(after)) = tables else { return Vec::new() };
        let changed = |section: &&&str| before.get(**section) != after.get(**section);
        sections.iter().filter(changed).copied().collect()
    }

    /// Reads and checks a text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // toml's message quotes the line; a password in it must not reach a log.
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            anyhow::anyhow!("line {line}: {}", error.message())
        })?;
        config.database.check()?;
        config.worker.check()?;
        config.reload.check()?;
        config.log.check()?;
        config.telemetry.check()?;
        config.retention.check()?;
        config.upload.check()?;
        config.check_rules()?;
        text.clone_into(&mut config.source);
        Ok(config)
    }

    /// How much may wait.
    pub(crate) fn queue_limits(&self) -> QueueLimits {
        let limits = &self.server.limits;
        QueueLimits {
            all: limits.max_waiting_releases,
            per_caller: limits.max_waiting_releases_per_caller,
        }
    }

    /// Tag rules for a registry that is not there hold for nothing: most likely its name is wrong.
    fn check_rules(&self) -> Result<()> {
        for (number, rule) in self.repositories.iter().enumerate() {
            let Some(host) = rule.pattern.registry() else { continue };
            if self.registries.iter().all(|section| section.config.host != host) {
                bail!("repository[{number}].pattern: {}", Self::no_such_registry(&host));
            }
        }
        Ok(())
    }

    /// What is said of a rule for a registry that is not there.
    pub(crate) fn no_such_registry(host: &RegistryHost) -> String {
        format!("there is no [[registry]] with host = \"{host}\"; add it, or correct the pattern")
    }

    /// The registries, and the credential rules of each.
    pub(crate) fn take_registries(&mut self) -> Result<(Vec<RegistryConfig>, RulesByHost)> {
        let mut configs = Vec::new();
        let mut rules = HashMap::new();
        for section in std::mem::take(&mut self.registries) {
            let host = section.config.host.clone();
            if rules.insert(host.clone(), section.credentials).is_some() {
                bail!("the registry {host} is configured twice");
            }
            configs.push(section.config);
        }
        Ok((configs, rules))
    }
}

/// The line that a byte of a text is in.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_refused_by_name_and_line() {
        for (text, word) in [
            ("[server]\nlisten = \"127.0.0.1:0\"\nport = 1", "port"),
            ("[[registry]]\nhost = \"ghcr.io\"\nplainhttp = true", "plainhttp"),
            ("[[registry]]\nhost = \"ghcr.io\"\n[[registry.credentials]]\nrepos = \"*\"", "repos"),
            ("[worker]\nleases = \"1s\"", "leases"),
        ] {
            let error = format!("{:#}", Config::parse(text).err().unwrap());
            assert!(error.contains(word) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn sections_that_hold_until_the_end_are_named_when_they_change() {
        let before = "[server]\nlisten = \"127.0.0.1:1\"\n[log]\nfilter = \"info\"";
        let after = "[server]\nlisten = \"127.0.0.1:2\"\n[log]\nfilter = \"info\"\n[worker]";
        assert_eq!(Config::changed(before, after, FIXED_SECTIONS), ["server", "worker"]);
        assert!(Config::changed(before, before, FIXED_SECTIONS).is_empty());
    }

    #[test]
    fn rules_for_a_registry_that_is_not_there_are_refused() {
        let parse = |pattern: &str| {
            Config::parse(&format!(
                "[[registry]]\nhost = \"ghcr.io\"\n[[repository]]\npattern = \"{pattern}\""
            ))
        };
        assert!(parse("*").is_ok() && parse("ghcr.io/*").is_ok() && parse("ghcr.io/a/b").is_ok());
        let error = format!("{:#}", parse("ghrc.io/acme/*").err().unwrap());
        assert!(error.contains("repository[0].pattern") && error.contains("ghrc.io"), "{error}");
    }

    #[test]
    fn a_password_in_a_wrong_line_is_not_shown() {
        let text = "[database]\nurl = \"postgres://u:hunter2@h/d\"\nurls = 1";
        let error = format!("{:#}", Config::parse(text).err().unwrap());
        assert!(!error.contains("hunter2"), "{error}");
    }
}
