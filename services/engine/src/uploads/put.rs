//! One blob that a client sends. One call sends it at a time, under a short lease that is renewed while it
//! comes; what breaks off is left to the next one at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use colophon_domain::{
    BlobProgress, BlobWish, Failure, Principal, Reason, Result, Retry, Trail, UploadView, Wanted,
};
use colophon_registry::{Broken, Received, Reception, Remains, Session, TrailBook};
use colophon_store::{
    Store, UploadBoard, UploadBoarded, UploadBoarding, UploadFlight, UploadLeft, UploadTerms,
};
use futures_util::{future::BoxFuture, stream::BoxStream};
use uuid::Uuid;

use crate::Engine;

/// How long a blob stays whose it is that does not renew.
const LEASE: Duration = Duration::from_secs(20);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// When to ask again for a blob that somebody else sends.
const BUSY: Duration = Duration::from_secs(2);
/// A blob that does not come further by so many calls begins anew, in one request.
const PATIENCE: u32 = 8;

impl Engine {
    /// Passes a blob on to the registry while it comes, from an offset on.
    ///
    /// # Errors
    /// `NOT_FOUND`, `UPLOAD_BUSY`, `UPLOAD_OFFSET`, `UPLOAD_TOO_LARGE`, `UPLOAD_LIMIT`,
    /// `DIGEST_MISMATCH`, `LEASE_LOST` if the upload ends meanwhile, the content's own failures, and
    /// the registry's.
    #[tracing::instrument(level = "debug", name = "engine.upload.blob", skip_all, fields(upload = %id, digest = %blob.digest, offset))]
    pub async fn put_blob(
        &self,
        caller: &Principal,
        id: Uuid,
        blob: BlobWish,
        offset: u64,
        content: BoxStream<'static, Result<Bytes>>,
    ) -> Result<BlobProgress> {
        let _stream = self.streams.begin(&caller.name, self.uploads.max_streams_per_caller)?;
        let upload = self.upload(caller, id).await?;
        let session = self.session_of(&upload)?;
        let boarded = self.board(&upload, &blob).await?;
        let again = boarded.boarded > 1;
        let (held, trail, whole) = self.take_over(&session, &blob, boarded).await?;
        if again && session.has_blob(&blob.digest).await? {
            held.land(false).await?;
            return Ok(BlobProgress { digest: blob.digest, wanted: Wanted::Present });
        }
        let wanted = held.receive(&session, (&blob, offset), (trail, whole), content).await?;
        Ok(BlobProgress { digest: blob.digest, wanted })
    }

    async fn board(&self, upload: &UploadView, blob: &BlobWish) -> Result<UploadBoarded> {
        let limits = self.uploads;
        let ask = UploadBoard {
            principal: &upload.principal,
            upload: upload.id,
            repository: &upload.repository,
            digest: &blob.digest,
            size: blob.size,
            lease: LEASE,
            max_bytes: limits.max_bytes,
            max_blobs: limits.max_blobs,
        };
        match self.store.board_blob(ask).await? {
            UploadBoarding::Boarded(boarded) => Ok(boarded),
            UploadBoarding::Gone => Err(super::not_there(upload.id)),
            UploadBoarding::Taken => Err(busy(blob)),
            UploadBoarding::TooLarge => Err(too_large(limits.max_bytes, limits.max_blobs)),
        }
    }

    /// What a blob goes on from. One that does not get on any more begins anew.
    async fn take_over(
        &self,
        session: &Session,
        blob: &BlobWish,
        boarded: UploadBoarded,
    ) -> Result<(Held, Option<Trail>, bool)> {
        let UploadBoarded { flight, trail, whole, boarded } = boarded;
        let terms = self.uploads.terms();
        let mut held = Held {
            store: self.store.clone(),
            terms,
            flight: Some(flight),
            left: UploadLeft::Trail,
        };
        let sound = |trail: &Trail| trail.offset <= blob.size;
        match trail {
            Some(trail) if boarded > PATIENCE => {
                // What stands in the way may be the very upload that cannot be asked any more.
                if let Err(failure) = session.abandon(&blob.digest, &trail).await {
                    tracing::debug!(%failure, digest = %blob.digest, "an upload was not cancelled");
                }
                held.left = UploadLeft::Whole;
                Ok((held, None, true))
            }
            trail => Ok((held, trail.filter(sound), whole)),
        }
    }
}

