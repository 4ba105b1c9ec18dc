//! What the tests of uploads share: an image of this machine as its parts, the calls of REST that bring
//! them, and what a registry's disk holds of uploads that have not ended.

use std::{collections::BTreeMap, path::Path};

use colophon_testkit::image::{Image, ImageSpec};
use colophon_tests::{Answer, Client};
use futures_util::{StreamExt as _, stream};
use http::Method;
use reqwest::Body;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const MIB: usize = 1 << 20;

/// An image as its parts.
pub(crate) struct Parts {
    /// The root's digest.
    pub(crate) root: String,
    /// Media type, digest and bytes, children first.
    pub(crate) manifests: Vec<(String, String, Vec<u8>)>,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) image: Image,
}

impl Parts {
    pub(crate) async fn of(spec: ImageSpec) -> Self {
        let image = spec.build().await.unwrap();
        let (mut manifests, mut blobs) = (Vec::new(), BTreeMap::new());
        let children = image.children().iter().map(String::as_str);
        let root =
            (!image.children().iter().any(|it| it == image.digest())).then(|| image.digest());
        for digest in children.chain(root) {
            let bytes = read(&image, digest);
            let manifest: Value = serde_json::from_slice(&bytes).unwrap();
            let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
            for part in layers.iter().chain(manifest.get("config")) {
                let digest = part["digest"].as_str().unwrap();
                blobs.insert(digest.to_owned(), read(&image, digest));
            }
            let media_type = manifest["mediaType"].as_str().unwrap().to_owned();
            manifests.push((media_type, digest.to_owned(), bytes));
        }
        Self { root: image.digest().to_owned(), manifests, blobs, image }
    }

    /// The blobs, as `FindBlobs` asks for them.
    pub(crate) fn asked(&self) -> Value {
        let blobs = self.blobs.iter();
        let blobs: Vec<_> =
            blobs.map(|(digest, bytes)| json!({"digest": digest, "size": bytes.len()})).collect();
        json!({ "blobs": blobs })
    }
}

fn read(image: &Image, digest: &str) -> Vec<u8> {
    std::fs::read(image.layout().join("blobs").join(digest.replace(':', "/"))).unwrap()
}

/// Bytes of which no two pieces are the same, and their digest.
pub(crate) fn noise(bytes: usize, seed: &str) -> (String, Vec<u8>) {
    let blocks = (0..bytes.div_ceil(32)).map(|number| Sha256::digest(format!("{seed} {number}")));
    let mut noise: Vec<u8> = blocks.flat_map(|block| block.to_vec()).collect();
    noise.truncate(bytes);
    (digest_of(&noise), noise)
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    colophon_domain::Digest::sha256(bytes).to_string()
}

pub(crate) async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.call(Method::POST, path, &[], Some(body)).await.unwrap()
}

/// Begins an upload, and returns its id.
pub(crate) async fn start(client: &Client, repository: &str) -> String {
    let body = json!({"repository": repository, "origin": "app:latest on build-7"});
    let upload = post(client, "/v1/uploads", &body).await.good().unwrap();
    upload["id"].as_str().unwrap().to_owned()
}

/// Where a blob stands: its offset, or `None` if it is there.
pub(crate) async fn stands(client: &Client, id: &str, digest: &str, size: usize) -> Option<usize> {
    let asked = json!({"blobs": [{"digest": digest, "size": size}]});
    let found = post(client, &format!("/v1/uploads/{id}/find-blobs"), &asked).await.good().unwrap();
    let state = &found["blobs"][0];
    (state["present"] == false).then(|| state["offset"].as_str().unwrap().parse().unwrap())
}

/// Sends a blob's content from an offset on, as curl would.
pub(crate) async fn put(
    client: &Client,
    id: &str,
    (digest, size): (&str, usize),
    offset: usize,
    body: impl Into<Body>,
) -> reqwest::Result<Answer> {
    let url =
        format!("{}/v1/uploads/{id}/blobs/{digest}?size={size}&offset={offset}", client.url());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = http.put(url).bearer_auth(client.token().expose_secret());
    let call = call.header("content-type", "application/octet-stream");
    let answer = call.body(body).send().await?;
    let status = answer.status();
    Ok(Answer { status, body: serde_json::from_slice(&answer.bytes().await?).unwrap_or_default() })
}

/// Content that ends before the blob does, and stays open after it.
pub(crate) fn open_body(pieces: Vec<Vec<u8>>) -> Body {
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    Body::wrap_stream(pieces.chain(stream::pending()))
}

pub(crate) async fn put_manifests(client: &Client, id: &str, parts: &Parts) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    for (media_type, digest, bytes) in &parts.manifests {
        let manifest = json!({
            "digest": digest, "mediaType": media_type, "content": STANDARD.encode(bytes),
        });
        let path = format!("/v1/uploads/{id}/manifests");
        post(client, &path, &manifest).await.good().unwrap();
    }
}

/// The files of content of uploads that have not ended on a registry's disk.
pub(crate) fn left_on_disk(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |entry: std::fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() {
            return left_on_disk(&path);
        }
        let within = path.components().any(|part| part.as_os_str() == "_uploads");
        usize::from(within && entry.file_name() == "data")
    };
    entries.flatten().map(count).sum()
}
