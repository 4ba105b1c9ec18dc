//! Manifests and indexes (OCI image-spec; Docker image manifest 2.2): the exact bytes, and what
//! they refer to. They are read for their descriptors only and never written anew.

use bytes::Bytes;
use colophon_domain::{Algorithm, Digest, Failure, Reason, Result};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use serde::Deserialize;

/// A manifest may have this many bytes; registries agree on it (distribution-spec, "Pushing
/// manifests").
pub(crate) const MANIFEST_LIMIT: usize = 4 << 20;

/// The four types that are understood, in the order of preference.
pub(crate) const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];

/// Something that a digest names (OCI image-spec, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The digest.
    pub digest: Digest,
    /// Bytes.
    pub size: i64,
    /// The media type, without parameters.
    pub media_type: String,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub descriptor: Descriptor,
    /// It may not be distributed and is found elsewhere (`urls`), as Windows' base layers were.
    pub foreign: bool,
}

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An index or a manifest list.
    Index {
        /// Other manifests; rarely a blob.
        entries: Vec<Descriptor>,
    },
    /// An image or another artifact.
    Image {
        /// The configuration.
        config: Descriptor,
        /// The layers.
        layers: Vec<Layer>,
    },
}

/// A manifest as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// What the body says it is.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// What it refers to.
    pub content: Content,
    /// What it is about (OCI image-spec, `subject`): it is a referrer of that.
    pub subject: Option<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: i64,
    media_type: Option<String>,
    config: Option<OciDescriptor>,
    layers: Option<Vec<OciDescriptor>>,
    manifests: Option<Vec<OciDescriptor>>,
    subject: Option<OciDescriptor>,
    fs_layers: Option<serde_json::Value>,
}

/// Why bytes are no manifest for us; the text goes behind what was being done.
type Refused = (Reason, String);

impl Manifest {
    /// Reads a manifest. `declared` is the answer's `Content-Type`, which counts only where the
    /// body does not say what it is.
    ///
    /// # Errors
    /// `UNSUPPORTED_MANIFEST` for Docker schema 1 and for types that are no image or index.
    pub fn new(bytes: Bytes, declared: Option<&str>) -> Result<Self> {
        let digest = Digest::sha256(&bytes);
        Self::read(bytes, declared, digest)
            .map_err(|(reason, text)| Failure::new(reason, format!("the manifest {text}")))
    }

    /// The same under a digest that is known to be that of the bytes.
    pub(crate) fn read(
        bytes: Bytes,
        declared: Option<&str>,
        digest: Digest,
    ) -> Result<Self, Refused> {
        let unsupported = |text: &str| (Reason::UnsupportedManifest, text.to_owned());
        let declared = declared.map(essence).filter(|kind| !kind.is_empty());
        let body: Body = serde_json::from_slice(&bytes)
            .map_err(|error| (Reason::UnsupportedManifest, format!("cannot be read: {error}")))?;
        if body.schema_version != 2 || body.fs_layers.is_some() {
            return Err(unsupported(
                "is of Docker's schema 1, which cannot be copied without changing its digest; \
                 push the image again with a current client",
            ));
        }
        let media_type = body.media_type.as_deref().map(essence).or(declared);
        let known = media_type.as_deref().filter(|kind| is_manifest(kind));
        let (content, implied) = match (body.manifests, body.config, body.layers) {
            (Some(entries), None, None) => (index(&entries)?, OCI_IMAGE_INDEX_MEDIA_TYPE),
            (None, Some(config), Some(layers)) => (image(&config, &layers)?, OCI_IMAGE_MEDIA_TYPE),
            // A document that can be read in two ways would be pulled in two ways.
            (Some(_), _, _) => return Err(unsupported("is an index and an image at once")),
            _ => return Err(unsupported("is neither an image nor an index")),
        };
        let media_type = match (known, body.media_type) {
            (Some(known), _) if is_index(known) == matches!(content, Content::Index { .. }) => {
                known
            }
            (Some(_), _) => return Err(unsupported("is not what its media type says")),
            // A registry may call it application/json or text/plain; the body has no say in it.
            (None, None) => implied,
            (None, Some(other)) => {
                let shown: String = other.chars().take(80).collect();
                return Err(unsupported(&format!("has the media type {shown:?}")));
            }
        };
        let media_type = media_type.to_owned();
        let subject = body.subject.as_ref().map(descriptor).transpose()?.map(|named| named.digest);
        Ok(Self { bytes, media_type, digest, content, subject })
    }

    /// A descriptor of this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            digest: self.digest.clone(),
            size: i64::try_from(self.bytes.len()).unwrap_or(i64::MAX),
            media_type: self.media_type.clone(),
        }
    }
}

/// A media type without its parameters.
pub(crate) fn essence(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type is one of the four.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    ACCEPTED.contains(&media_type)
}

/// Whether it is one of the two that list other manifests.
pub(crate) fn is_index(media_type: &str) -> bool {
    [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE].contains(&media_type)
}

