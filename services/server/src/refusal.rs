//! A call that was not answered as asked, and its form on REST: a problem document (RFC 9457).
//!
//! A handler or a layer returns a [`Refusal`]; it travels as an extension of an empty response
//! up to the outermost layer, which knows the request's id and the face, and writes it once.

use std::borrow::Cow;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use colophon_domain::{ErrorKind, Failure, Reason, Retry};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tonic::Code;

use crate::{observe::RequestId, table};

/// The media type of RFC 9457.
pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A failure on its way to the caller, with what only the transport knows of it.
#[derive(Debug)]
pub(crate) struct Refusal {
    failure: Failure,
    status: Option<StatusCode>,
    code: Option<Code>,
    headers: HeaderMap,
    parts: Option<Box<Value>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, status: None, code: None, headers: HeaderMap::new(), parts: None }
    }
}

impl Refusal {
    /// A refusal that HTTP has a finer status for than the table.
    pub(crate) fn with_status(status: StatusCode, failure: Failure) -> Self {
        Self { status: Some(status), ..Self::from(failure) }
    }

    /// Nothing answers at this path, on either face.
    pub(crate) fn no_such_path(path: &str) -> Self {
        let failure = Failure::new(Reason::NotFound, format!("nothing is at {}", cut(path, 200)))
            .remedy("the paths of this service begin with /v1/; see the contract for all of them");
        Self { code: Some(Code::Unimplemented), ..Self::from(failure) }
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds how each part of the process is; on REST only.
    #[must_use]
    pub(crate) fn parts(mut self, parts: Value) -> Self {
        self.parts = Some(Box::new(parts));
        self
    }

    /// What the transport itself answered with a bare status, in words.
    pub(crate) fn from_bare(status: StatusCode, headers: HeaderMap) -> Self {
        let title = status.canonical_reason().unwrap_or("refused");
        let failure = match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                Failure::new(Reason::InvalidArgument, "this path does not have the method used")
                    .remedy("the header Allow of this answer has those that it has")
            }
            StatusCode::NOT_FOUND => Failure::new(Reason::NotFound, "nothing is at this path"),
            status if status.is_server_error() => Failure::new(Reason::Internal, title),
            _ => Failure::new(Reason::InvalidArgument, title),
        };
        let headers =
            headers.into_iter().filter_map(|(name, value)| name.map(|name| (name, value)));
        let kept = headers.filter(|(name, _)| name == header::ALLOW).collect();
        Self { headers: kept, ..Self::with_status(status, failure) }
    }

    /// The failure.
    pub(crate) fn failure(&self) -> &Failure {
        &self.failure
    }

    /// The gRPC code.
    pub(crate) fn code(&self) -> Code {
        self.code.unwrap_or_else(|| table::row(self.failure.reason().kind()).code)
    }

    /// Writes the problem document.
    pub(crate) fn into_problem(self, id: &RequestId) -> Response {
        let status = self.status.unwrap_or(table::row(self.failure.reason().kind()).status);
        let body = problem(&self.failure, self.status, self.parts.as_deref(), id);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Retry::Wait(pause) = self.failure.retry_class() {
            // Rounded up, so that who comes back then does not come too early.
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
            let challenge = HeaderValue::from_static("Bearer realm=\"colophon\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let row = table::row(self.failure.reason().kind());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status.unwrap_or(row.status);
        // Extensions must be cloneable and a failure is not; an `Arc` would not give it back.
        response
            .extensions_mut()
            .insert(Carried(std::sync::Arc::new(std::sync::Mutex::new(Some(self)))));
        response
    }
}

#[derive(Clone)]
struct Carried(std::sync::Arc<std::sync::Mutex<Option<Refusal>>>);

/// Takes the refusal out of the response that carries it.
pub(crate) fn carried(response: &mut Response) -> Option<Refusal> {
    let Carried(cell) = response.extensions_mut().remove::<Carried>()?;
    // A lock that was poisoned still holds what was put in.
    cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

/// The problem document of a failure; `finer` is a status that HTTP has for it besides the table's.
pub(crate) fn problem(
    failure: &Failure,
    finer: Option<StatusCode>,
    parts: Option<&Value>,
    id: &RequestId,
) -> Vec<u8> {
    let row = table::row(failure.reason().kind());
    let title = match finer {
        Some(status) => status.canonical_reason().unwrap_or(row.title),
        None => row.title,
    };
    let shown = Shown::of(failure);
    let problem = Problem {
        kind: format!("urn:colophon:reason:{}", shown.reason),
        title,
        status: finer.unwrap_or(row.status).as_u16(),
        detail: &shown.message,
        reason: shown.reason.as_str(),
        field: shown.field,
        remedy: shown.remedy,
        instance: id.as_str(),
        parts,
    };
    // A map of texts and a number cannot fail to be written.
    serde_json::to_vec(&problem).unwrap_or_default()
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<&'a Value>,
}

/// What a caller is shown of a failure, the same on both faces.
pub(crate) struct Shown<'a> {
    pub(crate) reason: Reason,
    pub(crate) message: Cow<'a, str>,
    pub(crate) field: Option<&'a str>,
    pub(crate) remedy: Option<&'a str>,
}

/// Texts are cut here: gRPC carries them in headers, which have limits of their own.
const SHOWN_LIMIT: usize = 1_000;

impl<'a> Shown<'a> {
    /// A defect of ours is told without its particulars, which are in the log under the
    /// request's id; every other failure was written for the caller.
    pub(crate) fn of(failure: &'a Failure) -> Self {
        let reason = failure.reason();
        if reason == Reason::Internal {
            return Self {
                reason,
                message: "something went wrong inside the service".into(),
                field: None,
                remedy: Some("tell the operator the request's id; the log has the cause under it"),
            };
        }
        Self {
            reason,
            message: cut(failure.message(), SHOWN_LIMIT).into(),
            field: failure.field_name().map(|field| cut(field, SHOWN_LIMIT)),
            remedy: failure.remedy_text().map(|remedy| cut(remedy, SHOWN_LIMIT)),
        }
    }
}

/// The first `limit` bytes of the text, or a few less where a character would be split.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

/// Logs a failure on its way out, with its causes; this is the one place that does.
pub(crate) fn log(failure: &Failure) {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    let (reason, said) = (failure.reason().as_str(), failure.message());
    let field = failure.field_name();
    match failure.reason().kind() {
        ErrorKind::Internal => {
            tracing::error!(reason, failure = said, field, ?causes, "call failed");
        }
        // Every stream ends so that outlives its time or the process: that is no fault of anybody's.
        ErrorKind::Unavailable if failure.reason() != Reason::ServerStopping => {
            tracing::warn!(reason, failure = said, field, ?causes, "call failed");
        }
        _ => tracing::debug!(reason, failure = said, field, ?causes, "call refused"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn response(failure: Failure) -> Response {
        Refusal::from(failure).into_problem(&RequestId::for_test("r-1"))
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_rounded_up() {
        let wait = |pause| {
            let failure = Failure::new(Reason::RateLimited, "slow").retry(Retry::Wait(pause));
            response(failure).headers()[header::RETRY_AFTER].to_str().unwrap().to_owned()
        };
        assert_eq!(wait(Duration::from_millis(1)), "1");
        assert_eq!(wait(Duration::from_millis(1_001)), "2");
        assert_eq!(wait(Duration::ZERO), "1");
        let failure = Failure::new(Reason::VaultSealed, "sealed").retry(Retry::Backoff);
        assert!(!response(failure).headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn a_refusal_survives_its_way_through_the_layers() {
        let refusal = Refusal::from(Failure::invalid("source", "is required"));
        let mut response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let back = carried(&mut response).unwrap();
        assert_eq!(back.failure().field_name(), Some("source"));
        assert!(carried(&mut response).is_none());
    }

    #[test]
    fn a_defect_keeps_its_particulars_to_the_log() {
        let failure = Failure::new(Reason::Internal, "row 7 of job").field("id").remedy("vacuum");
        let shown = Shown::of(&failure);
        assert!(!shown.message.contains("row 7") && shown.field.is_none());
        assert!(shown.remedy.is_some_and(|remedy| remedy.contains("id")));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
