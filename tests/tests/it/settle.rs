//! A registry that dies in the middle of a move: nobody knows the outcome, until it returns or a
//! person says it.

use colophon_testkit::{image::ImageSpec, proxy::Action, wait::wait_until};
use colophon_tests::{CliOutput, Client, Node, PATIENCE, World};
use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::{
    kill::{Crew, LONG_TIMES},
    ledger_check,
    release_scene::text,
    safe_scene::{about, digest},
};

struct Scene {
    crew: Crew,
    ops: SecretString,
    old: String,
    new: String,
    latest: String,
}

impl Scene {
    /// `app:latest` is at an older build; its next move is interrupted by the registry's death.
    /// Returns the release.
    async fn new(lost: Action) -> (Self, String) {
        let mut world = World::new().await.unwrap();
        let grants = r#"[{ repositories = ["*"], actions = ["read", "settle"] }]"#;
        let ops = world.caller("ops", grants).unwrap();
        let mut crew = Crew::on(world, LONG_TIMES, 1).await;
        let old = crew.image(&ImageSpec::tiny("old"), "app").await;
        let new = crew.image(&ImageSpec::tiny("new"), "app").await;
        crew.publish_well(&old, "app", &[], &["latest"]).await;
        let put = crew.target.proxy().add(about(lost, Method::PUT, "app", "latest"));
        let id = crew.publish(&new, "app", &["2"], &["latest"]).await;
        put.reached(PATIENCE).await.unwrap();
        crew.target.registry_mut().kill();
        put.drop_connections();
        let unknown = |release: &Value| {
            text(release, "/publications/0/tags/1/state") == "TAG_MOVE_STATE_UNKNOWN"
        };
        crew.client.wait_release(&id, PATIENCE, unknown).await.unwrap();
        let latest = format!("{}:latest", crew.target.repository("app"));
        (Self { crew, ops, old, new, latest }, id)
    }

    /// `colophon settle`, as the operator.
    async fn settle(&self, node: &Node, how: &str) -> CliOutput {
        let mut command = self.crew.world.cli_command(node).unwrap();
        command.env("COLOPHON_TOKEN", self.ops.expose_secret());
        command.args(["settle", &self.latest, "--as", how, "--reason", "the disk is gone"]);
        let output = command.output().await.unwrap();
        CliOutput {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The entry that a person has written.
    async fn told(&self, client: &Client) -> Value {
        let moves = client.moves(&self.latest).await.unwrap();
        let told = moves.iter().find(|entry| text(entry, "/reasonCode") == "SETTLED_BY_HAND");
        let told = told.unwrap_or_else(|| panic!("{moves:#?}")).clone();
        assert_eq!(text(&told, "/actor"), "ops", "{told:#}");
        assert_eq!(text(&told, "/reason"), "the disk is gone", "{told:#}");
        told
    }
}

#[tokio::test]
async fn a_person_says_that_it_moved() {
    let (mut scene, id) = Scene::new(Action::HoldAfter).await;
    let output = scene.settle(&scene.crew.api, "moved").await;
    assert_eq!(output.code, Some(3), "its PUT may be under way still: {output:?}");
    assert!(output.err.contains("NOT_UNKNOWN"), "{output:?}");
    let line = ["resolve", &scene.latest];
    let resolved = scene.crew.world.cli(&scene.crew.api, &line).await.unwrap();
    assert_eq!(resolved.code, Some(0), "{resolved:?}");
    assert!(resolved.out.contains("UNCERTAIN"), "a tag on its way is said to be so: {resolved:?}");

    // The right, and nothing that makes no sense.
    let grants = r#"[{ repositories = ["*"], actions = ["read", "publish"] }]"#;
    let deploy = scene.crew.world.caller("deploy", grants).unwrap();
    let other = scene.crew.world.serve().await.unwrap();
    let own = std::mem::replace(&mut scene.ops, deploy);
    let output = scene.settle(&other, "moved").await;
    assert_eq!(output.code, Some(10), "{output:?}");
    scene.ops = own;
    let output = scene.settle(&scene.crew.api, "perhaps").await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.err.contains("not-moved"), "{output:?}");

    scene.crew.intents_are_due(&id).await;
    let output = scene.settle(&scene.crew.api, "moved").await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains(digest(&scene.new)), "{output:?}");
    let release = scene.crew.succeeds(&id).await;
    assert_eq!(text(&release, "/publications/0/tags/1/state"), "TAG_MOVE_STATE_MOVED");
    let told = scene.told(&scene.crew.client).await;
    assert_eq!(text(&told, "/newDigest"), digest(&scene.new), "{told:#}");
    let output = scene.settle(&scene.crew.api, "not-moved").await;
    assert_eq!(output.code, Some(3), "once is enough: {output:?}");
    scene.crew.target.registry_mut().resume().await.unwrap();
    ledger_check::check(&scene.crew.world, &scene.crew.source, &[&scene.crew.target]).await;
}

#[tokio::test]
async fn a_person_says_that_it_did_not_and_the_release_tries_again() {
    let (mut scene, id) = Scene::new(Action::HoldBefore).await;
    scene.crew.intents_are_due(&id).await;
    let output = scene.settle(&scene.crew.api, "not-moved").await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let told = scene.told(&scene.crew.client).await;
    assert_eq!(text(&told, "/newDigest"), digest(&scene.old), "{told:#}");
    scene.crew.target.proxy().clear();
    scene.crew.target.registry_mut().resume().await.unwrap();
    scene.crew.succeeds(&id).await;
    let served = async || {
        let served = scene.crew.target.inspect("app", "latest").await.ok()?;
        (served == digest(&scene.new)).then_some(())
    };
    wait_until("the tag is there", PATIENCE, served).await.unwrap();
    let words = ledger_check::story(&scene.crew.world, &scene.crew.target, "app", "latest").await;
    let words = words.words();
    assert_eq!(words, "intent confirmed intent not_applied intent confirmed", "{words}");
    ledger_check::check(&scene.crew.world, &scene.crew.source, &[&scene.crew.target]).await;
}

/// A registry that answers again knows better than any person.
#[tokio::test]
async fn a_registry_that_answers_is_believed_before_a_person() {
    for (said, code) in [("not-moved", 3), ("moved", 0)] {
        let (mut scene, id) = Scene::new(Action::HoldAfter).await;
        scene.crew.target.proxy().clear();
        scene.crew.target.registry_mut().resume().await.unwrap();
        scene.crew.intents_are_due(&id).await;
        let output = scene.settle(&scene.crew.api, said).await;
        // The reconciler may have been faster.
        let faster = output.code == Some(3) && output.err.contains("waits for its outcome");
        assert!(faster || output.code == Some(code), "{said}: {output:?}");
        if code == 3 {
            assert!(output.err.contains("NOT_UNKNOWN"), "{output:?}");
        }
        scene.crew.succeeds(&id).await;
        let moves = scene.crew.client.moves(&scene.latest).await.unwrap();
        let told = moves.iter().any(|entry| text(entry, "/reasonCode") == "SETTLED_BY_HAND");
        assert!(!told, "{moves:#?}");
        assert_eq!(scene.crew.target.inspect("app", "latest").await.unwrap(), digest(&scene.new));
        ledger_check::check(&scene.crew.world, &scene.crew.source, &[&scene.crew.target]).await;
    }
}
