//! What is removed from the local engine: only names of images that are seen to be published, that no
//! container uses, and that were not to be kept.

use colophon_api::v1::{ListTagMovesResponse, ReleaseState, TagEntry, TagMoveState};
use colophon_testkit::image::{Image, ImageSpec};
use serde_json::{Value, json};

use crate::{
    Ran, colophon,
    engine::{Engine, Has},
    fake::{Fake, Step},
    pushing::{built, fake},
    queued, release, run,
};

const TO: &str = "--to docker.io/a/x --tag 1.4.2 --float 1.4";

/// An image that the engine calls by this name, as one with containerd does.
fn archive(image: &Image, name: &str) -> Vec<u8> {
    let at = image.layout().join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
    let (_, tag) = name.rsplit_once(':').unwrap();
    index["manifests"][0]["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{name}"),
        "org.opencontainers.image.ref.name": tag,
    });
    std::fs::write(&at, index.to_string()).unwrap();
    let made = std::process::Command::new("tar")
        .arg("-C")
        .arg(image.layout())
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

fn id(number: u8) -> String {
    format!("sha256:{}", format!("{number:02x}").repeat(32))
}

fn named(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|&tag| tag.to_owned()).collect()
}

/// An engine with the image as `app:1`, and a server that publishes it.
fn scene() -> (Fake, Engine, Image) {
    let (fake, image) = (fake(), built(ImageSpec::tiny("removed").layer(10_000)));
    let archive = archive(&image, "app:1");
    let images = vec![(image.digest().to_owned(), named(&["app:1"]), 50)];
    let engine = Engine::start(Has { images, archive, ..Has::default() });
    let digest = image.digest().to_owned();
    let mut release = release(ReleaseState::Succeeded, TagMoveState::Moved);
    release.digest.clone_from(&digest);
    {
        let mut script = fake.script();
        script.get = [Step::Answer(release)].into();
        for tag in ["1.4.2", "1.4"] {
            script.tags.insert(format!("docker.io/a/x:{tag}"), digest.clone());
        }
    }
    (fake, engine, image)
}

fn ran(fake: &Fake, engine: &Engine, line: &str) -> Ran {
    let mut command = colophon(fake, line);
    command.env("DOCKER_HOST", engine.host());
    run(command)
}

