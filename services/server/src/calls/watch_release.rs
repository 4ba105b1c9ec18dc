//! `ReleaseService.WatchRelease`.

use std::sync::Arc;

use colophon_api::v1;
use colophon_domain::{Failure, Principal, Reason, ReleaseView, Result, Retry};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio_util::sync::CancellationToken;

use super::Calls;
use crate::{answer, fields, health::Stopping, watchers::Place};

/// The states of a release, from the one after that which the caller has seen.
pub(crate) struct Watched {
    /// The caller has seen the end already: nothing will ever come.
    pub(crate) over: bool,
    /// What comes; ends after the release's end, and after a failure.
    pub(crate) states: BoxStream<'static, Result<v1::Release>>,
}

/// What a stream remembers between two states.
struct Follower {
    first: Option<ReleaseView>,
    later: BoxStream<'static, Result<Arc<ReleaseView>>>,
    seen: u64,
    over: bool,
    stopping: CancellationToken,
    _place: Place,
}

impl Calls {
    /// Follows a release for a caller who may see it. The first state is read for this call alone:
    /// what this process saw a moment ago may be older than what the caller saw at another one.
    pub(crate) async fn watch_release(
        &self,
        caller: &Principal,
        request: v1::WatchReleaseRequest,
        stopping: Stopping,
    ) -> Result<Watched> {
        let id = fields::id("id", &request.id)?;
        let place = self.watchers.place(&caller.name)?;
        let view = self.visible(caller, id).await?;
        let ended = view.state.ended();
        let later = if ended { stream::empty().boxed() } else { self.service.watch(id) };
        let follower = Follower {
            seen: view.revision,
            first: Some(view).filter(|view| view.revision != request.after_revision),
            later,
            over: ended,
            stopping: stopping.0,
            _place: place,
        };
        let over = ended && follower.first.is_none();
        let states = stream::unfold(follower, |mut follower| async move {
            let next = follower.next().await?;
            Some((next, follower))
        });
        Ok(Watched { over, states: states.boxed() })
    }
}

impl Follower {
    async fn next(&mut self) -> Option<Result<v1::Release>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(answer::release(first)));
        }
        while !self.over {
            let next = tokio::select! {
                next = self.later.next() => next,
                () = self.stopping.cancelled() => Some(Err(server_stops())),
            };
            match next {
                None => return None,
                Some(Err(failure)) => {
                    self.over = true;
                    return Some(Err(failure));
                }
                Some(Ok(view)) if view.revision <= self.seen => {}
                Some(Ok(view)) => {
                    self.seen = view.revision;
                    self.over = view.state.ended();
                    return Some(Ok(answer::release(ReleaseView::clone(&view))));
                }
            }
        }
        None
    }
}

fn server_stops() -> Failure {
    Failure::new(Reason::ServerStopping, "the server stops; another one goes on")
        .remedy("call again with the revision that was seen last")
        .retry(Retry::Backoff)
}
