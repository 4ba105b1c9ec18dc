//! Upload sessions (distribution-spec, "Pushing blobs"): begun by a POST, which may find the
//! blob in another repository or have it with it, fed in chunks with ranges by PATCH, asked by
//! GET where they stand, completed by PUT, and ended by DELETE. Bytes are hashed as they come; those of
//! a request that broke off stay.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Incoming};
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    proxy::cut,
    scripted::{
        Shared, lock,
        personality::{OldQuery, Unmounted},
        request::{Response, Seen, error, with},
    },
    serve::NoAnswer,
};

/// One upload that is not complete.
#[derive(Default)]
struct Session {
    name: String,
    bytes: BytesMut,
    hash: Sha256,
    /// The end of the first chunk.
    first: Option<usize>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Uploads {
    sessions: Mutex<HashMap<String, Arc<Mutex<Session>>>>,
    begun: Mutex<u64>,
}

impl Uploads {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<Session>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many uploads wait to be completed.
    pub(super) fn open(&self) -> usize {
        self.sessions().len()
    }

    fn begin(&self, name: &str) -> String {
        let mut begun = lock(&self.begun);
        *begun += 1;
        let id = format!("session-{begun}");
        let session = Session { name: name.to_owned(), ..Session::default() };
        self.sessions().insert(id.clone(), Arc::new(Mutex::new(session)));
        id
    }

    fn find(&self, name: &str, id: &str) -> Option<Arc<Mutex<Session>>> {
        let found = self.sessions().get(id).cloned()?;
        let own = lock(&found).name == name;
        own.then_some(found)
    }
}

impl Shared {
    /// A POST: a mount, a whole upload, or the begin of one.
    pub(super) async fn begin_upload(
        &self,
        seen: &Seen,
        name: &str,
        body: Incoming,
    ) -> Result<Response, NoAnswer> {
        if let Some(digest) = seen.query("mount").pop() {
            let from = seen.query("from").pop().unwrap_or_default();
            if let Some(answer) = self.mount(seen, name, &digest, &from) {
                return Ok(answer);
            }
        }
        let id = self.uploads.begin(name);
        match seen.query("digest").pop() {
            Some(digest) if self.personality.single_post => {
                self.complete(name, &id, &digest, body).await
            }
            _ => {
                drain(body).await;
                let mut answer = self.stands(name, &id, 202, 0);
                if let Some(least) = self.personality.smallest_chunk {
                    let value = HeaderValue::from(least);
                    answer.headers_mut().insert("oci-chunk-min-length", value);
                }
                Ok(answer)
            }
        }
    }

    /// The blob is taken from another repository; `None` begins an upload.
    fn mount(&self, seen: &Seen, name: &str, digest: &str, from: &str) -> Option<Response> {
        if !self.personality.mounts {
            return None;
        }
        let readable = self.allows(seen, from, "pull") == Some(true);
        let found = self.contents().get(from).and_then(|known| known.blobs.get(digest).cloned());
        match found.filter(|_| readable) {
            Some(bytes) => {
                let mut contents = self.contents();
                contents.entry(name.to_owned()).or_default().blobs.insert(digest.to_owned(), bytes);
                Some(self.created(name, digest))
            }
            None if self.personality.unmounted == Unmounted::Unauthorized && !readable => {
                let project = from.split('/').next().unwrap_or_default();
                Some(error(401, "UNAUTHORIZED", &format!("project {project} not found")))
            }
            None => None,
        }
    }

