//! A registry in memory over real HTTP, which behaves as one of the [`Personality`]s and in
//! single answers as a table says. Blobs are streamed and hashed as they come; what went over
//! the wire is counted.
//!
//! It has up to three hosts: the registry, the realm of its tokens, and the storage that it
//! redirects downloads to.

mod access;
mod contents;
mod meter;
mod personality;
mod reading;
mod request;
mod table;
mod uploads;
mod writing;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use colophon_launcher::Tls;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

pub use contents::Stored;
pub use personality::{Auth, Immutable, OldQuery, Personality, Unmounted};
pub use request::{Place, Response, Seen, error, status, with};
pub use table::{ALWAYS, Answer, When};

use crate::{
    error::Result,
    peer::sha256,
    scripted::{contents::Repository, meter::Meter, table::Table, uploads::Uploads},
    serve::{NoAnswer, Server},
    token_service::{self, Allowed, Desk, TokenOptions, TokenRequest},
};

/// Manifests are at most 4 MiB.
const MANIFEST_LIMIT: usize = 4 << 20;

/// A running registry. Dropping it closes its ports, and panics if rows of its table were not
/// used.
pub struct Scripted {
    registry: Server,
    realm: Option<Server>,
    storage: Option<Server>,
    shared: Arc<Shared>,
}

/// What its hosts share.
pub(crate) struct Shared {
    personality: Personality,
    contents: Mutex<BTreeMap<String, Repository>>,
    uploads: Uploads,
    table: Table,
    meter: Meter,
    desk: Arc<Desk>,
    /// GETs of manifests so far.
    pulled: Mutex<u32>,
    urls: OnceLock<Urls>,
}

/// Where its hosts are.
struct Urls {
    registry: String,
    realm: String,
    storage: String,
}

impl Scripted {
    /// Starts an empty registry over plain HTTP.
    pub async fn start(personality: Personality) -> Result<Self> {
        Self::start_with(personality, None).await
    }

    /// The same, with TLS on each of its hosts.
    pub async fn start_with(personality: Personality, tls: Option<&Tls>) -> Result<Self> {
        let desk = Desk::new(TokenOptions {
            tls: None,
            expires_in: personality.token_life,
            anonymous_pull: personality.anonymous_pull,
            opaque: personality.opaque_tokens,
        })?;
        let shared = Arc::new(Shared {
            contents: Mutex::default(),
            uploads: Uploads::default(),
            table: Table::default(),
            meter: Meter::default(),
            desk: Arc::new(desk),
            pulled: Mutex::default(),
            urls: OnceLock::new(),
            personality,
        });
        let start = async |place| {
            let shared = Arc::clone(&shared);
            let handle = move |request| Arc::clone(&shared).handle(place, request);
            Server::start(tls, handle).await
        };
        let registry = start(Place::Registry).await?;
        let (realm, storage) = (
            match shared.personality.auth {
                Auth::OtherRealm => Some(start(Place::Realm).await?),
                _ => None,
            },
            if shared.personality.redirects { Some(start(Place::Storage).await?) } else { None },
        );
        let url = |server: &Option<Server>| server.as_ref().map_or(registry.url(), Server::url);
        let urls = Urls {
            realm: format!("{}/token", url(&realm)),
            storage: url(&storage),
            registry: registry.url(),
        };
        // Nobody knows the ports yet, so no request can have come.
        let _first = shared.urls.set(urls);
        Ok(Self { registry, realm, storage, shared })
    }

    /// `127.0.0.1:port` of the registry.
    pub fn host(&self) -> String {
        self.registry.host()
    }

    /// Its URL, without a slash at its end.
    pub fn url(&self) -> String {
        self.registry.url()
    }

    /// `127.0.0.1:port` of the realm, which may be the registry's own.
    pub fn realm(&self) -> String {
        self.realm.as_ref().map_or(self.registry.host(), Server::host)
    }

    /// `127.0.0.1:port` of the storage, which may be the registry's own.
    pub fn storage(&self) -> String {
        self.storage.as_ref().map_or(self.registry.host(), Server::host)
    }

    /// Adds a login.
    pub fn login(&self, username: &str, password: &str, allowed: Vec<Allowed>) {
        self.shared.desk.set_login(username, password, allowed);
    }

    /// Adds rows to the table: which requests, what is answered, and how often.
    pub fn script(&self, rows: impl IntoIterator<Item = (When, Answer, usize)>) {
        self.shared.table.add(rows);
    }

