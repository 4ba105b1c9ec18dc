//! Images as registries really hold them, made at random: indexes in indexes, shared children, entries
//! that are blobs or name no platform, foreign layers, both digest algorithms, referrers and theirs, and
//! cosign's tags. What must be at a target after a copy is
//! found out here from the JSON alone, by other code than that which copies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colophon_domain::{Algorithm, Digest};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Media types, the one of OCI before that of Docker.
const IMAGES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// How many different blobs there are; the first is empty.
const BLOBS: usize = 10;
/// Indexes in each other; one more than the deepest that may be copied must not be made.
const LEVELS: usize = 5;

/// A manifest to make. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Node {
    Image { docker: bool, long: bool, layers: Vec<(usize, LayerKind)> },
    Index { docker: bool, long: bool, entries: Vec<(usize, EntryKind)> },
}

/// A manifest about one that was made before, be it a part of the image, another referrer, or neither.
#[derive(Debug, Clone)]
struct About {
    subject: usize,
    kind: usize,
    typed: bool,
    long: bool,
    layers: Vec<(usize, LayerKind)>,
}

/// One of cosign's tags for something that was made before.
type Signed = (usize, usize, usize);

/// The types of referrers.
pub const TYPES: [&str; 3] = [
    "application/spdx+json",
    "application/vnd.cncf.notary.signature",
    "application/vnd.in-toto+json",
];

#[derive(Debug, Clone, Copy)]
enum LayerKind {
    Plain,
    /// The same blob as a layer that is found elsewhere, too.
    WithUrls,
    Foreign,
}

#[derive(Debug, Clone, Copy)]
enum EntryKind {
    Child,
    WithPlatform,
    Blob,
}

/// Manifests and blobs with their exact bytes.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub root: Option<Digest>,
    /// Media type and bytes.
    pub manifests: BTreeMap<Digest, (String, Bytes)>,
    pub blobs: BTreeMap<Digest, Bytes>,
    /// Cosign's tags.
    pub tags: BTreeMap<String, Digest>,
}

/// What lies below a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Below {
    pub manifests: BTreeSet<Digest>,
    pub blobs: BTreeSet<Digest>,
    pub foreign: BTreeSet<Digest>,
    /// What a manifest is about.
    pub subject: Option<Digest>,
    pub tags: BTreeMap<String, Digest>,
}

/// An image with what may go along with it.
pub fn families() -> impl Strategy<Value = Graph> {
    let layer = prop_oneof![4 => Just(LayerKind::Plain), 1 => Just(LayerKind::Foreign)];
    let layers = prop::collection::vec((any::<usize>(), layer), 0..3);
    let long = prop::bool::weighted(0.15);
    let about = (any::<usize>(), 0..TYPES.len(), any::<bool>(), long, layers).prop_map(
        |(subject, kind, typed, long, layers)| About { subject, kind, typed, long, layers },
    );
    let signed = (any::<usize>(), 0..3_usize, any::<usize>());
    let along = (prop::collection::vec(about, 0..6), prop::collection::vec(signed, 0..4));
    (graphs(), along).prop_map(|(graph, (about, signed))| graph.with(&about, &signed))
}

pub fn graphs() -> impl Strategy<Value = Graph> {
    let layer = prop_oneof![
        6 => Just(LayerKind::Plain), 1 => Just(LayerKind::WithUrls), 2 => Just(LayerKind::Foreign),
    ];
    let entry = prop_oneof![
        4 => Just(EntryKind::Child), 4 => Just(EntryKind::WithPlatform), 1 => Just(EntryKind::Blob),
    ];
    let long = || prop::bool::weighted(0.15);
    let layers = prop::collection::vec((any::<usize>(), layer), 0..5);
    let entries = prop::collection::vec((any::<usize>(), entry), 1..5);
    let image = (any::<bool>(), long(), layers).prop_map(|(docker, long, layers)| Node::Image {
        docker,
        long,
        layers,
    });
    let index = (any::<bool>(), long(), entries).prop_map(|(docker, long, entries)| Node::Index {
        docker,
        long,
        entries,
    });
    let node = prop_oneof![3 => image, 2 => index];
    prop::collection::vec(node, 1..10).prop_map(|nodes| Graph::of(&nodes))
}

fn blob(number: usize) -> (Digest, Bytes) {
    let number = number % BLOBS;
    let bytes = format!("blob {number} ").repeat(number * number * 40);
    let algorithm = if number == 3 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    (Digest::of(algorithm, bytes.as_bytes()), Bytes::from(bytes))
}

