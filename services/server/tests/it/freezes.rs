//! Freezes: made, listed and lifted, by whom they concern.

use std::sync::{Arc, Mutex};

use colophon_api::v1;
use colophon_domain::{Failure, FreezeView, Lifted, Reason};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{CI, DEV, Fake, NOW, READER, Server, freeze, uuid},
    http::{answer, client, get, post, problem},
};

fn request() -> Value {
    json!({"pattern": "docker.io/acme/*", "reason": "holidays", "endTime": "2026-11-04T14:02:00Z"})
}

#[tokio::test]
async fn a_freeze_is_made_on_both_faces() {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let server = Server::start(Fake::default().freeze(move |question| {
        *keep.lock().unwrap() = Some(question);
        Ok(freeze(1))
    }))
    .await;
    let body = answer(post(&server, CI, "/v1/freezes", &request()).await).await;
    let wanted = json!({
        "id": uuid(1).to_string(),
        "pattern": "docker.io/acme/*",
        "reason": "holidays",
        "actor": "ci",
        "createTime": "2026-11-03T14:02:00Z",
        "endTime": "2026-11-04T14:02:00Z",
        "liftedBy": "",
        "active": true,
        "liftReason": ""
    });
    assert_eq!(body, wanted);
    let by_rest = seen.lock().unwrap().take().unwrap();
    let (caller, asked) = &by_rest;
    assert_eq!((caller.name.as_str(), asked.reason.as_str()), ("ci", "holidays"));
    assert_eq!(asked.pattern.to_string(), "docker.io/acme/*");
    assert_eq!(asked.ends_at, NOW + time::Duration::DAY);

    let message: v1::CreateFreezeRequest = serde_json::from_value(request()).unwrap();
    let made = server.freezes(CI).await.create_freeze(message).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(made).unwrap(), wanted);
    assert_eq!(seen.lock().unwrap().take().unwrap(), by_rest);
}

#[tokio::test]
async fn freezing_is_a_right_over_the_whole_pattern() {
    let server = Server::start(Fake::default()).await;
    // The first has no right to freeze, the second not for so much.
    for (token, name, pattern) in [(DEV, "dev", "docker.io/acme/*"), (CI, "ci", "*")] {
        let mut body = request();
        body["pattern"] = pattern.into();
        let response = post(&server, token, "/v1/freezes", &body).await;
        let denied = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
        assert_eq!(denied["field"], "pattern");
        let said = format!("{name} lacks the action freeze for all of {pattern}");
        assert_eq!(denied["detail"], said);
        let message: v1::CreateFreezeRequest = serde_json::from_value(body).unwrap();
        let status = server.freezes(token).await.create_freeze(message).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, said.as_str()));
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_freeze_of_a_registry_that_is_not_there_is_refused_as_documented() {
    let unknown = |_| Err(Failure::new(Reason::UnknownRegistry, "r.lan is not configured"));
    let server = Server::start(Fake::default().freeze(unknown)).await;
    let response = post(&server, CI, "/v1/freezes", &request()).await;
    problem(response, StatusCode::BAD_REQUEST, "UNKNOWN_REGISTRY").await;
}

