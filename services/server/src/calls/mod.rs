//! The methods of the contract, one a file: a request is parsed, the caller's rights are asked,
//! the engine is called, its answer is written. Both faces call the same functions.

mod abandon_upload;
mod cancel_release;
mod create_freeze;
mod create_release;
mod find_blobs;
mod get_release;
mod get_tag;
mod get_upload;
mod idempotency;
mod lift_freeze;
mod list_freezes;
mod list_releases;
mod list_tag_moves;
mod plan_release;
mod put_blob;
mod put_manifest;
mod release_request;
mod retry_release;
mod rollback;
mod settle_tag;
mod start_upload;
mod target_request;
mod watch_release;

use std::{fmt, sync::Arc, time::Duration};

use colophon_domain::{
    Action, Clock, Failure, Principal, Reason, ReleaseView, RepositoryPattern, Result, Retry,
    Visibility,
};
use prost::Message;
use uuid::Uuid;

use crate::{
    Releases, ServerSettings, Uploads,
    places::{Place, Places},
};

pub(crate) use idempotency::with_header_key;
pub(crate) use watch_release::Watched;

/// A page's rows may have so many bytes together: below the 4 MiB that gRPC clients take.
const PAGE_LIMIT_BYTES: usize = 3 << 20;

/// When who waits in too many calls may come again; somebody's wait may be over by then.
const LATER: Duration = Duration::from_secs(5);

/// What the methods work with.
pub(crate) struct Calls {
    service: Arc<dyn Releases>,
    uploads: Arc<dyn Uploads>,
    clock: Arc<dyn Clock>,
    /// The calls of each caller that wait for a release: streams and long polls.
    watchers: Places,
    /// A call that waits must be answered before its time is over.
    longest_wait: Duration,
    /// So long a stream lives.
    watch_life: Duration,
    /// So long nothing of a blob may come.
    content_pause: Duration,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    pub(crate) fn new(
        service: Arc<dyn Releases>,
        uploads: Arc<dyn Uploads>,
        clock: Arc<dyn Clock>,
        settings: &ServerSettings,
    ) -> Self {
        let watchers = Places::new(settings.watchers_per_caller);
        let longest_wait = settings.call_timeout.mul_f64(0.9);
        Self {
            service,
            uploads,
            clock,
            watchers,
            longest_wait,
            watch_life: settings.watch_life,
            content_pause: settings.content_pause,
        }
    }

    /// A place among the caller's calls that wait.
    ///
    /// # Errors
    /// `TOO_MANY_WATCHERS` if the caller has none left.
    fn place_to_wait(&self, caller: &Principal) -> Result<Place> {
        self.watchers.take(&caller.name).ok_or_else(|| {
            let most = self.watchers.most();
            let text = format!("{} waits for releases in {most} calls already", caller.name);
            Failure::new(Reason::TooManyWatchers, text)
                .remedy("end some of them, or ask for the release without waiting")
                .retry(Retry::Wait(LATER))
        })
    }

    /// One release that the caller may see. What may not be seen and what is not there get the
    /// same answer, so that an id tells nothing about other teams' releases.
    async fn visible(&self, caller: &Principal, id: Uuid) -> Result<ReleaseView> {
        let release = self.service.get(visibility(caller), id).await?;
        release.ok_or_else(|| {
            Failure::new(Reason::NotFound, format!("there is no release {id}"))
                .field("id")
                .remedy("a release is shown to its caller and to who may read all its targets")
        })
    }
}

/// What the caller may see.
fn visibility(caller: &Principal) -> Visibility {
    let readable: Vec<RepositoryPattern> = caller
        .grants
        .iter()
        .filter(|grant| grant.actions.contains(&Action::Read))
        .flat_map(|grant| grant.repositories.iter().cloned())
        .collect();
    Visibility { principal: caller.name.clone(), readable }
}

/// One page out of rows of which one more than a page was asked for: the messages, and the
/// position of the last of them if there are more. The page ends early where its messages
/// would grow too large for one answer.
fn page<V, M: Message, P>(
    rows: Vec<V>,
    size: u16,
    position: impl Fn(&V) -> P,
    write: impl Fn(V) -> M,
) -> (Vec<M>, Option<P>) {
    let count = rows.len();
    let (mut messages, mut last, mut bytes) = (Vec::new(), None, 0_usize);
    for row in rows.into_iter().take(size.into()) {
        let at = position(&row);
        let message = write(row);
        bytes = bytes.saturating_add(message.encoded_len());
        if bytes > PAGE_LIMIT_BYTES && !messages.is_empty() {
            break;
        }
        messages.push(message);
        last = Some(at);
    }
    let more = messages.len() < count;
    (messages, last.filter(|_| more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(rows: Vec<usize>, size: u16) -> (usize, Option<usize>) {
        let (messages, last) = page(rows, size, |row| *row, |row| "x".repeat(row));
        (messages.len(), last)
    }

    #[test]
    fn one_row_more_than_a_page_means_that_there_is_a_next_page() {
        assert_eq!(pages(vec![], 2), (0, None));
        assert_eq!(pages(vec![1, 2], 2), (2, None));
        assert_eq!(pages(vec![1, 2, 3], 2), (2, Some(2)));
    }

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let large = PAGE_LIMIT_BYTES / 2 + 1;
        assert_eq!(pages(vec![1, large, large], 3), (2, Some(large)));
        assert_eq!(pages(vec![4 << 20, 1], 2), (1, Some(4 << 20)));
    }
}
