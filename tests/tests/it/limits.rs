//! How much may wait: of everybody, and of each caller.

use colophon_testkit::{image::ImageSpec, wait::wait_until};
use colophon_tests::{Answer, Client, PATIENCE, SiteOptions, World, request};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

const MAY: &str = r#"[{ repositories = ["*"], actions = ["read", "publish", "cancel"] }]"#;

fn is_full(answer: &Answer, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.text("/reason")), (429, "QUEUE_FULL"), "{answer:?}");
    assert!(answer.text("/detail").contains(what), "{answer:?}");
}

async fn accepted(client: &Client, request: &Value) -> String {
    let release = client.create(request).await.unwrap().good().unwrap();
    release["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn more_than_may_wait_is_refused_and_a_repetition_is_answered() {
    let mut world = World::new().await.unwrap();
    world.limits = "max_waiting_releases = 3\nmax_waiting_releases_per_caller = 2\n".to_owned();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let other = world.caller("other", MAY).unwrap();
    staging.push(&ImageSpec::tiny("full"), "app", "1").await.unwrap();
    // Nobody works, so everything waits.
    let node = world.serve().await.unwrap();
    let (client, other) = (world.client(&node).unwrap(), world.client_of(&node, &other).unwrap());
    let app = staging.repository("app");
    let asked = |tag: &str, key: &str| {
        let mut request = request(&staging.reference("app", "1"), &[(&app, &[tag], &[])]);
        request["idempotencyKey"] = json!(key);
        request
    };
    let first = accepted(&client, &asked("a", "a")).await;
    accepted(&client, &asked("b", "b")).await;
    is_full(&client.create(&asked("c", "c")).await.unwrap(), "2 releases of ci");
    assert_eq!(accepted(&client, &asked("a", "a")).await, first);

    accepted(&other, &asked("d", "d")).await;
    is_full(&other.create(&asked("e", "e")).await.unwrap(), "3 releases wait");
    let refused = reqwest::Client::new()
        .post(format!("{}/v1/releases", client.url()))
        .bearer_auth(client.token().expose_secret())
        .json(&asked("f", "f"))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");

    // What has ended makes room.
    client.cancel(&first).await.unwrap().good().unwrap();
    let room = async || client.create(&asked("c", "c")).await.unwrap().good().ok();
    wait_until("there is room again", PATIENCE, room).await.unwrap();
}

#[tokio::test]
async fn a_release_is_put_to_work_again_where_there_is_room() {
    let mut world = World::new().await.unwrap();
    world.limits = "max_waiting_releases = 1\n".to_owned();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    for (image, tag) in [("one", "1"), ("other", "2")] {
        staging.push(&ImageSpec::tiny(image), "app", tag).await.unwrap();
    }
    let node = world.serve().await.unwrap();
    let mut worker = world.work().await.unwrap();
    let client = world.client(&node).unwrap();
    let app = staging.repository("app");
    let publish = async |source: &str, tag: &str| {
        let asked = request(&staging.reference("app", source), &[(&app, &[tag], &[])]);
        let room = async || client.create(&asked).await.unwrap().good().ok();
        let release = wait_until("there is room", PATIENCE, room).await.unwrap();
        release["id"].as_str().unwrap().to_owned()
    };
    let first = publish("1", "x").await;
    assert_eq!(client.wait_end(&first).await.unwrap()["state"], "RELEASE_STATE_SUCCEEDED");
    let refused = publish("2", "x").await;
    assert_eq!(client.wait_end(&refused).await.unwrap()["state"], "RELEASE_STATE_FAILED");
    worker.stop().await.unwrap();

    let waiting = publish("1", "y").await;
    let path = format!("/v1/releases/{refused}/retry");
    let retry = async || client.call(Method::POST, &path, &[], Some(&json!({}))).await.unwrap();
    is_full(&retry().await, "1 releases wait");
    client.cancel(&waiting).await.unwrap().good().unwrap();
    let room = async || retry().await.good().ok();
    wait_until("there is room again", PATIENCE, room).await.unwrap();
    // One that is at work needs no room of its own.
    assert_eq!(retry().await.good().unwrap()["state"], "RELEASE_STATE_RUNNING");
}
