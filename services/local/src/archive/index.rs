//! The one pass over a tar file.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::Entry as Slot},
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
    sync::Arc,
};

use tar::{Entry, EntryType};

use super::{Archive, Range, links::Links, names};
use crate::{
    error::{LocalError, refused, shown, too_large},
    place::{Place, Section},
    progress::Work,
};

/// Entries of one archive.
const MOST_ENTRIES: usize = 65_536;
/// What the map may take, in bytes.
const MAP_LIMIT: usize = 32 << 20;
/// What a name takes in the map beside its own bytes, generously.
const PER_NAME: usize = 128;
/// A header that describes the next one (PAX, GNU's long names).
const EXTENSION_LIMIT: u64 = 1 << 20;
/// What may be read from one entry to the next: each kind of extension once, and headers.
const BETWEEN: u64 = 3 * EXTENSION_LIMIT + (64 << 10);

/// Reads the headers of a tar file.
pub(crate) fn index(whole: &Place, work: &Work) -> Result<Arc<Archive>, LocalError> {
    let left = Rc::new(Cell::new(BETWEEN));
    let mut tar = tar::Archive::new(Metered { inner: whole.open()?, left: Rc::clone(&left) });
    let mut map = Map { whole, files: HashMap::new(), links: Links::default(), bytes: 0 };
    let entries = tar.entries_with_seek().map_err(|error| LocalError::io("reading", error))?;
    for (number, entry) in entries.enumerate() {
        if number >= MOST_ENTRIES {
            return Err(too_large(format!("has more than {MOST_ENTRIES} entries")));
        }
        let nth = format!("entry {}", number + 1);
        let mut entry = entry.map_err(|error| LocalError::io(&nth, error))?;
        map.add(&nth, &mut entry)?;
        left.set(BETWEEN);
        work.advance(0)?;
    }
    map.finish()
}

struct Map<'a> {
    whole: &'a Place,
    files: HashMap<String, Range>,
    links: Links,
    bytes: usize,
}

impl Map<'_> {
    fn add(&mut self, nth: &str, entry: &mut Entry<'_, impl Read>) -> Result<(), LocalError> {
        let kind = entry.header().entry_type();
        // What it says holds for all that follow, and none of it is of interest here.
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let written = entry.path_bytes();
        let Some(name) = names::within("", &written) else {
            let written = String::from_utf8_lossy(&written);
            return Err(refused(format!("{nth} has the name {}", shown(&written))));
        };
        drop(written);
        self.count(&name)?;
        refuse_sparse(nth, entry)?;
        match kind {
            EntryType::Directory => Ok(()),
            EntryType::Regular => {
                let range = Range { start: entry.raw_file_position(), size: entry.size() };
                self.file(nth, name, range)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.count(&String::from_utf8_lossy(&target))?;
                self.links.add(name, &target)
            }
            kind => Err(refused(format!(
                "{nth}, {}, is {}, which no image archive holds",
                shown(&name),
                named(kind)
            ))),
        }
    }

    fn count(&mut self, name: &str) -> Result<(), LocalError> {
        self.bytes += name.len() + PER_NAME;
        if self.bytes > MAP_LIMIT {
            return Err(too_large("the names of its entries are too long"));
        }
        Ok(())
    }

    fn file(&mut self, nth: &str, name: String, range: Range) -> Result<(), LocalError> {
        let end = range.start.checked_add(range.size);
        if end.is_none_or(|end| end > self.whole.size()) {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            let what = format!("{nth}, {}, is cut off", shown(&name));
            return Err(LocalError::io(what, error).remedy("fetch or write the archive again"));
        }
        match self.files.entry(name) {
            Slot::Vacant(slot) => {
                slot.insert(range);
                Ok(())
            }
            // The same twice does no harm; two that differ would be read in two ways.
            Slot::Occupied(slot) if same(self.whole, *slot.get(), range)? => Ok(()),
            Slot::Occupied(slot) => {
                Err(refused(format!("{} is there twice with other bytes", shown(slot.key()))))
            }
        }
    }

    fn finish(mut self) -> Result<Arc<Archive>, LocalError> {
        self.links.settle(&mut self.files)?;
        Ok(Arc::new(Archive { whole: self.whole.clone(), files: self.files }))
    }
}

/// Whether two ranges hold the same bytes.
fn same(whole: &Place, one: Range, other: Range) -> Result<bool, LocalError> {
    if one.size != other.size {
        return Ok(false);
    }
    let open = |range: Range| whole.part(range.start, range.size).open();
    let (mut one, mut other) = (open(one)?, open(other)?);
    let failed = |error| LocalError::io("comparing entries", error);
    let (mut here, mut there) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut here).map_err(failed)?;
        let (Some(here), Some(there)) = (here.get(..count), there.get_mut(..count)) else {
            return Ok(false);
        };
        other.read_exact(there).map_err(failed)?;
        if here != there {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

/// Sparse files in PAX form look like regular ones, but their bytes are not those of the file.
fn refuse_sparse(nth: &str, entry: &mut Entry<'_, impl Read>) -> Result<(), LocalError> {
    let failed = |error| LocalError::io(nth, error);
    let Some(extensions) = entry.pax_extensions().map_err(failed)? else { return Ok(()) };
    for extension in extensions {
        if extension.map_err(failed)?.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(refused(format!("{nth} is a sparse file")));
        }
    }
    Ok(())
}

fn named(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file",
        _ => "of an unknown type",
    }
}

/// Reads no more between two entries than headers may have, so that an extension header cannot
/// fill the memory. What lies in between is skipped, and not read.
struct Metered {
    inner: Section,
    left: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.get().checked_sub(count as u64) {
            Some(left) => self.left.set(left),
            None => return Err(too_large("a header is larger than 1 MiB").into()),
        }
        Ok(count)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