fn busy(blob: &BlobWish) -> Failure {
    Failure::new(Reason::UploadBusy, format!("somebody sends the blob {} already", blob.digest))
        .remedy("ask again in a while; it may be there by then")
        .retry(Retry::Wait(BUSY))
}

fn too_large(bytes: u64, blobs: u32) -> Failure {
    let text = format!("an upload may have {bytes} bytes in {blobs} blobs, and this would be more");
    Failure::new(Reason::UploadTooLarge, text)
        .remedy("push the image to a registry, and publish it from there")
}

fn lost(flight: &UploadFlight) -> Failure {
    let text = format!("the upload has ended, or another call sends the blob {}", flight.digest);
    Failure::new(Reason::LeaseLost, text).remedy("ask by FindBlobs").retry(Retry::Backoff)
}

/// A blob that this call sends. Whoever is broken off leaves it to the next one.
struct Held {
    store: Store,
    terms: UploadTerms,
    /// None after it was let go of.
    flight: Option<UploadFlight>,
    /// What is left of it by now.
    left: UploadLeft,
}

/// Where it is written down how far the blob is.
struct Book<'a>(&'a Store, &'a UploadFlight);

impl TrailBook for Book<'_> {
    fn mark<'a>(&'a self, trail: &'a Trail) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.0.mark_blob(self.1, trail).await? { Ok(()) } else { Err(lost(self.1)) }
        })
    }
}

impl Held {
    async fn receive(
        mut self,
        session: &Session,
        (blob, offset): (&BlobWish, u64),
        (trail, whole): (Option<Trail>, bool),
        content: BoxStream<'static, Result<Bytes>>,
    ) -> Result<Wanted> {
        let Some(flight) = self.flight.clone() else { return Err(busy(blob)) };
        let book = Book(&self.store, &flight);
        let reception = Reception { blob, offset, trail, whole, book: &book };
        let received = tokio::select! {
            received = session.receive(reception, content) => received,
            failure = self.renewing(&flight) => Err(Broken { failure, left: Remains::Trail }),
        };
        match received {
            Ok(Received::Complete) => {
                self.land(true).await?;
                Ok(Wanted::Present)
            }
            Ok(Received::Part(offset)) => {
                self.leaves(if offset > 0 { Remains::Trail } else { Remains::Nothing });
                self.leave().await?;
                Ok(Wanted::From(offset))
            }
            Err(Broken { failure, left }) => {
                self.leaves(left);
                if let Err(unwritten) = self.leave().await {
                    tracing::debug!(%unwritten, digest = %blob.digest, "a blob is left later");
                }
                Err(failure)
            }
        }
    }

    fn leaves(&mut self, left: Remains) {
        self.left = match (left, self.left) {
            (Remains::Whole, _) | (_, UploadLeft::Whole) => UploadLeft::Whole,
            (Remains::Nothing, _) => UploadLeft::Nothing,
            (Remains::Trail, before) => before,
        };
    }

    /// Renews the lease until that does not work any more.
    async fn renewing(&self, flight: &UploadFlight) -> Failure {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            let asked = Instant::now();
            match self.store.renew_blob(flight, LEASE, self.terms).await {
                Ok(true) => renewed = asked,
                Ok(false) => return lost(flight),
                Err(failure) if renewed.elapsed() + RENEWAL >= LEASE => return failure,
                Err(failure) => {
                    tracing::warn!(%failure, digest = %flight.digest, "a blob could not be renewed");
                }
            }
        }
    }

    /// The blob is there.
    async fn land(mut self, sent: bool) -> Result<()> {
        if let Some(flight) = &self.flight {
            self.store.land_blob(flight, sent).await?;
        }
        self.flight = None;
        Ok(())
    }

    async fn leave(mut self) -> Result<()> {
        if let Some(flight) = &self.flight {
            self.store.leave_blob(flight, self.left).await?;
        }
        self.flight = None;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, left) = (self.store.clone(), self.left);
        runtime.spawn(async move {
            // Else the lease runs out.
            let _ = store.leave_blob(&flight, left).await;
        });
    }
}
