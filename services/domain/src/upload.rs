//! Content on its way from a client into a repository, before a release of it is accepted.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Digest, Repository};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// Where the content is to come.
    pub repository: Repository,
    /// Where it comes from, as claimed; for people.
    pub origin: String,
}

/// An upload as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadView {
    /// Its name.
    pub id: Uuid,
    /// Where the content comes.
    pub repository: Repository,
    /// Where it comes from, as claimed.
    pub origin: String,
    /// Whose it is: the name of the caller's token.
    pub principal: String,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it ends if nothing more comes.
    pub expires_at: OffsetDateTime,
    /// Bytes of blobs that have come.
    pub bytes_received: u64,
}

/// A blob as its manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWish {
    /// What it is.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// How far a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The repository has it.
    Present,
    /// It is to be sent from this offset on.
    From(u64),
    /// Somebody sends it at the moment.
    Busy,
}

/// How far which blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobProgress {
    /// Which one.
    pub digest: Digest,
    /// How far.
    pub wanted: Wanted,
}
