//! What went over the wire: bytes of blobs in both directions, connections, requests, and every
//! `Authorization` with the host that it was shown to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::scripted::request::{Place, Seen};

/// The counts of one fake.
#[derive(Default)]
pub(super) struct Meter(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: Vec<Seen>,
    received: BTreeMap<String, u64>,
    sent: BTreeMap<String, u64>,
    received_in_all: u64,
    open: usize,
    most_open: usize,
}

/// A request that waits for its answer; dropping it counts it as answered.
pub(super) struct Open<'a>(&'a Meter);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counts().open -= 1;
    }
}

impl Meter {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request(&self, seen: &Seen) {
        self.counts().requests.push(seen.clone());
    }

    /// A request of the registry begins to be answered.
    pub(super) fn open(&self) -> Open<'_> {
        let mut counts = self.counts();
        counts.open += 1;
        counts.most_open = counts.most_open.max(counts.open);
        Open(self)
    }

    pub(super) fn most_open(&self) -> usize {
        self.counts().most_open
    }

    pub(super) fn sent(&self, digest: &str, bytes: u64) {
        *self.counts().sent.entry(digest.to_owned()).or_default() += bytes;
    }

    /// Bytes of an upload, whatever becomes of it.
    pub(super) fn arrived(&self, bytes: u64) {
        self.counts().received_in_all += bytes;
    }

    /// An upload became this blob with so many bytes.
    pub(super) fn received(&self, digest: &str, bytes: u64) {
        *self.counts().received.entry(digest.to_owned()).or_default() += bytes;
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.counts().requests.clone()
    }

    pub(super) fn bytes_sent(&self, digest: &str) -> u64 {
        self.counts().sent.get(digest).copied().unwrap_or_default()
    }

    pub(super) fn bytes_received(&self, digest: &str) -> u64 {
        self.counts().received.get(digest).copied().unwrap_or_default()
    }

    pub(super) fn bytes_received_in_all(&self) -> u64 {
        self.counts().received_in_all
    }

    pub(super) fn by_method(&self) -> BTreeMap<String, usize> {
        let mut methods = BTreeMap::new();
        for seen in &self.counts().requests {
            *methods.entry(seen.method.to_string()).or_default() += 1;
        }
        methods
    }

    pub(super) fn authorizations(&self, place: Place) -> Vec<String> {
        let counts = self.counts();
        let mut shown: Vec<String> = counts
            .requests
            .iter()
            .filter(|seen| seen.place == place && !seen.authorization().is_empty())
            .map(|seen| seen.authorization().to_owned())
            .collect();
        shown.sort_unstable();
        shown.dedup();
        shown
    }
}
