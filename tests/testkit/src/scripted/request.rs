//! A request as it came, and the answers that registries give in general.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use serde_json::json;
use url::form_urlencoded;

/// What documents of the registry itself are.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// An answer of a fake.
pub type Response = http::Response<Body>;

/// Which of a registry's hosts a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The registry itself.
    Registry,
    /// The realm of its tokens, where that is another host.
    Realm,
    /// The storage that it redirects downloads to.
    Storage,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The host.
    pub place: Place,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// The query, without its question mark.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; `None` if it broke off, or was streamed and not kept.
    pub body: Option<Bytes>,
}

impl Seen {
    /// A request whose body is not kept.
    pub fn head(place: Place, parts: &Parts) -> Self {
        Self {
            place,
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers.clone(),
            body: None,
        }
    }

    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or_default()
    }

    /// The `Authorization`, or nothing.
    pub fn authorization(&self) -> &str {
        self.header("authorization")
    }

    /// Whether it has this method and this text in its path.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method.as_str() == method && self.path.contains(part)
    }

    /// All values of a name in the query, decoded.
    pub fn query(&self, name: &str) -> Vec<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// What its body's length is said to be.
    pub fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH.as_str()).parse().ok()
    }

    /// Whether it only reads.
    pub fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// An answer without a body.
pub fn status(code: u16) -> Response {
    with(code, &[], Body::empty())
}

/// An answer. What cannot stand in one becomes an answer that says so, with the status 599.
pub fn with(code: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = http::Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap_or_else(|error| {
        let mut wrong = http::Response::new(Body::from(error.to_string()));
        *wrong.status_mut() = StatusCode::from_u16(599).unwrap_or_default();
        wrong
    })
}

/// A refusal in the distribution specification's envelope.
pub fn error(code: u16, name: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": name, "message": message }] });
    with(code, &[(header::CONTENT_TYPE.as_str(), JSON)], body.to_string())
}
