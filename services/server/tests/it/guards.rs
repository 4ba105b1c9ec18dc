//! What keeps a tag from moving, as it is asked for: guards, order keys, versions, rights.

use std::sync::{Arc, Mutex};

use colophon_api::v1::{self, order_key::Key};
use colophon_domain::{
    Expected, IfOlder, OnFailure, OrderKey, Reason, ReleaseRequest, ReleaseView, TagMoveState,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{CI, DEV, Fake, Server, release},
    http::{answer, post, problem},
};

fn request() -> Value {
    json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{
            "repository": "docker.io/acme/app",
            "uniqueTags": ["v1.4.2"],
            "floatingTags": ["v1", "latest"],
            "guards": [
                {"tag": "v1.4.2", "expectedDigest": "none"},
                {"tag": "v1", "order_key": {"semver": "1.4.2"}}
            ]
        }],
        "reason": "the old one works",
        "orderKey": {"number": "1234"},
        "ifOlder": "OLDER_POLICY_SUPERSEDE",
        "allowBackward": true,
        "onFailure": "ON_FAILURE_KEEP",
        "plan": "plan-1",
        "breakGlass": true
    })
}

/// An engine that keeps the request that it gets.
fn keeping() -> (Arc<Mutex<Option<ReleaseRequest>>>, Fake) {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let fake = Fake::default().create(move |(_, request)| {
        *keep.lock().unwrap() = Some(request);
        Ok(release(1))
    });
    (seen, fake)
}

#[tokio::test]
async fn both_faces_read_the_same_conditions() {
    let (seen, fake) = keeping();
    let server = Server::start(fake).await;
    answer(post(&server, CI, "/v1/releases", &request()).await).await;
    let by_rest = seen.lock().unwrap().take().unwrap();
    let tags = &by_rest.targets[0].tags;
    assert_eq!(tags[0].expected, Some(Expected::Absent));
    assert_eq!(tags[1].order, Some("semver:1.4.2".parse().unwrap()));
    assert_eq!(tags[2].order, Some(OrderKey::Number(1_234)));
    assert_eq!(tags[2].if_older, IfOlder::Supersede);
    assert!(by_rest.allow_backward && by_rest.break_glass);
    assert_eq!(by_rest.on_failure, OnFailure::Keep);
    assert_eq!(by_rest.plan.as_deref(), Some("plan-1"));

    let message: v1::CreateReleaseRequest = serde_json::from_value(request()).unwrap();
    assert_eq!(message.order_key.as_ref().unwrap().key, Some(Key::Number(1_234)));
    server.releases(CI).await.create_release(message).await.unwrap();
    assert_eq!(seen.lock().unwrap().take().unwrap(), by_rest);
}

#[tokio::test]
async fn a_version_alone_is_enough() {
    let (seen, fake) = keeping();
    let server = Server::start(fake).await;
    let body = json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app"}],
        "semver": "v1.4.2-rc.1",
        "semverMovesPreRelease": true
    });
    answer(post(&server, CI, "/v1/releases", &body).await).await;
    let version = seen.lock().unwrap().take().unwrap().version.unwrap();
    assert_eq!(version.version.to_string(), "v1.4.2-rc.1");
    assert!(version.moves_pre_release);
}

#[tokio::test]
async fn conditions_that_make_no_sense_are_refused_by_name() {
    let server = Server::start(Fake::default()).await;
    let changed = |path: &str, value: Value| {
        let mut body = request();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let twice = json!([{"tag": "v1", "expectedDigest": "none"}, {"tag": "v1"}]);
    for (body, field) in [
        (changed("/targets/0/guards", twice), "targets[0].guards[1].tag"),
        (changed("/targets/0/guards/0/tag", "v2".into()), "targets[0].guards[0].tag"),
        (
            changed("/targets/0/guards/0/expectedDigest", "".into()),
            "targets[0].guards[0].expected_digest",
        ),
        (changed("/targets/0/guards/1/tag", "v1.4.2".into()), "targets[0].guards[1].tag"),
        (changed("/targets/0/guards/1/order_key", json!({})), "targets[0].guards[1].order_key"),
        (
            changed("/targets/0/guards/1/order_key", json!({"semver": "1.4"})),
            "targets[0].guards[1].order_key.semver",
        ),
        (changed("/orderKey", json!({"number": "9223372036854775808"})), "order_key.number"),
        (changed("/orderKey", json!({"number": -1})), "order_key.number"),
        (changed("/orderKey", json!({"time": "1969-12-31T23:59:59Z"})), "order_key.time"),
        (changed("/ifOlder", "REFUSE".into()), "if_older"),
        (changed("/onFailure", json!(7)), "on_failure"),
        (changed("/reason", "".into()), "reason"),
    ] {
        let response = post(&server, CI, "/v1/releases", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{problem}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}

#[tokio::test]
async fn breaking_the_glass_is_a_right_of_its_own() {
    let server = Server::start(Fake::default()).await;
    let mut body = request();
    let refused = post(&server, DEV, "/v1/releases", &body).await;
    let problem = problem(refused, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(problem["field"], "break_glass");
    assert!(problem["detail"].as_str().unwrap().contains("break_glass"), "{problem}");
    let message: v1::CreateReleaseRequest = serde_json::from_value(body.clone()).unwrap();
    let status = server.releases(DEV).await.create_release(message).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(server.called(), Vec::<&str>::new());

    body["breakGlass"] = false.into();
    answer(post(&server, DEV, "/v1/releases", &body).await).await;
}

#[tokio::test]
async fn a_release_says_what_it_waits_for_and_what_was_put_back() {
    let server = Server::start(Fake::default().get(|(_, id)| {
        let mut view = ReleaseView {
            id,
            waiting_for: Some("holidays".into()),
            waiting_reason: Some(Reason::Frozen),
            on_failure: OnFailure::Keep,
            plan: Some("plan-1".into()),
            version: Some("v1.4.2".into()),
            break_glass: true,
            ..release(1)
        };
        let tag = &mut view.publications[0].tags[0];
        tag.state = TagMoveState::Restored;
        tag.reason = Some(Reason::Restored);
        tag.wanted = tag.new_digest.clone().or(Some(view.digest.clone()));
        Ok(Some(view))
    }))
    .await;
    let id = crate::fake::uuid(1);
    let body = answer(crate::http::get(&server, CI, &format!("/v1/releases/{id}")).await).await;
    assert_eq!(body["waitingReason"], "FROZEN");
    assert_eq!(body["onFailure"], "ON_FAILURE_KEEP");
    assert_eq!(body["plan"], "plan-1");
    assert_eq!(body["semver"], "v1.4.2");
    assert_eq!(body["breakGlass"], true);
    let tag = &body["publications"][0]["tags"][0];
    assert_eq!(tag["state"], "TAG_MOVE_STATE_RESTORED");
    assert_eq!(tag["reason"], "RESTORED");
    assert_eq!(tag["wantedDigest"], body["digest"]);
}
