//! What a layout lies in, an archive or a folder: names, and where their bytes are.

use bytes::Bytes;
use colophon_domain::Digest;

use crate::{error::LocalError, place::Place};

/// An archive or a folder.
pub(crate) trait Store {
    /// Where a regular file's bytes are; `None` if there is no such file.
    fn place(&self, name: &str) -> Result<Option<Place>, LocalError>;

    /// A blob of an OCI layout (OCI image-spec, "Image Layout").
    fn blob(&self, digest: &Digest) -> Result<Option<Place>, LocalError> {
        self.place(&format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex()))
    }

    /// A document at the root.
    fn document(&self, name: &str) -> Result<Option<Bytes>, LocalError> {
        self.place(name)?.map(|place| place.document(name)).transpose()
    }
}
