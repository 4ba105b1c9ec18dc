//! Watching a release: the gRPC stream, server-sent events, and a call that waits.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use colophon_api::v1::{GetReleaseRequest, ReleaseState as Shown, WatchReleaseRequest};
use colophon_domain::{Failure, Reason, ReleaseState, ReleaseView, Result};
use colophon_server::{ConnectionLimits, ServerSettings};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    fake::{CI, Fake, GUEST, NOW, READER, Server, release, uuid},
    http::{client, get, problem},
    logs::lines,
};

fn at(revision: u64, state: ReleaseState) -> ReleaseView {
    ReleaseView { revision, state, ..release(1) }
}

type Sights = mpsc::UnboundedSender<Result<ReleaseView>>;

/// A release at revision 5 that goes on as the test says; for one watcher.
fn told() -> (Sights, Fake) {
    let (sights, told) = mpsc::unbounded_channel::<Result<ReleaseView>>();
    let told = Mutex::new(Some(told));
    let watch = move |_| -> BoxStream<'static, Result<Arc<ReleaseView>>> {
        let told = told.lock().unwrap().take().unwrap();
        let next = |mut told: mpsc::UnboundedReceiver<Result<ReleaseView>>| async {
            Some((told.recv().await?.map(Arc::new), told))
        };
        stream::unfold(told, next).boxed()
    };
    let fake = Fake::default().get(|_| Ok(Some(at(5, ReleaseState::Running)))).watch(watch);
    (sights, fake)
}

/// One that never changes.
fn silent() -> Fake {
    Fake::default()
        .get(|_| Ok(Some(at(5, ReleaseState::Running))))
        .watch(|_| stream::pending().boxed())
}

