//! What of an image is missing at the target: its manifests, read from the root downwards. All
//! that is read stays in memory until the copy ends, so it is counted as it comes, by copy and
//! by process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use colophon_domain::{Digest, Failure, Reason, Result, Retry, TagOrDigest};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    copy::Copy,
    manifest::{Content, MANIFEST_LIMIT, Manifest, is_index},
    plan::{MOST_LEVELS, is_child},
    session::Session,
};

/// All manifests of one image together, in bytes; real images have less than one MiB.
const MANIFESTS_LIMIT: usize = 16 << 20;
/// Manifests of one image.
const MOST_MANIFESTS: usize = 2000;
/// Manifests that all running copies of the process hold together, in KiB.
const ROOM_KIB: usize = 64 << 10;

/// The process's room for manifests, in KiB.
pub(crate) fn room() -> Semaphore {
    Semaphore::new(ROOM_KIB)
}

/// The manifests of an image.
#[derive(Default)]
pub(crate) struct Gathered<'a> {
    /// Those to be put, and indexes at the target that lack a child there.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// Those that the target has, with everything below them.
    pub present: BTreeSet<Digest>,
    /// Indexes that the target has; what is below them is still to be looked at.
    kept: BTreeSet<Digest>,
    room: Vec<SemaphorePermit<'a>>,
}

enum Found<'a> {
    /// The target has the image manifest.
    Present,
    /// Read from the source, or from the target, which has it.
    Read { manifest: Manifest, at_target: bool, room: SemaphorePermit<'a> },
}

impl Copy<'_> {
    /// Reads the manifests level by level, and stops at image manifests that the target has: a
    /// registry keeps the blobs that its manifests refer to. It may not keep an index's
    /// children, which cleaners of untagged manifests delete, so those are looked for.
    ///
    /// # Errors
    /// `SOURCE_GONE` also if the target has everything: what is published must have been seen.
    pub(crate) async fn gather(&self, root: &Digest) -> Result<Gathered<'_>> {
        let mut gathered = Gathered::default();
        let bytes = AtomicUsize::new(0);
        let mut level = BTreeMap::from([(root.clone(), 0)]);
        for number in 0..=MOST_LEVELS {
            let found = self.all(level.keys().map(|digest| self.find(digest, &bytes))).await?;
            level = gathered.add(found);
            if number == 0 && (gathered.present.contains(root) || gathered.kept.contains(root)) {
                self.seen_at_source(root).await?;
            }
            // The sizes that an index announces are checked before anything is read, and then
            // by what really comes.
            let announced: u64 = level.values().fold(0, |sum, size| sum.saturating_add(*size));
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            if bytes.load(Ordering::Relaxed).saturating_add(announced) > MANIFESTS_LIMIT
                || gathered.manifests.len() + level.len() > MOST_MANIFESTS
            {
                return Err(self.too_large());
            }
            if level.is_empty() {
                break;
            }
        }
        gathered.settle();
        Ok(gathered)
    }

    async fn find(&self, digest: &Digest, bytes: &AtomicUsize) -> Result<(Digest, Found<'_>)> {
        let what = TagOrDigest::Digest(digest.clone());
        if !self.options.recheck
            && let Some(there) = self.target.head_only(&what).await?
        {
            if !is_index(&there.media_type) {
                return Ok((digest.clone(), Found::Present));
            }
            if let Some((manifest, room)) = self.read(self.target, &what, bytes).await? {
                return Ok((digest.clone(), Found::Read { manifest, at_target: true, room }));
            }
        }
        let (manifest, room) =
            self.read(self.source, &what, bytes).await?.ok_or_else(|| self.source_gone(digest))?;
        Ok((digest.clone(), Found::Read { manifest, at_target: false, room }))
    }

    async fn read(
        &self,
        from: &Session,
        what: &TagOrDigest,
        bytes: &AtomicUsize,
    ) -> Result<Option<(Manifest, SemaphorePermit<'_>)>> {
        let mut most = self.room(bytes).await?;
        let Some(manifest) = from.manifest(what).await? else { return Ok(None) };
        let length = manifest.bytes.len();
        if bytes.fetch_add(length, Ordering::Relaxed) + length > MANIFESTS_LIMIT {
            return Err(self.too_large());
        }
        // The rest goes back at once.
        let room = most.split(length.div_ceil(1024)).unwrap_or(most);
        Ok(Some((manifest, room)))
    }

    /// Room for a manifest of any size. A copy that holds none yet may wait as long as it
    /// takes; one that does must not, because others may wait for what it holds.
    async fn room(&self, bytes: &AtomicUsize) -> Result<SemaphorePermit<'_>> {
        let room = &self.target.shared.limits.manifests;
        let closed = |error| {
            Failure::new(Reason::Internal, "the registry client is shut down").caused_by(error)
        };
        let most = u32::try_from(MANIFEST_LIMIT / 1024).unwrap_or(u32::MAX);
        let acquire = room.acquire_many(most);
        if bytes.load(Ordering::Relaxed) == 0 {
            return acquire.await.map_err(closed);
        }
        match tokio::time::timeout(self.target.host.config.request_timeout, acquire).await {
            Ok(acquired) => acquired.map_err(closed),
            Err(_) => Err(Failure::new(
                Reason::TooLarge,
                format!("running copies hold too many manifests for {}", self.source.repository),
            )
            .retry(Retry::Backoff)
            .remedy("nothing; the attempt is repeated when others have ended")),
        }
    }

    pub(crate) async fn seen_at_source(&self, root: &Digest) -> Result<()> {
        match self.source.observe(&TagOrDigest::Digest(root.clone())).await? {
            Some(_) => Ok(()),
            None => Err(self.source_gone(root)),
        }
    }

    fn source_gone(&self, digest: &Digest) -> Failure {
        let text = format!("{}@{digest} does not exist", self.source.repository);
        Failure::new(Reason::SourceGone, text)
    }

    fn too_large(&self) -> Failure {
        let text = format!("the image of {} has too many manifests", self.source.repository);
        Failure::new(Reason::TooLarge, text)
    }
}

