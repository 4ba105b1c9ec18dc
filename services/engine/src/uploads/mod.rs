//! Content that comes from clients straight into a repository: an upload begins, its blobs and manifests
//! come, and it ends with the release that names it, by its caller, or by itself.

mod find;
mod janitor;
mod limits;
mod put;
mod streams;

use bytes::Bytes;
use colophon_domain::{
    Access, Action, Digest, Failure, NewUpload, Principal, Reason, Result, Retry, UploadView,
};
use colophon_registry::Session;
use uuid::Uuid;

pub use self::limits::UploadLimits;
pub(crate) use self::streams::Streams;

use crate::Engine;

/// When a caller with too many uploads may come back.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(30);

impl Engine {
    /// Begins an upload for a caller whose rights were checked.
    ///
    /// # Errors
    /// `UNKNOWN_REGISTRY`, and `UPLOAD_LIMIT` if the caller has too many that have not ended.
    #[tracing::instrument(level = "debug", name = "engine.upload.start", skip_all)]
    pub async fn start_upload(&self, caller: &Principal, request: NewUpload) -> Result<UploadView> {
        let NewUpload { repository, origin } = request;
        self.known(&repository).map_err(|failure| failure.field("repository"))?;
        let limits = self.uploads;
        let started = self
            .store
            .start_upload(&caller.name, &repository, &origin, limits.terms(), limits.max_per_caller)
            .await?;
        let Some(upload) = started else {
            let text = format!("{} has {} uploads already", caller.name, limits.max_per_caller);
            return Err(Failure::new(Reason::UploadLimit, text)
                .remedy("publish or abandon them; one that nothing comes for ends by itself")
                .retry(Retry::Wait(PAUSE)));
        };
        tracing::info!(upload = %upload.id, principal = caller.name, %repository, "upload begun");
        Ok(upload)
    }

    /// An upload of the caller's, whose end this moves on.
    ///
    /// # Errors
    /// `NOT_FOUND` if it has ended, or is somebody else's, and `PERMISSION_DENIED` if the caller may
    /// not publish there any more.
    pub async fn upload(&self, caller: &Principal, id: Uuid) -> Result<UploadView> {
        let upload = self.store.touch_upload(&caller.name, id, self.uploads.terms()).await?;
        let upload = upload.ok_or_else(|| not_there(id))?;
        caller.require(Action::Publish, &upload.repository)?;
        Ok(upload)
    }

    /// Puts a manifest by its digest.
    ///
    /// # Errors
    /// `NOT_FOUND`, `DIGEST_MISMATCH`, `TOO_LARGE`, `UNSUPPORTED_MANIFEST`, `CONTENT_MISSING` if the
    /// registry lacks what it names, and whatever else the registry refuses.
    #[tracing::instrument(level = "debug", name = "engine.upload.manifest", skip_all, fields(upload = %id, %digest))]
    pub async fn put_manifest(
        &self,
        caller: &Principal,
        id: Uuid,
        media_type: String,
        digest: Digest,
        content: Bytes,
    ) -> Result<()> {
        let upload = self.upload(caller, id).await?;
        let put = self.session_of(&upload)?.put_content(&digest, &media_type, content).await;
        put.map_err(|failure| match failure.reason() {
            Reason::ContentMissing => failure
                .retry(Retry::Never)
                .remedy("send the blobs and the manifests that it names before it"),
            _ => failure,
        })
    }

    /// Ends an upload; what is under way at the registry is cancelled, now or a little later.
    ///
    /// # Errors
    /// `NOT_FOUND` if it has ended, or is somebody else's.
    #[tracing::instrument(level = "debug", name = "engine.upload.abandon", skip_all, fields(upload = %id))]
    pub async fn abandon(&self, caller: &Principal, id: Uuid) -> Result<()> {
        if !self.store.end_upload(&caller.name, id).await? {
            return Err(not_there(id));
        }
        tracing::info!(upload = %id, principal = caller.name, "upload abandoned");
        if let Err(failure) = self.cancel_left().await {
            tracing::debug!(%failure, upload = %id, "what an upload has left is cancelled later");
        }
        Ok(())
    }

    /// A session that writes to an upload's repository.
    fn session_of(&self, upload: &UploadView) -> Result<Session> {
        self.registries.session(&upload.repository, Access::Push)
    }
}

fn not_there(id: Uuid) -> Failure {
    Failure::new(Reason::NotFound, format!("there is no upload {id} of yours"))
        .field("id")
        .remedy("it may have ended; begin another, which finds what has arrived")
}
