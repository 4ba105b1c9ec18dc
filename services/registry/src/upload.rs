//! Writing a blob (distribution-spec, "Pushing a blob monolithically"): a POST, which may find
//! the blob in another repository of the registry, and one streamed PUT of known length. An
//! upload that does not come to its end is cancelled.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use colophon_domain::{Digest, Failure, Reason, Repository, Result, Retry, Urgency};
use futures_util::Stream;
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Body, Response};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use url::Url;

use crate::{
    answer::Asked, auth::Turn, config::RegistryConfig, copy::Progress, download::Download,
    exchange::Call, host, manifest::Descriptor, manifests::content_digest, rate::Rate,
    request::Line, session::Session, transport,
};

/// Pieces between a download and its upload. A piece is what the network gave at once, at most
/// a few hundred KiB, so this bounds the memory of a transfer.
const PIECES: usize = 2;
/// For cancelling an upload, which nobody waits for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How an upload begins.
pub(crate) enum Begun {
    /// The registry had the blob in another repository.
    Mounted,
    /// The upload can go on.
    Started(Upload),
}

/// An upload that the registry waits for; cancelled when dropped.
pub(crate) struct Upload {
    session: Session,
    location: Url,
    ended: bool,
}

impl Session {
    /// Begins an upload.
    pub(crate) async fn begin(&self) -> Result<Upload> {
        let call =
            Call::writing(self, Method::POST, self.url("blobs/uploads/"), "starting an upload");
        match self.begin_upload(call).await? {
            Begun::Started(upload) => Ok(upload),
            Begun::Mounted => Err(self
                .asked("starting an upload", true)
                .protocol("the registry says 201 to an upload without content")),
        }
    }

    /// Begins an upload by asking the registry to take the blob from another repository of its
    /// own. Whatever speaks against that (the permission to read there, a registry that cannot)
    /// is no failure: `None`, and the blob is sent.
    #[tracing::instrument(level = "debug", name = "registry.blob.mount", skip_all, fields(digest = %blob.digest, from = from.name()))]
    pub(crate) async fn mount(&self, blob: &Descriptor, from: &Repository) -> Option<Begun> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut()
            .append_pair("mount", blob.digest.as_str())
            .append_pair("from", from.name());
        let mut call = Call::writing(self, Method::POST, url, "mounting a blob");
        call.scopes = call.scopes.and_pull(from.name());
        call.renew = false;
        match self.begin_upload(call).await {
            Ok(begun) => Some(begun),
            Err(failure) => {
                tracing::debug!(
                    repository = %self.repository, digest = %blob.digest, %failure,
                    "not mounted, sent instead"
                );
                None
            }
        }
    }

    pub(crate) async fn begin_upload(&self, call: Call<'_>) -> Result<Begun> {
        let _place = self.place(&self.host.limits.requests).await;
        let response = self.call(&call).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Begun::Mounted),
            status if status.is_success() => {
                let location = self.host.location(&call.url, &response, &call.asked)?;
                Ok(Begun::Started(Upload { session: self.clone(), location, ended: false }))
            }
            _ => Err(self.refusal(response, &call.asked).await.into_failure(&call.asked)),
        }
    }
}

impl Upload {
    /// Sends the blob and completes the upload.
    pub(crate) async fn send(
        mut self,
        blob: &Descriptor,
        download: Download,
        progress: &Arc<dyn Progress>,
    ) -> Result<()> {
        let session = self.session.clone();
        let asked = session.asked(format!("sending the blob {}", blob.digest), true);
        let flow = Arc::new(Flow::new(blob, Arc::clone(progress)));
        let (pieces, body) = mpsc::channel(PIECES);
        let pump = AbortOnDropHandle::new(tokio::spawn(
            pump(download, pieces, Arc::clone(&flow)).in_current_span(),
        ));
        let sent = self.put(blob, Pieces { body, flow: Arc::clone(&flow) }, &asked).await;
        drop(pump);
        match sent {
            Ok(()) => {
                self.ended = true;
                Ok(())
            }
            // A source that failed makes the PUT fail; the first is the cause.
            Err(failure) => Err(flow.take_failure().unwrap_or(failure)),
        }
    }

