//! A copy job: brings everything that a target's tags go to into its repository, once its release
//! is known not to fail for its tags.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use colophon_domain::{Access, CopyTotals, Failure, Reason, Reference, Result, TagOrDigest};
use colophon_registry::{BlobOutcome, CopyOptions, Progress};
use colophon_store::Claimed;

use crate::{Engine, lease::Keeper, worker::End};

/// How often a running copy writes down how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    pub(crate) async fn copy_job(&self, job: &Claimed, keeper: &Keeper) -> Result<End> {
        self.attempts_left(job)?;
        if job.late {
            return Err(expired());
        }
        if !job.checked && self.refuse_early(job).await? {
            return Ok(End::Done);
        }
        let mut totals = CopyTotals::default();
        for content in self.store.contents(job).await? {
            add(&mut totals, self.copy_content(job, &content, keeper, false).await?);
        }
        self.store.finish_copy(job, &totals).await?;
        Ok(End::Done)
    }

    /// Copies, and shows how far it is while it does. `recheck` looks also below manifests that
    /// are there already, for a target that has lost blobs.
    #[tracing::instrument(level = "debug", name = "engine.content.copy", skip_all, fields(source = %content.repository, target = %job.repository, digest = content.target.as_str()))]
    pub(crate) async fn copy_content(
        &self,
        job: &Claimed,
        content: &Reference,
        keeper: &Keeper,
        recheck: bool,
    ) -> Result<CopyTotals> {
        let TagOrDigest::Digest(digest) = &content.target else {
            return Err(Failure::new(Reason::Internal, "content is copied by digest only"));
        };
        let source = self.registries.session(&content.repository, Access::Pull)?;
        let target = self.registries.session(&job.repository, Access::Push)?;
        let counter = Arc::new(Counter::default());
        let options = CopyOptions { recheck, ..CopyOptions::default() };
        let copy = colophon_registry::copy(
            &source,
            &target,
            digest,
            options,
            counter.clone(),
            keeper.stop().clone(),
        );
        tokio::pin!(copy);
        let mut tick = tokio::time::interval_at(
            tokio::time::Instant::now() + REPORT_INTERVAL,
            REPORT_INTERVAL,
        );
        loop {
            tokio::select! {
                result = &mut copy => return result,
                _ = tick.tick() => {
                    // Only for those who watch; the copy does not depend on it.
                    if let Err(failure) = self.store.report_progress(job, &counter.totals()).await {
                        tracing::debug!(job = job.lease.job, %failure, "progress was not written");
                    }
                }
            }
        }
    }
}

pub(crate) fn expired() -> Failure {
    Failure::new(Reason::Expired, "the time after which the release must not begin has passed")
        .remedy("publish again with a later not_after")
}

fn add(totals: &mut CopyTotals, more: CopyTotals) {
    totals.blobs_copied += more.blobs_copied;
    totals.blobs_present += more.blobs_present;
    totals.blobs_mounted += more.blobs_mounted;
    totals.bytes_copied += more.bytes_copied;
    totals.bytes_total += more.bytes_total;
    totals.notes.extend(more.notes);
}

/// What a running copy has moved so far.
#[derive(Default)]
struct Counter {
    copied: AtomicI64,
    present: AtomicI64,
    mounted: AtomicI64,
    sent: AtomicI64,
    total: AtomicI64,
}

impl Counter {
    fn totals(&self) -> CopyTotals {
        CopyTotals {
            blobs_copied: self.copied.load(Ordering::Relaxed),
            blobs_present: self.present.load(Ordering::Relaxed),
            blobs_mounted: self.mounted.load(Ordering::Relaxed),
            bytes_copied: self.sent.load(Ordering::Relaxed),
            bytes_total: self.total.load(Ordering::Relaxed),
            notes: Vec::new(),
        }
    }
}

impl Progress for Counter {
    fn planned(&self, bytes_total: i64, _blobs: i64) {
        self.total.store(bytes_total, Ordering::Relaxed);
    }

    fn blob(&self, outcome: BlobOutcome, _bytes: i64) {
        let counter = match outcome {
            BlobOutcome::Copied => &self.copied,
            BlobOutcome::Present => &self.present,
            BlobOutcome::Mounted => &self.mounted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn sent(&self, bytes: i64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}
