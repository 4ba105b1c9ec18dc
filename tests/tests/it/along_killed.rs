//! The moves of what goes along, under everything that may happen to a move: workers that die over them,
//! and others who write the same list.

use colophon_testkit::{
    image::ImageSpec,
    peer::Peer,
    proxy::{Action, Rule},
};
use colophon_tests::{PATIENCE, SiteOptions, World, request};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    along::{refer, tag_of},
    kill::{Crew, LONG_TIMES},
    ledger_check,
    release_scene::{state, text},
};

const KINDS: [&str; 2] = ["application/spdx+json", "application/vnd.cncf.notary.signature"];

/// An image at the source with one of cosign's tags; returns its reference and that tag.
async fn signed(crew: &Crew, name: &str) -> (String, String) {
    let image = crew.source.push(&ImageSpec::tiny(name), name, "v1").await.unwrap();
    let peer = crew.source.peer().unwrap();
    let tag = format!("{}.sig", tag_of(image.digest()));
    let config = peer.put_blob(name, b"{}").await.unwrap();
    let body = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [],
    });
    let bytes = serde_json::to_vec(&body).unwrap();
    peer.put_manifest(name, &tag, text(&body, "/mediaType"), &bytes).await.unwrap();
    (format!("{}@{}", crew.source.repository(name), image.digest()), tag)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_over_a_companion_is_replaced() {
    let mut crew = Crew::with(LONG_TIMES, 1).await;
    let points = [
        ("never-sent", Action::HoldBefore, false, "intent not_applied intent confirmed"),
        ("lands-late", Action::HoldBefore, true, "intent recovered"),
        ("unanswered", Action::HoldAfter, false, "intent recovered"),
    ];
    for (name, action, lands, expected) in points {
        let (source, tag) = signed(&crew, name).await;
        let path = format!("/v2/{name}/manifests/{tag}");
        let put = crew.target.proxy().add(Rule::new(action).method(Method::PUT).path(path));
        let release = crew.publish(&source, name, &["1.0.0"], &["1"]).await;
        put.reached(PATIENCE).await.unwrap();
        crew.kill_holder(&release, "copy").await;
        if lands {
            crew.lands(&put).await;
        } else {
            put.drop_connections();
        }
        crew.time_passes(&release).await;
        crew.hire().await;
        let ended = crew.succeeds(&release).await;
        let companion = &ended["publications"][0]["companions"][0];
        assert_eq!(text(companion, "/tag"), tag, "{ended:#}");
        let story = ledger_check::story(&crew.world, &crew.target, name, &tag).await;
        assert_eq!(story.words(), expected, "{name}\n{}", crew.logs());
        crew.target.proxy().clear();
    }
    ledger_check::check(&crew.world, &crew.source, &[&crew.target]).await;
}

/// The digests that a list of referrers names.
async fn listed(peer: &Peer, name: &str, subject: &str) -> Vec<String> {
    let (bytes, _) = peer.manifest(name, &tag_of(subject)).await.unwrap().unwrap();
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    let entries = list["manifests"].as_array().unwrap();
    entries.iter().map(|entry| text(entry, "/digest").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_add_to_one_list_neither_loses_an_entry() {
    let mut world = World::new().await.unwrap();
    let sources = [
        world.site(SiteOptions::default()).await.unwrap(),
        world.site(SiteOptions::default()).await.unwrap(),
    ];
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.serve().await.unwrap();
    let _workers = [world.work().await.unwrap(), world.work().await.unwrap()];
    let client = world.client(&node).unwrap();
    let app = target.repository("app");
    for round in 0..4 {
        let mut releases = Vec::new();
        let (mut digest, mut wanted) = (String::new(), Vec::new());
        // The same image at two places, with another referrer at each.
        for (number, source) in sources.iter().enumerate() {
            let image = ImageSpec::tiny(format!("round {round}"));
            digest = source.push(&image, "app", "1").await.unwrap().digest().to_owned();
            wanted.push(refer(&source.peer().unwrap(), &digest, KINDS[number]).await);
        }
        for (number, source) in sources.iter().enumerate() {
            let tag = format!("{round}-{number}");
            let body = request(&source.reference("app", "1"), &[(&app, &[&tag], &[])]);
            releases.push(client.create(&body).await.unwrap().good().unwrap());
        }
        for release in &releases {
            let ended = client.wait_end(text(release, "/id")).await.unwrap();
            assert_eq!(state(&ended), "SUCCEEDED", "{ended:#}");
        }
        let mut found = listed(&target.peer().unwrap(), "app", &digest).await;
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "round {round}");
    }
    ledger_check::check(&world, &sources[0], &[&target]).await;
}

#[tokio::test]
async fn what_the_registry_does_not_take_fails_the_release_before_its_first_tag() {
    let crew = Crew::new(1).await;
    let (source, tag) = signed(&crew, "app").await;
    let path = format!("/v2/app/manifests/{tag}");
    let body = r#"{"errors":[{"code":"TAG_INVALID","message":"the tag is immutable"}]}"#;
    let deny = Action::Status(StatusCode::BAD_REQUEST, Vec::new(), body.to_owned());
    crew.target.proxy().add(Rule::new(deny).method(Method::PUT).path(path).always());
    let release = crew.publish(&source, "app", &["1.0.0"], &["1"]).await;
    let ended = crew.client.wait_end(&release).await.unwrap();
    assert_eq!(state(&ended), "FAILED TAG_IMMUTABLE", "{ended:#}");
    let said = text(&ended, "/message");
    assert!(said.contains(&tag) && said.contains("without cosign's tags"), "{said}");
    let peer = crew.target.peer().unwrap();
    assert_eq!(peer.digest_of("app", "1.0.0").await.unwrap(), None);
    assert_eq!(peer.digest_of("app", "1").await.unwrap(), None);
}
