//! The layers between a route and its handler: who is calling, that a gRPC path is called by
//! gRPC, and how long a REST call may take.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use colophon_domain::{Clock, Failure, Principal, Reason, Result, Retry};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};

use crate::{callers::Callers, observe::Face, places::Places, refusal::Refusal, sent::until_sent};

/// Who knows the callers, and the time by which their tokens expire.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    pub(crate) callers: Callers,
    pub(crate) clock: Arc<dyn Clock>,
    /// The calls of each caller that are under way: until the answer has been sent.
    pub(crate) places: Places,
}

/// Lets known callers in, with their [`Principal`] in the request's extensions; the same layer
/// serves both faces.
pub(crate) async fn authenticate(
    State(doorkeeper): State<Doorkeeper>,
    mut request: Request,
    next: Next,
) -> Response {
    match doorkeeper.identify(request.headers()) {
        Ok(caller) => {
            tracing::Span::current().record("caller", caller.name.as_str());
            let Some(place) = doorkeeper.places.take(&caller.name) else {
                return Refusal::from(too_many(doorkeeper.places.most(), &caller)).into_response();
            };
            request.extensions_mut().insert(caller);
            next.run(request).await.map(|body| until_sent(body, place))
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn too_many(most: usize, caller: &Principal) -> Failure {
    let text = format!("{most} calls of {} are under way already", caller.name);
    Failure::new(Reason::TooManyCalls, text)
        .remedy("send fewer calls at the same time, read their answers, and come back in a moment")
        .retry(Retry::Wait(Duration::from_secs(1)))
}

impl Doorkeeper {
    fn identify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let remedy = "send the header Authorization: Bearer <token>";
        let Some(value) = given.next() else {
            let failure = Failure::new(Reason::Unauthenticated, "the call carries no token");
            return Err(failure.remedy(remedy).into());
        };
        let token = value.to_str().ok().and_then(bearer).filter(|_| given.next().is_none());
        let Some(token) = token else {
            let failure =
                Failure::new(Reason::Unauthenticated, "the call does not carry one bearer token");
            return Err(challenged(failure.remedy(remedy), "invalid_request"));
        };
        self.callers.find(token, self.clock.now()).ok_or_else(|| {
            let failure =
                Failure::new(Reason::Unauthenticated, "the token is not known, or not any more")
                    .remedy("ask the operator for a new token");
            challenged(failure, "invalid_token")
        })
    }
}

/// The challenge of RFC 6750, section 3, with its error code.
fn challenged(failure: Failure, code: &str) -> Refusal {
    let refusal = Refusal::from(failure);
    match HeaderValue::from_str(&format!("Bearer realm=\"colophon\", error=\"{code}\"")) {
        Ok(challenge) => refusal.header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => refusal,
    }
}

/// The token of `Bearer <token>`; the scheme is read in any case (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The caller, for REST handlers.
pub(crate) struct Caller(pub(crate) Arc<Principal>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Arc<Principal>>().cloned();
        caller.map(Self).ok_or_else(|| nobody().into())
    }
}

/// A handler without the layer before it: a defect in how the routes were put together.
pub(crate) fn nobody() -> Failure {
    Failure::new(Reason::Internal, "the route has no layer that identifies the caller")
}

/// Refuses what is no gRPC on a gRPC path, in words that a person with curl understands.
pub(crate) async fn only_grpc(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    if method != Method::POST {
        let failure = Failure::new(Reason::InvalidArgument, "this path speaks gRPC, by POST only")
            .remedy("use a gRPC client, or the REST paths below /v1/");
        return Refusal::with_status(StatusCode::METHOD_NOT_ALLOWED, failure)
            .header(header::ALLOW, HeaderValue::from_static("POST"))
            .into_response();
    }
    if Face::of(request.headers()) != Face::Grpc {
        let failure = Failure::new(Reason::InvalidArgument, "this path speaks gRPC only")
            .remedy("send application/grpc, or use the REST paths below /v1/");
        return Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure).into_response();
    }
    next.run(request).await
}

/// Ends a REST call that takes too long, the reading of its body included.
pub(crate) async fn in_time(
    State(limit): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::from(too_slow(limit)).into_response(),
    }
}

/// What is said of a call that took too long, on both faces.
pub(crate) fn too_slow(limit: Duration) -> Failure {
    Failure::new(Reason::Timeout, format!("there was no answer within {} ms", limit.as_millis()))
        .remedy("ask again; a release that is sent again under its idempotency key is made once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for value in ["", "abc", "Bearer", "Bearer ", "Basic abc", "Bearerabc"] {
            assert_eq!(bearer(value), None, "{value}");
        }
    }
}
