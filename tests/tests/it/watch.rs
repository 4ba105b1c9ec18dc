//! Watching a release while it works: over server-sent events, at several replicas, by the client's
//! stream, and by a call that waits.

use std::time::{Duration, Instant};

use colophon_testkit::{
    image::ImageSpec,
    launcher::PostgresOptions,
    proxy::{Action, Rule},
};
use colophon_tests::{Client, Node, PATIENCE, Site, SiteOptions, World};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::{
    release_scene::{state, text},
    safe_scene::{frozen, lift},
};

/// Bytes of the layer that takes its time, and how many of them a second.
const LAYER: u64 = 3_000_000;
const RATE: u64 = 700_000;

/// The events of one release, as a browser reads them.
struct Events {
    response: reqwest::Response,
    text: String,
}

/// One event.
#[derive(Debug)]
struct Event {
    id: u64,
    name: String,
    data: Value,
}

impl Events {
    async fn open(client: &Client, id: &str, last: Option<u64>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/releases/{id}/watch", client.url());
        let mut call = http.get(url).bearer_auth(client.token().expose_secret());
        if let Some(last) = last {
            call = call.header("Last-Event-ID", last.to_string());
        }
        let response = call.send().await.unwrap();
        Self { response, text: String::new() }
    }

    /// The next event; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let line = |name: &str| {
                    let value = block.lines().find_map(|line| line.strip_prefix(name));
                    value.unwrap_or_default().trim_start().to_owned()
                };
                if block.starts_with(':') {
                    continue;
                }
                return Some(Event {
                    id: line("id:").parse().unwrap_or_default(),
                    name: line("event:"),
                    data: serde_json::from_str(&line("data:")).unwrap(),
                });
            }
            self.more().await?;
        }
    }

    /// Reads on; `None` at the end.
    async fn more(&mut self) -> Option<()> {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.unwrap();
        self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        Some(())
    }

    /// Waits for a comment, which comes while there is nothing else to say.
    async fn comment(&mut self) {
        while !self.text.lines().any(|line| line.starts_with(':')) {
            self.more().await.expect("the stream ended");
        }
    }

    /// The first event of a state that is as it should be; each is newer than the one before.
    async fn until(&mut self, mut last: u64, look: impl Fn(&Value) -> bool) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            assert_eq!(event.name, "release", "{event:?}");
            assert_eq!(text(&event.data, "/revision"), event.id.to_string());
            assert!(event.id > last, "{} after {last}", event.id);
            last = event.id;
            if look(&event.data) {
                return event;
            }
        }
    }
}

fn ended(release: &Value) -> bool {
    release["endTime"].is_string()
}

/// The large blob is on its way. How many of its bytes wait in the network's buffers nobody knows.
fn on_its_way(release: &Value) -> bool {
    let blobs = release["publications"][0]["progress"]["blobs"].as_array();
    blobs.into_iter().flatten().any(|blob| {
        let number = |name: &str| text(blob, name).parse::<u64>().unwrap();
        let (done, size) = (number("/doneBytes"), number("/sizeBytes"));
        text(blob, "/state") == "BLOB_STATE_SENDING" && done > 0 && done <= size && size >= LAYER
    })
}

/// A world in which a copy takes a few seconds.
struct Scene {
    world: World,
    source: String,
    target: Site,
    app: String,
    _staging: Site,
}

impl Scene {
    async fn new() -> Self {
        Self::on(World::new().await.unwrap()).await
    }

    async fn on(mut world: World) -> Self {
        world.limits = "watch_keep_alive = \"100ms\"".into();
        let staging = world.site(SiteOptions::default()).await.unwrap();
        let target = world.site(SiteOptions::proxied()).await.unwrap();
        let image = ImageSpec::tiny("watched").layer(LAYER);
        staging.push(&image, "app", "1").await.unwrap();
        let slow = Rule::new(Action::SlowRequest(RATE)).path("/blobs/uploads/");
        let slow = slow.when(|exchange| exchange.method == "PUT" || exchange.method == "PATCH");
        target.proxy().add(slow.always());
        let (source, app) = (staging.reference("app", "1"), target.repository("app"));
        Self { world, source, target, app, _staging: staging }
    }

