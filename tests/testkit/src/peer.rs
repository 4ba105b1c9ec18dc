//! A registry seen by a client of its own, which shares no code with the one under test: it walks
//! everything below a tag, checks each digest and size by itself, and writes what a test needs
//! there beforehand.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use colophon_launcher::{Login, Registry};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result, While as _};

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A registry, and who is asking.
pub struct Peer {
    url: String,
    login: Option<Login>,
    http: Client,
    tokens: Mutex<HashMap<String, String>>,
}

/// Everything below one manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// The digest of the manifest or index that was asked for.
    pub root: String,
    /// What was found, by digest, the root included.
    pub contents: BTreeMap<String, Content>,
}

/// One verified manifest or blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Whether it is a manifest or index, and not a blob.
    pub manifest: bool,
    /// Its media type, as it says itself or as its descriptor says.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

struct Descriptor {
    digest: String,
    media_type: String,
    size: u64,
    elsewhere: bool,
}

impl Peer {
    /// A registry by its URL (`http://127.0.0.1:5000`).
    pub fn new(url: impl Into<String>) -> Result<Self> {
        Ok(Self { url: url.into(), login: None, http: client(&[])?, tokens: Mutex::default() })
    }

    /// A registry that the launcher runs over plain HTTP.
    pub fn of(registry: &Registry) -> Result<Self> {
        Self::new(registry.url())
    }

    /// The same, asking as this login.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }

    /// The same, trusting these certificates and no others.
    pub fn trusting(mut self, ca_pem: &str) -> Result<Self> {
        let certificate = Certificate::from_pem(ca_pem.as_bytes()).doing("reading a CA")?;
        self.http = client(&[certificate])?;
        Ok(self)
    }

    /// The digest that a tag points to, computed from the bytes that the registry serves;
    /// `None` where there is no such tag.
    pub async fn digest_of(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        Ok(self.manifest(repository, tag).await?.map(|(bytes, _)| sha256(&bytes)))
    }

    /// All tags of a repository, sorted. A repository that does not exist has none.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let path = format!("{repository}/tags/list");
        let request = || self.http.get(self.v2(&path));
        let answer = self.send(repository, "pull", &request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let body: Value = expect(answer, &path).await?.json().await.doing("reading tags")?;
        let named = body.get("tags").and_then(Value::as_array).into_iter().flatten();
        let mut tags: Vec<String> = named.filter_map(Value::as_str).map(str::to_owned).collect();
        tags.sort_unstable();
        Ok(tags)
    }

    /// A manifest's bytes and media type by tag or digest.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<(Vec<u8>, String)>> {
        let path = format!("{repository}/manifests/{reference}");
        let request = || {
            let request = self.http.get(self.v2(&path));
            INDEXES
                .iter()
                .chain(&MANIFESTS)
                .fold(request, |request, media_type| request.header(header::ACCEPT, *media_type))
        };
        let answer = self.send(repository, "pull", &request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = expect(answer, &path).await?;
        let stated = answer.headers().get(header::CONTENT_TYPE);
        let stated = stated.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let bytes = answer.bytes().await.doing(format!("reading {path}"))?.to_vec();
        Ok(Some((bytes, stated)))
    }

    /// Fetches everything below `reference` and verifies it.
    pub async fn walk(&self, repository: &str, reference: &str) -> Result<Walk> {
        let (bytes, stated) = self
            .manifest(repository, reference)
            .await?
            .doing(format!("{}/{repository} has no {reference}", self.url))?;
        let algorithm = if reference.starts_with("sha512:") { "sha512" } else { "sha256" };
        let root = digest(algorithm, &bytes)?;
        if reference.contains(':') && reference != root {
            return Err(Error::new(format!("{repository}@{reference} has the digest {root}")));
        }
        let mut walk = Walk { root: root.clone(), contents: BTreeMap::new() };
        let mut open = note(&mut walk, root, stated, &bytes)?;
        while let Some(descriptor) = open.pop() {
            if descriptor.elsewhere || walk.contents.contains_key(&descriptor.digest) {
                continue;
            }
            if is_manifest(&descriptor.media_type) {
                let (bytes, _) = self
                    .manifest(repository, &descriptor.digest)
                    .await?
                    .doing(format!("{repository} lacks the manifest {}", descriptor.digest))?;
                verify(&descriptor, &bytes)?;
                let Descriptor { digest, media_type, .. } = descriptor;
                open.extend(note(&mut walk, digest, media_type, &bytes)?);
            } else {
                let content = self.blob(repository, &descriptor).await?;
                walk.contents.insert(descriptor.digest, content);
            }
        }
        Ok(walk)
    }

