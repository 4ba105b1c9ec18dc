//! The copy of everything below one manifest from one repository to another. A blob is
//! downloaded only if it is not at the target and the target's registry cannot take it from
//! another repository of its own, the source's or one that is known to hold it; children come before what refers to them; tags are not
//! touched.

use std::sync::Arc;

use colophon_domain::{CopyTotals, Digest, Failure, Lease, Reason, Result, Selection};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{
    along::{Along, Companion},
    gather::Gathered,
    known::Known,
    manifest::{Descriptor, Manifest},
    metrics,
    plan::{Plan, plan},
    session::Session,
};

/// How to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// Blobs, or manifests, of this copy that move at the same time.
    pub parallel: usize,
    /// Look below manifests that the target has already, and put them again. For a target that
    /// has just said that content is missing.
    pub recheck: bool,
    /// The job whose work it is. With it, blobs on their way are seen by other processes, and gone
    /// on with by the one that has the job next.
    pub lease: Option<Lease>,
    /// What goes along with the image.
    pub selection: Selection,
    /// The manifest itself, where the source does not have it: what is left of an index.
    pub made: Option<Manifest>,
}

/// What a copy did, and what is left to do.
#[derive(Debug, Default)]
pub struct Copied {
    /// What was sent.
    pub totals: CopyTotals,
    /// Tags that belong to what was copied, and have still to be moved at the target.
    pub companions: Vec<Companion>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { parallel: 6, recheck: false, lease: None, selection: Selection::bare(), made: None }
    }
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was sent.
    Copied,
    /// The target had it.
    Present,
    /// The target's registry took it from another repository of its own.
    Mounted,
}

/// Is told how a copy goes on. Called often; must be quick.
pub trait Progress: Send + Sync {
    /// The copy is planned: so many bytes in so many blobs.
    fn planned(&self, bytes_total: i64, blobs: i64);
    /// An attempt at bringing a blob begins; `bytes` is its size.
    fn begun(&self, blob: &Digest, bytes: i64);
    /// The attempt goes on where so many bytes are at the target already.
    fn resumed(&self, _blob: &Digest, _bytes: i64) {}
    /// A blob is at the target; `bytes` is its size.
    fn blob(&self, blob: &Digest, outcome: BlobOutcome, bytes: i64);
    /// So many bytes more of a blob were handed to the network; those of one that is sent again
    /// count again.
    fn sent(&self, blob: &Digest, bytes: i64);
}

/// Copies the manifest with this digest, everything that it refers to, and what goes along with it.
/// Every step may run twice: what is there is not sent again. No tag is moved.
///
/// # Errors
/// `SOURCE_GONE`, `CONTENT_MISSING` (copy again with `recheck`), `CANCELLED`, and whatever the
/// two registries refuse.
pub async fn copy(
    source: &Session,
    target: &Session,
    digest: &Digest,
    options: CopyOptions,
    progress: Arc<dyn Progress>,
    cancel: CancellationToken,
) -> Result<Copied> {
    if source.repository == target.repository && options.made.is_none() {
        return Ok(Copied::default());
    }
    let known = Known::default();
    let cancelled = cancel.child_token();
    let job = Copy { source, target, options, progress, known, cancel: cancelled };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::new(
            Reason::Cancelled,
            format!("the copy of {} to {} was cancelled", source.repository, target.repository),
        )),
        done = job.run(digest) => done,
    }
}

pub(crate) struct Copy<'a> {
    pub source: &'a Session,
    pub target: &'a Session,
    pub options: CopyOptions,
    pub progress: Arc<dyn Progress>,
    pub known: Known,
    /// Cancelled with the copy.
    pub cancel: CancellationToken,
}