#[tokio::test]
async fn a_freeze_has_a_reason_and_an_end() {
    let server = Server::start(Fake::default()).await;
    for (name, value, field) in [
        ("pattern", json!(""), "pattern"),
        ("pattern", json!("acme/*"), "pattern"),
        ("pattern", json!("docker.io/ac*"), "pattern"),
        ("reason", json!(""), "reason"),
        ("endTime", Value::Null, "end_time"),
        ("endTime", json!("2026-11-03T14:02:00Z"), "end_time"),
        ("endTime", json!("2027-11-04T14:02:01Z"), "end_time"),
        ("endTime", json!("never"), "end_time"),
        ("startTime", json!("2026-11-03T14:02:00Z"), "startTime"),
    ] {
        let mut body = request();
        body[name] = value;
        let response = post(&server, CI, "/v1/freezes", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{problem}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}

#[tokio::test]
async fn freezes_are_listed_to_whom_they_concern() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = asked.clone();
    let server = Server::start(Fake::default().freezes(move |include_ended| {
        keep.lock().unwrap().push(include_ended);
        let of = |number, pattern: &str| FreezeView {
            pattern: pattern.parse().unwrap(),
            ..freeze(number)
        };
        Ok(vec![of(3, "ghcr.io/acme/app"), of(2, "docker.io/acme/*"), of(1, "*")])
    }))
    .await;
    let shown = async |token, path| {
        let body = answer(get(&server, token, path).await).await;
        let list = body["freezes"].as_array().unwrap().clone();
        list.iter().map(|freeze| freeze["pattern"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = ["ghcr.io/acme/app", "docker.io/acme/*", "*"];
    assert_eq!(shown(CI, "/v1/freezes").await, all);
    let of_reader = ["ghcr.io/acme/app", "*"];
    assert_eq!(shown(READER, "/v1/freezes?includeEnded=true").await, of_reader);
    let list = v1::ListFreezesRequest { include_ended: true };
    let by_grpc = server.freezes(READER).await.list_freezes(list).await.unwrap().into_inner();
    let patterns: Vec<_> = by_grpc.freezes.iter().map(|freeze| freeze.pattern.as_str()).collect();
    assert_eq!(patterns, of_reader);
    assert_eq!(*asked.lock().unwrap(), [false, true, true]);

    for (query, field) in [("include_ended=1", "include_ended"), ("pattern=*", "pattern")] {
        let response = get(&server, CI, &format!("/v1/freezes?{query}")).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field);
    }
}

#[tokio::test]
async fn a_freeze_is_lifted_by_its_id() {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let keep = reasons.clone();
    let server = Server::start(Fake::default().lift(move |(caller, id, reason)| {
        keep.lock().unwrap().push(reason.clone());
        let lifted = Some(Lifted { at: NOW, by: caller.name, reason });
        Ok(FreezeView { id, lifted, active: false, ..freeze(1) })
    }))
    .await;
    let path = format!("/v1/freezes/{}/lift", uuid(5));
    let body = answer(post(&server, CI, &path, &json!({"reason": "mended"})).await).await;
    assert_eq!(body["id"], uuid(5).to_string());
    assert_eq!((&body["liftedBy"], &body["active"]), (&json!("ci"), &json!(false)));
    assert_eq!(body["liftTime"], "2026-11-03T14:02:00Z");
    assert_eq!(body["liftReason"], "mended");
    answer(post(&server, CI, &path, &json!({"id": uuid(5).to_string()})).await).await;
    let lift = v1::LiftFreezeRequest { id: uuid(5).to_string(), reason: String::new() };
    let lifted = server.freezes(CI).await.lift_freeze(lift).await.unwrap().into_inner();
    assert!(!lifted.active && lifted.lift_time.is_some());
    assert_eq!(server.called(), ["find_freeze", "lift"].repeat(3));
    assert_eq!(*reasons.lock().unwrap(), ["mended", "", ""]);

    for (path, body, field) in [
        (path.as_str(), json!({"id": uuid(6).to_string()}), "id"),
        ("/v1/freezes/7/lift", json!({}), "id"),
        (path.as_str(), json!({"reason": "a\nb"}), "reason"),
    ] {
        let response = post(&server, CI, path, &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field);
    }
}

#[tokio::test]
async fn a_freeze_that_may_not_be_seen_looks_like_none() {
    let none = Server::start(Fake::default().find_freeze(|_| Ok(None))).await;
    let unseen = Server::start(Fake::default()).await;
    let path = format!("/v1/freezes/{}/lift", uuid(5));
    let mut answers = Vec::new();
    for (server, token) in [(&none, CI), (&unseen, READER)] {
        let response = post(server, token, &path, &json!({})).await;
        let mut missing = problem(response, StatusCode::NOT_FOUND, "NOT_FOUND").await;
        missing["instance"].take();
        answers.push(missing);
        let lift = v1::LiftFreezeRequest { id: uuid(5).to_string(), reason: String::new() };
        let status = server.freezes(token).await.lift_freeze(lift).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(server.called(), ["find_freeze"; 2]);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn who_sees_a_freeze_may_still_not_lift_it() {
    let server = Server::start(Fake::default()).await;
    let path = format!("/v1/freezes/{}/lift", uuid(5));
    let response = post(&server, DEV, &path, &json!({})).await;
    let reason = Reason::PermissionDenied.as_str();
    let denied = problem(response, StatusCode::FORBIDDEN, reason).await;
    assert_eq!(denied["field"], "id");
    assert_eq!(denied["detail"], "dev lacks the action freeze for all of docker.io/acme/*");
    assert_eq!(server.called(), ["find_freeze"]);
}

/// Whoever gives a key relies on it; where there is none, it is not passed over in silence.
#[tokio::test]
async fn a_key_is_refused_where_sending_again_is_not_made_safe_by_it() {
    let server = Server::start(Fake::default()).await;
    let lift = format!("/v1/freezes/{}/lift", uuid(5));
    for (path, body) in [
        ("/v1/freezes", request()),
        (lift.as_str(), json!({})),
        ("/v1/tag/settle", json!({ "reference": "ghcr.io/acme/app:latest" })),
    ] {
        let call = client().post(server.url(path)).bearer_auth(CI).json(&body);
        let response = call.header("Idempotency-Key", "k").send().await.unwrap();
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], "idempotency_key", "{path}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}
