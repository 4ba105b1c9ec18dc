//! Layers of the older kind of archive, which holds them uncompressed: each is compressed once,
//! always to the same bytes, and held against the digest that the configuration has of it.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use colophon_domain::{Algorithm, Digest};
use flate2::{Compression, GzBuilder, write::GzEncoder};

use crate::{
    Limits,
    error::{LocalError, LocalErrorKind},
    image::Hash,
    place::Place,
    progress::{Step, Work},
    spool::{Spool, SpoolFile},
    unpack::{Bounds, Packing, Unpacked},
};

/// Never to be changed lightly: the digest of everything that is pushed from such archives
/// follows from it.
const LEVEL: u32 = 6;
/// RFC 1952, section 2.3.1: the operating system is unknown, so that all write the same.
const NO_SYSTEM: u8 = 255;
/// Layers at once.
const MOST_THREADS: usize = 4;
/// Read at once.
const BUFFER: usize = 256 << 10;

/// A layer as the archive has it.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) place: Place,
    /// The digest of its uncompressed bytes.
    pub(crate) diff_id: Digest,
}

/// A layer as it is sent.
#[derive(Clone)]
pub(crate) struct Compressed {
    pub(crate) digest: Digest,
    pub(crate) place: Place,
}

/// What layers are compressed with.
pub(crate) struct Press<'a> {
    pub(crate) spool: &'a Spool,
    pub(crate) limits: Limits,
    pub(crate) work: &'a Work,
}

impl Press<'_> {
    /// Compresses layers, several at once; the answer is in their order.
    pub(crate) fn all(&self, layers: &[Layer]) -> Result<Vec<Compressed>, LocalError> {
        let total = layers.iter().map(|layer| layer.place.size()).fold(0, u64::saturating_add);
        self.work.begin(Step::Compressing, Some(total));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let take = || {
            let mut done = Vec::new();
            while let number = next.fetch_add(1, Ordering::Relaxed)
                && let Some(layer) = layers.get(number)
            {
                let result = self.one(layer, &failed);
                if result.is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
                done.push((number, result));
            }
            done
        };
        let mut done = thread::scope(|scope| {
            let threads = cores.min(MOST_THREADS).min(layers.len());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().flat_map(join).collect::<Vec<_>>()
        });
        done.sort_by_key(|(number, _)| *number);
        // What was stopped because another layer failed says nothing of why.
        let why = done.iter().position(|(_, result)| {
            result.as_ref().is_err_and(|error| error.kind() != LocalErrorKind::Stopped)
        });
        if let Some(why) = why {
            done.swap(0, why);
        }
        done.into_iter().map(|(_, result)| result).collect()
    }

    fn one(&self, layer: &Layer, failed: &AtomicBool) -> Result<Compressed, LocalError> {
        let bounds = Bounds { bytes: self.limits.layer, ratio: self.limits.ratio };
        let source = Unpacked::new(layer.place.open()?, bounds, self.work)?;
        if source.packing() == Packing::Gzip {
            pump(source, io::sink(), &layer.diff_id, failed)?;
            let mut hash = Hash::new(Algorithm::Sha256);
            each(layer.place.open()?, |bytes| {
                hash.update(bytes);
                Ok(())
            })?;
            return Ok(Compressed { digest: hash.digest()?, place: layer.place.clone() });
        }
        let hashing = Hashing { file: self.spool.file()?, hash: Hash::new(Algorithm::Sha256) };
        let gzip = GzBuilder::new().mtime(0).operating_system(NO_SYSTEM);
        let gzip = gzip.write(hashing, Compression::new(LEVEL));
        let gzip: GzEncoder<Hashing<'_>> = pump(source, gzip, &layer.diff_id, failed)?;
        let hashing = gzip.finish().map_err(|error| LocalError::io("compressing", error))?;
        Ok(Compressed { digest: hashing.hash.digest()?, place: hashing.file.finish() })
    }
}

/// Copies a layer, and holds it against its digest.
fn pump<W: Write>(
    source: impl Read,
    mut into: W,
    diff_id: &Digest,
    failed: &AtomicBool,
) -> Result<W, LocalError> {
    let mut hash = Hash::new(diff_id.algorithm());
    each(source, |bytes| {
        if failed.load(Ordering::Relaxed) {
            return Err(LocalError::new(LocalErrorKind::Stopped, "another layer failed"));
        }
        hash.update(bytes);
        into.write_all(bytes).map_err(|error| LocalError::io("compressing", error))
    })?;
    hash.check(diff_id)?;
    Ok(into)
}

/// Does something with all bytes of a source.
pub(crate) fn each(
    mut source: impl Read,
    mut with: impl FnMut(&[u8]) -> Result<(), LocalError>,
) -> Result<(), LocalError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(LocalError::io("reading", error)),
        };
        with(buffer.get(..count).unwrap_or_default())?;
    }
}

/// A temporary file whose digest is computed while it is written.
struct Hashing<'a> {
    file: SpoolFile<'a>,
    hash: Hash,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