    async fn publish(&self, client: &Client) -> String {
        client.publish(&self.source, &[(&self.app, &["1"], &["latest"])]).await.unwrap()
    }

    async fn replicas(&mut self) -> [Node; 2] {
        [self.world.serve().await.unwrap(), self.world.serve().await.unwrap()]
    }
}

#[tokio::test]
async fn a_copy_is_watched_blob_by_blob_and_taken_up_at_another_replica() {
    let mut scene = Scene::new().await;
    let replicas = scene.replicas().await;
    let [one, other] = replicas.each_ref().map(|node| scene.world.client(node).unwrap());
    let id = scene.publish(&one).await;
    let mut events = Events::open(&one, &id, None).await;
    assert_eq!(events.response.headers()["content-type"], "text/event-stream");
    // As long as nobody works on it there is nothing to say but that the stream lives.
    let queued = events.next().await.unwrap();
    events.comment().await;
    let _worker = scene.world.work().await.unwrap();
    let sending = events.until(queued.id, on_its_way).await;
    assert!(text(&sending.data, "/summary").contains("running, copy, "), "{sending:?}");
    assert_eq!(text(&sending.data, "/phase"), "copy");
    drop(events);
    // The other replica has never seen the release, and goes on where the first one was left.
    let mut events = Events::open(&other, &id, Some(sending.id)).await;
    let last = events.until(sending.id, ended).await;
    assert_eq!(state(&last.data), "SUCCEEDED", "{last:?}");
    assert!(events.next().await.is_none(), "the stream goes on after the end");
    let progress = &last.data["publications"][0]["progress"];
    let blobs = progress["blobs"].as_array().unwrap();
    assert_eq!(text(progress, "/blobsTotal"), blobs.len().to_string());
    for blob in blobs {
        assert_eq!(text(blob, "/state"), "BLOB_STATE_COPIED", "{blob}");
        assert_eq!(text(blob, "/doneBytes"), text(blob, "/sizeBytes"), "{blob}");
    }
    let summary = text(&last.data, "/summary");
    let digest = text(&last.data, "/digest");
    let wanted = format!("app 1 -> {}: 1, latest at {}; 2 of 2 tags", scene.app, &digest[..19]);
    assert_eq!(summary, wanted);
    // Who has seen the end is told so at every replica; who has not sees the end and nothing else.
    for client in [&one, &other] {
        let events = Events::open(client, &id, Some(last.id)).await;
        assert_eq!(events.response.status(), StatusCode::NO_CONTENT);
        let mut events = Events::open(client, &id, Some(sending.id)).await;
        assert_eq!(events.until(sending.id, ended).await.id, last.id);
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn many_who_watch_are_one_question_and_end_with_the_server() {
    let mut scene = Scene::new().await;
    // The worker asks seldom, so that what is counted is the watching.
    let times = scene.world.worker.replace("poll_interval = \"50ms\"", "poll_interval = \"1s\"");
    scene.world.worker = times;
    let mut replicas = scene.replicas().await;
    let _worker = scene.world.work().await.unwrap();
    let client = scene.world.client(&replicas[0]).unwrap();
    let id = scene.publish(&client).await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(Events::open(&client, &id, None).await);
    }
    for events in &mut all {
        events.until(0, on_its_way).await;
    }
    // All of them together have a few statements a second; each by itself would be above this.
    let asked = async || {
        let calls: i64 = sqlx::query_scalar(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database
             WHERE datname = current_database()",
        )
        .fetch_one(scene.world.database().pool())
        .await
        .unwrap();
        calls
    };
    let (before, begun) = (asked().await, Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rate =
        f64::from(i32::try_from(asked().await - before).unwrap()) / begun.elapsed().as_secs_f64();
    assert!(rate < 60.0, "{rate} transactions a second");
    let stopped = Instant::now();
    replicas[0].stop().await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(10), "streams held up the end");
    for events in &mut all {
        while let Some(event) = events.next().await {
            assert_eq!(event.name, "release", "{event:?}");
        }
    }
    // Nobody's watching held up the release either.
    let client = scene.world.client(&replicas[1]).unwrap();
    assert_eq!(state(&client.wait_end(&id).await.unwrap()), "SUCCEEDED");
}

#[tokio::test]
async fn a_database_that_goes_away_is_an_error_event_and_the_watch_can_be_taken_up() {
    let world = World::with_own_postgres(PostgresOptions::default()).await.unwrap();
    let mut scene = Scene::on(world).await;
    let node = scene.world.serve().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    // Nobody works on it.
    let id = scene.publish(&client).await;
    let mut events = Events::open(&client, &id, None).await;
    let first = events.until(0, |_| true).await;
    scene.world.database().server().lock().await.kill();
    let error = events.next().await.unwrap();
    assert_eq!(error.name, "error", "{error:?}");
    assert_eq!(text(&error.data, "/reason"), "DATABASE_UNAVAILABLE", "{error:?}");
    assert_eq!(error.data["status"], 503);
    assert!(events.next().await.is_none());
    scene.world.database().server().lock().await.resume().await.unwrap();
    let _worker = scene.world.work().await.unwrap();
    let mut events = Events::open(&client, &id, Some(first.id)).await;
    let last = events.until(first.id, ended).await;
    assert_eq!(state(&last.data), "SUCCEEDED", "{last:?}");
}

#[tokio::test]
async fn what_a_release_waits_for_is_shown() {
    let mut scene = Scene::new().await;
    scene.target.proxy().clear();
    let node = scene.world.run().await.unwrap();
    let client = scene.world.client(&node).unwrap();
    let freeze = frozen(&client, &scene.app).await;
    let id = scene.publish(&client).await;
    let mut events = Events::open(&client, &id, None).await;
    let waits = |release: &Value| text(release, "/waitingReason") == "FROZEN";
    let waiting = events.until(0, waits).await;
    assert!(waiting.data["waitingTime"].is_string(), "{waiting:?}");
    let summary = text(&waiting.data, "/summary");
    assert!(summary.contains("waits for the freeze of"), "{summary}");
    lift(&client, &freeze).await;
    let last = events.until(waiting.id, ended).await;
    assert_eq!(state(&last.data), "SUCCEEDED");
}

#[tokio::test]
async fn a_call_waits_for_the_end() {
    let mut scene = Scene::new().await;
    let [one, other] = scene.replicas().await;
    let _worker = scene.world.work().await.unwrap();
    let client = scene.world.client(&one).unwrap();
    let id = scene.publish(&client).await;
    let path = format!("/v1/releases/{id}");
    let other = scene.world.client(&other).unwrap();
    let short = other.get(&path, &[("wait", "0.3s")]).await.unwrap();
    assert!(!ended(&short), "{short:#}");
    let begun = Instant::now();
    let mut release = short;
    for _ in 0..4 {
        release = other.get(&path, &[("wait", "25s")]).await.unwrap();
        if ended(&release) {
            break;
        }
    }
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert!(begun.elapsed() > Duration::from_secs(1), "the copy was not slow");
    // One that has ended is answered at once.
    let begun = Instant::now();
    client.get(&path, &[("wait", "1m")]).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_client_follows_the_stream_and_says_how_far_the_copy_is() {
    let mut scene = Scene::new().await;
    let node = scene.world.run().await.unwrap();
    let line = ["publish", &scene.source, "--to", &scene.app, "--tag", "1", "--float", "latest"];
    let output = scene.world.cli(&node, &line).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    let part = format!("{} copy ", scene.app);
    assert!(output.err.lines().any(|line| line.starts_with(&part)), "{output:?}");
    assert!(node.log().contains("ReleaseService/WatchRelease"), "{}", node.log());
}
