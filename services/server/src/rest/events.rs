//! Server-sent events: the states of a release as the HTML standard frames them (section 9.2).

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse as _, Response,
    sse::{Event, KeepAlive, Sse},
};
use colophon_api::v1;
use colophon_domain::{Failure, Reason, Result};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{calls::Watched, observe::RequestId, refusal};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies of a common kind gather what is not a whole answer, unless they are told not to.
const NO_BUFFER: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The revision of the last event that the caller has seen; `None` if it has seen none. Browsers
/// send it by themselves when they connect again.
pub(super) fn last_event(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        Failure::invalid("after_revision", "the header Last-Event-ID is not the id of an event")
            .remedy("send the id of the last event as it came, or leave the header out")
    })
}

/// Writes the states as events; a comment goes out whenever nothing was to be said for a while.
/// A caller who has seen the end gets 204, which tells a browser not to connect again.
pub(super) fn answer(watched: Watched, keep_alive: Duration, id: RequestId) -> Response {
    if watched.over {
        return StatusCode::NO_CONTENT.into_response();
    }
    let events = watched.states.filter_map(move |state| {
        let event = match state {
            Ok(release) => Some(release_event(&release, &id)),
            // The end of the stream says the same, and a browser connects again after it.
            Err(failure) if failure.reason() == Reason::ServerStopping => None,
            Err(failure) => Some(error_event(&failure, &id)),
        };
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NO_BUFFER.0, NO_BUFFER.1);
    response
}

fn release_event(release: &v1::Release, id: &RequestId) -> Event {
    match serde_json::to_string(release) {
        Ok(json) => Event::default().id(release.revision.to_string()).event("release").data(json),
        Err(error) => {
            let failure = Failure::new(Reason::Internal, "the answer cannot be written");
            error_event(&failure.caused_by(error), id)
        }
    }
}

/// The problem document that a call gets which fails at once.
fn error_event(failure: &Failure, id: &RequestId) -> Event {
    refusal::log(failure);
    let problem = refusal::problem(failure, None, None, id);
    Event::default().event("error").data(String::from_utf8_lossy(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_a_revision() {
        let last = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_str(text).unwrap());
            last_event(&headers)
        };
        assert_eq!(last_event(&HeaderMap::new()).unwrap(), None);
        assert_eq!(last("").unwrap(), None);
        assert_eq!(last("17").unwrap(), Some(17));
        for text in ["-1", "x", "1 2", "99999999999999999999"] {
            assert_eq!(last(text).unwrap_err().field_name(), Some("after_revision"), "{text}");
        }
    }
}