fn watch(after_revision: u64) -> WatchReleaseRequest {
    WatchReleaseRequest { id: uuid(1).to_string(), after_revision }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

/// Opens the events of the release.
async fn events(server: &Server, last: Option<&str>) -> Response {
    let path = format!("/v1/releases/{}/watch", uuid(1));
    let mut call = client().get(server.url(&path)).bearer_auth(CI);
    if let Some(last) = last {
        call = call.header("last-event-id", last);
    }
    call.send().await.unwrap()
}

#[tokio::test]
async fn a_stream_shows_each_revision_once_and_ends_with_the_release() {
    let (sights, fake) = told();
    let server = Server::start(fake).await;
    let mut shown = server.releases(CI).await.watch_release(watch(0)).await.unwrap().into_inner();
    let first = shown.message().await.unwrap().unwrap();
    assert_eq!((first.revision, first.state()), (5, Shown::Running));
    assert!(first.summary.contains("-> docker.io/acme/app"), "{}", first.summary);
    // What this process saw for somebody else before is older, or the same.
    for revision in [3, 5, 6] {
        sights.send(Ok(at(revision, ReleaseState::Running))).unwrap();
    }
    sights.send(Ok(at(9, ReleaseState::Failed))).unwrap();
    sights.send(Ok(at(10, ReleaseState::Running))).unwrap();
    let mut seen = Vec::new();
    while let Some(state) = shown.message().await.unwrap() {
        seen.push(state.revision);
    }
    assert_eq!(seen, [6, 9]);
}

#[tokio::test]
async fn who_comes_again_is_shown_what_is_new_and_nothing_twice() {
    let (sights, fake) = told();
    let server = Server::start(fake).await;
    let mut shown = server.releases(CI).await.watch_release(watch(5)).await.unwrap().into_inner();
    sights.send(Ok(at(7, ReleaseState::Succeeded))).unwrap();
    assert_eq!(shown.message().await.unwrap().unwrap().revision, 7);
    assert_eq!(shown.message().await.unwrap(), None);
    // One that has ended has nothing to say to who has seen the end.
    let ended = Fake::default().get(|_| Ok(Some(at(7, ReleaseState::Succeeded))));
    let server = Server::start(ended).await;
    let mut releases = server.releases(CI).await;
    let mut shown = releases.watch_release(watch(7)).await.unwrap().into_inner();
    assert_eq!(shown.message().await.unwrap(), None);
    let mut shown = releases.watch_release(watch(6)).await.unwrap().into_inner();
    assert_eq!(shown.message().await.unwrap().unwrap().revision, 7);
    assert_eq!(shown.message().await.unwrap(), None);
    assert_eq!(events(&server, Some("7")).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.called(), ["get"; 3], "nobody is watched who has ended");
}

#[tokio::test]
async fn events_carry_the_revision_and_comments_keep_them_alive() {
    let (sights, fake) = told();
    let settings =
        ServerSettings { watch_keep_alive: Duration::from_millis(30), ..ServerSettings::default() };
    let server = Server::with(fake, settings, ConnectionLimits::default()).await;
    let mut response = events(&server, None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("x-request-id"));
    let mut text = String::new();
    while !text.contains("\n:") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    sights.send(Ok(at(8, ReleaseState::Succeeded))).unwrap();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let found: Vec<&str> =
        text.lines().filter(|line| line.starts_with("id:") || line.starts_with("event:")).collect();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["event: release", "event: release", "id: 5", "id: 8"], "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let states: Vec<serde_json::Value> =
        data.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(states[0]["revision"], "5");
    assert_eq!(states[1]["state"], "RELEASE_STATE_SUCCEEDED");
}

#[tokio::test]
async fn a_failure_in_the_middle_is_the_last_event() {
    let (sights, fake) = told();
    let server = Server::start(fake).await;
    sights.send(Err(Failure::new(Reason::DatabaseUnavailable, "the database is away"))).unwrap();
    let text = events(&server, Some("5")).await.text().await.unwrap();
    let (head, data) = text.trim().split_once("\ndata: ").unwrap();
    assert_eq!(head, "event: error", "{text}");
    let problem: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(problem["reason"], "DATABASE_UNAVAILABLE");
    assert_eq!(problem["status"], 503);
    assert!(problem["instance"].is_string(), "{problem}");
    let (sights, fake) = told();
    let server = Server::start(fake).await;
    sights.send(Err(Failure::new(Reason::DatabaseUnavailable, "the database is away"))).unwrap();
    let mut shown = server.releases(CI).await.watch_release(watch(5)).await.unwrap().into_inner();
    let status = shown.message().await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "DATABASE_UNAVAILABLE"));
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let mut server = Server::start(silent()).await;
    let mut shown = server.releases(CI).await.watch_release(watch(0)).await.unwrap().into_inner();
    let response = events(&server, None).await;
    shown.message().await.unwrap().unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    let status = shown.message().await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "SERVER_STOPPING"));
    let text = response.text().await.unwrap();
    assert!(text.contains("id: 5") && !text.contains("error"), "{text}");
    drop(shown);
    server.ended.await.unwrap().unwrap();
    // It is the planned end of a stream, and nothing to be warned of.
    let ends = lines().into_iter().filter(|line| line["fields"]["reason"] == "SERVER_STOPPING");
    let levels: Vec<_> = ends.map(|line| line["level"].clone()).collect();
    assert!(!levels.is_empty() && levels.iter().all(|level| level == "DEBUG"), "{levels:?}");
}