impl Graph {
    /// Each manifest may refer to those before it only; the last is the root.
    fn of(nodes: &[Node]) -> Self {
        let mut graph = Self::default();
        let mut made: Vec<(Digest, usize)> = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let (kind, long, body, level) = match node {
                Node::Image { docker, long, layers } => {
                    (IMAGES[usize::from(*docker)], *long, graph.image(number, layers), 0)
                }
                Node::Index { docker, long, entries } => {
                    let (body, level) = graph.index(&made, entries);
                    (INDEXES[usize::from(*docker)], *long, body, level)
                }
            };
            let mut body = body;
            body["mediaType"] = kind.into();
            let bytes = Bytes::from(serde_json::to_vec_pretty(&body).unwrap());
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = Digest::of(algorithm, &bytes);
            graph.manifests.insert(digest.clone(), (kind.to_owned(), bytes));
            made.push((digest, level));
        }
        graph.root = made.pop().map(|(digest, _)| digest);
        graph
    }

    /// The same with manifests about those that are there, and tags for some of them.
    fn with(mut self, about: &[About], signed: &[Signed]) -> Self {
        let mut made: Vec<Digest> = self.manifests.keys().cloned().collect();
        for (number, about) in about.iter().enumerate() {
            let subject = made[about.subject % made.len()].clone();
            let (kind, bytes) = &self.manifests[&subject];
            let named = json!({"mediaType": kind, "digest": subject, "size": bytes.len()});
            let mut body = self.image(1000 + number, &about.layers);
            body["subject"] = named;
            body["mediaType"] = IMAGES[0].into();
            if about.typed {
                body["artifactType"] = TYPES[about.kind].into();
            } else {
                body["config"]["mediaType"] = TYPES[about.kind].into();
            }
            made.push(self.add(&body, about.long));
        }
        let made: Vec<Digest> = self.manifests.keys().cloned().collect();
        for (subject, suffix, blob) in signed {
            let subject = &made[subject % made.len()];
            if subject.algorithm() == Algorithm::Sha256 {
                let suffix = ["sig", "att", "sbom"][*suffix];
                let mut body = self.image(2000 + blob % 50, &[(*blob, LayerKind::Plain)]);
                body["mediaType"] = IMAGES[0].into();
                let digest = self.add(&body, false);
                self.tags.insert(format!("sha256-{}.{suffix}", subject.hex()), digest);
            }
        }
        self
    }

    fn add(&mut self, body: &Value, long: bool) -> Digest {
        let bytes = Bytes::from(serde_json::to_vec_pretty(body).unwrap());
        let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let digest = Digest::of(algorithm, &bytes);
        let kind = body["mediaType"].as_str().unwrap().to_owned();
        self.manifests.insert(digest.clone(), (kind, bytes));
        digest
    }

    /// The manifests about one, with type and annotations.
    pub fn about(&self, subject: &Digest) -> BTreeMap<Digest, Value> {
        let is = |bytes: &Bytes| refers(bytes).subject.as_ref() == Some(subject);
        let mut found = BTreeMap::new();
        for (digest, (kind, bytes)) in self.manifests.iter().filter(|(_, (_, bytes))| is(bytes)) {
            found.insert(digest.clone(), listed(digest, kind, bytes));
        }
        found
    }

    /// All that should be at a target: the image, all that is about a part of it, and so on, and
    /// cosign's tags of the image with what they point to. Of the types if some are named.
    pub fn family(&self, root: &Digest, types: Option<&BTreeSet<String>>) -> Below {
        let image = self.below(root);
        let mut found = image.clone();
        loop {
            let before = found.manifests.len();
            for subject in found.manifests.clone() {
                for (digest, entry) in self.about(&subject) {
                    let kind = entry["artifactType"].as_str().unwrap();
                    if types.is_none_or(|types| types.contains(kind)) {
                        found.add(self.below(&digest));
                    }
                }
            }
            if found.manifests.len() == before {
                break;
            }
        }
        for (tag, digest) in &self.tags {
            let subject = format!("sha256:{}", &tag[7..71]).parse().unwrap();
            if image.manifests.contains(&subject) {
                found.add(self.below(digest));
                found.tags.insert(tag.clone(), digest.clone());
            }
        }
        found
    }

    fn blob(&mut self, number: usize) -> (Digest, usize) {
        let (digest, bytes) = blob(number);
        let size = bytes.len();
        self.blobs.insert(digest.clone(), bytes);
        (digest, size)
    }

    fn image(&mut self, number: usize, layers: &[(usize, LayerKind)]) -> Value {
        let (config, size) = self.blob(number);
        let mut listed = Vec::new();
        for (number, kind) in layers {
            let urls = json!(["https://example.com/layer"]);
            listed.push(match kind {
                LayerKind::Plain | LayerKind::WithUrls => {
                    let (digest, size) = self.blob(*number);
                    let mut layer = json!({"mediaType": LAYER, "digest": digest, "size": size});
                    if matches!(kind, LayerKind::WithUrls) {
                        layer["urls"] = urls;
                    }
                    layer
                }
                // Never one of the others: whether a blob is copied must not depend on where else it is.
                LayerKind::Foreign => {
                    let digest = Digest::sha256(format!("foreign {}", number % 3).as_bytes());
                    json!({"mediaType": FOREIGN, "digest": digest, "size": 9, "urls": urls})
                }
            });
        }
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config,
                       "size": size},
            "layers": listed,
            "annotations": {"made": number.to_string()},
        })
    }

    /// An index, and how many levels it has.
    fn index(
        &mut self,
        made: &[(Digest, usize)],
        entries: &[(usize, EntryKind)],
    ) -> (Value, usize) {
        let below: Vec<_> = made.iter().filter(|(_, level)| *level < LEVELS).collect();
        let (mut listed, mut level) = (Vec::new(), 1);
        for (number, kind) in entries {
            if matches!(kind, EntryKind::Blob) || below.is_empty() {
                let (digest, size) = self.blob(*number);
                listed.push(json!({"mediaType": LAYER, "digest": digest, "size": size}));
                continue;
            }
            let (digest, at) = below[number % below.len()];
            level = level.max(at + 1);
            let (kind_of, bytes) = &self.manifests[digest];
            let mut entry = json!({"mediaType": kind_of, "digest": digest, "size": bytes.len()});
            if matches!(kind, EntryKind::WithPlatform) {
                entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
            }
            listed.push(entry);
        }
        (json!({"schemaVersion": 2, "manifests": listed}), level)
    }

    /// All that a whole image needs, its own manifest included.
    pub fn below(&self, root: &Digest) -> Below {
        let mut found = Below::default();
        let mut left = vec![root.clone()];
        while let Some(digest) = left.pop() {
            if !found.manifests.insert(digest.clone()) {
                continue;
            }
            let refers = refers(&self.manifests[&digest].1);
            left.extend(refers.manifests);
            found.blobs.extend(refers.blobs);
            found.foreign.extend(refers.foreign);
        }
        found
    }
}

