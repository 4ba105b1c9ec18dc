//! The older list of an archive, `manifest.json`, as `docker save` wrote it before version 25 and
//! `skopeo` still does. It has no manifest of the image, so one is written here, as `skopeo` would
//! write it: with the configuration and the layers that are there, the layers compressed.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use colophon_domain::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    archive::names,
    choose::{Candidate, choose},
    compress::{Compressed, Layer, Press},
    document::{Config, DOCKER_CONFIG, DOCKER_MANIFEST},
    error::{LocalError, damaged, refused, shown, too_large},
    image::{Blob, Image, ManifestBytes},
    layout::check_platform,
    place::Place,
    store::Store,
};

const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Layers of one image.
const MOST_LAYERS: usize = 2000;

/// One image of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The same, with its configuration read.
struct Entry {
    config: Bytes,
    place: Place,
    digest: Digest,
    names: Vec<String>,
    layers: Vec<String>,
}

impl Candidate for Entry {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn digests(&self) -> Vec<Digest> {
        vec![self.digest.clone()]
    }
}

/// The manifest, in the order of fields that `skopeo` has (Docker image manifest 2.2).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
}

/// Reads the archive that `list` describes.
pub(crate) fn read(
    store: &dyn Store,
    list: &[u8],
    options: &Options,
    press: &Press<'_>,
) -> Result<Image, LocalError> {
    let list: Vec<Saved> = serde_json::from_slice(list)
        .map_err(|error| damaged(format!("manifest.json cannot be read: {error}")))?;
    let entries: Vec<Entry> =
        list.into_iter().map(|saved| entry(store, saved)).collect::<Result<_, _>>()?;
    let chosen = choose(&entries, options.image.as_deref())?;
    let config = Config::read(&chosen.config, chosen.digest.as_str())?;
    check_platform(&config, options.platform.as_ref())?;
    let layers = layers(store, chosen, &config)?;
    let compressed = compress(press, &layers)?;
    image(chosen, &compressed)
}

fn entry(store: &dyn Store, saved: Saved) -> Result<Entry, LocalError> {
    let place = find(store, &saved.config)?;
    let config = place.document(&shown(&saved.config))?;
    let digest = Digest::sha256(&config);
    // Every writer calls it by its digest.
    let file = saved.config.rsplit('/').next().unwrap_or_default();
    let stem = file.strip_suffix(".json").unwrap_or(file);
    let is_digest = format!("sha256:{stem}").parse::<Digest>().is_ok();
    if is_digest && stem != digest.hex() {
        return Err(damaged(format!("what should be sha256:{stem} is {digest}")));
    }
    let names = saved.repo_tags.unwrap_or_default();
    Ok(Entry { config, place, digest, names, layers: saved.layers.unwrap_or_default() })
}

fn find(store: &dyn Store, name: &str) -> Result<Place, LocalError> {
    let normal = names::within("", name.as_bytes());
    let Some(normal) = normal else {
        return Err(refused(format!("manifest.json leads to {}", shown(name))));
    };
    let place = store.place(&normal)?;
    place.ok_or_else(|| damaged(format!("{} is missing; manifest.json refers to it", shown(name))))
}

/// The layers, in their order.
fn layers(store: &dyn Store, entry: &Entry, config: &Config) -> Result<Vec<Layer>, LocalError> {
    let (files, diff_ids) = (&entry.layers, config.diff_ids());
    if files.len() != diff_ids.len() {
        let text = format!("has {} layers; {} names {}", files.len(), entry.digest, diff_ids.len());
        return Err(damaged(text));
    }
    if files.len() > MOST_LAYERS {
        return Err(too_large(format!("has more than {MOST_LAYERS} layers")));
    }
    let layer = |(file, diff_id): (&String, &Digest)| {
        Ok(Layer { place: find(store, file)?, diff_id: diff_id.clone() })
    };
    files.iter().zip(diff_ids).map(layer).collect()
}

/// Compresses each file once, however often it is a layer of the image.
fn compress(press: &Press<'_>, layers: &[Layer]) -> Result<Vec<Compressed>, LocalError> {
    let mut numbers = HashMap::new();
    let mut distinct: Vec<Layer> = Vec::new();
    let which: Vec<usize> = layers
        .iter()
        .map(|layer| {
            *numbers.entry((layer.place.start(), &layer.diff_id)).or_insert_with(|| {
                distinct.push(layer.clone());
                distinct.len() - 1
            })
        })
        .collect();
    let done = press.all(&distinct)?;
    Ok(which.into_iter().filter_map(|number| done.get(number).cloned()).collect())
}

fn image(entry: &Entry, layers: &[Compressed]) -> Result<Image, LocalError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: DOCKER_MANIFEST,
        config: Descriptor {
            media_type: DOCKER_CONFIG,
            size: entry.place.size(),
            digest: &entry.digest,
        },
        layers: layers
            .iter()
            .map(|layer| Descriptor {
                media_type: LAYER,
                size: layer.place.size(),
                digest: &layer.digest,
            })
            .collect(),
    };
    let bytes: Bytes = serde_json::to_vec(&manifest)
        .map_err(|error| damaged("no manifest can be written").caused_by(error))?
        .into();
    let blob = |digest: &Digest, media_type: &str, place: &Place| Blob {
        digest: digest.clone(),
        size: place.size(),
        media_type: media_type.to_owned(),
        place: place.clone(),
    };
    let mut seen = HashSet::new();
    let mut blobs: Vec<Blob> = layers
        .iter()
        .map(|layer| blob(&layer.digest, LAYER, &layer.place))
        .chain([blob(&entry.digest, DOCKER_CONFIG, &entry.place)])
        .filter(|blob| seen.insert(blob.digest.clone()))
        .collect();
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    let root = Digest::sha256(&bytes);
    let media_type = DOCKER_MANIFEST.to_owned();
    Ok(Image {
        root: root.clone(),
        listed: root.clone(),
        manifests: vec![ManifestBytes { digest: root, media_type, bytes }],
        blobs,
        names: entry.names.clone(),
        image_id: Some(entry.digest.clone()),
        digest_is_new: true,
        notes: vec!["the archive has no manifest; this digest was computed".to_owned()],
    })
}
