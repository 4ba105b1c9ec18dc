//! Releases that are stopped: in the queue, in the middle of a copy, too late, twice; and those
//! whose time is over.

use std::time::Duration;

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
};
use colophon_tests::{PATIENCE, SiteOptions, World};
use http::Method;
use serde_json::json;

use crate::{
    release_scene::{
        assert_refused, attempts, expected, login, state, succeeded, tag_puts, tags, text, writes,
    },
    safe_scene::from_now,
    vault_scene::{CountedVault, credentials, until, waiting},
};

/// Enough time for a PUT to be held by a test.
const PATIENT: &str = "lease = \"30s\"\nput_timeout = \"15s\"\npoll_interval = \"50ms\"\n\
                       backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n";

#[tokio::test]
async fn a_running_copy_stops_and_leaves_nothing_behind() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = ImageSpec::tiny("slow").layer(20_000_000);
    staging.push(&image, "app", "1").await.unwrap();
    let slow = Rule::new(Action::SlowRequest(500_000)).path("/blobs/uploads/");
    let slow = slow.when(|exchange| exchange.method == "PUT" || exchange.method == "PATCH");
    let slow = target.proxy().add(slow.always());
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    slow.reached(PATIENCE).await.unwrap();

    let answer = client.cancel(&id).await.unwrap();
    let answer = answer.good().unwrap();
    assert_eq!((state(&answer).as_str(), &answer["cancelRequested"]), ("RUNNING", &json!(true)));
    // Cancelling twice is no error.
    assert_eq!(client.cancel(&id).await.unwrap().status, 200);
    let release = client.wait_end_for(&id, Duration::from_secs(15)).await.unwrap();
    assert_eq!(state(&release), "CANCELLED CANCELLED", "{release:#}");
    assert!(text(&release, "/message").contains("by ci"), "{release:#}");
    assert_eq!(release["cancelRequested"], false, "{release:#}");
    let left = "NOT_ATTEMPTED CANCELLED";
    assert_eq!(tags(&release), expected(&[("app:1", left), ("app:latest", left)]));
    assert_eq!(text(&release, "/publications/0/state"), "PUBLICATION_STATE_CANCELLED");
    assert_eq!(tag_puts(&target), [""; 0]);
    // The begun upload is given back to the registry.
    let given_back = || {
        let log = target.proxy().log();
        log.iter()
            .any(|exchange| exchange.method == "DELETE" && exchange.path.contains("/uploads/"))
    };
    until("the upload is cancelled", given_back).await;
    assert_eq!(client.cancel(&id).await.unwrap().status, 200);

    // What a cancelled release left undone can be done at once.
    target.proxy().clear();
    succeeded(&client, &source, &[(&app, &["1"], &["latest"])]).await;
}

#[tokio::test]
async fn in_the_queue_it_ends_at_once_and_when_it_has_ended_it_is_too_late() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::tiny("queue"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    let cancelled = client.cancel(&id).await.unwrap().good().unwrap();
    assert_eq!(state(&cancelled), "CANCELLED CANCELLED", "{cancelled:#}");
    let _worker = world.work().await.unwrap();
    let other = succeeded(&client, &source, &[(&app, &["2"], &[])]).await;
    assert_eq!(tag_puts(&target), ["app:2"]);
    let answer = client.cancel(text(&other, "/id")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text("/reason")), (409, "NOT_CANCELLABLE"));
    assert!(answer.text("/detail").contains("has ended"), "{:#}", answer.body);
    let answer = client.cancel("019a4d1c-0000-7000-8000-000000000001").await.unwrap();
    assert_refused(&answer, 404, "NOT_FOUND", "id");
}

#[tokio::test]
async fn once_a_tag_is_on_its_way_it_is_awaited_and_the_others_stay() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    PATIENT.clone_into(&mut world.worker);
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("late"), "app", "1").await.unwrap();
    let put = Rule::new(Action::HoldBefore).method(Method::PUT).path("/app/manifests/1");
    let put = target.proxy().add(put);
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    put.reached(PATIENCE).await.unwrap();
    let seen = client.release(&id).await.unwrap();
    assert_eq!(tags(&seen)["app:1"], "MOVING", "{seen:#}");
    let answer = client.cancel(&id).await.unwrap().good().unwrap();
    assert_eq!((state(&answer).as_str(), &answer["cancelRequested"]), ("RUNNING", &json!(true)));
    put.forward();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "CANCELLED CANCELLED", "{release:#}");
    let left = [("app:1", "MOVED"), ("app:latest", "NOT_ATTEMPTED CANCELLED")];
    assert_eq!(tags(&release), expected(&left));
    assert_eq!(tag_puts(&target), ["app:1"]);
    // It has ended as it was asked to: asking again is no error.
    assert_eq!(client.cancel(&id).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_release_is_not_begun_after_its_time() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::tiny("time"), "app", "1").await.unwrap();
    let request = |not_after: &str| {
        json!({
            "source": staging.reference("app", "1"),
            "targets": [{ "repository": target.repository("app"), "uniqueTags": ["1"] }],
            "notAfter": not_after,
        })
    };
    let past = client.create(&request(&from_now(time::Duration::seconds(-1)))).await.unwrap();
    assert_refused(&past, 400, "INVALID_ARGUMENT", "not_after");
    let end = from_now(time::Duration::milliseconds(1_500));
    let release = client.create(&request(&end)).await.unwrap().good().unwrap();
    let id = text(&release, "/id");
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    let _worker = world.work().await.unwrap();
    let release = client.wait_end(id).await.unwrap();
    assert_eq!(state(&release), "FAILED EXPIRED", "{release:#}");
    assert!(text(&release, "/message").contains("not_after"), "{release:#}");
    assert_eq!(writes(&target), [""; 0]);
}

#[tokio::test]
async fn a_retag_that_waits_for_vault_expires_while_it_waits() {
    let mut world = World::new().await.unwrap();
    let settings = "pat_cache_ttl = \"100ms\"";
    let vault = CountedVault::start(&mut world, settings, Duration::from_mins(10)).await;
    let team = login("team");
    vault.put_login("target", &team).await;
    let target = SiteOptions::proxied().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    let image = target.push(&ImageSpec::tiny("vault"), "app", "1").await.unwrap();
    vault.bao.seal().await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let request = json!({
        "source": format!("{}@{}", target.repository("app"), image.digest()),
        "targets": [{ "repository": target.repository("app"), "floatingTags": ["latest"] }],
        "notAfter": from_now(time::Duration::seconds(4)),
    });
    let release = client.create(&request).await.unwrap().good().unwrap();
    let id = text(&release, "/id");
    waiting(&client, id, "is sealed").await;
    let release = client.wait_end_for(id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(state(&release), "FAILED EXPIRED", "{release:#}");
    assert_eq!(tags(&release), expected(&[("app:latest", "FAILED EXPIRED")]));
    assert_eq!(attempts(&release), ["EXPIRED"], "{release:#}");
    assert_eq!(tag_puts(&target), [""; 0]);
}
