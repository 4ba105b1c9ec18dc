//! Two registries in memory. Requests about tags wait at a gate until the simulation says how
//! they are answered; everything else is answered at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use colophon_domain::Digest;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) type Reply = Response<Full<Bytes>>;
/// A repository with its host, and a tag.
pub(crate) type Key = (String, String);

/// What one repository holds.
#[derive(Default)]
pub(crate) struct Content {
    blobs: BTreeMap<String, Bytes>,
    pub(crate) manifests: BTreeMap<String, Bytes>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Tags that the list does not show yet.
    pub(crate) unlisted: BTreeSet<String>,
    /// Tags may be deleted.
    pub(crate) deletes: bool,
}

impl Content {
    /// An image with one layer; returns its digest.
    pub(crate) fn add_image(&mut self, number: u32) -> String {
        let mut blob = |text: String| {
            let bytes = Bytes::from(text);
            let digest = Digest::sha256(&bytes).to_string();
            let size = bytes.len();
            self.blobs.insert(digest.clone(), bytes);
            (digest, size)
        };
        let (config, config_size) = blob(format!("{{\"build\":{number}}}"));
        let (layer, layer_size) = blob(format!("layer of {number}"));
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": IMAGE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config, "size": config_size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": layer, "size": layer_size}],
        });
        let bytes = Bytes::from(manifest.to_string());
        let digest = Digest::sha256(&bytes).to_string();
        self.manifests.insert(digest.clone(), bytes);
        digest
    }

    /// What has no tag goes, with the blobs that nothing refers to any more.
    pub(crate) fn collect_garbage(&mut self) -> usize {
        let tagged: BTreeSet<&String> = self.tags.values().collect();
        let before = self.manifests.len();
        self.manifests.retain(|digest, _| tagged.contains(digest));
        let kept: Vec<String> = self.manifests.values().flat_map(parts).collect();
        self.blobs.retain(|digest, _| kept.contains(digest));
        before - self.manifests.len()
    }
}

/// The blobs of a manifest.
fn parts(manifest: &Bytes) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = value["layers"].as_array().into_iter().flatten();
    let all = layers.chain([&value["config"]]).filter_map(|part| part["digest"].as_str());
    all.map(str::to_owned).collect()
}

/// A request that was read.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// With the host: `one.test/app`.
    pub(crate) repository: String,
    /// What follows the repository: `manifests/latest`.
    pub(crate) rest: String,
    query: String,
    body: Bytes,
}

impl Asked {
    /// The tag that it is about; `None` for a list of tags, and for everything else.
    pub(crate) fn tag(&self) -> Option<&str> {
        let tag = self.rest.strip_prefix("manifests/")?;
        // Neither a digest nor a tag that is derived from one: images here have none of those.
        (!tag.starts_with("sha256:") && !tag.starts_with("sha256-")).then_some(tag)
    }

    pub(crate) fn key(&self) -> Option<Key> {
        Some((self.repository.clone(), self.tag()?.to_owned()))
    }

    pub(crate) fn puts(&self) -> bool {
        self.method == Method::PUT
    }

    /// It begins to ask where a tag is.
    pub(crate) fn looks(&self) -> bool {
        self.method == Method::HEAD
    }

    /// It changes a tag.
    pub(crate) fn writes(&self) -> bool {
        self.puts() || self.method == Method::DELETE
    }

    /// The digest of the manifest that it brings.
    pub(crate) fn digest(&self) -> String {
        Digest::sha256(&self.body).to_string()
    }

    fn about_tags(&self) -> bool {
        self.tag().is_some() || self.rest == "tags/list"
    }
}

/// A request that waits at the gate; dropping it closes its connection without an answer.
pub(crate) struct Parked {
    pub(crate) asked: Asked,
    pub(crate) reply: oneshot::Sender<Reply>,
}

struct Shared {
    content: BTreeMap<String, Content>,
    open: bool,
    deaf: bool,
    out: mpsc::UnboundedSender<Parked>,
}

/// Both registries, and the gate before them.
pub(crate) struct Registry {
    shared: Arc<Mutex<Shared>>,
    arrivals: mpsc::UnboundedReceiver<Parked>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let (out, arrivals) = mpsc::unbounded_channel();
        let shared = Shared { content: BTreeMap::new(), open: false, deaf: false, out };
        Self { shared: Arc::new(Mutex::new(shared)), arrivals }
    }

    /// Serves a registry under this name; returns where it really is.
    pub(crate) async fn serve(&self, host: &'static str) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| handle(Arc::clone(&shared), host, request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Lets every request through, or none.
    pub(crate) fn open(&self, open: bool) {
        self.lock().open = open;
    }

    /// Ends the connection of every request about tags without an answer.
    pub(crate) fn deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    pub(crate) async fn arrival(&mut self) -> Parked {
        self.arrivals.recv().await.unwrap()
    }

    /// Looks at a repository, or changes it behind everybody's back.
    pub(crate) fn within<T>(&self, repository: &str, work: impl FnOnce(&mut Content) -> T) -> T {
        work(self.lock().content.entry(repository.to_owned()).or_default())
    }

    pub(crate) fn digest(&self, key: &Key) -> Option<String> {
        self.within(&key.0, |content| content.tags.get(&key.1).cloned())
    }

    /// Does what is asked.
    pub(crate) fn act(&self, asked: &Asked) -> Reply {
        act(&mut self.lock().content, asked)
    }
}

