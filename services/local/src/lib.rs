//! Images of this machine, as manifests and blobs that can be read again from any offset.
//!
//! A [`Source`] is an image of the local Docker engine, an archive that `docker save` or `skopeo`
//! wrote, an OCI layout in a folder or in an archive, or an archive on standard input. [`open`]
//! makes an [`Image`] of it: manifests, children first, and blobs whose bytes are read when they
//! are sent. Files that can be read in place are; what comes as a stream or is compressed goes
//! through a temporary file without a name. Whatever is in a source is hostile until it is
//! checked: every digest is compared, and everything has a bound.

mod archive;
mod choose;
mod compress;
pub mod docker;
mod document;
mod error;
mod folder;
mod graph;
mod image;
mod layout;
mod open;
mod place;
mod progress;
mod saved;
mod source;
mod spool;
mod store;
mod unpack;

pub use error::{LocalError, LocalErrorKind};
pub use image::{Blob, Image, ManifestBytes, PieceReader};
pub use open::{Limits, Options, open};
pub use progress::{Events, Progress, Step};
pub use source::Source;
