//! PATs that change, and a Vault that is sealed, away, forgetful or forbidding: a release waits,
//! says what for, loses no attempt by it and ends well.

use std::time::Duration;

use colophon_testkit::{
    image::ImageSpec,
    proxy::{Action, Rule},
};
use colophon_tests::{SiteOptions, World};
use http::Method;
use serde_json::json;

use crate::{
    release_scene::{attempts, login, pat, published, state, succeeded, text},
    vault_scene::{CountedVault, POLICY, credentials, waiting},
};

const LONG: Duration = Duration::from_mins(10);

#[tokio::test]
async fn a_pat_that_is_replaced_is_read_again_once_and_nothing_is_restarted() {
    let mut world = World::new().await.unwrap();
    let vault = CountedVault::start(&mut world, "reread_interval = \"1s\"", LONG).await;
    let (old, new) = (login("team"), login("team"));
    vault.put_login("target", &old).await;
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::proxied().login(&old).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    staging.push(&ImageSpec::tiny("rotation"), "app", "1").await.unwrap();
    succeeded(&client, &source, &[(&app, &["1"], &["latest"])]).await;
    assert_eq!((vault.reads("target"), vault.logins()), (1, 1));

    // In the middle of a release: its manifest is on its way when the PAT changes.
    let image = staging.push(&ImageSpec::tiny("second"), "app", "2").await.unwrap();
    let source = staging.reference("app", "2");
    let put = Rule::new(Action::HoldBefore).method(Method::PUT).path("/manifests/sha256:");
    let put = target.proxy().add(put);
    let id = client.publish(&source, &[(&app, &["2"], &["latest"])]).await.unwrap();
    put.reached(Duration::from_mins(1)).await.unwrap();
    target.registry().set_logins(std::slice::from_ref(&new)).unwrap();
    vault.put_login("target", &new).await;
    put.forward();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert_eq!(vault.reads("target"), 2);
    let peer = target.peer().unwrap().login(new.clone());
    assert_eq!(peer.digest_of("app", "latest").await.unwrap().as_deref(), Some(image.digest()));

    // Now the registry refuses the PAT that Vault still holds: one more look, and no more.
    target.registry().set_logins(&[login("team")]).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let refused = published(&client, &source, &[(&app, &["3", "4", "5", "6"], &[])]).await;
    assert_eq!(state(&refused), "FAILED REGISTRY_UNAUTHORIZED", "{refused:#}");
    assert!(text(&refused, "/message").contains("username and PAT"), "{refused:#}");
    assert!(!refused.to_string().contains(pat(&new)));
    assert_eq!((vault.reads("target"), vault.logins()), (3, 1));
}

