//! A copy job: brings everything that a target's tags go to into its repository, once its release
//! is known not to fail for its tags.

use std::{convert::Infallible, sync::Arc, time::Duration};

use colophon_domain::{
    Access, CopyTotals, Failure, Reason, Reference, Result, Selection, TagOrDigest, Urgency,
};
use colophon_registry::{Copied, CopyOptions};
use colophon_store::Claimed;

use crate::{
    Engine,
    companions::Settled,
    copy_progress::{Counter, SHOWN},
    lease::Keeper,
    selected,
    worker::End,
};

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
            let copied = self.copy_content(job, &content, keeper, false).await?;
            let notes = copied.totals.notes.clone();
            add(&mut totals, copied.totals);
            match self.settle_companions(job, &content, keeper, copied.companions).await? {
                Settled::Done(more) => {
                    totals.notes.extend(more.into_iter().filter(|note| !notes.contains(note)));
                }
                Settled::Not(end) => return Ok(end),
            }
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
    ) -> Result<Copied> {
        let TagOrDigest::Digest(digest) = &content.target else {
            return Err(Failure::new(Reason::Internal, "content is copied by digest only"));
        };
        let urgency = Urgency::of_content(job.priority);
        let source = self.registries.session(&content.repository, Access::Pull)?.urgent(urgency);
        let target = self.registries.session(&job.repository, Access::Push)?.urgent(urgency);
        let counter = Arc::new(Counter::default());
        let made = job.made.as_ref().filter(|_| *digest == job.digest);
        let made = made.map(selected::manifest).transpose()?;
        let selection = if recheck {
            // What is brought back is what a tag needs, and nothing that it could fail for besides.
            Selection { foreign: job.selection.foreign, ..Selection::bare() }
        } else {
            job.selection.clone()
        };
        let options = CopyOptions {
            recheck,
            selection,
            made,
            lease: Some(job.lease),
            ..CopyOptions::default()
        };
        let copy = colophon_registry::copy(
            &source,
            &target,
            digest,
            options,
            counter.clone(),
            keeper.stop().clone(),
        );
        // Beside the copy, which must not wait for the database.
        let mut copied = tokio::select! {
            result = copy => result?,
            never = self.report(job, &counter) => match never {},
        };
        counter.describe(&mut copied.totals);
        Ok(copied)
    }

    /// Writes down how far a copy is, for those who watch; nothing depends on it.
    async fn report(&self, job: &Claimed, counter: &Counter) -> Infallible {
        let mut written = CopyTotals::default();
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            let totals = counter.totals();
            if totals == written {
                continue;
            }
            match self.store.report_progress(job, &totals).await {
                Ok(()) => written = totals,
                Err(failure) => {
                    tracing::debug!(job = job.lease.job, %failure, "progress was not written");
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
    totals.blobs.extend(more.blobs);
    totals.blobs.truncate(SHOWN);
    totals.blobs_total += more.blobs_total;
}
