//! Failures of the engine, on both faces.

use std::time::Duration;

use colophon_api::v1;
use colophon_domain::{Failure, Reason, Retry};
use colophon_server::{ConnectionLimits, ServerSettings, row};
use reqwest::StatusCode;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, Fake, Server, uuid},
    http::{form, get, problem},
};

fn ask() -> v1::GetReleaseRequest {
    v1::GetReleaseRequest { id: uuid(1).to_string(), wait: None }
}

fn path() -> String {
    format!("/v1/releases/{}", uuid(1))
}

#[tokio::test]
async fn every_reason_looks_the_same_on_both_faces() {
    let mut reasons = Reason::ALL.iter().flat_map(|reason| [*reason, *reason]);
    let server = Server::start(Fake::default().get(move |_| {
        let reason = reasons.next().unwrap();
        Err(Failure::new(reason, "what happened").field("id").remedy("what to do"))
    }))
    .await;
    let mut grpc = server.releases(CI).await;
    for reason in Reason::ALL {
        let row = row(reason.kind());
        let problem = form(get(&server, CI, &path()).await, row.status, reason.as_str()).await;
        let status = grpc.get_release(ask()).await.unwrap_err();
        assert_eq!(status.code(), row.code, "{reason}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "colophon"));
        assert_eq!(problem["detail"], status.message());
        assert_eq!(problem["remedy"].as_str(), info.metadata.get("remedy").map(String::as_str));
        assert_eq!(problem["field"].as_str(), info.metadata.get("field").map(String::as_str));
        let violation = details.bad_request().map(|request| &request.field_violations[0].field);
        assert_eq!(violation.is_some(), row.code == Code::InvalidArgument, "{reason}");
        assert!(details.request_info().is_some_and(|info| !info.request_id.is_empty()));
    }
}

#[tokio::test]
async fn a_pause_is_told_where_one_is_known() {
    let server = Server::start(Fake::default().get(|_| {
        let pause = Duration::from_millis(2_500);
        Err(Failure::new(Reason::RateLimited, "slow down").retry(Retry::Wait(pause)))
    }))
    .await;
    let response = get(&server, CI, &path()).await;
    assert_eq!(response.headers()["retry-after"], "3");
    let status = server.releases(CI).await.get_release(ask()).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(2_500)));
}

#[tokio::test]
async fn a_defect_is_told_without_its_particulars() {
    let server = Server::start(Fake::default().get(|_| {
        let cause = std::io::Error::other("disk full");
        Err(Failure::new(Reason::Internal, "row 7 of job").remedy("vacuum").caused_by(cause))
    }))
    .await;
    let response = get(&server, CI, &path()).await;
    let problem = problem(response, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL").await;
    let status = server.releases(CI).await.get_release(ask()).await.unwrap_err();
    let shown = format!("{problem} {status:?} {:?}", status.get_error_details());
    for secret in ["row 7", "vacuum", "disk full"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_panic_ends_one_call_only() {
    let server = Server::start(Fake::default().get(|_| panic!("on purpose"))).await;
    let client = crate::http::client();
    for _ in 0..2 {
        let call = client.get(server.url(&path())).bearer_auth(CI);
        let response = call.send().await.unwrap();
        problem(response, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL").await;
        let status = server.releases(CI).await.get_release(ask()).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "INTERNAL");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_ended() {
    let never = || Fake::default().create_later(|_| Box::pin(std::future::pending()));
    let body = serde_json::json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app", "uniqueTags": ["v1"]}]
    });
    let message = v1::CreateReleaseRequest {
        source: "ghcr.io/acme/app:sha-1".into(),
        targets: vec![v1::Target {
            repository: "docker.io/acme/app".into(),
            unique_tags: vec!["v1".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    let short = ServerSettings { call_timeout: Duration::from_millis(50), ..Default::default() };
    let server = Server::with(never(), short, ConnectionLimits::default()).await;
    let response = crate::http::post(&server, CI, "/v1/releases", &body).await;
    problem(response, StatusCode::SERVICE_UNAVAILABLE, "TIMEOUT").await;
    let status = server.releases(CI).await.create_release(message.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "TIMEOUT");

    // The same with a limit that only the caller has set.
    let server = Server::start(never()).await;
    let response = crate::http::h2_client()
        .post(server.url("/colophon.v1.ReleaseService/CreateRelease"))
        .bearer_auth(CI)
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "50m")
        .body(crate::grpc::frame(&message))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
}
