//! Which blobs a repository has, and how far those are that somebody has begun to send.

use std::collections::HashMap;

use colophon_domain::{BlobProgress, BlobWish, Digest, Principal, Result, Wanted};
use colophon_store::UploadStand;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use crate::Engine;

/// Blobs that are asked for at the same time.
const AT_ONCE: usize = 8;

impl Engine {
    /// Says how far blobs are, in the order of the question.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such upload of the caller's, and whatever keeps the registry from
    /// answering.
    #[tracing::instrument(level = "debug", name = "engine.upload.find", skip_all, fields(upload = %id, blobs = blobs.len()))]
    pub async fn find_blobs(
        &self,
        caller: &Principal,
        id: Uuid,
        blobs: Vec<BlobWish>,
    ) -> Result<Vec<BlobProgress>> {
        let upload = self.upload(caller, id).await?;
        let session = self.into_place(&upload)?;
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        let stands = self.store.blob_stands(&upload.repository, &digests).await?;
        let stands: HashMap<Digest, UploadStand> =
            stands.into_iter().map(|stand| (stand.digest.clone(), stand)).collect();
        let (session, stands) = (&session, &stands);
        // Collected first: a closure that lives on across an await keeps the future from being `Send`.
        let looks: Vec<_> = blobs
            .into_iter()
            .map(|blob| async move {
                let wanted = if session.has_blob(&blob.digest).await? {
                    Wanted::Present
                } else {
                    wanted(&blob, stands.get(&blob.digest))
                };
                Ok(BlobProgress { digest: blob.digest, wanted })
            })
            .collect();
        stream::iter(looks).buffered(AT_ONCE).try_collect().await
    }
}

/// What is to be sent of a blob that the repository does not have.
fn wanted(blob: &BlobWish, stand: Option<&UploadStand>) -> Wanted {
    match stand {
        Some(stand) if stand.busy => Wanted::Busy,
        Some(stand) if stand.offset <= blob.size => Wanted::From(stand.offset),
        _ => Wanted::From(0),
    }
}
