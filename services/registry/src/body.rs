//! The bytes of a blob between its download and the requests of its upload: handed on as they
//! come, never more than a few pieces of them in memory, and watched.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use colophon_domain::{Digest, Failure, Result};
use futures_util::Stream;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{
    answer::Asked, config::RegistryConfig, copy::Progress, manifest::Descriptor, rate::Rate,
};

/// Pieces between a download and its upload. A piece is what the network gave at once, at most
/// a few hundred KiB, so this bounds the memory of a transfer.
const PIECES: usize = 2;

/// Where the bytes of a blob come from, in pieces.
pub(crate) trait Source: Send + 'static {
    /// The offset of what [`next`](Self::next) hands out first.
    fn start(&self) -> u64;

    /// The next piece; `None` after the last one, when the blob was the right one.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH` before the last piece is handed out.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// What a source brings, for the bodies of one request after the other.
pub(crate) struct Feed {
    pipe: Arc<Mutex<Pipe>>,
    failure: Arc<Mutex<Option<Failure>>>,
    _pump: AbortOnDropHandle<()>,
}

struct Pipe {
    pieces: mpsc::Receiver<Result<Bytes, SourceFailed>>,
    /// The offset of what comes next, of which `rest` is here already.
    at: u64,
    rest: Bytes,
}

impl Pipe {
    /// Waits until bytes are here; false at the end of the blob.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, SourceFailed>> {
        while self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(context)) {
                Some(piece) => self.rest = piece?,
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// At most so many of the bytes that are here.
    fn take(&mut self, most: u64) -> Bytes {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        self.at += length as u64;
        self.rest.split_to(length)
    }
}

impl Feed {
    /// Begins to read a source.
    pub(crate) fn of(source: impl Source) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let failure = Arc::new(Mutex::new(None));
        let pipe = Pipe { pieces, at: source.start(), rest: Bytes::new() };
        let reading = pump(source, sender, Arc::clone(&failure)).in_current_span();
        Self {
            pipe: Arc::new(Mutex::new(pipe)),
            failure,
            _pump: AbortOnDropHandle::new(tokio::spawn(reading)),
        }
    }

    /// Lets the bytes before an offset pass, which the target has already. Where that is all of the
    /// blob, they have the right digest.
    pub(crate) async fn skip_to(&self, offset: u64, size: u64) -> Result<()> {
        let passed = std::future::poll_fn(|context| {
            let mut pipe = lock(&self.pipe);
            while pipe.at < offset || offset == size {
                if !ready!(pipe.poll_fill(context))? {
                    break;
                }
                let most = offset.saturating_sub(pipe.at);
                if pipe.take(most).is_empty() {
                    break;
                }
            }
            Poll::Ready(Ok::<_, SourceFailed>(()))
        });
        passed.await.map_err(|broken| self.failed().unwrap_or_else(|| broken.into()))
    }

    /// The body of a request: the bytes that come next, up to an offset.
    pub(crate) fn up_to(&self, end: u64, flow: &Arc<Flow>) -> Pieces {
        Pieces { pipe: Arc::clone(&self.pipe), end, flow: Arc::clone(flow) }
    }

    /// Why there are no more bytes, if that is the source's fault. A source that failed makes the
    /// request fail that its bytes are for; this is the cause.
    pub(crate) fn failed(&self) -> Option<Failure> {
        lock(&self.failure).take()
    }
}

/// Reads the source into the channel; a failure is kept for whoever asks, and ends the body.
async fn pump(
    mut source: impl Source,
    pieces: mpsc::Sender<Result<Bytes, SourceFailed>>,
    failed: Arc<Mutex<Option<Failure>>>,
) {
    loop {
        let piece = match source.next().await {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(failure) => {
                *lock(&failed) = Some(failure);
                Err(SourceFailed)
            }
        };
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            return;
        }
    }
}

/// Ends the body of a request; the cause is kept in the [`Feed`].
#[derive(Debug, thiserror::Error)]
#[error("the source of the blob failed")]
pub(crate) struct SourceFailed;

impl From<SourceFailed> for Failure {
    fn from(broken: SourceFailed) -> Self {
        Self::new(colophon_domain::Reason::Internal, broken.to_string()).caused_by(broken)
    }
}

/// The body of one request.
pub(crate) struct Pieces {
    pipe: Arc<Mutex<Pipe>>,
    end: u64,
    flow: Arc<Flow>,
}

impl Stream for Pieces {
    type Item = Result<Bytes, SourceFailed>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pipe = lock(&self.pipe);
        let most = self.end.saturating_sub(pipe.at);
        if most == 0 {
            return Poll::Ready(None);
        }
        let filled = pipe.poll_fill(context);
        self.flow.starving.store(filled.is_pending(), Ordering::Relaxed);
        Poll::Ready(match ready!(filled) {
            Ok(true) => {
                let piece = pipe.take(most);
                self.flow.passed(piece.len());
                Some(Ok(piece))
            }
            Ok(false) => None,
            Err(broken) => Some(Err(broken)),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known about the bytes of a request while it runs.
pub(crate) struct Flow {
    blob: Digest,
    begin: Instant,
    /// Milliseconds from the begin to the last piece that the target took.
    last_ms: AtomicU64,
    /// The target waits for the source.
    starving: AtomicBool,
    left: AtomicU64,
    progress: Arc<dyn Progress>,
}

impl Flow {
    /// For a body of so many bytes.
    pub(crate) fn new(blob: &Descriptor, length: u64, progress: Arc<dyn Progress>) -> Self {
        Self {
            blob: blob.digest.clone(),
            begin: Instant::now(),
            last_ms: AtomicU64::new(0),
            starving: AtomicBool::new(false),
            left: AtomicU64::new(length),
            progress,
        }
    }

    fn passed(&self, length: usize) {
        let since = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
        self.left.fetch_sub(length as u64, Ordering::Relaxed);
        self.progress.sent(&self.blob, i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// Bytes of the body that nobody has taken yet.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Returns when the target takes no bytes for too long, or too few, or has all of them and does not
    /// answer. A source that is slow is not the target's fault, and has its own limit.
    pub(crate) async fn watch(&self, config: &RegistryConfig, asked: &Asked<'_>) -> Failure {
        let often = config.idle_timeout.min(config.commit_timeout) / 4;
        let mut tick = tokio::time::interval(often.max(Duration::from_millis(1)));
        let mut rate = Rate::new(config.idle_timeout);
        let mut before = (Instant::now(), self.left());
        loop {
            tick.tick().await;
            let left = self.left();
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
    use colophon_domain::{Repository, Retry};

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
        let flow = Flow::new(&blob, 1 << 40, Arc::new(Unheard));
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
