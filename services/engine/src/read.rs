//! Reading and cancelling: the store's answers, for callers whose rights were checked.

use colophon_domain::{
    EntryQuery, EntryView, ReleaseQuery, ReleaseView, Repository, Result, Tag, TagView, Visibility,
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

    /// Stops a release, unless a tag of it is being moved already.
    pub async fn cancel_release(&self, id: Uuid, by: &str, reason: &str) -> Result<()> {
        self.store.cancel_release(id, by, reason).await?;
        tracing::info!(release = %id, by, "release cancelled");
        Ok(())
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
