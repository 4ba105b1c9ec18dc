//! Images as the files of a layout, and those files as a folder, a tar and compressed tars.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use colophon_domain::Digest;
use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use crate::tars::Tar;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The files of a layout.
#[derive(Debug, Clone, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    /// A layout whose index lists these.
    pub fn layout(mut self, roots: &[Value]) -> Self {
        self.json("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }));
        self.json("index.json", &json!({ "schemaVersion": 2, "manifests": roots }));
        self
    }

    pub fn json(&mut self, name: &str, value: &Value) {
        self.0.insert(name.to_owned(), value.to_string().into_bytes());
    }

    /// Adds a blob; its descriptor.
    pub fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        self.0.insert(path(&digest), bytes.to_vec());
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    pub fn document(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, value.to_string().as_bytes())
    }

    /// Adds an image with layers of these bytes; the descriptor of its manifest.
    pub fn image(&mut self, platform: &str, layers: &[&[u8]]) -> Value {
        let mut words = platform.split('/');
        let os = words.next().unwrap();
        let architecture = words.next().unwrap();
        let mut here = json!({ "os": os, "architecture": architecture });
        if let Some(variant) = words.next() {
            here["variant"] = json!(variant);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        let mut config = here.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = self.document(CONFIG, &config);
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(LAYER, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let mut descriptor = self.document(MANIFEST, &manifest);
        descriptor["platform"] = here;
        descriptor
    }

    /// Adds an index.
    pub fn index(&mut self, children: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
        self.document(INDEX, &index)
    }

    /// Takes a blob away.
    pub fn without(mut self, descriptor: &Value) -> Self {
        self.0.remove(&path(&digest(descriptor))).unwrap();
        self
    }

    pub fn folder(&self, at: &Path) {
        for (name, bytes) in &self.0 {
            let path = at.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub fn tar(&self) -> Tar {
        let tar = Tar::default().folder("blobs/").folder("blobs/sha256/");
        self.0.iter().fold(tar, |tar, (name, bytes)| tar.file(name, bytes))
    }
}

/// Where a blob is in a layout.
pub fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub fn digest(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

/// The same descriptor with a name, as an index's entry.
pub fn named(descriptor: &Value, name: &str) -> Value {
    let mut named = descriptor.clone();
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    named
}

/// The older kind of archive: a configuration, layers as they are, and the list.
pub fn old_archive(images: &[(&[&str], &[&[u8]])]) -> Tar {
    let mut tar = Tar::default();
    let mut list = Vec::new();
    for (names, layers) in images {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "history": names,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string();
        let file = format!("{}.json", Digest::sha256(config.as_bytes()).hex());
        tar = tar.file(&file, config.as_bytes());
        let mut files = Vec::new();
        for layer in *layers {
            let name = format!("{}/layer.tar", Digest::sha256(layer).hex());
            tar = tar.file(&name, layer);
            files.push(name);
        }
        list.push(json!({ "Config": file, "RepoTags": names, "Layers": files }));
    }
    tar.file("manifest.json", json!(list).to_string().as_bytes())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Bytes that do not compress, the same for the same number.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
