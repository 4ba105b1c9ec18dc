//! Where it is written down how far an upload is, whoever brings the blob: a job that copies it, or a
//! client that sends it.

use colophon_domain::{Result, Trail};

/// What is written down of one blob.
pub(crate) trait Trails: Sync {
    /// Whether anything can be written down.
    fn is_written(&self) -> bool;

    /// How far whoever had it before has come.
    fn trail(&self) -> Option<&Trail>;

    /// Writes down how far the upload is; false if that did not work, which costs nothing now.
    ///
    /// # Errors
    /// `LEASE_LOST` if somebody else brings the blob by now.
    fn keep(&self, trail: &Trail) -> impl Future<Output = Result<bool>> + Send;
}