    /// Uploads a blob in one request and returns its digest.
    pub async fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = sha256(bytes);
        let path = format!("{repository}/blobs/uploads/");
        let begin = || self.http.post(self.v2(&path));
        let answer = self.send(repository, "pull,push", &begin).await?;
        let answer = expect(answer, &path).await?;
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let location = location.doing("an upload without Location")?;
        let mut url = answer.url().join(location).doing("resolving Location")?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let finish = || self.http.put(url.clone()).body(bytes.to_vec());
        let answer = self.send(repository, "pull,push", &finish).await?;
        expect(answer, &path).await?;
        Ok(digest)
    }

    /// Puts a manifest's exact bytes under a tag or its digest, and returns its digest.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<String> {
        let path = format!("{repository}/manifests/{reference}");
        let request = || {
            let request = self.http.put(self.v2(&path)).body(bytes.to_vec());
            request.header(header::CONTENT_TYPE, media_type)
        };
        let answer = self.send(repository, "pull,push", &request).await?;
        expect(answer, &path).await?;
        Ok(sha256(bytes))
    }

    /// Deletes a manifest by its digest, and with it the tags that point to it.
    pub async fn delete_manifest(&self, repository: &str, digest: &str) -> Result<()> {
        let path = format!("{repository}/manifests/{digest}");
        let request = || self.http.delete(self.v2(&path));
        let answer = self.send(repository, "delete", &request).await?;
        expect(answer, &path).await.map(drop)
    }

    async fn blob(&self, repository: &str, wanted: &Descriptor) -> Result<Content> {
        let path = format!("{repository}/blobs/{}", wanted.digest);
        let request = || self.http.get(self.v2(&path));
        let answer = self.send(repository, "pull", &request).await?;
        let mut answer = expect(answer, &path).await?;
        let (mut short, mut long, mut size) = (Sha256::new(), Sha512::new(), 0_u64);
        let long_wanted = wanted.digest.starts_with("sha512:");
        while let Some(chunk) = answer.chunk().await.doing(format!("reading {path}"))? {
            size += chunk.len() as u64;
            if long_wanted {
                long.update(&chunk);
            } else {
                short.update(&chunk);
            }
        }
        let found = if long_wanted {
            format!("sha512:{}", hex::encode(long.finalize()))
        } else {
            format!("sha256:{}", hex::encode(short.finalize()))
        };
        if found != wanted.digest || size != wanted.size {
            return Err(Error::new(format!(
                "{path} should have {} bytes, but has {size} with the digest {found}",
                wanted.size
            )));
        }
        Ok(Content { manifest: false, media_type: wanted.media_type.clone(), size })
    }

    fn v2(&self, path: &str) -> String {
        format!("{}/v2/{path}", self.url)
    }

    /// Sends a request; where the registry asks for credentials, gets them and sends it again.
    async fn send(
        &self,
        repository: &str,
        actions: &str,
        request: &(dyn Fn() -> RequestBuilder + Sync),
    ) -> Result<Response> {
        let scope = format!("repository:{repository}:{actions}");
        let cached =
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&scope).cloned();
        let first = match cached {
            Some(token) => request().bearer_auth(token),
            None => request(),
        };
        let answer = first.send().await.doing(format!("asking {}", self.url))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let authorised = match challenge.split_once(' ') {
            Some(("Bearer", parameters)) => {
                let token = self.token(parameters, &scope).await?;
                let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                tokens.insert(scope, token.clone());
                request().bearer_auth(token)
            }
            _ => self.signed(request()),
        };
        authorised.send().await.doing(format!("asking {}", self.url))
    }

    async fn token(&self, challenge: &str, scope: &str) -> Result<String> {
        let parameter = |name: &str| {
            let fields = challenge.split(',').filter_map(|field| field.split_once('='));
            let mut named = fields.filter(|(key, _)| key.trim() == name);
            named.next().map(|(_, value)| value.trim_matches('"').to_owned())
        };
        let realm = parameter("realm").doing("a challenge without realm")?;
        let service = parameter("service").unwrap_or_default();
        let query = [("service", service.as_str()), ("scope", scope)];
        let answer = self.signed(self.http.get(&realm).query(&query)).send().await;
        let answer = expect(answer.doing(format!("asking {realm}"))?, &realm).await?;
        let body: Value = answer.json().await.doing("reading a token")?;
        let token = body.get("token").or_else(|| body.get("access_token"));
        token.and_then(Value::as_str).map(str::to_owned).doing("an answer without a token")
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Some(Login { username, password }) => {
                request.basic_auth(username, Some(password.expose_secret()))
            }
            None => request,
        }
    }

    /// Any request below `/v2/`, for what the methods here do not cover.
    pub async fn request(&self, method: Method, repository: &str, path: &str) -> Result<Response> {
        let request =
            || self.http.request(method.clone(), self.v2(&format!("{repository}/{path}")));
        self.send(repository, "pull,push", &request).await
    }
}

/// Walks both sides and fails with the difference unless everything below the two references is
/// the same, byte for byte. Returns what both have.
pub async fn assert_same(source: (&Peer, &str, &str), target: (&Peer, &str, &str)) -> Result<Walk> {
    let left = source.0.walk(source.1, source.2).await?;
    let right = target.0.walk(target.1, target.2).await?;
    if left == right {
        return Ok(left);
    }
    let only = |one: &Walk, other: &Walk| {
        let missing = one
            .contents
            .iter()
            .filter(|(digest, content)| other.contents.get(*digest) != Some(content));
        missing.map(|(digest, _)| digest.clone()).collect::<Vec<_>>().join(" ")
    };
    Err(Error::new(format!(
        "{}:{} ({}) and {}:{} ({}) differ; only in the first: [{}]; only in the second: [{}]",
        source.1,
        source.2,
        left.root,
        target.1,
        target.2,
        right.root,
        only(&left, &right),
        only(&right, &left),
    )))
}

