//! The blobs of an OCI layout on disk: JSON documents, tar layers and busybox.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use colophon_launcher::tool;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Result, While as _},
    peer::sha256,
};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer that was written.
pub(crate) struct Layer {
    pub(crate) descriptor: Value,
    /// The digest of the tar before compression.
    pub(crate) diff_id: String,
}

/// The folder `blobs/sha256` of a layout.
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(crate) fn create(layout: &Path) -> Result<Self> {
        let folder = layout.join("blobs/sha256");
        std::fs::create_dir_all(&folder).doing("making a folder")?;
        Ok(Self { folder })
    }

    fn bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = sha256(bytes);
        std::fs::write(self.path(&digest), bytes).doing("writing a blob")?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    pub(crate) fn json(&self, media_type: &str, value: &Value) -> Result<Value> {
        self.bytes(media_type, value.to_string().as_bytes())
    }

    /// A plain tar with one file in it.
    pub(crate) fn layer(&self, name: &str, size: u64, content: impl Read) -> Result<Layer> {
        let partial = self.folder.join("partial");
        let file = File::create(&partial).doing("writing a layer")?;
        let tar = write_tar(Hashing::new(io::BufWriter::new(file)), name, 0o644, size, content)?;
        let (mut file, digest, size) = tar.finish();
        file.flush().doing("writing a layer")?;
        std::fs::rename(&partial, self.path(&digest)).doing("writing a layer")?;
        let descriptor = json!({ "mediaType": TAR, "digest": digest, "size": size });
        Ok(Layer { descriptor, diff_id: digest })
    }

    /// Busybox as a compressed layer, as most images have theirs.
    pub(crate) fn busybox(&self) -> Result<Layer> {
        // Compressing it takes a second in a debug build; once per process is enough.
        static MADE: OnceLock<(Vec<u8>, String)> = OnceLock::new();
        let (bytes, diff_id) = if let Some(made) = MADE.get() {
            made
        } else {
            let made = compressed_busybox()?;
            MADE.get_or_init(|| made)
        };
        let descriptor = self.bytes(TAR_GZIP, bytes)?;
        Ok(Layer { descriptor, diff_id: diff_id.clone() })
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest.trim_start_matches("sha256:"))
    }
}

fn compressed_busybox() -> Result<(Vec<u8>, String)> {
    let program = tool::find("busybox", "apt-get install -y busybox-static")?;
    let program = std::fs::read(program).doing("reading busybox")?;
    let gzip: GzEncoder<Vec<u8>> = GzBuilder::new().write(Vec::new(), Compression::fast());
    let size = program.len() as u64;
    let tar = write_tar(Hashing::new(gzip), "bin/busybox", 0o755, size, program.as_slice())?;
    let (gzip, diff_id, _) = tar.finish();
    Ok((gzip.finish().doing("compressing busybox")?, diff_id))
}

fn write_tar<W: Write>(into: W, name: &str, mode: u32, size: u64, content: impl Read) -> Result<W> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    let mut tar = tar::Builder::new(into);
    tar.append_data(&mut header, name, content).doing("writing a tar")?;
    tar.into_inner().doing("writing a tar")
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, format!("sha256:{}", hex::encode(self.hash.finalize())), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes that do not compress, the same for the same seed (splitmix64).
pub(crate) struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    pub(crate) fn new(seed: &str, left: u64) -> Self {
        let state = Sha256::digest(seed)
            .iter()
            .take(8)
            .fold(0, |state, byte| (state << 8) | u64::from(*byte));
        Self { state, left }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let (wanted, _) = buffer.split_at_mut(count);
        for chunk in wanted.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = self.state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            for (place, byte) in chunk.iter_mut().zip(word.to_le_bytes()) {
                *place = byte;
            }
        }
        self.left -= count as u64;
        Ok(count)
    }
}
