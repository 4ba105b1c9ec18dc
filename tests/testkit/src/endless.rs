//! A registry for images of any size on a machine of any size: blobs are made up while they are
//! read, and what is sent is hashed and forgotten. It keeps manifests, and which blobs it was
//! sent. No chunks, no ranges, no logins.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Result, While as _},
    layout::Noise,
    peer::sha256,
    scripted::{Response, error, status, with},
    serve::{NoAnswer, Server},
};

/// A blob is this block over and over, and a part of it at its end.
const BLOCK: usize = 1 << 20;
/// It is handed out in pieces of this size, as from a disk.
const PIECE: usize = 64 << 10;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A running registry. Dropping it closes its port.
pub struct Endless {
    server: Server,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    contents: Mutex<Contents>,
    uploads: AtomicU64,
    received: AtomicU64,
}

#[derive(Default)]
struct Contents {
    /// By name and tag or digest, in the paths' own words.
    manifests: BTreeMap<String, Bytes>,
    made_up: BTreeMap<String, Blob>,
    sent: BTreeSet<String>,
}

#[derive(Clone)]
struct Blob {
    block: Bytes,
    size: u64,
}

impl Endless {
    /// Starts an empty one.
    pub async fn start() -> Result<Self> {
        let kept = Arc::<Kept>::default();
        let shared = Arc::clone(&kept);
        let handle = move |request| Arc::clone(&shared).answer(request);
        Ok(Self { server: Server::start(None, handle).await?, kept })
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Makes an image up, with layers of these sizes that no other seed has, under a tag.
    pub async fn publish(
        &self,
        repository: &str,
        tag: &str,
        seed: &str,
        layers: &[u64],
    ) -> Result<()> {
        let mut descriptors = Vec::new();
        for (kind, size) in std::iter::once((CONFIG, 100)).chain(layers.iter().map(|s| (LAYER, *s)))
        {
            let seed = format!("{seed} {}", descriptors.len());
            let made = tokio::task::spawn_blocking(move || Blob::made_up(&seed, size));
            let (digest, blob) = made.await.doing("making a blob up")??;
            self.kept.contents().made_up.insert(digest.clone(), blob);
            descriptors
                .push(serde_json::json!({"mediaType": kind, "digest": digest, "size": size}));
        }
        let (config, layers) = descriptors.split_first().doing("an image has a configuration")?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let bytes = Bytes::from(manifest.to_string());
        let mut contents = self.kept.contents();
        for reference in [tag, &sha256(&bytes)] {
            let path = format!("{repository}/manifests/{reference}");
            contents.manifests.insert(path, bytes.clone());
        }
        Ok(())
    }

    /// Bytes of blobs that were sent to it.
    pub fn received(&self) -> u64 {
        self.kept.received.load(Ordering::Relaxed)
    }

    /// The most connections that it had at the same time.
    pub fn peak_connections(&self) -> usize {
        self.server.connections().peak()
    }
}

impl Blob {
    /// The blob of a seed and a size, and its digest.
    fn made_up(seed: &str, size: u64) -> Result<(String, Self)> {
        let mut block = vec![0; BLOCK];
        Noise::new(seed, BLOCK as u64).read_exact(&mut block).doing("making noise")?;
        let blob = Self { block: block.into(), size };
        let mut hash = Sha256::new();
        for piece in blob.pieces() {
            hash.update(piece);
        }
        Ok((format!("sha256:{}", hex::encode(hash.finalize())), blob))
    }

    /// Its content, in pieces.
    fn pieces(&self) -> impl Iterator<Item = Bytes> + use<> {
        let Self { block, size } = self.clone();
        (0..size).step_by(PIECE).map(move |offset| {
            let length = usize::try_from(size - offset).unwrap_or(PIECE).min(PIECE);
            let start = usize::try_from(offset % BLOCK as u64).unwrap_or_default();
            block.slice(start..start + length)
        })
    }
}

impl Kept {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> std::result::Result<Response, NoAnswer> {
        let path = request.uri().path().trim_start_matches("/v2/").to_owned();
        if let Some((_, upload)) = path.split_once("/blobs/uploads/") {
            if upload.is_empty() {
                let id = self.uploads.fetch_add(1, Ordering::Relaxed);
                let location = format!("/v2/{path}{id}");
                return Ok(with(202, &[("location", &location)], Body::empty()));
            }
            return self.take(request).await;
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return Ok(self.blob(request.method() == Method::HEAD, digest));
        }
        if request.method() == Method::PUT {
            let bytes = request.into_body().collect().await?.to_bytes();
            let digest = sha256(&bytes);
            let (name, _) = path.split_once("/manifests/").unwrap_or_default();
            let mut contents = self.contents();
            contents.manifests.insert(format!("{name}/manifests/{digest}"), bytes.clone());
            contents.manifests.insert(path.clone(), bytes);
            return Ok(with(201, &[("docker-content-digest", &digest)], Body::empty()));
        }
        let Some(bytes) = self.contents().manifests.get(&path).cloned() else {
            return Ok(error(404, "MANIFEST_UNKNOWN", "manifest unknown"));
        };
        let (length, digest) = (bytes.len().to_string(), sha256(&bytes));
        let headers = [
            ("content-type", MANIFEST),
            ("content-length", length.as_str()),
            ("docker-content-digest", digest.as_str()),
        ];
        let body = if request.method() == Method::HEAD { Body::empty() } else { bytes.into() };
        Ok(with(200, &headers, body))
    }

    fn blob(&self, head: bool, digest: &str) -> Response {
        let contents = self.contents();
        if head && contents.sent.contains(digest) {
            return status(200);
        }
        let Some(blob) = contents.made_up.get(digest) else {
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let length = blob.size.to_string();
        let pieces = blob.pieces().map(Ok::<_, NoAnswer>);
        let body = if head { Body::empty() } else { Body::from_stream(stream::iter(pieces)) };
        with(200, &[("content-length", &length)], body)
    }

    /// Hashes a body, and believes nothing else.
    async fn take(&self, request: Request<Incoming>) -> std::result::Result<Response, NoAnswer> {
        if request.method() == Method::DELETE {
            return Ok(status(204));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut hash = Sha256::new();
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                self.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                hash.update(&piece);
            }
        }
        let digest = format!("sha256:{}", hex::encode(hash.finalize()));
        let promised = url::form_urlencoded::parse(query.as_bytes());
        if !promised.into_owned().any(|pair| pair == ("digest".to_owned(), digest.clone())) {
            return Ok(error(400, "DIGEST_INVALID", "the content has another digest"));
        }
        self.contents().sent.insert(digest.clone());
        Ok(with(201, &[("docker-content-digest", &digest)], Body::empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_up_has_its_digest_and_what_is_sent_is_checked() {
        let endless = Endless::start().await.unwrap();
        let sizes = [BLOCK as u64 * 2 + 70_001, 3];
        endless.publish("made/up", "1", "seed", &sizes).await.unwrap();
        let peer = crate::peer::Peer::new(format!("http://{}", endless.host())).unwrap();
        // The walker verifies every digest and size.
        let walk = peer.walk("made/up", "1").await.unwrap();
        assert_eq!(walk.contents.len(), 4);
        let digest = peer.put_blob("sink", b"content").await.unwrap();
        assert_eq!((digest, endless.received()), (sha256(b"content"), 7));
    }
}
