//! Settling by hand what became of an interrupted move.

use std::sync::{Arc, Mutex};

use colophon_api::v1;
use colophon_domain::{Failure, Reason, Settlement};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{CI, DEV, Fake, Server, tag},
    http::{answer, post, problem},
};

fn request() -> Value {
    json!({
        "reference": "docker.io/acme/app:v1",
        "settledAs": "SETTLED_AS_NOT_MOVED",
        "reason": "the registry is gone",
        "onBehalfOf": "web"
    })
}

#[tokio::test]
async fn a_person_says_what_became_of_a_move() {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let server = Server::start(Fake::default().settle(move |question| {
        *keep.lock().unwrap() = Some(question);
        Ok(tag())
    }))
    .await;
    let body = answer(post(&server, CI, "/v1/tag/settle", &request()).await).await;
    assert_eq!(body["reference"], "docker.io/acme/app:v1");
    assert_eq!(body["certainty"], "CERTAINTY_CONFIRMED");
    let by_rest = seen.lock().unwrap().take().unwrap();
    let (caller, repository, tag, settlement, reason, on_behalf_of) = &by_rest;
    assert_eq!((caller.name.as_str(), tag.as_str()), ("ci", "v1"));
    assert_eq!(repository.to_string(), "docker.io/acme/app");
    assert_eq!(*settlement, Settlement::NotMoved);
    assert_eq!((reason.as_str(), on_behalf_of.as_str()), ("the registry is gone", "web"));

    let message: v1::SettleTagRequest = serde_json::from_value(request()).unwrap();
    server.tags(CI).await.settle_tag(message).await.unwrap();
    assert_eq!(seen.lock().unwrap().take().unwrap(), by_rest);
}

#[tokio::test]
async fn what_is_not_unknown_is_not_settled() {
    let server = Server::start(
        Fake::default().settle(|_| Err(Failure::new(Reason::NotUnknown, "its outcome is known"))),
    )
    .await;
    let response = post(&server, CI, "/v1/tag/settle", &request()).await;
    problem(response, StatusCode::CONFLICT, "NOT_UNKNOWN").await;
}

#[tokio::test]
async fn settling_is_a_right_and_needs_all_of_its_fields() {
    let server = Server::start(Fake::default()).await;
    let response = post(&server, DEV, "/v1/tag/settle", &request()).await;
    let denied = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(denied["field"], "reference");
    assert!(denied["detail"].as_str().unwrap().contains("settle for docker.io"), "{denied}");
    let message: v1::SettleTagRequest = serde_json::from_value(request()).unwrap();
    let status = server.tags(DEV).await.settle_tag(message).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    for (name, value, field) in [
        ("reference", json!(""), "reference"),
        ("settledAs", json!("SETTLED_AS_UNSPECIFIED"), "settled_as"),
        ("settledAs", json!("MOVED"), "settled_as"),
        ("reason", json!(" "), "reason"),
        ("onBehalfOf", json!("a\nb"), "on_behalf_of"),
        ("certainty", json!("CERTAINTY_CONFIRMED"), "certainty"),
    ] {
        let mut body = request();
        body[name] = value;
        let response = post(&server, CI, "/v1/tag/settle", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{problem}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}
