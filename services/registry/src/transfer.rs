//! The way of one blob to the target: mounted there, or downloaded and uploaded, in a few attempts.

use colophon_domain::{Failure, Reason, Result, Retry};
use tracing::Instrument as _;

use crate::{
    budget::{LEAST_WAIT, LONGEST_SLEEP},
    copy::{BlobOutcome, Copy},
    download::Download,
    exchange::{MOST_THROTTLES, delays},
    manifest::Descriptor,
    places::Place,
    upload::{Begun, Upload},
};

/// Attempts at one blob that found a pause of the registry in their way.
const MOST_ATTEMPTS: u8 = 8;

impl Copy<'_> {
    /// Moves one blob, in a few attempts. Content that is not what its digest says is read once
    /// more; a connection may have garbled it.
    pub(crate) async fn move_blob(&self, blob: &Descriptor) -> Result<BlobOutcome> {
        let (_flight, shared) =
            self.target.shared.flights.board(&self.target.repository, &blob.digest).await;
        if shared && self.target.has_blob(&blob.digest).await? {
            return Ok(BlobOutcome::Present);
        }
        let mut delays = delays();
        let mut mismatched = false;
        let (mut attempts, mut throttles) = (0, 0);
        loop {
            self.progress.begun(&blob.digest, blob.size);
            let failure = match self.transfer(blob).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
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
                digest = %blob.digest, %failure, "the blob is sent again"
            );
        }
    }

    #[tracing::instrument(level = "debug", name = "registry.blob.copy", skip_all, fields(digest = %blob.digest, bytes = blob.size))]
    async fn transfer(&self, blob: &Descriptor) -> Result<BlobOutcome> {
        let (source, target) = (self.source, self.target);
        let begun = self.mount(blob).await;
        if let Some(Begun::Mounted) = begun {
            return Ok(BlobOutcome::Mounted);
        }
        let _registries = self.places().await;
        // The process's place comes last, so that those who wait for one registry hold none
        // that another could use.
        let _place = target.place(&target.shared.limits.transfers).await;
        let upload = async {
            match begun {
                Some(Begun::Started(upload)) => Ok::<Upload, Failure>(upload),
                _ => target.begin().await,
            }
        };
        let (upload, download) = tokio::try_join!(upload, Download::open(source, blob))?;
        let span = tracing::debug_span!(
            "registry.blob.upload",
            repository = target.repository.name(),
            digest = %blob.digest,
            bytes = blob.size,
        );
        upload.send(blob, download, &self.progress).instrument(span).await?;
        Ok(BlobOutcome::Copied)
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
