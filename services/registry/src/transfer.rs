//! One blob comes to the target: mounted there, or downloaded and uploaded, in a few attempts that go
//! on from each other.

use colophon_domain::{Failure, Reason, Result, Retry};
use tracing::Instrument as _;

use crate::{
    body::Feed,
    budget::{LEAST_WAIT, LONGEST_SLEEP},
    copy::{BlobOutcome, Copy},
    download::Download,
    exchange::{self, MOST_THROTTLES},
    flight::Boarded,
    manifest::Descriptor,
    pieces::Grid,
    places::Place,
    upload::{Begun, Upload},
    way::Way,
};

/// Attempts at one blob that found a pause of the registry in their way.
const MOST_ATTEMPTS: u8 = 8;

impl Copy<'_> {
    /// Moves one blob, once for all who want it there at the same time. It was missing when the copy
    /// began, and is looked for once more if somebody else has brought it since.
    pub(crate) async fn move_blob(&self, blob: &Descriptor) -> Result<BlobOutcome> {
        let (target, lease) = (self.target, self.options.lease);
        let boarded = target.shared.flights.board(lease, target, &blob.digest).await?;
        if boarded.after && target.has_blob(&blob.digest).await? {
            boarded.land(true).await;
            return Ok(BlobOutcome::Present);
        }
        let size = u64::try_from(blob.size).unwrap_or_default();
        let grid = Grid::new(size, target.host.config.chunk_bytes);
        let mut way = Way::of(target, blob, grid, &boarded, self.cancel.clone()).await;
        let moved = self.attempts(blob, &mut way, &boarded).await;
        match &moved {
            Ok(_) => {
                way.arrived(&target.host);
                boarded.land(true).await;
            }
            Err(failure) if failure.retry_class() == Retry::Never => {
                if failure.reason() != Reason::LeaseLost {
                    // Nobody goes on with the other blobs of this copy either.
                    self.cancel.cancel();
                    way.give_up().await;
                    boarded.land(false).await;
                }
            }
            // The job comes again, here or elsewhere, and goes on.
            Err(_) => {}
        }
        moved
    }

    /// Moves it in a few attempts, each of which goes on where the one before has brought it. Content
    /// that is not what its digest says is read once more; a connection may have garbled it.
    async fn attempts(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        boarded: &Boarded,
    ) -> Result<BlobOutcome> {
        let mut delays = exchange::delays();
        let mut mismatched = false;
        let (mut attempts, mut throttles) = (0, 0);
        loop {
            self.progress.begun(&blob.digest, blob.size);
            let failure = match self.transfer(blob, way, boarded).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if way.has_come_further() {
                (attempts, throttles, delays) = (0, 0, exchange::delays());
            }
            way.broke(&failure).await;
            if let Retry::Wait(pause) = failure.retry_class() {
                throttles += 1;
                if pause > LONGEST_SLEEP || throttles >= MOST_THROTTLES {
                    return Err(failure.retry(Retry::Wait(pause.max(LEAST_WAIT))));
                }
                tokio::time::sleep(pause).await;
                continue;
            }
            attempts += 1;
            if failure.reason() == Reason::DigestMismatch && !mismatched {
                mismatched = true;
                continue;
            }
            let again = failure.retry_class() == Retry::Backoff && attempts < MOST_ATTEMPTS;
            match delays.next().filter(|_| again) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure),
            }
            tracing::debug!(
                source = %self.source.repository, target = %self.target.repository,
                digest = %blob.digest, offset = way.offset(), %failure, "the blob is sent again"
            );
        }
    }

    #[tracing::instrument(level = "debug", name = "registry.blob.copy", skip_all, fields(digest = %blob.digest, bytes = blob.size))]
    async fn transfer(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        boarded: &Boarded,
    ) -> Result<BlobOutcome> {
        let target = self.target;
        // The answer to the last PUT was lost, perhaps after the registry obeyed.
        if std::mem::take(&mut way.may_be_there) && target.has_blob(&blob.digest).await? {
            way.give_up().await;
            return Ok(BlobOutcome::Copied);
        }
        let begun = if way.upload.is_some() { None } else { self.mount(blob).await };
        if let Some(Begun::Mounted) = begun {
            return Ok(BlobOutcome::Mounted);
        }
        let _registries = self.places().await;
        // The process's place comes last, so that those who wait for one registry hold none
        // that another could use.
        let _place = target.place(&target.shared.limits.transfers).await;
        let download = self.open(blob, way, begun).await?;
        let span = tracing::debug_span!(
            "registry.blob.upload",
            repository = target.repository.name(),
            digest = %blob.digest,
            bytes = blob.size,
            offset = way.offset(),
        );
        self.send(blob, way, boarded, download).instrument(span).await?;
        Ok(BlobOutcome::Copied)
    }

    /// Finds or begins the upload, and opens the download where the upload stands.
    async fn open(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        begun: Option<Begun>,
    ) -> Result<Download> {
        way.find().await?;
        let offset = way.offset();
        if offset > 0 {
            self.progress.resumed(&blob.digest, i64::try_from(offset).unwrap_or(i64::MAX));
        }
        let download = Download::open(self.source, blob, &way.marks, offset);
        if way.upload.is_some() {
            return download.await;
        }
        let upload = async {
            match begun {
                Some(Begun::Started(upload)) => Ok::<Upload, Failure>(*upload),
                _ => self.target.begin().await,
            }
        };
        let (upload, download) = tokio::try_join!(upload, download)?;
        way.upload = Some(upload);
        Ok(download)
    }

    /// Sends request after request until the blob is complete, and writes down how far it is.
    async fn send(
        &self,
        blob: &Descriptor,
        way: &mut Way,
        boarded: &Boarded,
        download: Download,
    ) -> Result<()> {
        let feed = Feed::of(download);
        loop {
            let how = (way.grid, way.whole(&self.target.host));
            let Some(upload) = way.upload.as_mut() else { return Ok(()) };
            if upload.advance(blob, how, &feed, &self.progress).await? {
                return Ok(());
            }
            way.keep(boarded).await?;
        }
    }

    /// Lets the target's registry take the blob from another repository of its own, if one is
    /// known to have it.
    async fn mount(&self, blob: &Descriptor) -> Option<Begun> {
        let mut begun = None;
        if self.source.same_registry(self.target) {
            begun = self.target.mount(blob, &self.source.repository).await;
        }
        match begun {
            Some(Begun::Mounted) => begun,
            begun => self.mount_known(blob).await.or(begun),
        }
    }

    /// A place for a download at the source and one for an upload at the target. Neither is
    /// held while the other is waited for, because others could use it meanwhile.
    async fn places(&self) -> (Place, Place) {
        let downloads = &self.source.host.limits.downloads;
        let uploads = &self.target.host.limits.uploads;
        loop {
            let download = self.source.place(downloads).await;
            if let Some(upload) = uploads.try_take() {
                return (download, upload);
            }
            drop(download);
            let upload = self.target.place(uploads).await;
            if let Some(download) = downloads.try_take() {
                return (download, upload);
            }
        }
    }
}
