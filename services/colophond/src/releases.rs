//! The engine, as the server wants to see it.

use std::sync::Arc;

use axum::body::Bytes;
use colophon_domain::{
    BlobProgress, BlobWish, Digest, EntryQuery, EntryView, Failure, FreezeRequest, FreezeView,
    NewUpload, PlanView, Principal, Reason, ReleaseQuery, ReleaseRequest, ReleaseView, Repository,
    RepositoryPattern, Result, RollbackRequest, Settlement, Tag, TagView, UploadView, Visibility,
};
use colophon_engine::{Author, Engine};
use colophon_server::{Part, Probe, Releases, Uploads};
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::live::Live;

/// The engine behind both faces of the API.
pub(crate) struct Service(pub(crate) Live);

impl Service {
    /// With the registries and rules of this moment; a call keeps to them.
    fn engine(&self) -> Engine {
        self.0.engine.current()
    }

    /// A release of which the server has made sure that the caller sees it.
    async fn seen(&self, caller: Principal, id: Uuid) -> Result<ReleaseView> {
        let everything: RepositoryPattern = "*".parse()?;
        let visibility = Visibility { principal: caller.name, readable: vec![everything] };
        let release = self.engine().release(&visibility, id).await?;
        release.ok_or_else(|| Failure::new(Reason::Internal, "a known release cannot be read"))
    }
}

impl Releases for Service {
    fn create(
        &self,
        caller: Principal,
        request: ReleaseRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        Box::pin(async move { self.engine().create_release(&caller.name, &request).await })
    }

    fn get(&self, visibility: Visibility, id: Uuid) -> BoxFuture<'_, Result<Option<ReleaseView>>> {
        Box::pin(async move { self.engine().release(&visibility, id).await })
    }

    fn watch(&self, id: Uuid) -> BoxStream<'static, Result<Arc<ReleaseView>>> {
        self.engine().watch(id).boxed()
    }

    fn list(&self, query: ReleaseQuery) -> BoxFuture<'_, Result<Vec<ReleaseView>>> {
        Box::pin(async move { self.engine().releases(&query).await })
    }

    fn cancel(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        Box::pin(async move {
            self.engine().cancel_release(id, &caller.name, &reason).await?;
            self.seen(caller, id).await
        })
    }

    fn retry(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        Box::pin(async move {
            self.engine().retry_release(id, &caller.name, &reason).await?;
            self.seen(caller, id).await
        })
    }

    fn plan(&self, _caller: Principal, request: ReleaseRequest) -> BoxFuture<'_, Result<PlanView>> {
        Box::pin(async move { self.engine().plan(&request).await })
    }

    fn rollback(
        &self,
        caller: Principal,
        request: RollbackRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>> {
        Box::pin(async move { self.engine().rollback(&caller, &request).await })
    }

    fn settle(
        &self,
        caller: Principal,
        repository: Repository,
        tag: Tag,
        settlement: Settlement,
        reason: String,
        on_behalf_of: String,
    ) -> BoxFuture<'_, Result<TagView>> {
        Box::pin(async move {
            let author = Author { principal: caller.name, on_behalf_of, reason };
            self.engine().settle(&repository, &tag, settlement, &author).await
        })
    }

    fn freeze(
        &self,
        caller: Principal,
        request: FreezeRequest,
    ) -> BoxFuture<'_, Result<FreezeView>> {
        Box::pin(async move { self.engine().freeze(&caller.name, &request).await })
    }

    fn freezes(&self, include_ended: bool) -> BoxFuture<'_, Result<Vec<FreezeView>>> {
        Box::pin(async move { self.engine().freezes(include_ended).await })
    }

    fn find_freeze(&self, id: Uuid) -> BoxFuture<'_, Result<Option<FreezeView>>> {
        Box::pin(async move { self.engine().find_freeze(id).await })
    }

    fn lift(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<FreezeView>> {
        Box::pin(async move { self.engine().lift(&caller.name, id, &reason).await })
    }

    fn tag(
        &self,
        repository: Repository,
        tag: Tag,
        at: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<TagView>> {
        Box::pin(async move { self.engine().tag(&repository, &tag, at).await })
    }

    fn entries(&self, query: EntryQuery) -> BoxFuture<'_, Result<Vec<EntryView>>> {
        Box::pin(async move { self.engine().entries(&query).await })
    }
}

impl Uploads for Service {
    fn start_upload(
        &self,
        caller: Principal,
        request: NewUpload,
    ) -> BoxFuture<'_, Result<UploadView>> {
        Box::pin(async move { self.engine().start_upload(&caller, request).await })
    }

    fn upload(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<UploadView>> {
        Box::pin(async move { self.engine().upload(&caller, id).await })
    }

    fn find_blobs(
        &self,
        caller: Principal,
        id: Uuid,
        blobs: Vec<BlobWish>,
    ) -> BoxFuture<'_, Result<Vec<BlobProgress>>> {
        Box::pin(async move { self.engine().find_blobs(&caller, id, blobs).await })
    }

    fn put_blob(
        &self,
        caller: Principal,
        id: Uuid,
        blob: BlobWish,
        offset: u64,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> BoxFuture<'_, Result<BlobProgress>> {
        Box::pin(async move { self.engine().put_blob(&caller, id, blob, offset, content).await })
    }

    fn put_manifest(
        &self,
        caller: Principal,
        id: Uuid,
        media_type: String,
        digest: Digest,
        content: Bytes,
    ) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.engine().put_manifest(&caller, id, media_type, digest, content).await
        })
    }

    fn abandon(&self, caller: Principal, id: Uuid) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.engine().abandon(&caller, id).await })
    }
}

impl Probe for Service {
    fn parts(&self) -> Vec<Part<'_>> {
        self.0.parts()
    }
}
