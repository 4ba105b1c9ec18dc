//! Asking for manifests and putting them (distribution-spec, "Pulling manifests" and "Pushing
//! Manifests"). A tag's PUT tells what certainly did not happen from what may have.

use std::{error::Error as StdError, fmt, time::Instant};

use colophon_domain::{Digest, Failure, Reason, Result, Retry, TagOrDigest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use oci_client::errors::OciErrorCode;
use reqwest::Response;

use crate::{
    answer::{Asked, Refusal, read_limited},
    budget::Pass,
    exchange::{Call, CallError, delays},
    manifest::{
        ACCEPTED, Descriptor, MANIFEST_LIMIT, Manifest, essence, is_manifest, served_digest,
    },
    sent::Sent,
    session::Session,
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Why a manifest's PUT did not end with a success.
#[derive(Debug)]
pub enum PutError {
    /// The registry certainly did not do it: it said so, or nothing was sent.
    NotApplied(Failure),
    /// It may have, now or a little later: the answer was lost, came too late, or was a 5xx.
    Unknown(Failure),
}

impl PutError {
    /// What went wrong, in either case.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::NotApplied(failure) | Self::Unknown(failure) => failure,
        }
    }
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplied(failure) => write!(f, "not applied: {failure}"),
            Self::Unknown(failure) => write!(f, "outcome unknown: {failure}"),
        }
    }
}

impl StdError for PutError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NotApplied(failure) | Self::Unknown(failure) => Some(failure),
        }
    }
}

impl From<CallError> for PutError {
    fn from(error: CallError) -> Self {
        if error.heard { Self::Unknown(error.failure) } else { Self::NotApplied(error.failure) }
    }
}

impl Session {
    /// What a tag or digest stands for, by HEAD, which registries count less than a GET;
    /// `None` if there is no such manifest or repository. A registry that answers HEAD without
    /// the digest, or with 404, 405 or the like, is asked by GET.
    ///
    /// # Errors
    /// `REGISTRY_*`, `RATE_LIMITED` and the like; never because of a 404.
    pub async fn head(&self, what: &TagOrDigest) -> Result<Option<Descriptor>> {
        match self.head_only(what).await? {
            Some(descriptor) => Ok(Some(descriptor)),
            None => Ok(self.manifest(what).await?.map(|manifest| manifest.descriptor())),
        }
    }

