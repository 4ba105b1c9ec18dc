//! Putting a release to work again: who may, and how it is refused.

use std::sync::{Arc, Mutex};

use colophon_api::v1::RetryReleaseRequest;
use colophon_domain::{Failure, Reason, ReleaseView};
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    fake::{CI, DEV, Fake, GUEST, READER, Server, release, uuid},
    http::{answer, post, problem},
};

fn path() -> String {
    format!("/v1/releases/{}/retry", uuid(1))
}

#[tokio::test]
async fn who_might_ask_for_the_release_may_have_it_tried_again() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = asked.clone();
    let fake = Fake::default().retry(move |(caller, id, reason)| {
        keep.lock().unwrap().push((caller.name, id, reason));
        Ok(ReleaseView { id, ..release(1) })
    });
    let server = Server::start(fake).await;
    let body = json!({ "reason": "the registry is back" });
    assert_eq!(answer(post(&server, CI, &path(), &body).await).await["id"], uuid(1).to_string());
    let request = RetryReleaseRequest { id: uuid(1).to_string(), reason: String::new() };
    server.releases(DEV).await.retry_release(request).await.unwrap();
    let asked = asked.lock().unwrap();
    let first = ("ci".to_owned(), uuid(1), "the registry is back".to_owned());
    assert_eq!(asked[0], first);
    assert_eq!((&*asked[1].0, &*asked[1].2), ("dev", ""));
}

#[tokio::test]
async fn every_right_of_the_release_is_asked_again() {
    // The reader sees it, and may not publish; the guest may not either.
    let server = Server::start(Fake::default()).await;
    for token in [READER, GUEST] {
        let response = post(&server, token, &path(), &json!({})).await;
        let problem = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
        assert_eq!(problem["field"], "id");
    }
    assert_eq!(server.called(), ["get", "get"]);
    // A freeze was passed by: that is a right of its own, which the other caller lacks.
    let glass = || ReleaseView { break_glass: true, ..release(1) };
    let server = Server::start(Fake::default().get(move |_| Ok(Some(glass())))).await;
    let response = post(&server, DEV, &path(), &json!({})).await;
    let said = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert!(said["detail"].as_str().unwrap().contains("break_glass"), "{said}");
    answer(post(&server, CI, &path(), &json!({})).await).await;
    // What may not be seen is not there.
    let server = Server::start(Fake::default().get(|_| Ok(None))).await;
    let response = post(&server, CI, &path(), &json!({})).await;
    problem(response, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    assert_eq!(server.called(), ["get"]);
}

#[tokio::test]
async fn one_that_cannot_be_tried_again_says_what_to_do() {
    let refused = |_| {
        Err(Failure::new(Reason::NotRetryable, "release 1 has succeeded").remedy("publish again"))
    };
    let server = Server::start(Fake::default().retry(refused)).await;
    let response = post(&server, CI, &path(), &json!({})).await;
    let said = problem(response, StatusCode::CONFLICT, "NOT_RETRYABLE").await;
    assert_eq!(said["remedy"], "publish again");
}
