//! Who is let in, on both faces.

use colophon_api::v1;
use reqwest::{StatusCode, header::AUTHORIZATION};
use time::macros::datetime;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, Fake, GUEST, Server, uuid},
    http::{answer, client, get, problem},
};

async fn refused(server: &Server, token: &str) -> (serde_json::Value, Status) {
    let response = get(server, token, "/v1/releases").await;
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"));
    let mut problem = problem(response, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    problem["instance"].take();
    let mut releases = server.releases(token).await;
    let status = releases.list_releases(v1::ListReleasesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "UNAUTHENTICATED");
    (problem, status)
}

#[tokio::test]
async fn an_expired_token_is_refused_like_an_unknown_one() {
    let server = Server::start(Fake::default()).await;
    answer(get(&server, GUEST, "/v1/releases").await).await;
    let (unknown, unknown_status) = refused(&server, "nobody's").await;
    server.clock.set(datetime!(2026-11-03 15:02:00 UTC));
    let (expired, expired_status) = refused(&server, GUEST).await;
    assert_eq!(unknown, expired);
    assert_eq!(unknown_status.message(), expired_status.message());
    answer(get(&server, CI, "/v1/releases").await).await;
    assert_eq!(server.called(), ["list", "list"]);
}

#[tokio::test]
async fn a_call_carries_one_bearer_token() {
    let server = Server::start(Fake::default()).await;
    let url = server.url("/v1/releases");
    let none = client().get(&url).send().await.unwrap();
    assert_eq!(none.headers()["www-authenticate"], "Bearer realm=\"colophon\"");
    let text = problem(none, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    assert!(text["remedy"].as_str().is_some_and(|remedy| remedy.contains("Bearer")));
    let bearer = format!("Bearer {CI}");
    let wrong: [&[&str]; 4] =
        [&["Basic Y2k6Y2k="], &["Bearer"], &[CI], &[bearer.as_str(), bearer.as_str()]];
    for values in wrong {
        let mut call = client().get(&url);
        for value in values {
            call = call.header(AUTHORIZATION, *value);
        }
        let response = call.send().await.unwrap();
        problem(response, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    }
    let lower = client().get(&url).header(AUTHORIZATION, format!("bearer {CI}"));
    answer(lower.send().await.unwrap()).await;
}

#[tokio::test]
async fn no_method_of_the_contract_is_open() {
    let server = Server::start(Fake::default()).await;
    for path in [
        "/v1/releases",
        &format!("/v1/releases/{}", uuid(1)),
        "/v1/tag",
        "/v1/tag-moves",
        "/v1/freezes",
        &format!("/v1/uploads/{}", uuid(1)),
    ] {
        let response = client().get(server.url(path)).send().await.unwrap();
        problem(response, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    }
    for path in [
        "/v1/releases",
        &format!("/v1/releases/{}/cancel", uuid(1)),
        "/v1/plans",
        "/v1/rollbacks",
        "/v1/tag/settle",
        "/v1/freezes",
        &format!("/v1/freezes/{}/lift", uuid(1)),
        "/v1/uploads",
        &format!("/v1/uploads/{}/find-blobs", uuid(1)),
        &format!("/v1/uploads/{}/manifests", uuid(1)),
        &format!("/v1/uploads/{}/abandon", uuid(1)),
    ] {
        let response = client().post(server.url(path)).send().await.unwrap();
        problem(response, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED").await;
    }
    for method in [
        "ReleaseService/CreateRelease",
        "ReleaseService/GetRelease",
        "ReleaseService/ListReleases",
        "ReleaseService/CancelRelease",
        "ReleaseService/PlanRelease",
        "ReleaseService/Rollback",
        "TagService/GetTag",
        "TagService/ListTagMoves",
        "TagService/SettleTag",
        "FreezeService/CreateFreeze",
        "FreezeService/ListFreezes",
        "FreezeService/LiftFreeze",
        "UploadService/StartUpload",
        "UploadService/GetUpload",
        "UploadService/FindBlobs",
        "UploadService/PutBlob",
        "UploadService/PutManifest",
        "UploadService/AbandonUpload",
        "TagService/Nothing",
    ] {
        let response = crate::grpc::raw(&server, &format!("/colophon.v1.{method}"), None).await;
        assert_eq!(response.headers()["grpc-status"], "16", "{method}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}
