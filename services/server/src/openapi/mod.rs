//! The API described by itself: the `OpenAPI` document, and the same as a page for people. Both
//! need no token, since they tell what the published contract tells anyway.
//!
//! The document is written from the contract by `make openapi` and committed; a test holds it
//! against the contract, so what is served is what was reviewed.

mod html;

use std::sync::LazyLock;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// The document.
pub const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

const STYLE: &str = include_str!("page.css");

struct Page {
    text: String,
    policy: HeaderValue,
}

/// Written at the first request. The page has no script and loads nothing; its one style is
/// allowed by its hash.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let document = serde_json::from_str(OPENAPI).unwrap_or_default();
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    Page {
        text: html::page(&document, STYLE),
        policy: HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'")),
    }
});

/// `/v1/openapi.json` and `/v1/docs`.
pub(crate) fn routes() -> Router {
    Router::new().route("/v1/openapi.json", get(document)).route("/v1/docs", get(page))
}

async fn document() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json), (header::CACHE_CONTROL, no_cache())], OPENAPI).into_response()
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, no_cache()),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, PAGE.text.as_str()).into_response()
}

/// A new version of the service may say something else.
fn no_cache() -> HeaderValue {
    HeaderValue::from_static("no-cache")
}
