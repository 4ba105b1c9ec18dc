//! A blob that a client sends goes straight into an upload at the registry, in the pieces in which a copy
//! would send it. It comes once: what the registry has confirmed is written down, and everything else
//! has to be sent again, by whoever goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use colophon_domain::{Access, BlobWish, Digest, Failure, Reason, Result, Retry, Trail};
use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    body::Feed,
    copy::{BlobOutcome, Progress},
    incoming::Incoming,
    manifest::Descriptor,
    measure::Untold,
    metrics,
    seal::Seal,
    session::Session,
    trails::Trails,
    upload::Upload,
    way::{Way, about},
};

/// For asking a registry about an upload that broke off, while the client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it is written down how far a blob is that a client sends.
pub trait TrailBook: Send + Sync {
    /// Writes it down.
    ///
    /// # Errors
    /// `LEASE_LOST` ends the reception. Any other failure costs nothing now.
    fn mark<'a>(&'a self, trail: &'a Trail) -> BoxFuture<'a, Result<()>>;
}

/// A blob that is about to come.
pub struct Reception<'a> {
    /// Which one.
    pub blob: &'a BlobWish,
    /// Where its content begins.
    pub offset: u64,
    /// How far whoever sent it before has come.
    pub trail: Option<Trail>,
    /// The registry is known to take it in one request only.
    pub whole: bool,
    /// Where it is written down.
    pub book: &'a dyn TrailBook,
}

/// What came of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The repository has it, and it has its digest.
    Complete,
    /// The content ended before the blob did; it is written down up to this offset.
    Part(u64),
}

/// Why a blob did not come to its end.
#[derive(Debug)]
pub struct Broken {
    /// What went wrong; whether trying again can help.
    pub failure: Failure,
    /// What is left of it.
    pub left: Remains,
}

/// What can be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// What is written down.
    Trail,
    /// Nothing: what is written down is good no more, and the blob begins anew.
    Nothing,
    /// Nothing, and the registry is to get the blob in one request.
    Whole,
}

/// What is written down of a blob that a client sends.
struct Ledger<'a> {
    reception: Reception<'a>,
    /// Up to where.
    kept: AtomicU64,
}

impl Trails for Ledger<'_> {
    fn is_written(&self) -> bool {
        true
    }

    fn trail(&self) -> Option<&Trail> {
        self.reception.trail.as_ref()
    }

    async fn keep(&self, trail: &Trail) -> Result<bool> {
        match self.reception.book.mark(trail).await {
            Ok(()) => {
                self.kept.store(trail.offset, Ordering::Relaxed);
                Ok(true)
            }
            Err(failure) if failure.reason() == Reason::LeaseLost => Err(failure),
            Err(failure) => {
                let digest = &self.reception.blob.digest;
                tracing::debug!(%failure, %digest, "an upload is not written down");
                Ok(false)
            }
        }
    }
}

impl Session {
    /// Passes a blob on to the registry while it comes. Nobody else may send it meanwhile. It waits for
    /// places as a copy does, and holds a few pieces of the content in memory at most.
    ///
    /// # Errors
    /// `UPLOAD_OFFSET` for content that begins elsewhere than the blob stands, `DIGEST_MISMATCH` for
    /// one that is not what was promised, `LEASE_LOST` by the book, the content's own failures, and
    /// the registry's. None of them is tried again here.
    #[tracing::instrument(level = "debug", name = "registry.blob.receive", skip_all, fields(repository = self.repository.name(), digest = %reception.blob.digest, bytes = reception.blob.size, offset = reception.offset))]
    pub async fn receive(
        &self,
        reception: Reception<'_>,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> Result<Received, Broken> {
        let blob = descriptor(reception.blob);
        if reception.trail.is_some() {
            // Without the credential the trail could not be read, and would be given up.
            let credential = self.credentials.credential(&self.repository, Access::Push, None);
            if let Err(failure) = credential.await {
                return Err(Broken { failure, left: Remains::Trail });
            }
        }
        let ledger = Ledger { reception, kept: AtomicU64::new(0) };
        let mut way = Way::of(self, &blob, &ledger, CancellationToken::new()).await;
        if ledger.reception.whole {
            way.goes_whole();
        }
        let short = Arc::default();
        match self.take_in(&blob, &mut way, &ledger, content, &short).await {
            Ok(()) => {
                way.arrived(&self.host);
                metrics::blob(&self.host, BlobOutcome::Copied, blob.size);
                Ok(Received::Complete)
            }
            Err(failure) => {
                let known = ledger.reception.whole;
                let kept = ledger.kept.load(Ordering::Relaxed);
                let left = left(&mut way, &failure, (known, kept)).await;
                if short.load(Ordering::Acquire) && left != Remains::Whole {
                    return Ok(Received::Part(if left == Remains::Trail { kept } else { 0 }));
                }
                Err(Broken { failure, left })
            }
        }
    }