    async fn put(&self, blob: &Descriptor, pieces: Pieces, asked: &Asked<'_>) -> Result<()> {
        let session = &self.session;
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let mut turn = Turn::new(session, session.scopes(), true);
        let own = session.host.is_own(&url);
        let authorization = if own { turn.header(asked).await? } else { None };
        let pass = if own { Some(session.ready().await?) } else { None };
        let place = host::place(&url);
        let flow = Arc::clone(&pieces.flow);
        let mut request = session
            .host
            .client_for(&url, asked)?
            .put(url.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(header::CONTENT_LENGTH, blob.size)
            .body(if blob.size == 0 { Body::from("") } else { Body::wrap_stream(pieces) });
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let (host, repository) = (&*session.host, session.repository.name());
        let line = Line { host, method: &Method::PUT, url: &url, repository, attempt: 1 };
        let sent = async {
            tokio::select! {
                sent = request.send() => sent.map_err(|error| transport::explain(error, asked)),
                failure = flow.watch(&host.config, asked) => Err(failure),
            }
        };
        let mut response = line.send(sent).await?;
        if let Some(pass) = pass {
            session.answered(pass, &response);
            response.extensions_mut().insert(turn.sent());
        } else if !response.status().is_success() {
            // Whatever another host says of authorization or pauses is not the registry's word.
            let status = response.status();
            let what = if status.is_client_error() { "the upload was forgotten: " } else { "" };
            let text = format!("{what}HTTP {} from {place}", status.as_u16());
            return Err(asked.unavailable(&text));
        }
        self.completed(response, blob, &mut turn, asked).await
    }

    async fn completed(
        &self,
        response: Response,
        blob: &Descriptor,
        turn: &mut Turn<'_>,
        asked: &Asked<'_>,
    ) -> Result<()> {
        let session = &self.session;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => {
                match content_digest(response.headers()) {
                    Some(stored) if stored != blob.digest => Err(asked
                        .failure(Reason::DigestMismatch, &format!("the registry stored {stored}"))),
                    _ => Ok(()),
                }
            }
            // The body is gone, so it cannot be sent again here; but the next attempt finds a
            // fresh token or a newer credential.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                turn.refused(response, asked).await?;
                Err(asked.unavailable("the token was no longer accepted"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let pause = session.host.limits.budget.pause_left();
                Err(asked.failure(Reason::RateLimited, "HTTP 429").retry(Retry::Wait(pause)))
            }
            status if status.is_success() => {
                Err(asked.protocol(&format!("HTTP {} does not complete it", status.as_u16())))
            }
            // The upload was lost or collected; a new one may do.
            StatusCode::NOT_FOUND => Err(asked.unavailable("the registry forgot the upload")),
            _ => Err(session.refusal(response, asked).await.into_failure(asked)),
        }
    }

    /// Tells the registry that nothing more will come, as far as it wants to hear it.
    pub(crate) async fn cancel(mut self) {
        delete(&self.session, &self.location).await;
        // Not before: whoever is broken off meanwhile leaves it to `drop`.
        self.ended = true;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, location) = (self.session.clone(), self.location.clone());
            runtime.spawn(async move { delete(&session, &location).await });
        }
    }
}

async fn delete(session: &Session, location: &Url) {
    // Before what begins anew: it has little time.
    let session = &session.urgent(Urgency::Normal.max(session.urgency));
    let mut call = Call::writing(session, Method::DELETE, location.clone(), "cancelling an upload");
    call.renew = false;
    call.deadline = Some(Instant::now() + CANCEL_TIMEOUT);
    let sent = async {
        let _place = session.place_by(call.deadline, &call.asked).await?;
        if session.host.is_own(location) {
            session.call(&call).await.map_err(Failure::from)
        } else {
            session.call_anonymously(&call).await
        }
    };
    if let Err(failure) = sent.await {
        tracing::debug!(%failure, "an upload could not be cancelled");
    }
}

