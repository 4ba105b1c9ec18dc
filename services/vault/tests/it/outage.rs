//! A Vault that is sealed, away, slow, somewhere else or not who it should be: jobs wait.

use std::time::{Duration, Instant};

use colophon_domain::{Failure, Reason, Retry};
use colophon_vault::{Vault, VaultHealth};
use serde_json::json;

use crate::{
    bench::{Bench, ask, vault},
    proxy::{Mode, Proxy},
};

pub async fn waits(vault: &Vault, reason: Reason) -> Failure {
    let failure = ask(vault, None).await.unwrap_err();
    assert_eq!(failure.reason(), reason, "{failure}");
    assert!(matches!(failure.retry_class(), Retry::Wait(_)), "{failure:?}");
    assert!(failure.remedy_text().is_some());
    failure
}

fn answer(status: &str, more: &str, body: &str) -> Mode {
    let length = body.len();
    Mode::Answer(format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\n\r\n{body}"))
}

#[tokio::test]
async fn a_sealed_vault_is_waited_for() {
    let mut bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    let cold = vault(config.clone(), "ghcr");
    config.pat_cache_ttl = Duration::from_nanos(1);
    let warm = vault(config, "ghcr");
    assert_eq!(warm.health().await, VaultHealth::Active);
    ask(&warm, None).await.unwrap();
    bench.bao.seal().await.unwrap();
    assert_eq!(warm.health().await, VaultHealth::Sealed);
    waits(&warm, Reason::VaultSealed).await;
    waits(&cold, Reason::VaultSealed).await;
    bench.bao.unseal().await.unwrap();
    ask(&warm, None).await.unwrap();
    ask(&cold, None).await.unwrap();
}

#[tokio::test]
async fn a_fresh_credential_is_given_while_vault_is_sealed() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    let version = ask(&vault, None).await.unwrap().version;
    bench.bao.seal().await.unwrap();
    assert_eq!(ask(&vault, None).await.unwrap().version, version);
    // But one that was refused is not given again: a newer one may be behind the seal.
    let failure = ask(&vault, Some(version)).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::VaultSealed);
}

#[tokio::test]
async fn a_vault_that_is_down_is_waited_for() {
    let mut bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.address = bench.bao.address().parse().unwrap();
    config.pat_cache_ttl = Duration::from_nanos(1);
    let vault = vault(config, "ghcr");
    ask(&vault, None).await.unwrap();
    bench.bao.kill();
    let failure = waits(&vault, Reason::VaultUnavailable).await;
    assert!(failure.message().contains(&bench.bao.address()), "{failure}");
    assert!(matches!(vault.health().await, VaultHealth::Away(_)));
    bench.bao.restart().await.unwrap();
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn a_vault_that_hangs_is_not_waited_for_longer_than_the_time_out() {
    let bench = Bench::start().await;
    let mut config = bench.token_config(&bench.token(json!({})).await);
    config.request_timeout = Duration::from_millis(200);
    let vault = vault(config, "ghcr");
    bench.proxy.set(Mode::Hold);
    let since = Instant::now();
    let failure = waits(&vault, Reason::VaultUnavailable).await;
    assert!(failure.message().contains("in time"), "{failure}");
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_standby_that_redirects_never_gets_the_token_to_another_host() {
    let bench = Bench::start().await;
    let token = bench.token(json!({})).await;
    let vault = vault(bench.token_config(&token), "ghcr");
    let other = Proxy::start(&bench.bao.address()).await;
    let location = format!("location: {}/v1/auth/token/lookup-self\r\n", other.address);
    bench.proxy.set(answer("307 Temporary Redirect", &location, ""));
    let failure = waits(&vault, Reason::VaultUnavailable).await;
    assert!(failure.message().contains("standby"), "{failure}");
    assert!(!other.saw(&token) && other.count("/v1/") == 0);
}

#[tokio::test]
async fn answers_that_are_no_answer_are_waited_out() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    for (status, body) in [
        ("500 Internal Server Error", "{\"errors\":[\"1 error occurred\"]}"),
        ("502 Bad Gateway", "<html>"),
        ("503 Service Unavailable", ""),
        ("429 Too Many Requests", "{\"errors\":[]}"),
        ("200 OK", "<html>welcome to the portal"),
        ("200 OK", ""),
        ("200 OK", "{}"),
    ] {
        bench.proxy.set(answer(status, "", body));
        waits(&vault, Reason::VaultUnavailable).await;
    }
    bench.proxy.set(answer("503 Service Unavailable", "", "{\"errors\":[\"Vault is sealed\"]}"));
    waits(&vault, Reason::VaultSealed).await;
    bench.proxy.set(Mode::Forward);
    ask(&vault, None).await.unwrap();
}

#[tokio::test]
async fn health_tells_the_states_apart() {
    let bench = Bench::start().await;
    let vault = bench.vault().await;
    for (status, health) in [
        ("200 OK", VaultHealth::Active),
        ("429 Standby", VaultHealth::Active),
        ("473 Performance Standby", VaultHealth::Active),
        ("501 Not Initialised", VaultHealth::Uninitialised),
        ("503 Sealed", VaultHealth::Sealed),
        ("404 Not Found", VaultHealth::Away("it answers 404".to_owned())),
    ] {
        bench.proxy.set(answer(status, "", ""));
        assert_eq!(vault.health().await, health, "{status}");
    }
    bench.proxy.set(answer("472 Disaster Recovery", "", ""));
    assert!(matches!(vault.health().await, VaultHealth::Away(_)));
    assert!(!bench.proxy.saw("x-vault-token"));
}
