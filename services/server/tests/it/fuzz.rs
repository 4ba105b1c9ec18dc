//! Whatever is sent, the answer is an answer or a problem, and never a defect of ours.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request};
use colophon_server::ServerSettings;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use tower::ServiceExt as _;

use crate::fake::{self, CI, uuid};

fn router() -> Router {
    fake::router(Arc::default(), Arc::default(), ServerSettings::default())
}

/// Sends the request and checks the answer's form.
fn holds(request: Request) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shown = format!("{} {}", request.method(), request.uri());
    let response = runtime.block_on(router().oneshot(request)).unwrap();
    let status = response.status();
    prop_assert!(!status.is_server_error(), "{shown}: {status}");
    let media = response.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok());
    let wanted = if status.is_success() { "application/json" } else { "application/problem+json" };
    prop_assert_eq!(media, Some(wanted), "{}: {}", shown, status);
    prop_assert!(response.headers().contains_key("x-request-id"));
    Ok(())
}

fn request(method: &str, uri: &str, body: Vec<u8>) -> Option<Request> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("authorization", format!("Bearer {CI}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .ok()
}

/// JSON that looks like a request, with anything in its places.
fn like_a_request() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "[a-z.:/@0-9]{0,30}".prop_map(Into::into),
        Just("ghcr.io/acme/app:v1".into()),
        Just("docker.io/acme/app".into()),
        Just("2026-11-03T14:02:00Z".into()),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "source",
            "targets",
            "repository",
            "uniqueTags",
            "floating_tags",
            "reason",
            "labels",
            "notAfter",
            "not_after",
            "priority",
            "idempotencyKey",
            "onBehalfOf",
            "id",
        ])
        .prop_map(ToOwned::to_owned),
        "\\PC{0,6}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_json_as_a_request(body in like_a_request(), cancel in any::<bool>()) {
        let cancelling = format!("/v1/releases/{}/cancel", uuid(1));
        let path = if cancel { cancelling.as_str() } else { "/v1/releases" };
        if let Some(request) = request("POST", path, body.to_string().into_bytes()) {
            holds(request)?;
        }
    }

    #[test]
    fn any_bytes_as_a_body(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(request) = request("POST", "/v1/releases", body) {
            holds(request)?;
        }
    }

    #[test]
    fn any_path_and_query(
        method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
        base in prop::sample::select(vec![
            "/", "/v1/releases", "/v1/releases/", "/v1/tag", "/v1/tag-moves", "/healthz",
            "/colophon.v1.TagService/GetTag", "/grpc.health.v1.Health/Check",
        ]),
        more in "[ -~]{0,20}",
        query in "((page_size|pageToken|states|at|reference|label|after|[a-z]{1,4})=[!-~]{0,12}&?){0,4}",
    ) {
        for uri in [format!("{base}{more}"), format!("{base}?{query}")] {
            if let Some(request) = request(method, &uri, Vec::new()) {
                holds(request)?;
            }
        }
    }
}