fn push(fake: &Fake, engine: &Engine, options: &str) -> Ran {
    let ran = ran(fake, engine, &format!("push docker://app:1 {TO} {options}"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran
}

#[test]
fn a_name_goes_when_every_tag_was_seen_at_its_digest() {
    let (fake, engine, image) = scene();
    let ran = push(&fake, &engine, "");
    assert!(engine.has().removed.is_empty(), "nobody asked for it");
    fake.script().create.push_back(Step::Answer(queued()));
    assert!(!ran.err.contains("app:1 stays"), "{}", ran.err);
    let ran = push(&fake, &engine, "--remove-local");
    assert!(ran.err.contains("app:1 removed"), "{}", ran.err);
    let has = engine.has();
    assert_eq!(has.removed, ["app:1"]);
    assert!(!has.queries[0].contains("force=true"), "{:?}", has.queries);
    let source = format!("docker.io/a/x@{}", image.digest());
    assert_eq!(fake.script().created[1].source, source);
}

#[test]
fn nothing_goes_where_a_tag_is_not_seen_at_its_digest() {
    let (fake, engine, _image) = scene();
    fake.script().tags.insert("docker.io/a/x:1.4".into(), id(9));
    let ran = push(&fake, &engine, "--remove-local");
    assert!(ran.err.contains("docker.io/a/x:1.4 is not known to be at"), "{}", ran.err);
    assert!(engine.has().removed.is_empty());
}

#[test]
fn nothing_goes_where_the_registry_has_something_else_by_now() {
    let (fake, engine, _image) = scene();
    fake.script().served.insert("docker.io/a/x:1.4".into(), id(9));
    let ran = push(&fake, &engine, "--remove-local");
    assert!(ran.err.contains("docker.io/a/x:1.4 is not known to be at"), "{}", ran.err);
    assert!(engine.has().removed.is_empty());
}

#[test]
fn nothing_goes_after_a_release_that_failed() {
    let (fake, engine, _image) = scene();
    let failed = release(ReleaseState::Failed, TagMoveState::Refused);
    fake.script().get = [Step::Answer(failed)].into();
    let ran = ran(&fake, &engine, &format!("push docker://app:1 {TO} --remove-local"));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(engine.has().removed.is_empty());
}

#[test]
fn an_image_in_use_stays_and_its_user_is_named() {
    let (fake, engine, image) = scene();
    engine.has().containers.push(("web".into(), image.digest().to_owned()));
    let ran = push(&fake, &engine, "--remove-local");
    assert!(ran.err.contains("app:1 stays: used by the container web (running)"), "{}", ran.err);
    assert!(engine.has().removed.is_empty());
}

#[test]
fn another_name_is_told_and_stays() {
    let (fake, engine, _image) = scene();
    engine.has().images[0].1.push("app:nightly".into());
    let ran = push(&fake, &engine, "--remove-local");
    assert!(ran.err.contains("the image stays, it is app:nightly, too"), "{}", ran.err);
    assert_eq!(engine.has().removed, ["app:1"]);
}

/// Moves of the repository's tags, newest first.
fn moves(entries: &[(&str, &str)]) -> ListTagMovesResponse {
    let entry = |(tag, digest): &(&str, &str)| TagEntry {
        reference: format!("docker.io/a/x:{tag}"),
        new_digest: (*digest).to_owned(),
        ..TagEntry::default()
    };
    ListTagMovesResponse {
        moves: entries.iter().map(entry).collect(),
        next_page_token: String::new(),
    }
}

/// Five images, the newest first, of which the ledger knows three.
fn old_images() -> (Fake, Engine) {
    let fake = fake();
    let images = (1..=5)
        .map(|number: u8| (id(number), named(&[&format!("app:{number}")]), 100 - i64::from(number)))
        .collect();
    let engine = Engine::start(Has { images, ..Has::default() });
    {
        let mut script = fake.script();
        let (new, second, third) = (id(1), id(3), id(5));
        let list = [("1", new.as_str()), ("3", &second), ("5", &third)];
        script.moves = moves(&list);
        for (tag, digest) in list {
            script.tags.insert(format!("docker.io/a/x:{tag}"), digest.to_owned());
        }
    }
    (fake, engine)
}

#[test]
fn what_earlier_runs_left_is_shown_and_then_removed() {
    let (fake, engine) = old_images();
    engine.has().containers.push(("web".into(), id(5)));
    let line = "prune-local --repository docker.io/a/x --local app --keep 1";
    let planned = ran(&fake, &engine, &format!("{line} --plan"));
    assert_eq!(planned.code, Some(0), "{}", planned.err);
    let rows: Vec<Vec<&str>> = planned
        .out
        .lines()
        .skip(1)
        .map(|row| row.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(
        rows,
        [
            ["app:1", "stays", "it is among the newest 1"],
            ["app:2", "stays", "no tag is known to be at it"],
            ["app:3", "would be removed", "published as docker.io/a/x:3"],
            ["app:4", "stays", "no tag is known to be at it"],
            ["app:5", "stays", "used by the container web (running)"],
        ]
    );
    assert!(engine.has().removed.is_empty(), "a plan removes nothing");
    let pruned = ran(&fake, &engine, line);
    assert_eq!(pruned.code, Some(0), "{}", pruned.err);
    assert_eq!(engine.has().removed, ["app:3"]);
    assert!(pruned.out.contains("app:3 removed"), "{}", pruned.out);
}

#[test]
fn a_tag_that_has_moved_on_since_is_no_reason_to_remove() {
    let (fake, engine) = old_images();
    fake.script().tags.insert("docker.io/a/x:3".into(), id(8));
    let line = "prune-local --repository docker.io/a/x --local app --keep 1";
    let pruned = ran(&fake, &engine, line);
    assert_eq!(pruned.code, Some(0), "{}", pruned.err);
    assert_eq!(engine.has().removed, ["app:5"]);
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    let fake = fake();
    let mut command = colophon(&fake, "prune-local --repository docker.io/a/x");
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let ran = run(command);
    assert_eq!(ran.code, Some(11), "{}", ran.err);
    assert!(ran.err.contains("DOCKER_HOST"), "{}", ran.err);
}
