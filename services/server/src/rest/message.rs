//! Bodies of the REST face: messages of the contract as JSON (the proto3 mapping), both ways.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use colophon_domain::{Failure, Reason};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    refusal::Refusal,
    settings::{LARGE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES},
};

/// A body that is too large is read on and thrown away up to here, because a client that still
/// writes when the connection closes often never sees the answer.
pub(super) const DRAIN_LIMIT_BYTES: u64 = 8 << 20;

const ONCE: &str = "give a field once, and only one of those of which the contract asks for one";

/// A request's body, read as a message.
pub(super) struct Message<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Message<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        message(request, MESSAGE_LIMIT_BYTES).await.map(Self)
    }
}

/// The same with a manifest in it.
pub(super) struct Large<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Large<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        message(request, LARGE_LIMIT_BYTES).await.map(Self)
    }
}

async fn message<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, Refusal> {
    if !is_json(request.headers()) {
        let failure = Failure::new(Reason::InvalidArgument, "the body is not application/json")
            .remedy("send Content-Type: application/json");
        return Err(Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, failure));
    }
    if announced(request.headers()).is_some_and(|length| length > DRAIN_LIMIT_BYTES) {
        return Err(too_large(limit));
    }
    let bytes = collect(request.into_body(), limit).await?;
    read(&bytes).map_err(Into::into)
}

/// How long the body is to be, if that is said.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads the whole body, and keeps at most the limit of it.
async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut seen) = (Vec::new(), 0_u64);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        // The client went away in the middle, or broke the framing.
        let piece = piece.map_err(|_| {
            Failure::new(Reason::InvalidArgument, "the body ended before it was complete")
        })?;
        seen = seen.saturating_add(piece.len() as u64);
        if seen <= limit as u64 {
            bytes.extend_from_slice(&piece);
        } else if seen > DRAIN_LIMIT_BYTES {
            break;
        }
    }
    if seen > limit as u64 { Err(too_large(limit)) } else { Ok(bytes) }
}

fn too_large(limit: usize) -> Refusal {
    let text = format!("the body is larger than {} MiB", limit >> 20);
    let failure = Failure::new(Reason::InvalidArgument, text).remedy("make several releases");
    Refusal::with_status(StatusCode::PAYLOAD_TOO_LARGE, failure)
}

/// `application/json`, with any parameters: RFC 8259 knows no charset but UTF-8.
fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media.and_then(|media| media.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Reads JSON; the refusal names the place, and the field in the contract's spelling.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.is_empty() {
        return Err(Failure::new(Reason::InvalidArgument, "the body is empty")
            .remedy("send a JSON object; {} if there is nothing to say"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let (field, error) = match serde_path_to_error::deserialize(&mut json) {
        Ok(message) => match json.end() {
            Ok(()) => return Ok(message),
            Err(error) => (None, error),
        },
        Err(error) => {
            let unknown = error.inner().to_string().starts_with("unknown field");
            (contract_path(error.path(), unknown), error.into_inner())
        }
    };
    let said = error.to_string();
    let failure = Failure::new(Reason::InvalidArgument, format!("the body cannot be read: {said}"));
    // A name that stands there twice is no part of the path. The contract's choices (one of
    // several fields) are told in the same words.
    let twice = said.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next());
    Err(match (field, twice.map(snake)) {
        (Some(place), Some(name)) => failure.field(format!("{place}.{name}")).remedy(ONCE),
        (None, Some(name)) => failure.field(name).remedy(ONCE),
        (Some(field), None) => failure.field(field),
        (None, None) => failure,
    })
}

/// The path to what could not be read, spelled as the contract spells it; `None` for the whole
/// body. What stands below `labels`, and a last name that the contract does not have, are the
/// caller's own and stay as they are.
fn contract_path(path: &serde_path_to_error::Path, unknown: bool) -> Option<String> {
    use serde_path_to_error::Segment;
    let (mut text, mut own) = (String::new(), false);
    let last = path.iter().count().checked_sub(1)?;
    for (index, segment) in path.iter().enumerate() {
        match segment {
            Segment::Seq { index } => text.extend(["[", &index.to_string(), "]"]),
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                let keep = own || (unknown && index == last);
                text.push_str(&if keep { key.clone() } else { snake(key) });
                own |= key == "labels";
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    (!text.is_empty()).then_some(text)
}

fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// An answer, written as JSON.
#[derive(Debug)]
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut response = Response::new(Body::from(body));
                let headers = response.headers_mut();
                let json = HeaderValue::from_static("application/json");
                headers.insert(header::CONTENT_TYPE, json);
                // States change, and what may be seen depends on who asks.
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Err(error) => {
                let failure = Failure::new(Reason::Internal, "the answer cannot be written");
                Refusal::from(failure.caused_by(error)).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use colophon_api::v1;

    use super::*;

    fn refused(text: &str) -> (String, Option<String>) {
        let failure = read::<v1::CreateReleaseRequest>(text.as_bytes()).unwrap_err();
        (failure.message().to_owned(), failure.field_name().map(Into::into))
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let (message, field) = refused("{\"source\": }");
        assert!(message.contains("line 1 column 12"), "{message}");
        assert_eq!(field.as_deref(), Some("source"));
        assert_eq!(refused(r#"{"sauce": "a"}"#).1.as_deref(), Some("sauce"));
        assert_eq!(
            refused(r#"{"targets": [{}, {"uniqueTag": []}]}"#).1.as_deref(),
            Some("targets[1].uniqueTag")
        );
        assert_eq!(
            refused(r#"{"targets": [{"uniqueTags": [7]}]}"#).1.as_deref(),
            Some("targets[0].unique_tags[0]")
        );
        assert_eq!(refused(r#"{"notAfter": "soon"}"#).1.as_deref(), Some("not_after"));
        assert_eq!(refused(r#"{"labels": {"aB": 1}}"#).1.as_deref(), Some("labels.aB"));
    }

    #[test]
    fn what_is_there_twice_is_named_too() {
        let field = |text: &str| refused(text).1.unwrap();
        assert_eq!(field(r#"{"onBehalfOf": "a", "on_behalf_of": "b"}"#), "on_behalf_of");
        assert_eq!(field(r#"{"orderKey": {"number": 1, "semver": "1.0.0"}}"#), "order_key.semver");
        let guards = r#"{"targets": [{"guards": [{"tag": "a", "tag": "b"}]}]}"#;
        assert_eq!(field(guards), "targets[0].guards[0].tag");
    }

    #[test]
    fn a_body_is_one_json_object() {
        for text in ["", "{} {}", "[]", "null", "7", "{", "\u{feff}{}", "{\"source\":\"\\ud800\"}"]
        {
            assert!(read::<v1::CreateReleaseRequest>(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read::<v1::CreateReleaseRequest>(b"{\"source\":\"\xff\"}").is_err());
        assert!(read::<v1::CreateReleaseRequest>(b" {} \n").is_ok());
        let deep = "[".repeat(100_000);
        assert!(read::<v1::CreateReleaseRequest>(deep.as_bytes()).is_err());
    }
}
