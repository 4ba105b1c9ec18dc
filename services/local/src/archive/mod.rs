//! A tar file as a map of names to places in it. It is passed over once, from header to header,
//! and nothing of it is ever unpacked into a file system; so what would be dangerous there is
//! refused because no tool writes it, not because it could do harm here.

mod index;
mod links;
pub(crate) mod names;

use std::{collections::HashMap, sync::Arc};

pub(crate) use index::index;

use crate::{error::LocalError, place::Place, store::Store};

/// The regular files of a tar file.
#[derive(Debug)]
pub(crate) struct Archive {
    whole: Place,
    files: HashMap<String, Range>,
}

/// A range of the tar file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    size: u64,
}

impl Archive {
    fn at(&self, range: Range) -> Place {
        self.whole.part(range.start, range.size)
    }
}

impl Store for Arc<Archive> {
    fn place(&self, name: &str) -> Result<Option<Place>, LocalError> {
        Ok(self.files.get(name).map(|range| self.at(*range)))
    }
}
