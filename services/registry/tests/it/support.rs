//! What the tests share: credentials, images, and what is known of a copy's progress.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use colophon_domain::{
    Access, CopyTotals, Credential, CredentialSource, Digest, Repository, Result, Selection,
    TagOrDigest,
};
use colophon_registry::{
    BlobOutcome, Copied, CopyOptions, Manifest, Need, Progress, Registries, RegistryConfig, Session,
};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Credentials by repository and access, which can be replaced, and a record of refusals.
#[derive(Default)]
pub struct Keys {
    known: Mutex<HashMap<String, (String, String, u64)>>,
    newer: Mutex<Option<(String, String)>>,
    pub refused: Mutex<Vec<u64>>,
}

impl Keys {
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// One credential for everything.
    pub fn one(username: &str, secret: &str) -> Arc<Self> {
        Self::none().and("", username, secret)
    }

    /// One for a repository and an access (`name pull`).
    pub fn and(self: Arc<Self>, what: &str, username: &str, secret: &str) -> Arc<Self> {
        let value = (username.to_owned(), secret.to_owned(), 1);
        self.known.lock().unwrap().insert(what.to_owned(), value);
        self
    }

    /// What is found when a credential was refused.
    pub fn then(self: Arc<Self>, username: &str, secret: &str) -> Arc<Self> {
        *self.newer.lock().unwrap() = Some((username.to_owned(), secret.to_owned()));
        self
    }
}

impl CredentialSource for Keys {
    fn credential<'a>(
        &'a self,
        repository: &'a Repository,
        access: Access,
        refused: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Credential>>> {
        let mut known = self.known.lock().unwrap();
        let exact = format!("{} {}", repository.name(), access.as_str());
        let key = if known.contains_key(&exact) { exact } else { String::new() };
        if let Some(version) = refused {
            self.refused.lock().unwrap().push(version);
            if let Some((username, secret)) = self.newer.lock().unwrap().take() {
                known.insert(key.clone(), (username, secret, version + 1));
            }
        }
        let found = known.get(&key).map(|(username, secret, version)| Credential {
            username: username.clone(),
            token: secret.clone().into(),
            version: *version,
        });
        Box::pin(async move { Ok(found) })
    }

    fn shared(&self, target: &Repository, other: &Repository) -> bool {
        let known = self.known.lock().unwrap();
        let of = |repository: &Repository, access: Access| {
            let exact = format!("{} {}", repository.name(), access.as_str());
            known.get(&exact).or_else(|| known.get(""))
        };
        let own = of(target, Access::Push);
        own == of(other, Access::Push) || own == of(other, Access::Pull)
    }
}

pub fn registries(
    configs: impl IntoIterator<Item = RegistryConfig>,
    keys: Arc<Keys>,
) -> Registries {
    Registries::new(configs.into_iter().collect(), keys).unwrap()
}

/// A session at one registry.
pub fn session(
    config: RegistryConfig,
    keys: Arc<Keys>,
    repository: &Repository,
    access: Access,
) -> Session {
    registries([config], keys).session(repository, access).unwrap()
}

pub fn tag(text: &str) -> TagOrDigest {
    TagOrDigest::Tag(text.parse().unwrap())
}

pub fn by(digest: &Digest) -> TagOrDigest {
    TagOrDigest::Digest(digest.clone())
}

/// A descriptor in JSON.
pub fn descriptor(kind: &str, digest: &Digest, size: usize) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": digest, "size": size})
}

/// A manifest of the JSON's exact text.
pub fn manifest(body: &serde_json::Value) -> Manifest {
    Manifest::new(Bytes::from(serde_json::to_vec_pretty(body).unwrap()), None).unwrap()
}

/// An image of blobs that exist somewhere: the first is the configuration.
pub fn image(blobs: &[serde_json::Value]) -> Manifest {
    manifest(&serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": blobs[0], "layers": blobs[1..],
    }))
}

pub fn index(entries: &[serde_json::Value]) -> Manifest {
    manifest(&serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": entries,
    }))
}

pub fn entry(manifest: &Manifest) -> serde_json::Value {
    descriptor(&manifest.media_type, &manifest.digest, manifest.bytes.len())
}

/// What a copy told.
#[derive(Default)]
pub struct Told {
    pub planned: Mutex<Vec<(i64, i64)>>,
    pub blobs: Mutex<Vec<(BlobOutcome, i64)>>,
    pub sent: AtomicI64,
    /// Where the last attempt went on.
    pub resumed: AtomicI64,
}

impl Progress for Told {
    fn planned(&self, bytes_total: i64, blobs: i64) {
        self.planned.lock().unwrap().push((bytes_total, blobs));
    }

    fn begun(&self, _: &Digest, _: i64) {}

    fn resumed(&self, _: &Digest, bytes: i64) {
        self.resumed.store(bytes, Ordering::Relaxed);
    }

    fn blob(&self, _: &Digest, outcome: BlobOutcome, bytes: i64) {
        self.blobs.lock().unwrap().push((outcome, bytes));
    }

    fn sent(&self, _: &Digest, bytes: i64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

pub async fn copy(source: &Session, target: &Session, digest: &Digest) -> Result<CopyTotals> {
    copy_with(source, target, digest, CopyOptions::default()).await
}

pub async fn copy_with(
    source: &Session,
    target: &Session,
    digest: &Digest,
    options: CopyOptions,
) -> Result<CopyTotals> {
    copied(source, target, digest, options).await.map(|copied| copied.totals)
}

/// The same with the tags that have still to be moved.
pub async fn copied(
    source: &Session,
    target: &Session,
    digest: &Digest,
    options: CopyOptions,
) -> Result<Copied> {
    let told = Arc::new(Told::default());
    colophon_registry::copy(source, target, digest, options, told, CancellationToken::new()).await
}

/// A copy of an image with what goes along with it.
pub async fn copy_along(
    source: &Session,
    target: &Session,
    digest: &Digest,
    selection: Selection,
) -> Result<Copied> {
    copied(source, target, digest, CopyOptions { selection, ..CopyOptions::default() }).await
}

/// What a copy of an image alone would have to move.
pub async fn measure(source: &Session, target: &Session, digest: &Digest) -> Result<Need> {
    colophon_registry::measure(source, target, digest, CopyOptions::default()).await
}
