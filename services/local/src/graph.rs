//! The graph of manifests below a root, walked once: the exact bytes of each manifest, children
//! before parents, and where every blob is. All bounds are those of the service, so that what it
//! would refuse is refused before anything is sent.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use colophon_domain::Digest;

use crate::{
    document::{Content, Descriptor, Document},
    error::{LocalError, damaged, shown, too_large},
    image::{Blob, ManifestBytes},
    store::Store,
};

/// Manifests of one image.
const MOST_MANIFESTS: usize = 2000;
/// Blobs of one image.
const MOST_BLOBS: usize = 2000;
/// All manifests of one image together, in bytes.
const MANIFESTS_LIMIT: usize = 16 << 20;
/// Indexes within indexes.
const MOST_LEVELS: usize = 8;

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Something that is referred to is not in the source.
    Missing(String),
    /// Anything else.
    Failed(LocalError),
}

impl From<LocalError> for Broken {
    fn from(error: LocalError) -> Self {
        Self::Failed(error)
    }
}

impl From<Broken> for LocalError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Missing(text) => damaged(text),
            Broken::Failed(error) => error,
        }
    }
}

/// What lies below a root.
pub(crate) struct Graph<'a> {
    store: &'a dyn Store,
    /// Children first, the root last.
    pub(crate) manifests: Vec<ManifestBytes>,
    blobs: HashMap<Digest, Blob>,
    seen: HashSet<Digest>,
    bytes: usize,
    pub(crate) notes: Vec<String>,
}

impl<'a> Graph<'a> {
    /// Walks everything below a root.
    pub(crate) fn of(store: &'a dyn Store, root: &Descriptor) -> Result<Self, Broken> {
        let (manifests, blobs) = (Vec::new(), HashMap::new());
        let seen = HashSet::new();
        let mut graph = Self { store, manifests, blobs, seen, bytes: 0, notes: Vec::new() };
        graph.visit(root, "the source", 0)?;
        Ok(graph)
    }

    /// All blobs, largest first; in the order of their digests where they are of one size.
    pub(crate) fn blobs(&self) -> Vec<Blob> {
        let mut blobs: Vec<Blob> = self.blobs.values().cloned().collect();
        blobs.sort_by(|one, other| {
            other.size.cmp(&one.size).then_with(|| one.digest.cmp(&other.digest))
        });
        blobs
    }

    fn visit(&mut self, of: &Descriptor, referrer: &str, level: usize) -> Result<(), Broken> {
        if !self.seen.insert(of.digest.clone()) {
            return Ok(());
        }
        if level > MOST_LEVELS {
            let text =
                format!("has indexes within indexes, more than {MOST_LEVELS} levels of them");
            return Err(too_large(text).into());
        }
        let bytes = manifest(self.store, of, referrer)?;
        self.bytes += bytes.len();
        if self.seen.len() > MOST_MANIFESTS || self.bytes > MANIFESTS_LIMIT {
            return Err(too_large("has too many manifests").into());
        }
        let name = of.digest.as_str();
        let document = Document::read(&bytes, name, &of.media_type)?;
        match &document.content {
            Content::Index(entries) => {
                for entry in entries {
                    if entry.is_manifest() {
                        self.visit(entry, name, level + 1)?;
                    } else {
                        self.blob(entry, name)?;
                    }
                }
            }
            Content::Image { config, layers } => {
                self.blob(config, name)?;
                for layer in layers {
                    self.layer(layer, name)?;
                }
            }
        }
        let media_type = document.media_type;
        self.manifests.push(ManifestBytes { digest: of.digest.clone(), media_type, bytes });
        Ok(())
    }

    fn layer(&mut self, layer: &Descriptor, referrer: &str) -> Result<(), Broken> {
        if !layer.is_foreign() {
            return self.blob(layer, referrer);
        }
        let note = format!(
            "the layer {} may not be distributed; it stays where its manifest says it is",
            layer.digest
        );
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
        Ok(())
    }

    fn blob(&mut self, of: &Descriptor, referrer: &str) -> Result<(), Broken> {
        if let Some(known) = self.blobs.get(&of.digest) {
            if known.size != of.size {
                return Err(damaged(format!("{} has two sizes", of.digest)).into());
            }
            return Ok(());
        }
        let Some(place) = self.store.blob(&of.digest)? else {
            return Err(missing(of, referrer));
        };
        check_size(of, place.size(), referrer)?;
        if self.blobs.len() >= MOST_BLOBS {
            return Err(too_large(format!("has more than {MOST_BLOBS} blobs")).into());
        }
        let media_type = of.media_type.clone();
        let blob = Blob { digest: of.digest.clone(), size: of.size, media_type, place };
        self.blobs.insert(of.digest.clone(), blob);
        Ok(())
    }
}

/// The bytes of a manifest, or of another document that must be read here.
pub(crate) fn manifest(
    store: &dyn Store,
    of: &Descriptor,
    referrer: &str,
) -> Result<Bytes, Broken> {
    let Some(place) = store.blob(&of.digest)? else {
        return Err(missing(of, referrer));
    };
    check_size(of, place.size(), referrer)?;
    let bytes = place.document(of.digest.as_str())?;
    if !of.digest.matches(&bytes) {
        let found = Digest::of(of.digest.algorithm(), &bytes);
        return Err(damaged(format!("what should be {} is {found}", of.digest)).into());
    }
    Ok(bytes)
}

fn missing(of: &Descriptor, referrer: &str) -> Broken {
    let kind = match of.media_type.as_str() {
        "" => "no media type".to_owned(),
        kind => shown(kind),
    };
    Broken::Missing(format!("{} ({kind}) is missing; {referrer} refers to it", of.digest))
}

fn check_size(of: &Descriptor, size: u64, referrer: &str) -> Result<(), LocalError> {
    if size == of.size {
        return Ok(());
    }
    Err(damaged(format!("{} has {size} bytes; {referrer} says {}", of.digest, of.size)))
}
