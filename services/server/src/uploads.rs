//! What the server needs of the engine to take content from clients, as a trait beside
//! [`Releases`](crate::Releases).

use axum::body::Bytes;
use colophon_domain::{BlobProgress, BlobWish, Digest, NewUpload, Principal, Result, UploadView};
use futures_util::{future::BoxFuture, stream::BoxStream};
use uuid::Uuid;

/// Taking content from clients. The server has checked that the caller may publish to a repository
/// when an upload of it begins; the engine sees to it that an upload is reached by its caller alone,
/// and answers `NOT_FOUND` to everybody else.
pub trait Uploads: Send + Sync + 'static {
    /// Begins an upload.
    fn start_upload(
        &self,
        caller: Principal,
        request: NewUpload,
    ) -> BoxFuture<'_, Result<UploadView>>;

    /// Shows one.
    fn upload(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<UploadView>>;

    /// Says how far blobs are, in the order of the question.
    fn find_blobs(
        &self,
        caller: Principal,
        id: Uuid,
        blobs: Vec<BlobWish>,
    ) -> BoxFuture<'_, Result<Vec<BlobProgress>>>;

    /// Passes a blob on to the registry while it comes, from an offset on. A failure in the content
    /// is the client's connection breaking off; what came before it counts.
    fn put_blob(
        &self,
        caller: Principal,
        id: Uuid,
        blob: BlobWish,
        offset: u64,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> BoxFuture<'_, Result<BlobProgress>>;

    /// Puts a manifest by its digest, which its bytes have.
    fn put_manifest(
        &self,
        caller: Principal,
        id: Uuid,
        media_type: String,
        digest: Digest,
        content: Bytes,
    ) -> BoxFuture<'_, Result<()>>;

    /// Ends an upload, and cancels what is under way at the registry.
    fn abandon(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<()>>;
}