    async fn take_in(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        ledger: &Ledger<'_>,
        content: BoxStream<'static, Result<Bytes>>,
        short: &Arc<AtomicBool>,
    ) -> Result<()> {
        let _upload = self.place(&self.host.limits.uploads).await;
        let _reception = self.place(&self.shared.limits.receptions).await;
        let _place = self.place(&self.shared.limits.transfers).await;
        // The registry may have more of it than is written down, but its digest goes on from there.
        let written = way.offset();
        way.find().await?;
        let stands = if way.upload.is_some() { written } else { 0 };
        let (wish, offset) = (ledger.reception.blob, ledger.reception.offset);
        if offset != stands {
            return Err(elsewhere(&wish.digest, stands, offset));
        }
        ledger.kept.store(stands, Ordering::Relaxed);
        if way.upload.is_none() {
            way.upload = Some(self.begin().await?);
        }
        let idle = self.host.config.idle_timeout;
        let incoming =
            Incoming::new(content, (&wish.digest, wish.size), &way.marks, offset, idle, short);
        let span = tracing::debug_span!("registry.blob.upload", offset = way.offset());
        self.pass_on(blob, way, ledger, Feed::of(incoming)).instrument(span).await
    }

    async fn pass_on(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        ledger: &Ledger<'_>,
        feed: Feed,
    ) -> Result<()> {
        let progress: Arc<dyn Progress> = Arc::new(Untold);
        loop {
            let how = (way.grid, way.whole(&self.host));
            let Some(upload) = way.upload.as_mut() else { return Ok(()) };
            if upload.advance(blob, how, &feed, &progress).await? {
                return Ok(());
            }
            way.keep(ledger).await?;
        }
    }

    /// Cancels an upload that is written down, and that nobody goes on with. One that was written down
    /// with another credential is left to the registry.
    ///
    /// # Errors
    /// Failures that pass, of the registry or of the credential.
    pub async fn abandon(&self, blob: &Digest, trail: &Trail) -> Result<()> {
        let credential = self.credentials.credential(&self.repository, Access::Push, None).await?;
        let (repository, digest) = (self.repository.clone(), blob.clone());
        // Slow on purpose.
        let sealing = move || Seal::new(credential.as_ref(), &repository, &digest);
        let seal = tokio::task::spawn_blocking(sealing).await.ok().flatten();
        let location =
            seal.and_then(|seal| seal.open(&trail.location, &about(trail.offset, &trail.hash)));
        match location.filter(|location| self.host.is_own(location)) {
            Some(location) => Upload::at(self, location, trail.offset).end().await,
            None => Ok(()),
        }
    }
}

fn descriptor(wish: &BlobWish) -> Descriptor {
    Descriptor {
        digest: wish.digest.clone(),
        size: i64::try_from(wish.size).unwrap_or(i64::MAX),
        media_type: "application/octet-stream".to_owned(),
    }
}

fn elsewhere(blob: &Digest, stands: u64, offset: u64) -> Failure {
    let text = format!("the blob {blob} stands at {stands}, and the content begins at {offset}");
    Failure::new(Reason::UploadOffset, text)
        .field("offset")
        .remedy(format!("send it from {stands} on"))
}

/// What is left of a blob after a failure. What nobody is to go on with is cancelled.
async fn left(way: &mut Way, failure: &Failure, (known, kept): (bool, u64)) -> Remains {
    if way.upload.as_ref().is_some_and(|upload| upload.refused.is_some()) {
        // Whether it takes no chunks, or has lost some, it says when it is asked.
        let _ = tokio::time::timeout(PATIENCE, way.find()).await;
    }
    let whole = !known && way.takes_no_chunks();
    let wrong = failure.reason() == Reason::DigestMismatch && failure.retry_class() == Retry::Never;
    let stays = |upload: &Upload| upload.kept.is_some() && !upload.ended && upload.offset >= kept;
    if !whole && !wrong && way.upload.as_ref().is_some_and(stays) {
        return Remains::Trail;
    }
    if let Some(upload) = way.upload.take_if(|upload| !upload.ended) {
        upload.end_soon().await;
    }
    if whole { Remains::Whole } else { Remains::Nothing }
}
