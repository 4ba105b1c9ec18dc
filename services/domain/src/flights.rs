//! Who brings which blob into which repository, and how far: what has to outlive a process so that
//! another one neither sends what is on its way already nor begins from the start.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::{Digest, Repository, Result};

/// The right to work on a job: every write of the worker is fenced by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: i64,
    /// Fresh for every claim.
    pub token: Uuid,
}

/// A blob on its way into a repository.
#[derive(Debug, Clone, Copy)]
pub struct Flight<'a> {
    /// Whose job it is.
    pub lease: Lease,
    /// Where it goes.
    pub repository: &'a Repository,
    /// What it is.
    pub digest: &'a Digest,
}

/// How far an upload is: all that is needed to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// Where the registry takes the rest; sealed, because such a URL may hold a secret.
    pub location: Vec<u8>,
    /// Bytes from the blob's start that the registry has confirmed.
    pub offset: u64,
    /// The state of the digest over these bytes.
    pub hash: Vec<u8>,
}

/// What became of the wish to bring a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boarding {
    /// Nobody else brings it, and nobody has tried.
    First,
    /// Somebody has brought it, or tried and does not any more: the blob may be there, or a part of
    /// it.
    After(Option<Trail>),
    /// The job of somebody else brings it.
    Taken,
}

/// Where flights are written down, for all processes.
pub trait FlightBook: Send + Sync + 'static {
    /// Tries to become the one who brings the blob. One whose lease has ended counts for nobody.
    ///
    /// # Errors
    /// `LEASE_LOST` for a job that is no longer the asker's.
    fn board<'a>(&'a self, flight: Flight<'a>) -> BoxFuture<'a, Result<Boarding>>;

    /// Writes down how far the upload is.
    ///
    /// # Errors
    /// `LEASE_LOST` if the flight is no longer the job's.
    fn mark<'a>(&'a self, flight: Flight<'a>, trail: &'a Trail) -> BoxFuture<'a, Result<()>>;

    /// The blob is there, which whoever boards next is told, or else nobody is to go on with it.
    fn land<'a>(&'a self, flight: Flight<'a>, arrived: bool) -> BoxFuture<'a, Result<()>>;
}
