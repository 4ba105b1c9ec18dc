//! The configuration is read again while the process runs, on SIGHUP or when the file changes. A bad
//! file changes nothing.

use colophon_testkit::{image::ImageSpec, launcher::process::Signal, wait::wait_until};
use colophon_tests::{Node, PATIENCE, SiteOptions, World};

const READS: &str = r#"[{ repositories = ["*"], actions = ["read"] }]"#;

fn write(world: &World, node: &Node) {
    std::fs::write(node.config(), world.config(node.folder())).unwrap();
}

#[tokio::test]
async fn registries_and_callers_change_without_a_restart() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    staging.push(&ImageSpec::tiny("reload"), "app", "1").await.unwrap();
    let mut node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let later = world.site(SiteOptions::default()).await.unwrap();
    let reader = world.caller("reader", READS).unwrap();
    let reader = world.client_of(&node, &reader).unwrap();
    let request = colophon_tests::request(
        &staging.reference("app", "1"),
        &[(&later.repository("app"), &["1"], &[])],
    );
    let refused = client.create(&request).await.unwrap();
    assert_eq!(refused.text("/reason"), "UNKNOWN_REGISTRY", "{refused:?}");
    assert!(reader.get("/v1/releases", &[]).await.is_err());

    write(&world, &node);
    world.limits = "call_timeout = \"5s\"\n".to_owned();
    write(&world, &node);
    node.process().signal(Signal::HUP).unwrap();
    node.process().until_log("the configuration was reloaded", PATIENCE).await.unwrap();
    node.process().until_log("holds from the next start on", PATIENCE).await.unwrap();
    let release = client.create(&request).await.unwrap().good().unwrap();
    let ended = client.wait_end(release["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(ended["state"], "RELEASE_STATE_SUCCEEDED", "{ended:#}");
    reader.get("/v1/releases", &[]).await.unwrap();

    // Everything of a bad file is refused, also what is good in it.
    let text = world.config(node.folder()).replace("name = \"reader\"", "name = \"\"");
    std::fs::write(node.config(), text).unwrap();
    node.process().signal(Signal::HUP).unwrap();
    let line = node.process().until_log("was not reloaded", PATIENCE).await.unwrap();
    assert!(line.contains("caller[1]"), "{line}");
    reader.get("/v1/releases", &[]).await.unwrap();
    client.get("/v1/releases", &[]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_where_that_is_asked_for() {
    let mut world = World::new().await.unwrap();
    world.sections = "[reload]\nwatch_interval = \"100ms\"\n".to_owned();
    let node = world.serve().await.unwrap();
    let reader = world.caller("reader", READS).unwrap();
    let reader = world.client_of(&node, &reader).unwrap();
    assert!(reader.get("/v1/releases", &[]).await.is_err());
    write(&world, &node);
    let known = async || reader.get("/v1/releases", &[]).await.ok();
    wait_until("the new caller is known", PATIENCE, known).await.unwrap();
}
