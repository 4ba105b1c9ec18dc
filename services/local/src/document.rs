//! Indexes and manifests (OCI image-spec; Docker image manifest 2.2), read for what they refer to.
//! Their bytes stay as they are.

use std::collections::BTreeMap;

use colophon_domain::{Digest, Platform};
use serde::{Deserialize, de::IgnoredAny};

use crate::error::{LocalError, damaged, unsupported};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a document says of another one (OCI image-spec, "Content Descriptors").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    platform: Option<PlatformFields>,
    annotations: Option<BTreeMap<String, String>>,
    urls: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PlatformFields {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl PlatformFields {
    fn platform(&self) -> Option<Platform> {
        Platform::of(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn platform(&self) -> Option<Platform> {
        self.platform.as_ref()?.platform()
    }

    /// Whether it says something about an image and is none itself, as buildkit's attestations do.
    pub(crate) fn is_attestation(&self) -> bool {
        let unknown =
            |fields: &PlatformFields| fields.os == "unknown" && fields.architecture == "unknown";
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
            || self.platform.as_ref().is_some_and(unknown)
    }

    /// Whether it is a manifest; build caches list plain blobs in an index.
    pub(crate) fn is_manifest(&self) -> bool {
        self.media_type.is_empty()
            || kind_of(&self.media_type).is_some()
            || self.media_type.contains(".manifest.")
    }

    /// Whether it is a container's configuration.
    pub(crate) fn is_container_config(&self) -> bool {
        [OCI_CONFIG, DOCKER_CONFIG].contains(&self.media_type.as_str())
    }

    /// Whether it is a layer that is not distributed, and found elsewhere.
    pub(crate) fn is_foreign(&self) -> bool {
        let kind = &self.media_type;
        (kind.contains(".nondistributable.") || kind.contains(".foreign."))
            && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// What a document refers to.
#[derive(Debug)]
pub(crate) enum Content {
    Index(Vec<Descriptor>),
    Image { config: Descriptor, layers: Vec<Descriptor> },
}

/// An index or a manifest.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: i64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads one. `declared` is what refers to it says it is, which counts where the document does
    /// not say so itself.
    pub(crate) fn read(bytes: &[u8], name: &str, declared: &str) -> Result<Self, LocalError> {
        let body: Body = serde_json::from_slice(bytes)
            .map_err(|error| damaged(format!("{name} cannot be read: {error}")))?;
        if body.schema_version != 2 || body.fs_layers.is_some() {
            return Err(unsupported(format!("{name} is of Docker's schema 1"))
                .remedy("build or save the image with a current tool"));
        }
        if body.subject.is_some() {
            return Err(unsupported(format!("{name} belongs to another manifest, its subject"))
                .remedy("push the image alone; what refers to it is visible without a tag"));
        }
        let (content, implied) = match (body.manifests, body.config) {
            (Some(manifests), None) if body.layers.is_none() => {
                (Content::Index(manifests), OCI_INDEX)
            }
            // Some engines wrote `null` for no layers.
            (None, Some(config)) => {
                let layers = body.layers.unwrap_or_default();
                (Content::Image { config, layers }, OCI_MANIFEST)
            }
            _ => return Err(unsupported(format!("{name} is neither an index nor an image"))),
        };
        let said = body.media_type.as_deref().unwrap_or(declared);
        let media_type = if said.is_empty() { implied } else { said };
        let is_index = matches!(content, Content::Index(_));
        if kind_of(media_type) != Some(is_index) {
            return Err(unsupported(format!("{name} is not what its media type says")));
        }
        Ok(Self { media_type: media_type.to_owned(), content })
    }
}

/// Whether a media type is one of an index, or one of an image; `None` for others.
fn kind_of(media_type: &str) -> Option<bool> {
    match media_type {
        OCI_INDEX | DOCKER_LIST => Some(true),
        OCI_MANIFEST | DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

/// What is read of a container's configuration.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(flatten)]
    platform: PlatformFields,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

impl Config {
    pub(crate) fn read(bytes: &[u8], name: &str) -> Result<Self, LocalError> {
        serde_json::from_slice(bytes)
            .map_err(|error| damaged(format!("{name} cannot be read: {error}")))
    }

    pub(crate) fn platform(&self) -> Option<Platform> {
        self.platform.platform()
    }

    /// The digests of the layers before compression.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LocalErrorKind;

    fn one(kind: &str, more: &str) -> String {
        let digest = Digest::sha256(b"");
        format!(r#"{{"mediaType":"{kind}","size":0,"digest":"{digest}"{more}}}"#)
    }

    #[test]
    fn what_is_no_image_or_index_is_refused() {
        let config = one(OCI_CONFIG, "");
        let wrong_kind = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","#);
        for (text, kind) in [
            ("no json".to_owned(), LocalErrorKind::Damaged),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), LocalErrorKind::Unsupported),
            (r#"{"schemaVersion":2}"#.to_owned(), LocalErrorKind::Unsupported),
            (format!(r#"{wrong_kind}"config":{config}}}"#), LocalErrorKind::Unsupported),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"manifests":[]}}"#),
                LocalErrorKind::Unsupported,
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"subject":{config}}}"#),
                LocalErrorKind::Unsupported,
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{}}}"#, config.replace(":0", ":-1")),
                LocalErrorKind::Damaged,
            ),
        ] {
            assert_eq!(
                Document::read(text.as_bytes(), "x", "").unwrap_err().kind(),
                kind,
                "{text}"
            );
        }
    }

    #[test]
    fn the_documents_own_media_type_counts() {
        let text = |own: &str| {
            format!(r#"{{"schemaVersion":2,{own}"config":{},"layers":null}}"#, one(OCI_CONFIG, ""))
        };
        let read = |own: &str, declared: &str| {
            Document::read(text(own).as_bytes(), "x", declared).map(|document| document.media_type)
        };
        let docker = format!(r#""mediaType":"{DOCKER_MANIFEST}","#);
        assert_eq!(read(&docker, OCI_MANIFEST).unwrap(), DOCKER_MANIFEST);
        assert_eq!(read("", DOCKER_MANIFEST).unwrap(), DOCKER_MANIFEST);
        assert_eq!(read("", "").unwrap(), OCI_MANIFEST);
        assert!(read("", OCI_INDEX).is_err());
        assert!(read(r#""mediaType":"application/x","#, OCI_MANIFEST).is_err());
    }

    #[test]
    fn attestations_and_foreign_layers_are_known() {
        let read = |more: &str| -> Descriptor {
            let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
            serde_json::from_str(&one(kind, more)).unwrap()
        };
        assert!(read(r#","platform":{"os":"unknown","architecture":"unknown"}"#).is_attestation());
        let noted = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        assert!(read(noted).is_attestation());
        let arm = read(r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#);
        assert!(!arm.is_attestation());
        assert_eq!(arm.platform(), Platform::of("linux", "arm64", None));
        assert!(read(r#","urls":["https://a/b"]"#).is_foreign() && !arm.is_foreign());
    }
}
