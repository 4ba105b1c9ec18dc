//! The gRPC face: the same answers as on REST, and what is no call of ours.

use colophon_api::v1;
use prost::Message;
use reqwest::{Method, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, Fake, READER, Server, entry, release, uuid},
    http::{h2_client, problem, send},
};

/// A message as gRPC frames it: not compressed, length, bytes.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

/// A gRPC call by hand, with an empty message.
pub async fn raw(server: &Server, path: &str, token: Option<&str>) -> Response {
    raw_body(server, path, token, vec![0; 5]).await
}

/// The same with a body of the test's own.
pub async fn raw_body(server: &Server, path: &str, token: Option<&str>, body: Vec<u8>) -> Response {
    let mut call = h2_client()
        .post(server.url(path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body);
    if let Some(token) = token {
        call = call.bearer_auth(token);
    }
    call.send().await.unwrap()
}

fn status(response: &Response) -> Status {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    Status::from_header_map(response.headers()).unwrap()
}

#[tokio::test]
async fn all_methods_answer() {
    let fake = Fake::default()
        .list(|query| Ok((0..u128::from(query.limit)).map(release).collect()))
        .entries(|query| Ok((0..u128::from(query.limit)).map(entry).collect()));
    let server = Server::start(fake).await;
    let mut releases = server.releases(CI).await;
    let request = v1::CreateReleaseRequest {
        source: "ghcr.io/acme/app:sha-1".into(),
        targets: vec![v1::Target {
            repository: "docker.io/acme/app".into(),
            unique_tags: vec!["v1.4.2".into()],
            floating_tags: vec!["v1".into()],
            guards: vec![],
        }],
        idempotency_key: "k".into(),
        ..Default::default()
    };
    let made = releases.create_release(request.clone()).await.unwrap();
    assert!(made.metadata().contains_key("x-request-id"));
    assert_eq!(made.get_ref().state(), v1::ReleaseState::Running);
    let id = uuid(3).to_string();
    let shown =
        releases.get_release(v1::GetReleaseRequest { id: id.clone(), wait: None }).await.unwrap();
    assert_eq!(shown.get_ref().id, id);
    let list = v1::ListReleasesRequest { page_size: 2, ..Default::default() };
    let page = releases.list_releases(list).await.unwrap().into_inner();
    assert!(page.releases.len() == 2 && !page.next_page_token.is_empty());
    let cancel = v1::CancelReleaseRequest { id: id.clone(), reason: "typo".into() };
    assert_eq!(releases.cancel_release(cancel).await.unwrap().get_ref().id, id);

    let mut tags = server.tags(CI).await;
    let reference = "docker.io/acme/app:v1".to_owned();
    let tag = tags.get_tag(v1::GetTagRequest { reference, at: None }).await.unwrap();
    assert_eq!(tag.get_ref().certainty(), v1::Certainty::Confirmed);
    let list = v1::ListTagMovesRequest { page_size: 1, ..Default::default() };
    let page = tags.list_tag_moves(list).await.unwrap().into_inner();
    assert_eq!(page.moves[0].leaf_hash.len(), 32);

    let denied = server.releases(READER).await.create_release(request).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let details = denied.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["field"], "targets[0].repository");
}

#[tokio::test]
async fn a_field_is_named_in_the_details() {
    let server = Server::start(Fake::default()).await;
    let request = v1::CreateReleaseRequest {
        source: "ghcr.io/acme/app:sha-1".into(),
        targets: vec![v1::Target {
            repository: "docker.io/acme/app".into(),
            unique_tags: vec!["a b".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let status = server.releases(CI).await.create_release(request).await.unwrap_err();
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "targets[0].unique_tags[0]");
    assert_eq!(details.error_info().unwrap().reason, "INVALID_REFERENCE");
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let server = Server::start(Fake::default()).await;
    for (path, token) in [
        ("/colophon.v9.Nothing/Do", None),
        ("/", None),
        ("/colophon.v1.TagService/Nothing", Some(CI)),
    ] {
        let status = status(&raw(&server, path, token).await);
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "NOT_FOUND", "{path}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_the_callers_mistake() {
    let server = Server::start(Fake::default()).await;
    let path = "/colophon.v1.ReleaseService/GetRelease";
    let large = v1::GetReleaseRequest { id: "x".repeat(1 << 20), wait: None };
    for (name, body) in [
        ("no protobuf", vec![0, 0, 0, 0, 2, 0xff, 0xff]),
        ("too large", frame(&large)),
        ("compressed", vec![1, 0, 0, 0, 0]),
        ("short", vec![0, 0]),
    ] {
        let status = status(&raw_body(&server, path, Some(CI), body).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "INVALID_ARGUMENT", "{name}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}

#[tokio::test]
async fn curl_on_a_grpc_path_gets_a_problem() {
    let server = Server::start(Fake::default()).await;
    let path = "/colophon.v1.ReleaseService/GetRelease";
    let response = send(&server, Method::GET, path).await;
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT").await;
    let response = send(&server, Method::POST, path).await;
    problem(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT").await;
}