#[tokio::test]
async fn while_vault_is_sealed_a_release_waits_and_uses_up_no_attempt() {
    let mut world = World::new().await.unwrap();
    let mut vault = CountedVault::start(&mut world, "pat_cache_ttl = \"1s\"", LONG).await;
    let team = login("team");
    vault.put_login("target", &team).await;
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::default().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    world.worker.push_str("max_attempts = 1\n");
    vault.bao.seal().await.unwrap();
    // A sealed Vault keeps nobody from starting, nor from accepting releases.
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = staging.push(&ImageSpec::tiny("sealed"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    let seen = waiting(&client, &id, "is sealed").await;
    assert_eq!((state(&seen).as_str(), attempts(&seen).len()), ("RUNNING", 0), "{seen:#}");
    assert!(text(&seen, "/waitingFor").contains("Vault"), "{seen:#}");
    vault.bao.unseal().await.unwrap();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert_eq!(text(&release, "/waitingFor"), "", "{release:#}");
    assert_eq!(target.inspect("app", "latest").await.unwrap(), image.digest());

    // The same when Vault is gone altogether, and comes back.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    vault.bao.kill();
    let id = client.publish(&source, &[(&app, &["2"], &[])]).await.unwrap();
    let seen = waiting(&client, &id, "Vault at").await;
    assert_eq!(attempts(&seen), [""; 0], "{seen:#}");
    vault.bao.resume().await.unwrap();
    vault.bao.unseal().await.unwrap();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!((state(&release).as_str(), attempts(&release).len()), ("SUCCEEDED", 0));
}

#[tokio::test]
async fn a_login_that_ends_is_made_anew() {
    let mut world = World::new().await.unwrap();
    let ttl = Duration::from_secs(3);
    let settings = "pat_cache_ttl = \"200ms\"\nreread_interval = \"200ms\"";
    let vault = CountedVault::start(&mut world, settings, ttl).await;
    let team = login("team");
    vault.put_login("target", &team).await;
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::default().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("expiry"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    // Longer than a token may live, renewed as often as may be.
    let begun = std::time::Instant::now();
    let mut number = 0;
    while begun.elapsed() < ttl * 5 {
        number += 1;
        let tag = format!("expiry-{number}");
        let release = succeeded(&client, &source, &[(&app, &[&tag], &[])]).await;
        assert_eq!(attempts(&release), [""; 0], "{release:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(vault.logins() >= 2, "{} logins", vault.logins());

    // A token that an operator takes away is replaced when it is next refused.
    let before = vault.logins();
    vault.revoke_tokens().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let release = succeeded(&client, &source, &[(&app, &["revoked"], &[])]).await;
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert!(vault.logins() > before);
}

#[tokio::test]
async fn what_vault_forbids_is_waited_for_and_named() {
    let mut world = World::new().await.unwrap();
    let vault = CountedVault::start(&mut world, "reread_interval = \"200ms\"", LONG).await;
    let team = login("team");
    vault.put_login("target", &team).await;
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::default().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    let nothing = r#"path "secret/data/other" { capabilities = ["read"] }"#;
    vault.set_policy(nothing).await;
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("denied"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    let seen = waiting(&client, &id, "registries/target").await;
    assert!(text(&seen, "/waitingFor").contains("403"), "{seen:#}");
    assert_eq!(attempts(&seen), [""; 0], "{seen:#}");
    // As a source it is asked for in the call itself, which tells the caller.
    let own = json!({
        "source": target.reference("app", "1"),
        "targets": [{ "repository": app, "uniqueTags": ["2"] }],
    });
    let answer = client.create(&own).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text("/reason")), (503, "VAULT_DENIED"));
    assert!(answer.text("/remedy").contains("capability"), "{:#}", answer.body);
    vault.set_policy(POLICY).await;
    // It looks again after half a minute.
    let release = client.wait_end_for(&id, Duration::from_mins(3)).await.unwrap();
    assert_eq!((state(&release).as_str(), attempts(&release).len()), ("SUCCEEDED", 0));
}

#[tokio::test]
async fn a_secret_that_lacks_a_field_is_named_until_it_is_whole() {
    let mut world = World::new().await.unwrap();
    let vault = CountedVault::start(&mut world, "", LONG).await;
    let team = login("team");
    vault.bao.put_secret("registries/target", json!({ "username": "team" })).await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::default().login(&team).settings(&credentials("target"));
    let target = world.site(target).await.unwrap();
    let missing = world
        .site(SiteOptions::default().login(&team).settings(&credentials("missing")))
        .await
        .unwrap();
    world.worker.push_str("max_attempts = 6\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("field"), "app", "1").await.unwrap();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    let tried = |release: &serde_json::Value| attempts(release).len() >= 2;
    let seen = client.wait_release(&id, LONG, tried).await.unwrap();
    assert!(attempts(&seen).iter().all(|reason| *reason == "CREDENTIAL_MISSING"), "{seen:#}");
    let message = text(&seen, "/attempts/0/message");
    assert!(message.contains("field token") && message.contains("registries/target"), "{message}");
    vault.put_login("target", &team).await;
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");

    let app = missing.repository("app");
    let release = published(&client, &source, &[(&app, &["1"], &[])]).await;
    assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
    assert_eq!(attempts(&release), ["CREDENTIAL_MISSING"; 6], "{release:#}");
    assert!(text(&release, "/message").contains("registries/missing"), "{release:#}");
}
