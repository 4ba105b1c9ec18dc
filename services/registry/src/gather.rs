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
pub(crate) const MANIFESTS_LIMIT: usize = 16 << 20;
/// Manifests of one image, with what goes along with it.
pub(crate) const MOST_MANIFESTS: usize = 2000;
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
    bytes: AtomicUsize,
}

enum Found<'a> {
    /// The target has the image manifest.
    Present,
    /// It was read.
    Read(Box<Read<'a>>),
    /// Neither has it.
    Gone,
}

/// A manifest from the source, or from the target, which has it.
struct Read<'a> {
    manifest: Manifest,
    at_target: bool,
    room: SemaphorePermit<'a>,
}

impl Copy<'_> {
    /// Reads the manifests of an image level by level, and stops at image manifests that the
    /// target has: a registry keeps the blobs that its manifests refer to. It may not keep an
    /// index's children, which cleaners of untagged manifests delete, so those are looked for.
    ///
    /// # Errors
    /// `SOURCE_GONE` also if the target has everything: what is published must have been seen.
    pub(crate) async fn gather(&self, root: &Digest) -> Result<Gathered<'_>> {
        let mut gathered = Gathered::default();
        let roots = BTreeMap::from([(root.clone(), 0)]);
        if !self.descend(&mut gathered, roots, &BTreeSet::new()).await?.is_empty() {
            return Err(self.source_gone(root));
        }
        let there = gathered.present.contains(root) || gathered.kept.contains(root);
        if there && self.made(root).is_none() {
            self.seen_at_source(root).await?;
        }
        Ok(gathered)
    }

    /// Reads what is below these roots, of which the sizes are given, and adds it; returns the
    /// roots that do not exist. Those that are `wanted` are read from the source also if the target
    /// has them.
    pub(crate) async fn descend<'a>(
        &'a self,
        gathered: &mut Gathered<'a>,
        roots: BTreeMap<Digest, u64>,
        wanted: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>> {
        let mut level = roots;
        let mut gone = BTreeSet::new();
        for digest in wanted {
            gathered.present.remove(digest);
        }
        level.retain(|digest, _| !gathered.knows(digest));
        for number in 0..=MOST_LEVELS {
            // The sizes that an index announces are checked before anything is read, and then
            // by what really comes.
            let announced: u64 = level.values().fold(0, |sum, size| sum.saturating_add(*size));
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            if gathered.bytes.load(Ordering::Relaxed).saturating_add(announced) > MANIFESTS_LIMIT
                || gathered.manifests.len() + gathered.present.len() + level.len() > MOST_MANIFESTS
            {
                return Err(self.too_large());
            }
            if level.is_empty() {
                break;
            }
            let bytes = &gathered.bytes;
            let find = |digest| self.find(digest, bytes, number == 0 && wanted.contains(digest));
            let found = self.all(level.keys().map(find)).await?;
            let lost = |(digest, found): &(Digest, Found<'_>)| {
                matches!(found, Found::Gone).then(|| digest.clone())
            };
            match found.iter().find_map(lost) {
                Some(lost) if number > 0 => return Err(self.source_gone(&lost)),
                _ => gone.extend(found.iter().filter_map(lost)),
            }
            level = gathered.add(found);
        }
        gathered.settle();
        Ok(gone)
    }

    async fn find(
        &self,
        digest: &Digest,
        bytes: &AtomicUsize,
        wanted: bool,
    ) -> Result<(Digest, Found<'_>)> {
        let what = TagOrDigest::Digest(digest.clone());
        if let Some(made) = self.made(digest) {
            let at_target = !self.options.recheck && self.target.head_only(&what).await?.is_some();
            let (manifest, room) = (made.clone(), self.room(bytes).await?);
            let read = Read { manifest, at_target, room };
            return Ok((digest.clone(), Found::Read(Box::new(read))));
        }
        if !self.options.recheck
            && !wanted
            && let Some(there) = self.target.head_only(&what).await?
        {
            let index = is_index(&there.media_type);
            if !index && !self.options.selection.foreign {
                return Ok((digest.clone(), Found::Present));
            }
            if let Some((manifest, room)) = self.read(self.target, &what, bytes).await? {
                let at_target = index || self.has_foreign(&manifest).await?;
                let read = Read { manifest, at_target, room };
                return Ok((digest.clone(), Found::Read(Box::new(read))));
            }
        }
        let found = match self.read(self.source, &what, bytes).await? {
            Some((manifest, room)) => {
                Found::Read(Box::new(Read { manifest, at_target: false, room }))
            }
            None => Found::Gone,
        };
        Ok((digest.clone(), found))
    }

    /// The manifest with this digest, if it is one that was made for this copy.
    pub(crate) fn made(&self, digest: &Digest) -> Option<&Manifest> {
        self.options.made.as_ref().filter(|made| made.digest == *digest)
    }

    /// Whether the target has the foreign layers of an image, which it need not have.
    async fn has_foreign(&self, manifest: &Manifest) -> Result<bool> {
        let Content::Image { layers, .. } = &manifest.content else { return Ok(true) };
        let foreign = layers.iter().filter(|layer| layer.foreign);
        let look = foreign.map(|layer| self.target.has_blob(&layer.descriptor.digest));
        Ok(self.all(look).await?.into_iter().all(|there| there))
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

    pub(crate) fn source_gone(&self, digest: &Digest) -> Failure {
        let text = format!("{}@{digest} does not exist", self.source.repository);
        Failure::new(Reason::SourceGone, text)
    }

    pub(crate) fn too_large(&self) -> Failure {
        let text = format!("the image of {} has too many manifests", self.source.repository);
        Failure::new(Reason::TooLarge, text)
    }
}

impl<'a> Gathered<'a> {
    /// Takes what was found on one level; returns the next, with the sizes announced.
    fn add(&mut self, found: Vec<(Digest, Found<'a>)>) -> BTreeMap<Digest, u64> {
        let mut level = BTreeMap::new();
        for (digest, found) in found {
            let Read { manifest, at_target, room } = match found {
                Found::Read(read) => *read,
                Found::Present => {
                    self.present.insert(digest);
                    continue;
                }
                Found::Gone => continue,
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
        level.retain(|digest, _| !self.knows(digest));
        level
    }

    fn knows(&self, digest: &Digest) -> bool {
        self.manifests.contains_key(digest) || self.present.contains(digest)
    }

    /// Every manifest that was looked at.
    pub(crate) fn known(&self) -> BTreeSet<Digest> {
        self.manifests.keys().chain(&self.present).cloned().collect()
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
