//! Tags that somebody else moved, removed or had made before: the ledger says so before it
//! records our own move, and its answer for a time says how certain it is.

use colophon_testkit::image::{Image, ImageSpec};
use colophon_tests::{Client, SiteOptions, World};
use serde_json::Value;

use crate::release_scene::{kinds, succeeded, text};

/// What the ledger says of a time: the certainty and the digest.
async fn at(client: &Client, reference: &str, time: &str) -> (String, String) {
    let query = [("reference", reference), ("at", time)];
    let tag = client.get("/v1/tag", &query).await.unwrap();
    let certainty = text(&tag, "/certainty").strip_prefix("CERTAINTY_").unwrap();
    (certainty.to_owned(), text(&tag, "/digest").to_owned())
}

fn answer(certainty: &str, image: &Image) -> (String, String) {
    (certainty.to_owned(), image.digest().to_owned())
}

/// The newest entry of a kind.
async fn newest(client: &Client, reference: &str, kind: &str) -> Value {
    let moves = client.moves(reference).await.unwrap();
    moves.into_iter().find(|entry| text(entry, "/kind") == kind).unwrap()
}

/// The time now, as the database sees it.
async fn now(client: &Client, reference: &str) -> String {
    text(&client.tag(reference).await.unwrap(), "/at").to_owned()
}

#[tokio::test]
async fn what_others_do_to_a_tag_is_recorded_before_our_next_move() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let mut images = Vec::new();
    for number in 0..4 {
        let spec = ImageSpec::tiny(format!("drift {number}"));
        images.push(staging.push(&spec, "app", &number.to_string()).await.unwrap());
    }
    let [before, first, foreign, second] = images.as_slice() else { panic!() };
    let (app, latest) = (target.repository("app"), target.reference("app", "latest"));

    // The tag was there before us.
    target.push_built(before, "app", "latest").await.unwrap();
    succeeded(&client, &staging.reference("app", "1"), &[(&app, &[], &["latest"])]).await;
    let mut expected = vec!["baseline", "intent", "confirmed"];
    assert_eq!(kinds(&client, &latest).await, expected);
    let baseline = newest(&client, &latest, "baseline").await;
    assert_eq!(text(&baseline, "/newDigest"), before.digest());
    assert_eq!((text(&baseline, "/actor"), text(&baseline, "/purpose")), ("", "observation"));
    let ours = newest(&client, &latest, "confirmed").await;
    assert_eq!(text(&ours, "/oldDigest"), before.digest());
    // A second release finds it there: that is a second look.
    succeeded(&client, &staging.reference("app", "1"), &[(&app, &[], &["latest"])]).await;
    expected.push("unchanged");
    let between = now(&client, &latest).await;
    assert_eq!(at(&client, &latest, &between).await, answer("LAST_OBSERVED", first));

    // Somebody else moves it behind our back.
    target.push_built(foreign, "app", "latest").await.unwrap();
    let after = now(&client, &latest).await;
    succeeded(&client, &staging.reference("app", "3"), &[(&app, &[], &["latest"])]).await;
    expected.extend(["drift", "intent", "confirmed"]);
    assert_eq!(kinds(&client, &latest).await, expected);
    let drift = newest(&client, &latest, "drift").await;
    assert_eq!(text(&drift, "/oldDigest"), first.digest());
    assert_eq!(text(&drift, "/newDigest"), foreign.digest());
    assert_eq!((text(&drift, "/actor"), text(&drift, "/release")), ("", ""));
    let last_seen = text(&drift, "/notBefore");
    assert!(last_seen >= text(&ours, "/at"), "{drift:#}");

    // Before, in and after the gap in which it happened.
    assert_eq!(at(&client, &latest, text(&ours, "/at")).await, answer("CONFIRMED", first));
    assert_eq!(at(&client, &latest, last_seen).await, answer("CONFIRMED", first));
    let again = newest(&client, &latest, "unchanged").await;
    assert_eq!(at(&client, &latest, text(&again, "/at")).await, answer("UNKNOWN", first));
    assert_eq!(at(&client, &latest, &between).await, answer("UNKNOWN", first));
    assert_eq!(at(&client, &latest, &after).await, answer("UNKNOWN", first));
    assert_eq!(at(&client, &latest, text(&drift, "/at")).await, answer("CONFIRMED", foreign));
    let ours = newest(&client, &latest, "confirmed").await;
    assert_eq!(at(&client, &latest, text(&ours, "/at")).await, answer("LAST_OBSERVED", second));

    // And somebody removes it.
    target.peer().unwrap().delete_manifest("app", second.digest()).await.unwrap();
    succeeded(&client, &staging.reference("app", "1"), &[(&app, &[], &["latest"])]).await;
    expected.extend(["deleted", "intent", "confirmed"]);
    assert_eq!(kinds(&client, &latest).await, expected);
    let deleted = newest(&client, &latest, "deleted").await;
    assert_eq!((text(&deleted, "/oldDigest"), text(&deleted, "/newDigest")), (second.digest(), ""));
    let gone = at(&client, &latest, text(&deleted, "/at")).await;
    assert_eq!(gone, ("CONFIRMED".to_owned(), String::new()));
    assert_eq!(target.inspect("app", "latest").await.unwrap(), first.digest());

    // The chain has no gap, and each entry begins where the one before ended.
    let moves = client.moves(&latest).await.unwrap();
    let numbers: Vec<&str> = moves.iter().rev().map(|entry| text(entry, "/tagSeq")).collect();
    let counted: Vec<String> = (1..=moves.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, counted);
}

#[tokio::test]
async fn a_unique_tag_that_somebody_else_made_is_a_baseline_and_stays() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = staging.push(&ImageSpec::tiny("same"), "app", "1").await.unwrap();
    target.push_built(&image, "app", "1.0").await.unwrap();
    let app = target.repository("app");
    succeeded(&client, &staging.reference("app", "1"), &[(&app, &["1.0"], &[])]).await;
    assert_eq!(kinds(&client, &target.reference("app", "1.0")).await, ["baseline", "unchanged"]);
}
