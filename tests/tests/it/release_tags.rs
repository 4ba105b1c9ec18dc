//! What unique and floating tags do: never move, follow, stay where they are; and what a release
//! with several targets says of every single tag.

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
};
use colophon_tests::{Client, Site, SiteOptions, World};
use http::{Method, StatusCode};
use serde_json::json;

use crate::release_scene::{
    attempts, expected, kinds, published, state, succeeded, tag_puts, tags, text, writes,
};

struct Scene {
    _world: World,
    _node: colophon_tests::Node,
    client: Client,
    staging: Site,
    one: Site,
    two: Site,
}

/// Staging with `app:1` and `app:2`, and two empty registries behind proxies.
async fn scene() -> Scene {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let one = world.site(SiteOptions::proxied()).await.unwrap();
    let two = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    for seed in ["1", "2"] {
        staging.push(&ImageSpec::tiny(seed), "app", seed).await.unwrap();
    }
    Scene { _world: world, _node: node, client, staging, one, two }
}

#[tokio::test]
async fn a_unique_tag_that_is_taken_fails_the_release_before_anything_is_copied() {
    let Scene { client, staging, one, two, .. } = &scene().await;
    let old = staging.push(&ImageSpec::tiny("1"), "app", "1").await.unwrap();
    two.push_built(&old, "b", "1.0").await.unwrap();
    let (a, b) = (one.repository("a"), two.repository("b"));
    let targets = [(a.as_str(), &["1.0"][..], &["latest"][..]), (&b, &["1.0", "1.0-b"], &["1"])];
    let release = published(client, &staging.reference("app", "2"), &targets).await;
    assert_eq!(state(&release), "FAILED TAG_IMMUTABLE", "{release:#}");
    let message = text(&release, "/message");
    assert!(message.contains(&format!("{b}:1.0")) && message.contains(old.digest()), "{message}");
    let left = "NOT_ATTEMPTED NOT_ATTEMPTED";
    let all = [
        ("a:1.0", left),
        ("a:latest", left),
        ("b:1", left),
        ("b:1.0", "REFUSED TAG_IMMUTABLE"),
        ("b:1.0-b", left),
    ];
    assert_eq!(tags(&release), expected(&all));
    assert_eq!((writes(one), writes(two)), (vec![], vec![]));
    assert_eq!(attempts(&release), [""; 0]);

    // A retag has nothing to copy; its unique tag is looked at when its turn comes.
    let retag = published(client, &two.reference("b", "1.0"), &[(&b, &["1.1"], &[])]).await;
    assert_eq!(state(&retag), "SUCCEEDED", "{retag:#}");
    let other = staging.push(&ImageSpec::tiny("2"), "app", "2").await.unwrap();
    two.push_built(&other, "b", "other").await.unwrap();
    let targets = [(b.as_str(), &["1.0"][..], &["1"][..])];
    let retag = published(client, &two.reference("b", "other"), &targets).await;
    assert_eq!(state(&retag), "FAILED TAG_IMMUTABLE", "{retag:#}");
    assert_eq!(tags(&retag), expected(&[("b:1.0", "REFUSED TAG_IMMUTABLE"), ("b:1", left)]));
    assert_eq!(tag_puts(two), ["b:1.1"]);
}

#[tokio::test]
async fn what_is_there_already_is_success_without_a_put() {
    let Scene { client, staging, one, .. } = &scene().await;
    let app = one.repository("app");
    let source = staging.reference("app", "1");
    succeeded(client, &source, &[(&app, &["1.0"], &["latest"])]).await;
    assert_eq!(tag_puts(one), ["app:1.0", "app:latest"]);
    let again = succeeded(client, &source, &[(&app, &["1.0"], &["latest"])]).await;
    assert_eq!(tags(&again), expected(&[("app:1.0", "UNCHANGED"), ("app:latest", "UNCHANGED")]));
    assert_eq!(tag_puts(one), ["app:1.0", "app:latest"]);
    let copied = &again["publications"][0];
    assert_eq!((text(copied, "/blobsCopied"), text(copied, "/bytesCopied")), ("0", "0"));
    for tag in ["1.0", "latest"] {
        let reference = one.reference("app", tag);
        assert_eq!(kinds(client, &reference).await, ["intent", "confirmed", "unchanged"]);
    }
    // Floating tags move on, unique ones stay.
    let moved =
        succeeded(client, &staging.reference("app", "2"), &[(&app, &["2.0"], &["latest"])]).await;
    assert_eq!(tags(&moved), expected(&[("app:2.0", "MOVED"), ("app:latest", "MOVED")]));
    let latest = &moved["publications"][0]["tags"][1];
    assert_eq!(latest["ticket"], "3", "{latest:#}");
    assert_ne!(text(latest, "/oldDigest"), text(latest, "/newDigest"));
}

