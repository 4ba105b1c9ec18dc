//! The REST face: requests in, answers out, and pages.

use std::sync::{Arc, Mutex};

use colophon_domain::{Action, ReleaseState, ReleaseView};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    fake::{CI, Fake, NOW, READER, Server, entry, release, uuid},
    http::{answer, client, get, post, problem, send},
};

fn request() -> Value {
    json!({
        "source": "ghcr.io/acme/app:sha-1",
        "targets": [{
            "repository": "docker.io/acme/app",
            "uniqueTags": ["v1.4.2"],
            "floating_tags": ["v1"]
        }],
        "reason": "weekly",
        "notAfter": "2026-11-04T00:00:00+01:00",
        "priority": 5
    })
}

/// A place where a scripted engine leaves what it was asked.
type Slot<T> = Arc<Mutex<Option<T>>>;

fn slot<T>() -> (Slot<T>, Slot<T>) {
    let slot = Arc::new(Mutex::new(None));
    (slot.clone(), slot)
}

#[tokio::test]
async fn a_release_is_made_by_one_post() {
    let (seen, keep) = slot();
    let server = Server::start(Fake::default().create(move |question| {
        *keep.lock().unwrap() = Some(question);
        Ok(release(1))
    }))
    .await;
    let response = client()
        .post(server.url("/v1/releases"))
        .bearer_auth(CI)
        .header("idempotency-key", "run 17")
        .json(&request())
        .send()
        .await
        .unwrap();
    let body = answer(response).await;
    assert_eq!(body["id"], uuid(1).to_string());
    assert_eq!(body["state"], "RELEASE_STATE_RUNNING");
    assert_eq!(body["createTime"], "2026-11-03T14:02:00Z");
    assert_eq!(body["publications"][0]["tags"][0]["ticket"], "7");
    assert_eq!(body["publications"][0]["tags"][0]["kind"], "TAG_KIND_FLOATING");
    assert_eq!(body["publications"][0]["blobsCopied"], "2");
    assert_eq!(body["publications"][0]["tags"][0]["orderKey"], "number:1234");
    assert_eq!(body["publications"][0]["tags"][0]["expectedDigest"], "none");
    assert_eq!(body["labels"], json!({"team": "web"}));
    assert_eq!(body["purpose"], "publish");
    assert_eq!(body["onFailure"], "ON_FAILURE_RESTORE");
    let (caller, request) = seen.lock().unwrap().take().unwrap();
    assert_eq!(caller.name, "ci");
    assert_eq!(request.idempotency_key.as_deref(), Some("run 17"));
    assert_eq!(request.source.to_string(), "ghcr.io/acme/app:sha-1");
    assert_eq!(request.targets[0].tags[1].tag.as_str(), "v1");
    assert_eq!(request.not_after.unwrap(), NOW + time::Duration::minutes(9 * 60 - 2));
    assert_eq!(request.priority, 5);
}

