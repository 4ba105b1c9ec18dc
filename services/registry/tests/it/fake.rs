//! A registry in memory, with a hook that answers in its place and a record of all requests.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use colophon_domain::{Algorithm, Digest, RegistryHost, Repository};
use colophon_registry::{Manifest, RegistryConfig};
use colophon_testkit::scripted::Place;
pub use colophon_testkit::scripted::{Seen, error, status, with};
use http::Method;
use tokio::{net::TcpListener, task::JoinHandle};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

type Hook = Box<dyn Fn(&Seen) -> Option<Response> + Send + Sync>;

#[derive(Default)]
struct Inner {
    seen: Vec<Seen>,
    blobs: HashMap<(String, String), Bytes>,
    manifests: HashMap<(String, String), (String, Bytes)>,
    trusting: bool,
    /// It has the referrers API.
    referrers: bool,
}

struct Shared {
    inner: Mutex<Inner>,
    hook: Mutex<Option<Hook>>,
    hangs: AtomicBool,
    silent: Mutex<Option<String>>,
}

/// The registry; it ends when dropped.
pub struct Fake {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1").await
    }

    /// On another address of the loopback network.
    pub async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner::default()),
            hook: Mutex::new(None),
            hangs: AtomicBool::new(false),
            silent: Mutex::new(None),
        });
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, task }
    }

    pub fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }

    pub fn repository(&self, name: &str) -> Repository {
        Repository::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn config(&self) -> RegistryConfig {
        RegistryConfig { plain_http: true, ..RegistryConfig::new(self.host()) }
    }

    /// Answers in the registry's place where it returns something.
    pub fn hook(&self, hook: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Answers nothing any more.
    pub fn hang(&self) {
        self.shared.hangs.store(true, Ordering::SeqCst);
    }

    /// Takes what is uploaded for what it is said to be.
    pub fn trust_uploads(&self) {
        self.shared.inner.lock().unwrap().trusting = true;
    }

    /// Has the referrers API from now on.
    pub fn lists_referrers(&self) {
        self.shared.inner.lock().unwrap().referrers = true;
    }

    /// Points a tag to a manifest that is there.
    pub fn set_tag(&self, name: &str, tag: &str, digest: &Digest) {
        let mut inner = self.shared.inner.lock().unwrap();
        let value = inner.manifests[&(name.to_owned(), digest.to_string())].clone();
        inner.manifests.insert((name.to_owned(), tag.to_owned()), value);
    }

    /// Never answers requests for this path. A hook cannot do that: it would stop the runtime, and
    /// with it the clocks of whoever is waiting.
    pub fn silent_at(&self, path: &str) {
        *self.shared.silent.lock().unwrap() = Some(path.to_owned());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.inner.lock().unwrap().seen.clone()
    }

    /// Requests with this method and part of a path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }

    pub fn add_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.add_blob_as(name, &digest, bytes);
        digest
    }

    pub fn add_blob_as(&self, name: &str, digest: &Digest, bytes: &[u8]) {
        let key = (name.to_owned(), digest.to_string());
        self.shared.inner.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(bytes));
    }

    pub fn add_manifest(&self, name: &str, reference: &str, manifest: &Manifest) {
        let mut inner = self.shared.inner.lock().unwrap();
        for reference in [reference, manifest.digest.as_str()] {
            let value = (manifest.media_type.clone(), manifest.bytes.clone());
            inner.manifests.insert((name.to_owned(), reference.to_owned()), value);
        }
    }

    /// Any bytes under their digest, of either algorithm.
    pub fn add_manifest_as(&self, name: &str, digest: &Digest, kind: &str, bytes: &Bytes) {
        let key = (name.to_owned(), digest.to_string());
        self.shared.inner.lock().unwrap().manifests.insert(key, (kind.to_owned(), bytes.clone()));
    }

    /// Loses all content.
    pub fn forget(&self) {
        let mut inner = self.shared.inner.lock().unwrap();
        inner.blobs.clear();
        inner.manifests.clear();
    }

    pub fn blob(&self, name: &str, digest: &Digest) -> Option<Bytes> {
        let key = (name.to_owned(), digest.to_string());
        self.shared.inner.lock().unwrap().blobs.get(&key).cloned()
    }

    pub fn manifest(&self, name: &str, reference: &str) -> Option<(String, Bytes)> {
        let key = (name.to_owned(), reference.to_owned());
        self.shared.inner.lock().unwrap().manifests.get(&key).cloned()
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok();
    let seen = Seen { body, ..Seen::head(Place::Registry, &parts) };
    shared.inner.lock().unwrap().seen.push(seen.clone());
    let silent = shared.silent.lock().unwrap().as_deref() == Some(seen.path.as_str());
    if silent || shared.hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let hooked = shared.hook.lock().unwrap().as_ref().and_then(|hook| hook(&seen));
    hooked.unwrap_or_else(|| answer(&mut shared.inner.lock().unwrap(), &seen))
}

fn answer(inner: &mut Inner, seen: &Seen) -> Response {
    let Some(rest) = seen.path.strip_prefix("/v2/") else { return status(404) };
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return tags(inner, seen, name);
    }
    if let Some((name, subject)) = rest.split_once("/referrers/") {
        return referrers(inner, seen, name, subject);
    }
    if let Some((name, reference)) = rest.split_once("/manifests/") {
        return manifests(inner, seen, name, reference);
    }
    match rest.split_once("/blobs/") {
        Some((name, "uploads/")) => Response::builder()
            .status(202)
            .header("location", format!("/v2/{name}/blobs/uploads/{}?state=x", inner.seen.len()))
            .body(Body::empty())
            .unwrap(),
        Some((name, upload)) if upload.starts_with("uploads/") => uploaded(inner, seen, name),
        Some((name, digest)) => blobs(inner, seen, name, digest),
        None => status(404),
    }
}

