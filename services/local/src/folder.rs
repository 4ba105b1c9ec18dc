//! An OCI layout in a folder. Others may write there while it is read, so nothing in it is
//! followed: every step of a name is opened without following links, only regular files are read,
//! and what a file is and how long is asked of the file that is open.

use std::{fs::File, path::Path, sync::Arc};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};

use crate::{
    error::{LocalError, LocalErrorKind, damaged, refused, shown},
    place::Place,
    store::Store,
};

/// The folder, open.
#[derive(Debug)]
pub(crate) struct Folder {
    root: File,
}

impl Folder {
    /// Opens the folder that somebody named, through links where the name has some.
    pub(crate) fn new(path: &Path) -> Result<Arc<Self>, LocalError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty())
            .map_err(|error| LocalError::io("opening the folder", error.into()))?;
        Ok(Arc::new(Self { root: root.into() }))
    }

    /// Opens a file that had this size when it was looked for.
    pub(crate) fn open(&self, name: &str, size: u64) -> Result<File, LocalError> {
        match self.regular(name)? {
            Some((file, now)) if now == size => Ok(file),
            _ => Err(damaged(format!("{} changed while it was read", shown(name)))),
        }
    }

    fn regular(&self, name: &str) -> Result<Option<(File, u64)>, LocalError> {
        let failed = |error: rustix::io::Errno| LocalError::io(shown(name), error.into());
        // A pipe must not make us wait for whoever writes into it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut folder: Option<File> = None;
        let mut steps = name.split('/').peekable();
        while let Some(step) = steps.next() {
            let at = folder.as_ref().unwrap_or(&self.root);
            let last = steps.peek().is_none();
            let flags = if last { flags } else { flags | OFlags::DIRECTORY };
            let file = match openat(at, step, flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                    return Err(refused(format!("{} leads through a link", shown(name)))
                        .remedy("copy the layout with the links resolved: cp -rL"));
                }
                Err(error) => return Err(failed(error)),
            };
            if !last {
                folder = Some(file);
                continue;
            }
            let status = fstat(&file).map_err(failed)?;
            if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
                return Err(refused(format!("{} is no regular file", shown(name))));
            }
            let size = u64::try_from(status.st_size);
            let size = size.map_err(|_| LocalError::new(LocalErrorKind::Io, "a negative size"))?;
            return Ok(Some((file, size)));
        }
        Ok(None)
    }
}

impl Store for Arc<Folder> {
    fn place(&self, name: &str) -> Result<Option<Place>, LocalError> {
        let found = self.regular(name)?;
        Ok(found.map(|(_, size)| Place::in_folder(Self::clone(self), name.to_owned(), size)))
    }
}
