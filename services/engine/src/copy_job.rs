//! A copy job: brings everything below the release's digest into one target repository. Before
//! the first byte is copied every unique tag is looked at, because a release that must fail
//! should fail before it costs anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use colophon_domain::{Access, CopyTotals, Digest, Failure, Reason, Result, TagOrDigest};
use colophon_registry::{BlobOutcome, CopyOptions, Progress};
use colophon_store::{Claimed, UniqueTag};
use futures_util::future::try_join_all;

use crate::{Engine, lease::Keeper, worker::End};

/// Tags that are looked at at once before a copy.
const CHECKS_AT_ONCE: usize = 8;
/// How often a running copy writes down how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    pub(crate) async fn copy_job(&self, job: &Claimed, keeper: &Keeper) -> Result<End> {
        self.attempts_left(job)?;
        if job.late {
            return Err(expired());
        }
        if !job.checked {
            if let Some((tag, at)) = self.find_taken_tag(job).await? {
                self.store.refuse(job, &tag, &at).await?;
                return Ok(End::Done);
            }
            if job.several_targets {
                self.store.mark_checked(job.release).await?;
            }
        }
        let totals = self.copy_content(job, keeper, false).await?;
        self.store.finish_copy(job, &totals).await?;
        Ok(End::Done)
    }

    /// Copies, and shows how far it is while it does. `recheck` looks also below manifests that
    /// are there already, for a target that has lost blobs.
    pub(crate) async fn copy_content(
        &self,
        job: &Claimed,
        keeper: &Keeper,
        recheck: bool,
    ) -> Result<CopyTotals> {
        let source = self.registries.session(&job.source.repository, Access::Pull)?;
        let target = self.registries.session(&job.repository, Access::Push)?;
        let counter = Arc::new(Counter::default());
        let options = CopyOptions { recheck, ..CopyOptions::default() };
        let copy = colophon_registry::copy(
            &source,
            &target,
            &job.digest,
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

    /// The first unique tag of the release that is at another digest, with that digest.
    async fn find_taken_tag(&self, job: &Claimed) -> Result<Option<(UniqueTag, Digest)>> {
        let tags = self.store.unique_tags(job.release).await?;
        for group in tags.chunks(CHECKS_AT_ONCE) {
            let looks = try_join_all(group.iter().map(|tag| self.find_tag(tag))).await?;
            for (tag, found) in group.iter().zip(looks) {
                if let Some(digest) = found.filter(|digest| *digest != job.digest) {
                    return Ok(Some((tag.clone(), digest)));
                }
            }
        }
        Ok(None)
    }

    async fn find_tag(&self, tag: &UniqueTag) -> Result<Option<Digest>> {
        let session = self.registries.session(&tag.repository, Access::Push)?;
        session.observe(&TagOrDigest::Tag(tag.tag.clone())).await
    }
}

pub(crate) fn expired() -> Failure {
    Failure::new(Reason::Expired, "the time after which the release must not begin has passed")
        .remedy("publish again with a later not_after")
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
