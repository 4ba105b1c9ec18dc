//! What can be read: blobs with ranges, here or at the storage, manifests, tags in pages, and
//! the referrers of a manifest.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::scripted::{
    Shared, lock,
    request::{JSON, Response, Seen, error, status, with},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TEXT: &str = "text/plain; charset=utf-8";
/// A blob is handed out in pieces of this size.
const PIECE: usize = 64 << 10;

/// What is said where a repository is not known.
pub(super) fn name_unknown(name: &str) -> Response {
    let text = format!("The repository with name '{name}' does not exist in the registry");
    error(404, "NAME_UNKNOWN", &text)
}

/// How many manifests may still be read.
enum Allowance {
    Uncounted,
    Left { of: u32, left: u32 },
    Spent,
}

impl Shared {
    pub(super) fn blob(self: &Arc<Self>, seen: &Seen, name: &str, digest: &str) -> Response {
        let found = self.contents().get(name).and_then(|known| known.blobs.get(digest).cloned());
        let Some(bytes) = found else {
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        if seen.method == Method::DELETE {
            return status(405);
        }
        if self.personality.redirects && seen.method == Method::GET {
            let location = format!("{}/{name}/{digest}?sig=signed", self.storage_url());
            return with(307, &[("location", &location)], Body::empty());
        }
        self.content(seen, digest, &bytes)
    }

    /// The storage that downloads are redirected to: it is shown a signature and nothing else.
    pub(super) fn stored(self: &Arc<Self>, seen: &Seen) -> Response {
        if !seen.authorization().is_empty() {
            return error(400, "InvalidArgument", "Only one auth mechanism allowed");
        }
        let path = seen.path.trim_start_matches('/');
        let found = path.rsplit_once('/').and_then(|(name, digest)| {
            let bytes = self.contents().get(name)?.blobs.get(digest).cloned()?;
            Some((digest.to_owned(), bytes))
        });
        match found {
            Some((digest, bytes)) if seen.query("sig") == ["signed"] => {
                self.content(seen, &digest, &bytes)
            }
            _ => status(403),
        }
    }

    /// A blob's bytes, or those of the range that is asked for.
    fn content(self: &Arc<Self>, seen: &Seen, digest: &str, bytes: &Bytes) -> Response {
        let asked = seen.header("range").strip_prefix("bytes=").filter(|_| self.personality.ranges);
        let bounds = asked.and_then(|asked| bounds(asked, bytes.len()));
        let (code, part) = match (asked, &bounds) {
            (Some(_), None) => {
                let range = format!("bytes */{}", bytes.len());
                let headers = [("content-range", range.as_str()), ("content-type", TEXT)];
                let mut answer = with(416, &headers, "invalid range: failed to overlap\n");
                if let Ok(value) = HeaderValue::from_str(digest) {
                    answer.headers_mut().insert("docker-content-digest", value);
                }
                return answer;
            }
            (_, Some((start, end))) => (206, bytes.slice(*start..*end)),
            (None, None) => (200, bytes.clone()),
        };
        let length = part.len().to_string();
        let kind = "application/octet-stream";
        let headers = [
            ("content-length", length.as_str()),
            ("content-type", kind),
            ("docker-content-digest", digest),
        ];
        let body =
            if seen.method == Method::HEAD { Body::empty() } else { self.pieces(digest, part) };
        let mut answer = with(code, &headers, body);
        if let Some((start, end)) = bounds {
            let range = format!("bytes {start}-{}/{}", end.saturating_sub(1), bytes.len());
            if let Ok(value) = HeaderValue::from_str(&range) {
                answer.headers_mut().insert("content-range", value);
            }
        }
        answer
    }

    fn pieces(self: &Arc<Self>, digest: &str, bytes: Bytes) -> Body {
        let start = (Arc::clone(self), digest.to_owned(), bytes);
        Body::from_stream(stream::unfold(start, |(shared, digest, mut rest)| async move {
            let piece = rest.split_to(PIECE.min(rest.len()));
            if piece.is_empty() {
                return None;
            }
            shared.meter.sent(&digest, piece.len() as u64);
            Some((Ok::<_, std::convert::Infallible>(piece), (shared, digest, rest)))
        }))
    }

    pub(super) fn manifest(&self, seen: &Seen, name: &str, reference: &str) -> Response {
        let allowance = self.allowance(seen);
        if matches!(allowance, Allowance::Spent) {
            let text = "You have reached your pull rate limit.";
            return error(429, "TOOMANYREQUESTS", text);
        }
        let contents = self.contents();
        let found = contents.get(name).and_then(|repository| {
            let digest = repository.resolve(reference)?;
            Some((digest, repository.manifests.get(digest)?))
        });
        let Some((digest, stored)) = found else {
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let length = stored.bytes.len().to_string();
        let headers = [
            ("content-length", length.as_str()),
            ("content-type", stored.media_type.as_str()),
            ("docker-content-digest", digest),
        ];
        let body = if seen.method == Method::HEAD { Bytes::new() } else { stored.bytes.clone() };
        let mut answer = with(200, &headers, body);
        if let Allowance::Left { of, left } = allowance {
            for (header, number) in [("ratelimit-limit", of), ("ratelimit-remaining", left)] {
                if let Ok(value) = HeaderValue::from_str(&format!("{number};w=21600")) {
                    answer.headers_mut().insert(header, value);
                }
            }
        }
        answer
    }

    /// What is left of the allowance of manifests after this request. A HEAD is never counted.
    fn allowance(&self, seen: &Seen) -> Allowance {
        let Some(of) = self.personality.pulls else { return Allowance::Uncounted };
        let mut pulled = lock(&self.pulled);
        if seen.method == Method::GET {
            if *pulled >= of {
                return Allowance::Spent;
            }
            *pulled += 1;
        }
        Allowance::Left { of, left: of - *pulled }
    }

    /// The tags behind `last`, at most `n` of them, with a `Link` if there are more.
    pub(super) fn tags(&self, seen: &Seen, name: &str) -> Response {
        let contents = self.contents();
        let Some(repository) = contents.get(name) else { return name_unknown(name) };
        let asked = seen.query("n").pop().and_then(|number| number.parse::<usize>().ok());
        let most = self.personality.most_tags;
        if self.personality.refuses_larger_pages && asked.is_some_and(|asked| asked > most) {
            let text = format!(
                "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must \
                 have value less than or equal to {most}'"
            );
            return error(400, "UNSUPPORTED", &text);
        }
        let last = seen.query("last").pop().filter(|_| self.personality.pages);
        let last = last.unwrap_or_default();
        let size =
            if self.personality.pages { asked.unwrap_or(most).min(most) } else { usize::MAX };
        let mut tags = repository.tags.keys().filter(|tag| **tag > last);
        let page: Vec<&String> = tags.by_ref().take(size).collect();
        let body = json!({ "name": name, "tags": page }).to_string();
        let more = page.last().filter(|_| tags.next().is_some());
        let link = more.map(|last| {
            let path = format!("/v2/{name}/tags/list?last={last}&n={}", asked.unwrap_or(size));
            format!("<{}>; rel=\"next\"", self.absolute(&path))
        });
        listed(JSON, body, link)
    }

    /// The referrers of a manifest, of one type if that is asked for, in pages.
    pub(super) fn referrers(&self, seen: &Seen, name: &str, subject: &str) -> Response {
        let Some(most) = self.personality.referrers else {
            return with(404, &[("content-type", TEXT)], "404 page not found\n");
        };
        let contents = self.contents();
        let mut found =
            contents.get(name).map(|known| known.referrers(subject)).unwrap_or_default();
        let wanted = seen.query("artifactType").pop();
        let is = |referrer: &Value| {
            referrer.get("artifactType").and_then(Value::as_str) == wanted.as_deref()
        };
        if wanted.is_some() {
            found.retain(is);
        }
        let page: usize = seen.query("page").pop().and_then(|page| page.parse().ok()).unwrap_or(0);
        let more = found.len() > (page + 1) * most;
        let shown: Vec<Value> = found.into_iter().skip(page * most).take(most).collect();
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": shown });
        let kind = wanted.as_ref().map(|kind| format!("&artifactType={kind}")).unwrap_or_default();
        let path = format!("/v2/{name}/referrers/{subject}?page={}{kind}", page + 1);
        let link = more.then(|| format!("<{}>; rel=\"next\"", self.absolute(&path)));
        let mut answer = listed(INDEX, body.to_string(), link);
        if wanted.is_some() {
            let value = HeaderValue::from_static("artifactType");
            answer.headers_mut().insert("oci-filters-applied", value);
        }
        answer
    }
}

fn listed(kind: &str, body: String, link: Option<String>) -> Response {
    let mut answer = with(200, &[("content-type", kind)], body);
    if let Some(Ok(link)) = link.map(|link| HeaderValue::from_str(&link)) {
        answer.headers_mut().insert("link", link);
    }
    answer
}

/// The bytes of a range `N-` or `N-M`, with an open end.
fn bounds(asked: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = asked.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = if end.is_empty() { length } else { end.parse::<usize>().ok()? + 1 };
    (start < length && start < end).then_some((start, end.min(length)))
}
