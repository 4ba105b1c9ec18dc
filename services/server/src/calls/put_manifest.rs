//! `UploadService.PutManifest`.

use axum::body::Bytes;
use colophon_api::v1;
use colophon_domain::{Digest, Failure, Principal, Reason, Result};

use super::Calls;
use crate::{fields, settings::MANIFEST_LIMIT_BYTES};

impl Calls {
    /// Puts a manifest for the caller of an upload.
    pub(crate) async fn put_manifest(
        &self,
        caller: &Principal,
        request: v1::PutManifestRequest,
    ) -> Result<v1::PutManifestResponse> {
        let id = fields::id("id", &request.id)?;
        let digest: Digest = fields::required("digest", &request.digest)?;
        let media_type = media_type(request.media_type)?;
        let content = content(&digest, request.content)?;
        let put =
            self.uploads.put_manifest(caller.clone(), id, media_type, digest.clone(), content);
        put.await?;
        Ok(v1::PutManifestResponse { digest: digest.to_string() })
    }
}

/// Reads a media type (RFC 6838, section 4.2), which becomes a header's value.
fn media_type(text: String) -> Result<String> {
    if text.is_empty() {
        return Err(Failure::invalid("media_type", "media_type is required"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    let name = |name: &str| (1..=127).contains(&name.len()) && name.bytes().all(plain);
    match text.split_once('/') {
        Some((kind, subtype)) if name(kind) && name(subtype) => Ok(text),
        _ => Err(Failure::invalid("media_type", "media_type is not a media type")
            .remedy("give it as the manifest has it, without parameters")),
    }
}

fn content(digest: &Digest, content: Vec<u8>) -> Result<Bytes> {
    if content.is_empty() {
        return Err(Failure::invalid("content", "content is required"));
    }
    if content.len() > MANIFEST_LIMIT_BYTES {
        return Err(Failure::invalid("content", "the manifest is larger than 4 MiB"));
    }
    if !digest.matches(&content) {
        let text = format!("the manifest that came does not have the digest {digest}");
        return Err(Failure::new(Reason::DigestMismatch, text)
            .field("digest")
            .remedy("send the manifest's bytes as they are, without formatting them anew"));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_its_digest_and_its_bounds() {
        let refused = |digest: &Digest, bytes: &[u8]| {
            let failure = content(digest, bytes.to_vec()).unwrap_err();
            (failure.reason(), failure.field_name().map(ToOwned::to_owned))
        };
        let digest = Digest::sha256(b"{}");
        assert_eq!(content(&digest, b"{}".to_vec()).unwrap(), "{}");
        assert_eq!(refused(&digest, b"{ }"), (Reason::DigestMismatch, Some("digest".into())));
        assert_eq!(refused(&digest, b""), (Reason::InvalidArgument, Some("content".into())));
        let large = vec![b' '; MANIFEST_LIMIT_BYTES + 1];
        let named = Digest::sha256(&large);
        assert_eq!(refused(&named, &large), (Reason::InvalidArgument, Some("content".into())));
    }

    #[test]
    fn a_media_type_is_one() {
        assert!(media_type("application/vnd.oci.image.manifest.v1+json".into()).is_ok());
        for wrong in ["", "json", "/", "a/", "a/b/c", "a/b; c=d", "a/b\r\nx: y", "a/é"] {
            let failure = media_type(wrong.into()).unwrap_err();
            assert_eq!(failure.field_name(), Some("media_type"), "{wrong}");
        }
        assert!(media_type(format!("a/{}", "b".repeat(128))).is_err());
    }
}
