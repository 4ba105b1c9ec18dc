//! Registries that are away, refuse, ask for a pause or lose content: what passes is waited out
//! and shown, what stays is said with its reason.

use std::time::Duration;

use colophon_testkit::{
    image::ImageSpec,
    peer::assert_same,
    proxy::{Action, Rule},
};
use colophon_tests::{PATIENCE, SiteOptions, World};
use http::{Method, StatusCode};

use crate::{
    release_scene::{attempts, expected, kinds, login, published, state, tag_puts, tags, text},
    vault_scene::waiting,
};

/// Enough time for a PUT to be held by a test or to sit out a pause.
const PATIENT: &str = "lease = \"30s\"\nput_timeout = \"15s\"\npoll_interval = \"50ms\"\n\
                       backoff_min = \"50ms\"\nbackoff_max = \"500ms\"\n";

#[tokio::test]
async fn a_registry_that_is_away_for_a_while_costs_attempts_and_nothing_else() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let mut target = world.site(SiteOptions::default()).await.unwrap();
    world.worker.push_str("max_attempts = 50\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    let image = staging.push(&ImageSpec::tiny("away"), "app", "1").await.unwrap();
    target.registry_mut().kill();
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    let tried = |release: &serde_json::Value| attempts(release).len() >= 2;
    let seen = client.wait_release(&id, PATIENCE, tried).await.unwrap();
    assert_eq!(state(&seen), "RUNNING", "{seen:#}");
    let attempt = &seen["attempts"][0];
    assert_eq!((text(attempt, "/job"), text(attempt, "/repository")), ("copy", app.as_str()));
    assert_eq!((&attempt["number"], text(attempt, "/reason")), (&1.into(), "REGISTRY_UNAVAILABLE"));
    assert!(text(attempt, "/message").contains(&target.host()), "{attempt:#}");
    assert!(text(attempt, "/worker").contains(&node.id().to_string()), "{attempt:#}");
    target.registry_mut().resume().await.unwrap();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert!(attempts(&release).iter().all(|reason| *reason == "REGISTRY_UNAVAILABLE"));
    assert_eq!(target.inspect("app", "latest").await.unwrap(), image.digest());
}

#[tokio::test]
async fn a_registry_that_stays_away_uses_up_the_attempts() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let mut gone = world.site(SiteOptions::default()).await.unwrap();
    let fine = world.site(SiteOptions::proxied()).await.unwrap();
    world.worker.push_str("max_attempts = 2\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("gone"), "app", "1").await.unwrap();
    gone.registry_mut().kill();
    let (here, there) = (fine.repository("here"), gone.repository("there"));
    let targets = [(here.as_str(), &[][..], &["latest"][..]), (&there, &[], &["latest"])];
    let release = published(&client, &staging.reference("app", "1"), &targets).await;
    assert_eq!(state(&release), "ERRORED ATTEMPTS_EXHAUSTED", "{release:#}");
    assert_eq!(attempts(&release), ["REGISTRY_UNAVAILABLE"; 2], "{release:#}");
    let left = "NOT_ATTEMPTED NOT_ATTEMPTED";
    assert_eq!(tags(&release), expected(&[("here:latest", left), ("there:latest", left)]));
    assert_eq!(tag_puts(&fine), [""; 0]);
    assert!(text(&release, "/message").contains("connect"), "{release:#}");
}

