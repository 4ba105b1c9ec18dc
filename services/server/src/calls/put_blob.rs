//! `UploadService.PutBlob`.

use colophon_api::v1;
use colophon_domain::{BlobProgress, Failure, Principal, Reason, Result, Wanted};
use tracing::Instrument as _;

use super::{Calls, find_blobs::wish};
use crate::{
    content::{self, Pieces},
    fields,
    health::Stopping,
};

impl Calls {
    /// Passes a blob on for the caller of an upload. `head` is the first message; its content is in
    /// `pieces` like the rest.
    pub(crate) async fn put_blob(
        &self,
        caller: &Principal,
        head: v1::PutBlobRequest,
        pieces: Pieces,
        stopping: Stopping,
    ) -> Result<v1::PutBlobResponse> {
        let id = fields::id("id", &head.id)?;
        let blob = wish(&head.digest, head.size)?;
        let offset = fields::bytes("offset", head.offset)?;
        let left = blob.size.checked_sub(offset).ok_or_else(|| {
            Failure::invalid("offset", "the offset is behind the blob's end")
                .remedy("give the whole blob's size, and the offset that FindBlobs tells")
        })?;
        let (content, broken) = content::watched(pieces, left, self.content_pause, stopping);
        let (uploads, caller, size) = (self.uploads.clone(), caller.clone(), blob.size);
        // In a task of its own: a client that is gone takes this call with it, and what has come from
        // it until then is to count.
        let passed = async move { uploads.put_blob(caller, id, blob, offset, content).await };
        let passed = tokio::spawn(passed.in_current_span()).await.unwrap_or_else(|error| {
            Err(Failure::new(Reason::Internal, "a blob's way broke down").caused_by(error))
        });
        match broken.take() {
            Some(failure) => Err(failure),
            None => passed.and_then(|progress| stands(&progress, size)),
        }
    }
}

/// Where the blob stands after the call.
fn stands(progress: &BlobProgress, size: u64) -> Result<v1::PutBlobResponse> {
    let (offset, present) = match progress.wanted {
        Wanted::Present => (size, true),
        Wanted::From(offset) => (offset, false),
        Wanted::Busy => {
            let text = format!("somebody else sends {} at the moment", progress.digest);
            return Err(Failure::new(Reason::UploadBusy, text)
                .field("digest")
                .remedy("ask with FindBlobs in a while"));
        }
    };
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    Ok(v1::PutBlobResponse { offset, present })
}

#[cfg(test)]
mod tests {
    use colophon_domain::Digest;

    use super::*;

    #[test]
    fn a_whole_blob_stands_at_its_size() {
        let at = |wanted| {
            let progress = BlobProgress { digest: Digest::sha256(b"a"), wanted };
            stands(&progress, 7).map(|stands| (stands.offset, stands.present))
        };
        assert_eq!(at(Wanted::Present).unwrap(), (7, true));
        assert_eq!(at(Wanted::From(3)).unwrap(), (3, false));
        assert_eq!(at(Wanted::Busy).unwrap_err().reason(), Reason::UploadBusy);
    }
}