    /// How often each row answered.
    pub fn hits(&self) -> Vec<usize> {
        self.shared.table.hits()
    }

    /// The rows that were not used as often as they should, as text.
    pub fn unused(&self) -> Vec<String> {
        self.shared.table.unused()
    }

    /// Adds an empty repository.
    pub fn add_repository(&self, name: &str) {
        self.shared.contents().entry(name.to_owned()).or_default();
    }

    /// From now on, tags of this repository stay where they are.
    pub fn freeze(&self, name: &str) {
        self.shared.contents().entry(name.to_owned()).or_default().frozen = true;
    }

    /// Adds a blob and returns its digest.
    pub fn add_blob(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let mut contents = self.shared.contents();
        contents.entry(name.to_owned()).or_default().blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Takes a blob away, as a cleaner may.
    pub fn remove_blob(&self, name: &str, digest: &str) {
        if let Some(repository) = self.shared.contents().get_mut(name) {
            repository.blobs.remove(digest);
        }
    }

    /// Adds a manifest under a tag or digest and returns its digest.
    pub fn add_manifest(
        &self,
        name: &str,
        reference: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> String {
        let stored = Stored { media_type: media_type.to_owned(), bytes: bytes.into() };
        self.shared.contents().entry(name.to_owned()).or_default().put(reference, stored)
    }

    /// A blob that is there.
    pub fn blob(&self, name: &str, digest: &str) -> Option<Bytes> {
        self.shared.contents().get(name)?.blobs.get(digest).cloned()
    }

    /// A manifest that is there, by tag or digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Stored> {
        let contents = self.shared.contents();
        let repository = contents.get(name)?;
        repository.manifests.get(repository.resolve(reference)?).cloned()
    }

    /// The digest that a tag points to.
    pub fn tag(&self, name: &str, tag: &str) -> Option<String> {
        self.shared.contents().get(name)?.tags.get(tag).cloned()
    }

    /// Uploads that were begun and neither completed nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.shared.uploads.open()
    }

    /// All requests so far, in the order in which their heads came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.meter.requests()
    }

    /// Requests with this method and this text in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }

    /// Requests by their method.
    pub fn by_method(&self) -> BTreeMap<String, usize> {
        self.shared.meter.by_method()
    }

    /// Each `Authorization` that one of its hosts was shown, once.
    pub fn authorizations(&self, place: Place) -> Vec<String> {
        self.shared.meter.authorizations(place)
    }

    /// The requests for tokens.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.shared.desk.requests()
    }

    /// Bytes of a blob that were handed out, by the registry or its storage.
    pub fn bytes_sent(&self, digest: &str) -> u64 {
        self.shared.meter.bytes_sent(digest)
    }

    /// Bytes of the uploads that became this blob.
    pub fn bytes_received(&self, digest: &str) -> u64 {
        self.shared.meter.bytes_received(digest)
    }

    /// Bytes of all uploads, also of those that came to nothing.
    pub fn bytes_received_in_all(&self) -> u64 {
        self.shared.meter.bytes_received_in_all()
    }

    /// The most requests that waited for the registry's answer at the same time; bytes of a
    /// blob that are still handed out do not count.
    pub fn peak_requests(&self) -> usize {
        self.shared.meter.most_open()
    }

    /// The most connections that the registry had at the same time.
    pub fn peak_connections(&self) -> usize {
        self.registry.connections().peak()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let unused = self.shared.table.unused();
        if !unused.is_empty() && !std::thread::panicking() {
            fail(&format!("rows of the table were not used: {}", unused.join(", ")));
        }
    }
}

#[expect(clippy::panic, reason = "a table that was not used up fails the test")]
fn fail(text: &str) {
    panic!("{text}");
}

