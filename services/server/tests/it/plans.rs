//! Plans: a release's request, answered by what it would do.

use std::sync::{Arc, Mutex};

use colophon_api::v1;
use colophon_domain::{PlannedPublication, TagMoveState};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fake::{CI, Fake, READER, Server, plan},
    http::{answer, client, post, problem},
};

fn request() -> Value {
    json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{"repository": "docker.io/acme/app", "floatingTags": ["latest", "v1"]}],
        "orderKey": {"number": 7}
    })
}

#[tokio::test]
async fn a_plan_shows_what_would_become_of_every_tag() {
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    let server = Server::start(Fake::default().plan(move |question| {
        *keep.lock().unwrap() = Some(question);
        Ok(plan())
    }))
    .await;
    let body = answer(post(&server, CI, "/v1/plans", &request()).await).await;
    let (caller, asked) = seen.lock().unwrap().take().unwrap();
    assert_eq!((caller.name.as_str(), asked.targets[0].tags.len()), ("ci", 2));
    assert_eq!(body["id"], "plan-1");
    assert_eq!(body["feasible"], false);
    assert_eq!(body["createTime"], "2026-11-03T14:02:00Z");
    assert_eq!(body["expireTime"], "2026-11-03T15:02:00Z");
    let publication = &body["publications"][0];
    assert_eq!(publication["copyFrom"], "ghcr.io/acme/app:sha-1");
    assert_eq!(
        (&publication["manifests"], &publication["blobs"], &publication["bytes"]),
        (&json!("1"), &json!("2"), &json!("3"))
    );
    assert_eq!(publication["notes"], json!(["one layer is foreign"]));
    assert_eq!(publication["obstacles"], json!([{"reason": "FROZEN", "message": "holidays"}]));
    let tags = &publication["tags"];
    assert_eq!(tags[0]["outcome"], "TAG_MOVE_STATE_MOVED");
    assert_eq!(tags[0]["newDigest"], body["digest"]);
    assert_eq!(tags[1]["outcome"], "TAG_MOVE_STATE_REFUSED");
    assert_eq!(tags[1]["reason"], "ORDER_REGRESSION");

    let message: v1::CreateReleaseRequest = serde_json::from_value(request()).unwrap();
    let by_grpc = server.releases(CI).await.plan_release(message).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(by_grpc).unwrap(), body);
    assert_eq!(server.called(), ["plan", "plan"]);
}

#[tokio::test]
async fn a_plan_is_feasible_if_nothing_stands_against_it() {
    let server = Server::start(Fake::default().plan(|_| {
        let mut view = plan();
        for publication in &mut view.publications {
            let tags = publication.tags.iter().filter(|tag| tag.outcome == TagMoveState::Moved);
            *publication = PlannedPublication {
                tags: tags.cloned().collect(),
                copy_from: None,
                obstacles: vec![],
                ..publication.clone()
            };
        }
        Ok(view)
    }))
    .await;
    let body = answer(post(&server, CI, "/v1/plans", &request()).await).await;
    assert_eq!(body["feasible"], true);
    assert_eq!(body["publications"][0]["copyFrom"], "");
}

#[tokio::test]
async fn a_plan_needs_the_rights_of_its_release_and_has_no_key() {
    let server = Server::start(Fake::default()).await;
    let refused = post(&server, READER, "/v1/plans", &request()).await;
    let denied = problem(refused, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(denied["field"], "targets[0].repository");
    let message: v1::CreateReleaseRequest = serde_json::from_value(request()).unwrap();
    let status = server.releases(READER).await.plan_release(message).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    for (name, field) in [("idempotencyKey", "idempotency_key"), ("plan", "plan")] {
        let mut body = request();
        body[name] = "k".into();
        let response = post(&server, CI, "/v1/plans", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field);
    }
    let call = client().post(server.url("/v1/plans")).bearer_auth(CI).json(&request());
    let response = call.header("Idempotency-Key", "k").send().await.unwrap();
    let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    assert_eq!(problem["field"], "idempotency_key");
    assert_eq!(server.called(), Vec::<&str>::new());
}

/// A script that hands the id on without looking must not publish without a plan.
#[tokio::test]
async fn a_plan_that_cannot_be_held_to_has_an_id_that_is_refused() {
    let server = Server::start(
        Fake::default().plan(|_| Ok(colophon_domain::PlanView { id: None, ..plan() })),
    )
    .await;
    let body = answer(post(&server, CI, "/v1/plans", &request()).await).await;
    assert_eq!(body["id"], "incomplete");
}
