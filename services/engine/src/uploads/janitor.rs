//! Uploads end by themselves: those whose time has passed are let go of, and what they have left half
//! done at the registries is cancelled there. Every process does it; each blob is one's at a time.

use std::time::Duration;

use colophon_domain::{Access, Result, Retry};
use colophon_store::UploadOrphan;
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use crate::Engine;

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(30);
/// Uploads that end at once.
const UPLOADS: u32 = 200;
/// Blobs that are taken at once, and those of them that are cancelled at the same time.
const BLOBS: usize = 16;
const AT_ONCE: usize = 4;
/// How long blobs that were taken stay so; what could not be cancelled is tried again after it.
const LEASE: Duration = Duration::from_mins(2);
/// After so long the registry will have forgotten it, too.
const LONGEST: Duration = Duration::from_hours(24);

impl Engine {
    /// Ends uploads whose time has passed, from time to time, until it is told to stop.
    pub async fn run_upload_janitor(&self, shutdown: CancellationToken) {
        loop {
            match self.current().end_uploads_once().await {
                Ok(0) => {}
                Ok(uploads) => tracing::info!(uploads, "uploads have ended by themselves"),
                Err(failure) => tracing::warn!(%failure, "uploads could not be ended"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Ends all uploads whose time has passed, and cancels what is left of them and of those that were
    /// ended before; how many there were.
    pub async fn end_uploads_once(&self) -> Result<u64> {
        let mut ended = 0;
        loop {
            let some = self.store.expire_uploads(i64::from(UPLOADS)).await?;
            ended += some;
            if some < u64::from(UPLOADS) {
                break;
            }
        }
        self.cancel_left().await?;
        Ok(ended)
    }

    /// Cancels blobs that belong to no upload any more.
    pub(super) async fn cancel_left(&self) -> Result<()> {
        let most = i64::try_from(BLOBS).unwrap_or(i64::MAX);
        loop {
            let orphans = self.store.take_orphans(most, LEASE, LONGEST).await?;
            let all = orphans.len();
            let cancelled: Vec<_> =
                orphans.into_iter().map(|orphan| self.cancel_blob(orphan)).collect();
            stream::iter(cancelled).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
            if all < BLOBS {
                return Ok(());
            }
        }
    }

    /// Cancels one; if that did not work it is tried again when the lease has run out.
    async fn cancel_blob(&self, orphan: UploadOrphan) {
        let UploadOrphan { flight, trail, last } = orphan;
        if let Some(trail) = trail {
            let cancelled = match self.registries.session(&flight.repository, Access::Push) {
                Ok(session) => session.abandon(&flight.digest, &trail).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = cancelled {
                tracing::debug!(
                    %failure, repository = %flight.repository, digest = %flight.digest,
                    "what is left of a blob could not be cancelled"
                );
                if failure.retry_class() != Retry::Never && !last {
                    return;
                }
            }
        }
        if let Err(failure) = self.store.land_blob(&flight, false).await {
            tracing::debug!(%failure, digest = %flight.digest, "what was cancelled is not let go of");
        }
    }
}
