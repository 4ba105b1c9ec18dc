//! What probes are told of PostgreSQL and Vault, by a server and by a worker, while those are away.

use colophon_testkit::{
    image::ImageSpec,
    launcher::{PostgresOptions, port::Port},
    wait::{self, wait_until},
};
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

/// A migration may take longer than those who probe are patient.
#[tokio::test]
async fn while_the_schema_is_brought_up_to_date_a_server_lives_and_is_not_ready() {
    let mut world = World::new().await.unwrap();
    world.serve().await.unwrap().stop().await.unwrap();
    let mut migrating = world.database().pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE _sqlx_migrations").execute(&mut *migrating).await.unwrap();
    let port = Port::reserve().unwrap();
    let config = world.config(world.folder()).replacen("127.0.0.1:0", &port.address(), 1);
    let (file, log) = (world.folder().join("own.toml"), world.folder().join("own.log"));
    std::fs::write(&file, config).unwrap();
    let arguments = ["-c", file.to_str().unwrap(), "serve"];
    let _server = wait::start("colophond", arguments, &[], &log).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let becomes = async |path: &str, status: u16, word: &str| {
        let seen = async || {
            let answer = http.get(format!("http://{}{path}", port.address())).send().await.ok()?;
            let got = answer.status().as_u16();
            let body = answer.text().await.ok()?;
            (got == status && body.contains(word)).then_some(())
        };
        wait_until(&format!("{path}: {status} {word}"), PATIENCE, seen).await.unwrap();
    };
    becomes("/livez", 200, "ok").await;
    becomes("/readyz", 503, "is starting").await;
    becomes("/v1/freezes", 503, "is starting").await;
    migrating.rollback().await.unwrap();
    becomes("/readyz", 200, "ok").await;
    becomes("/v1/freezes", 401, "").await;
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
