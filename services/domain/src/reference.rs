//! References (OCI distribution-spec, "Pulling manifests"; Docker's normalisation of short
//! names): `host[:port]/name[:tag][@digest]`. Parsed once at the border, valid ever after.

use std::{fmt, str::FromStr};

use oci_spec::distribution::Reference as SpecReference;
use serde::{Deserialize, Serialize};

use crate::{Digest, Failure, Reason, digest::shown};

/// A repository's name may have this many characters (distribution-spec implementations agree on 255).
const NAME_LIMIT: usize = 255;

/// A registry as it stands in references: a host with an optional port, lower case.
/// `docker.io` stands for Docker Hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistryHost {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let lower = text.to_ascii_lowercase();
        // A host is valid exactly if a repository in it is, and is read back as the host.
        let parsed = Repository::parse(&format!("{lower}/a/b"));
        match parsed {
            Ok(repository) if repository.registry.0 == lower || lower == "index.docker.io" => {
                Ok(repository.registry)
            }
            _ => Err(Failure::new(
                Reason::InvalidReference,
                format!("{:?} is not a registry", shown(text)),
            )
            .remedy("give a host name with an optional port, for example ghcr.io or registry.corp.lan:5000")),
        }
    }
}

/// A registry and the name of a repository in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    registry: RegistryHost,
    name: String,
}

impl Repository {
    /// Parses `host[:port]/name`; a short name gets Docker Hub's `docker.io/` and `library/`.
    /// A tag or a digest behind it is refused.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let parsed = parse_spec(text, "repository")?;
        if has_tag(text) || parsed.digest().is_some() {
            return Err(Failure::new(
                Reason::InvalidReference,
                format!("{:?} names a tag or digest where a repository is expected", shown(text)),
            )
            .remedy("give host/name only, and the tags in their own fields"));
        }
        Self::from_spec(&parsed, text)
    }

    fn from_spec(parsed: &SpecReference, text: &str) -> Result<Self, Failure> {
        if parsed.repository().len() > NAME_LIMIT {
            return Err(malformed(text, "repository"));
        }
        let host = parsed.registry().to_ascii_lowercase();
        let host = match host.as_str() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            _ => host,
        };
        let port = host.rsplit_once(':').map(|(_, port)| port);
        if host.len() > NAME_LIMIT || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(malformed(text, "registry"));
        }
        Ok(Self { registry: RegistryHost(host), name: parsed.repository().to_owned() })
    }

    /// Puts a repository together from parts that were valid before, for example database columns.
    pub fn from_parts(registry: &str, name: &str) -> Result<Self, Failure> {
        Self::parse(&format!("{registry}/{name}"))
    }

    /// The registry.
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// The name within the registry, without the host.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry.0, self.name)
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let valid = text.len() <= 128
            && bytes.next().is_some_and(word)
            && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::new(Reason::InvalidReference, format!("{:?} is not a tag", shown(text))).remedy(
            "a tag has 1 to 128 letters, digits, '_', '.' or '-' and starts with none of the last two",
        ))
    }
}

/// What stands behind the repository's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TagOrDigest {
    /// A tag, which may move.
    Tag(Tag),
    /// A digest, which cannot.
    Digest(Digest),
}

impl TagOrDigest {
    /// The text form, as it stands in a registry's URL.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A repository and one tag or digest in it. Where both were given the digest holds, and the
/// tag is dropped (Docker does the same).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// The repository.
    pub repository: Repository,
    /// The tag or digest.
    pub target: TagOrDigest,
}

impl Reference {
    /// A reference by tag.
    pub fn tag(repository: Repository, tag: Tag) -> Self {
        Self { repository, target: TagOrDigest::Tag(tag) }
    }

    /// A reference by digest.
    pub fn digest(repository: Repository, digest: Digest) -> Self {
        Self { repository, target: TagOrDigest::Digest(digest) }
    }
}

impl FromStr for Reference {
    type Err = Failure;

