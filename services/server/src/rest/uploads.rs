//! Uploads on the REST face. A blob is the body as it is, of any length, and passed on while it
//! comes.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, BodyDataStream},
    extract::{Path, RawQuery, State, rejection::PathRejection},
    routing::{get, post, put},
};
use colophon_api::v1;
use colophon_domain::{Failure, Reason, Result};
use futures_util::{StreamExt as _, stream};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::oneshot;

use super::{
    Answered, keyless,
    message::{Answer, DRAIN_LIMIT_BYTES, Large, Message, announced},
    one_id, path_id,
    query::Query,
};
use crate::{
    calls::Calls,
    content::{self, Pieces},
    guard::Caller,
    health::Stopping,
    refusal::Refusal,
};

/// For so long what is left of a refused blob is read and thrown away.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The routes whose calls have the usual time.
pub(super) fn routes() -> Router<Arc<Calls>> {
    Router::new()
        .route("/v1/uploads", post(start_upload))
        .route("/v1/uploads/{id}", get(get_upload))
        .route("/v1/uploads/{id}/find-blobs", post(find_blobs))
        .route("/v1/uploads/{id}/manifests", post(put_manifest))
        .route("/v1/uploads/{id}/abandon", post(abandon_upload))
}

/// The route whose calls take as long as their clients send.
pub(crate) fn blobs(calls: Arc<Calls>) -> Router {
    Router::new().route("/v1/uploads/{id}/blobs/{digest}", put(put_blob)).with_state(calls)
}

async fn start_upload(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(request): Message<v1::StartUploadRequest>,
) -> Answered<v1::Upload> {
    Query::parse(query.as_deref()).finish()?;
    keyless(&headers)?;
    Ok(Answer(calls.start_upload(&caller, request).await?))
}

async fn get_upload(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answered<v1::Upload> {
    Query::parse(query.as_deref()).finish()?;
    let request = v1::GetUploadRequest { id: path_id(path)? };
    Ok(Answer(calls.get_upload(&caller, request).await?))
}

async fn find_blobs(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Message(request): Message<v1::FindBlobsRequest>,
) -> Answered<v1::FindBlobsResponse> {
    Query::parse(query.as_deref()).finish()?;
    let id = one_id(path, &request.id)?;
    let request = v1::FindBlobsRequest { id, ..request };
    Ok(Answer(calls.find_blobs(&caller, request).await?))
}

async fn put_manifest(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Large(request): Large<v1::PutManifestRequest>,
) -> Answered<v1::PutManifestResponse> {
    Query::parse(query.as_deref()).finish()?;
    let id = one_id(path, &request.id)?;
    let request = v1::PutManifestRequest { id, ..request };
    Ok(Answer(calls.put_manifest(&caller, request).await?))
}

async fn abandon_upload(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Message(request): Message<v1::AbandonUploadRequest>,
) -> Answered<v1::AbandonUploadResponse> {
    Query::parse(query.as_deref()).finish()?;
    let request = v1::AbandonUploadRequest { id: one_id(path, &request.id)? };
    Ok(Answer(calls.abandon_upload(&caller, request).await?))
}

async fn put_blob(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Answered<v1::PutBlobResponse> {
    let (pieces, rest) = given_back(body.into_data_stream());
    let put = async {
        let head = head(path, query.as_deref(), &headers)?;
        Ok(calls.put_blob(&caller, head, pieces, Stopping::of(&extensions)).await?)
    };
    let put = put.await;
    // A client that still writes when the connection closes often never sees the answer.
    let short = announced(&headers).is_none_or(|length| length <= DRAIN_LIMIT_BYTES);
    if put.is_err()
        && short
        && let Ok(rest) = rest.await
    {
        let _ = tokio::time::timeout(DRAIN_TIME, drain(rest)).await;
    }
    put.map(Answer)
}

/// What the path, the query and the headers say of the blob.
fn head(
    path: Result<Path<(String, String)>, PathRejection>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<v1::PutBlobRequest, Refusal> {
    octets(headers)?;
    keyless(headers)?;
    let Path((id, digest)) =
        path.map_err(|_| Failure::invalid("digest", "the path is not valid UTF-8"))?;
    let mut query = Query::parse(query);
    let (size, offset) = (query.signed("size")?, query.signed("offset")?);
    query.finish()?;
    let left = u64::try_from(size.saturating_sub(offset)).unwrap_or_default();
    if announced(headers).is_some_and(|length| length > left) {
        return Err(content::too_much().into());
    }
    Ok(v1::PutBlobRequest { id, digest, size, offset, ..Default::default() })
}

/// The bytes come as they are; that is what a body without a media type is taken for (RFC 9110,
/// section 8.3).
fn octets(headers: &HeaderMap) -> Result<(), Refusal> {
    let media = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let plain = media.is_none_or(|media| media.eq_ignore_ascii_case(b"application/octet-stream"));
    if plain && !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(());
    }
    let text = "the body is not application/octet-stream, or is encoded";
    let failure = Failure::new(Reason::InvalidArgument, text)
        .remedy("send the blob's bytes as they are, with Content-Type: application/octet-stream");
    Err(Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure))
}

/// A body that is given back when nobody reads on.
struct Lent {
    body: Option<BodyDataStream>,
    back: Option<oneshot::Sender<BodyDataStream>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for it who was answered as asked.
            let _ = back.send(body);
        }
    }
}

/// The body's pieces, and the body itself when they are not read any more.
fn given_back(body: BodyDataStream) -> (Pieces, oneshot::Receiver<BodyDataStream>) {
    let (back, rest) = oneshot::channel();
    let lent = Lent { body: Some(body), back: Some(back) };
    let pieces = stream::unfold(lent, |mut lent| async move {
        let next = lent.body.as_mut()?.next().await?;
        Some((next.map_err(|error| content::broke_off().caused_by(error)), lent))
    });
    (pieces.boxed(), rest)
}

/// Reads on, and keeps nothing.
async fn drain(mut body: BodyDataStream) {
    let mut seen = 0_u64;
    while seen <= DRAIN_LIMIT_BYTES
        && let Some(Ok(piece)) = body.next().await
    {
        seen = seen.saturating_add(piece.len() as u64);
    }
}
