//! Reading, cancelling and freezing: the store's answers, for callers whose rights were checked.

use colophon_domain::{
    EntryQuery, EntryView, Failure, FreezeRequest, FreezeView, Reason, ReleaseQuery, ReleaseView,
    Repository, Result, Tag, TagView, Visibility,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Engine;

impl Engine {
    /// One release, if there is one that the caller may see.
    pub async fn release(&self, visibility: &Visibility, id: Uuid) -> Result<Option<ReleaseView>> {
        self.store.release(visibility, id).await
    }

    /// A page of releases, newest first.
    pub async fn releases(&self, query: &ReleaseQuery) -> Result<Vec<ReleaseView>> {
        self.store.list_releases(query).await
    }

    /// Stops a release; what it has moved is put back, if it was asked to.
    #[tracing::instrument(level = "debug", name = "engine.release.cancel", skip_all, fields(release = %id))]
    pub async fn cancel_release(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        self.store.cancel_release(id, by, reason).await?;
        self.wake();
        tracing::info!(release = %id, by, "release cancelled");
        Ok(())
    }

    /// Puts a release to work again that ended without success, if there is room for it; one that is
    /// at work is left to it.
    pub async fn retry_release(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        if let Some(owner) = self.store.owner_of_ended(id).await? {
            self.make_room(&owner).await?;
        }
        if self.store.retry_release(id, by, reason).await? {
            self.wake();
            tracing::info!(release = %id, by, "release put to work again");
        }
        Ok(())
    }

    /// Stops moves for a time. When this returns, no move begins any more that is covered.
    pub async fn freeze(&self, by: &str, request: &FreezeRequest) -> Result<FreezeView> {
        // One of a registry that is not there would stop nothing, and nobody would notice.
        if let Some(host) = request.pattern.registry()
            && !self.registries.knows(&host)
        {
            return Err(crate::create::unknown(&host).field("pattern"));
        }
        let id = self.store.create_freeze(by, request).await?;
        tracing::warn!(freeze = %id, by, pattern = %request.pattern, until = %request.ends_at, "moves are frozen");
        self.expect_freeze(id).await
    }

    /// One freeze.
    pub async fn find_freeze(&self, id: Uuid) -> Result<Option<FreezeView>> {
        self.store.freeze(id).await
    }

    /// The freezes that hold, newest first, and on request those that have ended.
    pub async fn freezes(&self, include_ended: bool) -> Result<Vec<FreezeView>> {
        self.store.freezes(include_ended).await
    }

    /// Ends a freeze before its time; releases that waited for it go on.
    pub async fn lift(&self, by: &str, id: Uuid, reason: &str) -> Result<FreezeView> {
        self.store.lift_freeze(id, by, reason).await?;
        self.wake();
        tracing::warn!(freeze = %id, by, "a freeze was lifted");
        self.expect_freeze(id).await
    }

    async fn expect_freeze(&self, id: Uuid) -> Result<FreezeView> {
        self.store
            .freeze(id)
            .await?
            .ok_or_else(|| Failure::new(Reason::NotFound, format!("there is no freeze {id}")))
    }

    /// What a tag pointed to, now or at a time.
    pub async fn tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        at: Option<OffsetDateTime>,
    ) -> Result<TagView> {
        self.store.tag_at(repository, tag, at).await
    }

    /// A page of ledger entries, newest first.
    pub async fn entries(&self, query: &EntryQuery) -> Result<Vec<EntryView>> {
        self.store.list_entries(query).await
    }

    /// Whether the service can do its work: the database answers.
    pub async fn ready(&self) -> Result<()> {
        self.store.ping().await
    }
}
