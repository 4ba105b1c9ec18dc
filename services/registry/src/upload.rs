//! The upload of a blob as the registry keeps it (distribution-spec, "Pushing blobs"): begun by a
//! POST, which may find the blob in another repository of the registry; asked where it stands when
//! a request broke off; cancelled if it does not come to its end, unless another worker is to go on
//! with it.

use std::time::Duration;

use colophon_domain::{Failure, Repository, Result, Retry, Urgency};
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    exchange::Call,
    manifest::Descriptor,
    pieces::{Stands, said, stands},
    session::Session,
};

/// For cancelling an upload, which nobody waits for.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an upload is cancelled that stands elsewhere by then, and how long it may move meanwhile.
const CANCELLATIONS: u32 = 4;
const SETTLES: Duration = Duration::from_millis(200);
/// The least bytes of a chunk that is not the last (distribution-spec, "Pushing a blob in chunks").
const LEAST_CHUNK: &str = "oci-chunk-min-length";

/// How an upload begins.
pub(crate) enum Begun {
    /// The registry had the blob in another repository.
    Mounted,
    /// The upload can go on.
    Started(Box<Upload>),
}

/// An upload that the registry waits for; cancelled when dropped.
#[expect(clippy::struct_excessive_bools, reason = "each is known by itself")]
pub(crate) struct Upload {
    pub(crate) session: Session,
    pub(crate) location: Url,
    /// Bytes that the registry has confirmed.
    pub(crate) offset: u64,
    /// Whether it stands there, and not somewhere beyond in a request that broke off.
    pub(crate) sure: bool,
    /// The least bytes of a chunk.
    pub(crate) least: u64,
    /// Where the registry has just refused to go on.
    pub(crate) refused: Option<u64>,
    /// It takes no chunks, or none of our size.
    pub(crate) whole: bool,
    /// What was asked of it last failed, and not for want of bytes.
    pub(crate) at_fault: bool,
    /// All of its last request was taken, and no answer came: the blob may be there.
    pub(crate) put_unanswered: bool,
    /// The registry knows it no more, or it is complete.
    pub(crate) ended: bool,
    /// It was written down for another worker to go on with, and stays unless this is cancelled.
    pub(crate) kept: Option<CancellationToken>,
}

impl Session {
    /// Begins an upload.
    pub(crate) async fn begin(&self) -> Result<Upload> {
        let call =
            Call::writing(self, Method::POST, self.url("blobs/uploads/"), "starting an upload");
        match self.begin_upload(call).await? {
            Begun::Started(upload) => Ok(*upload),
            Begun::Mounted => Err(self
                .asked("starting an upload", true)
                .protocol("the registry says 201 to an upload without content")),
        }
    }

    /// Begins an upload by asking the registry to take the blob from another repository of its
    /// own. Whatever speaks against that (the permission to read there, a registry that cannot)
    /// is no failure: `None`, and the blob is sent.
    #[tracing::instrument(level = "debug", name = "registry.blob.mount", skip_all, fields(digest = %blob.digest, from = from.name()))]
    pub(crate) async fn mount(&self, blob: &Descriptor, from: &Repository) -> Option<Begun> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut()
            .append_pair("mount", blob.digest.as_str())
            .append_pair("from", from.name());
        let mut call = Call::writing(self, Method::POST, url, "mounting a blob");
        call.scopes = call.scopes.and_pull(from.name());
        call.renew = false;
        match self.begin_upload(call).await {
            Ok(begun) => Some(begun),
            Err(failure) => {
                tracing::debug!(
                    repository = %self.repository, digest = %blob.digest, %failure,
                    "not mounted, sent instead"
                );
                None
            }
        }
    }

    pub(crate) async fn begin_upload(&self, call: Call<'_>) -> Result<Begun> {
        let _place = self.place(&self.host.limits.requests).await;
        let response = self.call(&call).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Begun::Mounted),
            status if status.is_success() => {
                let location = self.host.location(&call.url, &response, &call.asked)?;
                let mut upload = Upload::at(self, location, 0);
                (upload.least, upload.sure) = (least(response.headers()), true);
                Ok(Begun::Started(Box::new(upload)))
            }
            _ => Err(self.refusal(response, &call.asked).await.into_failure(&call.asked)),
        }
    }
}