#[tokio::test]
async fn one_target_that_fails_fails_the_release_and_every_tag_says_what_became_of_it() {
    let Scene { client, staging, one, two, .. } = &scene().await;
    let full = r#"{"errors":[{"code":"DENIED","message":"quota of b is used up"}]}"#;
    let no = Action::Status(StatusCode::METHOD_NOT_ALLOWED, Vec::new(), full.to_owned());
    two.proxy().add(Rule::new(no).method(Method::PUT).path("/b/manifests/1.0").always());
    let (a, b) = (one.repository("a"), two.repository("b"));
    let targets = [(a.as_str(), &["1.0"][..], &["latest"][..]), (&b, &["1.0", "1.1"], &["latest"])];
    let release = published(client, &staging.reference("app", "1"), &targets).await;
    assert_eq!(state(&release), "FAILED REGISTRY_PROTOCOL", "{release:#}");
    assert!(text(&release, "/message").contains("quota of b is used up"), "{release:#}");
    let left = "NOT_ATTEMPTED NOT_ATTEMPTED";
    let all = [
        ("a:1.0", "MOVED"),
        ("a:latest", left),
        ("b:1.0", "FAILED REGISTRY_PROTOCOL"),
        ("b:1.1", "MOVED"),
        ("b:latest", left),
    ];
    assert_eq!(tags(&release), expected(&all));
    let states = release["publications"].as_array().unwrap();
    let states: Vec<&str> = states.iter().map(|target| text(target, "/state")).collect();
    assert_eq!(states, ["PUBLICATION_STATE_FAILED"; 2], "{release:#}");
    // The intent of the refused PUT has its outcome.
    let refused = two.reference("b", "1.0");
    assert_eq!(kinds(client, &refused).await, ["intent", "not_applied"]);
    let moves = client.moves(&refused).await.unwrap();
    assert_eq!(text(&moves[0], "/reasonCode"), "REGISTRY_PROTOCOL");
    // The floating tags were nowhere begun.
    assert!(tag_puts(one).iter().chain(&tag_puts(two)).all(|tag| !tag.ends_with(":latest")));
}

#[tokio::test]
async fn a_registry_that_keeps_its_tags_is_believed() {
    let Scene { client, staging, one, .. } = &scene().await;
    let app = one.repository("app");
    let words = "The image tag already exists and cannot be overwritten: it is immutable";
    let no = Action::Status(StatusCode::PRECONDITION_FAILED, Vec::new(), words.to_owned());
    one.proxy().add(Rule::new(no).method(Method::PUT).path("/app/manifests/latest").always());
    let source = staging.reference("app", "1");
    let release = published(client, &source, &[(&app, &[], &["latest"])]).await;
    assert_eq!(tags(&release), expected(&[("app:latest", "FAILED TAG_IMMUTABLE")]), "{release:#}");
    assert!(text(&release, "/message").contains("cannot be overwritten"), "{release:#}");
}

#[tokio::test]
async fn of_two_releases_of_one_unique_tag_at_the_same_time_one_has_it() {
    let Scene { client, staging, one, .. } = &scene().await;
    let app = one.repository("app");
    for round in 0..5 {
        let tag = format!("1.{round}");
        let tags = [tag.as_str()];
        let targets = [(app.as_str(), &tags[..], &[][..])];
        let (source, other) = (staging.reference("app", "1"), staging.reference("app", "2"));
        let both =
            tokio::join!(published(client, &source, &targets), published(client, &other, &targets));
        let (won, lost) = if state(&both.0) == "SUCCEEDED" { both } else { (both.1, both.0) };
        assert_eq!(
            (state(&won), state(&lost)),
            ("SUCCEEDED".into(), "FAILED TAG_IMMUTABLE".into())
        );
        assert_eq!(one.inspect("app", &tag).await.unwrap(), text(&won, "/digest"));
        let reference = one.reference("app", &tag);
        assert_eq!(kinds(client, &reference).await, ["intent", "confirmed"], "{tag}");
    }
    let puts = tag_puts(one);
    assert_eq!(puts.len(), 5, "{puts:?}");
}

#[tokio::test]
async fn greater_priority_goes_first() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    world.worker.push_str("concurrency = 1\n");
    let api = world.serve().await.unwrap();
    let client = world.client(&api).unwrap();
    staging.push(&ImageSpec::tiny("1"), "app", "1").await.unwrap();
    let mut ids = Vec::new();
    for (tag, priority) in [("low", -100), ("usual", 0), ("high", 100), ("later", 0)] {
        let request = json!({
            "source": staging.reference("app", "1"),
            "targets": [{ "repository": target.repository("app"), "floatingTags": [tag] }],
            "priority": priority,
        });
        let release = client.create(&request).await.unwrap().good().unwrap();
        assert_eq!(state(&release), "QUEUED");
        ids.push(text(&release, "/id").to_owned());
    }
    let _worker = world.work().await.unwrap();
    for id in &ids {
        assert_eq!(state(&client.wait_end(id).await.unwrap()), "SUCCEEDED");
    }
    assert_eq!(tag_puts(&target), ["app:high", "app:usual", "app:later", "app:low"]);
}
