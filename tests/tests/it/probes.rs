//! What probes are told of PostgreSQL and Vault, by a server and by a worker, while those are away.

use colophon_testkit::{image::ImageSpec, launcher::PostgresOptions, wait::wait_until};
use colophon_tests::{Node, PATIENCE, SiteOptions, World};
use serde_json::Value;

/// Waits until the readiness of a node has this status; the worker's, or the server's.
async fn becomes(node: &Node, worker: bool, status: u16, word: &str) -> Value {
    let seen = async || {
        let asked =
            if worker { node.probe("/readyz").await } else { node.probe_api("/readyz").await };
        asked.ok().filter(|(got, body)| *got == status && body.to_string().contains(word))
    };
    let (_, body) = wait_until(&format!("{status} {word}"), PATIENCE, seen).await.unwrap();
    body
}

#[tokio::test]
async fn a_process_without_its_database_lives_and_is_not_ready() {
    let mut world = World::with_own_postgres(PostgresOptions::default()).await.unwrap();
    let node = world.run().await.unwrap();
    let worker = world.work().await.unwrap();
    for (node, worker) in [(&node, false), (&worker, true)] {
        let body = becomes(node, worker, 200, "ok").await;
        assert_eq!(body["parts"]["database"]["status"], "ok", "{body}");
    }
    world.database().server().lock().await.stop().await.unwrap();
    for (node, worker) in [(&node, false), (&node, true), (&worker, true)] {
        let body = becomes(node, worker, 503, "DATABASE_UNAVAILABLE").await;
        let part = &body["parts"]["database"];
        assert_eq!(part["reason"], "DATABASE_UNAVAILABLE", "{body}");
        assert!(part["since"].as_str().unwrap().ends_with('Z'), "{body}");
        // Who asks without a token is told no address, not even of a folder.
        let folder = world.folder().display().to_string();
        assert!(!body.to_string().contains(&folder) && !body.to_string().contains(".s.PGSQL"));
    }
    assert_eq!(node.probe_api("/livez").await.unwrap().0, 200);
    assert_eq!(worker.probe("/livez").await.unwrap().0, 200);
    world.database().server().lock().await.resume().await.unwrap();
    becomes(&node, false, 200, "ok").await;
    becomes(&worker, true, 200, "ok").await;
}

#[tokio::test]
async fn a_process_waits_for_a_database_that_is_away_at_its_start() {
    let mut world = World::with_own_postgres(PostgresOptions::default()).await.unwrap();
    world.database().server().lock().await.stop().await.unwrap();
    let mut starting = world.start_only("run").await.unwrap();
    starting.process().until_log("waiting for the database", PATIENCE).await.unwrap();
    becomes(&starting, true, 503, "DATABASE_UNAVAILABLE").await;
    // It can be told to stop meanwhile, too.
    let mut second = world.start_only("work").await.unwrap();
    second.process().until_log("waiting for the database", PATIENCE).await.unwrap();
    assert!(second.stop_well().await.unwrap().success());
    world.database().server().lock().await.resume().await.unwrap();
    starting.process().until_log("serving gRPC and REST", PATIENCE).await.unwrap();
    becomes(&starting, true, 200, "ok").await;
}

#[tokio::test]
async fn without_vault_a_process_is_degraded_and_accepts_releases() {
    let mut world = World::new().await.unwrap();
    let mut vault = world.vault("").await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    staging.push(&ImageSpec::tiny("degraded"), "app", "1").await.unwrap();
    let node = world.run().await.unwrap();
    becomes(&node, false, 200, "\"status\":\"ok\"").await;
    vault.bao.seal().await.unwrap();
    let body = becomes(&node, false, 200, "VAULT_SEALED").await;
    assert_eq!(body["status"], "degraded", "{body}");
    assert!(!body.to_string().contains(&vault.bao.address()), "{body}");
    becomes(&node, true, 200, "VAULT_SEALED").await;
    let client = world.client(&node).unwrap();
    let target = staging.repository("app");
    client.publish(&staging.reference("app", "1"), &[(&target, &["2"], &[])]).await.unwrap();
    vault.bao.kill();
    becomes(&node, false, 200, "VAULT_UNAVAILABLE").await;
    vault.bao.resume().await.unwrap();
    vault.bao.unseal().await.unwrap();
    becomes(&node, false, 200, "\"vault\":{\"status\":\"ok\"}").await;
}