    /// A request for a session.
    pub(super) async fn upload(
        &self,
        seen: &Seen,
        name: &str,
        id: &str,
        body: Incoming,
    ) -> Result<Response, NoAnswer> {
        let Some(session) = self.uploads.find(name, id) else {
            drain(body).await;
            return Ok(error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
        };
        let offset = lock(&session).bytes.len();
        let stale = seen.query("_state").pop() != self.state(id, offset);
        let told = self.personality.old_query == OldQuery::TellsOnly && seen.method == Method::GET;
        if stale && !told && self.personality.old_query != OldQuery::Taken {
            if self.personality.old_query == OldQuery::TellsOnly {
                drain(body).await;
                return Ok(error(416, "RANGE_INVALID", "invalid content range"));
            }
            if self.personality.old_query == OldQuery::Destroys {
                self.uploads.sessions().remove(id);
            }
            drain(body).await;
            return Ok(error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid"));
        }
        match seen.method {
            Method::GET => Ok(self.stands(name, id, 204, offset)),
            Method::DELETE => {
                self.uploads.sessions().remove(id);
                Ok(with(204, &[], Body::empty()))
            }
            Method::PATCH | Method::PUT => {
                if let Some(refusal) = self.refuses(seen, name, id, offset) {
                    drain(body).await;
                    return Ok(refusal);
                }
                match seen.query("digest").pop() {
                    Some(digest) if seen.method == Method::PUT => {
                        self.complete(name, id, &digest, body).await
                    }
                    _ if seen.method == Method::PUT => {
                        drain(body).await;
                        Ok(error(400, "DIGEST_INVALID", "no digest was given"))
                    }
                    _ => self.chunk(name, id, &session, body).await,
                }
            }
            _ => Ok(with(405, &[], Body::empty())),
        }
    }

    /// A request for a session that breaks off after so many bytes of its body.
    pub(super) async fn broken_off(&self, seen: &Seen, body: Incoming, bytes: u64) {
        let rest = seen.path.strip_prefix("/v2/").unwrap_or_default();
        let session =
            rest.split_once("/blobs/uploads/").and_then(|(name, id)| self.uploads.find(name, id));
        if let Some(session) = session {
            // That it is shorter than announced is what was asked for.
            let _broken = self.take(&session, cut(Body::new(body), bytes)).await;
        }
    }

    /// What speaks against a body, before it is read.
    fn refuses(&self, seen: &Seen, name: &str, id: &str, offset: usize) -> Option<Response> {
        let length = seen.content_length();
        let most = self.personality.largest_chunk.filter(|_| seen.method == Method::PATCH);
        if most.is_some_and(|most| length.is_none_or(|length| length > most)) {
            let text = "the request body is too large and exceeds the maximum permissible limit \
                        of 4.00MiB";
            return Some(error(416, "REQUESTED_RANGE_NOT_SATISFIABLE", text));
        }
        let range = seen.header("content-range");
        if !self.personality.checks_ranges || range.is_empty() {
            return None;
        }
        let (start, end) = range.split_once('-').unwrap_or_default();
        let fits = |start: u64, end: u64| {
            start == offset as u64 && length.is_none_or(|length| start + length == end + 1)
        };
        match (start.parse(), end.parse()) {
            (Ok(start), Ok(end)) if fits(start, end) => None,
            _ => Some(self.stands(name, id, 416, offset)),
        }
    }

    async fn chunk(
        &self,
        name: &str,
        id: &str,
        session: &Mutex<Session>,
        body: Incoming,
    ) -> Result<Response, NoAnswer> {
        self.take(session, body).await?;
        let shown = {
            let mut session = lock(session);
            let stands = session.bytes.len();
            let first = *session.first.get_or_insert(stands);
            if self.personality.range_sticks { first } else { stands }
        };
        let stands = lock(session).bytes.len();
        let mut answer = self.stands(name, id, self.personality.chunk_status, stands);
        answer.headers_mut().insert("range", range(shown));
        Ok(answer)
    }

    /// The last bytes, and the blob if it is the one that was promised.
    async fn complete(
        &self,
        name: &str,
        id: &str,
        digest: &str,
        body: Incoming,
    ) -> Result<Response, NoAnswer> {
        let Some(session) = self.uploads.find(name, id) else {
            return Ok(error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
        };
        self.take(&session, body).await?;
        self.uploads.sessions().remove(id);
        let session = std::mem::take(&mut *lock(&session));
        let found = if digest.starts_with("sha512:") {
            format!("sha512:{}", hex::encode(Sha512::digest(&session.bytes)))
        } else {
            format!("sha256:{}", hex::encode(session.hash.finalize()))
        };
        if found != digest {
            let text = "provided digest did not match uploaded content";
            return Ok(error(400, "DIGEST_INVALID", text));
        }
        let bytes = session.bytes.freeze();
        self.meter.received(digest, bytes.len() as u64);
        let mut contents = self.contents();
        contents.entry(name.to_owned()).or_default().blobs.insert(digest.to_owned(), bytes);
        drop(contents);
        Ok(self.created(name, digest))
    }

    /// Takes a body piece by piece; what came before it broke off stays.
    async fn take<B>(&self, session: &Mutex<Session>, mut body: B) -> Result<(), NoAnswer>
    where
        B: HttpBody<Data = Bytes, Error: Into<NoAnswer>> + Unpin,
    {
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.map_err(Into::into)?.into_data() {
                self.meter.arrived(piece.len() as u64);
                let mut session = lock(session);
                session.hash.update(&piece);
                session.bytes.extend_from_slice(&piece);
            }
        }
        Ok(())
    }

    fn created(&self, name: &str, digest: &str) -> Response {
        let location = self.absolute(&format!("/v2/{name}/blobs/{digest}"));
        let headers = [("location", location.as_str()), ("docker-content-digest", digest)];
        with(201, &headers, Body::empty())
    }

    /// Where a session stands, and where to go on.
    fn stands(&self, name: &str, id: &str, status: u16, offset: usize) -> Response {
        let path = format!("/v2/{name}/blobs/uploads/{id}");
        let location = match self.state(id, offset) {
            Some(state) => self.absolute(&format!("{path}?_state={state}")),
            None => self.absolute(&path),
        };
        let headers = [("location", location.as_str()), ("docker-upload-uuid", id)];
        let mut answer = with(status, &headers, Body::empty());
        answer.headers_mut().insert("range", range(offset));
        answer
    }

    /// What stands in a `Location` for this offset.
    fn state(&self, id: &str, offset: usize) -> Option<String> {
        let sealed = || hex::encode(Sha256::digest(format!("{id} at {offset}")));
        self.personality.location_query.then(sealed)
    }
}

/// `Range` of a session that has so many bytes; distribution says `0-0` of an empty one.
fn range(bytes: usize) -> HeaderValue {
    let text = format!("0-{}", bytes.saturating_sub(1));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0-0"))
}

/// Reads a body and forgets it.
pub(super) async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}
