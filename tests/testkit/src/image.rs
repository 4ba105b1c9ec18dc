//! Real images for tests: an OCI layout in a temporary folder with Debian's static busybox in it,
//! for several platforms and of any size, the same bytes for the same specification; pushed by
//! `skopeo`, so that what a registry holds was put there by an ordinary tool.

use std::path::Path;

use colophon_launcher::Login;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    error::{Result, While as _},
    layout::{Blobs, Noise},
    skopeo::skopeo,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What an image consists of. Equal specifications give equal bytes on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Goes into a small layer and a label: another seed, another image.
    pub seed: String,
    /// `os/architecture`. Several make an index; one makes a single manifest.
    pub platforms: Vec<String>,
    /// The sizes in bytes of further layers of each platform, incompressible and stored as plain
    /// tar. They depend on the seed and the platform.
    pub layer_bytes: Vec<u64>,
    /// Whether busybox is in it (2 MB, the same blob in every image and platform).
    pub busybox: bool,
}

impl ImageSpec {
    /// An index over linux/amd64 and linux/arm64 with busybox and a seed.
    pub fn new(seed: impl Into<String>) -> Self {
        Self {
            seed: seed.into(),
            platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
            layer_bytes: Vec::new(),
            busybox: true,
        }
    }

    /// A single manifest of a few hundred bytes of content, for tests that need many images.
    pub fn tiny(seed: impl Into<String>) -> Self {
        let platforms = vec!["linux/amd64".to_owned()];
        Self { platforms, busybox: false, ..Self::new(seed) }
    }

    /// The same with a further layer of this size in every platform.
    #[must_use]
    pub fn layer(mut self, bytes: u64) -> Self {
        self.layer_bytes.push(bytes);
        self
    }

    /// Writes the image.
    pub async fn build(self) -> Result<Image> {
        let build = tokio::task::spawn_blocking(move || Image::write(&self));
        build.await.doing("building an image")?
    }
}

/// An image on disk.
pub struct Image {
    folder: TempDir,
    digest: String,
    children: Vec<String>,
}

/// Where an image is pushed to.
#[derive(Clone)]
pub struct Destination<'a> {
    /// The registry, `127.0.0.1:port`. Its certificate is not checked, and HTTP will do.
    pub host: &'a str,
    /// The repository's name.
    pub repository: &'a str,
    /// The tag.
    pub tag: &'a str,
    /// Who pushes.
    pub login: Option<&'a Login>,
}

impl Image {
    /// The digest of the index, or of the manifest where there is one platform only.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digests of the platforms' manifests, in the order of the specification.
    pub fn children(&self) -> &[String] {
        &self.children
    }

    /// The folder with the layout.
    pub fn layout(&self) -> &Path {
        self.folder.path()
    }

    /// Pushes it with everything below, digests preserved.
    pub async fn push(&self, destination: &Destination<'_>) -> Result<()> {
        let Destination { host, repository, tag, login } = destination;
        let source = format!("oci:{}:image", self.folder.path().display());
        let target = format!("docker://{host}/{repository}:{tag}");
        let arguments = ["copy", "--all", "--preserve-digests", "--dest-tls-verify=false"];
        let arguments = arguments.map(str::to_owned).into_iter().chain([source, target]);
        skopeo(arguments, "--dest-authfile", host, *login).await.map(drop)
    }

    fn write(spec: &ImageSpec) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("colophon-image-").tempdir();
        let folder = folder.doing("making a folder")?;
        let blobs = Blobs::create(folder.path())?;
        let mut entries = Vec::new();
        for platform in &spec.platforms {
            entries.push(write_platform(&blobs, spec, platform)?);
        }
        let children: Vec<String> = entries.iter().filter_map(digest_of).collect();
        let mut root = match entries.as_slice() {
            [only] => only.clone(),
            several => blobs.json(
                INDEX,
                &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": several }),
            )?,
        };
        let digest = digest_of(&root).doing("an image without platforms")?;
        if let Value::Object(fields) = &mut root {
            let name = json!({ "org.opencontainers.image.ref.name": "image" });
            fields.insert("annotations".to_owned(), name);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [root] });
        for (name, value) in
            [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))]
        {
            let path = folder.path().join(name);
            std::fs::write(path, value.to_string()).doing(format!("writing {name}"))?;
        }
        Ok(Self { folder, digest, children })
    }
}

fn write_platform(blobs: &Blobs, spec: &ImageSpec, platform: &str) -> Result<Value> {
    let (os, architecture) = platform.split_once('/').doing(format!("{platform:?} lacks a /"))?;
    let mut layers = Vec::new();
    if spec.busybox {
        layers.push(blobs.busybox()?);
    }
    let text = format!("{} on {platform}\n", spec.seed);
    layers.push(blobs.layer("etc/seed", text.len() as u64, text.as_bytes())?);
    for (number, bytes) in spec.layer_bytes.iter().enumerate() {
        let noise = Noise::new(&format!("{} {platform} {number}", spec.seed), *bytes);
        layers.push(blobs.layer(&format!("data/{number}"), *bytes, noise)?);
    }
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = blobs.json(
        CONFIG,
        &json!({
            "architecture": architecture,
            "os": os,
            "created": "2026-01-01T00:00:00Z",
            "config": { "Cmd": ["/bin/sh"], "Labels": { "seed": spec.seed } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }),
    )?;
    let layers: Vec<Value> = layers.into_iter().map(|layer| layer.descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    });
    let mut descriptor = blobs.json(MANIFEST, &manifest)?;
    if let Value::Object(fields) = &mut descriptor {
        fields.insert("platform".to_owned(), json!({ "architecture": architecture, "os": os }));
    }
    Ok(descriptor)
}

fn digest_of(descriptor: &Value) -> Option<String> {
    descriptor.get("digest").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use colophon_launcher::{Registry, RegistryOptions};

    use super::*;
    use crate::{
        peer::{Peer, assert_same},
        skopeo_inspect_digest,
    };

    #[tokio::test]
    async fn an_image_arrives_whole_and_is_the_same_every_time() {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        let host = registry.host();
        let spec = ImageSpec::new("one").layer(3_000_000).layer(17);
        let image = spec.clone().build().await.unwrap();
        assert_eq!(image.digest(), spec.build().await.unwrap().digest());
        assert_ne!(image.digest(), ImageSpec::new("two").build().await.unwrap().digest());
        for repository in ["a", "deep/er/b"] {
            let to = Destination { host: &host, repository, tag: "v1", login: None };
            image.push(&to).await.unwrap();
        }
        let peer = Peer::of(&registry).unwrap();
        let walk = assert_same((&peer, "a", "v1"), (&peer, "deep/er/b", image.digest()));
        let walk = walk.await.unwrap();
        assert_eq!(walk.root, image.digest());
        // An index, two manifests, two configs, busybox shared, and three own layers each.
        assert_eq!(walk.contents.len(), 1 + 2 + 2 + 1 + 2 * 3);
        assert!(image.children().iter().all(|child| walk.contents.contains_key(child)));
        let seen = skopeo_inspect_digest(&host, "a", "v1", None).await.unwrap();
        assert_eq!(seen, image.digest());
    }
}
