//! The form of a failure on gRPC: a status with the details of `google.rpc`.

use std::collections::HashMap;

use axum::response::Response;
use colophon_domain::{ErrorKind, Failure, Reason, Retry};
use http::HeaderMap;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    observe::RequestId,
    refusal::{self, Refusal, Shown},
    table,
};

/// The domain of our `google.rpc.ErrorInfo`.
pub(crate) const ERROR_DOMAIN: &str = "colophon";

/// Logs the failure and turns it into a status.
pub(crate) fn refused(failure: &Failure, id: &RequestId) -> Status {
    refusal::log(failure);
    with_code(table::row(failure.reason().kind()).code, failure, id)
}

/// The response to a call that a layer refused.
pub(crate) fn response(refusal: &Refusal, id: &RequestId) -> Response {
    with_code(refusal.code(), refusal.failure(), id).into_http::<Body>().map(axum::body::Body::new)
}

/// Gives details to a status that the transport made itself, for a message that is too large or
/// no protobuf, or for a method that is not there; `None` if the response needs no mending.
pub(crate) fn mended(headers: &HeaderMap, id: &RequestId) -> Option<Response> {
    let status = Status::from_header_map(headers)?;
    if !status.details().is_empty() {
        return None;
    }
    let (code, failure) = match status.code() {
        Code::Unimplemented if status.message().is_empty() => (
            Code::Unimplemented,
            Failure::new(Reason::NotFound, "the service has no such method")
                .remedy("see the contract, or ask the reflection service"),
        ),
        Code::Unimplemented => (Code::Unimplemented, unreadable(&status)),
        // Our own handlers always give details, so this is the decoder speaking, which calls
        // the caller's mistakes internal.
        Code::Internal | Code::OutOfRange => (Code::InvalidArgument, unreadable(&status)),
        _ => return None,
    };
    refusal::log(&failure);
    let mut response = with_code(code, &failure, id).into_http::<Body>();
    if let Some(encodings) = headers.get("grpc-accept-encoding") {
        response.headers_mut().insert("grpc-accept-encoding", encodings.clone());
    }
    Some(response.map(axum::body::Body::new))
}

/// A message that the decoder refuses.
pub(crate) fn unreadable(status: &Status) -> Failure {
    Failure::new(
        Reason::InvalidArgument,
        format!("the message cannot be read: {}", status.message()),
    )
    .remedy("a message is protobuf, not compressed, and at most 1 MiB, with a manifest 6 MiB")
}

fn with_code(code: Code, failure: &Failure, id: &RequestId) -> Status {
    let shown = Shown::of(failure);
    let mut details = ErrorDetails::new();
    let metadata: HashMap<String, String> = [("field", shown.field), ("remedy", shown.remedy)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value.to_owned())))
        .collect();
    details.set_error_info(shown.reason.as_str(), ERROR_DOMAIN, metadata);
    if let (ErrorKind::InvalidArgument, Some(field)) = (shown.reason.kind(), shown.field) {
        details.add_bad_request_violation(field, &*shown.message);
    }
    if let Retry::Wait(pause) = failure.retry_class() {
        details.set_retry_info(Some(pause));
    }
    details.set_request_info(id.as_str(), "");
    Status::with_error_details(code, shown.message, details)
}