    /// The same by HEAD alone; `None` also where the answer does not suffice.
    #[tracing::instrument(level = "debug", name = "registry.manifest.check", skip_all, fields(repository = self.repository.name(), reference = what.as_str()))]
    pub(crate) async fn head_only(&self, what: &TagOrDigest) -> Result<Option<Descriptor>> {
        let _place = self.place(&self.host.limits.requests).await;
        let call = self.read_call(Method::HEAD, what, "looking for");
        let asked = call.asked.clone();
        let response = self.follow(call).await?;
        match response.status() {
            status if status.is_success() => {}
            // Whatever speaks against it, only the answer to a GET has a body that says so.
            status if status.is_client_error() => return Ok(None),
            _ => return Err(self.refusal(response, &asked).await.into_failure(&asked)),
        }
        let headers = response.headers();
        let size = text(headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let media_type = text(headers, &header::CONTENT_TYPE).map(essence);
        let (Some(digest), Some(size), Some(media_type)) =
            (content_digest(headers), size, media_type.filter(|kind| is_manifest(kind)))
        else {
            return Ok(None);
        };
        match what {
            TagOrDigest::Digest(wanted) if *wanted != digest => Err(asked
                .failure(Reason::DigestMismatch, &format!("the registry answers with {digest}"))),
            _ => Ok(Some(Descriptor { digest, size, media_type })),
        }
    }

    /// The manifest, with its digest verified; `None` if there is no such manifest or
    /// repository.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH`, `TOO_LARGE` above 4 MiB, `UNSUPPORTED_MANIFEST`, and whatever keeps
    /// the registry from answering.
    #[tracing::instrument(level = "debug", name = "registry.manifest.download", skip_all, fields(repository = self.repository.name(), reference = what.as_str()))]
    pub async fn manifest(&self, what: &TagOrDigest) -> Result<Option<Manifest>> {
        let _place = self.place(&self.host.limits.requests).await;
        let call = self.read_call(Method::GET, what, "reading");
        let asked = call.asked.clone();
        let response = self.follow(call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if status.is_success() => {}
            _ => return Err(self.refusal(response, &asked).await.into_failure(&asked)),
        }
        let sent = response.extensions().get::<Sent>().cloned().unwrap_or_default();
        let said = content_digest(response.headers());
        let declared = text(response.headers(), &header::CONTENT_TYPE).map(str::to_owned);
        let timeout = self.host.config.request_timeout;
        let bytes = read_limited(response, MANIFEST_LIMIT, timeout, &asked).await?;
        let wanted = match what {
            TagOrDigest::Digest(digest) => Some(digest),
            TagOrDigest::Tag(_) => None,
        };
        served_digest(&bytes, wanted, said.as_ref())
            .and_then(|digest| Manifest::read(bytes, declared.as_deref(), digest))
            .map(Some)
            .map_err(|(reason, text)| {
                let text = if sent.is_in(&text) { "repeats a secret" } else { &text };
                asked.failure(reason, &format!("the manifest {text}"))
            })
    }

    /// Puts exactly the manifest's bytes under a tag or its digest. Nothing is sent after the
    /// deadline, and no answer is waited for.
    ///
    /// # Errors
    /// [`PutError::NotApplied`] after a 4xx or when nothing was sent: `CONTENT_MISSING` if the
    /// registry lacks a blob or child, `TAG_IMMUTABLE` if it does not let the tag move.
    /// [`PutError::Unknown`] after a 5xx, a lost connection or no answer in time.
    pub async fn put_manifest(
        &self,
        what: &TagOrDigest,
        manifest: &Manifest,
        deadline: Option<Instant>,
    ) -> Result<(), PutError> {
        self.put(what, manifest, deadline, None).await
    }

    /// The same with a [`Pass`] that was waited for before: the time until the deadline is the
    /// registry's alone.
    ///
    /// # Errors
    /// As [`Session::put_manifest`].
    pub async fn put_manifest_with(
        &self,
        pass: Pass,
        what: &TagOrDigest,
        manifest: &Manifest,
        deadline: Instant,
    ) -> Result<(), PutError> {
        self.put(what, manifest, Some(deadline), Some(pass)).await
    }

    /// Puts a manifest under its digest; unlike a tag's PUT it may simply be sent again, and is.
    pub(crate) async fn put_by_digest(&self, manifest: &Manifest) -> Result<()> {
        let what = TagOrDigest::Digest(manifest.digest.clone());
        let mut delays = delays();
        loop {
            let failure = match self.put_manifest(&what, manifest, None).await {
                Ok(()) => return Ok(()),
                Err(PutError::NotApplied(failure)) => return Err(failure),
                Err(PutError::Unknown(failure)) => failure,
            };
            let again = failure.retry_class() == Retry::Backoff;
            match delays.next().filter(|_| again) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure),
            }
        }
    }

    /// Puts the bytes of a manifest that a client sends under the digest that they must have. What it
    /// names must be there; the registry sees to that.
    ///
    /// # Errors
    /// `TOO_LARGE` above 4 MiB, `DIGEST_MISMATCH`, `UNSUPPORTED_MANIFEST` for what is not of the media
    /// type or of none that is understood, and whatever the registry refuses.
    pub async fn put_content(
        &self,
        digest: &Digest,
        media_type: &str,
        content: bytes::Bytes,
    ) -> Result<()> {
        if content.len() > MANIFEST_LIMIT {
            let text = format!("the manifest {digest} is larger than {MANIFEST_LIMIT} bytes");
            return Err(Failure::new(Reason::TooLarge, text).field("content"));
        }
        if !digest.matches(&content) {
            let text = format!("the content of the manifest has another digest than {digest}");
            return Err(Failure::new(Reason::DigestMismatch, text).field("content"));
        }
        let unsupported = |reason, text: &str| {
            Failure::new(reason, format!("the manifest {digest} {text}")).field("content")
        };
        let manifest = Manifest::read(content, Some(media_type), digest.clone())
            .map_err(|(reason, text)| unsupported(reason, &text))?;
        if manifest.media_type != essence(media_type) {
            let text = "is not what its media type says";
            return Err(unsupported(Reason::UnsupportedManifest, text).field("media_type"));
        }
        self.put_by_digest(&manifest).await
    }

    #[tracing::instrument(level = "debug", name = "registry.manifest.upload", skip_all, fields(repository = self.repository.name(), reference = what.as_str(), digest = %manifest.digest))]
    async fn put(
        &self,
        what: &TagOrDigest,
        manifest: &Manifest,
        deadline: Option<Instant>,
        pass: Option<Pass>,
    ) -> Result<(), PutError> {
        let url = self.url(&format!("manifests/{what}"));
        let mut call =
            Call::writing(self, Method::PUT, url, format!("putting the manifest {what}"));
        let kind = HeaderValue::from_str(&manifest.media_type).map_err(|_| {
            PutError::NotApplied(call.asked.failure(Reason::Internal, "odd media type"))
        })?;
        call.headers.insert(header::CONTENT_TYPE, kind);
        call.body = manifest.bytes.clone();
        call.deadline = deadline.map(tokio::time::Instant::from_std);
        call.pass = pass;
        let place = self.place_by(call.deadline, &call.asked).await;
        let _place = place.map_err(PutError::NotApplied)?;
        let response = self.call(&call).await?;
        if !response.status().is_success() {
            let refusal = self.refusal(response, &call.asked).await;
            return Err(PutError::NotApplied(put_refused(refusal, what, &call.asked)));
        }
        match content_digest(response.headers()) {
            Some(stored) if stored != manifest.digest => {
                Err(PutError::Unknown(call.asked.failure(
                    Reason::DigestMismatch,
                    &format!("the registry stored {stored} in place of {}", manifest.digest),
                )))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn read_call<'a>(
        &'a self,
        method: Method,
        what: &TagOrDigest,
        verb: &str,
    ) -> Call<'a> {
        let url = self.url(&format!("manifests/{what}"));
        let mut call = Call::reading(self, method, url, format!("{verb} the manifest {what}"));
        for kind in ACCEPTED {
            call.headers.append(header::ACCEPT, HeaderValue::from_static(kind));
        }
        call
    }
}

fn put_refused(refusal: Refusal, what: &TagOrDigest, asked: &Asked<'_>) -> Failure {
    let missing = [
        OciErrorCode::ManifestBlobUnknown,
        OciErrorCode::BlobUnknown,
        OciErrorCode::ManifestUnknown,
    ];
    if missing.iter().any(|code| refusal.has(code)) {
        return asked
            .failure(Reason::ContentMissing, &refusal.words())
            .retry(Retry::Backoff)
            .remedy("nothing; the content is copied again");
    }
    if matches!(what, TagOrDigest::Tag(_)) && refusal.says_immutable() {
        return refusal.immutable(asked);
    }
    refusal.into_failure(asked)
}

/// `Docker-Content-Digest`, if it is a digest.
pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, &CONTENT_DIGEST)?.parse().ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The bytes of a range that an answer begins with (RFC 9110, section 14.4).
pub(crate) fn range_start(response: &Response) -> Option<u64> {
    let range = text(response.headers(), &header::CONTENT_RANGE)?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
