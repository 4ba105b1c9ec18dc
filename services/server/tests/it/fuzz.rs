//! Whatever is sent, the answer is an answer or a problem, and never a defect of ours.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request};
use colophon_server::ServerSettings;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use serde_json::json;
use tower::ServiceExt as _;

use crate::{
    fake::{self, CI, uuid},
    openapi::documented,
};

fn router() -> Router {
    fake::router(Arc::default(), Arc::default(), ServerSettings::default())
}

/// Sends the request and checks the answer's form.
fn holds(request: Request) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let shown = format!("{method} {}", request.uri());
    let response = runtime.block_on(router().oneshot(request)).unwrap();
    let status = response.status();
    prop_assert!(!status.is_server_error(), "{shown}: {status}");
    let media = response.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok());
    let wanted = if status.is_success() { "application/json" } else { "application/problem+json" };
    prop_assert_eq!(media, Some(wanted), "{}: {}", shown, status);
    prop_assert!(response.headers().contains_key("x-request-id"));
    let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 22)).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = documented(&method, &path, status.as_u16(), body["reason"].as_str());
    prop_assert_eq!(said.unwrap_or(Ok(())), Ok(()));
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
        Just("docker.io/acme/app:v1".into()),
        Just("docker.io/acme/*".into()),
        Just("2026-11-03T14:02:00Z".into()),
        Just("v1.4.2-rc.1".into()),
        Just("none".into()),
        Just("OLDER_POLICY_SUPERSEDE".into()),
        Just("SETTLED_AS_MOVED".into()),
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
            "orderKey",
            "number",
            "time",
            "semver",
            "semverMovesPreRelease",
            "ifOlder",
            "allowBackward",
            "onFailure",
            "plan",
            "breakGlass",
            "guards",
            "tag",
            "expectedDigest",
            "reference",
            "release",
            "steps",
            "at",
            "digest",
            "pattern",
            "endTime",
            "settledAs",
            "origin",
            "blobs",
            "size",
            "mediaType",
            "content",
            "upload",
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

/// The paths that take a body.
fn posted() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/v1/releases".to_owned(),
        format!("/v1/releases/{}/cancel", uuid(1)),
        "/v1/plans".to_owned(),
        "/v1/rollbacks".to_owned(),
        "/v1/tag/settle".to_owned(),
        "/v1/freezes".to_owned(),
        format!("/v1/freezes/{}/lift", uuid(1)),
        "/v1/uploads".to_owned(),
        format!("/v1/uploads/{}/find-blobs", uuid(1)),
        format!("/v1/uploads/{}/manifests", uuid(1)),
        format!("/v1/uploads/{}/abandon", uuid(1)),
    ])
}

/// Requests that are accepted, with every field set.
fn good_requests() -> Vec<(&'static str, serde_json::Value)> {
    let release = json!({
        "source": "ghcr.io/acme/app:v1",
        "targets": [{
            "repository": "docker.io/acme/app",
            "floatingTags": ["v1"],
            "guards": [{"tag": "v1", "expectedDigest": "none", "orderKey": {"number": "7"}}],
        }],
        "reason": "weekly",
        "onBehalfOf": "web",
        "labels": {"team": "web"},
        "notAfter": "2026-11-04T00:00:00Z",
        "priority": 1,
        "orderKey": {"time": "2026-11-03T14:02:00Z"},
        "ifOlder": "OLDER_POLICY_SUPERSEDE",
        "allowBackward": true,
        "onFailure": "ON_FAILURE_KEEP",
        "breakGlass": true,
    });
    let rollback = json!({
        "reference": "docker.io/acme/app:v1",
        "steps": 1,
        "reason": "bad build",
        "onBehalfOf": "web",
        "labels": {"team": "web"},
        "idempotencyKey": "k",
        "breakGlass": true,
        "expectedDigest": "none",
    });
    let settle = json!({
        "reference": "docker.io/acme/app:v1",
        "settledAs": "SETTLED_AS_MOVED",
        "reason": "seen in the registry",
        "onBehalfOf": "web",
    });
    let freeze = json!({
        "pattern": "docker.io/acme/*",
        "reason": "holidays",
        "endTime": "2026-11-10T00:00:00Z",
    });
    vec![
        ("/v1/releases", release.clone()),
        ("/v1/plans", release),
        ("/v1/rollbacks", rollback),
        ("/v1/tag/settle", settle),
        ("/v1/freezes", freeze),
    ]
}

/// What the test of changes changes is good at first: it would find nothing otherwise.
#[tokio::test]
async fn the_good_requests_are_good() {
    for (path, body) in good_requests() {
        let request = request("POST", path, body.to_string().into_bytes()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_json_as_a_request(body in like_a_request(), path in posted()) {
        if let Some(request) = request("POST", &path, body.to_string().into_bytes()) {
            holds(request)?;
        }
    }

    #[test]
    fn any_bytes_as_a_body(body in prop::collection::vec(any::<u8>(), 0..200), path in posted()) {
        if let Some(request) = request("POST", &path, body) {
            holds(request)?;
        }
    }

    #[test]
    fn any_change_of_a_good_request(
        (path, good) in prop::sample::select(good_requests()),
        field in any::<prop::sample::Index>(),
        value in like_a_request(),
    ) {
        let mut body = good;
        let fields = body.as_object_mut().unwrap();
        let name = field.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
        fields.insert(name, value);
        if let Some(request) = request("POST", path, body.to_string().into_bytes()) {
            holds(request)?;
        }
    }

    #[test]
    fn any_path_and_query(
        method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
        base in prop::sample::select(vec![
            "/", "/v1/releases", "/v1/releases/", "/v1/tag", "/v1/tag-moves", "/healthz",
            "/v1/freezes", "/v1/freezes/", "/v1/plans", "/v1/rollbacks", "/v1/tag/settle",
            "/colophon.v1.FreezeService/ListFreezes",
            "/colophon.v1.TagService/GetTag", "/grpc.health.v1.Health/Check",
        ]),
        more in "[ -~]{0,20}",
        query in "((page_size|pageToken|states|at|reference|label|after|include_ended|[a-z]{1,4})=[!-~]{0,12}&?){0,4}",
    ) {
        for uri in [format!("{base}{more}"), format!("{base}?{query}")] {
            if let Some(request) = request(method, &uri, Vec::new()) {
                holds(request)?;
            }
        }
    }
}