impl Below {
    fn add(&mut self, more: Self) {
        self.manifests.extend(more.manifests);
        self.blobs.extend(more.blobs);
        self.foreign.extend(more.foreign);
    }
}

/// A referrer as lists name it.
pub fn listed(digest: &Digest, kind: &str, bytes: &Bytes) -> Value {
    let body: Value = serde_json::from_slice(bytes).unwrap();
    let own = body.get("artifactType").unwrap_or(&body["config"]["mediaType"]);
    json!({
        "mediaType": kind, "digest": digest, "size": bytes.len(), "artifactType": own,
        "annotations": body["annotations"],
    })
}

/// A foreign layer's bytes.
pub fn foreign(digest: &Digest) -> Bytes {
    let text = |number| format!("foreign {number}");
    let all = (0..3).map(|number| Bytes::from(text(number)));
    all.into_iter().find(|bytes| digest.matches(bytes)).unwrap()
}

/// What the bytes of one manifest refer to.
pub fn refers(bytes: &Bytes) -> Below {
    let body: Value = serde_json::from_slice(bytes).unwrap();
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let digest = |at: &Value| at["digest"].as_str().unwrap().parse::<Digest>().unwrap();
    let mut found = Below::default();
    for entry in list("manifests") {
        let kind = entry["mediaType"].as_str().unwrap();
        let manifest = IMAGES.contains(&kind) || INDEXES.contains(&kind);
        let into = if manifest { &mut found.manifests } else { &mut found.blobs };
        into.insert(digest(&entry));
    }
    if body["config"].is_object() {
        found.blobs.insert(digest(&body["config"]));
    }
    for layer in list("layers") {
        let foreign = layer["mediaType"] == FOREIGN;
        let into = if foreign { &mut found.foreign } else { &mut found.blobs };
        into.insert(digest(&layer));
    }
    if body["subject"].is_object() {
        found.subject = Some(digest(&body["subject"]));
    }
    found
}