/// The tags behind `last`, at most `n` of them, with a relative `Link` if there are more.
fn tags(inner: &Inner, seen: &Seen, name: &str) -> Response {
    let known = |(repository, reference): &&(String, String)| {
        repository == name && reference.parse::<Digest>().is_err()
    };
    let mut tags: Vec<&str> =
        inner.manifests.keys().filter(known).map(|(_, reference)| reference.as_str()).collect();
    if tags.is_empty() {
        return error(404, "NAME_UNKNOWN", "repository name not known to registry");
    }
    tags.sort_unstable();
    let last = seen.query("last").pop().unwrap_or_default();
    tags.retain(|tag| *tag > last.as_str());
    let most: usize = seen.query("n").pop().unwrap().parse().unwrap();
    let page = &tags[..most.min(tags.len())];
    let body = serde_json::json!({"name": name, "tags": page}).to_string();
    match page.last() {
        Some(last) if page.len() < tags.len() => {
            let link = format!("</v2/{name}/tags/list?last={last}&n={most}>; rel=\"next\"");
            with(200, &[("link", &link)], body)
        }
        _ => with(200, &[], body),
    }
}

/// Those whose `subject` this is, two on a page, with a relative `Link` if there are more.
fn referrers(inner: &Inner, seen: &Seen, name: &str, subject: &str) -> Response {
    if !inner.referrers {
        return with(404, &[("content-type", "text/plain")], "404 page not found");
    }
    let mut found = std::collections::BTreeMap::new();
    for ((repository, reference), (kind, bytes)) in &inner.manifests {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(bytes) else { continue };
        let about = body["subject"]["digest"].as_str() == Some(subject);
        if repository == name && about && reference.parse::<Digest>().is_ok() {
            let mut entry = serde_json::json!({
                "mediaType": kind, "digest": reference, "size": bytes.len(),
                "artifactType": body["artifactType"], "annotations": body["annotations"],
            });
            if body["artifactType"].is_null() {
                entry["artifactType"] = body["config"]["mediaType"].clone();
            }
            found.insert(reference.clone(), entry);
        }
    }
    let page: usize = seen.query("page").pop().map_or(0, |page| page.parse().unwrap());
    let more = found.len() > 2 * (page + 1);
    let shown: Vec<_> = found.into_values().skip(2 * page).take(2).collect();
    let body = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": shown});
    let link = format!("</v2/{name}/referrers/{subject}?page={}>; rel=\"next\"", page + 1);
    let headers = [("content-type", INDEX), ("link", link.as_str())];
    with(200, &headers[..if more { 2 } else { 1 }], body.to_string())
}

fn manifests(inner: &mut Inner, seen: &Seen, name: &str, reference: &str) -> Response {
    let key = (name.to_owned(), reference.to_owned());
    if seen.method == Method::PUT {
        let Some(bytes) = seen.body.clone() else {
            return error(400, "MANIFEST_INVALID", "the manifest broke off");
        };
        let digest = digest_of(reference, &bytes);
        if reference.parse::<Digest>().is_ok_and(|asked| asked != digest) {
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let value = (seen.header("content-type").to_owned(), bytes);
        inner.manifests.insert(key, value.clone());
        inner.manifests.insert((name.to_owned(), digest.to_string()), value);
        return with(201, &[("docker-content-digest", digest.as_str())], Bytes::new());
    }
    if seen.method == Method::DELETE {
        return match inner.manifests.remove(&key) {
            Some(_) => status(202),
            None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        };
    }
    match inner.manifests.get(&key) {
        Some((kind, bytes)) => {
            let digest = digest_of(reference, bytes);
            let headers =
                [("content-type", kind.as_str()), ("docker-content-digest", digest.as_str())];
            with(200, &headers, bytes.clone())
        }
        None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// The digest of a manifest by the algorithm of the reference; a tag has the usual one.
fn digest_of(reference: &str, bytes: &Bytes) -> Digest {
    let asked = reference.parse::<Digest>().ok();
    Digest::of(asked.map_or(Algorithm::Sha256, |digest| digest.algorithm()), bytes)
}

fn blobs(inner: &Inner, seen: &Seen, name: &str, digest: &str) -> Response {
    match inner.blobs.get(&(name.to_owned(), digest.to_owned())) {
        Some(bytes) => ranged(seen, bytes),
        None => error(404, "BLOB_UNKNOWN", "blob unknown"),
    }
}

/// The bytes, or those of the range that is asked for.
pub fn ranged(seen: &Seen, bytes: &Bytes) -> Response {
    let start = seen
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            with(206, &[("content-range", &range)], bytes.slice(start..))
        }
        None => with(200, &[], bytes.clone()),
    }
}

fn uploaded(inner: &mut Inner, seen: &Seen, name: &str) -> Response {
    if seen.method == Method::DELETE {
        return status(204);
    }
    let digest = seen.query("digest").pop().unwrap_or_default();
    match &seen.body {
        Some(bytes) if inner.trusting || digest.parse::<Digest>().unwrap().matches(bytes) => {
            inner.blobs.insert((name.to_owned(), digest.clone()), bytes.clone());
            with(201, &[("docker-content-digest", &digest)], Bytes::new())
        }
        _ => error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
    }
}
