//! `UploadService.FindBlobs`.

use colophon_api::v1;
use colophon_domain::{BlobWish, Failure, Principal, Result};

use super::Calls;
use crate::{answer, fields};

/// So many blobs can be asked for at once.
const BLOBS_MOST: usize = 1_000;

impl Calls {
    /// Says how far blobs are to the caller of an upload.
    pub(crate) async fn find_blobs(
        &self,
        caller: &Principal,
        request: v1::FindBlobsRequest,
    ) -> Result<v1::FindBlobsResponse> {
        let id = fields::id("id", &request.id)?;
        let blobs = wishes(&request.blobs)?;
        let found = self.uploads.find_blobs(caller.clone(), id, blobs).await?;
        let blobs = found.iter().map(answer::blob_progress).collect();
        Ok(v1::FindBlobsResponse { blobs })
    }
}

fn wishes(blobs: &[v1::UploadBlob]) -> Result<Vec<BlobWish>> {
    if blobs.is_empty() {
        return Err(Failure::invalid("blobs", "blobs is required"));
    }
    if blobs.len() > BLOBS_MOST {
        return Err(Failure::invalid("blobs", format!("more than {BLOBS_MOST} blobs"))
            .remedy("ask for the others in another call"));
    }
    let read = |(index, blob): (usize, &v1::UploadBlob)| {
        wish(&blob.digest, blob.size).map_err(|failure| failure.within(&format!("blobs[{index}]")))
    };
    blobs.iter().enumerate().map(read).collect()
}

/// Reads a blob's name and size.
pub(super) fn wish(digest: &str, size: i64) -> Result<BlobWish> {
    Ok(BlobWish { digest: fields::required("digest", digest)?, size: fields::bytes("size", size)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_is_none_is_named_by_its_place() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let of = |digest: &str, size| v1::UploadBlob { digest: digest.into(), size };
        let field = |blobs: &[v1::UploadBlob]| {
            wishes(blobs).unwrap_err().field_name().unwrap_or_default().to_owned()
        };
        assert_eq!(wishes(&[of(&digest, 0), of(&digest, 7)]).unwrap().len(), 2);
        assert_eq!(field(&[of(&digest, 1), of("latest", 1)]), "blobs[1].digest");
        assert_eq!(field(&[of("", 1)]), "blobs[0].digest");
        assert_eq!(field(&[of(&digest, -1)]), "blobs[0].size");
        assert_eq!(field(&[]), "blobs");
        assert_eq!(field(&vec![of(&digest, 1); BLOBS_MOST + 1]), "blobs");
    }
}