fn client(trusted: &[Certificate]) -> Result<Client> {
    Client::builder()
        .tls_certs_only(trusted.iter().cloned())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_mins(1))
        .build()
        .doing("making a client")
}

async fn expect(answer: Response, what: &str) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.text().await.unwrap_or_default();
    let body: String = body.chars().take(500).collect();
    Err(Error::new(format!("{what}: {status}: {body}")))
}

fn is_manifest(media_type: &str) -> bool {
    INDEXES.contains(&media_type) || MANIFESTS.contains(&media_type)
}

/// Adds a manifest to what was found and returns what it names.
fn note(
    walk: &mut Walk,
    digest: String,
    media_type: String,
    bytes: &[u8],
) -> Result<Vec<Descriptor>> {
    let manifest: Value = serde_json::from_slice(bytes).doing(format!("parsing {digest}"))?;
    let media_type =
        manifest.get("mediaType").and_then(Value::as_str).map_or(media_type, str::to_owned);
    let list =
        |name: &str| manifest.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let named = ["manifests", "layers", "blobs"].into_iter().flat_map(list);
    let found =
        named.chain(manifest.get("config").cloned()).map(|value| descriptor(&value)).collect();
    let size = bytes.len() as u64;
    walk.contents.insert(digest, Content { manifest: true, media_type, size });
    found
}

fn descriptor(value: &Value) -> Result<Descriptor> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let size = value.get("size").and_then(Value::as_u64);
    Ok(Descriptor {
        digest: text("digest").doing("a descriptor without digest")?,
        media_type: text("mediaType").doing("a descriptor without mediaType")?,
        size: size.doing("a descriptor without size")?,
        // Foreign layers are fetched from where they say, and registries need not hold them.
        elsewhere: value.get("urls").and_then(Value::as_array).is_some_and(|urls| !urls.is_empty()),
    })
}

fn verify(wanted: &Descriptor, bytes: &[u8]) -> Result<()> {
    let algorithm = wanted.digest.split(':').next().unwrap_or_default();
    let found = digest(algorithm, bytes)?;
    if found == wanted.digest && bytes.len() as u64 == wanted.size {
        return Ok(());
    }
    Err(Error::new(format!("{} has {} bytes and is {found}", wanted.digest, bytes.len())))
}

fn digest(algorithm: &str, bytes: &[u8]) -> Result<String> {
    match algorithm {
        "sha256" => Ok(sha256(bytes)),
        "sha512" => Ok(format!("sha512:{}", hex::encode(Sha512::digest(bytes)))),
        other => Err(Error::new(format!("no algorithm for digests: {other}"))),
    }
}

/// The SHA-256 digest in its text form.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use colophon_launcher::RegistryOptions;
    use serde_json::json;

    use super::*;
    use crate::image::{Destination, ImageSpec};

    #[tokio::test]
    async fn a_damaged_or_missing_blob_does_not_pass() {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        let image = ImageSpec::new("damage").build().await.unwrap();
        let host = registry.host();
        let to = Destination { host: &host, repository: "app", tag: "v1", login: None };
        image.push(&to).await.unwrap();
        let peer = Peer::of(&registry).unwrap();
        let walk = peer.walk("app", "v1").await.unwrap();
        let (digest, _) = walk.contents.iter().find(|(_, content)| !content.manifest).unwrap();
        let hex = digest.trim_start_matches("sha256:");
        let data = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let data = registry.storage().join(data);
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&data, &bytes).unwrap();
        let error = peer.walk("app", "v1").await.unwrap_err().to_string();
        assert!(error.contains(digest), "{error}");
        std::fs::remove_file(&data).unwrap();
        assert!(peer.walk("app", "v1").await.is_err());
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_listed_and_deleted() {
        let registry = Registry::start(RegistryOptions::default()).await.unwrap();
        let peer = Peer::of(&registry).unwrap();
        assert_eq!(peer.tags("none").await.unwrap(), Vec::<String>::new());
        assert_eq!(peer.digest_of("none", "v1").await.unwrap(), None);
        let config = peer.put_blob("app", b"{}").await.unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFESTS[0],
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "layers": [],
        });
        let bytes = manifest.to_string().into_bytes();
        for tag in ["v2", "v1"] {
            peer.put_manifest("app", tag, MANIFESTS[0], &bytes).await.unwrap();
        }
        assert_eq!(peer.tags("app").await.unwrap(), ["v1", "v2"]);
        let walk = peer.walk("app", "v2").await.unwrap();
        assert_eq!((walk.root.as_str(), walk.contents.len()), (sha256(&bytes).as_str(), 2));
        peer.delete_manifest("app", &walk.root).await.unwrap();
        assert_eq!(peer.digest_of("app", "v1").await.unwrap(), None);
    }
}
