//! What the server needs of the engine, as a trait: the server can be tested against a scripted
//! one, and neither crate waits for the other.

use std::sync::Arc;

use colophon_domain::{
    EntryQuery, EntryView, FreezeRequest, FreezeView, PlanView, Principal, ReleaseQuery,
    ReleaseRequest, ReleaseView, Repository, Result, RollbackRequest, Settlement, Tag, TagView,
    Visibility,
};
use futures_util::{future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Probe;

/// The use cases behind the two faces. Who may call what is decided before they are reached,
/// except that the engine applies the [`Visibility`] it is given.
pub trait Releases: Probe {
    /// Accepts a release, or finds the one that was accepted under the same idempotency key.
    fn create(
        &self,
        caller: Principal,
        request: ReleaseRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>>;

    /// Shows what a release would do now; nothing is stored or moved.
    fn plan(&self, caller: Principal, request: ReleaseRequest) -> BoxFuture<'_, Result<PlanView>>;

    /// Accepts a rollback, or finds the one that was accepted under the same idempotency key. The
    /// server has checked that the caller may move the tags back.
    fn rollback(
        &self,
        caller: Principal,
        request: RollbackRequest,
    ) -> BoxFuture<'_, Result<ReleaseView>>;

    /// Shows one release; `None` if there is none, or none that may be seen.
    fn get(&self, visibility: Visibility, id: Uuid) -> BoxFuture<'_, Result<Option<ReleaseView>>>;

    /// The states of a release from now on, as they are seen. The server has checked that the
    /// caller sees it. A state that was shown before may come again; its revision tells. After a
    /// failure nothing more comes.
    fn watch(&self, id: Uuid) -> BoxStream<'static, Result<Arc<ReleaseView>>>;

    /// Lists at most `query.limit` releases, newest first.
    fn list(&self, query: ReleaseQuery) -> BoxFuture<'_, Result<Vec<ReleaseView>>>;

    /// Stops a release. The server has checked that the caller sees it and may cancel it.
    fn cancel(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>>;

    /// Puts a release to work again, or shows it if it is at work. The server has checked that the
    /// caller sees it and may publish it.
    fn retry(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<ReleaseView>>;

    /// What the ledger says a tag points to, now or at a time that is not in the future.
    fn tag(
        &self,
        repository: Repository,
        tag: Tag,
        at: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<TagView>>;

    /// Writes what a person says of an interrupted move, and shows the tag as it is then.
    fn settle(
        &self,
        caller: Principal,
        repository: Repository,
        tag: Tag,
        settlement: Settlement,
        reason: String,
        on_behalf_of: String,
    ) -> BoxFuture<'_, Result<TagView>>;

    /// Lists at most `query.limit` entries of the ledger, newest first.
    fn entries(&self, query: EntryQuery) -> BoxFuture<'_, Result<Vec<EntryView>>>;

    /// Stops moves; when the answer is there, none begins any more.
    fn freeze(
        &self,
        caller: Principal,
        request: FreezeRequest,
    ) -> BoxFuture<'_, Result<FreezeView>>;

    /// Lists the freezes that hold, newest first, and on request the newest that have ended; all
    /// of them, since the server knows who may see which.
    fn freezes(&self, include_ended: bool) -> BoxFuture<'_, Result<Vec<FreezeView>>>;

    /// Finds one freeze, whether it holds or has ended.
    fn find_freeze(&self, id: Uuid) -> BoxFuture<'_, Result<Option<FreezeView>>>;

    /// Ends a freeze before its time; one that has ended stays as it is. The server has checked
    /// that the caller may.
    fn lift(
        &self,
        caller: Principal,
        id: Uuid,
        reason: String,
    ) -> BoxFuture<'_, Result<FreezeView>>;
}