#[tokio::test]
async fn the_idempotency_key_is_said_once_or_twice_the_same() {
    let server = Server::start(Fake::default()).await;
    let call = |field: &'static str, headers: &'static [&'static str]| {
        let mut body = request();
        body["idempotencyKey"] = field.into();
        let mut call = client().post(server.url("/v1/releases")).bearer_auth(CI).json(&body);
        for header in headers {
            call = call.header("Idempotency-Key", *header);
        }
        async move { call.send().await.unwrap() }
    };
    answer(call("k", &[]).await).await;
    answer(call("k", &["k"]).await).await;
    answer(call("", &["k", "k"]).await).await;
    for (field, headers) in
        [("k", &["other"] as &[_]), ("", &["a", "b"]), ("", &[""]), ("", &["é"])]
    {
        let response = call(field, headers).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], "idempotency_key");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name() {
    let server = Server::start(Fake::default()).await;
    let changed = |path: &str, value: Value| {
        let mut body = request();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let twice = json!(["v1.4.2", "v1.4.2"]);
    let cases = [
        (json!({}), "INVALID_ARGUMENT", "source"),
        (changed("/source", "ghcr.io/acme/app".into()), "INVALID_REFERENCE", "source"),
        (changed("/targets", json!([])), "INVALID_ARGUMENT", "targets"),
        (changed("/targets/0/uniqueTags", twice), "INVALID_ARGUMENT", "targets[0].unique_tags[1]"),
        (
            changed("/targets/0/uniqueTags/0", "a b".into()),
            "INVALID_REFERENCE",
            "targets[0].unique_tags[0]",
        ),
        (changed("/priority", json!(101)), "INVALID_ARGUMENT", "priority"),
        (changed("/priority", json!("x")), "INVALID_ARGUMENT", "priority"),
        (changed("/reason", "a\nb".into()), "INVALID_ARGUMENT", "reason"),
        (changed("/notAfter", "soon".into()), "INVALID_ARGUMENT", "not_after"),
        (json!({"colour": "red"}), "INVALID_ARGUMENT", "colour"),
    ];
    for (body, reason, field) in cases {
        let response = post(&server, CI, "/v1/releases", &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, reason).await;
        assert_eq!(problem["field"], field, "{problem}");
    }
    assert_eq!(server.called(), Vec::<&str>::new());
}

#[tokio::test]
async fn the_body_is_one_json_object_of_at_most_1_mib() {
    let server = Server::start(Fake::default()).await;
    let call = |media: Option<&str>, body: Vec<u8>| {
        let mut call = client().post(server.url("/v1/releases")).bearer_auth(CI).body(body);
        if let Some(media) = media {
            call = call.header("content-type", media);
        }
        async move { call.send().await.unwrap() }
    };
    let json = Some("application/json");
    let broken = call(json, b"{\n  \"source\": }".to_vec()).await;
    let problem_of_broken = problem(broken, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    let detail = problem_of_broken["detail"].as_str().unwrap();
    assert!(detail.contains("line 2 column 13"), "{detail}");
    for body in ["", "[]", "{} {}", "nonsense"] {
        let response = call(json, body.into()).await;
        problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    }
    for media in [None, Some("text/plain"), Some("application/jsonx"), Some("")] {
        let response = call(media, b"{}".to_vec()).await;
        problem(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT").await;
    }
    let charset = call(Some("Application/JSON; charset=utf-8"), request().to_string().into()).await;
    answer(charset).await;
    let large = vec![b' '; (1 << 20) + 1];
    let announced = call(json, large.clone()).await;
    problem(announced, StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT").await;
    let pieces = large.chunks(1 << 16).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces: Vec<_> = pieces.collect();
    let streamed = client()
        .post(server.url("/v1/releases"))
        .bearer_auth(CI)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
        .send()
        .await
        .unwrap();
    problem(streamed, StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT").await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems_too() {
    let server = Server::start(Fake::default()).await;
    for path in ["/", "/v1", "/v1/releases/", "/v2/releases", "/v1/releases/a/b/c", "//", "/%00"] {
        let response = send(&server, Method::GET, path).await;
        problem(response, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/releases", "POST,GET,HEAD"),
        (Method::POST, "/v1/tag", "GET,HEAD"),
        (Method::GET, "/v1/releases/1/cancel", "POST"),
        (Method::OPTIONS, "/v1/tag-moves", "GET,HEAD"),
        (Method::POST, "/healthz", "GET,HEAD"),
    ] {
        let call = client().request(method.clone(), server.url(path)).bearer_auth(CI);
        let response = call.send().await.unwrap();
        let allow = response.headers()["allow"].to_str().unwrap().to_owned();
        let mut got: Vec<_> = allow.split(',').collect();
        let mut wanted: Vec<_> = allowed.split(',').collect();
        got.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(got, wanted, "{method} {path}");
        problem(response, StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT").await;
    }
}

#[tokio::test]
async fn a_release_is_shown_and_cancelled_by_its_id() {
    let server = Server::start(Fake::default()).await;
    let path = format!("/v1/releases/{}", uuid(5));
    assert_eq!(answer(get(&server, CI, &path).await).await["id"], uuid(5).to_string());
    let cancel = format!("{path}/cancel");
    let body = answer(post(&server, CI, &cancel, &json!({"reason": "typo"})).await).await;
    assert_eq!(body["id"], uuid(5).to_string());
    let same = json!({"id": uuid(5).to_string()});
    answer(post(&server, CI, &cancel, &same).await).await;
    for (path, body) in [
        (cancel.as_str(), json!({"id": uuid(6).to_string()})),
        ("/v1/releases/7/cancel", json!({})),
        ("/v1/releases/%FF/cancel", json!({})),
    ] {
        let response = post(&server, CI, path, &body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], "id");
    }
}

#[tokio::test]
async fn what_may_not_be_seen_looks_like_what_is_not_there() {
    let server = Server::start(Fake::default().get(|(visibility, _)| {
        assert_eq!(visibility.principal, "reader");
        assert_eq!(visibility.readable, ["ghcr.io/acme/*".parse().unwrap()]);
        Ok(None)
    }))
    .await;
    for (method, path) in [(Method::GET, ""), (Method::POST, "/cancel")] {
        let call = client()
            .request(method, server.url(&format!("/v1/releases/{}{path}", uuid(1))))
            .bearer_auth(READER)
            .json(&json!({}));
        let response = call.send().await.unwrap();
        problem(response, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    }
    assert_eq!(server.called(), ["get", "get"]);
}

#[tokio::test]
async fn who_sees_a_release_may_still_not_cancel_it() {
    let server = Server::start(Fake::default()).await;
    let path = format!("/v1/releases/{}/cancel", uuid(1));
    let response = post(&server, READER, &path, &json!({})).await;
    let problem = problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(Action::Cancel.as_str()), "{detail}");
    assert_eq!(server.called(), ["get"]);
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let (seen, keep) = slot();
    let server = Server::start(Fake::default().list(move |query| {
        let rows = (1..=u128::from(query.limit)).map(|number| release(100 - number)).collect();
        *keep.lock().unwrap() = Some(query);
        Ok(rows)
    }))
    .await;
    let path = "/v1/releases?pageSize=2&repository=acme/app&actor=ci&label=team%3Dweb\
                &states=RELEASE_STATE_FAILED&states=RELEASE_STATE_QUEUED";
    let first = answer(get(&server, CI, path).await).await;
    assert_eq!(first["releases"].as_array().unwrap().len(), 2);
    let query = seen.lock().unwrap().take().unwrap();
    assert_eq!((query.limit, query.before), (3, None));
    assert_eq!(query.states, [ReleaseState::Queued, ReleaseState::Failed]);
    assert_eq!(query.label, Some(("team".into(), "web".into())));
    assert_eq!(query.repository.unwrap().to_string(), "docker.io/acme/app");
    assert_eq!(query.actor.as_deref(), Some("ci"));

    let token = first["nextPageToken"].as_str().unwrap();
    answer(get(&server, CI, &format!("{path}&page_token={token}")).await).await;
    assert_eq!(seen.lock().unwrap().take().unwrap().before, Some(uuid(98)));

    for path in [
        format!("/v1/releases?page_token={token}"),
        format!("{path}&page_token=garbage"),
        format!("/v1/tag-moves?page_token={token}"),
    ] {
        let response = get(&server, CI, &path).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_PAGE_TOKEN").await;
        assert_eq!(problem["field"], "page_token");
    }
    let of_another = get(&server, READER, &format!("{path}&page_token={token}")).await;
    problem(of_another, StatusCode::BAD_REQUEST, "INVALID_PAGE_TOKEN").await;
}

#[tokio::test]
async fn progress_is_there_from_the_plan_on_and_not_in_lists() {
    let planned = |total| {
        let mut view = release(1);
        view.publications[0].copied.blobs_total = total;
        view
    };
    let path = format!("/v1/releases/{}", uuid(1));
    for (total, progress) in [(5, json!({ "blobs": [], "blobsTotal": "5" })), (0, Value::Null)] {
        let fake = Fake::default().get(move |_| Ok(Some(planned(total))));
        let server = Server::start(fake.list(move |_| Ok(vec![planned(total)]))).await;
        let shown = answer(get(&server, CI, &path).await).await;
        assert_eq!(shown["publications"][0]["progress"], progress);
        let body = answer(get(&server, CI, "/v1/releases").await).await;
        assert_eq!(body["releases"][0]["publications"][0]["progress"], Value::Null);
    }
}

#[tokio::test]
async fn the_last_page_has_no_token_and_lists_leave_attempts_out() {
    let server = Server::start(Fake::default().list(|_| {
        let attempt = colophon_domain::AttemptView {
            job: colophon_domain::JobKind::Copy,
            repository: colophon_domain::Repository::parse("docker.io/acme/app").unwrap(),
            number: 1,
            reason: colophon_domain::Reason::RateLimited,
            message: "slow down".into(),
            started_at: NOW,
            ended_at: NOW,
            worker: "w".into(),
        };
        Ok(vec![ReleaseView { attempts: vec![attempt], ..release(1) }])
    }))
    .await;
    let body = answer(get(&server, CI, "/v1/releases?page_size=1").await).await;
    assert_eq!(body["nextPageToken"], "");
    assert_eq!(body["releases"][0]["attempts"], json!([]));
}

#[tokio::test]
async fn the_ledger_is_read_by_query_parameters() {
    let (seen, keep) = slot();
    let server = Server::start(Fake::default().entries(move |query| {
        let rows = (1..=u128::from(query.limit)).map(|number| entry(50 - number)).collect();
        *keep.lock().unwrap() = Some(query);
        Ok(rows)
    }))
    .await;
    let path = "/v1/tag-moves?page_size=1&reference=docker.io/acme/app:v1&includeIntents=true\
                &after=2026-11-01T00:00:00Z&before=2026-11-02T00:00:00%2B02:00&actor=ci";
    let first = answer(get(&server, CI, path).await).await;
    assert_eq!(first["moves"][0]["tagSeq"], "49");
    assert_eq!(first["moves"][0]["body"], "e30=");
    let query = seen.lock().unwrap().take().unwrap();
    assert_eq!(query.tag.unwrap().as_str(), "v1");
    assert!(query.include_intents && query.from < query.until);
    let token = first["nextPageToken"].as_str().unwrap();
    answer(get(&server, CI, &format!("{path}&page_token={token}")).await).await;
    assert_eq!(seen.lock().unwrap().take().unwrap().before, Some((NOW, uuid(49))));

    let path = "/v1/tag?reference=docker.io/acme/app:v1&at=2026-11-03T14:02:00Z";
    let body = answer(get(&server, CI, path).await).await;
    assert_eq!(body["certainty"], "CERTAINTY_CONFIRMED");
    assert_eq!(body["reference"], "docker.io/acme/app:v1");
    assert_eq!(body["lastObservedTime"], "2026-11-03T14:01:00Z");
}

#[tokio::test]
async fn parameters_that_are_wrong_are_refused_by_name() {
    let server = Server::start(Fake::default()).await;
    for (path, field) in [
        ("/v1/releases?colour=red", "colour"),
        ("/v1/releases?page_size=201", "page_size"),
        ("/v1/releases?pageSize=1&page_size=1", "page_size"),
        ("/v1/releases?states=QUEUED", "states[0]"),
        ("/v1/releases?states=RELEASE_STATE_UNSPECIFIED", "states[0]"),
        ("/v1/releases?label=team", "label"),
        ("/v1/tag", "reference"),
        ("/v1/tag?reference=docker.io/acme/app:v1&at=2026-11-03T14:02:01Z", "at"),
        ("/v1/tag?reference=docker.io/acme/app:v1&at=yesterday", "at"),
        ("/v1/tag-moves?release=1", "release"),
        ("/v1/tag-moves?includeIntents=1", "include_intents"),
        (&format!("/v1/releases/{}?verbose=1", uuid(1)), "verbose"),
    ] {
        let response = get(&server, CI, path).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], field, "{path}");
    }
    let response = get(&server, CI, "/v1/tag?reference=docker.io/acme/app").await;
    problem(response, StatusCode::BAD_REQUEST, "INVALID_REFERENCE").await;
    let response = get(&server, READER, "/v1/tag?reference=docker.io/acme/app:v1").await;
    problem(response, StatusCode::FORBIDDEN, "PERMISSION_DENIED").await;
    assert_eq!(server.called(), Vec::<&str>::new());
}