async fn handle(
    shared: Arc<Mutex<Shared>>,
    host: &'static str,
    request: Request<Incoming>,
) -> io::Result<Reply> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = parts.uri.path().strip_prefix("/v2/").unwrap_or_default();
    let split = ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| path.find(part));
    let Some(at) = split else { return Ok(status(404)) };
    let asked = Asked {
        method: parts.method,
        repository: format!("{host}/{}", &path[..at]),
        rest: path[at + 1..].to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    let (reply, answer) = oneshot::channel();
    {
        let mut shared = shared.lock().unwrap();
        if shared.deaf && asked.about_tags() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if shared.open || !asked.about_tags() {
            return Ok(act(&mut shared.content, &asked));
        }
        shared.out.send(Parked { asked, reply }).map_err(io::Error::other)?;
    }
    answer.await.map_err(io::Error::other)
}

fn act(all: &mut BTreeMap<String, Content>, asked: &Asked) -> Reply {
    let content = all.entry(asked.repository.clone()).or_default();
    if asked.rest == "tags/list" {
        let tags: Vec<&String> =
            content.tags.keys().filter(|tag| !content.unlisted.contains(*tag)).collect();
        return with(200, &[], serde_json::json!({"name": "n", "tags": tags}).to_string());
    }
    if let Some(reference) = asked.rest.strip_prefix("manifests/") {
        return manifests(content, asked, reference);
    }
    match asked.rest.strip_prefix("blobs/").unwrap_or_default() {
        "uploads/" => with(202, &[("location", &upload_of(asked))], Bytes::new()),
        upload if upload.starts_with("uploads/") => {
            if asked.puts() {
                let digest = Digest::sha256(&asked.body).to_string();
                assert!(asked.query.replace("%3A", ":").contains(&digest), "{}", asked.query);
                content.blobs.insert(digest, asked.body.clone());
                return status(201);
            }
            status(204)
        }
        digest => match content.blobs.get(digest) {
            Some(bytes) => with(200, &[], bytes.clone()),
            None => error(404, "BLOB_UNKNOWN"),
        },
    }
}

fn upload_of(asked: &Asked) -> String {
    let name = asked.repository.split_once('/').map_or("", |(_, name)| name);
    format!("/v2/{name}/blobs/uploads/u?state=x")
}

fn manifests(content: &mut Content, asked: &Asked, reference: &str) -> Reply {
    if asked.puts() {
        if parts(&asked.body).iter().any(|part| !content.blobs.contains_key(part)) {
            return error(404, "MANIFEST_BLOB_UNKNOWN");
        }
        let digest = asked.digest();
        content.manifests.insert(digest.clone(), asked.body.clone());
        if let Some(tag) = asked.tag() {
            content.tags.insert(tag.to_owned(), digest.clone());
        }
        return with(201, &[("docker-content-digest", &digest)], Bytes::new());
    }
    if asked.method == Method::DELETE {
        if !content.deletes {
            return error(405, "UNSUPPORTED");
        }
        let gone = content.tags.remove(reference).is_some();
        return if gone { status(202) } else { error(404, "MANIFEST_UNKNOWN") };
    }
    let tagged = content.tags.get(reference).map(String::as_str);
    let digest = tagged.unwrap_or(reference);
    content.manifests.get(digest).map_or_else(|| error(404, "MANIFEST_UNKNOWN"), served)
}

/// The answer to a HEAD or GET of a manifest.
pub(crate) fn served(bytes: &Bytes) -> Reply {
    let digest = Digest::sha256(bytes).to_string();
    with(200, &[("content-type", IMAGE), ("docker-content-digest", &digest)], bytes.clone())
}

pub(crate) fn status(code: u16) -> Reply {
    with(code, &[], Bytes::new())
}

pub(crate) fn with(code: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::builder().status(StatusCode::from_u16(code).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

/// The distribution specification's envelope.
pub(crate) fn error(code: u16, name: &str) -> Reply {
    let body = serde_json::json!({"errors": [{"code": name, "message": name}]});
    with(code, &[("content-type", "application/json")], body.to_string())
}
