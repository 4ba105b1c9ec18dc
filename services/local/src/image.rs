//! An image that can be sent: its manifests whole, and its blobs as places that can be read again
//! from any offset.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use colophon_domain::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::task::JoinHandle;

use crate::{
    error::{LocalError, LocalErrorKind, damaged},
    place::{Place, Section},
};

/// How much of a blob is read at once.
const PIECE: u64 = 256 << 10;

/// The exact bytes of a manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestBytes {
    /// The digest of the bytes.
    pub digest: Digest,
    /// What they are.
    pub media_type: String,
    /// The bytes, which are never written anew.
    pub bytes: Bytes,
}

/// A configuration, a layer or another blob.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What its bytes must hash to; that is checked whenever they are read.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// As the manifest says.
    pub media_type: String,
    pub(crate) place: Place,
}

/// An image of this machine.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest that is published.
    pub root: Digest,
    /// All manifests, each after those that it refers to; the root is the last.
    pub manifests: Vec<ManifestBytes>,
    /// All blobs, each once, largest first.
    pub blobs: Vec<Blob>,
    /// What the source calls it.
    pub names: Vec<String>,
    /// What an engine calls it: the digest of the configuration, or that of the root.
    pub image_id: Option<Digest>,
    /// The source names no digest of a manifest, so this one was computed and nobody else has it.
    pub digest_is_new: bool,
    /// What whoever publishes it should know.
    pub notes: Vec<String>,
    /// What the source's list names: the root, or the index that one platform was taken from.
    pub(crate) listed: Digest,
}

impl Image {
    /// Bytes of all blobs and manifests.
    pub fn bytes_total(&self) -> u64 {
        let manifests = self.manifests.iter().map(|manifest| manifest.bytes.len() as u64);
        self.blobs.iter().map(|blob| blob.size).chain(manifests).fold(0, u64::saturating_add)
    }

    /// Reads a blob from an offset to its end.
    pub fn read(&self, blob: &Blob, offset: u64) -> PieceReader {
        PieceReader(State::Waiting(Box::new(Cursor::new(blob, offset))))
    }
}

/// A blob that is read, piece by piece, one piece ahead of whoever takes them.
#[derive(Debug)]
pub struct PieceReader(State);

#[derive(Debug)]
enum State {
    Ended,
    Waiting(Box<Cursor>),
    Reading(Ahead),
}

impl PieceReader {
    /// The next piece, of 256 KiB except for the last; `None` at the end.
    ///
    /// What was skipped by the offset is hashed, too, so the last piece comes only if the whole
    /// blob has its digest.
    ///
    /// # Errors
    /// If the blob cannot be read, or is not what its digest says; nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LocalError> {
        let task = match std::mem::replace(&mut self.0, State::Ended) {
            State::Ended => return Ok(None),
            State::Waiting(cursor) => ahead(cursor),
            State::Reading(task) => task,
        };
        let lost = |error| LocalError::new(LocalErrorKind::Io, format!("reading a blob: {error}"));
        let (cursor, piece) = task.await.map_err(lost)?;
        let piece = piece?;
        if piece.is_some() {
            self.0 = State::Reading(ahead(cursor));
        }
        Ok(piece)
    }
}

/// A piece that is being read, with the cursor that reads it.
type Ahead = JoinHandle<(Box<Cursor>, Result<Option<Bytes>, LocalError>)>;

fn ahead(mut cursor: Box<Cursor>) -> Ahead {
    tokio::task::spawn_blocking(move || {
        let piece = cursor.next();
        (cursor, piece)
    })
}

/// Where a reader is in its blob.
#[derive(Debug)]
struct Cursor {
    blob: Blob,
    /// The first byte that is wanted.
    from: u64,
    at: u64,
    open: Option<Section>,
    hash: Option<Hash>,
}

impl Cursor {
    fn new(blob: &Blob, from: u64) -> Self {
        let hash = Some(Hash::new(blob.digest.algorithm()));
        Self { blob: blob.clone(), from, at: 0, open: None, hash }
    }

    fn next(&mut self) -> Result<Option<Bytes>, LocalError> {
        if self.from > self.blob.size {
            let text = format!("{} has {} bytes only", self.blob.digest, self.blob.size);
            return Err(LocalError::new(LocalErrorKind::Invalid, text));
        }
        while self.at < self.from {
            self.piece(self.from - self.at)?;
        }
        let piece = self.piece(self.blob.size - self.at)?;
        if self.at == self.blob.size
            && let Some(hash) = self.hash.take()
        {
            hash.check(&self.blob.digest)?;
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    fn piece(&mut self, most: u64) -> Result<Bytes, LocalError> {
        let section = match &mut self.open {
            Some(section) => section,
            closed => closed.insert(self.blob.place.open()?),
        };
        let length = usize::try_from(most.min(PIECE)).unwrap_or_default();
        let mut bytes = BytesMut::zeroed(length);
        let digest = &self.blob.digest;
        section.read_exact(&mut bytes).map_err(|error| LocalError::io(digest, error))?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes);
        }
        self.at += length as u64;
        Ok(bytes.freeze())
    }
}

/// A digest that is being computed.
#[derive(Debug, Clone)]
pub(crate) enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn digest(self) -> Result<Digest, LocalError> {
        let text = match self {
            Self::Sha256(hash) => format!("sha256:{}", hex::encode(hash.finalize())),
            Self::Sha512(hash) => format!("sha512:{}", hex::encode(hash.finalize())),
        };
        text.parse().map_err(|error| damaged("a digest without digits").caused_by(error))
    }

    pub(crate) fn check(self, digest: &Digest) -> Result<(), LocalError> {
        let found = self.digest()?;
        if found == *digest {
            return Ok(());
        }
        Err(damaged(format!("what should be {digest} is {found}")))
    }
}