impl Shared {
    fn contents(&self) -> MutexGuard<'_, BTreeMap<String, Repository>> {
        lock(&self.contents)
    }

    fn realm_url(&self) -> &str {
        self.urls.get().map_or("", |urls| &urls.realm)
    }

    fn storage_url(&self) -> &str {
        self.urls.get().map_or("", |urls| &urls.storage)
    }

    /// A path as it stands in `Location` and `Link`.
    fn absolute(&self, path: &str) -> String {
        match self.urls.get() {
            Some(urls) if self.personality.absolute_locations => format!("{}{path}", urls.registry),
            _ => path.to_owned(),
        }
    }

    async fn handle(
        self: Arc<Self>,
        place: Place,
        request: Request<Incoming>,
    ) -> std::result::Result<Response, NoAnswer> {
        let (parts, body) = request.into_parts();
        let seen = Seen::head(place, &parts);
        self.meter.request(&seen);
        let _open = (place == Place::Registry).then(|| self.meter.open());
        let request = Request::from_parts(parts, body);
        match self.table.take(&seen) {
            None => self.answer(&seen, request).await,
            Some(Answer::Change(change)) => Ok(change(self.answer(&seen, request).await?)),
            Some(Answer::Late(time)) => {
                tokio::time::sleep(time).await;
                self.answer(&seen, request).await
            }
            Some(Answer::Drop) => Err("closed by the table".into()),
            Some(Answer::Cut(bytes)) => {
                self.broken_off(&seen, request.into_body(), bytes).await;
                Err("closed by the table".into())
            }
            Some(Answer::Stall(bytes)) => {
                self.broken_off(&seen, request.into_body(), bytes).await;
                std::future::pending().await
            }
            Some(Answer::DropAfter) => {
                self.answer(&seen, request).await?;
                Err("closed by the table".into())
            }
            Some(reply) => {
                uploads::drain(request.into_body()).await;
                Ok(reply.reply())
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        seen: &Seen,
        request: Request<Incoming>,
    ) -> std::result::Result<Response, NoAnswer> {
        let own = self.personality.auth == Auth::OwnRealm && seen.path == "/token";
        if own || seen.place == Place::Realm {
            return token_service::answer(Arc::clone(&self.desk), request).await;
        }
        if seen.place == Place::Storage {
            return Ok(self.stored(seen));
        }
        let Some(rest) = seen.path.strip_prefix("/v2/") else { return Ok(status(404)) };
        if rest.is_empty() {
            return Ok(self.root(seen));
        }
        let Some((name, what)) = target(rest) else { return Ok(status(404)) };
        let refusal = self.turns_away(seen, name).or_else(|| self.knows_none(name));
        if let Some(refusal) = refusal {
            if self.personality.drains {
                uploads::drain(request.into_body()).await;
            }
            return Ok(refusal);
        }
        match what {
            What::Tags => Ok(self.tags(seen, name)),
            What::Referrers(subject) => Ok(self.referrers(seen, name, subject)),
            What::Blob(digest) => Ok(self.blob(seen, name, digest)),
            What::Upload("") => self.begin_upload(seen, name, request.into_body()).await,
            What::Upload(id) => self.upload(seen, name, id, request.into_body()).await,
            What::Manifest(reference) if seen.method == Method::PUT => {
                let body = Limited::new(request.into_body(), MANIFEST_LIMIT).collect().await?;
                Ok(self.put_manifest(seen, name, reference, body.to_bytes()))
            }
            What::Manifest(reference) if seen.method == Method::DELETE => {
                Ok(self.delete_manifest(name, reference))
            }
            What::Manifest(reference) => Ok(self.manifest(seen, name, reference)),
        }
    }

    /// The refusal for a repository that cannot be, or is not there.
    fn knows_none(&self, name: &str) -> Option<Response> {
        if self.personality.name_prefix.is_some_and(|prefix| !name.starts_with(prefix)) {
            let text = format!("Unsupported docker v2 repository request for '{name}'");
            return Some(error(400, "UNSUPPORTED", &text));
        }
        let there = self.contents().contains_key(name);
        (!there && !self.personality.creates_repositories).then(|| reading::name_unknown(name))
    }
}

/// What a path behind `/v2/` leads to.
enum What<'a> {
    Tags,
    Manifest(&'a str),
    Referrers(&'a str),
    Blob(&'a str),
    /// An upload, or none yet.
    Upload(&'a str),
}

fn target(rest: &str) -> Option<(&str, What<'_>)> {
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, What::Tags));
    }
    let last = |between| rest.split_once(between);
    if let Some((name, reference)) = last("/manifests/") {
        return Some((name, What::Manifest(reference)));
    }
    if let Some((name, subject)) = last("/referrers/") {
        return Some((name, What::Referrers(subject)));
    }
    match last("/blobs/uploads/") {
        Some((name, id)) => Some((name, What::Upload(id))),
        None => last("/blobs/").map(|(name, digest)| (name, What::Blob(digest))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