#[tokio::test]
async fn a_registry_that_asks_for_a_pause_gets_it() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    PATIENT.clone_into(&mut world.worker);
    world.worker.push_str("max_attempts = 1\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("pause"), "app", "1").await.unwrap();
    let asks = |seconds: &str| {
        let header = vec![("Retry-After".to_owned(), seconds.to_owned())];
        let words = "<html>slow down</html>".to_owned();
        Action::Status(StatusCode::TOO_MANY_REQUESTS, header, words)
    };
    let proxy = target.proxy();
    let long = proxy.add(Rule::new(asks("12")).path("/app/"));
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    long.reached(PATIENCE).await.unwrap();
    let seen = waiting(&client, &id, "asks for a pause").await;
    assert!(text(&seen, "/waitingFor").contains(&target.host()), "{seen:#}");
    let short = proxy.add(Rule::new(asks("1")).method(Method::PUT).path("/app/manifests/1"));
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(attempts(&release), [""; 0], "{release:#}");
    assert_eq!((long.hits(), short.hits()), (1, 1));
    // Nobody asked in between, and the tag's PUT was repeated after its own pause.
    let passed = proxy.log();
    let refused = |exchange: &&colophon_testkit::proxy::Exchange| {
        exchange.status == Some(StatusCode::TOO_MANY_REQUESTS)
    };
    for (first, pause) in passed.iter().filter(refused).zip([12, 1]) {
        let next =
            passed.iter().find(|exchange| exchange.arrived > first.answered.unwrap()).unwrap();
        let waited = next.arrived - first.answered.unwrap();
        assert!(waited >= Duration::from_millis(pause * 1_000 - 50), "{waited:?} of {pause} s");
    }
    assert_eq!(kinds(&client, &target.reference("app", "1")).await, ["intent", "confirmed"]);
}

#[tokio::test]
async fn a_pat_without_the_permission_to_push_says_so() {
    let mut world = World::new().await.unwrap();
    let vault = world.vault("reread_interval = \"100ms\"").await.unwrap();
    let team = login("team");
    vault.put_login("target", &team).await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::proxied()
        .login(&team)
        .settings("[[registry.credentials]]\npush = \"registries/target\"");
    let target = world.site(target).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("403"), "app", "1").await.unwrap();
    let words = r#"{"errors":[{"code":"DENIED","message":"requires write"}]}"#;
    let no = || Action::Status(StatusCode::FORBIDDEN, Vec::new(), words.to_owned());
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let upload = target.proxy().add(Rule::new(no()).method(Method::POST).always());
    let release = published(&client, &source, &[(&app, &["1"], &[])]).await;
    assert_eq!(state(&release), "FAILED REGISTRY_DENIED", "{release:#}");
    let message = text(&release, "/message");
    assert!(message.contains("permission to push") && message.contains(&app), "{message}");
    assert!(message.contains("requires write"), "{message}");
    assert!(upload.hits() <= 4, "{} uploads were tried", upload.hits());
    target.proxy().clear();
    target.proxy().add(Rule::new(no()).method(Method::PUT).path("/manifests/2").always());
    let release = published(&client, &source, &[(&app, &["2"], &["latest"])]).await;
    let left = "NOT_ATTEMPTED NOT_ATTEMPTED";
    let all = [("app:2", "FAILED REGISTRY_DENIED"), ("app:latest", left)];
    assert_eq!(tags(&release), expected(&all), "{release:#}");
    assert_eq!(state(&release), "FAILED REGISTRY_DENIED");
    assert_eq!(kinds(&client, &target.reference("app", "2")).await, ["intent", "not_applied"]);
}

#[tokio::test]
async fn waiting_for_a_newer_pat_does_not_outlast_the_put() {
    let mut world = World::new().await.unwrap();
    // Longer than the time for a PUT and all that follows: the reconciler would be there first,
    // again and again.
    let vault = world.vault("reread_interval = \"4s\"").await.unwrap();
    let team = login("team");
    vault.put_login("target", &team).await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = SiteOptions::proxied()
        .login(&team)
        .settings("[[registry.credentials]]\npush = \"registries/target\"");
    let target = world.site(target).await.unwrap();
    world.worker.push_str("max_attempts = 30\n");
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("403"), "app", "1").await.unwrap();
    let no = Action::Status(StatusCode::FORBIDDEN, Vec::new(), "no".to_owned());
    target.proxy().add(Rule::new(no).method(Method::PUT).path("/manifests/1").always());
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let first = published(&client, &source, &[(&app, &["1"], &[])]).await;
    let second = published(&client, &source, &[(&app, &["1"], &[])]).await;
    for release in [&first, &second] {
        assert_eq!(state(release), "FAILED REGISTRY_DENIED", "{release:#}");
    }
    let all = kinds(&client, &target.reference("app", "1")).await;
    let pairs: Vec<&[String]> = all.chunks(2).collect();
    assert!(pairs.len() > 1 && pairs.iter().all(|pair| *pair == ["intent", "not_applied"]));
}

