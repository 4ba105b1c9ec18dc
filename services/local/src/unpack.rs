//! gzip and zstd, recognised by their first bytes and read within bounds: a small file that
//! becomes an enormous one is refused before it fills a disk or an afternoon.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use crate::{
    error::{LocalError, too_large, unsupported},
    progress::Work,
};

/// What every zstd decoder is asked to understand (RFC 8878, section 3.1.1.1.2), and all that
/// `zstd` uses unless it is asked for `--ultra` or `--long`.
const WINDOW: u64 = 8 << 20;
/// The ratio counts from here on; small files of zeros are ordinary.
const RATIO_FROM: u64 = 64 << 20;

/// How many bytes may come out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// In all.
    pub(crate) bytes: u64,
    /// For each byte that goes in.
    pub(crate) ratio: u64,
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// How many first bytes tell.
    pub(crate) const HEAD: usize = 6;

    /// By the first bytes; an empty stream is plain.
    pub(crate) fn of(head: &[u8]) -> Result<Self, LocalError> {
        Ok(match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of those that are skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(other("xz", "xz -dc")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(other("bzip2", "bzip2 -dc")),
            _ => Self::Plain,
        })
    }
}

fn other(name: &str, program: &str) -> LocalError {
    unsupported(format!("is compressed by {name}"))
        .remedy(format!("decompress it first: {program} FILE | colophon push - ..."))
}

/// Reads a stream that may be compressed.
pub(crate) struct Unpacked<'a> {
    inner: Box<dyn Read + 'a>,
    packing: Packing,
    taken: Arc<AtomicU64>,
    given: u64,
    bounds: Bounds,
}

impl<'a> Unpacked<'a> {
    /// Looks at the first bytes. What goes in is told to `work`.
    pub(crate) fn new(
        mut source: impl Read + 'a,
        bounds: Bounds,
        work: &'a Work,
    ) -> Result<Self, LocalError> {
        let mut head = Vec::with_capacity(Packing::HEAD);
        let limit = Packing::HEAD as u64;
        let looked = source.by_ref().take(limit).read_to_end(&mut head);
        looked.map_err(|error| LocalError::io("reading", error))?;
        let packing = Packing::of(&head)?;
        let taken = Arc::new(AtomicU64::new(0));
        let whole = io::Cursor::new(head).chain(source);
        let counted = Counted { inner: whole, count: Arc::clone(&taken), work };
        let inner: Box<dyn Read + 'a> = match packing {
            Packing::Plain => Box::new(counted),
            Packing::Gzip => {
                Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, counted)))
            }
            Packing::Zstd => Box::new(Zstd::new(BufReader::with_capacity(1 << 16, counted))),
        };
        Ok(Self { inner, packing, taken, given: 0, bounds })
    }

    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    fn check(&self) -> Result<(), LocalError> {
        if self.given > self.bounds.bytes {
            let text = format!("has more than {} bytes when decompressed", self.bounds.bytes);
            return Err(too_large(text));
        }
        let most = self.taken.load(Ordering::Relaxed).saturating_mul(self.bounds.ratio);
        if self.packing != Packing::Plain && self.given > RATIO_FROM && self.given > most {
            let text = format!("becomes more than {} times as large", self.bounds.ratio);
            return Err(too_large(text + " when it is decompressed")
                .remedy("if it is meant to be so, decompress it first and push that"));
        }
        Ok(())
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.given += count as u64;
        self.check()?;
        Ok(count)
    }
}

/// Counts what is taken.
struct Counted<'a, R> {
    inner: R,
    count: Arc<AtomicU64>,
    work: &'a Work,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        self.work.advance(count)?;
        Ok(count)
    }
}

/// Frames of zstd, one after the other (RFC 8878, section 3.1), each with its checksum compared.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { source, decoder, in_frame: false }
    }

    /// Begins the next frame; `false` at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped =
                        io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(unsupported("was compressed with a large window")
                        .remedy("decompress it first: zstd -dc --long=31 FILE | colophon push - ..")
                        .into());
                }
                Err(error) => return Err(invalid(&error)),
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let written = self.decoder.get_checksum_from_data();
        if written.is_some() && written != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd checksum is wrong"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.source, one)
                    .map_err(|error| invalid(&error))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.end()?;
        }
    }
}

/// A frame that cannot be read; errors of the stream itself pass through.
fn invalid(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no zstd: {error}"))
}
