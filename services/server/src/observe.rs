//! The outermost layer: gives every request an id and a span, writes refusals in the form of
//! the face that was called, and logs one line for each call.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use colophon_domain::{Entropy, Failure, Reason};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tracing::{Instrument as _, field};

use crate::{
    metrics,
    refusal::{self, PROBLEM_JSON, Refusal},
    status,
};

/// The header that carries a request's id in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called in the log, in the answer and in errors.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id where it is fit for a log, or a new one.
    fn of(headers: &HeaderMap, entropy: &dyn Entropy) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| (1..=128).contains(&text.len()) && text.bytes().all(plain));
        Self(given.map_or_else(|| entropy.uuid().to_string().into(), Into::into))
    }

    /// The text form.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_test(text: &str) -> Self {
        Self(text.into())
    }
}

/// Which of the two faces a request is for, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// `application/grpc`, with or without `+proto`.
    Grpc,
    /// Everything else.
    Rest,
}

impl Face {
    /// Reads the media type.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let media = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        match media {
            Some(b"application/grpc" | b"application/grpc+proto") => Self::Grpc,
            _ => Self::Rest,
        }
    }
}

/// The layer; for `axum::middleware::from_fn_with_state`.
pub(crate) async fn observe(
    State(entropy): State<Arc<dyn Entropy>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(request.headers(), &*entropy);
    let face = Face::of(request.headers());
    let route = route(&request, face);
    let method = request.method().clone();
    let span = tracing::info_span!(
        "server.request",
        otel.kind = "server",
        method = %request.method(),
        route = route.as_deref(),
        request_id = id.as_str(),
        caller = field::Empty,
        status = field::Empty,
        grpc_status = field::Empty,
    );
    colophon_telemetry::adopt_caller(&span, request.headers());
    request.extensions_mut().insert(id.clone());
    let begun = Instant::now();
    // A panic in one call must not take the other calls of the same connection with it.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = answered.instrument(span.clone()).await.unwrap_or_else(|_| {
        let refusal = Refusal::from(Failure::new(Reason::Internal, "the call panicked"));
        axum::response::IntoResponse::into_response(refusal)
    });
    span.in_scope(|| {
        let mut response = written(response, face, &id);
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let status = record(&span, &response, face, begun.elapsed(), route.as_deref());
        metrics::answered(face, route.as_deref(), &method, status, begun.elapsed());
        response
    })
}

/// The route's template, or the whole path of a gRPC method; `None` for a path that is nowhere,
/// which would only fill the log with what strangers try.
fn route(request: &Request, face: Face) -> Option<String> {
    let matched = request.extensions().get::<MatchedPath>()?;
    Some(match face {
        Face::Rest => matched.as_str().to_owned(),
        Face::Grpc => request.uri().path().chars().take(200).collect(),
    })
}

/// Puts the answer into the form of its face.
fn written(mut response: Response, face: Face, id: &RequestId) -> Response {
    let refusal = refusal::carried(&mut response);
    match (face, refusal) {
        (Face::Grpc, Some(refusal)) => {
            refusal::log(refusal.failure());
            status::response(&refusal, id)
        }
        (Face::Grpc, None) => status::mended(response.headers(), id).unwrap_or(response),
        (Face::Rest, Some(refusal)) => {
            refusal::log(refusal.failure());
            refusal.into_problem(id)
        }
        (Face::Rest, None) if bare(&response) => {
            let (parts, _) = response.into_parts();
            Refusal::from_bare(parts.status, parts.headers).into_problem(id)
        }
        (Face::Rest, None) => response,
    }
}

/// Whether the transport answered with a bare error, for example 405.
fn bare(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && response.headers().get(header::CONTENT_TYPE) != Some(&PROBLEM_JSON)
}

fn record(
    span: &tracing::Span,
    response: &Response,
    face: Face,
    took: Duration,
    route: Option<&str>,
) -> u16 {
    let mut status = response.status().as_u16();
    span.record("status", status);
    if face == Face::Grpc {
        // A success says so in the trailers, which are still to come.
        let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
        let code = code.unwrap_or("0");
        span.record("grpc_status", code);
        status = code.parse().unwrap_or(status);
    }
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let probe = route.is_none_or(|route| {
        matches!(route, "/livez" | "/healthz" | "/readyz") || route.starts_with("/grpc.health.")
    });
    if probe {
        tracing::debug!(took_ms, "answered");
    } else {
        tracing::info!(took_ms, "answered");
    }
    status
}

/// Answers what no service is there for, on both faces.
pub(crate) async fn nowhere(request: Request) -> Refusal {
    Refusal::no_such_path(request.uri().path())
}

#[cfg(test)]
mod tests {
    use colophon_domain::SystemEntropy;

    use super::*;

    #[test]
    fn only_a_harmless_request_id_is_taken_over() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            RequestId::of(&headers, &SystemEntropy).as_str().to_owned()
        };
        assert_eq!(id("run-17.a_b"), "run-17.a_b");
        for text in ["", "a b", "a/b", "a\"b", &"x".repeat(129)] {
            assert_eq!(id(text).len(), 36, "{text}");
        }
    }

    #[test]
    fn the_media_type_tells_the_face() {
        let face = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            Face::of(&headers)
        };
        assert_eq!(face("application/grpc"), Face::Grpc);
        assert_eq!(face("application/grpc+proto"), Face::Grpc);
        assert_eq!(face("application/grpc-web"), Face::Rest);
        assert_eq!(face("application/json"), Face::Rest);
        assert_eq!(Face::of(&HeaderMap::new()), Face::Rest);
    }
}
