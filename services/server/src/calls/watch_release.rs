//! `ReleaseService.WatchRelease`.

use std::{pin::Pin, sync::Arc};

use colophon_api::v1;
use colophon_domain::{Failure, Principal, Reason, ReleaseView, Result, Retry};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::Calls;
use crate::{answer, fields, health::Stopping, places::Place};

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
    /// The end of the stream's life.
    late: Pin<Box<Sleep>>,
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
        let place = self.place_to_wait(caller)?;
        let view = self.visible(caller, id).await?;
        let ended = view.state.ended();
        let later = if ended { stream::empty().boxed() } else { self.service.watch(id) };
        let follower = Follower {
            seen: view.revision,
            first: Some(view).filter(|view| view.revision != request.after_revision),
            later,
            over: ended,
            stopping: stopping.0,
            late: Box::pin(sleep(self.watch_life)),
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
                // In this order: a release that changes all the time keeps no stream alive.
                biased;
                () = self.stopping.cancelled() => Some(Err(server_stops())),
                () = &mut self.late => Some(Err(lived_long_enough())),
                next = self.later.next() => next,
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
    goes_on_elsewhere("the server stops; another one goes on")
}

/// To clients the same as a server that stops, which they all know how to go on after. The call that
/// goes on is authenticated anew: a caller that was removed or has expired does not watch for ever.
fn lived_long_enough() -> Failure {
    goes_on_elsewhere("the stream has lived as long as streams may")
}

fn goes_on_elsewhere(text: &'static str) -> Failure {
    Failure::new(Reason::ServerStopping, text)
        .remedy("call again with the revision that was seen last")
        .retry(Retry::Backoff)
}
