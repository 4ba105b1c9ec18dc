//! The REST face: one thin handler for each method, at the paths that the contract's
//! `google.api.http` annotations state. A test holds the two against each other.

mod events;
mod message;
mod query;
mod uploads;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    response::Response,
    routing::{get, post},
};
use colophon_api::v1;
use colophon_domain::{Failure, Result};
use http::{Extensions, HeaderMap, HeaderName};

use crate::{
    calls::{self, Calls},
    guard::Caller,
    health::Stopping,
    observe::RequestId,
    refusal::Refusal,
};
use message::{Answer, Message};
use query::Query;

pub(crate) use uploads::blobs;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The routes, without the layers around them.
pub(crate) fn routes(calls: Arc<Calls>, keep_alive: Duration) -> Router {
    let watch = get(watch_release).layer(Extension(KeepAlive(keep_alive)));
    Router::new()
        .route("/v1/releases", post(create_release).get(list_releases))
        .route("/v1/releases/{id}", get(get_release))
        .route("/v1/releases/{id}/watch", watch)
        .route("/v1/releases/{id}/cancel", post(cancel_release))
        .route("/v1/releases/{id}/retry", post(retry_release))
        .route("/v1/plans", post(plan_release))
        .route("/v1/rollbacks", post(rollback))
        .route("/v1/tag", get(get_tag))
        .route("/v1/tag/settle", post(settle_tag))
        .route("/v1/tag-moves", get(list_tag_moves))
        .route("/v1/freezes", post(create_freeze).get(list_freezes))
        .route("/v1/freezes/{id}/lift", post(lift_freeze))
        .merge(uploads::routes())
        .with_state(calls)
}

/// How often a stream that has nothing to say gets a comment.
#[derive(Clone, Copy)]
struct KeepAlive(Duration);

type Answered<A> = Result<Answer<A>, Refusal>;

async fn create_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(mut request): Message<v1::CreateReleaseRequest>,
) -> Answered<v1::Release> {
    Query::parse(query.as_deref()).finish()?;
    calls::with_header_key(&mut request.idempotency_key, idempotency_key(&headers)?)?;
    Ok(Answer(calls.create_release(&caller, request).await?))
}

async fn plan_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(mut request): Message<v1::CreateReleaseRequest>,
) -> Answered<v1::Plan> {
    Query::parse(query.as_deref()).finish()?;
    // A plan has no key, and the header is refused as the field is.
    calls::with_header_key(&mut request.idempotency_key, idempotency_key(&headers)?)?;
    Ok(Answer(calls.plan_release(&caller, request).await?))
}

async fn rollback(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(mut request): Message<v1::RollbackRequest>,
) -> Answered<v1::Release> {
    Query::parse(query.as_deref()).finish()?;
    calls::with_header_key(&mut request.idempotency_key, idempotency_key(&headers)?)?;
    Ok(Answer(calls.rollback(&caller, request).await?))
}

async fn get_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    extensions: Extensions,
) -> Answered<v1::Release> {
    let mut query = Query::parse(query.as_deref());
    let request = v1::GetReleaseRequest { id: path_id(path)?, wait: query.duration("wait")? };
    query.finish()?;
    Ok(Answer(calls.get_release(&caller, request, Stopping::of(&extensions)).await?))
}

async fn watch_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Extension(KeepAlive(keep_alive)): Extension<KeepAlive>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(query.as_deref());
    let after = query.long("after_revision")?;
    query.finish()?;
    // Who connects again sends the URL of the first time, and the header as it is now.
    let after_revision = events::last_event(&headers)?.unwrap_or(after);
    let request = v1::WatchReleaseRequest { id: path_id(path)?, after_revision };
    let watched = calls.watch_release(&caller, request, Stopping::of(&extensions)).await?;
    let id = extensions.get::<RequestId>().cloned().unwrap_or_default();
    Ok(events::answer(watched, keep_alive, id))
}

async fn list_releases(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
) -> Answered<v1::ListReleasesResponse> {
    let mut query = Query::parse(query.as_deref());
    let request = v1::ListReleasesRequest {
        page_size: query.number("page_size")?,
        page_token: query.text("page_token")?,
        repository: query.text("repository")?,
        states: query.enums::<v1::ReleaseState>("states", v1::ReleaseState::from_str_name)?,
        actor: query.text("actor")?,
        label: query.text("label")?,
    };
    query.finish()?;
    Ok(Answer(calls.list_releases(&caller, request).await?))
}

