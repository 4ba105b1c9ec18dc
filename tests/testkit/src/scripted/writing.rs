//! Manifests that are put and deleted.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderValue;
use serde_json::Value;

use crate::{
    peer::sha256,
    scripted::{
        Shared,
        contents::Stored,
        request::{Response, Seen, error, status, with},
    },
};

impl Shared {
    /// A manifest under a tag or its digest. What it refers to must be there.
    pub(super) fn put_manifest(
        &self,
        seen: &Seen,
        name: &str,
        reference: &str,
        bytes: Bytes,
    ) -> Response {
        let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
            return error(400, "MANIFEST_INVALID", "manifest invalid");
        };
        let mut contents = self.contents();
        let repository = contents.entry(name.to_owned()).or_default();
        if repository.frozen && repository.tags.contains_key(reference) {
            let (code, word, message) = self.personality.frozen(name, reference);
            return error(code, word, &message);
        }
        if let Some(missing) = repository.lacks(&manifest) {
            let text = format!("{missing} unknown to registry");
            return error(self.personality.content_missing, "MANIFEST_BLOB_UNKNOWN", &text);
        }
        if reference.starts_with("sha256:") && reference != sha256(&bytes) {
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let media_type = seen.header("content-type").to_owned();
        let digest = repository.put(reference, Stored { media_type, bytes });
        let location = self.absolute(&format!("/v2/{name}/manifests/{digest}"));
        let headers = [("location", location.as_str()), ("docker-content-digest", digest.as_str())];
        let mut answer = with(201, &headers, Body::empty());
        let subject = manifest.pointer("/subject/digest").and_then(Value::as_str);
        if let (Some(subject), Some(_)) = (subject, self.personality.referrers)
            && let Ok(value) = HeaderValue::from_str(subject)
        {
            answer.headers_mut().insert("oci-subject", value);
        }
        answer
    }

    /// A tag goes alone; a digest goes with its tags.
    pub(super) fn delete_manifest(&self, name: &str, reference: &str) -> Response {
        let mut contents = self.contents();
        let Some(repository) = contents.get_mut(name) else {
            return super::reading::name_unknown(name);
        };
        let gone = if reference.contains(':') {
            repository.tags.retain(|_, digest| digest != reference);
            repository.manifests.remove(reference).is_some()
        } else {
            repository.tags.remove(reference).is_some()
        };
        if gone { status(202) } else { error(404, "MANIFEST_UNKNOWN", "manifest unknown") }
    }
}
