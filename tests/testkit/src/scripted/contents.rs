//! What a registry in memory holds: blobs, manifests and tags by repository.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::peer::sha256;

/// A manifest as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The media type of its PUT.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// One repository.
#[derive(Default)]
pub(super) struct Repository {
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) manifests: BTreeMap<String, Stored>,
    pub(super) tags: BTreeMap<String, String>,
    /// Tags stay where they are.
    pub(super) frozen: bool,
}

impl Repository {
    /// The digest that a tag or digest stands for.
    pub(super) fn resolve(&self, reference: &str) -> Option<&str> {
        let named = reference.contains(':');
        let digest = if named { reference } else { self.tags.get(reference)? };
        self.manifests.get_key_value(digest).map(|(digest, _)| digest.as_str())
    }

    pub(super) fn put(&mut self, reference: &str, manifest: Stored) -> String {
        let long = reference.starts_with("sha512:");
        let digest = if long { reference.to_owned() } else { sha256(&manifest.bytes) };
        if !reference.contains(':') {
            self.tags.insert(reference.to_owned(), digest.clone());
        }
        self.manifests.insert(digest.clone(), manifest);
        digest
    }

    /// What a manifest refers to and the repository lacks. Content that is elsewhere, by its
    /// `urls`, need not be here, nor what it is about, by its `subject`.
    pub(super) fn lacks(&self, manifest: &Value) -> Option<String> {
        let list = |name: &str| manifest.get(name).and_then(Value::as_array).into_iter().flatten();
        let config = manifest.get("config").into_iter();
        let blobs = config.chain(list("layers")).filter(|named| named.get("urls").is_none());
        let mut blobs = blobs.filter_map(digest_in);
        let mut children = list("manifests").filter_map(digest_in);
        let blob_missing = |digest: &String| !self.blobs.contains_key(digest);
        let missing =
            |digest: &String| blob_missing(digest) && !self.manifests.contains_key(digest);
        blobs.find(blob_missing).or_else(|| children.find(missing))
    }

    /// The manifests whose `subject` this is, as descriptors in the order of their digests.
    pub(super) fn referrers(&self, subject: &str) -> Vec<Value> {
        let mut found = Vec::new();
        for (digest, stored) in &self.manifests {
            let Ok(manifest) = serde_json::from_slice::<Value>(&stored.bytes) else { continue };
            let about = manifest.pointer("/subject/digest").and_then(Value::as_str);
            if about == Some(subject) {
                found.push(describe(digest, stored, &manifest));
            }
        }
        found
    }
}

fn digest_in(descriptor: &Value) -> Option<String> {
    descriptor.get("digest").and_then(Value::as_str).map(str::to_owned)
}

/// A descriptor as the referrers API has them: with the type of the artifact, which is that of
/// the configuration where the manifest has none, and the annotations.
fn describe(digest: &str, stored: &Stored, manifest: &Value) -> Value {
    let config = manifest.pointer("/config/mediaType");
    let kind = manifest.get("artifactType").or(config).cloned().unwrap_or_default();
    let annotations = manifest.get("annotations").cloned().unwrap_or_else(|| json!({}));
    json!({
        "mediaType": stored.media_type, "digest": digest, "size": stored.bytes.len(),
        "artifactType": kind, "annotations": annotations,
    })
}