#[tokio::test]
async fn a_stream_ends_after_its_life_and_the_next_one_is_authenticated_anew() {
    let life = Duration::from_millis(300);
    // A release in which something is new all the time keeps no stream alive.
    let busy = Fake::default().get(|_| Ok(Some(at(5, ReleaseState::Running)))).watch(|_| {
        let tick = async |revision: u64| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok(Arc::new(at(revision, ReleaseState::Running))), revision + 1))
        };
        stream::unfold(6, tick).boxed()
    });
    for fake in [silent(), busy] {
        let settings = ServerSettings { watch_life: life, ..ServerSettings::default() };
        let server = Server::with(fake, settings, ConnectionLimits::default()).await;
        let mut releases = server.releases(GUEST).await;
        let begun = Instant::now();
        let mut shown = releases.watch_release(watch(0)).await.unwrap().into_inner();
        let mut last = 0;
        let status = loop {
            match shown.message().await {
                Ok(state) => last = state.unwrap().revision,
                Err(status) => break status,
            }
        };
        assert!(begun.elapsed() >= life && last >= 5, "{last} after {:?}", begun.elapsed());
        assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "SERVER_STOPPING"));
        let text = events(&server, None).await.text().await.unwrap();
        assert!(text.contains("id: 5") && !text.contains("error"), "{text}");
        // Who is still known goes on where the stream ended; whose token has expired, does not.
        releases.watch_release(watch(last)).await.unwrap();
        server.clock.set(NOW + Duration::from_hours(2));
        let status = releases.watch_release(watch(last)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_caller_has_so_many_places_to_wait() {
    let settings = ServerSettings { watchers_per_caller: 2, ..ServerSettings::default() };
    let server = Server::with(silent(), settings, ConnectionLimits::default()).await;
    let mut releases = server.releases(CI).await;
    let held = [
        releases.watch_release(watch(0)).await.unwrap(),
        releases.watch_release(watch(0)).await.unwrap(),
    ];
    let status = releases.watch_release(watch(0)).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::ResourceExhausted, "TOO_MANY_WATCHERS"));
    let response = events(&server, None).await;
    assert!(response.headers().contains_key("retry-after"));
    problem(response, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_WATCHERS").await;
    let path = format!("/v1/releases/{}?wait=1s", uuid(1));
    let response = get(&server, CI, &path).await;
    problem(response, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_WATCHERS").await;
    // Another caller, and who does not wait, are not concerned.
    server.releases(GUEST).await.watch_release(watch(0)).await.unwrap();
    let path = format!("/v1/releases/{}", uuid(1));
    assert_eq!(get(&server, CI, &path).await.status(), StatusCode::OK);
    drop(held);
    let again = async || releases.clone().watch_release(watch(0)).await.is_ok();
    for _ in 0..500 {
        if again().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a place never came back");
}

#[tokio::test]
async fn what_may_not_be_seen_is_not_watched() {
    let server = Server::start(Fake::default().get(|_| Ok(None))).await;
    let status = server.releases(READER).await.watch_release(watch(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    problem(events(&server, None).await, StatusCode::NOT_FOUND, "NOT_FOUND").await;
    problem(events(&server, Some("x")).await, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
    assert_eq!(server.called(), ["get", "get"]);
}

#[tokio::test]
async fn a_call_waits_for_the_end_and_no_longer_than_it_says() {
    let (sights, fake) = told();
    let server = Server::start(fake).await;
    let mut releases = server.releases(CI).await;
    let wait = Some(Duration::from_secs(30).into());
    let request = GetReleaseRequest { id: uuid(1).to_string(), wait };
    let waits = tokio::spawn(async move { releases.get_release(request).await });
    sights.send(Ok(at(6, ReleaseState::Running))).unwrap();
    sights.send(Ok(at(7, ReleaseState::Succeeded))).unwrap();
    let seen = waits.await.unwrap().unwrap().into_inner();
    assert_eq!((seen.revision, seen.state()), (7, Shown::Succeeded));

    let server = Server::start(silent()).await;
    let asked = Instant::now();
    let path = |wait: &str| format!("/v1/releases/{}?wait={wait}", uuid(1));
    let response = get(&server, CI, &path("0.2s")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(asked.elapsed() >= Duration::from_millis(200));
    assert_eq!(get(&server, CI, &path("0s")).await.status(), StatusCode::OK);
    for wrong in ["61s", "2m", "25", "-1s", "x"] {
        let response = get(&server, CI, &path(wrong)).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT").await;
        assert_eq!(problem["field"], "wait", "{wrong}");
    }
    // A server that allows calls less time answers in that time.
    let settings =
        ServerSettings { call_timeout: Duration::from_millis(500), ..ServerSettings::default() };
    let server = Server::with(silent(), settings, ConnectionLimits::default()).await;
    assert_eq!(get(&server, CI, &path("1m")).await.status(), StatusCode::OK);
}