    /// Parses `host/name:tag` or `host/name@digest`. There is no silent `latest`: a release
    /// names what it publishes.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let parsed = parse_spec(text, "reference")?;
        let repository = Repository::from_spec(&parsed, text)?;
        if let Some(digest) = parsed.digest() {
            return Ok(Self::digest(repository, digest.parse()?));
        }
        match parsed.tag() {
            Some(tag) if has_tag(text) => Ok(Self::tag(repository, tag.parse()?)),
            _ => Err(Failure::new(
                Reason::InvalidReference,
                format!("{:?} has neither a tag nor a digest", shown(text)),
            )
            .remedy("name one, for example :v1.2.3 or @sha256:...")),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.target {
            TagOrDigest::Tag(_) => ':',
            TagOrDigest::Digest(_) => '@',
        };
        write!(f, "{}{separator}{}", self.repository, self.target)
    }
}

fn parse_spec(text: &str, what: &'static str) -> Result<SpecReference, Failure> {
    if text.contains("://") {
        return Err(Failure::new(
            Reason::InvalidReference,
            format!("{:?} is a URL, not a {what}", shown(text)),
        )
        .remedy("leave out the scheme: host/name:tag"));
    }
    SpecReference::try_from(text).map_err(|_| malformed(text, what))
}

fn malformed(text: &str, what: &str) -> Failure {
    Failure::new(Reason::InvalidReference, format!("{:?} is not a {what}", shown(text)))
        .remedy("the form is host[:port]/name[:tag][@digest], with the name in lower case")
}

/// Whether the part behind the last slash carries a tag (a port stands before it).
fn has_tag(text: &str) -> bool {
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    name.rsplit_once('/').map_or(name, |(_, last)| last).contains(':')
}

macro_rules! text_form {
    ($type:ty, $parse:path, $text:expr) => {
        impl TryFrom<String> for $type {
            type Error = Failure;

            fn try_from(text: String) -> Result<Self, Failure> {
                $parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                $text(&value)
            }
        }
    };
}

text_form!(RegistryHost, RegistryHost::from_str, ToString::to_string);
text_form!(Repository, Repository::parse, ToString::to_string);
text_form!(Tag, Tag::from_str, ToString::to_string);

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        let reference: Reference = "busybox:1.36".parse().unwrap();
        assert_eq!(reference.to_string(), "docker.io/library/busybox:1.36");
        let repository = Repository::parse("index.docker.io/acme/app").unwrap();
        assert_eq!(repository.to_string(), "docker.io/acme/app");
    }

    #[test]
    fn a_port_is_not_a_tag() {
        let repository = Repository::parse("registry.corp.lan:5000/team/app").unwrap();
        assert_eq!(repository.registry().as_str(), "registry.corp.lan:5000");
        assert_eq!(repository.name(), "team/app");
        assert_eq!(
            Repository::parse("127.0.0.1:5000/a/b").unwrap().registry().as_str(),
            "127.0.0.1:5000"
        );
    }

    #[test]
    fn the_digest_wins_over_the_tag() {
        let text = format!("ghcr.io/acme/app:v1@sha256:{}", "0".repeat(64));
        let reference: Reference = text.parse().unwrap();
        assert!(matches!(reference.target, TagOrDigest::Digest(_)));
    }

    #[test]
    fn what_cannot_be_parsed_is_refused_with_a_remedy() {
        for text in [
            "",
            "ghcr.io/acme/app",
            "https://ghcr.io/acme/app:v1",
            "ghcr.io/Acme/app:v1",
            "ghcr.io/acme/app:",
            "ghcr.io/acme/app@sha256:12",
            "ghcr.io/acme/../app:v1",
            "a b:c",
            "ghcr.io:99999/a/b:v1",
        ] {
            let failure = text.parse::<Reference>().unwrap_err();
            assert_eq!(failure.reason(), Reason::InvalidReference, "{text}");
            assert!(failure.remedy_text().is_some(), "{text}");
        }
        assert!(Repository::parse("ghcr.io/acme/app:v1").is_err());
        for text in ["", ".a", "-a", "a/b", "a b", &"x".repeat(129)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
        for text in ["", "a/b", "http://ghcr.io", "plainword"] {
            assert!(text.parse::<RegistryHost>().is_err(), "{text}");
        }
        assert_eq!("LOCALHOST:5000".parse::<RegistryHost>().unwrap().as_str(), "localhost:5000");
    }

    proptest! {
        #[test]
        fn no_input_panics_and_what_parses_reads_back(text in "\\PC{0,60}|[a-z0-9.:/@_-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
            if let Ok(repository) = Repository::parse(&text) {
                prop_assert_eq!(Repository::parse(&repository.to_string()).unwrap(), repository);
            }
        }
    }
}
