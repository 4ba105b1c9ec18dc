//! Rollbacks: of one tag, and of all tags of a release.

use std::sync::{Arc, Mutex};

use colophon_api::v1::{
    self,
    rollback_request::{Position as Asked, Subject},
};
use colophon_domain::{
    Position, Purpose, ReleaseView, Repository, RollbackRequest, RollbackSubject,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{CI, DEV, Fake, READER, Server, release, uuid},
    http::{answer, client, post, problem},
};

fn of_tag() -> Value {
    json!({"reference": "docker.io/acme/app:v1", "steps": 1, "reason": "500s since 14:00"})
}

fn of_release() -> Value {
    json!({"release": uuid(7).to_string(), "reason": "500s since 14:00"})
}

/// An engine that keeps the request that it gets.
fn keeping() -> (Arc<Mutex<Option<RollbackRequest>>>, Fake) {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let fake = Fake::default().rollback(move |(_, request)| {
        *keep.lock().unwrap() = Some(request);
        Ok(ReleaseView { purpose: Purpose::Rollback, ..release(2) })
    });
    (seen, fake)
}

#[tokio::test]
async fn a_tag_goes_back_on_both_faces() {
    let (seen, fake) = keeping();
    let server = Server::start(fake).await;
    let call = client().post(server.url("/v1/rollbacks")).bearer_auth(CI).json(&of_tag());
    let body = answer(call.header("Idempotency-Key", "k").send().await.unwrap()).await;
    assert_eq!((&body["id"], &body["purpose"]), (&json!(uuid(2).to_string()), &json!("rollback")));
    let by_rest = seen.lock().unwrap().take().unwrap();
    assert_eq!(by_rest.idempotency_key.as_deref(), Some("k"));
    let RollbackSubject::Tag { repository, tag, position, expected } = &by_rest.subject else {
        panic!("{by_rest:?}");
    };
    assert_eq!((repository.to_string().as_str(), tag.as_str()), ("docker.io/acme/app", "v1"));
    assert_eq!((position, expected), (&Position::Steps(1), &None));

    let message = v1::RollbackRequest {
        subject: Some(Subject::Reference("docker.io/acme/app:v1".into())),
        position: Some(Asked::Steps(1)),
        reason: "500s since 14:00".into(),
        idempotency_key: "k".into(),
        ..Default::default()
    };
    let by_grpc = server.releases(CI).await.rollback(message).await.unwrap().into_inner();
    assert_eq!(by_grpc.purpose, "rollback");
    assert_eq!(seen.lock().unwrap().take().unwrap(), by_rest);
}

#[tokio::test]
async fn a_release_goes_back_where_the_caller_may_at_every_target() {
    let (seen, fake) = keeping();
    let server = Server::start(fake.get(|(_, id)| {
        let mut view = ReleaseView { id, ..release(7) };
        let mut other = view.publications[0].clone();
        other.repository = Repository::parse("quay.io/acme/app").unwrap();
        view.publications.push(other);
        Ok(Some(view))
    }))
    .await;
    // This caller may do everything, but not at the second target.
    let refused = post(&server, CI, "/v1/rollbacks", &of_release()).await;
    let problem = problem(refused, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(problem["field"], "release");
    assert!(problem["detail"].as_str().unwrap().contains("rollback for quay.io"), "{problem}");
    assert_eq!(server.called(), ["get"]);

    answer(post(&server, DEV, "/v1/rollbacks", &of_release()).await).await;
    let subject = seen.lock().unwrap().take().unwrap().subject;
    assert_eq!(subject, RollbackSubject::Release(uuid(7)));
}

#[tokio::test]
async fn what_may_not_be_seen_does_not_go_back() {
    let server = Server::start(Fake::default().get(|_| Ok(None))).await;
    let response = post(&server, CI, "/v1/rollbacks", &of_release()).await;
    let problem = problem(response, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    assert_eq!(problem["field"], "release");
    assert_eq!(server.called(), ["get"]);
}

#[tokio::test]
async fn rolling_back_and_breaking_the_glass_are_asked_for() {
    let server = Server::start(Fake::default()).await;
    for (subject, field) in [(of_tag(), "reference"), (of_release(), "release")] {
        let response = post(&server, READER, "/v1/rollbacks", &subject).await;
        let denied = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
        assert_eq!(denied["field"], field);

        let mut body = subject.clone();
        body["breakGlass"] = true.into();
        let response = post(&server, DEV, "/v1/rollbacks", &body).await;
        let denied = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
        assert_eq!(denied["field"], "break_glass");
        answer(post(&server, CI, "/v1/rollbacks", &body).await).await;
    }
    let message: v1::RollbackRequest = serde_json::from_value(of_tag()).unwrap();
    let status = server.releases(READER).await.rollback(message).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(server.called(), ["rollback", "get", "get", "get", "rollback"]);
}

#[tokio::test]
async fn what_cannot_go_back_is_refused_by_name() {
    let server = Server::start(Fake::default()).await;
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    for (body, field) in [
        (json!({"steps": 1, "reason": "x"}), "reference"),
        (with(of_tag(), "release", uuid(7).to_string().into()), "release"),
        (with(of_tag(), "at", "2026-11-03T14:02:00Z".into()), "steps"),
        (with(of_tag(), "steps", 0.into()), "steps"),
        (with(of_tag(), "steps", 10_001.into()), "steps"),
        (with(of_tag(), "steps", Value::Null), "steps"),
        (with(of_tag(), "reason", "".into()), "reason"),
        (with(of_release(), "steps", 1.into()), "steps"),
        (with(of_release(), "at", "2026-11-03T14:02:00Z".into()), "at"),
        (with(of_release(), "expectedDigest", "none".into()), "expected_digest"),
        (json!({"reference": "acme/app:v1", "at": "2026-11-03T14:02:01Z", "reason": "x"}), "at"),
    ] {
        let response = post(&server, CI, "/v1/rollbacks", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}
