//! Where blobs are: which repositories of a registry were seen to hold one.

use futures_util::future::BoxFuture;

use crate::{Digest, Repository, Result};

/// Remembers which repositories hold which blobs. What it says was true once, so whoever uses it
/// finds out whether it still is, and tells.
pub trait BlobPlaces: Send + Sync + 'static {
    /// Repositories of the target's registry that were seen to hold each of the blobs: those beside
    /// the target first, then those seen last, a few dozen of each blob at most. The target itself
    /// may be among them.
    fn holders<'a>(
        &'a self,
        target: &'a Repository,
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<Vec<(Digest, Repository)>>>;

    /// All of these repositories hold all of these blobs.
    fn seen<'a>(
        &'a self,
        repositories: &'a [&'a Repository],
        blobs: &'a [Digest],
    ) -> BoxFuture<'a, Result<()>>;

    /// The repository does not hold the blob (any more).
    fn gone<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Digest,
    ) -> BoxFuture<'a, Result<()>>;
}
