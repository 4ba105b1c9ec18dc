//! What a copy would have to move, found out without moving anything: manifests are read and
//! blobs are looked for, by the code that the copy itself uses.

use std::sync::Arc;

use colophon_domain::{Digest, Result, Tag};
use tokio_util::sync::CancellationToken;

use crate::{
    copy::{BlobOutcome, Copy, CopyOptions, Progress, count},
    known::Known,
    manifest::Descriptor,
    session::Session,
};

/// What the target of a copy lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Manifests to be put, indexes included.
    pub manifests: i64,
    /// Blobs that the target lacks. Of these a registry may mount some instead of receiving
    /// them.
    pub blobs: i64,
    /// Bytes of those.
    pub bytes: i64,
    /// All blobs, each once; not those below manifests that the target has already.
    pub blobs_total: i64,
    /// Bytes of those.
    pub bytes_total: i64,
    /// What a copy would leave out, in words.
    pub notes: Vec<String>,
    /// Tags that belong to what is copied, and would be moved with it.
    pub companions: Vec<Tag>,
}

/// What [`copy()`](crate::copy()) would have to move now. Nothing is written, and no blob is
/// read; the target's session may be one that only reads.
///
/// # Errors
/// `SOURCE_GONE` if the source lacks the manifest, or one below it that the target lacks too;
/// and whatever else keeps a copy from being planned.
pub async fn measure(
    source: &Session,
    target: &Session,
    digest: &Digest,
    options: CopyOptions,
) -> Result<Need> {
    let (progress, known) = (Arc::new(Untold), Known::default());
    let cancel = CancellationToken::new();
    let copy = Copy { source, target, options, progress, known, cancel };
    if source.repository == target.repository && copy.options.made.is_none() {
        copy.seen_at_source(digest).await?;
        return Ok(Need::default());
    }
    let mut gathered = copy.gather(digest).await?;
    let along = copy.along(&mut gathered).await?;
    let plan = copy.plan(digest, &along, &gathered)?;
    let (_, missing) = copy.check(&plan).await?;
    let mut companions: Vec<Tag> = along.tags.into_iter().map(|it| it.tag).collect();
    for list in &along.lists {
        companions.push(list.tag()?);
    }
    Ok(Need {
        manifests: plan.stages.iter().map(|stage| count(stage.len())).sum(),
        blobs: count(missing.len()),
        bytes: bytes(&missing),
        blobs_total: count(plan.blobs.len()),
        bytes_total: plan.bytes_total(),
        notes: plan.notes,
        companions,
    })
}

fn bytes(blobs: &[&Descriptor]) -> i64 {
    blobs.iter().map(|blob| blob.size).fold(0, i64::saturating_add)
}

/// Nothing moves, so there is nothing to tell.
pub(crate) struct Untold;

impl Progress for Untold {
    fn planned(&self, _bytes_total: i64, _blobs: i64) {}

    fn begun(&self, _blob: &Digest, _bytes: i64) {}

    fn blob(&self, _blob: &Digest, _outcome: BlobOutcome, _bytes: i64) {}

    fn sent(&self, _blob: &Digest, _bytes: i64) {}
}