fn index(entries: &[OciDescriptor]) -> Result<Content, Refused> {
    Ok(Content::Index { entries: entries.iter().map(descriptor).collect::<Result<_, _>>()? })
}

fn image(config: &OciDescriptor, layers: &[OciDescriptor]) -> Result<Content, Refused> {
    let layer = |spec: &OciDescriptor| {
        let kind = &spec.media_type;
        let restricted = kind.contains(".nondistributable.") || kind.contains(".foreign.");
        let elsewhere = spec.urls.as_ref().is_some_and(|urls| !urls.is_empty());
        Ok(Layer { descriptor: descriptor(spec)?, foreign: restricted && elsewhere })
    };
    let layers = layers.iter().map(layer).collect::<Result<_, _>>()?;
    Ok(Content::Image { config: descriptor(config)?, layers })
}

fn descriptor(spec: &OciDescriptor) -> Result<Descriptor, Refused> {
    let refused =
        |what: &str| (Reason::UnsupportedManifest, format!("has a descriptor with {what}"));
    if spec.size < 0 {
        return Err(refused("a negative size"));
    }
    let digest = spec.digest.parse().map_err(|_| refused("an unusable digest"))?;
    Ok(Descriptor { digest, size: spec.size, media_type: essence(&spec.media_type) })
}

/// The digest of bytes that a registry served, by what was asked for and what it said.
pub(crate) fn served_digest(
    bytes: &[u8],
    asked: Option<&Digest>,
    said: Option<&Digest>,
) -> Result<Digest, Refused> {
    let wanted = asked.or(said);
    let algorithm = wanted.map_or(Algorithm::Sha256, Digest::algorithm);
    let found = Digest::of(algorithm, bytes);
    match wanted {
        Some(wanted) if *wanted != found => Err((
            Reason::DigestMismatch,
            format!("has the digest {found} where {wanted} was promised"),
        )),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, declared: Option<&str>) -> Result<Manifest> {
        Manifest::new(Bytes::copy_from_slice(text.as_bytes()), declared)
    }

    fn one(kind: &str, extra: &str) -> String {
        let digest = Digest::sha256(b"");
        format!(r#"{{"mediaType":"{kind}","size":0,"digest":"{digest}"{extra}}}"#)
    }

    #[test]
    fn the_bodys_media_type_counts_and_parameters_do_not() {
        let config = one("application/vnd.oci.image.config.v1+json", "");
        let image =
            |kind: &str| format!(r#"{{"schemaVersion":2,{kind}"config":{config},"layers":[]}}"#);
        let oci = format!(r#""mediaType":"{OCI_IMAGE_MEDIA_TYPE}","#);
        let header = Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8");
        assert_eq!(read(&image(&oci), header).unwrap().media_type, OCI_IMAGE_MEDIA_TYPE);
        assert_eq!(read(&image(""), header).unwrap().media_type, IMAGE_MANIFEST_MEDIA_TYPE);
        assert_eq!(read(&image(""), Some("text/plain")).unwrap().media_type, OCI_IMAGE_MEDIA_TYPE);
        let list = format!(r#""mediaType":"{OCI_IMAGE_INDEX_MEDIA_TYPE}","#);
        assert!(read(&image(&list), None).is_err());
        assert!(read(&image(r#""mediaType":"application/x","#), None).is_err());
    }

    #[test]
    fn what_cannot_be_copied_is_refused() {
        let config = one("c", "");
        let negative = config.replace("\"size\":0", "\"size\":-1");
        for text in [
            r#"{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[]}"#,
            &format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#),
            &format!(r#"{{"schemaVersion":2,"config":{negative},"layers":[]}}"#),
            r#"{"schemaVersion":2}"#,
            "no json",
        ] {
            let failure = read(text, None).unwrap_err();
            assert_eq!(failure.reason(), Reason::UnsupportedManifest, "{text}");
        }
    }

    #[test]
    fn a_foreign_layer_is_restricted_and_found_elsewhere() {
        let urls = r#","urls":["https://x.y/z"]"#;
        let restricted = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let layers =
            [one(restricted, urls), one(restricted, ""), one("application/x", urls)].join(",");
        let text =
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, one("c", ""));
        let Content::Image { layers, .. } = read(&text, None).unwrap().content else {
            panic!("an image")
        };
        let foreign: Vec<bool> = layers.iter().map(|layer| layer.foreign).collect();
        assert_eq!(foreign, [true, false, false]);
    }

    #[test]
    fn the_digest_that_was_asked_for_or_promised_must_be_true() {
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(served_digest(b"x", Some(&long), None).unwrap(), long);
        assert_eq!(served_digest(b"x", None, None).unwrap(), Digest::sha256(b"x"));
        assert!(served_digest(b"y", None, Some(&long)).is_err());
        assert!(served_digest(b"y", Some(&long), None).is_err());
    }
}
