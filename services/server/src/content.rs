//! Content on its way from a client to the engine: passed on piece by piece, never gathered. It
//! ends where the client ends it, and breaks off when the server stops, when nothing has come for
//! too long, and when more comes than was said. Why it broke off is what the caller is told.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use colophon_domain::{Failure, Reason, Result, Retry};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use crate::health::Stopping;

/// What a face makes of the messages or of the body that come.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes>>;

/// Why content has broken off; empty as long as it has not.
#[derive(Clone, Default)]
pub(crate) struct Broken(Arc<Mutex<Option<Failure>>>);

impl Broken {
    /// The failure, for the answer.
    pub(crate) fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the failure, and gives one of the same kind to who reads the content.
    fn with(&self, failure: Failure) -> Failure {
        let told = Failure::new(failure.reason(), failure.message().to_owned());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        told
    }
}

/// Where content stands between two pieces.
struct Coming {
    pieces: Pieces,
    left: u64,
    pause: Duration,
    stopping: Stopping,
    broken: Broken,
    over: bool,
}

/// The content as the engine gets it: at most `left` bytes, with at most `pause` between two pieces,
/// until the process stops.
pub(crate) fn watched(
    pieces: Pieces,
    left: u64,
    pause: Duration,
    stopping: Stopping,
) -> (Pieces, Broken) {
    let broken = Broken::default();
    let coming = Coming { pieces, left, pause, stopping, broken: broken.clone(), over: false };
    let watched = stream::unfold(coming, |mut coming| async move {
        let next = coming.next().await?;
        Some((next, coming))
    });
    (watched.boxed(), broken)
}

impl Coming {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.over {
            return None;
        }
        let next = tokio::select! {
            // In this order: a client that sends without a pause does not hold up the end.
            biased;
            () = self.stopping.0.cancelled() => Some(Err(server_stops())),
            next = tokio::time::timeout(self.pause, full(&mut self.pieces)) => {
                next.unwrap_or_else(|_| Some(Err(silent(self.pause))))
            }
        };
        let piece = next?.and_then(|piece| self.counted(piece));
        Some(piece.map_err(|failure| {
            self.over = true;
            self.broken.with(failure)
        }))
    }

    fn counted(&mut self, piece: Bytes) -> Result<Bytes> {
        self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(too_much)?;
        Ok(piece)
    }
}

/// The next piece that has something in it: empty ones keep no stream alive.
async fn full(pieces: &mut Pieces) -> Option<Result<Bytes>> {
    loop {
        match pieces.next().await {
            Some(Ok(piece)) if piece.is_empty() => {}
            next => return next,
        }
    }
}

fn server_stops() -> Failure {
    Failure::new(Reason::ServerStopping, "the server stops; another one goes on")
        .remedy("ask with FindBlobs how far the blob is, and send the rest")
        .retry(Retry::Backoff)
}

fn silent(pause: Duration) -> Failure {
    Failure::new(Reason::Timeout, format!("nothing has come for {} ms", pause.as_millis()))
        .remedy("ask with FindBlobs how far the blob is, and send the rest")
        .retry(Retry::Backoff)
}

/// Said before anything was passed on, too, where a length is announced.
pub(crate) fn too_much() -> Failure {
    Failure::invalid("content", "more comes than the blob has behind the offset")
        .remedy("give the whole blob's size, and send what follows the offset")
}

/// The client's connection ended in the middle; hardly ever there is somebody to read it.
pub(crate) fn broke_off() -> Failure {
    Failure::invalid("content", "the content ended before it was complete")
        .remedy("ask with FindBlobs how far the blob is, and send the rest")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(50);

    fn pieces(list: Vec<Bytes>) -> Pieces {
        stream::iter(list.into_iter().map(Ok)).boxed()
    }

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn what_was_said_comes_through_and_no_more() {
        let come = pieces(vec![text("ab"), text(""), text("c")]);
        let (watched, broken) = watched(come, 3, PAUSE, Stopping::default());
        let got: Vec<_> = watched.map(Result::unwrap).collect().await;
        assert_eq!((got.concat(), broken.take().is_none()), (b"abc".to_vec(), true));

        let come = pieces(vec![text("ab"), text("cd"), text("e")]);
        let (watched, broken) = super::watched(come, 3, PAUSE, Stopping::default());
        let got: Vec<_> = watched.collect().await;
        assert_eq!(got.len(), 2, "nothing comes after a failure: {got:?}");
        assert_eq!(broken.take().unwrap().field_name(), Some("content"));
    }

    #[tokio::test]
    async fn a_pause_or_the_servers_stop_breaks_it_off() {
        let empty = stream::repeat_with(|| Ok(Bytes::new())).then(|piece| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            piece
        });
        for come in [stream::pending().boxed(), empty.boxed()] {
            let (mut watched, broken) = watched(come, 3, PAUSE, Stopping::default());
            assert_eq!(watched.next().await.unwrap().unwrap_err().reason(), Reason::Timeout);
            assert!(broken.take().unwrap().remedy_text().unwrap().contains("FindBlobs"));
        }
        let stopping = Stopping::default();
        let endless = stream::repeat_with(|| Ok(text("a"))).boxed();
        let (mut watched, broken) = watched(endless, u64::MAX, PAUSE, stopping.clone());
        assert!(watched.next().await.unwrap().is_ok());
        stopping.0.cancel();
        assert_eq!(watched.next().await.unwrap().unwrap_err().reason(), Reason::ServerStopping);
        assert_eq!(broken.take().unwrap().retry_class(), Retry::Backoff);
        assert!(watched.next().await.is_none());
    }
}