/// Reads the download into the channel; a failure is kept for whoever asks, and ends the body.
async fn pump(
    mut download: Download,
    pieces: mpsc::Sender<Result<Bytes, SourceFailed>>,
    flow: Arc<Flow>,
) {
    loop {
        let piece = match download.next().await {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(failure) => {
                flow.keep_failure(failure);
                Err(SourceFailed)
            }
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// Ends the body of a PUT; the cause is kept in the [`Flow`].
#[derive(Debug, thiserror::Error)]
#[error("the source of the blob failed")]
struct SourceFailed;

/// The body of the PUT.
struct Pieces {
    body: mpsc::Receiver<Result<Bytes, SourceFailed>>,
    flow: Arc<Flow>,
}

impl Stream for Pieces {
    type Item = Result<Bytes, SourceFailed>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.body.poll_recv(context);
        self.flow.starving.store(next.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Some(Ok(piece))) = &next {
            self.flow.passed(piece.len());
        }
        next
    }
}

/// What is known about the bytes of an upload while it runs.
struct Flow {
    blob: Digest,
    begin: Instant,
    /// Milliseconds from the begin to the last piece that the target took.
    last_ms: AtomicU64,
    /// The target waits for the source.
    starving: AtomicBool,
    left: AtomicU64,
    progress: Arc<dyn Progress>,
    failure: Mutex<Option<Failure>>,
}

impl Flow {
    fn new(blob: &Descriptor, progress: Arc<dyn Progress>) -> Self {
        Self {
            blob: blob.digest.clone(),
            begin: Instant::now(),
            last_ms: AtomicU64::new(0),
            starving: AtomicBool::new(false),
            left: AtomicU64::new(u64::try_from(blob.size).unwrap_or_default()),
            progress,
            failure: Mutex::new(None),
        }
    }

    fn passed(&self, length: usize) {
        let since = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
        self.left.fetch_sub(length as u64, Ordering::Relaxed);
        self.progress.sent(&self.blob, i64::try_from(length).unwrap_or(i64::MAX));
    }

    fn keep_failure(&self, failure: Failure) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns when the target takes no bytes for too long, or too few, or has all of them and does not
    /// answer. A source that is slow is not the target's fault, and has its own limit.
    async fn watch(&self, config: &RegistryConfig, asked: &Asked<'_>) -> Failure {
        let often = config.idle_timeout.min(config.commit_timeout) / 4;
        let mut tick = tokio::time::interval(often.max(Duration::from_millis(1)));
        let mut rate = Rate::new(config.idle_timeout);
        let mut before = (Instant::now(), self.left.load(Ordering::Relaxed));
        loop {
            tick.tick().await;
            let left = self.left.load(Ordering::Relaxed);
            let complete = left == 0;
            let patience = if complete { config.commit_timeout } else { config.idle_timeout };
            let last = self.begin + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let starving = self.starving.load(Ordering::Relaxed) && !complete;
            if last.elapsed() > patience && !starving {
                return asked.unavailable(if complete {
                    "no answer after the last byte"
                } else {
                    "the registry takes no more bytes"
                });
            }
            let now = Instant::now();
            if complete || starving {
                rate.restart();
            } else if rate.too_slow(now - before.0, before.1.saturating_sub(left)) {
                return asked.unavailable("the registry takes too few bytes");
            }
            before = (now, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::BlobOutcome;

    struct Unheard;

    impl Progress for Unheard {
        fn planned(&self, _: i64, _: i64) {}
        fn begun(&self, _: &Digest, _: i64) {}
        fn blob(&self, _: &Digest, _: BlobOutcome, _: i64) {}
        fn sent(&self, _: &Digest, _: i64) {}
    }

    /// What the watch says of a target that takes `bytes` every ten seconds.
    async fn watched(bytes: usize, starving: bool) -> Option<Failure> {
        let repository = Repository::parse("r.corp.lan/a/b").unwrap();
        let asked = Asked { repository: &repository, what: "sending".into(), writes: true };
        let config = RegistryConfig::new(repository.registry().clone());
        let blob = Descriptor {
            media_type: String::new(),
            digest: Digest::sha256(b"blob"),
            size: 1 << 40,
        };
        let flow = Flow::new(&blob, Arc::new(Unheard));
        flow.starving.store(starving, Ordering::Relaxed);
        let takes = async {
            for _ in 0..100 {
                flow.passed(bytes);
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        tokio::select! {
            failure = flow.watch(&config, &asked) => Some(failure),
            () = takes => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_takes_too_few_bytes_is_given_up_and_a_slow_source_is_not() {
        let failure = watched(1000, false).await.unwrap();
        assert_eq!(failure.retry_class(), Retry::Backoff);
        assert!(failure.message().contains("too few bytes"), "{failure}");
        assert!(watched(64 << 10, false).await.is_none());
        assert!(watched(1000, true).await.is_none());
    }
}