fn least(headers: &HeaderMap) -> u64 {
    let text = headers.get(LEAST_CHUNK).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

impl Upload {
    /// An upload that has confirmed so many bytes, and may have more.
    pub(crate) fn at(session: &Session, location: Url, offset: u64) -> Self {
        Self {
            session: session.clone(),
            location,
            offset,
            sure: false,
            least: 0,
            refused: None,
            whole: false,
            at_fault: false,
            put_unanswered: false,
            ended: false,
            kept: None,
        }
    }

    /// Asks where it stands (distribution-spec, "Pushing a blob in chunks"), if that is not known.
    /// False for one that the registry knows no more, or will say nothing about.
    ///
    /// # Errors
    /// Failures that pass.
    #[tracing::instrument(level = "debug", name = "registry.blob.upload.ask", skip_all, fields(repository = self.session.repository.name()))]
    pub(crate) async fn find(&mut self, size: u64) -> Result<bool> {
        if self.sure {
            return Ok(true);
        }
        let session = self.session.clone();
        let what = "asking where an upload stands";
        let call = Call::reading(&session, Method::GET, self.location.clone(), what);
        self.at_fault = true;
        let response = match send(&session, &call).await {
            Ok(response) if response.status().is_success() => response,
            Err(failure) if failure.retry_class() != Retry::Never => return Err(failure),
            Ok(response) => {
                self.ended = matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE);
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        if response.headers().contains_key(header::LOCATION) {
            self.location = session.host.location(&call.url, &response, &call.asked)?;
        }
        let said = said(response.headers());
        tracing::debug!(confirmed = self.offset, said, "an upload is gone on with");
        self.offset = match stands(size, self.offset, said, self.refused.take()) {
            Stands::Lost => return Ok(false),
            Stands::At(offset) => offset,
            Stands::Whole(offset) => {
                self.whole = true;
                offset
            }
        };
        (self.sure, self.at_fault) = (true, false);
        Ok(true)
    }

    /// Tells the registry that nothing more will come, as far as it wants to hear it.
    pub(crate) async fn cancel(mut self) {
        if !self.ended {
            delete_quietly(&self.session, &self.location).await;
        }
        // Not before: whoever is broken off meanwhile leaves it to `drop`.
        self.ended = true;
    }
}

impl Upload {
    /// Cancels it where it stands, which is asked first if that is not known: where it stood before a
    /// request broke off may be good no more.
    ///
    /// # Errors
    /// Failures that pass.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.kept = None;
        for _ in 0..CANCELLATIONS {
            if !self.find(u64::MAX).await? && self.ended {
                return Ok(());
            }
            if delete(&self.session, &self.location).await? {
                break;
            }
            // What broke off may have come to the registry after the question.
            self.sure = false;
            tokio::time::sleep(SETTLES).await;
        }
        self.ended = true;
        Ok(())
    }

    /// The same for one that is in somebody's way: not for long, and whatever comes of it.
    pub(crate) async fn end_soon(self) {
        match tokio::time::timeout(CANCEL_TIMEOUT, self.end()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => tracing::debug!(%failure, "an upload could not be cancelled"),
            Err(_) => tracing::debug!("an upload could not be cancelled in time"),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let kept = self.kept.as_ref().is_some_and(|cancelled| !cancelled.is_cancelled());
        if self.ended || kept {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, location) = (self.session.clone(), self.location.clone());
            runtime.spawn(async move { delete_quietly(&session, &location).await });
        }
    }
}

async fn delete_quietly(session: &Session, location: &Url) {
    if let Err(failure) = delete(session, location).await {
        tracing::debug!(%failure, "an upload could not be cancelled");
    }
}

/// Tells the registry that nothing more will come; false if the upload does not stand there. One that
/// does not want to hear it is done with.
async fn delete(session: &Session, location: &Url) -> Result<bool> {
    // Before what begins anew: it has little time.
    let session = &session.urgent(Urgency::Normal.max(session.urgency));
    let mut call = Call::writing(session, Method::DELETE, location.clone(), "cancelling an upload");
    call.renew = false;
    call.deadline = Some(Instant::now() + CANCEL_TIMEOUT);
    let response = send(session, &call).await?;
    if response.status().is_server_error() {
        let text = format!("HTTP {}", response.status().as_u16());
        return Err(call.asked.unavailable(&text));
    }
    let elsewhere = matches!(
        response.status(),
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::RANGE_NOT_SATISFIABLE
    );
    Ok(!elsewhere)
}

/// Sends a request to where an upload is, which may be another host.
async fn send(session: &Session, call: &Call<'_>) -> Result<Response> {
    let _place = session.place_by(call.deadline, &call.asked).await?;
    if session.host.is_own(&call.url) {
        session.call(call).await.map_err(Failure::from)
    } else {
        session.call_anonymously(call).await
    }
}
