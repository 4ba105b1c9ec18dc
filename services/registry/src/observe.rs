//! What a tag points to, whatever that is: its digest alone, without the content being
//! understood. Somebody else may have put a manifest there that we could not copy.

use std::time::Instant;

use bytes::Bytes;
use colophon_domain::{Algorithm, Digest, Reason, Result, TagOrDigest, Urgency};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;

use crate::{
    answer::Asked, budget::Pass, exchange::Call, hash::Hash, manifests::content_digest,
    session::Session, transport,
};

/// Bytes that are hashed, in pieces, where a registry does not say the digest.
const OBSERVED_LIMIT: usize = 64 << 20;

impl Session {
    /// The digest that a tag points to, or that exists, of whatever media type; `None` if there
    /// is nothing. By HEAD if its answer says so, or else of the bytes that a GET brings.
    ///
    /// # Errors
    /// `REGISTRY_*`, `RATE_LIMITED` and the like; never because of a 404 or of the content's
    /// kind. `TOO_LARGE` above 64 MiB.
    pub async fn observe(&self, what: &TagOrDigest) -> Result<Option<Digest>> {
        Ok(self.look(what).await?.0)
    }

    /// The same, and when the registry was asked, at the earliest: waiting for a place, or for the
    /// registry's budget, makes no answer older.
    ///
    /// # Errors
    /// As [`Session::observe`].
    #[tracing::instrument(level = "debug", name = "registry.tag.observe", skip_all, fields(repository = self.repository.name(), reference = what.as_str()))]
    pub async fn look(&self, what: &TagOrDigest) -> Result<(Option<Digest>, Instant)> {
        let _place = self.place(&self.host.limits.requests).await;
        let pass = self.ready().await?;
        self.observed(what, pass).await
    }

    async fn observed(&self, what: &TagOrDigest, pass: Pass) -> Result<(Option<Digest>, Instant)> {
        let begun = Instant::now();
        let mut call = self.anything(Method::HEAD, what);
        call.pass = Some(pass);
        let asked = call.asked.clone();
        let response = self.follow(call).await?;
        match (response.status(), content_digest(response.headers())) {
            (status, Some(digest)) if status.is_success() => {
                return match what {
                    TagOrDigest::Digest(wanted) if *wanted != digest => Err(asked.failure(
                        Reason::DigestMismatch,
                        &format!("the registry answers with {digest}"),
                    )),
                    _ => Ok((Some(digest), begun)),
                };
            }
            // Whatever speaks against it, only the answer to a GET has a body that says so.
            (status, _) if status.is_success() || status.is_client_error() => {}
            _ => return Err(self.refusal(response, &asked).await.into_failure(&asked)),
        }
        // Nobody's look is to grow old for want of its second half.
        let pass = self.clone().urgent(Urgency::Urgent).ready().await?;
        let begun = Instant::now();
        let mut call = self.anything(Method::GET, what);
        call.pass = Some(pass);
        let response = self.follow(call).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok((None, begun)),
            status if status.is_success() => {
                let timeout = self.host.config.request_timeout;
                tokio::time::timeout(timeout, digest_of(response, what, &asked))
                    .await
                    .unwrap_or_else(|_| Err(asked.unavailable("the answer took too long")))
                    .map(|digest| (Some(digest), begun))
            }
            _ => Err(self.refusal(response, &asked).await.into_failure(&asked)),
        }
    }

    fn anything<'a>(&'a self, method: Method, what: &TagOrDigest) -> Call<'a> {
        let mut call = self.read_call(method, what, "looking for");
        call.headers.append(header::ACCEPT, HeaderValue::from_static("*/*"));
        call
    }
}

async fn digest_of(
    mut response: Response,
    what: &TagOrDigest,
    asked: &Asked<'_>,
) -> Result<Digest> {
    let algorithm = match what {
        TagOrDigest::Digest(digest) => digest.algorithm(),
        TagOrDigest::Tag(_) => content_digest(response.headers())
            .map_or(Algorithm::Sha256, |digest| digest.algorithm()),
    };
    let (mut hash, mut length) = (Hash::new(algorithm), 0);
    loop {
        let piece: Option<Bytes> =
            response.chunk().await.map_err(|error| transport::explain(error, asked))?;
        let Some(piece) = piece else { break };
        length += piece.len();
        if length > OBSERVED_LIMIT {
            let text = format!("the answer is larger than {OBSERVED_LIMIT} bytes");
            return Err(asked.failure(Reason::TooLarge, &text));
        }
        hash.update(&piece);
    }
    let digest = format!("{}:{}", algorithm.as_str(), hash.hex()).parse::<Digest>();
    let digest = digest.map_err(|error| {
        asked.failure(Reason::Internal, "the digest cannot be written").caused_by(error)
    })?;
    match what {
        TagOrDigest::Digest(wanted) if *wanted != digest => {
            Err(asked
                .failure(Reason::DigestMismatch, &format!("the registry serves {digest} instead")))
        }
        _ => Ok(digest),
    }
}
