//! Where bytes are: a range of an open file, or a file of a folder. They are read by position, so
//! that many can read at once and begin anywhere.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    error::{LocalError, too_large},
    folder::Folder,
};

/// What a source's documents may have each: indexes, manifests, configurations.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// A range of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    content: Content,
    start: u64,
    size: u64,
}

#[derive(Debug, Clone)]
enum Content {
    File(Arc<File>),
    /// Opened when it is read: a layout may have more blobs than a process may open files.
    InFolder(Arc<Folder>, String),
}

impl Place {
    pub(crate) fn in_file(file: Arc<File>, start: u64, size: u64) -> Self {
        Self { content: Content::File(file), start, size }
    }

    pub(crate) fn in_folder(folder: Arc<Folder>, name: String, size: u64) -> Self {
        Self { content: Content::InFolder(folder, name), start: 0, size }
    }

    /// A part of it; whoever asks has checked that it lies within.
    pub(crate) fn part(&self, start: u64, size: u64) -> Self {
        Self { content: self.content.clone(), start: self.start + start, size }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where it begins in its file; two places of one archive are the same if they begin together.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Opens it for reading from the beginning.
    pub(crate) fn open(&self) -> Result<Section, LocalError> {
        let file = match &self.content {
            Content::File(file) => Arc::clone(file),
            Content::InFolder(folder, name) => Arc::new(folder.open(name, self.size)?),
        };
        Ok(Section { file, start: self.start, size: self.size, at: 0 })
    }

    /// All of it, if it is a document of decent size.
    pub(crate) fn document(&self, name: &str) -> Result<Bytes, LocalError> {
        if self.size > DOCUMENT_LIMIT {
            return Err(too_large(format!(
                "{name} has {} bytes; a document may have {DOCUMENT_LIMIT}",
                self.size
            )));
        }
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or_default()];
        self.open()?.read_exact(&mut bytes).map_err(|error| LocalError::io(name, error))?;
        Ok(bytes.into())
    }
}

/// A place that is read.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    start: u64,
    size: u64,
    at: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let Some(wanted) = buffer.get_mut(..count).filter(|wanted| !wanted.is_empty()) else {
            return Ok(0);
        };
        let at = self.start.checked_add(self.at).ok_or(io::ErrorKind::InvalidData)?;
        let read = self.file.read_at(wanted, at)?;
        if read == 0 {
            // It was that long when it was opened.
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