impl<'a> Gathered<'a> {
    /// Takes what was found on one level; returns the next, with the sizes announced.
    fn add(&mut self, found: Vec<(Digest, Found<'a>)>) -> BTreeMap<Digest, u64> {
        let mut level = BTreeMap::new();
        for (digest, found) in found {
            let Found::Read { manifest, at_target, room } = found else {
                self.present.insert(digest);
                continue;
            };
            if let Content::Index { entries } = &manifest.content {
                let sized = |size: i64| u64::try_from(size).unwrap_or_default();
                let children = entries.iter().filter(|entry| is_child(entry));
                level.extend(children.map(|entry| (entry.digest.clone(), sized(entry.size))));
                if at_target {
                    self.kept.insert(digest.clone());
                }
            } else if at_target {
                self.present.insert(digest);
                continue;
            }
            self.room.push(room);
            self.manifests.insert(digest, manifest);
        }
        level.retain(|digest, _| {
            !self.manifests.contains_key(digest) && !self.present.contains(digest)
        });
        level
    }

    /// Indexes that the target has with all of their children are present, from the innermost
    /// to the root. One that lacks a child is put again after it.
    fn settle(&mut self) {
        loop {
            let whole = |digest: &&Digest| match self.manifests.get(*digest) {
                Some(Manifest { content: Content::Index { entries }, .. }) => entries
                    .iter()
                    .filter(|entry| is_child(entry))
                    .all(|entry| self.present.contains(&entry.digest)),
                _ => false,
            };
            let Some(digest) = self.kept.iter().find(whole).cloned() else { return };
            self.kept.remove(&digest);
            self.manifests.remove(&digest);
            self.present.insert(digest);
        }
    }
}
