//! Temporary files with a limit that all of one source share. They have no name (`O_TMPFILE`, or
//! removed right after they are made), so a program that is killed leaves nothing behind.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    error::{LocalError, LocalErrorKind, too_large},
    place::Place,
};

/// The room for temporary files.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl Spool {
    /// Room in the folder given, else where the system wants temporary files (`TMPDIR`).
    pub(crate) fn new(folder: Option<&Path>, limit: u64) -> Self {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        Self { folder, limit, used: AtomicU64::new(0) }
    }

    /// A new file.
    pub(crate) fn file(&self) -> Result<SpoolFile<'_>, LocalError> {
        let file = tempfile::tempfile_in(&self.folder).map_err(|error| self.failed(error))?;
        Ok(SpoolFile { spool: self, file, size: 0 })
    }

    fn take(&self, bytes: u64) -> Result<(), LocalError> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used <= self.limit {
            return Ok(());
        }
        let text = format!("temporary files would take more than {} bytes", self.limit);
        Err(too_large(text).remedy("raise --spool-limit if the image is really that large"))
    }

    fn failed(&self, error: io::Error) -> LocalError {
        let text = format!("cannot write temporary files in {}: {error}", self.folder.display());
        LocalError::new(LocalErrorKind::Spool, text)
            .remedy("name a folder with room for the image by --spool or by TMPDIR")
            .caused_by(error)
    }
}

/// A file that is being written.
pub(crate) struct SpoolFile<'a> {
    spool: &'a Spool,
    file: File,
    size: u64,
}

impl SpoolFile<'_> {
    /// What was written, to be read.
    pub(crate) fn finish(self) -> Place {
        Place::in_file(Arc::new(self.file), 0, self.size)
    }
}

impl Write for SpoolFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.spool.take(bytes.len() as u64)?;
        self.file.write_all(bytes).map_err(|error| self.spool.failed(error))?;
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