#[tokio::test]
async fn content_that_the_registry_collected_before_the_tag_is_copied_once_more() {
    let mut world = World::new().await.unwrap();
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    PATIENT.clone_into(&mut world.worker);
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::new("garbage"), "app", "1").await.unwrap();
    let put = Rule::new(Action::HoldBefore).method(Method::PUT).path("/app/manifests/1");
    let put = target.proxy().add(put);
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &["latest"])]).await.unwrap();
    put.reached(PATIENCE).await.unwrap();
    // Everything that was copied is gone when the tag comes.
    let stored = target.registry().storage().join("docker/registry/v2/repositories/app");
    for folder in ["_layers", "_manifests/revisions"] {
        std::fs::remove_dir_all(stored.join(folder)).unwrap();
    }
    put.forward();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    let (from, to) = (staging.peer().unwrap(), target.peer().unwrap());
    assert_same((&from, "app", "1"), (&to, "app", "1")).await.unwrap();
    let reference = target.reference("app", "1");
    let all = ["intent", "not_applied", "intent", "confirmed"];
    assert_eq!(kinds(&client, &reference).await, all);
    let moves = client.moves(&reference).await.unwrap();
    assert_eq!(text(&moves[2], "/reasonCode"), "CONTENT_MISSING");

    // A registry that says so again and again is broken, and the release says so.
    let lost = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    let lost = Action::Status(StatusCode::NOT_FOUND, Vec::new(), lost.to_owned());
    let lost = Rule::new(lost).method(Method::PUT).path("/app/manifests/2").always();
    let lost = target.proxy().add(lost);
    let release = published(&client, &source, &[(&app, &["2"], &[])]).await;
    assert_eq!(state(&release), "FAILED CONTENT_MISSING", "{release:#}");
    assert!(text(&release, "/message").contains("twice"), "{release:#}");
    assert_eq!(lost.hits(), 2);
}

#[tokio::test]
async fn a_registry_that_cannot_say_for_a_moment_what_it_serves_is_asked_again() {
    let mut world = World::new().await.unwrap();
    PATIENT.clone_into(&mut world.worker);
    let staging = world.site(SiteOptions::default()).await.unwrap();
    let target = world.site(SiteOptions::proxied()).await.unwrap();
    let node = world.run().await.unwrap();
    let client = world.client(&node).unwrap();
    staging.push(&ImageSpec::tiny("500"), "app", "1").await.unwrap();
    let put = Rule::new(Action::HoldAfter).method(Method::PUT).path("/app/manifests/1");
    let put = target.proxy().add(put);
    let (source, app) = (staging.reference("app", "1"), target.repository("app"));
    let id = client.publish(&source, &[(&app, &["1"], &[])]).await.unwrap();
    put.reached(PATIENCE).await.unwrap();
    // More often than one question is repeated by itself.
    let busy = Action::Status(StatusCode::INTERNAL_SERVER_ERROR, Vec::new(), "busy".to_owned());
    let head = Rule::new(busy).method(Method::HEAD).path("/app/manifests/1").times(6);
    let head = target.proxy().add(head);
    put.forward();
    let release = client.wait_end(&id).await.unwrap();
    assert_eq!(state(&release), "SUCCEEDED", "{release:#}");
    assert_eq!(head.hits(), 6);
    assert_eq!(kinds(&client, &target.reference("app", "1")).await, ["intent", "confirmed"]);
}
