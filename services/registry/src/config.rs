//! The settings of one registry: where it is, how far its certificate is trusted and where its
//! PATs may go. Contradictory settings are refused at the start, by the name of the field.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use colophon_domain::{Failure, RegistryHost, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

/// Requests to one registry at the same time, unless configured.
const DEFAULT_CONNECTIONS: usize = 24;
/// One for manifests and checks, one for downloads and one for uploads.
const LEAST_CONNECTIONS: usize = 3;
/// Limits that may be configured.
const PER_SECOND: RangeInclusive<f64> = 0.1..=10_000.0;

/// The pieces of large blobs, unless configured: little enough to be sent twice, of a blob that is
/// large, and so much that the requests in between cost nothing.
const DEFAULT_CHUNK: u64 = 64 << 20;
const CHUNKS: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;

/// Realms that well-known registries name in their challenges although they are other hosts.
/// GHCR and Quay give out their tokens themselves.
const REALM_PRESETS: &[(&str, &str)] =
    &[("docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// One registry, as `[[registry]]` in the configuration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// The registry as it stands in references, with its port if it has one.
    #[schemars(with = "String")]
    pub host: RegistryHost,
    /// `host[:port]` that is really contacted; `host` unless given, and
    /// `registry-1.docker.io` for `docker.io`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The registry speaks HTTP without TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// A PEM file with the certificates of CAs that are trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the one certificate (DER) that the registry may show; colons and upper case
    /// are understood. This is how a self-signed certificate is trusted.
    #[serde(default)]
    pub cert_sha256: Option<String>,
    /// Any certificate is accepted: whoever is on the way can read the PAT.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// Hosts (`host[:port]`) beside the registry's own that may be named as token realms, and
    /// so receive the PAT. Docker Hub's and GitLab's are built in.
    #[serde(default)]
    pub token_realms: Vec<String>,
    /// Hosts (`host[:port]`) with private addresses that the registry may redirect downloads
    /// to or name as the place of an upload. They receive no credential.
    #[serde(default)]
    pub storage_hosts: Vec<String>,
    /// Requests at the same time, at least 3; a third each is for manifests and checks,
    /// downloads and uploads. 24 unless given.
    #[serde(default)]
    pub max_connections: Option<usize>,
    /// Requests in a second that the registry allows, of all processes together, from 0.1 to 10000;
    /// without it, what the registry says or shows by refusing.
    #[serde(default)]
    pub max_requests_per_second: Option<f64>,
    /// A blob of more than four times these bytes is sent in pieces of this size, of which each that
    /// has arrived stays, whatever becomes of the worker. From 64 KiB to 4 GiB; 64 MiB unless given.
    #[serde(default = "chunk_bytes")]
    pub chunk_bytes: u64,
    /// For a connection to be opened.
    #[serde(default = "connect_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// For a request without a blob, from sending it to the last byte of the answer.
    #[serde(default = "request_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// For the next bytes of a blob, in either direction.
    #[serde(default = "idle_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// For the registry to answer after the last byte of a blob; it may move it to its storage.
    #[serde(default = "commit_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub commit_timeout: Duration,
}

fn chunk_bytes() -> u64 {
    DEFAULT_CHUNK
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

fn request_timeout() -> Duration {
    Duration::from_secs(30)
}

fn idle_timeout() -> Duration {
    Duration::from_mins(1)
}

fn commit_timeout() -> Duration {
    Duration::from_mins(10)
}

impl RegistryConfig {
    /// The defaults for a registry.
    pub fn new(host: RegistryHost) -> Self {
        Self {
            host,
            endpoint: None,
            plain_http: false,
            ca_file: None,
            cert_sha256: None,
            insecure_skip_verify: false,
            token_realms: Vec::new(),
            storage_hosts: Vec::new(),
            max_connections: None,
            max_requests_per_second: None,
            chunk_bytes: chunk_bytes(),
            connect_timeout: connect_timeout(),
            request_timeout: request_timeout(),
            idle_timeout: idle_timeout(),
            commit_timeout: commit_timeout(),
        }
    }

    /// Refuses settings that contradict each other.
    pub(crate) fn check(&self) -> Result<Checked> {
        self.check_trust()?;
        for (field, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("idle_timeout", self.idle_timeout),
            ("commit_timeout", self.commit_timeout),
        ] {
            if timeout.is_zero() {
                return Err(self.wrong(field, "must be longer than nothing"));
            }
        }
        let connections = self.max_connections.unwrap_or(DEFAULT_CONNECTIONS);
        if !(LEAST_CONNECTIONS..=1024).contains(&connections) {
            return Err(self.wrong("max_connections", "must be from 3 to 1024"));
        }
        if self.max_requests_per_second.is_some_and(|limit| !PER_SECOND.contains(&limit)) {
            return Err(self.wrong("max_requests_per_second", "must be from 0.1 to 10000"));
        }
        if !CHUNKS.contains(&self.chunk_bytes) {
            return Err(
                self.wrong("chunk_bytes", "must be from 65536 (64 KiB) to 4294967296 (4 GiB)")
            );
        }
        let mut realms = self.authorities("token_realms", &self.token_realms)?;
        for (registry, realm) in REALM_PRESETS {
            if self.host.as_str() == *registry {
                realms.extend(Authority::parse(realm));
            }
        }
        Ok(Checked {
            base: self.base()?,
            pin: self.pin()?,
            realms,
            storage: self.authorities("storage_hosts", &self.storage_hosts)?,
            connections,
            per_second: self.max_requests_per_second,
        })
    }

    fn check_trust(&self) -> Result<()> {
        let set = [
            ("plain_http", self.plain_http),
            ("insecure_skip_verify", self.insecure_skip_verify),
            ("cert_sha256", self.cert_sha256.is_some()),
            ("ca_file", self.ca_file.is_some()),
        ];
        let mut set = set.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
        match (set.next(), set.next()) {
            (Some(first), Some(second)) => Err(self
                .wrong(second, &format!("contradicts {first}"))
                .remedy(format!("keep one of {first} and {second}"))),
            _ => Ok(()),
        }
    }

    fn base(&self) -> Result<Url> {
        let host = self.host.as_str();
        let endpoint = match (&self.endpoint, host) {
            (Some(endpoint), _) => endpoint,
            (None, "docker.io") => "registry-1.docker.io",
            (None, host) => host,
        };
        let scheme = if self.plain_http { "http" } else { "https" };
        Authority::parse(endpoint)
            .and_then(|_| Url::parse(&format!("{scheme}://{endpoint}/")).ok())
            .ok_or_else(|| self.wrong("endpoint", "must be host[:port], without scheme or path"))
    }

    fn pin(&self) -> Result<Option<[u8; 32]>> {
        let Some(text) = &self.cert_sha256 else { return Ok(None) };
        let plain = text.replace(':', "").to_ascii_lowercase();
        let plain = plain.strip_prefix("sha256").unwrap_or(&plain);
        let mut pin = [0_u8; 32];
        match hex::decode_to_slice(plain, &mut pin) {
            Ok(()) => Ok(Some(pin)),
            Err(_) => Err(self.wrong("cert_sha256", "must be 64 hexadecimal characters")),
        }
    }

    fn authorities(&self, field: &str, texts: &[String]) -> Result<Vec<Authority>> {
        let parse = |text: &String| {
            Authority::parse(text)
                .ok_or_else(|| self.wrong(field, "must be host[:port], without scheme or path"))
        };
        texts.iter().map(parse).collect()
    }

    /// A failure that names the field of this registry.
    pub(crate) fn wrong(&self, field: &str, what: &str) -> Failure {
        Failure::invalid(
            format!("registry.{field}"),
            format!("{field} of the registry {} {what}", self.host),
        )
    }
}

/// What the settings mean, once they are known to be sound.
pub(crate) struct Checked {
    pub base: Url,
    pub pin: Option<[u8; 32]>,
    pub realms: Vec<Authority>,
    pub storage: Vec<Authority>,
    pub connections: usize,
    pub per_second: Option<f64>,
}

/// `host[:port]` of the configuration; without a port it means the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.contains(['/', '?', '#', '@', '\\', ' ']) {
            return None;
        }
        // The port is read from the text: the parser drops one that is the scheme's own.
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        let after_host = text.rsplit_once(']').map_or(text, |(_, rest)| rest);
        let port = match after_host.rsplit_once(':') {
            Some((_, port)) => Some(port.parse().ok()?),
            None => None,
        };
        Some(Self { host: url.host_str()?.to_owned(), port })
    }

    /// Whether the URL leads there.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let standard = if url.scheme() == "http" { 80 } else { 443 };
        url.host_str() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port.unwrap_or(standard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RegistryConfig, toml::de::Error> {
        toml::from_str(text)
    }

    fn refused_field(text: &str) -> String {
        let failure = parsed(text).unwrap().check().err().unwrap();
        failure.field_name().unwrap().to_owned()
    }

    #[test]
    fn the_defaults_suffice_and_docker_hub_has_its_endpoint() {
        let hub = parsed("host = 'docker.io'").unwrap().check().unwrap();
        assert_eq!(hub.base.as_str(), "https://registry-1.docker.io/");
        let realm = Url::parse("https://auth.docker.io/token").unwrap();
        assert!(hub.realms.iter().any(|known| known.covers(&realm)));
        let own = parsed("host = 'r.corp.lan:5000'\nplain_http = true\nidle_timeout = '5s'");
        let own = own.unwrap();
        assert_eq!(own.idle_timeout, Duration::from_secs(5));
        assert_eq!(own.check().unwrap().base.as_str(), "http://r.corp.lan:5000/");
        assert!(parsed("host = 'r.corp.lan'\nplain_htpp = true").is_err());
    }

    #[test]
    fn contradictions_are_refused_by_the_field() {
        let host = "host = 'r.corp.lan'\n";
        let pin = format!("cert_sha256 = '{}'\n", "AB:".repeat(31) + "AB");
        let cases = [
            ("plain_http = true\nca_file = '/ca.pem'".to_owned(), "registry.ca_file"),
            ("insecure_skip_verify = true\n".to_owned() + &pin, "registry.cert_sha256"),
            ("ca_file = '/ca.pem'\n".to_owned() + &pin, "registry.ca_file"),
            (
                "plain_http = true\ninsecure_skip_verify = true".into(),
                "registry.insecure_skip_verify",
            ),
            ("cert_sha256 = 'abc'".into(), "registry.cert_sha256"),
            ("endpoint = 'https://x'".into(), "registry.endpoint"),
            ("token_realms = ['a/b']".into(), "registry.token_realms"),
            ("max_connections = 2".into(), "registry.max_connections"),
            ("request_timeout = '0s'".into(), "registry.request_timeout"),
            ("max_requests_per_second = 0".into(), "registry.max_requests_per_second"),
            ("max_requests_per_second = nan".into(), "registry.max_requests_per_second"),
            ("max_requests_per_second = 1e9".into(), "registry.max_requests_per_second"),
            ("chunk_bytes = 65535".into(), "registry.chunk_bytes"),
        ];
        for (text, field) in cases {
            assert_eq!(refused_field(&format!("{host}{text}")), field, "{text}");
        }
        assert!(parsed(&format!("{host}{pin}")).unwrap().check().unwrap().pin.is_some());
    }

    #[test]
    fn an_authority_without_a_port_means_the_standard_one() {
        let realm = Authority::parse("auth.corp.lan").unwrap();
        let covers = |url: &str| realm.covers(&Url::parse(url).unwrap());
        assert!(covers("https://auth.corp.lan/token") && covers("http://auth.corp.lan:80/"));
        assert!(!covers("https://auth.corp.lan:8443/") && !covers("https://corp.lan/"));
        let odd = Authority::parse("[::1]:5000").unwrap();
        assert!(odd.covers(&Url::parse("http://[::1]:5000/v2/").unwrap()));
    }
}
