//! The way of one blob over all attempts at it: the upload that stands, the states of its digest,
//! and what is written down of both so that another worker can go on.

use colophon_domain::{Access, Failure, Reason, Result, Retry, Trail};
use tokio_util::sync::CancellationToken;

use crate::{
    hash::{Hash, Marks},
    host::Host,
    manifest::Descriptor,
    pieces::Grid,
    seal::Seal,
    session::Session,
    trails::Trails,
    upload::Upload,
};

/// Attempts that may fail by one upload before another one is begun.
const PATIENCE: u8 = 2;

/// How far a blob is.
pub(crate) struct Way {
    pub(crate) grid: Grid,
    pub(crate) marks: Marks,
    pub(crate) upload: Option<Upload>,
    /// The blob goes in one request.
    whole: bool,
    /// The registry refused a chunk.
    refused_chunks: bool,
    /// Attempts in a row at this upload that failed by it and brought it no further.
    fruitless: u8,
    /// After so many of these another upload is begun.
    patience: u8,
    /// The most that the registry has confirmed, of whatever upload.
    furthest: u64,
    /// The blob may be there although nobody said so.
    pub(crate) may_be_there: bool,
    seal: Option<Seal>,
    cancel: CancellationToken,
}

impl Way {
    /// A way that begins, or goes on where another worker's ended.
    pub(crate) async fn of(
        target: &Session,
        blob: &Descriptor,
        trails: &impl Trails,
        cancel: CancellationToken,
    ) -> Self {
        let size = u64::try_from(blob.size).unwrap_or_default();
        let grid = Grid::new(size, target.host.config.chunk_bytes);
        let mut way = Self {
            grid,
            marks: Marks::new(blob.digest.algorithm(), grid.chunk()),
            upload: None,
            whole: !grid.is_cut(),
            refused_chunks: false,
            fruitless: 0,
            patience: PATIENCE,
            furthest: 0,
            may_be_there: false,
            seal: None,
            cancel,
        };
        if grid.is_cut() && trails.is_written() {
            way.seal = seal(target, blob).await;
            way.upload = trails.trail().and_then(|trail| way.taken_up(target, blob, trail));
            if way.upload.is_some() {
                // Whoever had it may have lost it by just what ended there.
                (way.furthest, way.patience) = (way.offset(), 1);
            }
        }
        way
    }

    /// The upload that was written down, if it is one of ours and can be gone on with.
    fn taken_up(&self, target: &Session, blob: &Descriptor, trail: &Trail) -> Option<Upload> {
        let location =
            self.seal.as_ref()?.open(&trail.location, &about(trail.offset, &trail.hash))?;
        let sound = trail.offset > 0 && trail.offset <= self.grid.size;
        let hash = Hash::restored(blob.digest.algorithm(), &trail.hash)?;
        if !sound || !target.host.is_own(&location) {
            return None;
        }
        self.marks.keep(trail.offset, hash);
        let mut upload = Upload::at(target, location, trail.offset);
        upload.kept = Some(self.cancel.clone());
        Some(upload)
    }

    /// Bytes that the registry has confirmed.
    pub(crate) fn offset(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.offset)
    }

    /// Whether the rest goes in one request.
    pub(crate) fn whole(&self, host: &Host) -> bool {
        self.whole || host.whole()
    }

    /// Finds out where the upload stands, if there is one; one that is lost is forgotten.
    pub(crate) async fn find(&mut self) -> Result<()> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        if upload.find(self.grid.size).await? {
            self.learn();
            return Ok(());
        }
        self.give_up().await;
        Ok(())
    }

    /// Whether the blob has come further than ever since this was asked last. An upload that begins
    /// anew and comes as far as the one before has not.
    pub(crate) fn has_come_further(&mut self) -> bool {
        let further = self.offset() > self.furthest;
        if further {
            (self.furthest, self.fruitless, self.patience) = (self.offset(), 0, PATIENCE);
        }
        further
    }

    /// Sends the rest in one request where the registry took no chunk.
    fn learn(&mut self) {
        if self.upload.as_ref().is_some_and(|upload| upload.whole) {
            (self.whole, self.refused_chunks) = (true, true);
        }
    }

    /// The registry is known to take the blob in one request only.
    pub(crate) fn goes_whole(&mut self) {
        (self.whole, self.refused_chunks) = (true, self.grid.is_cut());
    }

    /// Whether the registry has refused chunks of the blob.
    pub(crate) fn takes_no_chunks(&mut self) -> bool {
        self.learn();
        self.refused_chunks
    }

    /// The blob is there. If the registry refused its chunks and took it in one request, other blobs
    /// need not try.
    pub(crate) fn arrived(&self, host: &Host) {
        if self.refused_chunks && !host.whole() {
            tracing::info!(
                registry = %host.name,
                "the registry takes no chunks of this size: large layers go in one request"
            );
            host.sends_whole();
        }
    }

    /// Writes down where the upload stands, for another worker.
    ///
    /// # Errors
    /// `LEASE_LOST`.
    pub(crate) async fn keep(&mut self, trails: &impl Trails) -> Result<()> {
        let Some(upload) = self.upload.as_mut() else { return Ok(()) };
        let offset = upload.offset;
        let Some(hash) = self.marks.at(offset).map(|hash| hash.state()) else { return Ok(()) };
        let sealed = self
            .seal
            .as_ref()
            // Elsewhere it is most likely a signed URL, which is good for a while only.
            .filter(|_| upload.session.host.is_own(&upload.location))
            .and_then(|seal| seal.seal(&upload.location, &about(offset, &hash)));
        let Some(location) = sealed else { return Ok(()) };
        if trails.keep(&Trail { location, offset, hash }).await? {
            upload.kept = Some(self.cancel.clone());
        }
        Ok(())
    }

    /// After an attempt that failed: what is gone on with, and what begins anew.
    pub(crate) async fn broke(&mut self, failure: &Failure) {
        self.learn();
        let Some(upload) = self.upload.as_ref() else { return };
        self.may_be_there = upload.put_unanswered;
        let waits = matches!(failure.retry_class(), Retry::Wait(_));
        self.fruitless += u8::from(upload.at_fault && !waits && upload.offset <= self.furthest);
        if failure.reason() == Reason::DigestMismatch {
            self.marks.clear();
            self.give_up().await;
        } else if self.grid.is_cut() && self.fruitless >= self.patience {
            // Who refuses chunks may look like a connection that breaks, and an upload may be lost in
            // more ways than a registry says.
            (self.whole, self.fruitless, self.patience) = (true, 0, PATIENCE);
            self.give_up().await;
        } else if !self.grid.is_cut() || upload.ended {
            self.upload = None;
        }
    }

    /// Ends the upload: nobody goes on with it.
    pub(crate) async fn give_up(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.cancel().await;
        }
    }
}

/// What a sealed URL is bound to.
pub(crate) fn about(offset: u64, hash: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes(), hash].concat()
}

async fn seal(target: &Session, blob: &Descriptor) -> Option<Seal> {
    let credential = target.credentials.credential(&target.repository, Access::Push, None).await;
    let credential = credential.inspect_err(|failure| {
        tracing::debug!(%failure, "no credential; the upload is not written down");
    });
    let (credential, repository) = (credential.ok()?, target.repository.clone());
    let digest = blob.digest.clone();
    // Slow on purpose.
    let sealing = move || Seal::new(credential.as_ref(), &repository, &digest);
    tokio::task::spawn_blocking(sealing).await.ok()?
}