impl Copy<'_> {
    async fn run(&self, root: &Digest) -> Result<Copied> {
        let mut gathered = self.gather(root).await?;
        let along = self.along(&mut gathered).await?;
        let (plan, manifests) = (self.plan(root, &along, &gathered)?, &gathered.manifests);
        let mut totals = CopyTotals {
            bytes_total: plan.bytes_total(),
            notes: plan.notes.clone(),
            ..CopyTotals::default()
        };
        self.progress.planned(totals.bytes_total, count(plan.blobs.len()));
        for (blob, outcome) in self.blobs(&plan).await? {
            match outcome {
                BlobOutcome::Copied => {
                    totals.blobs_copied += 1;
                    totals.bytes_copied += blob.size;
                }
                BlobOutcome::Present => totals.blobs_present += 1,
                BlobOutcome::Mounted => totals.blobs_mounted += 1,
            }
        }
        for stage in &plan.stages {
            let stage = stage.iter().filter_map(|digest| manifests.get(digest));
            self.all(stage.map(|manifest| self.put(manifest))).await?;
        }
        self.remember(&plan).await;
        let mut companions = along.tags;
        for list in &along.lists {
            companions.push(self.put_list(list, &gathered).await?);
        }
        Ok(Copied { totals, companions })
    }

    /// What is to be done with what was gathered.
    pub(crate) fn plan(
        &self,
        root: &Digest,
        along: &Along,
        gathered: &Gathered<'_>,
    ) -> Result<Plan> {
        let roots = std::iter::once(root).chain(&along.roots);
        let foreign = self.options.selection.foreign;
        let mut plan = plan(roots, &gathered.manifests, &gathered.present, foreign).map_err(
            |(reason, text)| {
                Failure::new(reason, format!("{}@{root}: {text}", self.source.repository))
            },
        )?;
        plan.notes.extend(along.notes.iter().cloned());
        Ok(plan)
    }

    /// Runs futures side by side, as many as the options allow, until the first failure.
    pub(crate) async fn all<T>(
        &self,
        work: impl Iterator<Item = impl Future<Output = Result<T>>>,
    ) -> Result<Vec<T>> {
        // Collected first: a closure that lives on across an await keeps the whole copy from
        // being `Send` for any caller.
        let work: Vec<_> = work.collect();
        stream::iter(work).buffer_unordered(self.options.parallel.max(1)).try_collect().await
    }

    /// Checks all blobs first, so that the transfers know early what is left to do.
    async fn blobs(&self, plan: &Plan) -> Result<Vec<(Descriptor, BlobOutcome)>> {
        let (there, mut missing) = self.check(plan).await?;
        self.look_up(&missing).await;
        missing.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let mut done = Vec::with_capacity(plan.blobs.len());
        for blob in there {
            self.arrived(BlobOutcome::Present, blob);
            done.push((blob.clone(), BlobOutcome::Present));
        }
        let moved = self.all(missing.into_iter().map(|blob| async move {
            let outcome = self.move_blob(blob).await?;
            self.arrived(outcome, blob);
            Ok((blob.clone(), outcome))
        }));
        done.extend(moved.await?);
        Ok(done)
    }

    /// A blob is at the target.
    fn arrived(&self, outcome: BlobOutcome, blob: &Descriptor) {
        self.progress.blob(&blob.digest, outcome, blob.size);
        metrics::blob(&self.target.host, outcome, blob.size);
    }

    /// The blobs that the target has, and those that it lacks.
    pub(crate) async fn check<'p>(
        &self,
        plan: &'p Plan,
    ) -> Result<(Vec<&'p Descriptor>, Vec<&'p Descriptor>)> {
        let checked = self
            .all(
                plan.blobs.iter().map(|blob| async move {
                    Ok((blob, self.target.has_blob(&blob.digest).await?))
                }),
            )
            .await?;
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (blob, has) in checked {
            if has { there.push(blob) } else { missing.push(blob) }
        }
        let foreign = missing.iter().filter(|blob| plan.foreign.contains(&blob.digest));
        self.all(foreign.map(|blob| self.foreign_there(blob))).await?;
        Ok((there, missing))
    }

    /// Foreign layers are taken from the source's registry only: their `urls` may lead anywhere.
    async fn foreign_there(&self, blob: &Descriptor) -> Result<()> {
        if self.source.has_blob(&blob.digest).await? {
            return Ok(());
        }
        let text = format!(
            "the foreign layer {} is not at {}, and its urls are not followed",
            blob.digest, self.source.repository
        );
        Err(Failure::new(Reason::SourceGone, text)
            .remedy("push the layer to the source's registry, or leave foreign layers out"))
    }

    /// Puts a manifest under its digest.
    pub(crate) async fn put(&self, manifest: &Manifest) -> Result<()> {
        self.target.put_by_digest(manifest).await
    }
}

pub(crate) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