async fn cancel_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Message(request): Message<v1::CancelReleaseRequest>,
) -> Answered<v1::Release> {
    Query::parse(query.as_deref()).finish()?;
    let id = one_id(path, &request.id)?;
    let request = v1::CancelReleaseRequest { id, ..request };
    Ok(Answer(calls.cancel_release(&caller, request).await?))
}

async fn retry_release(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    Message(request): Message<v1::RetryReleaseRequest>,
) -> Answered<v1::Release> {
    Query::parse(query.as_deref()).finish()?;
    let id = one_id(path, &request.id)?;
    let request = v1::RetryReleaseRequest { id, ..request };
    Ok(Answer(calls.retry_release(&caller, request).await?))
}

async fn get_tag(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
) -> Answered<v1::Tag> {
    let mut query = Query::parse(query.as_deref());
    let request = v1::GetTagRequest { reference: query.text("reference")?, at: query.time("at")? };
    query.finish()?;
    Ok(Answer(calls.get_tag(&caller, request).await?))
}

async fn settle_tag(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(request): Message<v1::SettleTagRequest>,
) -> Answered<v1::Tag> {
    Query::parse(query.as_deref()).finish()?;
    keyless(&headers)?;
    Ok(Answer(calls.settle_tag(&caller, request).await?))
}

async fn list_tag_moves(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
) -> Answered<v1::ListTagMovesResponse> {
    let mut query = Query::parse(query.as_deref());
    let request = v1::ListTagMovesRequest {
        page_size: query.number("page_size")?,
        page_token: query.text("page_token")?,
        reference: query.text("reference")?,
        repository: query.text("repository")?,
        release: query.id("release")?,
        actor: query.text("actor")?,
        after: query.time("after")?,
        before: query.time("before")?,
        include_intents: query.flag("include_intents")?,
    };
    query.finish()?;
    Ok(Answer(calls.list_tag_moves(&caller, request).await?))
}

async fn create_freeze(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(request): Message<v1::CreateFreezeRequest>,
) -> Answered<v1::Freeze> {
    Query::parse(query.as_deref()).finish()?;
    keyless(&headers)?;
    Ok(Answer(calls.create_freeze(&caller, request).await?))
}

async fn list_freezes(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
) -> Answered<v1::ListFreezesResponse> {
    let mut query = Query::parse(query.as_deref());
    let request = v1::ListFreezesRequest { include_ended: query.flag("include_ended")? };
    query.finish()?;
    Ok(Answer(calls.list_freezes(&caller, request).await?))
}

async fn lift_freeze(
    State(calls): State<Arc<Calls>>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Message(request): Message<v1::LiftFreezeRequest>,
) -> Answered<v1::Freeze> {
    Query::parse(query.as_deref()).finish()?;
    keyless(&headers)?;
    let id = one_id(path, &request.id)?;
    let request = v1::LiftFreezeRequest { id, ..request };
    Ok(Answer(calls.lift_freeze(&caller, request).await?))
}

/// The id of the path, which the body may repeat but not contradict.
fn one_id(path: Result<Path<String>, PathRejection>, in_body: &str) -> Result<String> {
    let id = path_id(path)?;
    if in_body.is_empty() || in_body == id {
        return Ok(id);
    }
    Err(Failure::invalid("id", "the id in the body is not the one in the path")
        .remedy("leave it out of the body"))
}

fn path_id(path: Result<Path<String>, PathRejection>) -> Result<String> {
    path.map(|Path(id)| id).map_err(|_| Failure::invalid("id", "the path is not valid UTF-8"))
}

/// Refuses a key where sending again is not made safe by one: whoever gives it relies on that.
fn keyless(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Failure::invalid("idempotency_key", "this call has no idempotency key")
            .remedy("leave the header Idempotency-Key out"));
    }
    Ok(())
}

/// The key of the header; `None` where there is none.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != value) {
        return Err(Failure::invalid("idempotency_key", "there are two Idempotency-Key headers"));
    }
    let key = value.to_str().map_err(|_| {
        Failure::invalid("idempotency_key", "the header Idempotency-Key is not printable ASCII")
    })?;
    Ok(Some(key.to_owned()))
}
