//! Opening what a test wrote, and reading all of it.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use bytes::Bytes;
use colophon_domain::Digest;
use colophon_local::{Blob, Image, LocalError, LocalErrorKind, Options, Source, open};
use tempfile::{NamedTempFile, TempDir};

/// An archive on disk.
pub fn stored(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub fn archive(path: &Path) -> Source {
    Source::DockerArchive(path.to_owned())
}

/// Opens an archive of these bytes.
pub async fn opened(bytes: &[u8], options: &Options) -> Result<Image, LocalError> {
    opened_from(bytes, options).await.map(|(image, _)| image)
}

/// The same, with the file that it is read from.
pub async fn opened_from(
    bytes: &[u8],
    options: &Options,
) -> Result<(Image, NamedTempFile), LocalError> {
    let file = stored(bytes);
    let image = open(&archive(file.path()), options, &()).await?;
    Ok((image, file))
}

/// Opens an archive that must be refused in a certain way.
pub async fn refused(bytes: &[u8], kind: LocalErrorKind, word: &str) -> LocalError {
    let error = opened(bytes, &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(word), "{error} does not say {word:?}");
    error
}

pub fn choice(image: Option<&str>, platform: Option<&str>) -> Options {
    Options {
        image: image.map(str::to_owned),
        platform: platform.map(|platform| platform.parse().unwrap()),
        ..Options::default()
    }
}

/// A folder for temporary files that a test looks into.
pub fn spool_in(folder: &TempDir) -> Options {
    Options { spool: Some(folder.path().to_owned()), ..Options::default() }
}

/// A blob from an offset on.
pub async fn bytes_of(image: &Image, blob: &Blob, offset: u64) -> Result<Vec<u8>, LocalError> {
    let mut reader = image.read(blob, offset);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(reader.next().await.unwrap(), None, "nothing comes after the end");
    Ok(bytes)
}

/// What an image consists of, by digest: what can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    pub root: Digest,
    pub manifests: Vec<(Digest, String, Bytes)>,
    pub blobs: BTreeMap<Digest, (String, Vec<u8>)>,
}

pub async fn whole(image: &Image) -> Whole {
    let mut blobs = BTreeMap::new();
    for blob in &image.blobs {
        let bytes = bytes_of(image, blob, 0).await.unwrap();
        assert_eq!(bytes.len() as u64, blob.size);
        assert!(blob.digest.matches(&bytes));
        blobs.insert(blob.digest.clone(), (blob.media_type.clone(), bytes));
    }
    assert_eq!(blobs.len(), image.blobs.len(), "each once");
    assert!(image.blobs.is_sorted_by(|one, next| one.size >= next.size), "largest first");
    for manifest in &image.manifests {
        assert!(manifest.digest.matches(&manifest.bytes));
    }
    assert_eq!(image.manifests.last().unwrap().digest, image.root, "the root comes last");
    let manifests = image.manifests.iter().cloned();
    let manifests = manifests.map(|it| (it.digest, it.media_type, it.bytes)).collect();
    Whole { root: image.root.clone(), manifests, blobs }
}
