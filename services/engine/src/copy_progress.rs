//! How far a running copy is, as it is written down for those who watch: totals, and single blobs up
//! to a bound.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use colophon_domain::{BlobState, BlobView, CopyTotals, Digest};
use colophon_registry::{BlobOutcome, Progress};

/// So many blobs are shown one by one. More than are ever on their way at once.
pub(crate) const SHOWN: usize = 32;

/// What a running copy has moved so far.
#[derive(Default)]
pub(crate) struct Counter(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    copied: i64,
    present: i64,
    mounted: i64,
    sent: i64,
    bytes_total: i64,
    blobs_total: i64,
    blobs: HashMap<Digest, Blob>,
}

#[derive(Clone, Copy)]
struct Blob {
    size: i64,
    done: i64,
    state: BlobState,
    attempts: i32,
}

impl Counter {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Numbers are never left half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The totals, and the blobs that are shown.
    pub(crate) fn totals(&self) -> CopyTotals {
        let counted = self.lock();
        CopyTotals {
            blobs_copied: counted.copied,
            blobs_present: counted.present,
            blobs_mounted: counted.mounted,
            bytes_copied: counted.sent,
            bytes_total: counted.bytes_total,
            notes: Vec::new(),
            blobs: shown(&counted.blobs),
            blobs_total: counted.blobs_total,
        }
    }

    /// The blobs that are shown, for the totals of a copy that is done.
    pub(crate) fn describe(&self, totals: &mut CopyTotals) {
        let counted = self.lock();
        totals.blobs = shown(&counted.blobs);
        totals.blobs_total = counted.blobs_total;
    }
}

/// Those that are on their way, then the largest others.
fn shown(blobs: &HashMap<Digest, Blob>) -> Vec<BlobView> {
    let mut all: Vec<(&Digest, &Blob)> = blobs.iter().collect();
    all.sort_by(|(a_digest, a), (b_digest, b)| {
        let done = |blob: &Blob| blob.state != BlobState::Sending;
        (done(a), b.size, a_digest).cmp(&(done(b), a.size, b_digest))
    });
    let view = |(digest, blob): (&Digest, &Blob)| BlobView {
        digest: digest.clone(),
        size: blob.size,
        done: blob.done,
        state: blob.state,
        attempts: blob.attempts,
    };
    all.into_iter().take(SHOWN).map(view).collect()
}

impl Progress for Counter {
    fn planned(&self, bytes_total: i64, blobs: i64) {
        let mut counted = self.lock();
        counted.bytes_total = bytes_total;
        counted.blobs_total = blobs;
    }

    fn begun(&self, blob: &Digest, bytes: i64) {
        let mut counted = self.lock();
        let fresh = Blob { size: bytes, done: 0, state: BlobState::Sending, attempts: 0 };
        let blob = counted.blobs.entry(blob.clone()).or_insert(fresh);
        *blob = Blob { attempts: blob.attempts.saturating_add(1), ..fresh };
    }

    fn resumed(&self, blob: &Digest, bytes: i64) {
        if let Some(blob) = self.lock().blobs.get_mut(blob) {
            blob.done = bytes.min(blob.size);
        }
    }

    fn blob(&self, blob: &Digest, outcome: BlobOutcome, bytes: i64) {
        let mut counted = self.lock();
        let state = match outcome {
            BlobOutcome::Copied => {
                counted.copied += 1;
                BlobState::Copied
            }
            BlobOutcome::Present => {
                counted.present += 1;
                BlobState::Present
            }
            BlobOutcome::Mounted => {
                counted.mounted += 1;
                BlobState::Mounted
            }
        };
        let attempts = counted.blobs.get(blob).map_or(0, |blob| blob.attempts);
        counted.blobs.insert(blob.clone(), Blob { size: bytes, done: bytes, state, attempts });
    }

    fn sent(&self, blob: &Digest, bytes: i64) {
        let mut counted = self.lock();
        counted.sent = counted.sent.saturating_add(bytes);
        if let Some(blob) = counted.blobs.get_mut(blob) {
            blob.done = blob.done.saturating_add(bytes).min(blob.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    #[test]
    fn a_blob_that_is_sent_again_begins_anew_and_its_bytes_count_again() {
        let counter = Counter::default();
        counter.planned(30, 2);
        counter.begun(&digest(1), 20);
        counter.sent(&digest(1), 15);
        counter.begun(&digest(1), 20);
        counter.sent(&digest(1), 5);
        let totals = counter.totals();
        assert_eq!((totals.bytes_copied, totals.bytes_total, totals.blobs_total), (20, 30, 2));
        let blob = &totals.blobs[0];
        assert_eq!((blob.done, blob.state, blob.attempts), (5, BlobState::Sending, 2));
        counter.blob(&digest(1), BlobOutcome::Copied, 20);
        let totals = counter.totals();
        assert_eq!(totals.blobs_copied, 1);
        assert_eq!((totals.blobs[0].done, totals.blobs[0].state), (20, BlobState::Copied));
    }

    #[test]
    fn a_blob_that_is_gone_on_with_shows_what_is_there_and_counts_what_is_sent() {
        let counter = Counter::default();
        counter.planned(20, 1);
        counter.begun(&digest(1), 20);
        counter.resumed(&digest(1), 15);
        counter.sent(&digest(1), 3);
        let totals = counter.totals();
        assert_eq!((totals.blobs[0].done, totals.bytes_copied), (18, 3));
    }

    #[test]
    fn those_on_their_way_are_shown_first_and_never_too_many() {
        let counter = Counter::default();
        for number in 0..100 {
            counter.blob(&digest(number), BlobOutcome::Present, i64::from(number));
        }
        counter.begun(&digest(200), 1);
        let shown = counter.totals().blobs;
        assert_eq!(shown.len(), SHOWN);
        assert_eq!((shown[0].state, shown[1].size, shown[2].size), (BlobState::Sending, 99, 98));
    }
}
