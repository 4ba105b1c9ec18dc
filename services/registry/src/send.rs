//! One request of an upload: a PATCH with a chunk, or the PUT with the last of the bytes or all of
//! them (distribution-spec, "Pushing a blob monolithically" and "in chunks"). Its body is streamed,
//! and so can be sent once only; what became of a request that broke off is asked before the next.

use std::sync::Arc;

use colophon_domain::{Reason, Result, Retry};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Body, Response};

use crate::{
    answer::Asked,
    auth::Turn,
    body::{Feed, Flow},
    copy::Progress,
    host,
    manifest::Descriptor,
    manifests::content_digest,
    pieces::Grid,
    request::Line,
    transport,
    upload::Upload,
};

/// The bytes of one request.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    end: u64,
    size: u64,
}

impl Span {
    fn length(self) -> u64 {
        self.end - self.from
    }

    /// Whether the blob ends with it.
    fn is_last(self) -> bool {
        self.end == self.size
    }

    /// `Content-Range`, whose end is inclusive; a blob in one request has none, and neither have no
    /// bytes at all.
    fn range(self) -> Option<String> {
        let some = self.length() > 0 && self.length() < self.size;
        some.then(|| format!("{}-{}", self.from, self.end - 1))
    }
}

impl Upload {
    /// Sends the bytes that come next; true when the blob is complete.
    pub(crate) async fn advance(
        &mut self,
        blob: &Descriptor,
        (grid, whole): (Grid, bool),
        feed: &Feed,
        progress: &Arc<dyn Progress>,
    ) -> Result<bool> {
        let (from, size) = (self.offset, grid.size);
        let end = if whole { size } else { grid.end(from, self.least) };
        let span = Span { from, end, size };
        self.at_fault = false;
        feed.skip_to(from, size).await?;
        // Until the answer is here nobody knows how much has arrived.
        self.sure = false;
        let flow = Arc::new(Flow::new(blob, span.length(), Arc::clone(progress)));
        let sent = self.request(blob, span, feed, &flow).await;
        self.put_unanswered = span.is_last() && flow.left() == 0;
        sent.map_err(|failure| {
            let source = feed.failed();
            self.at_fault = source.is_none();
            source.unwrap_or(failure)
        })?;
        Ok(span.is_last())
    }

    async fn request(
        &mut self,
        blob: &Descriptor,
        span: Span,
        feed: &Feed,
        flow: &Arc<Flow>,
    ) -> Result<()> {
        let session = self.session.clone();
        let asked = session.asked(format!("sending the blob {}", blob.digest), true);
        let (method, mut url) =
            (if span.is_last() { Method::PUT } else { Method::PATCH }, self.location.clone());
        if span.is_last() {
            url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        }
        let mut turn = Turn::new(&session, session.scopes(), true);
        let own = session.host.is_own(&url);
        let authorization = if own { turn.header(&asked).await? } else { None };
        let pass = if own { Some(session.ready().await?) } else { None };
        let place = host::place(&url);
        let body = match span.length() {
            0 => Body::from(""),
            _ => Body::wrap_stream(feed.up_to(span.end, flow)),
        };
        let mut request = session
            .host
            .client_for(&url, &asked)?
            .request(method.clone(), url.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(header::CONTENT_LENGTH, span.length())
            .body(body);
        if let Some(range) = span.range() {
            request = request.header(header::CONTENT_RANGE, range);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let (host, repository) = (&*session.host, session.repository.name());
        let line = Line { host, method: &method, url: &url, repository, attempt: 1 };
        let sent = async {
            tokio::select! {
                sent = request.send() => sent.map_err(|error| transport::explain(error, &asked)),
                failure = flow.watch(&host.config, &asked) => Err(failure),
            }
        };
        let mut response = line.send(sent).await?;
        if let Some(pass) = pass {
            session.answered(pass, &response);
            response.extensions_mut().insert(turn.sent());
        } else if !response.status().is_success() {
            // Whatever another host says of authorization or pauses is not the registry's word.
            let status = response.status();
            self.ended = status.is_client_error();
            let what = if self.ended { "the upload was forgotten: " } else { "" };
            let text = format!("{what}HTTP {} from {place}", status.as_u16());
            return Err(asked.unavailable(&text));
        }
        if !response.status().is_success() {
            return self.refused(response, span, &mut turn, &asked).await;
        }
        if span.is_last() {
            return self.completed(&response, blob, &asked);
        }
        if flow.left() > 0 {
            return Err(asked.unavailable("the registry answered before it had all of the chunk"));
        }
        if response.headers().contains_key(header::LOCATION) {
            self.location = session.host.location(&url, &response, &asked)?;
        }
        // The `Range` of the answer is not looked at: some registries' stays at the first chunk.
        (self.offset, self.sure) = (span.end, true);
        Ok(())
    }

    fn completed(
        &mut self,
        response: &Response,
        blob: &Descriptor,
        asked: &Asked<'_>,
    ) -> Result<()> {
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT => {
                match content_digest(response.headers()) {
                    Some(stored) if stored != blob.digest => Err(asked
                        .failure(Reason::DigestMismatch, &format!("the registry stored {stored}"))),
                    _ => {
                        self.ended = true;
                        Ok(())
                    }
                }
            }
            status => {
                Err(asked.protocol(&format!("HTTP {} does not complete it", status.as_u16())))
            }
        }
    }

    async fn refused(
        &mut self,
        response: Response,
        span: Span,
        turn: &mut Turn<'_>,
        asked: &Asked<'_>,
    ) -> Result<()> {
        let session = self.session.clone();
        match response.status() {
            // The body is gone, so it cannot be sent again here; but the next attempt finds a
            // fresh token or a newer credential.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                turn.refused(response, asked).await?;
                Err(asked.unavailable("the token was no longer accepted"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let pause = session.host.limits.budget.pause_left();
                Err(asked.failure(Reason::RateLimited, "HTTP 429").retry(Retry::Wait(pause)))
            }
            // The upload was lost or collected; a new one may do.
            StatusCode::NOT_FOUND => {
                self.ended = true;
                Err(asked.unavailable("the registry forgot the upload"))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if span.length() < span.size => {
                self.refused = Some(span.from);
                Err(asked.unavailable("the registry wants other bytes"))
            }
            // Conflicts and timeouts say nothing about chunks.
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY
                if !span.is_last() =>
            {
                Err(asked.unavailable(&format!("HTTP {} to a chunk", response.status().as_u16())))
            }
            status if !span.is_last() && self.offset == 0 && status.is_client_error() => {
                self.whole = true;
                Err(asked.unavailable(&format!("HTTP {} to a chunk", status.as_u16())))
            }
            _ => {
                let failure = session.refusal(response, asked).await.into_failure(asked);
                // It may be this upload, which another one would not have.
                let final_word = failure.retry_class() == Retry::Never
                    && (self.offset == 0 || failure.reason() == Reason::DigestMismatch);
                if final_word || failure.retry_class() != Retry::Never {
                    return Err(failure);
                }
                Err(asked.unavailable(&format!("the upload is not gone on with: {failure}")))
            }
        }
    }
}
